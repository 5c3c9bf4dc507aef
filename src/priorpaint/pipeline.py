"""The main job as one call: a picture and a mask in, several completions out."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .errors import Cancelled, UsageError
from .filling import MAX_AREA, MAX_AREA_GRADIENT, Filler, Level, frame_of, plan_levels
from .imaging import Mask, Picture, compose, mask_from_alpha, mask_from_boxes, read_mask, read_picture
from .noise import Seed, derive
from .priors import Prior
from .priors.loading import load_prior
from .regions import Bools, Box, thickness
from .results import Result
from .solvers import SOLVERS, Solver
from .solvers import solver as make_solver

# The method where the caller names none, and its settings for holes up to WIDE pixels wide and for wider ones. What a
# narrow hole holds is nearly settled by its surroundings; a wide one needs its texture drawn, which takes a trajectory
# that keeps more of its own noise (docs/results/defaults.md).
DEFAULT_METHOD = "ddnm"
NARROW_SETTINGS: dict[str, Any] = {"steps": 40, "eta": 0.95}
WIDE_SETTINGS: dict[str, Any] = {"steps": 40, "eta": 0.7}
WIDE = 48
# The canvases of one chunk of samples stay below this, in bytes.
_CANVAS_BYTES = 512 * 2**20
# Pixels times samples that keep a CPU busy; larger chunks are not faster and finish their first sample later.
_CPU_AREA = 256 * 256
# Seeds of samples stay below this, so that every JSON reader gets them exactly.
_SEEDS = 2**48
_OPAQUE = 128
# Progress is told in this many parts of a sample.
_PROGRESS = 1000

Source = str | Path | Image.Image | NDArray[Any]
Callback = Callable[[int, int, Tensor], None]


class Stopped(Cancelled):
    """The callback cancelled the run; ``result`` holds what was finished, or is None where nothing was."""

    def __init__(self, message: str, result: Result | None) -> None:
        super().__init__(message)
        self.result = result


def inpaint(
    image: Source | Picture,
    mask: Source | None = None,
    prior: str | Path | Prior = "photos",
    method: str | Solver | None = None,
    num_samples: int = 4,
    seed: Seed = 0,
    *,
    boxes: Sequence[tuple[int, int, int, int]] | None = None,
    mask_means: str = "repaint",
    batch_size: int | None = None,
    callback: Callback | None = None,
    on_sample: Callable[[int, Image.Image], None] | None = None,
    device: torch.device | str | None = None,
    **params: Any,
) -> Result:
    """Draw completions of a picture. Only pixels that the mask says to repaint differ from the input.

    Args:
        image: a path, PIL image, uint8 array (H, W[, 3 or 4]) or ``Picture``, from 16x16 to 40 megapixels.
        mask: a path, PIL image or array (H, W) of the picture's size: white, True or 1 says *repaint* (see
            ``mask_means``); or "alpha": the transparent pixels are to be repainted and become opaque.
        prior: a name or path for ``load_prior``, or a ``Prior``.
        method: a name in ``SOLVERS`` or a ``Solver``; None is ``DEFAULT_METHOD``, with settings for the widest hole.
        num_samples: how many completions.
        seed: an int, from which the seeds of the samples follow; or one int a sample, as ``info["sample_seeds"]``
            lists them. A sample depends on its seed only, not on the others or on ``batch_size``.
        boxes: parts to repaint, (x, y, width, height) in pixels, instead of a mask or in addition to it.
        mask_means: what white means in the mask, "repaint" or "keep".
        batch_size: samples computed together; None is as many as make good use of memory.
        callback: called as callback(step, total, x0_estimate (N, C, h, w) of the present window) after each step of the
            solver, step and total in units of work; may raise ``Cancelled``.
        on_sample: called as on_sample(index, completion) when a completion is finished.
        device: where the prior runs, for a prior by name; None is the GPU where there is one.
        params: settings of the method; with ``method=None`` they change the default settings.

    Returns:
        The completions with their mean, uncertainty and everything that reproduces them.

    Raises:
        UsageError: arguments, picture or mask that cannot be used.
        PriorError: the prior cannot be read, or gives values that are not numbers.
        Stopped: the callback raised ``Cancelled``; it carries the finished part of the result.
    """
    started = time.time()
    picture = image if isinstance(image, Picture) else read_picture(_as_image(image))
    from_alpha = isinstance(mask, str) and mask == "alpha"
    hole = _mask(picture, mask, boxes, mask_means)
    seeds = sample_seeds(seed, num_samples)
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    solver = choose_solver(method, params, thickness(~hole.known))
    loaded = prior if isinstance(prior, Prior) else load_prior(prior, device=device)
    job = _Job(picture, hole.known, from_alpha, loaded, solver, seeds)
    nfe = loaded.nfe.copy()
    stopped = job.run(batch_size, callback, on_sample)
    spent = loaded.nfe - nfe
    if not job.images:
        raise Stopped("stopped before the first completion was finished", None)
    info = {
        "call": {
            "method": _method_name(solver),
            "num_samples": num_samples,
            "seed": seed if isinstance(seed, int) else list(seed),
            "boxes": [list(box) for box in boxes] if boxes else None,
            "mask_means": mask_means,
            "batch_size": job.rows(batch_size),
            **asdict(solver),  # type: ignore[call-overload]
        },
        "prior": _about_prior(prior, loaded),
        "sample_seeds": seeds[: len(job.images)],
        "finished_samples": len(job.images),
        "nfe": {"forward": spent.forward, "backward": spent.backward},
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "seconds": {"total": round(time.time() - started, 3), "samples": [round(s, 3) for s in job.seconds]},
        "image": {**_about_source(image), "size": list(picture.size), "mode": picture.mode, "format": picture.format},
        "mask": {
            **({"alpha": True} if from_alpha else {} if mask is None else _about_source(mask)),
            "known_sha256": hashlib.sha256(np.packbits(hole.known).tobytes()).hexdigest(),
            "hole_share": hole.hole_share,
        },
        "windows": job.windows(),
        "versions": _versions(),
        "machine": _machine(loaded),
    }
    result = job.result(info, (*picture.warnings, *hole.warnings))
    if stopped:
        raise Stopped(f"stopped after {len(job.images)} of {num_samples} completions", result)
    return result


def choose_solver(method: str | Solver | None, params: dict[str, Any], width: int = 0) -> Solver:
    """The solver that ``inpaint`` runs: named, given, or the default with some settings changed.

    Args:
        method: see ``inpaint``.
        params: settings.
        width: of the widest hole, in pixels, for the settings of the default.

    Raises:
        UsageError: an unknown method or setting, or settings beside a ready solver.
    """
    if isinstance(method, Solver):
        if params:
            raise UsageError(f"{', '.join(params)}: a ready solver takes no settings; put them into the solver.")
        return method
    if method is not None:
        return make_solver(method, **params)
    if "preset" in params:
        return make_solver(DEFAULT_METHOD, **params)
    settings = WIDE_SETTINGS if width > WIDE else NARROW_SETTINGS
    return make_solver(DEFAULT_METHOD, **{**settings, **params})


def sample_seeds(seed: Seed, num_samples: int) -> list[int]:
    """The seed of each sample.

    Raises:
        UsageError: num_samples < 1, or another number of seeds than of samples.
    """
    if num_samples < 1:
        raise UsageError(f"num_samples must be at least 1, not {num_samples}")
    if isinstance(seed, int):
        return [derive("inpaint", seed, k) % _SEEDS for k in range(num_samples)]
    if len(seed) != num_samples:
        raise UsageError(f"{len(seed)} seeds were given for {num_samples} samples; pass one int or one seed a sample")
    return [int(value) for value in seed]


@dataclass
class _Job:
    """One picture on its way: the plan, the completions so far and their running moments in the hole."""

    picture: Picture
    known: Bools
    opaque_holes: bool
    prior: Prior
    solver: Solver
    seeds: list[int]
    images: list[Image.Image] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = (self.prior.shape[1], self.prior.shape[2])
        fixed = None if size[0] is None or size[1] is None else (size[0], size[1])
        todo = ~self.known
        self.frame: Box = frame_of(todo, fixed)
        trusted = self.known
        if self.picture.alpha is not None:  # the colour of a transparent pixel means nothing
            trusted = trusted & (self.picture.alpha >= _OPAQUE)
        self.levels: tuple[Level, ...] = plan_levels(
            trusted[self.frame.slices],
            todo[self.frame.slices],
            multiple=self.prior.multiple,
            max_area=MAX_AREA_GRADIENT if self.solver.cost().backward else MAX_AREA,
            size=fixed,
            coarse=fixed is None and hasattr(self.solver, "t_init"),
        )
        self.hole = todo[self.frame.slices]
        channels = 1 if self.picture.grey else 3
        self._mean: NDArray[np.float32] = np.zeros((channels, int(self.hole.sum())), dtype=np.float32)
        self._squares: NDArray[np.float32] = np.zeros_like(self._mean)

    def rows(self, batch_size: int | None) -> int:
        """Samples computed together."""
        if batch_size is not None:
            return min(batch_size, len(self.seeds))
        limit = MAX_AREA_GRADIENT if self.solver.cost().backward else MAX_AREA
        limit = min(limit, _CPU_AREA) if self.prior.device.type == "cpu" else limit
        largest = max(window.box.area for level in self.levels for window in level.windows)
        canvas = self.frame.area * self.prior.shape[0] * 4
        return max(1, min(len(self.seeds), limit // largest, _CANVAS_BYTES // canvas))

    def run(
        self,
        batch_size: int | None,
        callback: Callback | None,
        on_sample: Callable[[int, Image.Image], None] | None,
    ) -> bool:
        """Compute the completions chunk by chunk; True where the callback cancelled."""
        total = _PROGRESS * len(self.seeds)

        def report(share: float, x_0: Tensor) -> None:
            if callback is not None:
                callback(round(share * total), total, x_0)

        filler = Filler(
            self._frame_values(),
            self.levels,
            self.prior,
            self.solver,
            num_samples=len(self.seeds),
            report=report,
            grey=self.picture.grey,
        )
        rows = self.rows(batch_size)
        for first in range(0, len(self.seeds), rows):
            begun = time.monotonic()
            chunk = self.seeds[first : first + rows]
            try:
                canvas = filler.fill(chunk)
            except Cancelled:
                return True
            spent = time.monotonic() - begun
            for row in canvas:
                self._keep(row, spent / len(chunk))
                if on_sample is not None:
                    on_sample(len(self.images) - 1, self.images[-1])
        return False

    def result(self, info: dict[str, Any], warnings: tuple[str, ...]) -> Result:
        """The result so far."""
        count = len(self.images)
        deviation = np.sqrt(self._squares / max(count - 1, 1)).mean(axis=0)
        uncertainty = np.zeros(self.known.shape, dtype=np.float32)
        uncertainty[self.frame.slices][self.hole] = deviation
        mean = self._compose(self._mean)
        return Result(self.images, mean, uncertainty, info, self.known, self.picture, warnings)

    def windows(self) -> list[dict[str, Any]]:
        """The plan, for run.json: boxes are x, y, width, height in pixels of their scale, within the frame."""
        frame = _xywh(self.frame)
        return [
            {"frame": frame, "scale": level.scale, "box": _xywh(window.box), "core": _xywh(window.core), "warm": warm}
            for level in reversed(self.levels)
            for window, warm in zip(level.windows, level.warm, strict=True)
        ]

    def _frame_values(self) -> Tensor:
        """The frame as (1, C, h, w) in [-1, 1]."""
        channels = self.prior.shape[0]
        if channels not in (1, 3) or (channels == 1 and not self.picture.grey):
            raise UsageError(f"the prior {self.prior.name} has {channels} channels, which do not fit this picture")
        values = self.picture.values()[self.frame.slices]
        out = torch.empty(1, channels, self.frame.height, self.frame.width)
        for channel in range(channels):  # without a float copy of all channels: pictures may have 40 megapixels
            out[0, channel] = torch.from_numpy(values[..., min(channel, values.shape[2] - 1)].astype(np.float32))
        return out.mul_(2 / self.picture.levels).sub_(1)

    def _keep(self, canvas: Tensor, seconds: float) -> None:
        """Take in one completion (C, h, w) of the frame; Welford's update of mean and squares."""
        fill = canvas[: len(self._mean)].numpy()[:, self.hole]
        self.images.append(self._compose(fill))
        self.seconds.append(seconds)
        away = fill - self._mean
        self._mean += away / len(self.images)
        self._squares += away * (fill - self._mean)

    def _compose(self, fill: NDArray[np.float32]) -> Image.Image:
        """The picture with values (C, pixels of the hole) in its hole."""
        # np.zeros takes memory only where it is written to, which matters at 40 megapixels.
        full = np.zeros((len(fill), *self.known.shape), dtype=np.float32)
        rows, columns = self.frame.slices
        full[:, rows, columns][:, self.hole] = fill
        return compose(self.picture, torch.from_numpy(full), self.known, opaque_holes=self.opaque_holes)


def _as_image(source: Source) -> str | Path | Image.Image:
    if not isinstance(source, np.ndarray):
        return source
    if source.dtype != np.uint8 or source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] not in (3, 4)):
        raise UsageError(f"a picture as an array is uint8 (H, W[, 3 or 4]), not {source.dtype} {source.shape}")
    return Image.fromarray(source)


def _mask(picture: Picture, mask: Source | None, boxes: Sequence[tuple[int, int, int, int]] | None, means: str) -> Mask:
    """What is known, from the mask and the boxes."""
    masks = []
    if isinstance(mask, str) and mask == "alpha":
        masks.append(mask_from_alpha(picture))
    elif mask is not None:
        masks.append(read_mask(_mask_image(mask) if isinstance(mask, np.ndarray) else mask, picture.size, means=means))
    if boxes:
        masks.append(mask_from_boxes([(int(x), int(y), int(w), int(h)) for x, y, w, h in boxes], picture.size))
    if not masks:
        raise UsageError("there is nothing to repaint; give a mask, boxes, or 'alpha' to take the transparent pixels.")
    known = np.logical_and.reduce([one.known for one in masks])
    if not known.any():
        raise UsageError("the mask and the boxes together cover the whole picture; leave a part of it uncovered.")
    return Mask(known, tuple(warning for one in masks for warning in one.warnings))


def _mask_image(mask: NDArray[Any]) -> Image.Image:
    if mask.ndim != 2:
        raise UsageError(f"a mask as an array has two axes (H, W), not the shape {mask.shape}")
    if mask.dtype == np.uint8 and mask.max(initial=0) > 1:
        return Image.fromarray(mask)
    if not ((mask == 0) | (mask == 1)).all():
        raise UsageError("a mask as an array is bool, holds 0 and 1, or is uint8 from 0 to 255; threshold it first")
    return Image.fromarray((mask != 0).astype(np.uint8) * 255)


def _about_source(source: Source | Picture) -> dict[str, Any]:
    if isinstance(source, Picture):
        source = source.name if source.format is not None and Path(source.name).is_file() else source.image
    if isinstance(source, (str, Path)):
        digest = hashlib.sha256()
        with open(source, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return {"path": str(source), "sha256": digest.hexdigest()}
    data = source if isinstance(source, np.ndarray) else np.asarray(source)
    return {"path": None, "pixels_sha256": hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest()}


def _about_prior(given: str | Path | Prior, prior: Prior) -> dict[str, Any]:
    return {
        "name": prior.name,
        "source": None if isinstance(given, Prior) else str(given),
        "sha256": getattr(prior, "hash", None),
    }


def _method_name(solver: Solver) -> str:
    return next((name for name, cls in SOLVERS.items() if type(solver) is cls), type(solver).__name__)


def _versions() -> dict[str, str]:
    from . import __version__  # the package is complete by now

    others = ("torch", "numpy", "pillow", "safetensors", "pydantic")
    return {"priorpaint": __version__, "python": platform.python_version(), **{name: version(name) for name in others}}


def _machine(prior: Prior) -> dict[str, Any]:
    return {"platform": platform.platform(), "device": str(prior.device), "threads": torch.get_num_threads()}


def _xywh(box: Box) -> list[int]:
    return [box.left, box.top, box.width, box.height]
