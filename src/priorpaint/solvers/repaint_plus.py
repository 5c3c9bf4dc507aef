"""RePaint+: RePaint without its noise. Paste the known pixels, denoise, paste again, down to a clean image.

Rout, Parulekar, Caramanis and Shakkottai 2023, arXiv 2302.01217: Algorithm 2 (one noise level) and Algorithm 3 (all of
them), written for x_0. It is an optimiser, not a sampler: a sweep never lowers log p_t(alpha_t x), the density of the
noised images taken at the noiseless alpha_t x, so it climbs to a mode and forgets where it started.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..diffusion.schedules import Schedule
from ..diffusion.transitions import like, row_sum
from ..errors import PriorError, UsageError
from ..priors.base import Prior
from .base import STRICT, Cost, Field, GridSolver, Task, settings
from .replacement import known_mask

# No image is this many times larger than the data; one that is has run away.
_RUNAWAY = 100.0
# A sweep that moves an image by less than this share of the data's size has settled, up to float32 rounding.
_SETTLED = 1e-3


def drift_gain(schedule: Schedule, t: Tensor) -> Tensor:
    """The paper's alpha_t^2, which assumes alpha^2 + sigma^2 = 1; alpha^2 over that sum for every schedule."""
    return torch.sigmoid(-2 * schedule.log_nsr(t))


def sweep(
    prior: Prior, x: Tensor, y: Tensor, known: Tensor, t: Tensor, g: Tensor | float = 1.0, clip: bool = False
) -> tuple[Tensor, Tensor]:
    """One round of resampling: u = D(alpha_t x, t) / g and m y + (1 - m) u, in this order reversed, (N, C, H, W) each.

    Args:
        prior: the denoiser.
        x: images (N, C, H, W) in the scale of x_0, any float dtype.
        y: known pixels (N, C, H, W).
        known: m as bool, broadcastable to x.
        t: the noise level, a 0-d float64 time.
        g: drift gain.
        clip: clip u to [-1, 1].
    """
    u = prior.denoise(like(prior.schedule.alpha(t), x) * x, t) / like(torch.as_tensor(g), x)
    u = u.clamp(-1, 1) if clip else u
    return torch.where(known, y, u), u


@settings(frozen=True, config=STRICT)
class RePaintPlus(GridSolver, name="repaint_plus"):
    """x <- m y + (1 - m) D(alpha_t x, t) / g_t, ``resamplings`` times at each level; no noise but in the start."""

    title: ClassVar[str] = "RePaint+ (one MAP-like fill, not a sampler)"
    about: ClassVar[str] = "RePaint without its noise: one likely fill, for studying its theory."
    reference: ClassVar[str] = "Rout et al., A Theoretical Justification for Image Inpainting using DDPMs, 2023"
    needs: ClassVar[frozenset[str]] = frozenset({"mask"})
    cost_formula: ClassVar[str] = "steps * resamplings forward ('two': resamplings), fewer with tol"

    algorithm: Literal["multi", "two"] = Field(
        "multi", description="'multi': Algorithm 3, all levels from noisy to clean; 'two': Algorithm 2, only 'level'"
    )
    steps: int = Field(100, ge=1, description="levels of the time grid ('multi')")
    resamplings: int = Field(10, ge=1, description="sweeps at each level (R)")
    level: float = Field(0.1, gt=0, description="sigma / alpha of the only level of 'two', in units of image values")
    gain: Literal["one", "reference"] = Field(
        "one",
        description="g_t: 'one', or 'reference': alpha_t^2, exact on unit-variance linear models, else may diverge",
    )
    tol: float = Field(0.0, ge=0, description="end a level when a sweep moves a sample by less (rms); 0: never")
    clip: bool = Field(False, description="clip the estimate of x_0 to [-1, 1]")

    def cost(self, num_samples: int = 1) -> Cost:
        return Cost(self._steps() * num_samples, 0)

    def _steps(self) -> int:
        return self.resamplings * (1 if self.algorithm == "two" else self.steps)

    @torch.no_grad()
    def _run(self, task: Task) -> Tensor:
        if self.gain == "reference" and task.sigma_y > 0:
            raise UsageError("gain 'reference' takes y for exact and cannot use sigma_y > 0; use gain 'one'")
        # In the scale of x_0: x_1 / alpha_1 would start with an error of 1 / alpha_1.
        x = task.prior.data_std * task.noise.normal(*task.shape) if task.initial is None else task.initial
        x = u = task.operator.project(x, task.y)
        times = self._levels(task.prior.schedule, task.sigma_y)
        for index, t in enumerate(times):
            x, u = self._settle(task, x, t, index, last=index + 1 == len(times))
        return self._denoise_known(task, x, u, times[-1])

    def _levels(self, schedule: Schedule, sigma_y: float) -> Tensor:
        """Times of the levels; none below the noise of y, where the fill would fit that noise."""
        floor = float(schedule.time_at(torch.tensor(sigma_y, dtype=torch.float64)))
        if self.algorithm == "two":
            return schedule.time_at(torch.tensor([self.level], dtype=torch.float64)).clamp(min=floor)
        times = self._times(schedule)[:-1].clamp(min=floor)
        # Where alpha = 0 the denoiser does not see x, and there is no gain to divide by.
        top = schedule.time_at(torch.tensor(schedule.nsr_range[1], dtype=torch.float64))
        return torch.where(schedule.alpha(times) > 0, times, top)

    def _settle(self, task: Task, x: Tensor, t: Tensor, index: int, *, last: bool) -> tuple[Tensor, Tensor]:
        """(x, u) after the sweeps at level t; each row ends on its own when it moves by less than ``tol``."""
        known = known_mask(task).expand(len(x), -1, -1, -1)
        g = 1.0 if self.gain == "one" else drift_gain(task.prior.schedule, t)
        x, u, rows = x.clone(), x.clone(), torch.arange(len(x), device=x.device)
        moved = torch.full((len(x),), torch.inf, device=x.device)
        for count in range(1, self.resamplings + 1):
            new, u[rows] = sweep(task.prior, x[rows], task.y[rows], known[rows], t, g, self.clip)
            move = _rms(new - x[rows])
            grew = (move > 1.001 * moved[rows]) & (move > _SETTLED * _size(task)[rows])
            x[rows], moved[rows] = new, move
            done = count == self.resamplings or bool((move < self.tol).all())
            self._check(task, x, grew=last and done and bool(grew.any()))
            task.report(index * self.resamplings + (self.resamplings if done else count), x)
            if done:
                break
            rows = rows[move >= self.tol]
        return x, u

    def _check(self, task: Task, x: Tensor, *, grew: bool) -> None:
        """Raise where images run away, or where the sweeps of the last level still move one more and more."""
        bounded = bool((_rms(x) <= _RUNAWAY * _size(task)).all())  # NaN is not
        if self.gain == "reference" and (grew or not bounded):
            raise UsageError(
                "RePaint+ diverges with gain 'reference', which is meant for priors of unit variance; use gain 'one'"
            )
        if not bounded:
            raise PriorError(
                f"the denoiser of the prior {task.prior.name} returns values that are not finite or far too large; "
                "check its schedule and data_std"
            )

    def _denoise_known(self, task: Task, x: Tensor, u: Tensor, t: Tensor) -> Tensor:
        """x with the noise of its known pixels removed, where y has any.

        At a last level r = sigma_y the known pixels are those of u = D. One above it expects more noise than there is,
        and the correction counts (sigma_y / r)^2, which is right to first order in the variances.
        """
        if task.sigma_y == 0:
            return x
        share = min(1.0, task.sigma_y / float(task.prior.schedule.log_nsr(t).exp())) ** 2
        return torch.where(known_mask(task), task.y + share * (u - task.y), x)


def _rms(x: Tensor) -> Tensor:
    """Root mean square of each row, (N,)."""
    return (row_sum(x.square()) / x[0].numel()).sqrt()


def _size(task: Task) -> Tensor:
    """How large the data of each row are: their standard deviation, or y's largest value if that is more; (N,)."""
    return task.y.flatten(1).abs().amax(1).clamp(min=task.prior.data_std)
