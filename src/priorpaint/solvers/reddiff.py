"""RED-diff: fit one image to y by Adam, with the prior's denoiser as a regulariser; and RED-diff-V, in random order.

Mardani, Song, Kautz and Vahdat 2024, "A Variational Perspective on Solving Inverse Problems with Diffusion Models": the
mean mu of q(x_0) = N(mu, s^2 I), s -> 0, minimises KL(q || p(x_0 | y)); the Jacobian of the network is dropped. An
optimiser that seeks a mode; its only randomness is the noise that mu is denoised from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.transitions import like
from .base import STRICT, Cost, Field, GridSolver, Task, settings

# g(r) = w(r) / r for r = sigma / alpha, where w is the published weight of the noise residual.
_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": torch.ones_like,
    "sqrt": lambda r: r**-0.5,
    "square": lambda r: r,
    "two_thirds": lambda r: r ** (-1 / 3),
    "log": lambda r: torch.log1p(r) / r,
    "min": lambda r: (1 / r).clamp(max=1),
    "const": lambda r: 1 / r,
    "kl": lambda r: r**-2,
}


@settings(frozen=True, config=STRICT)
class RedDiff(GridSolver, name="reddiff"):
    """Adam on mu along  w_t (eps_net - eps) - obs_weight A^T (y - A mu)  at x_t = alpha_t mu + sigma_t eps."""

    title: ClassVar[str] = "RED-diff"
    about: ClassVar[str] = "Fits one picture a sample to data and prior by optimisation; fast and smooth, no gradients."
    reference: ClassVar[str] = "Mardani et al., A Variational Perspective on Inverse Problems (RED-diff), ICLR 2024"
    needs: ClassVar[frozenset[str]] = frozenset()
    cost_formula: ClassVar[str] = "steps forward"
    through_decoder: ClassVar[bool] = True

    steps: int = Field(100, ge=1, description="Adam steps, one at each time of the grid")
    lr: float = Field(0.5, gt=0, description="Adam's learning rate, in image values")
    lam: float = Field(0.25, ge=0, description="weight of the prior")
    obs_weight: float = Field(1.0, ge=0, description="weight of the measurement")
    weight: Literal["linear", "sqrt", "square", "two_thirds", "log", "min", "const", "kl"] = Field(
        "linear", description="w_t / lam as a function of r = sigma_t / alpha_t; 'linear' is r, 'kl' is 1 / r"
    )
    begin: Literal["guess", "noise"] = Field(
        "guess", description="where mu starts: 'guess' is A^+ y (grey where unknown), 'noise' is N(0, 1) a pixel"
    )
    paste: bool = Field(True, description="with sigma_y = 0, make the result agree with y exactly at the end")

    def cost(self, num_samples: int = 1) -> Cost:
        return Cost(self.steps * num_samples, 0)

    @torch.no_grad()
    def _run(self, task: Task) -> Tensor:
        mu = self._begin(task)
        adam = torch.optim.Adam([mu], lr=self.lr, betas=(0.9, 0.99))  # elementwise, so a row does not feel its batch
        for index, t in enumerate(self._visited(task)):
            mu.grad = self._prior_gradient(task, mu, t) + self._data_gradient(task, mu)
            adam.step()
            task.report(index + 1, mu.clone())
        return mu

    def _begin(self, task: Task) -> Tensor:
        """mu (N, C, H, W) before the first step."""
        if task.initial is not None:
            return task.initial.clone()
        if self.begin == "noise":
            return task.noise.normal(*task.shape)
        return task.prior.encode(task.operator.guess(task.y)).clone()

    def _visited(self, task: Task) -> Iterator[Tensor]:
        """The time of each step: down the grid, without its clean end."""
        yield from self._times(task.prior.schedule)[:-1]

    def _prior_gradient(self, task: Task, mu: Tensor, t: Tensor) -> Tensor:
        """w_t (eps_net - eps) = lam g(r) (mu - D), free of divisions by a small sigma_t; t is 0-d or (N,)."""
        schedule = task.prior.schedule
        x_t = transitions.perturb(schedule, mu, t, task.noise.normal_like(mu))
        nsr = torch.exp(schedule.log_nsr(t)).clamp(max=schedule.nsr_range[1])  # infinite at t = 1 of a flow
        return like(self.lam * _WEIGHTS[self.weight](nsr), mu) * (mu - task.prior.denoise(x_t, t))

    def _data_gradient(self, task: Task, mu: Tensor) -> Tensor:
        """obs_weight times the gradient of ||y - A mu||^2 / 2; the network takes no part in it."""
        with torch.enable_grad():
            image = mu.detach().requires_grad_()
            residual = task.y - task.operator(task.prior.decode(image))
            (gradient,) = torch.autograd.grad(0.5 * residual.square().sum(), image)
        return self.obs_weight * gradient


@settings(frozen=True, config=STRICT)
class RedDiffV(RedDiff, name="reddiff_v"):
    """RED-diff with the times of the grid drawn at random, one a step and a sample."""

    title: ClassVar[str] = "RED-diff-V (random time)"
    about: ClassVar[str] = "RED-diff with its noise levels in random order."

    def _visited(self, task: Task) -> Iterator[Tensor]:
        grid = self._times(task.prior.schedule)[:-1]
        for _ in range(self.steps):
            index = (task.noise.uniform() * self.steps).long().clamp(max=self.steps - 1)
            yield grid.to(index.device)[index]
