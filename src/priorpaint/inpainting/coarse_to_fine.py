"""Fill the holes of one picture: windows one after another, and large holes from coarse to fine.

A hole that is wider than what the network relates at once would fall apart into unrelated textures. It is first filled
in the picture at half the size, where it is half as wide (and so on down), then enlarged, noised to a middle level
and denoised again at full size: the coarse pass decides what is there, the fine pass how it looks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.rng import derive
from ..diffusion.schedules import Schedule
from ..errors import PriorError
from ..imaging.filling import smooth_fill
from ..operators import Inpainting
from ..priors import Prior
from ..solvers import Cost, Solver
from ..solvers.base import PosteriorSampler, Problem
from .forecast import Forecast
from .levels import MAX_AREA_GRADIENT, Level
from .windows import Bools, Window

# Noise level (sigma / alpha) at which an enlarged coarse fill, or a smooth one of a thin hole, is handed to the finer
# scale: well above the detail that it lacks, so that the fine pass draws this anew, and below what decides the content.
REFINE_RATIO = 1.0
# What a call of the prior costs besides its pixels, in pixels: of the network for photos on a CPU.
CALL = 4096.0


@dataclass(frozen=True)
class Estimate:
    """What a step of the solver knows.

    Attributes:
        x_0: (N, C, h, w) in the prior's space, of a window.
        window: where, in pixels of its scale within the frame.
        rows: how many samples of the present chunk it is about; 0 is work that all samples share.
    """

    x_0: Tensor
    window: Window
    rows: int


Report = Callable[[Forecast, Estimate], None]


class Work:
    """Which solver each window takes, and what that costs.

    Args:
        windows: in order.
        solver: of windows that start from noise; the others take it from REFINE_RATIO on.
        schedule: of the prior.
        refiner: of windows that do not start from noise; None is ``solver``. It takes its steps from there on.

    Attributes:
        call: what a network evaluation costs besides the window's pixels, in pixels.
    """

    call = CALL

    def __init__(
        self, windows: Sequence[Window], solver: Solver, schedule: Schedule, refiner: Solver | None = None
    ) -> None:
        self.windows, self.solver = windows, solver
        warm = any(window.start != "noise" for window in windows)
        self._refiner = (refiner or solver).started_at(schedule, REFINE_RATIO) if warm else solver

    def solver_of(self, window: Window) -> Solver:
        """The solver of a window."""
        return self.solver if window.start == "noise" else self._refiner

    def cost_of(self, window: Window, num_samples: int) -> Cost:
        """Evaluations for all samples of a window: what they share once, the rest for each."""
        fit, rest = self._parts(window, num_samples)
        return Cost(fit.forward + rest.forward, fit.backward + rest.backward)

    def _parts(self, window: Window, num_samples: int) -> tuple[Cost, Cost]:
        """Of all samples of a window: what comes before them, once where they share it, and the samples themselves."""
        solver = self.solver_of(window)
        one, fit, fits = solver.cost(1), solver.shared_cost(), 1 if window.shared else num_samples
        return (
            Cost(fits * fit.forward, fits * fit.backward),
            Cost(num_samples * (one.forward - fit.forward), num_samples * (one.backward - fit.backward)),
        )

    def cost(self, num_samples: int) -> Cost:
        """Evaluations for all samples of the picture."""
        parts = [self.cost_of(window, num_samples) for window in self.windows]
        return Cost(sum(part.forward for part in parts), sum(part.backward for part in parts))

    def pixels(self, num_samples: int) -> float:
        """Pixels x network evaluations for all samples of the picture."""
        return sum(weight(self.cost_of(window, num_samples)) * window.box.area for window in self.windows)

    def load(self, num_samples: int) -> dict[Hashable, float]:
        """The same with what calls cost besides, by kind: it is this that takes time."""
        load: dict[Hashable, float] = {}
        for window in self.windows:
            for fitting, part in zip((True, False), self._parts(window, num_samples), strict=True):
                kind = self.kind_of(window, fitting)
                load[kind] = load.get(kind, 0.0) + weight(part) * self.load_of(window)
        return load

    def load_of(self, window: Window) -> float:
        """Of one network evaluation on a window."""
        return window.box.area + self.call

    @staticmethod
    def kind_of(window: Window, fitting: bool) -> Hashable:
        """Work of one speed: windows of a size, apart from the fits that samples share."""
        return window.box.height, window.box.width, fitting


def weight(cost: Cost) -> float:
    """Network evaluations, one with a gradient counted as three without."""
    return float(cost.forward + 3 * cost.backward)


class WindowSampler:
    """Draws what completions of one picture hold in a window.

    Args:
        work: the windows and their solvers.
        num_samples: how many completions will be asked for in all calls, for the share of work that is done.
        report: called after each step as report(forecast, estimate); may raise.
        grey: the channels are averaged after every window.
        shared_rows: rows at a time of work that all samples share; None is as many as windows of the largest size take.
    """

    def __init__(self, work: Work, num_samples: int, report: Report, grey: bool, shared_rows: int | None) -> None:
        self.work, self.grey, self._shared_rows = work, grey, shared_rows
        self._conditioned: dict[Window, PosteriorSampler] = {}
        self._report, self._forecast = report, Forecast(work.load(num_samples))

    def sample(self, problem: Problem, window: Window, seeds: Sequence[int], initial: Tensor | None = None) -> Tensor:
        """Samples (N, C, h, w) of a window, from noise or, where there are some, from initial images (N, C, h, w)."""
        keys = [derive("window", seed, window.scale, window.box.top, window.box.left) for seed in seeds]
        solver = self.work.solver_of(window)
        fit, rows = weight(solver.shared_cost()), len(keys)
        if not (window.shared and solver.fits):
            posterior = solver.condition(problem, seed=keys, callback=self._progress(window, rows * fit, rows, True))
        elif window in self._conditioned:
            posterior = self._conditioned[window]
        else:  # what all samples share, done once, with a seed that belongs to the window alone
            posterior = self._conditioned[window] = solver.condition(
                replace(problem, y=problem.y[:1]),
                seed=derive("fit", window.scale, window.box.top, window.box.left),
                batch_size=self._shared_rows or max(1, MAX_AREA_GRADIENT // window.box.area),
                callback=self._progress(window, fit, 0, True),
            )
        callback = self._progress(window, rows * (weight(solver.cost(1)) - fit), rows, False)
        out = posterior.sample(keys, initial=initial, callback=callback).cpu()
        if not bool(torch.isfinite(out).all()):
            name = type(solver).__name__
            raise PriorError(f"{name} gave values that are not numbers; use float32, or other settings.")
        return out.mean(dim=1, keepdim=True).expand_as(out) if self.grey else out

    def _progress(
        self, window: Window, evaluations: float, rows: int, fitting: bool
    ) -> Callable[[int, int, Tensor], None]:
        """A solver's callback for so many network evaluations on a window."""
        kind, load, before = self.work.kind_of(window, fitting), evaluations * self.work.load_of(window), 0

        def callback(step: int, total: int, x_0: Tensor) -> None:
            nonlocal before
            self._forecast.step(kind, load * max(step - before, 0) / total)
            before = max(step, before)
            self._report(self._forecast, Estimate(x_0, window, rows))

        return callback


class CoarseToFine:
    """Fills the hole of one picture.

    Args:
        picture: (1, C, H, W) float32 in [-1, 1]; what is not known is never looked at. It is painted on.
        levels: its windows, of ``plan_levels``.
        prior: what pictures look like.
        sampler: of the windows.
    """

    def __init__(self, picture: Tensor, levels: Sequence[Level], prior: Prior, sampler: WindowSampler) -> None:
        self.picture, self.levels, self.prior, self.sampler = picture, levels, prior, sampler
        self._canvases: list[Tensor] = []

    def fill(self, seeds: Sequence[int]) -> Tensor:
        """Completions (N, C, H, W), one a seed, of which only filled and known pixels have meaning.

        They are valid until the next call. Each seed gives the same completion in any company.
        """
        self._allocate(len(seeds))
        for depth in reversed(range(len(self.levels))):
            level, canvas = self.levels[depth], self._canvases[depth][: len(seeds)]
            below = self._canvases[depth + 1][: len(seeds)] if depth + 1 < len(self.levels) else None
            known = level.known.copy()
            for window in level.windows:
                guess = None
                if below is not None and window.start == "coarse":
                    guess = _enlarged(below, window, known.shape)
                self._fill_window(canvas, known, level.todo, window, guess, seeds)
        return self._canvases[0][: len(seeds)]

    def _fill_window(
        self, canvas: Tensor, known: Bools, todo: Bools, window: Window, guess: Tensor | None, seeds: Sequence[int]
    ) -> None:
        """Fill one window's core on the canvas (N, C, H, W) and mark it as known."""
        rows, columns = window.index(known.shape)
        y = canvas[:, :, torch.from_numpy(rows), torch.from_numpy(columns)]
        seen = known[rows, columns]
        operator = Inpainting(torch.from_numpy(seen))
        if window.start == "smooth":
            guess = smooth_fill(y, torch.from_numpy(seen))
        initial = None if guess is None else operator.project(guess, y)
        filled = self.sampler.sample(Problem(self.prior, operator, operator(y)), window, seeds, initial)
        core, box = window.core, window.box
        fresh = todo[core.slices] & ~known[core.slices]
        part = filled[:, :, core.top - box.top : core.bottom - box.top, core.left - box.left : core.right - box.left]
        target = canvas[:, :, core.top : core.bottom, core.left : core.right]
        target.copy_(torch.where(torch.from_numpy(fresh), part.clamp(-1, 1), target))
        known[core.slices] |= fresh

    def _allocate(self, rows: int) -> None:
        if self._canvases and len(self._canvases[0]) >= rows:
            return
        # The known pixels of old canvases are still the picture's own; at 40 megapixels every copy counts.
        pictures = self._canvases or [self.picture]
        for level in self.levels[len(pictures) - 1 : -1]:
            pictures.append(_halved(pictures[-1], level.known))
        self._canvases = [picture if rows == 1 else picture[:1].repeat(rows, 1, 1, 1) for picture in pictures]


def _enlarged(below: Tensor, window: Window, shape: tuple[int, ...]) -> Tensor:
    """The coarser canvas (N, C, h, w), twice as large, in a window of a level of ``shape`` (H, W)."""
    box = window.box.inside(shape)
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
