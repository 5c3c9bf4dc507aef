"""One picture on its way through the main job: samples chunk by chunk, their moments, what is told meanwhile."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import CancelToken, UsageError
from ..imaging import Picture, compose
from ..imaging.picture import OPAQUE
from ..priors import Prior, TiledPrior
from ..priors.base import Denoising
from ..priors.info import RunNFE
from ..priors.wrapped import WrappedPrior
from ..solvers import Solver
from .coarse_to_fine import CoarseToFine, Estimate, WindowSampler, Work
from .events import Completion, Loading, OnEvent, Step
from .forecast import Forecast
from .levels import MAX_AREA, MAX_AREA_GRADIENT, Level, frame_of, plan_levels, plan_whole
from .memory import measure, plan_for
from .result import Result
from .windows import Bools, Box, Window

# The canvases of one chunk of samples stay below this, in bytes.
_CANVAS_BYTES = 512 * 2**20
# Pixels times samples that keep a CPU busy; larger chunks are not faster and finish their first sample later.
_CPU_AREA = 256 * 256
# Most pixels that are shown to a prior of a fixed size at once, made small.
MAX_RESIZED = 16_000_000
# Progress is told in this many parts of a sample.
_PROGRESS = 1000
# Windows whose sizes differ by this say how the time of a call depends on its size; else the usual is taken.
_APART = 4


class CancellablePrior(WrappedPrior):
    """The same prior, whose ``nfe`` counts the calls of this run only; inside ``cancelled_by`` each call first looks
    at the token.
    """

    def __init__(self, inner: Prior) -> None:
        super().__init__(inner)
        self.nfe = self._spent = RunNFE(inner.nfe)
        self._token = CancelToken()

    @contextmanager
    def cancelled_by(self, token: CancelToken) -> Iterator[None]:
        """Calls inside raise `Cancelled` once the token is cancelled."""
        self._token = token
        try:
            yield
        finally:
            self._token = CancelToken()

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        self._token.check()
        with self._spent.listening():
            return self.inner.evaluate(x_t, t, given)


def fitted(prior: Prior, fit: str, size: tuple[int, int] | None = None) -> Prior:
    """The prior for pictures of any size: itself, or a fixed-size one in `TiledPrior`.

    Args:
        size: (height, width) that need not be a multiple of what the prior asks for; the picture is then continued by
            reflection for each call.

    Raises:
        UsageError: an unknown ``fit``, or one that this prior has no use for.
    """
    height, width = prior.shape[1:]
    if height is not None and width is not None:
        return TiledPrior(prior, fit, rows=max(1, MAX_AREA // (height * width)))
    if fit != "windows":
        raise UsageError(f"the prior {prior.name} works on pictures of any size; leave fit={fit!r} out")
    if size is None or prior.latent:
        return prior
    height, width = (-(-side // prior.multiple) * prior.multiple for side in size)
    if (height, width) == size:
        return prior
    return TiledPrior(WrappedPrior(prior, shape=(prior.shape[0], height, width)))


@dataclass(kw_only=True)
class PictureJob(ABC):
    """One picture on its way: the plan, the samples so far and their running moments in the hole.

    Attributes:
        picture: what the results look like outside the hole; it gives them their size and mode.
        known: (H, W), True outside the hole.
        prior: ready for the picture, around ``cancellable``.
        weight: (H, W), from 0 to 1, of completions against the picture's own pixels in the hole; None is 1.
        frame: the part of the picture that matters, of which ``hole`` is the hole.
        expected: bytes of prior and method, where a limit was set.
    """

    picture: Picture
    known: Bools
    prior: Prior
    cancellable: CancellablePrior
    solver: Solver
    seeds: list[int]
    refiner: Solver | None = None
    opaque_holes: bool = False
    shared_rows: int | None = None
    weight: NDArray[np.float32] | None = None
    frame: Box = field(init=False)
    expected: int | None = field(init=False, default=None)
    _warm: bool = field(init=False, default=False, repr=False)
    _masked: ClassVar[bool] = False  # whether what is measured is the pixels outside a mask

    def __post_init__(self) -> None:
        channels = self.prior.image_shape[0]
        if channels not in (1, 3) or (channels == 1 and not self.picture.grey):
            kind = "grey" if channels == 1 else f"{channels}-channel"
            raise UsageError(
                f"the prior {self.prior.name} knows {kind} pictures, and this one has colours; convert it, or choose "
                "another prior (`priorpaint priors`)."
            )
        self.frame, windows = self._plan()
        box = max((window.box for window in windows), key=lambda box: box.area)
        self.solver = self.solver.settled(self.prior, self.prior.latent_shape(box.height, box.width), self._masked)
        self.work = Work(windows, self.solver, self.prior.schedule, self.refiner)
        self.hole = ~self.known[self.frame.slices]

    @abstractmethod
    def _plan(self) -> tuple[Box, Sequence[Window]]:
        """Frame and windows, in order.

        Raises:
            UsageError: the prior cannot do it.
        """

    @abstractmethod
    def _filler(self, sampler: WindowSampler) -> Callable[[Sequence[int]], Tensor]:
        """What makes completions (N, C, h, w) of the frame from the seeds of samples, valid until its next call."""

    @property
    def _largest(self) -> Box:
        """The largest window."""
        return max((window.box for window in self.work.windows), key=lambda box: box.area)

    @property
    def _gradient(self) -> bool:
        return self.solver.cost().backward > 0

    def rows(self, batch_size: int | None) -> int:
        """Samples computed together."""
        if batch_size is not None:
            return min(batch_size, len(self.seeds))
        limit = MAX_AREA_GRADIENT if self._gradient else MAX_AREA
        limit = min(limit, _CPU_AREA) if self.prior.device.type == "cpu" else limit
        canvas = self.frame.area * self.prior.image_shape[0] * 4
        return max(1, min(len(self.seeds), limit // self._largest.area, _CANVAS_BYTES // canvas))

    def keep_below(self, limit: int, batch_size: int | None) -> int:
        """Change the prior so that a run stays below ``limit`` bytes, and say how many samples it may have at a time.

        Raises:
            UsageError: it cannot.
        """
        box = self._largest
        # Work for all samples has rows of its own, which share the limit.
        rows = max(self.rows(batch_size), self.solver.shared_rows)
        plan = plan_for(limit, self.prior, self.solver, height=box.height, width=box.width, rows=rows)
        self.prior, self.shared_rows, self.expected = plan.applied(self.prior), plan.rows, plan.expected
        self._warm = True  # by the measurement
        return plan.rows

    def memory(self, batch_size: int) -> int:
        """About how many bytes the run takes at most: prior, method, canvases and completions."""
        expected, box = self.expected, self._largest
        if expected is None:
            graph = self.solver.graph if self._gradient else None
            footprint = measure(self.prior, box.height, box.width, gradient=graph is not None)
            self._warm = True
            rows = min(max(batch_size, self.solver.shared_rows), len(self.seeds) * max(1, self.solver.shared_rows))
            expected = footprint.needs(rows, graph, checkpoint=False)
        channels = self.prior.image_shape[0]
        canvases = round(4 / 3 * 4 * channels * self.frame.area * batch_size)  # and their halves
        floats = 3 * 4 * channels * self.known.size  # of a completion that is put into the picture
        return expected + canvases + floats + (len(self.seeds) + 1) * self._stored

    def disk(self) -> int:
        """How many bytes the results take at most: completions and mean, uncertainty as numbers and colours, sheet."""
        uncertainty = 8 * self.known.size if len(self.seeds) > 1 else 0
        return (len(self.seeds) + 1) * self._stored + uncertainty + 4 * 2**20

    @property
    def _stored(self) -> int:
        """Bytes of the picture's pixels."""
        depth = 2 if self.picture.mode == "I;16" else 1
        return depth * len(self.picture.image.getbands()) * self.known.size

    @torch.no_grad()
    def seconds(self) -> float:
        """An estimate for the run, from one timed call on the largest window, and one on the smallest where that is
        much smaller; they are not counted.
        """
        large = self._largest
        small = min((window.box for window in self.work.windows), key=lambda box: box.area)
        spent = self._timed(large, warm=self._warm)
        if small.area * _APART <= large.area:
            least = self._timed(small, warm=False)
            slope = max(spent - least, 1e-3 * spent) / (large.area - small.area)
            self.work.call = max(least / slope - small.area, 0.0)
        return spent * sum(self.work.load(len(self.seeds)).values()) / (large.area + self.work.call)

    def _timed(self, box: Box, warm: bool) -> float:
        """Seconds of one call on a window of this size."""
        x_t = torch.zeros(1, *self.prior.latent_shape(box.height, box.width), device=self.prior.device)
        with self.prior.nfe.uncounted():
            if not warm:  # the first call also plans and allocates
                self.prior.denoise(x_t, 0.5)
            begun = time.monotonic()
            self.prior.denoise(x_t, 0.5)
            return time.monotonic() - begun

    def run(
        self, batch_size: int, on_event: OnEvent, cancel: CancelToken, finished: Sequence[Image.Image] = ()
    ) -> None:
        """Compute the completions chunk by chunk.

        Args:
            finished: the first ones, of an earlier run.

        Raises:
            Cancelled: somebody cancelled; ``images`` holds what is finished.
        """
        self.images: list[Image.Image] = []
        self.seconds_taken: list[float] = []
        channels = 1 if self.picture.grey else 3
        self._mean: NDArray[np.float32] = np.zeros((channels, int(self.hole.sum())), dtype=np.float32)
        self._squares: NDArray[np.float32] = np.zeros_like(self._mean)
        for image in finished:
            self._keep(self._fill_of(image))
        missing = self.seeds[len(finished) :]
        total = _PROGRESS * len(missing)

        def report(forecast: Forecast, estimate: Estimate) -> None:
            cancel.check()
            first, rows = (len(self.images), estimate.rows) if estimate.rows else (len(finished), len(missing))
            scale = estimate.window.scale
            full = estimate.window.box.scaled(scale)
            place = full.left + self.frame.left, full.top + self.frame.top, full.width, full.height
            done, samples = round(forecast.share * total), tuple(range(first, first + rows))
            left = forecast.seconds_left()
            on_event(Step(done, total, place, scale, samples, left, lambda: self._preview(estimate)))

        with self.cancellable.cancelled_by(cancel):
            on_event(Loading("the picture"))
            if not missing:
                return
            fill = self._filler(WindowSampler(self.work, len(missing), report, self.picture.grey, self.shared_rows))
            for first in range(0, len(missing), batch_size):
                begun, chunk = time.monotonic(), missing[first : first + batch_size]
                canvas = fill(chunk)
                spent = time.monotonic() - begun
                for row in canvas:
                    self._keep(row[: len(self._mean)].numpy()[:, self.hole])
                    self.seconds_taken.append(spent / len(chunk))
                    on_event(Completion(len(self.images) - 1, self.images[-1]))

    @torch.no_grad()
    def _preview(self, estimate: Estimate) -> Image.Image:
        """The picture with the estimate of one sample in its hole, as far as the window goes."""
        x_0 = self.prior.decode(estimate.x_0[:1]).float().cpu()
        if x_0.shape[1] != len(self._mean):
            x_0 = x_0.mean(dim=1, keepdim=True).expand(-1, len(self._mean), -1, -1)
        scale = estimate.window.scale
        full = F.interpolate(x_0, scale_factor=scale, mode="nearest")[0].clamp(-1, 1).numpy()
        frame = np.zeros((len(full), *self.hole.shape), dtype=np.float32)
        box = estimate.window.box.scaled(scale)
        shown = box.inside(self.hole.shape)
        part = full[:, shown.top - box.top : shown.bottom - box.top, shown.left - box.left : shown.right - box.left]
        rows, columns = shown.slices
        frame[:, rows, columns] = part
        return self._compose(frame[:, self.hole])

    def looks(self) -> Picture:
        """What a writer has to hold: the picture, opaque where the hole will be."""
        if not self.opaque_holes or self.picture.mode not in ("LA", "RGBA") or self.picture.alpha is None:
            return self.picture
        image = self.picture.image.copy()
        image.putalpha(Image.fromarray(np.where(self.known, self.picture.alpha, np.uint8(255))))
        return replace(self.picture, image=image)

    def result(self, info: dict[str, Any], warnings: tuple[str, ...]) -> Result:
        """The result so far."""
        count, uncertainty = len(self.images), None
        if count > 1:
            deviation = np.sqrt(self._squares / (count - 1)).mean(axis=0)
            uncertainty = np.zeros(self.known.shape, dtype=np.float32)
            uncertainty[self.frame.slices][self.hole] = deviation
        mean = self._compose(self._mean)
        return Result(self.images, mean, uncertainty, info, self.known, self.picture, warnings)

    def windows(self) -> list[dict[str, Any]]:
        """The plan, for run.json: boxes are x, y, width, height in pixels of their scale, within the frame."""
        frame = _xywh(self.frame)
        return [
            {"frame": frame, "scale": w.scale, "box": _xywh(w.box), "core": _xywh(w.core), "start": w.start}
            for w in self.work.windows
        ]

    def _keep(self, fill: NDArray[np.float32]) -> None:
        """Take in the hole (C, pixels) of one completion; Welford's update of mean and squares."""
        self.images.append(self._compose(fill))
        away = fill - self._mean
        self._mean += away / len(self.images)
        self._squares += away * (fill - self._mean)

    def _fill_of(self, image: Image.Image) -> NDArray[np.float32]:
        """The hole (C, pixels) of a finished completion."""
        values = replace(self.picture, image=image).to_tensor(len(self._mean))[0].numpy()
        fill: NDArray[np.float32] = values[(slice(None), *self.frame.slices)][:, self.hole]
        return fill

    def _compose(self, fill: NDArray[np.float32]) -> Image.Image:
        """The picture with values (C, pixels of the hole) in its hole."""
        # np.zeros takes memory only where it is written to, which matters at 40 megapixels.
        full = np.zeros((len(fill), *self.known.shape), dtype=np.float32)
        rows, columns = self.frame.slices
        full[:, rows, columns][:, self.hole] = fill
        return compose(self.picture, torch.from_numpy(full), self.known, opaque_holes=self.opaque_holes)


class InpaintJob(PictureJob):
    """The hole of one picture, filled by windows from coarse to fine."""

    _masked = True

    def _plan(self) -> tuple[Box, Sequence[Window]]:
        todo, trusted = ~self.known, self.known
        if self.picture.alpha is not None:  # the colour of a transparent pixel means nothing
            trusted = trusted & (self.picture.alpha >= OPAQUE)
        height, width = self.prior.info.window
        size = None if height is None or width is None else (height, width)  # that a fixed-size prior knows
        whole = size is not None and self.prior.info.fit == "resize"
        frame = Box(0, 0, *todo.shape) if whole else frame_of(todo, size)
        trusted, todo = trusted[frame.slices], todo[frame.slices]
        if size is not None and whole:
            self._levels: tuple[Level, ...] = (plan_whole(trusted, todo, size),)
            if self._levels[0].windows[0].box.area > MAX_RESIZED:
                raise UsageError(
                    f"fit='resize' works on at most {MAX_RESIZED // 10**6} megapixels around the hole; give a smaller "
                    "picture, or use fit='windows'."
                )
        else:
            area = MAX_AREA_GRADIENT if self._gradient else MAX_AREA
            self._levels = plan_levels(
                trusted,
                todo,
                multiple=self.prior.image_multiple,
                # Windows that overlap by half on both axes keep every pixel four times for the way back.
                max_area=area // 4 if self._gradient and size is not None else area,
                size=size,
                coarse=self.solver.warm_start and not self.prior.latent,
                smooth=self.refiner is not None and not self.prior.latent,
            )
        return frame, [window for level in reversed(self._levels) for window in level.windows]

    def _filler(self, sampler: WindowSampler) -> Callable[[Sequence[int]], Tensor]:
        values = self._frame_values()
        fill = CoarseToFine(values, self._levels, self.prior, sampler).fill
        if self.weight is None:
            return fill
        weight = torch.from_numpy(self.weight[self.frame.slices])
        seam = torch.from_numpy(self.hole) & (weight < 1)
        own, weight = values[:, :, seam].clone(), weight[seam]  # copied, as the values are painted on

        def blended(seeds: Sequence[int]) -> Tensor:
            canvas = fill(seeds)
            canvas[:, :, seam] = torch.lerp(own, canvas[:, :, seam], weight)
            return canvas

        return blended

    def _frame_values(self) -> Tensor:
        """The frame as (1, C, h, w) in [-1, 1]."""
        channels = self.prior.image_shape[0]
        values, scale = self.picture.values()[self.frame.slices], self.picture.scale
        out = torch.empty(1, channels, self.frame.height, self.frame.width)
        for channel in range(channels):  # without a float copy of all channels: pictures may have 40 megapixels
            out[0, channel] = torch.from_numpy(scale.to_unit(values[..., min(channel, values.shape[2] - 1)]))
        return out


def _xywh(box: Box) -> list[int]:
    return [box.left, box.top, box.width, box.height]
