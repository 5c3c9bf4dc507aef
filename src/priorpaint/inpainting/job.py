"""One picture on its way through the main job."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import Cancelled, UsageError
from ..imaging import Picture, compose
from ..priors import AnySize, Prior
from ..solvers import Solver
from ..solvers.vipaint.solver import VIPaint
from .coarse_to_fine import (
    MAX_AREA,
    MAX_AREA_GRADIENT,
    Filler,
    Level,
    frame_of,
    plan_levels,
    plan_whole,
)
from .memory import MemoryPlan, plan_for
from .result import Result
from .windows import Bools, Box

# The canvases of one chunk of samples stay below this, in bytes.
_CANVAS_BYTES = 512 * 2**20
# Pixels times samples that keep a CPU busy; larger chunks are not faster and finish their first sample later.
_CPU_AREA = 256 * 256
_OPAQUE = 128
# Most pixels that are shown to a prior of a fixed size at once, made small.
MAX_RESIZED = 16_000_000
# Progress is told in this many parts of a sample.
_PROGRESS = 1000

Callback = Callable[[int, int, Tensor], None]


def fitted(prior: Prior, fit: str) -> Prior:
    """The prior for pictures of any size: itself, or a fixed-size one in `AnySize`.

    Raises:
        UsageError: an unknown ``fit``, or one that this prior has no use for.
    """
    height, width = prior.shape[1:]
    if height is not None and width is not None:
        return AnySize(prior, fit, rows=max(1, MAX_AREA // (height * width)))
    if fit != "windows":
        raise UsageError(f"the prior {prior.name} works on pictures of any size; leave fit={fit!r} out")
    return prior


@dataclass
class Painting:
    """One picture on its way: the plan, the completions so far and their running moments in the hole."""

    picture: Picture
    known: Bools
    opaque_holes: bool
    prior: Prior
    solver: Solver
    seeds: list[int]
    images: list[Image.Image] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    fit_rows: int | None = None

    def __post_init__(self) -> None:
        todo = ~self.known
        trusted = self.known
        if self.picture.alpha is not None:  # the colour of a transparent pixel means nothing
            trusted = trusted & (self.picture.alpha >= _OPAQUE)
        self.frame: Box = frame_of(todo, self._size) if self._fit == "windows" else Box(0, 0, *todo.shape)
        self.levels: tuple[Level, ...] = self._plan(trusted[self.frame.slices], todo[self.frame.slices])
        self.hole = todo[self.frame.slices]
        channels = 1 if self.picture.grey else 3
        self._mean: NDArray[np.float32] = np.zeros((channels, int(self.hole.sum())), dtype=np.float32)
        self._squares: NDArray[np.float32] = np.zeros_like(self._mean)

    @property
    def _size(self) -> tuple[int, int] | None:
        """(height, width) in pixels of the pictures that a fixed-size prior knows."""
        size: tuple[int | None, int | None] = getattr(self.prior, "image_window", (None, None))
        return None if size[0] is None or size[1] is None else (size[0], size[1])

    @property
    def _fit(self) -> str:
        return "windows" if self._size is None else str(getattr(self.prior, "fit", "windows"))

    @property
    def _gradient(self) -> bool:
        return self.solver.cost().backward > 0

    def _plan(self, known: Bools, todo: Bools) -> tuple[Level, ...]:
        if self._size is not None and self._fit == "resize":
            level = plan_whole(known, todo, self._size)
            if level.windows[0].box.area > MAX_RESIZED:
                raise UsageError(
                    f"fit='resize' works on at most {MAX_RESIZED // 10**6} megapixels around the hole; give a smaller "
                    "picture, or use fit='windows'."
                )
            return (level,)
        area = MAX_AREA_GRADIENT if self._gradient else MAX_AREA
        return plan_levels(
            known,
            todo,
            multiple=self.prior.image_multiple,
            # Windows that overlap by half on both axes keep every pixel four times for the way back.
            max_area=area // 4 if self._gradient and self._size is not None else area,
            size=self._size,
            coarse=self.solver.warm_start and not self.prior.latent,
        )

    def rows(self, batch_size: int | None) -> int:
        """Samples computed together."""
        if batch_size is not None:
            return min(batch_size, len(self.seeds))
        limit = MAX_AREA_GRADIENT if self._gradient else MAX_AREA
        limit = min(limit, _CPU_AREA) if self.prior.device.type == "cpu" else limit
        largest = max(window.box.area for level in self.levels for window in level.windows)
        canvas = self.frame.area * self.prior.image_shape[0] * 4
        return max(1, min(len(self.seeds), limit // largest, _CANVAS_BYTES // canvas))

    def keep_below(self, limit: int, batch_size: int | None) -> MemoryPlan:
        """Change the prior so that a run stays below ``limit`` bytes, and say how many rows it may have at a time.

        Raises:
            UsageError: it cannot.
        """
        box = max((window.box for level in self.levels for window in level.windows), key=lambda box: box.area)
        rows = self.rows(batch_size)
        if isinstance(self.solver, VIPaint):  # its fit has rows of its own, and they share the limit
            rows = max(rows, self.solver.rules.mc_samples * self.solver.components)
        plan = plan_for(limit, self.prior, self.solver, height=box.height, width=box.width, rows=rows)
        self.prior, self.fit_rows = plan.applied(self.prior), plan.rows
        return plan

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
            fit_rows=self.fit_rows,
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
        channels = self.prior.image_shape[0]
        if channels not in (1, 3) or (channels == 1 and not self.picture.grey):
            kind = "grey" if channels == 1 else f"{channels}-channel"
            raise UsageError(
                f"the prior {self.prior.name} knows {kind} pictures, and this one has colours; convert it, or choose "
                "another prior (`priorpaint priors`)."
            )
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


def _xywh(box: Box) -> list[int]:
    return [box.left, box.top, box.width, box.height]
