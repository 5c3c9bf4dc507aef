"""Fill the holes of one picture: windows one after another, and large holes from coarse to fine.

A hole that is wider than what the network relates at once would fall apart into unrelated textures. It is first filled
in the picture at half the size, where it is half as wide (and so on down), then enlarged, noised to a middle level
and denoised again at full size: the coarse pass decides what is there, the fine pass how it looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..diffusion.rng import derive
from ..errors import PriorError
from ..operators import Inpainting
from ..priors import Prior
from ..solvers import Cost, Solver
from ..solvers.vipaint.posterior import Posterior
from ..solvers.vipaint.solver import VIPaint
from .windows import (
    Bools,
    Box,
    Window,
    bounding_box,
    format_box,
    plan_windows,
    thickness,
)

# Holes wider than this, in pixels, are filled from coarse to fine, starting where they are at most COARSEST wide. Both
# are small, because the colour of a hole is settled far better in a few coarse pixels (docs/results/defaults.md).
COARSE_ABOVE, COARSEST = 10, 10
# Noise level (sigma / alpha) at which the enlarged coarse fill is handed to the finer scale: well above the detail that
# halving a photo loses, so that the fine pass draws this anew, and below what decides the content.
REFINE_RATIO = 0.5
# Largest windows, in pixels times samples, without and with a gradient through the network; the network for photos
# takes about 0.4 and 1.2 GB a megapixel.
MAX_AREA, MAX_AREA_GRADIENT = 1024 * 1024, 640 * 640

Report = Callable[[float, Tensor], None]


@dataclass(frozen=True)
class Level:
    """The picture at one scale.

    Attributes:
        scale: 1 is full size, 2 is half the size, ...
        known: (h, w), True where a pixel of this scale is known.
        todo: (h, w), True where one is to be filled at this scale.
        windows: where, in order.
        warm: for each window, whether it starts from the next coarser level.
        shared: for each window, whether it sees nothing that an earlier one filled in, so is the same for all samples.
    """

    scale: int
    known: Bools
    todo: Bools
    windows: tuple[Window, ...]
    warm: tuple[bool, ...]
    shared: tuple[bool, ...]


def plan_levels(
    known: Bools, todo: Bools, *, multiple: int, max_area: int, size: tuple[int, int] | None, coarse: bool
) -> tuple[Level, ...]:
    """The work for one picture, finest scale first.

    Args:
        known: (H, W), True where a pixel is known.
        todo: (H, W), True where a pixel is to be filled; others that are not known are left open.
        multiple, max_area: see ``plan_windows``.
        size: (height, width) of the pictures that a fixed-size prior knows, the least that a window has.
        coarse: whether wide holes are filled at coarser scales first. For a prior of a fixed size they are wide above
            half of it, and coarser scales end where it sees the whole picture at once.
    """
    half = None if size is None else min(size) // 2
    above, coarsest, least = (COARSE_ABOVE, COARSEST, 2 * COARSEST) if half is None else (half, half, 4 * half)
    levels: list[Level] = []
    scale = 1
    while True:
        windows = plan_windows(todo, known, multiple=multiple, max_area=max_area, least=size)
        limit = (above if scale == 1 else coarsest) if coarse and min(known.shape) >= least else None
        warm = tuple(limit is not None and window.thickness > limit for window in windows)
        levels.append(Level(scale, known, todo, windows, warm, _shared(windows, todo)))
        if not any(warm):
            return tuple(levels)
        wanted = np.zeros_like(todo)
        for window in (window for window, starts in zip(windows, warm, strict=True) if starts):
            part = _inside(window.box, todo.shape).slices
            wanted[part] = ~known[part]
        known, todo = _halved_known(known), np.asarray(_blocks(wanted, value=False).any(axis=(1, 3)))
        todo &= ~known
        scale *= 2


def plan_whole(known: Bools, todo: Bools, size: tuple[int, int]) -> Level:
    """One window that holds all of ``todo`` (H, W) and as much of the picture as the format of ``size`` allows."""
    core = bounding_box(todo)
    window = Window(format_box(todo.shape, core, size), core, thickness(todo))
    return Level(1, known, todo, (window,), (False,), (True,))


class Filler:
    """Draws completions of one picture.

    Args:
        picture: (1, C, H, W) float32 in [-1, 1]; what is not known is never looked at. It is painted on.
        levels: of ``plan_levels``.
        prior, solver: what draws.
        num_samples: how many completions will be asked for in all calls, for the share of work that is done.
        report: called after each step as report(share of work done, estimate of x_0 in the window); may raise.
        grey: the channels are averaged after every window.
        fit_rows: rows that a fit computes at a time; None is as many as windows of the largest size would take.
    """

    def __init__(
        self,
        picture: Tensor,
        levels: Sequence[Level],
        prior: Prior,
        solver: Solver,
        *,
        num_samples: int,
        report: Report,
        grey: bool,
        fit_rows: int | None = None,
    ) -> None:
        self.picture, self.levels, self.prior, self.solver, self.grey = picture, levels, prior, solver, grey
        self._fit_rows = fit_rows
        self._canvases: list[Tensor] = []
        self._refiner = _refiner(solver, prior) if any(any(level.warm) for level in levels) else solver
        self._fits: dict[tuple[int, int], Posterior] = {}
        self._report, self._done = report, 0.0
        self._total = sum(
            self._work(level, number, num_samples) for level in levels for number in range(len(level.windows))
        )

    def fill(self, seeds: Sequence[int]) -> Tensor:
        """Completions (N, C, H, W), one a seed, valid until the next call; only filled and known pixels have meaning.

        Args:
            seeds: one a sample; each gives the same completion in any company.
        """
        self._allocate(len(seeds))
        for place in reversed(range(len(self.levels))):
            level, canvas = self.levels[place], self._canvases[place][: len(seeds)]
            below = self._canvases[place + 1][: len(seeds)] if place + 1 < len(self.levels) else None
            known = level.known.copy()
            for number, window in enumerate(level.windows):
                guess = None if below is None or not level.warm[number] else _enlarged(below, window, known.shape)
                _fill_region(self, canvas, known, level, number, guess, seeds)
        return self._canvases[0][: len(seeds)]

    def solve(
        self, y: Tensor, known: Bools, level: Level, number: int, guess: Tensor | None, seeds: Sequence[int]
    ) -> Tensor:
        """Samples (N, C, h, w) of a window given y (N, C, h, w), from noise or, where there is one, from a guess."""
        box = level.windows[number].box
        keys = [derive("window", seed, level.scale, box.top, box.left) for seed in seeds]
        operator = Inpainting(torch.from_numpy(known))
        if isinstance(self.solver, VIPaint) and level.shared[number]:
            out = self._sample_fit(operator, y[:1], level, number, keys)
        elif guess is None:
            callback = self._progress(level, number, len(seeds))
            out = self.solver.sample(self.prior, operator, operator(y), seed=keys, callback=callback)[:, 0]
        else:
            callback, initial = self._progress(level, number, len(seeds)), operator.project(guess, y)[:, None]
            out = self._refiner.sample(
                self.prior, operator, operator(y), seed=keys, callback=callback, initial=initial
            )[:, 0]
        out = out.cpu()
        if not bool(torch.isfinite(out).all()):
            name = type(self.solver).__name__
            raise PriorError(f"{name} gave values that are not numbers; use float32, or other settings.")
        return out.mean(dim=1, keepdim=True).expand_as(out) if self.grey else out

    def _sample_fit(self, operator: Inpainting, y: Tensor, level: Level, number: int, keys: list[int]) -> Tensor:
        """Samples of a posterior that is fitted once for all samples, with a seed that belongs to the window alone."""
        assert isinstance(self.solver, VIPaint)
        box = level.windows[number].box
        cost, per_sample = self.solver.cost(0), self.solver.cost(1)
        weight = _weight(cost) / max(_weight(per_sample), 1)
        if (level.scale, number) not in self._fits:
            self._fits[level.scale, number] = self.solver.fit(
                self.prior,
                operator,
                operator(y),
                seed=[derive("fit", level.scale, box.top, box.left)],
                batch_size=self._fit_rows or max(1, MAX_AREA_GRADIENT // box.area),
                callback=self._progress(level, number, weight),
            )
        posterior = self._fits[level.scale, number]
        # One at a time: rows of one call would share the seed of their image, and here each sample has its own.
        return torch.cat(
            [posterior.sample(1, seed=[key], callback=self._progress(level, number, 1 - weight))[:, 0] for key in keys]
        )

    def _progress(self, level: Level, number: int, rows: float) -> Callable[[int, int, Tensor], None]:
        """A solver's callback for work on so many rows of a window."""
        start, work = self._done, self._row_work(level, number) * rows

        def callback(step: int, total: int, x_0: Tensor) -> None:
            self._done = start + work * step / total
            self._report(min(self._done / self._total, 1.0), x_0)

        return callback

    def _row_work(self, level: Level, number: int) -> float:
        """Pixels x network evaluations of one sample in a window, the unit of work."""
        solver = self._refiner if level.warm[number] else self.solver
        return level.windows[number].box.area * _weight(solver.cost())

    def _work(self, level: Level, number: int, num_samples: int) -> float:
        if not (isinstance(self.solver, VIPaint) and level.shared[number]):
            return self._row_work(level, number) * num_samples
        return level.windows[number].box.area * _weight(self.solver.cost(num_samples))

    def _allocate(self, rows: int) -> None:
        if self._canvases and len(self._canvases[0]) >= rows:
            return
        # The known pixels of old canvases are still the picture's own; at 40 megapixels every copy counts.
        pictures = self._canvases or [self.picture]
        for level in self.levels[len(pictures) - 1 : -1]:
            pictures.append(_halved(pictures[-1], level.known))
        self._canvases = [picture if rows == 1 else picture[:1].repeat(rows, 1, 1, 1) for picture in pictures]


def frame_of(todo: Bools, size: tuple[int, int] | None) -> Box:
    """The part of a picture (H, W) that can matter for filling ``todo``."""
    box = bounding_box(todo)
    margin = max(128, thickness(todo), *(size or (0,)))
    return _inside(Box(box.top - margin, box.left - margin, box.bottom + margin, box.right + margin), todo.shape)


def _shared(windows: Sequence[Window], todo: Bools) -> tuple[bool, ...]:
    filled = np.zeros_like(todo)
    answers = []
    for window in windows:
        answers.append(not filled[_inside(window.box, todo.shape).slices].any())
        filled[window.core.slices] |= todo[window.core.slices]
    return tuple(answers)


def _fill_region(
    filler: Filler,
    canvas: Tensor,
    known: Bools,
    level: Level,
    number: int,
    guess: Tensor | None,
    seeds: Sequence[int],
) -> None:
    """Fill one window's core on the canvas (N, C, H, W) and mark it as known."""
    window = level.windows[number]
    rows, columns = window.index(known.shape)
    y = canvas[:, :, torch.from_numpy(rows), torch.from_numpy(columns)]
    filled = filler.solve(y, known[rows, columns], level, number, guess, seeds)
    core, box = window.core, window.box
    fresh = level.todo[core.slices] & ~known[core.slices]
    part = filled[:, :, core.top - box.top : core.bottom - box.top, core.left - box.left : core.right - box.left]
    target = canvas[:, :, core.top : core.bottom, core.left : core.right]
    target.copy_(torch.where(torch.from_numpy(fresh), part.clamp(-1, 1), target))
    known[core.slices] |= fresh


def _weight(cost: Cost) -> float:
    """Network evaluations, one with a gradient counted as three without."""
    return float(cost.forward + 3 * cost.backward)


def _refiner(solver: Solver, prior: Prior) -> Solver:
    """The solver, started at REFINE_RATIO with the number of steps that it would take from there."""
    settings: Any = solver
    schedule = prior.schedule
    start = float(schedule.time(torch.tensor(REFINE_RATIO, dtype=torch.float64)))
    steps = int((schedule.grid(settings.steps, settings.spacing)[:-1] < start).sum()) + 1
    spacing = None if settings.spacing == "respaced" else settings.spacing  # that grid always starts at 1
    refiner: Solver = replace(settings, steps=min(steps, settings.steps), spacing=spacing, t_init=start)
    return refiner


def _enlarged(below: Tensor, window: Window, shape: tuple[int, ...]) -> Tensor:
    """The coarser canvas (N, C, h, w), twice as large, in a window of a level of ``shape`` (H, W)."""
    box = _inside(window.box, shape)
    # Two coarse pixels more on each side, so that the interpolation does not feel the cut.
    top, left = max(box.top // 2 - 2, 0), max(box.left // 2 - 2, 0)
    bottom, right = min(-(-box.bottom // 2) + 2, below.shape[2]), min(-(-box.right // 2) + 2, below.shape[3])
    part = F.interpolate(below[:, :, top:bottom, left:right], scale_factor=2, mode="bicubic", align_corners=False)
    rows, columns = window.index(shape)
    return part[:, :, torch.from_numpy(rows - 2 * top), torch.from_numpy(columns - 2 * left)]


def _halved(picture: Tensor, known: Bools) -> Tensor:
    """The picture (1, C, H, W) at half the size: the mean of the known pixels of each 2x2 block, or 0."""
    mask = torch.from_numpy(known)
    share = F.avg_pool2d(_paired(mask[None, None].to(picture.dtype)), 2).clamp_(min=0.25)
    # One channel at a time, to keep the memory for large pictures small.
    sums = [F.avg_pool2d(_paired(torch.where(mask, channel, 0)), 2) for channel in torch.split(picture, 1, dim=1)]
    return torch.cat(sums, dim=1).div_(share)


def _paired(x: Tensor) -> Tensor:
    """x (1, C, H, W) with an odd last row or column doubled."""
    return F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode="replicate")


def _halved_known(known: Bools) -> Bools:
    """A coarse pixel is known where at least half of its block is."""
    enough: Bools = _blocks(known, value=None).sum(axis=(1, 3)) >= 2
    return enough


def _blocks(mask: Bools, *, value: bool | None) -> NDArray[np.bool_]:
    """A mask (H, W) as (h, 2, w, 2), an odd side padded with ``value`` or, for None, with its last row or column."""
    odd = ((0, mask.shape[0] % 2), (0, mask.shape[1] % 2))
    padded = np.pad(mask, odd, mode="edge") if value is None else np.pad(mask, odd, constant_values=value)
    return padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)


def _inside(box: Box, shape: Sequence[int]) -> Box:
    return Box(max(box.top, 0), max(box.left, 0), min(box.bottom, shape[0]), min(box.right, shape[1]))
