"""VIPaint: fit a hierarchical Gaussian posterior at a few noise levels, sample it, and denoise from there.

"VIPaint: Image Inpainting with Pre-Trained Diffusion Models via Variational Inference" (Agarwal et al., 2024), Sec. 4.
Phase 1 minimises the bound of ``vipaint_bound`` by Adam; phase 2 draws z_Ts from the fitted posterior and takes
likelihood-guided steps down to 0. ``vipaint_presets`` lists how the corrected and the published version differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .. import transitions
from ..errors import UsageError
from ..noise import Seed, Streams, derive, image_seeds
from ..operators.base import LinearOperator
from ..priors.base import Prior
from ..transitions import like
from .base import STRICT, Callback, Cost, Field, Solver, Task, settings
from .dps import DPS
from .vipaint_bound import (
    Draws,
    Family,
    Ladder,
    Likelihood,
    Parts,
    Variational,
    checkpointed,
    neighbours,
    released_pairs,
    section,
)
from .vipaint_posterior import Posterior
from .vipaint_presets import PRESETS, Rules

# sigma / alpha of the published levels 400 and 550 of the ImageNet-256 model, whose data have unit variance.
_T_START_RATIO, _T_END_RATIO = 1.807, 3.505


@settings(frozen=True, config=STRICT)
class VIPaint(Solver):
    """q(z_s | z_t) = N(g E_p[z_s | z_t] + (1 - g) alpha_s mu_s, tau_s^2) on levels T_e > ... > T_s, fitted to y."""

    title: ClassVar[str] = "VIPaint"
    reference: ClassVar[str] = "Agarwal et al., VIPaint, arXiv 2411.18929"
    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "linear"})
    cost_formula: ClassVar[str] = (
        "fill_steps forward and iterations * mc_samples * (levels + 1) forward+backward an image, "
        "then levels - 1 forward and refine_steps forward+backward a sample"
    )

    levels: int = Field(2, ge=1, description="K, the noise levels of the posterior; 1 is only t_start")
    preset: Literal["exact", "official"] = Field(
        "exact", description="'exact': the corrected bound; 'official': as the published code; fills what is None below"
    )
    t_start: float | None = Field(
        None, gt=0, lt=1, description="T_s, the cleanest level, where phase 2 starts; None: sigma/alpha = 1.8 data_std"
    )
    t_end: float | None = Field(
        None, gt=0, lt=1, description="T_e, the noisiest level; None: where sigma/alpha = 3.5 data_std"
    )
    iterations: int | None = Field(None, ge=1, description="steps of the optimiser (exact 100, official 50)")
    mc_samples: int | None = Field(None, ge=1, description="Monte-Carlo samples an image and iteration (4, 5)")
    lr: float | None = Field(None, gt=0, description="learning rate of the means, in image units (0.1, 0.1)")
    beta: float | None = Field(None, gt=0, description="weight of the KL terms (1 on nats, 100 on means)")
    eta: float | None = Field(None, gt=0, le=1, description="noise of the prior between levels; 1 is DDPM (1, 0.447)")
    gate: float | None = Field(None, gt=0, lt=1, description="first weight g of the prior's mean (0.95, 0.993)")
    fill_steps: int | None = Field(
        None, ge=0, description="rounds that fill the holes of y before the fit, each one forward pass (10, 0)"
    )
    top_steps: int | None = Field(None, ge=1, description="steps of the grid from t = 1 to T_e (100, published grid)")
    likelihood: Literal["gaussian", "laplace"] | None = Field(
        None, description="p(y | z_Ts): 'gaussian' or 'laplace', which is an L1 loss (gaussian, laplace)"
    )
    likelihood_scale: float | None = Field(
        None, ge=0, description="spread of the denoised z_Ts about x_0 in image units (that of white data, 1)"
    )
    refine_guidance: Literal["likelihood", "norm", "loss"] | None = Field(
        None, description="guidance of phase 2: log-likelihood, plain norm as DPS, or the loss (likelihood, loss)"
    )
    refine_steps: int | None = Field(None, ge=1, description="steps of phase 2 from T_s to 0 (100, 400)")
    refine_scale: float | None = Field(None, ge=0, description="guidance step of phase 2 of one sample (1, 0.2)")
    refine_eta: float | None = Field(None, ge=0, le=1, description="noise of phase 2; 1 is DDPM (1, 0.2)")
    checkpoint: bool = Field(False, description="recompute network activations in phase 1: less memory, more time")
    paste: bool = Field(True, description="with sigma_y = 0, make the result agree with y exactly at the end")

    @property
    def rules(self) -> Rules:
        """The preset with the settings that are not None."""
        given = {field.name: getattr(self, field.name, None) for field in fields(Rules)}
        return replace(PRESETS[self.preset], **{name: value for name, value in given.items() if value is not None})

    def cost(self, num_samples: int = 1) -> Cost:
        rules = self.rules
        fit = rules.iterations * rules.mc_samples * (self.levels + 1)
        again = fit if self.checkpoint else 0
        return Cost(rules.fill_steps + again + (self.levels - 1) * num_samples, fit + rules.refine_steps * num_samples)

    def ladder(self, prior: Prior) -> Ladder:
        """The times of the levels, from T_e down to T_s, and the pairs above T_e.

        Raises:
            UsageError: T_e is not above T_s, or not below t = 1.
        """
        t_start = self._time(prior, self.t_start, _T_START_RATIO)
        t_end = self._time(prior, self.t_end, _T_END_RATIO) if self.levels > 1 else t_start
        if not 0 < t_start <= t_end < 1 or (self.levels > 1 and t_start == t_end):
            raise UsageError(f"VIPaint needs 0 < t_start < t_end < 1, not {t_start:.4g} and {t_end:.4g}; set both")
        schedule = prior.schedule
        levels = section(schedule, t_end, t_start, self.levels - 1)
        steps = self.rules.top_steps
        pairs = released_pairs(t_end) if steps is None else neighbours(section(schedule, 1.0, t_end, steps))
        if len(pairs) == 0:
            raise UsageError(f"the published grid has no step above t_end = {t_end:.4g}; lower t_end or set top_steps")
        return Ladder(levels, pairs)

    def _time(self, prior: Prior, given: float | None, ratio: float) -> float:
        if given is not None:
            return given
        return float(prior.schedule.time(torch.tensor(ratio * prior.data_std, dtype=torch.float64)))

    def _likelihood(
        self, prior: Prior, operator: LinearOperator, y: Tensor, sigma_y: float, t_start: Tensor
    ) -> Likelihood:
        rules = self.rules
        if sigma_y == 0 and rules.likelihood_scale == 0:
            raise UsageError("likelihood_scale 0 and sigma_y 0 give a likelihood without width; raise one of them")
        return Likelihood(prior, operator, y, sigma_y, rules.likelihood, rules.likelihood_scale, t_start)

    def fit(
        self,
        prior: Prior,
        operator: LinearOperator,
        y: Tensor,
        *,
        sigma_y: float = 0.0,
        seed: Seed = 0,
        batch_size: int | None = None,
        callback: Callback | None = None,
    ) -> Posterior:
        """Phase 1: the posterior of each image of y.

        Args:
            prior: the prior; its weights are not changed and get no gradient.
            operator, y, sigma_y, seed: as in ``sample``; an image's fit does not depend on the rest of the batch.
            batch_size: rows (image, Monte-Carlo sample) at a time; the gradient is the same for any.
            callback: called as callback(iteration, iterations, D(z_Ts) of all rows); may raise ``Cancelled``.

        Raises:
            UsageError: arguments that do not fit together.
            Cancelled: from the callback.
        """
        y, shape = self._prepare(prior, operator, y, sigma_y, 1, batch_size)
        operator = operator.to(y.device)
        rules, ladder = self.rules, self.ladder(prior)
        family = Family(prior, ladder, rules, checkpointed(prior) if self.checkpoint else prior.denoise)
        likelihood = self._likelihood(prior, operator, y, sigma_y, ladder.levels[-1])
        noise = Streams([derive("fit", image) for image in image_seeds(seed, y)], device=prior.device)
        with torch.no_grad():
            filled = prior.encode(operator.pinv(y))
            for _ in range(rules.fill_steps):
                filled = _fill(likelihood, filled, noise.normal_like(filled), ladder.levels[0], batch_size)
            lam = family.start(filled, noise.normal(2 * self.levels, *filled.shape[1:]).to(filled))
        optimiser = _Adam(rules, lam)
        history = []
        for iteration in range(rules.iterations):
            draws = self._draws(noise, len(y), filled.shape[1:], len(ladder.pairs))
            step = _gradient(family, lam, likelihood, draws, batch_size)
            history.append((step.parts, step.objective))
            optimiser.step(iteration, step.gradient)
            if callback is not None:
                callback(iteration + 1, rules.iterations, step.x_0)
        parts, objectives = zip(*history, strict=True)
        losses = Parts(*(torch.stack([getattr(part, field.name) for part in parts], 1) for field in fields(Parts)))
        fitted = Variational(*(value.detach() for value in lam.tensors()))
        return Posterior(self, prior, operator, y, float(sigma_y), fitted, losses, torch.stack(objectives, 1))

    def _draws(self, noise: Streams, images: int, shape: torch.Size, pairs: int) -> Draws:
        """Fresh noise for each (image, Monte-Carlo sample); the pairs of one image are stratified."""
        count = self.rules.mc_samples
        normal = noise.normal(count, self.levels + 1, *shape).flatten(0, 1)
        offsets = torch.arange(count, dtype=torch.float64) / count
        place = (noise.uniform(1).double().cpu() + offsets) % 1
        pair = (place * pairs).long().clamp(max=pairs - 1)
        return Draws(normal[:, : self.levels], normal[:, self.levels], pair.flatten())

    def restore(self, prior: Prior, operator: LinearOperator, state: dict[str, Tensor]) -> Posterior:
        """The posterior whose ``state_dict`` this is; settings, prior and operator must be those of the fit.

        Raises:
            UsageError: tensors are missing, or the levels are not those of these settings and this prior.
        """
        return Posterior.from_state(self, prior, operator.to(prior.device), state)

    def sample(
        self,
        prior: Prior,
        operator: LinearOperator,
        y: Tensor,
        *,
        sigma_y: float = 0.0,
        num_samples: int = 1,
        seed: Seed = 0,
        batch_size: int | None = None,
        callback: Callback | None = None,
        initial: Tensor | None = None,
    ) -> Tensor:
        """``fit`` and ``Posterior.sample``; arguments and result as in ``Solver.sample``."""
        if initial is not None:
            raise UsageError("VIPaint does not start from given images; use a method with the setting t_init")
        y, _ = self._prepare(prior, operator, y, sigma_y, num_samples, batch_size)
        rules, rows = self.rules, len(y) * num_samples
        chunks = -(-rows // (batch_size or rows))
        total = rules.iterations + chunks * rules.refine_steps
        posterior = self.fit(
            prior,
            operator,
            y,
            sigma_y=sigma_y,
            seed=seed,
            batch_size=batch_size,
            callback=_part_of(callback, 0, total),
        )
        after = _part_of(callback, rules.iterations, total)
        return posterior.sample(num_samples, seed=seed, batch_size=batch_size, callback=after)

    def refine(
        self,
        prior: Prior,
        operator: LinearOperator,
        y: Tensor,
        z: Tensor,
        *,
        sigma_y: float = 0.0,
        seed: Seed = 0,
        batch_size: int | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Phase 2: samples (B, n, C, H, W) from z_Ts (B, n, C, H, W); other arguments as in ``sample``."""
        return super().sample(
            prior,
            operator,
            y,
            sigma_y=sigma_y,
            num_samples=z.shape[1],
            seed=seed,
            batch_size=batch_size,
            callback=callback,
            initial=z,
        )

    def _starts(self, initial: Tensor | None, shape: tuple[int, ...], y: Tensor) -> Tensor | None:
        return initial  # z_Ts, from ``refine``

    def _steps(self) -> int:
        return self.rules.refine_steps

    def _run(self, task: Task) -> Tensor:
        assert task.initial is not None
        t_start = self.ladder(task.prior).levels[-1]
        likelihood = self._likelihood(task.prior, task.operator, task.y, task.sigma_y, t_start)
        times = task.prior.schedule.grid(self.rules.refine_steps, start=float(t_start))
        z = task.initial.float()
        for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            z, x_0 = self._refine_step(task, likelihood, z, t, s)
            task.report(index + 1, x_0)
        return task.operator.project(z, task.y) if self.paste and task.sigma_y == 0 else z

    def _refine_step(
        self, task: Task, likelihood: Likelihood, z_t: Tensor, t: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(z_s, estimate of x_0): STEP(refine_eta) and a gradient of each sample's own loss."""
        schedule, rules = task.prior.schedule, self.rules
        if rules.refine_guidance == "norm":
            dps: dict[str, Any] = {"scale": rules.refine_scale, "eta": rules.refine_eta}
            return DPS(**dps)._step(task, z_t, t, s)
        with torch.enable_grad():
            z_t = z_t.detach().requires_grad_()
            x_0 = task.prior.denoise(z_t, t)
            loss = likelihood.negative_log(x_0, t if rules.refine_guidance == "likelihood" else likelihood.t_start)
            (gradient,) = torch.autograd.grad(loss.sum(), z_t)
        z_t, x_0 = z_t.detach(), x_0.detach()
        noise = task.noise.normal_like(z_t) if rules.refine_noise else torch.zeros_like(z_t)
        u = transitions.step(schedule, z_t, x_0, t, s, noise, rules.refine_eta)
        if rules.refine_guidance == "likelihood":
            weight = transitions.guidance_weight(schedule, t, s, rules.refine_eta)
        else:
            weight = torch.tensor(rules.weights(z_t[0].numel(), z_t[0].numel())[0], dtype=torch.float64)
        return u - like(rules.refine_scale * weight, u) * gradient, x_0


def _fill(likelihood: Likelihood, x_0: Tensor, noise: Tensor, t: Tensor, batch_size: int | None) -> Tensor:
    """One round of project(D(x_0 noised to t)), the same y everywhere; x_0 and noise (N, C, H, W)."""
    prior, done = likelihood.prior, []
    for chunk in _chunks(len(x_0), batch_size):
        index = torch.arange(len(x_0))[chunk]
        image = prior.decode(prior.denoise(transitions.perturb(prior.schedule, x_0[chunk], t, noise[chunk]), t))
        operator = likelihood.operator.select(index)
        done.append(prior.encode(operator.project(image, likelihood.y[chunk])))
    return torch.cat(done)


@dataclass(frozen=True)
class _Step:
    """One estimate of the loss: parts and objective (N,), gradient of each parameter, D(z_Ts) of all rows."""

    parts: Parts
    objective: Tensor
    gradient: list[Tensor]
    x_0: Tensor


def _gradient(family: Family, lam: Variational, likelihood: Likelihood, draws: Draws, batch_size: int | None) -> _Step:
    """The mean over the Monte-Carlo samples of each image, summed over images, computed some rows at a time."""
    images = len(lam.mean)
    rows = len(draws.top)
    count = rows // images
    gradient = [torch.zeros_like(value) for value in lam.tensors()]
    parts, objectives, estimates = [], [], []
    for chunk in _chunks(rows, batch_size):
        index = torch.arange(rows)[chunk] // count
        near = replace(
            likelihood, operator=likelihood.operator.select(index), y=likelihood.y[index.to(likelihood.y.device)]
        )
        with torch.enable_grad():
            part, x_0 = family.parts(lam.rows(index), near, draws.rows(chunk))
            w_rec, w_kl = family.rules.weights(family.prior.decode(x_0[:1]).numel(), x_0[0].numel())
            objective = w_rec * part.reconstruction + family.rules.beta * w_kl * part.kl()
            new = torch.autograd.grad(objective.sum() / count, lam.tensors(), allow_unused=True)
        for total, value in zip(gradient, new, strict=True):
            total += 0 if value is None else value  # the gate of a single level is unused
        parts.append(part.map(Tensor.detach))
        objectives.append(objective.detach())
        estimates.append(x_0.detach())
    merged = (torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Parts))
    whole = Parts(*merged).map(lambda value: value.reshape(images, count).mean(1))
    return _Step(whole, torch.cat(objectives).reshape(images, count).mean(1), gradient, torch.cat(estimates))


def _chunks(rows: int, size: int | None) -> Iterator[slice]:
    return (slice(first, first + (size or rows)) for first in range(0, rows, size or rows))


class _Adam:
    """Adam on lambda with the rates of the preset; elementwise, so images do not feel each other."""

    def __init__(self, rules: Rules, lam: Variational) -> None:
        self.rules = rules
        self.parameters = [value.requires_grad_() for value in lam.tensors()]
        rates = (rules.lr, rules.lr * rules.lr_log_var, rules.lr * rules.lr_gate)
        groups = [{"params": [value], "lr": rate} for value, rate in zip(self.parameters, rates, strict=True)]
        self._optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self._rates = rates

    def step(self, iteration: int, gradient: list[Tensor]) -> None:
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.rules.rate(iteration)
        for value, slope in zip(self.parameters, gradient, strict=True):
            value.grad = slope
        self._optimiser.step()


def _part_of(callback: Callback | None, before: int, total: int) -> Callback | None:
    """A callback that counts a part of a longer run."""
    if callback is None:
        return None
    return lambda step, _, x_0: callback(before + step, total, x_0)
