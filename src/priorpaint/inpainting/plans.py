"""A run that is ready to start: what it will cost, what it shows before any work, and its start."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .. import __version__
from ..errors import Cancelled, CancelToken, PriorpaintError, memory_shortage_told
from ..imaging import Picture
from ..imaging.mask_preview import hole_facts, mask_preview
from ..priors import Prior
from ..solvers import Cost, Solver
from .events import OnEvent
from .inputs import check_callbacks, check_finished
from .job import PictureJob
from .result import Result

_LIBRARIES = ("torch", "numpy", "pillow", "safetensors", "pydantic")
# What the map of a run says, for run.json.
UNCERTAINTY = (
    "standard deviation over the n samples (n - 1 in the denominator), averaged over the channels; values in [-1, 1]; "
    "for samples of the posterior its square times 1 + 1/n is on average the squared error of their mean"
)

_version = cache(version)  # each call parses the metadata of a package


class Stopped(Cancelled):
    """The run was cancelled; ``result`` holds what was finished, or is None where nothing was."""

    def __init__(self, message: str, result: Result | None) -> None:
        super().__init__(message)
        self.result = result


@dataclass(eq=False)
class Plan:
    """A run that is ready to start: everything is read, checked and loaded, and nothing is drawn.

    Attributes:
        picture: the input, or of a restoration what the results look like.
        prior: ready for pictures of this size, under the condition that was asked for.
        solver: the method with its settings.
        seeds: of the samples.
        batch_size: samples computed together.
        warnings: what the user should hear before any work, one sentence each.
    """

    picture: Picture
    prior: Prior
    solver: Solver
    seeds: list[int]
    batch_size: int
    warnings: tuple[str, ...]
    _job: PictureJob = field(repr=False)
    _about: dict[str, Any] = field(repr=False)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(H, W), True where a pixel is known and stays."""
        return self._job.known

    @property
    def weight(self) -> NDArray[np.float32] | None:
        """(H, W), from 0 to 1, of completions against the picture's own pixels (feather); None is 1 in the hole."""
        return self._job.weight

    @property
    def looks(self) -> Picture:
        """What a writer has to hold: the picture, opaque where the hole will be."""
        return self._job.looks()

    @property
    def windows(self) -> list[dict[str, Any]]:
        """What the prior will see, in order; boxes are (x, y, width, height) in pixels of their scale in the frame."""
        return self._job.windows()

    @property
    def cost(self) -> Cost:
        """Calls of the prior for all samples, one for each row; a fixed-size prior may take several windows a call."""
        return self._job.work.cost(len(self.seeds))

    @property
    def load(self) -> float:
        """What the run computes, in pixels times calls of the prior, with what a call costs besides: it takes time in
        proportion to it."""
        return sum(self._job.work.load(len(self.seeds)).values())

    def about_hole(self) -> str:
        """How much is to be repainted, in how many windows, and with how many calls of the prior; one line."""
        windows, samples = len(self.windows), len(self.seeds)
        parts = f"{windows} window{'s' * (windows != 1)}, {samples} sample{'s' * (samples != 1)}"
        return f"{hole_facts(self.known)}, {parts}, {self.cost.forward + self.cost.backward} calls of the prior"

    def preview(self) -> Image.Image:
        """The picture with its hole tinted and a frame around every window, at most 1024 pixels on a side."""
        frames = [
            tuple(
                start + side * one["scale"] for start, side in zip((*one["frame"][:2], 0, 0), one["box"], strict=True)
            )
            for one in self.windows
        ]
        return mask_preview(self.picture.image, self.known, weight=self.weight, windows=frames, label=self.about_hole())

    def seconds(self) -> float:
        """About how long the run takes here, by timed calls of the prior on the largest and smallest window."""
        return self._job.seconds()

    def memory(self) -> int:
        """About how many bytes the run takes at its peak, from one measured call of each part of the prior."""
        return self._job.memory(self.batch_size)

    def disk(self) -> int:
        """How many bytes the files of the result take at most, as PNG."""
        return self._job.disk()

    @property
    def info(self) -> dict[str, Any]:
        """What run.json says before the first sample: everything that reproduces the run."""
        libraries = [*_LIBRARIES, *(name for name in ("diffusers", "transformers") if name in sys.modules)]
        versions = {name: _version(name) for name in libraries}  # the last two have networks of published priors
        return {
            **self._about,
            "sample_seeds": self.seeds,
            "windows": self.windows,
            "versions": {"priorpaint": __version__, "python": platform.python_version(), **versions},
            "machine": {
                "platform": platform.platform(),
                "device": str(self.prior.device),
                "threads": torch.get_num_threads(),
            },
        }

    def run(
        self,
        on_event: OnEvent | None = None,
        cancel: CancelToken | None = None,
        finished: Sequence[Image.Image] = (),
    ) -> Result:
        """Draw the completions. A plan may be run again; it draws the same ones.

        Args:
            on_event: hears `Loading`, `Step` and `Completion`, in the thread that runs.
            cancel: stops the run within one call of the prior, from any thread.
            finished: the first completions, of an earlier run of the same plan that was stopped; they are not drawn
                again. Mean and uncertainty take their rounded values.

        Raises:
            NotEnoughMemory: there is less than the run takes.
            PriorError: the prior gives values that are not numbers.
            Stopped: the token was cancelled, or ``on_event`` raised `Cancelled`; carries the finished part.

        An error that comes after the first completion carries what was finished as ``error.result``.
        """
        check_callbacks(on_event, cancel)
        check_finished(finished, len(self.seeds), self.picture.size)
        started, nfe = time.time(), self.prior.nfe.copy()
        job = self._job
        failure: PriorpaintError | None = None
        try:
            with memory_shortage_told():
                job.run(self.batch_size, on_event or (lambda event: None), cancel or CancelToken(), finished)
        except Cancelled:
            failure = Stopped(f"stopped after {len(job.images)} of {len(self.seeds)} completions", None)
        except PriorpaintError as error:
            if not job.images:
                raise
            failure = error
        if not job.images:
            raise Stopped("stopped before the first completion was finished", None)
        spent = self.prior.nfe - nfe
        info = {
            **self.info,
            "finished_samples": len(job.images),
            "nfe": {"forward": spent.forward, "backward": spent.backward},
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
            "seconds": {"total": round(time.time() - started, 3), "samples": [round(s, 3) for s in job.seconds_taken]},
        }
        if len(job.images) > 1:
            info["uncertainty"] = UNCERTAINTY
        if finished:
            info["resumed_after"] = len(finished)  # and what it cost is that of the others
        result = job.result(info, self.warnings)
        if failure is not None:
            failure.result = result
            raise failure
        return result
