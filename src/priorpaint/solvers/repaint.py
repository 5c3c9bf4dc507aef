"""RePaint: replacement, plus going back up some levels and down again so that the parts of the image can agree.

Lugmayr et al. 2022, "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", Algorithm 1 and Sec. 4.2,
with the known part at the level that the step arrives at (the paper's listing prints the level that it leaves).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.samplers import check_variance
from .base import STRICT, VARIANCE, Cost, Field, GridSolver, Task, Variance, settings
from .replacement import known_mask, replaced_step


def jump_levels(steps: int, jump_length: int, resamplings: int) -> list[int]:
    """The levels that RePaint visits, from ``steps`` (noisiest) to 0 (clean); neighbours differ by one.

    Array index i of the paper's schedule is level i + 1. Every index 0, j, 2j, ... below steps - j holds
    ``resamplings - 1`` jumps of ``jump_length`` = j up; each window of j levels is so crossed ``resamplings`` times
    downwards, but for the last descent and the top window.
    """
    jumps = dict.fromkeys(range(0, steps - jump_length, jump_length), resamplings - 1)
    levels = [steps]
    index = steps - 1
    while index > 0:
        index -= 1
        levels.append(index + 1)
        if jumps.get(index, 0) > 0:
            jumps[index] -= 1
            for _ in range(jump_length):
                index += 1
                levels.append(index + 1)
    return [*levels, 0]


@settings(frozen=True, config=STRICT)
class RePaint(GridSolver, name="repaint"):
    """Down: STEP(1) and paste the noised known pixels. Up: x_t = alpha_{t|s} x_s + sqrt(var_{t|s}) z everywhere."""

    title: ClassVar[str] = "RePaint"
    about: ClassVar[str] = "Replacement that goes back and forth in time, so that hole and surroundings come to agree."
    reference: ClassVar[str] = "Lugmayr et al., RePaint, CVPR 2022"
    needs: ClassVar[frozenset[str]] = frozenset({"mask"})
    cost_formula: ClassVar[str] = "about steps * resamplings forward (2410 for 250, 10, 10)"

    steps: int = Field(250, ge=1, description="levels of the time grid")
    jump_length: int = Field(10, ge=1, description="levels that a jump goes up")
    resamplings: int = Field(10, ge=1, description="times that each window of levels is crossed; 1 is replacement")
    eta: float = Field(1.0, ge=0, le=1, description="noise of a step down: 1 is DDPM ancestral, 0 is DDIM")
    variance: Variance | None = Field(None, description=VARIANCE)
    clip: bool = Field(False, description="clip the estimate of x_0 to [-1, 1]")

    def __post_init__(self) -> None:
        check_variance(self.variance, self.eta)

    def cost(self, num_samples: int = 1) -> Cost:
        levels = jump_levels(self.steps, self.jump_length, self.resamplings)
        down = sum(after < before for before, after in zip(levels, levels[1:], strict=False))
        return Cost(down * num_samples, 0)

    def _steps(self) -> int:
        return self.cost().forward

    @torch.no_grad()
    def _run(self, task: Task) -> Tensor:
        known = known_mask(task)
        schedule = task.prior.schedule
        times = self._times(schedule).flip(0)  # times[level], level 0 clean
        levels = jump_levels(self.steps, self.jump_length, self.resamplings)
        x_t = task.start(times[-1])
        down = 0
        for before, after in zip(levels, levels[1:], strict=False):
            t, s = times[before], times[after]
            if after > before:
                x_t = transitions.noise_up(schedule, x_t, t, s, task.noise.normal_like(x_t))
                continue
            x_t, x_0 = replaced_step(task, known, x_t, t, s, self.eta, self.variance, clip=self.clip)
            down += 1
            task.report(down, x_0)
        return x_t
