"""CoPaint: at each level x_t is moved until its denoised image agrees with y; the way down is DDIM.

Zhang et al. 2023, "Towards Coherent Image Inpainting Using Denoising Diffusion Implicit Models" (CoPaint, CoPaint-Fast,
CoPaint-TT), with one loss, one learning rate and one line search a sample, where the published code has one a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.transitions import like, row_sum
from .base import STRICT, Cost, Field, GridSolver, Task, settings
from .repaint import jump_levels

_MOST = 100  # evaluations a gradient step; 0.8^100 of a rate moves no float32 number, and only NaN gets there
_PUBLISHED = 250  # levels that the published growth factors refer to


@settings(frozen=True, config=STRICT)
class CoPaint(GridSolver, name="copaint"):
    """Gradient steps on ||y - A D(x_t)||^2 + c ||x_t - x_t^0||^2 at each level t, then DDIM to the next."""

    title: ClassVar[str] = "CoPaint"
    about: ClassVar[str] = "Optimises each noisy picture until its denoised one agrees with the known pixels; slow."
    reference: ClassVar[str] = "Zhang et al., Towards Coherent Image Inpainting Using DDIMs (CoPaint), ICML 2023"
    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})
    cost_formula: ClassVar[str] = (
        "steps * (inner_steps + retries) forward+backward, steps forward; retries none: at least "
        "steps * (inner_steps + 1) forward+backward"
    )
    through_decoder: ClassVar[bool] = True

    steps: int = Field(250, ge=1, description="levels of the time grid")
    inner_steps: int = Field(2, ge=0, description="G, gradient steps at a level; 0 is DDIM")
    retries: int | None = Field(
        0,
        ge=0,
        description="evaluations at a level for the line search, besides one a gradient step; None is as many as it "
        "takes until no gradient step raises the loss",
    )
    shrink: float = Field(0.8, gt=0, lt=1, description="factor of the learning rate after a step that raised the loss")
    lr: float = Field(0.02, ge=0, description="learning rate at the top, in variance-preserving coordinates")
    lr_growth: float = Field(1.012, gt=0, description="a, growth of lr a level of 250; the same in all for other steps")
    c: float = Field(0.01, ge=0, description="weight of the distance moved, at the top; 0 leaves it free")
    c_growth: float = Field(1.0, gt=0, description="b, growth of c a level of 250; the same in all for other steps")
    clip: bool = Field(False, description="clip the estimate of x_0 to [-1, 1] before the loss")
    paste: bool = Field(True, description="with sigma_y = 0, make the result agree with y exactly at the end")

    def path(self) -> list[int]:
        """The levels that are visited, from ``steps`` (noisiest) to 0 (clean); neighbours differ by one."""
        return list(range(self.steps, -1, -1))

    def searches(self) -> int:
        """Optimisations of x_t in a run: one before each move down and one before each walk up."""
        return self._steps() + _climbs(self.path())

    def cost(self, num_samples: int = 1) -> Cost:
        """With ``retries`` None the least: what it costs where no step raises the loss."""
        if self.inner_steps == 0:
            return Cost(self._steps() * num_samples, 0)
        searches = self.searches() * num_samples
        if self.retries is None:
            return Cost(0, searches * (self.inner_steps + 1))
        return Cost(searches, searches * (self.inner_steps + self.retries))

    def _steps(self) -> int:
        return sum(after < before for before, after in pairwise(self.path()))

    @torch.no_grad()
    def _run(self, task: Task) -> Tensor:
        schedule = task.prior.schedule
        times = self._times(schedule).flip(0)  # times[level], level 0 clean
        x_t = task.start(times[-1])
        down, climbing = 0, False
        for before, after in pairwise(self.path()):
            t, s = times[before], times[after]
            if after > before:
                if not climbing and self.inner_steps > 0:
                    x_t, _ = self._search(task, x_t, t, before, times[1])
                x_t = transitions.noise_up(schedule, x_t, t, s, task.noise.normal_like(x_t))
                climbing = True
                continue
            x_t, x_0 = self._search(task, x_t, t, before, times[1])
            clipped = x_0.clamp(-1, 1) if self.clip and not task.prior.latent else x_0
            # The published step goes to the clipped estimate but keeps the noise that the network saw.
            x_t = transitions.ddim(schedule, x_t, x_0, t, s) + like(schedule.alpha(s), x_t) * (clipped - x_0)
            climbing = False
            down += 1
            task.report(down, clipped)
        return x_t

    def _search(self, task: Task, x_t: Tensor, t: Tensor, level: int, first: Tensor) -> tuple[Tensor, Tensor]:
        """(x_t, D(x_t)) after at most G gradient steps; ``first`` is the time of level 1.

        Each evaluation is either the next gradient step of a row or, where its last one raised the loss, the same step
        again at a shorter rate. So no row waits for another, and a row's loss never rises. The cost is fixed, but with
        ``retries`` None, where evaluations end with the last gradient step of the last row.
        """
        if self.inner_steps == 0:
            return x_t, task.prior.denoise(x_t, t)
        loss = _Loss(task, x_t, t, self.c * self._growth(self.c_growth, level), self.clip)
        rate = torch.full((len(x_t),), self._rate(task, t, level, first), dtype=x_t.dtype, device=x_t.device)
        left = torch.full_like(rate, self.inner_steps)
        trials = self.inner_steps * _MOST if self.retries is None else self.inner_steps + self.retries
        best = loss(torch.zeros_like(x_t), gradient=True)
        for trial in range(trials):
            tried = loss(best.move - like(rate, x_t) * best.gradient, gradient=trial < trials - 1)
            accept = (tried.loss <= best.loss) & (left > 0)  # a loss that is not a number is never accepted
            best = best.replaced(tried, accept)
            rate = torch.where(accept, rate, self.shrink * rate)
            left = left - accept.to(left)
            if self.retries is None and not bool((left > 0).any()):
                break
        return x_t + best.move, best.x_0

    def _rate(self, task: Task, t: Tensor, level: int, first: Tensor) -> float:
        """lr a^k alpha_t / alpha_1."""
        alpha, alpha_1 = (task.prior.schedule.level(time).alpha for time in (t, first))
        return self.lr * self._growth(self.lr_growth, level) * float(alpha / alpha_1)

    def _growth(self, a_level: float, level: int) -> float:
        """a^k after k net moves down; with other than 250 levels, the same over the whole grid."""
        return float(a_level ** ((self.steps - level) * _PUBLISHED / self.steps))


@settings(frozen=True, config=STRICT)
class CoPaintTT(CoPaint, name="copaint_tt"):
    """CoPaint with RePaint's jumps back up, and one more search before each walk up."""

    title: ClassVar[str] = "CoPaint-TT (time travel)"
    about: ClassVar[str] = "CoPaint that goes back in time and tries again; slower still."
    cost_formula: ClassVar[str] = "as CoPaint, about resamplings times (514 searches for 250, 10, 2)"

    jump_length: int = Field(10, ge=1, description="tau, levels that a jump goes up")
    resamplings: int = Field(2, ge=1, description="K, times that each window of levels is crossed; 1 is CoPaint")

    def path(self) -> list[int]:
        return jump_levels(self.steps, self.jump_length, self.resamplings)


@dataclass(frozen=True)
class _Point:
    """What a search knows where it stands, row by row.

    Attributes:
        move: x_t - x_t^0, (N, C, H, W).
        loss: (N,).
        gradient: of the loss with respect to ``move``, (N, C, H, W).
        x_0: D there, (N, C, H, W).
    """

    move: Tensor
    loss: Tensor
    gradient: Tensor
    x_0: Tensor

    def replaced(self, other: _Point, rows: Tensor) -> _Point:
        """``other`` in the rows (N,) that are true."""
        image = rows.reshape(-1, 1, 1, 1)
        return _Point(
            torch.where(image, other.move, self.move),
            torch.where(rows, other.loss, self.loss),
            torch.where(image, other.gradient, self.gradient),
            torch.where(image, other.x_0, self.x_0),
        )


class _Loss:
    """The loss of one level around x_t^0, as a function of the move away from it.

    Args:
        task: prior, operator and y.
        x_t: x_t^0, (N, C, H, W).
        t: its time.
        weight: c of the level.
        clip: clip D before it is measured.
    """

    def __init__(self, task: Task, x_t: Tensor, t: Tensor, weight: float, clip: bool) -> None:
        self.task, self.x_t, self.t, self.weight, self.clip = task, x_t, t, weight, clip
        informative = task.operator.measured(torch.ones_like(task.y)) != 0
        self.noise = task.sigma_y**2 * row_sum(informative)  # E ||sigma_y n||^2, (N,)

    def __call__(self, move: Tensor, *, gradient: bool) -> _Point:
        """The point x_t^0 + move; without ``gradient`` that of the point is 0."""
        task = self.task
        with torch.set_grad_enabled(gradient):
            move = move.detach().requires_grad_(gradient)
            x_0 = task.prior.denoise(self.x_t + move, self.t)
            image = task.prior.decode(x_0)
            residual = task.y - task.operator(image.clamp(-1, 1) if self.clip else image)
            data = (row_sum(residual.square()) - self.noise).clamp(min=0)  # y is met once what is left is its noise
            loss = data + self.weight * row_sum(move.square())
            slope = torch.autograd.grad(loss.sum(), move)[0] if gradient else torch.zeros_like(move)
        return _Point(move.detach(), loss.detach(), slope, x_0.detach())


def _climbs(path: list[int]) -> int:
    """Walks up in a path of levels."""
    moves = [after - before for before, after in pairwise(path)]
    return sum(move > 0 > last for last, move in pairwise(moves))
