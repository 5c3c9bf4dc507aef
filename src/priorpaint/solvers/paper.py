"""The frame of guided denoisers whose paper has an update of its own, besides the estimate that any sampler can run."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from ..diffusion import transitions
from ..errors import UsageError
from ..operators.base import LinearOperator, Operator
from ..priors.base import Prior
from .base import STRICT, Cost, Field, Task, settings
from .guidance import GuidedSolver, PosteriorDenoiser


@settings(frozen=True, config=STRICT)
class PaperSolver(GuidedSolver):
    """A guided denoiser that by default runs the update of its paper; a method says what that is."""

    sampler: Literal["reference", "ddim", "heun", "euler_maruyama"] = Field(  # type: ignore[assignment]  # one choice more
        "reference",
        description="'reference': the paper's update; the others run the method's estimate of E[x_0 | x_t, y] instead: "
        "'ddim': STEP(eta); 'heun': second order, deterministic; 'euler_maruyama': reverse SDE",
    )
    clip: bool = Field(False, description="clip the prior's estimate of x_0 to [-1, 1]")

    @abstractmethod
    def _correct(
        self, prior: Prior, x_0: Tensor, operator: LinearOperator, y: Tensor, sigma_y: float, t: Tensor
    ) -> Tensor:
        """The estimate of E[x_0 | x_t, y] at a time t (0-d) from x_0 = E[x_0 | x_t] (N, C, H, W)."""

    @abstractmethod
    def _start(self, task: Task, t: Tensor) -> Tensor:
        """x_t at the first time."""

    @abstractmethod
    def _update(
        self, task: Task, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor, last: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """The paper's x_s from x_t and x_0 = E[x_0 | x_t]; ``last`` is (x_0, its time) of the step that led to x_t."""

    def guide(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> Prior:
        if not isinstance(operator, LinearOperator):
            raise UsageError(f"{self.title} needs a linear measurement, and {type(operator).__name__} is not linear")

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            x_0 = self._clipped(prior.denoise(x_t, t))
            first = t.flatten()[0]
            if bool((t == first).all()):
                return self._correct(prior, x_0, operator, y, sigma_y, first)
            out = torch.empty_like(x_0)
            for time in torch.unique(t):
                rows = (t == time).nonzero().flatten()
                here = rows.to(x_0.device)
                out[here] = self._correct(prior, x_0[here], operator.select(rows), y[here], sigma_y, time)
            return out

        return PosteriorDenoiser(prior, denoise)

    def levels(self) -> list[int]:
        """The levels of the time grid that 'reference' visits, from ``steps`` (noisiest) to 0 (clean)."""
        return list(range(self.steps, -1, -1))

    def evaluations(self) -> int:
        if self.sampler != "reference":
            return super().evaluations()
        levels = self.levels()
        return sum(after < before for before, after in zip(levels, levels[1:], strict=False))

    def _one(self) -> Cost:
        return Cost(1, 0)

    def _steps(self) -> int:
        return self.evaluations() if self.sampler == "reference" else self.steps

    @torch.no_grad()
    def _run(self, task: Task) -> Tensor:
        if self.sampler != "reference":
            return super()._run(task)
        schedule = task.prior.schedule
        times = self._times(schedule).flip(0)  # times[level], level 0 clean
        levels = self.levels()
        x_t = self._start(task, times[-1])
        x_0, done = x_t, 0
        last: tuple[Tensor, Tensor] | None = None
        for before, after in zip(levels, levels[1:], strict=False):
            if after > before:  # time travel: the estimate that y has not touched, noised afresh
                x_t = transitions.perturb(schedule, x_0, times[after], task.noise.normal_like(x_t))
                last = None
                continue
            x_0 = self._clipped(task.prior.denoise(x_t, times[before]))
            x_t = self._update(task, x_t, x_0, times[before], times[after], last)
            last = x_0, times[before]
            done += 1
            task.report(done, x_0)
        return x_t

    def _clipped(self, x_0: Tensor) -> Tensor:
        return x_0.clamp(-1, 1) if self.clip else x_0
