"""ReSample: every few steps the denoised latent is optimised until it explains y, and noised back to its level.

Song, Kwon, Zhang, Hu, Qu and Shen 2024, "Solving Inverse Problems with Latent Diffusion Models via Hard Data
Consistency", Algorithms 1 and 2, with Tweedie's formula where the published program multiplies by the wrong power of
sigma, and thresholds of each sample's own that know sigma_y.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.schedules import Schedule
from ..diffusion.transitions import like, row_sum
from ..operators.base import LinearOperator
from .base import STRICT, Cost, Field, Solver, Task, settings
from .dps import norm
from .likelihoods import Denoised

_PATIENCE = 200  # iterations after which a loss that is above its value so long ago ends the latent stage
_WEIGHT_DECAY = 0.01  # of the published optimisers, which shrinks hidden pixels too


@settings(frozen=True, config=STRICT)
class ReSample(Solver, name="resample"):
    """DDIM with a weak DPS term; at some levels z_0 <- argmin ||y - A Dec(z_0)||^2, and z_s ~ N(z_0 part, z_s part)."""

    title: ClassVar[str] = "ReSample"
    about: ClassVar[str] = "At some levels solves for an estimate that explains the data; made for latent priors."
    reference: ClassVar[str] = "Song et al., Solving Inverse Problems with Latent Diffusion (ReSample), ICLR 2024"
    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})
    cost_formula: ClassVar[str] = (
        "steps forward+backward (forward with scale 0), lookahead forward at each of about 2 steps / (3 every) levels; "
        "of a latent prior up to latent_iterations decoder gradients at the last half of these levels and at the end"
    )
    through_decoder: ClassVar[bool] = True

    steps: int = Field(100, ge=1, description="steps of the time grid (S); published 500")
    eta: float = Field(0.0, ge=0, le=1, description="noise of a step: 0 is DDIM, 1 is DDPM ancestral")
    scale: float = Field(0.5, ge=0, description="DPS term of each step, times alpha_t^2, in variance-preserving units")
    every: int = Field(10, ge=1, description="levels between two optimisations")
    lookahead: int = Field(5, ge=0, description="plain steps down that improve the estimate before it is optimised")
    gamma: float = Field(40.0, gt=0, description="trust in the optimised estimate: V = gamma v, v that of a DDPM step")
    pixel_iterations: int = Field(
        500, ge=1, description="of AdamW on pixels at most, in the first half; linear A needs none (published 2000)"
    )
    pixel_lr: float = Field(1e-2, gt=0, description="learning rate on pixels")
    latent_iterations: int = Field(
        100, ge=1, description="of AdamW through the decoder at most, in the second half and at the end (published 500)"
    )
    latent_lr: float = Field(5e-3, gt=0, description="learning rate on latents")
    tol: float = Field(
        1e-3, gt=0, description="root mean square misfit at which y counts as explained; sigma_y where that is larger"
    )
    preset: Literal["corrected", "reference"] = Field(
        "corrected",
        description="'reference': as the published program, with sigma_t^2 for sigma_t in the clean estimate, weight "
        "decay, and a threshold that ignores sigma_y and averages over hidden pixels too",
    )
    paste: bool = Field(True, description="with sigma_y = 0, make the result agree with y exactly at the end")
    spacing: str | None = Field(None, description="spacing of the time grid; None is the schedule's own")

    def stages(self) -> dict[int, str]:
        """Steps to go -> 'pixel' or 'latent', for the levels where the estimate is optimised."""
        split = self.steps // 3
        levels = range(self.every, self.steps - split + 1, self.every)
        return {left: "pixel" if left >= split else "latent" for left in levels if left < self.steps}

    def cost(self, num_samples: int = 1) -> Cost:
        ahead = sum(min(self.lookahead, left) for left in self.stages()) * num_samples
        steps = self.steps * num_samples
        return Cost(ahead + steps, 0) if self.scale == 0 else Cost(ahead, steps)

    def _steps(self) -> int:
        return self.steps

    @torch.no_grad()
    def _run(self, task: Task) -> Tensor:
        schedule, stages = task.prior.schedule, self.stages()
        times = schedule.grid(self.steps, self.spacing)
        z = task.start(times[0])
        for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            z, z_0 = self._step(task, z, t, s)
            stage = stages.get(self.steps - 1 - index)
            if stage is not None:
                z_0 = self._consistent(task, self._looked_ahead(task, z, z_0, times[index + 1 :]), stage)
                variance = self.gamma * transitions.backward_variance(schedule, t, s)
                z = stochastic_resample(schedule, z_0, z, s, variance, task.noise.normal_like(z))
            task.report(index + 1, z_0)
        return self._consistent(task, z, "latent")

    def _step(self, task: Task, z: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """(z_s, estimate of z_0): STEP(eta) - scale alpha_t^2 grad ||y - A Dec(z_0)||."""
        schedule = task.prior.schedule
        if self.scale == 0:
            z_0 = task.prior.denoise(z, t)
            gradient = torch.zeros_like(z)
        else:
            at = Denoised(task.prior, z, t)
            with torch.enable_grad():
                image = task.prior.decode(self._clean(schedule, at.x_t, at.graph, t))
                (gradient,) = torch.autograd.grad(norm(task.y - task.operator(image)).sum(), at.x_t)
            z_0 = at.x_0
        u = transitions.step(schedule, z, z_0, t, s, task.noise.normal_like(z), self.eta)
        return u - like(self.scale * schedule.level(t).alpha ** 2, z) * gradient, z_0

    def _clean(self, schedule: Schedule, z: Tensor, z_0: Tensor, t: Tensor) -> Tensor:
        """D, or the published estimate: (z - sigma^2 eps) / alpha."""
        if self.preset == "corrected":
            return z_0
        alpha, sigma, _ = schedule.level(t)
        return z_0 + like(sigma * (1 - sigma) / alpha, z) * transitions.epsilon(schedule, z, z_0, t)

    def _looked_ahead(self, task: Task, z: Tensor, z_0: Tensor, times: Tensor) -> Tensor:
        """The estimate of z_0 after up to ``lookahead`` plain steps from z at the first of ``times``."""
        schedule = task.prior.schedule
        for t, s in list(zip(times[:-1], times[1:], strict=True))[: self.lookahead]:
            denoised = task.prior.denoise(z, t)
            z_0 = self._clean(schedule, z, denoised, t)
            z = transitions.ddim(schedule, z, denoised, t, s)
        return z_0

    # -- hard data consistency -----------------------------------------------------------------------------------------

    def _consistent(self, task: Task, z_0: Tensor, stage: str) -> Tensor:
        """z_0 moved until its image explains y, by its pixels or by itself."""
        prior, official = task.prior, self.preset == "reference"
        if stage == "latent" and prior.latent:
            loss = self._misfit(task, prior.decode)
            return self._optimised(z_0, loss, task, self.latent_lr, self.latent_iterations, _PATIENCE)
        image = prior.decode(z_0)
        if isinstance(task.operator, LinearOperator) and not official:
            return prior.encode(self._moved_to(task, task.operator, image))
        loss = self._misfit(task, lambda x: x)
        return prior.encode(self._optimised(image, loss, task, self.pixel_lr, self.pixel_iterations, None))

    def _moved_to(self, task: Task, operator: LinearOperator, image: Tensor) -> Tensor:
        """The image on its straight way to the nearest one that fits y, stopped where the misfit is that of noise."""
        residual = task.y - operator(image)
        counts = (operator.measured(torch.ones_like(task.y)) != 0).flatten(1).sum(1)
        left = task.sigma_y * counts.sqrt() / norm(residual)
        return image + like((1 - left).clamp(min=0), image) * operator.pinv(residual)

    def _misfit(self, task: Task, decode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """x -> the mean square of y - A decode(x), (N,), over what was measured (official: over all of y)."""
        counted = torch.ones_like(task.y)
        if self.preset == "corrected":
            counted = (task.operator.measured(counted) != 0).to(counted)
        count = counted.flatten(1).sum(1).clamp(min=1)
        return lambda x: row_sum((task.y - task.operator(decode(x))).square()) / count

    def _optimised(
        self,
        x: Tensor,
        loss: Callable[[Tensor], Tensor],
        task: Task,
        lr: float,
        iterations: int,
        patience: int | None,
    ) -> Tensor:
        """AdamW on x (N, ...); a row stops for good where its loss is below the threshold or has stopped falling."""
        official = self.preset == "reference"
        threshold = self.tol**2 if official else max(self.tol, task.sigma_y) ** 2
        x = x.detach().clone().requires_grad_()
        adam = torch.optim.AdamW([x], lr=lr, weight_decay=_WEIGHT_DECAY if official else 0.0)
        active, history = torch.ones(len(x), dtype=torch.bool, device=x.device), []
        for iteration in range(iterations):
            with torch.enable_grad():
                value = loss(x)
                (x.grad,) = torch.autograd.grad(value.sum(), x)
            history.append(value.detach())
            active = active & (history[-1] > threshold)
            if patience is not None and iteration >= patience:
                active = active & (history[-1] <= history[-1 - patience])
            if not bool(active.any()):
                break
            before = x.detach().clone()
            adam.step()
            x.copy_(torch.where(active.reshape(-1, *[1] * (x.ndim - 1)), x, before))
        return x.detach()


def stochastic_resample(
    schedule: Schedule, z_0: Tensor, z_s: Tensor, s: Tensor, variance: Tensor | float, noise: Tensor
) -> Tensor:
    """A draw from the normalised product of N(alpha_s z_0, sigma_s^2) and N(z_s, variance) (the paper's Prop. 1).

    Args:
        z_0: optimised clean latents (N, C, H, W).
        z_s: latents of level s (N, C, H, W).
        s: their time, > 0.
        variance: V > 0, how far z_s is from being trusted.
        noise: standard normal (N, C, H, W).
    """
    v = torch.as_tensor(variance, dtype=torch.float64)
    alpha, own = schedule.alpha(s.to(torch.float64)), schedule.sigma(s.to(torch.float64)) ** 2
    mean = like(v * alpha / (v + own), z_0) * z_0 + like(own / (v + own), z_s) * z_s
    return mean + like((v * own / (v + own)).sqrt(), z_s) * noise
