"""DAPS: decoupled annealing. At each level draw x_0 given x_t and y afresh, then noise it to the next level.

Zhang et al. 2025, "Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing", Algorithm 1 and App. C.
Its numbers are levels of a variance-exploding process; here a level r is the time with sigma_t / alpha_t = r, and the
Euler step of the ODE in x_t / alpha_t is the DDIM step in x_t, so every schedule works.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.schedules import Schedule
from ..diffusion.transitions import like
from ..errors import UsageError
from ..operators.base import LinearOperator
from .base import STRICT, Cost, Field, Solver, Task, settings
from .likelihoods import white_variance

PUBLISHED_TAU, PUBLISHED_H = 0.01, 5e-5
_POWER_STEPS = 6  # of the curvature through a decoder
_DIFFERENCE = 0.01  # of data_std, for directional derivatives of a decoder


def poly_levels(top: float, bottom: float, count: int, rho: float = 7.0) -> Tensor:
    """r_k = (top^(1/rho) + (k / count) (bottom^(1/rho) - top^(1/rho)))^rho for k = 0 ... count, float64."""
    part = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    levels: Tensor = (top ** (1 / rho) + part * (bottom ** (1 / rho) - top ** (1 / rho))) ** rho
    return levels


@settings(frozen=True, config=STRICT)
class DAPS(Solver, name="daps"):
    """x_hat by the ODE from x_t; x_0 by Langevin on p(y | x_0) N(x_0; x_hat, r_t^2 I); x_s is x_0 noised to s."""

    title: ClassVar[str] = "DAPS"
    about: ClassVar[str] = (
        "At each level, Langevin steps take an estimate to the data; it is then noised to the next level."
    )
    reference: ClassVar[str] = "Zhang et al., Decoupled Annealing Posterior Sampling, CVPR 2025"
    needs: ClassVar[frozenset[str]] = frozenset()
    cost_formula: ClassVar[str] = "steps * n_ode forward; steps * n_mc gradients of the operator (and decoder)"
    through_decoder: ClassVar[bool] = True

    steps: int = Field(200, ge=1, description="annealing levels (K)")
    smax: float = Field(100.0, gt=0, description="first level, sigma / alpha; lowered to the schedule's own if above")
    smin: float = Field(0.1, gt=0, description="level that the annealing runs towards before it ends clean")
    n_ode: int = Field(5, ge=1, description="Euler steps of the probability-flow ODE at each level")
    n_mc: int = Field(100, ge=1, description="Langevin steps at each level")
    tau: float | None = Field(
        None, gt=0, description="noise that y is taken to have; None is sigma_y, but at least 0.01 (published: 0.01)"
    )
    h: float | None = Field(
        None, gt=0, description="first Langevin step; None is 1 / curvature at each level (published: 5e-5)"
    )
    r_min: float = Field(0.01, gt=0, le=1, description="factor on the Langevin step at the end, falling linearly")
    momentum: float = Field(0.0, ge=0, lt=1, description="above 0, the underdamped form (the paper's HMC)")
    variance: Literal["level", "data"] = Field(
        "level", description="of x_0 about x_hat: 'level' r^2, or 'data' 1 / (1 / r^2 + 1 / data_std^2)"
    )
    preset: Literal["corrected", "reference"] = Field(
        "corrected",
        description="'reference': exp(-||y - A x||^2 / tau^2), without the factor 1/2, tau 0.01 and h 5e-5, or half "
        "of the largest stable step where that is less",
    )
    paste: bool = Field(True, description="with sigma_y = 0, make the result agree with y exactly at the end")

    def cost(self, num_samples: int = 1) -> Cost:
        return Cost(self.steps * self.n_ode * num_samples, 0)

    def _steps(self) -> int:
        return self.steps

    @torch.no_grad()
    def _run(self, task: Task) -> Tensor:
        schedule = task.prior.schedule
        times = self.times(schedule)
        curvature = self._curvature(task)
        x_t = like(schedule.sigma(times[0]), task.y) * task.noise.normal(*task.shape)
        x_0 = x_t
        for k, t in enumerate(times):
            x_hat = self._ode(task, x_t, t)
            if task.prior.latent:
                curvature = self._weight(task) * steepness(task, x_hat) ** 2
            x_0 = self._langevin(task, x_hat, t, k, curvature)
            if k + 1 < len(times):
                x_t = transitions.perturb(schedule, x_0, times[k + 1], task.noise.normal_like(x_0))
            task.report(k + 1, x_0)
        return x_0

    def times(self, schedule: Schedule) -> Tensor:
        """The K times of the annealing levels, float64; all of them noisy."""
        low, high = schedule.nsr_range
        top, bottom = min(self.smax, high), max(self.smin, low)
        if bottom >= top:
            raise UsageError(f"DAPS needs smin below smax, and here they are {bottom:.3g} and {top:.3g}")
        return schedule.time_at(poly_levels(top, bottom, self.steps)[:-1])

    def _ode(self, task: Task, x_t: Tensor, t: Tensor) -> Tensor:
        """x_hat (N, C, H, W): n_ode Euler steps from t to the nsr 0.01 (or half of t's), without the scale alpha."""
        schedule = task.prior.schedule
        nsr = float(schedule.log_nsr(t).exp())
        times = schedule.time_at(poly_levels(nsr, min(max(0.01, schedule.nsr_range[0]), nsr / 2), self.n_ode))
        times[0] = t
        for before, after in zip(times[:-1], times[1:], strict=True):
            x_t = transitions.ddim(schedule, x_t, task.prior.denoise(x_t, before), before, after)
        return x_t / like(schedule.alpha(times[-1]), x_t)

    # -- Langevin ------------------------------------------------------------------------------------------------------

    def _langevin(self, task: Task, x_hat: Tensor, t: Tensor, k: int, curvature: Tensor) -> Tensor:
        """x_0 (N, C, H, W) after n_mc steps from x_hat: v <- m v + sqrt(h) score + sqrt(2 - 2 m) z, x <- x + sqrt(h) v.

        m = ``momentum``; with m = 0 this is plain Langevin, x <- x + h score + sqrt(2 h) z.
        """
        precision = float(1 / self._spread(task, t))
        root = like(self._step_size(task, curvature + precision, k).sqrt(), x_hat)
        kick = math.sqrt(2 * (1 - self.momentum))
        x, v = x_hat, task.noise.normal_like(x_hat) if self.momentum else torch.zeros_like(x_hat)
        for _ in range(self.n_mc):
            score = self._data_score(task, x) + precision * (x_hat - x)
            v = self.momentum * v + root * score + kick * task.noise.normal_like(x)
            x = x + root * v
        if not bool(x.isfinite().all()):
            raise UsageError("the Langevin steps of DAPS have diverged; pass a smaller h")
        return x

    def _data_score(self, task: Task, x: Tensor) -> Tensor:
        """The gradient of log p(y | x): of -||y - A x||^2 / (2 tau^2), or published / tau^2; (N, C, H, W)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            residual = task.y - task.operator(task.prior.decode(x))
            (vjp,) = torch.autograd.grad(residual, x, residual)  # -J^T residual, J that of A
        return -self._weight(task) * vjp

    def _weight(self, task: Task) -> float:
        """w in p(y | x) ~ exp(-w ||y - A x||^2 / 2)."""
        published = self.preset == "reference"
        tau = self.tau or (PUBLISHED_TAU if published else max(task.sigma_y, PUBLISHED_TAU))
        return (2 if published else 1) / tau**2

    def _spread(self, task: Task, t: Tensor) -> Tensor:
        """The variance of x_0 about x_hat, 0-d float64."""
        if self.variance == "data":
            return white_variance(task.prior, t)
        return (2 * task.prior.schedule.level(t).log_nsr).exp()

    def _curvature(self, task: Task) -> Tensor:
        """(N,) float64: the largest second derivative of -log p(y | x); a nonlinear A is taken to have norm 1."""
        return self._weight(task) * _norms(task) ** 2

    def _step_size(self, task: Task, curvature: Tensor, k: int) -> Tensor:
        """h_k, (N,) float64, for the curvature of the whole target at level k."""
        decay = 1 + k / (self.steps + 1) * (self.r_min - 1)
        bound = 2 * (1 + self.momentum) / curvature
        if self.h is None:
            published = (0.5 * bound).clamp(max=PUBLISHED_H)  # steep decoders: the published h would diverge
            return decay * (published if self.preset == "reference" else 1 / curvature)
        step = torch.full_like(curvature, self.h * decay)
        # A step of h moves the stiffest direction by the factor 1 - h c; the published h = 1e-4 is just at -1.
        unstable = step * curvature > 2.01 * (1 + self.momentum)
        if isinstance(task.operator, LinearOperator) and bool(unstable.any()):
            largest = float(bound.min())
            raise UsageError(
                f"h = {self.h:g} makes the Langevin steps of DAPS diverge; pass h below {largest:.2g}, or none"
            )
        return step


@torch.no_grad()
def steepness(task: Task, z: Tensor) -> Tensor:
    """The largest singular value of the Jacobian of z -> A Dec(z) at z (N, c, h, w), (N,) float64: power iteration."""
    v, length = task.noise.normal_like(z), torch.ones(len(z))
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        measured = task.operator(task.prior.decode(z))
    for _ in range(_POWER_STEPS):
        v = v / like(v.flatten(1).norm(dim=1).clamp(min=1e-12), v)
        step = _DIFFERENCE * task.prior.data_std
        jvp = (task.operator(task.prior.decode(z.detach() + step * v)) - measured.detach()) / step
        (v,) = torch.autograd.grad(measured, z, jvp, retain_graph=True)
        length = v.flatten(1).norm(dim=1)
    return length.double().cpu().sqrt()


def _norms(task: Task) -> Tensor:
    """The norm of each row's own A, (N,) float64, so that no row feels its batch."""
    rows = len(task.y)
    if not isinstance(task.operator, LinearOperator):
        return torch.ones(rows, dtype=torch.float64)
    one = torch.zeros(1, dtype=torch.long)
    if task.operator.select(one) is task.operator:
        return torch.full((rows,), task.operator.norm(), dtype=torch.float64)
    return torch.tensor([task.operator.select(one + row).norm() for row in range(rows)], dtype=torch.float64)
