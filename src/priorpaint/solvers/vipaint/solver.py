"""VIPaint: fit a hierarchical Gaussian posterior at a few noise levels, sample it, and denoise from there.

"VIPaint: Image Inpainting with Pre-Trained Diffusion Models via Variational Inference" (Agarwal et al., 2024), Sec. 4.
Phase 1 minimises the bound of ``bound``; phase 2 goes from a sample of the fitted posterior down to 0, guided by y.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, ClassVar, Literal, cast

from torch import Tensor

from ...diffusion.rng import Seed, Streams, derive
from ...errors import UsageError
from ...operators.base import LinearOperator
from ...operators.inpainting import Inpainting
from ...priors.base import Prior
from ...priors.cfg import rescaled
from ...priors.latent import decoder_gain
from ...priors.recompute import RecomputePrior
from ...priors.wrapped import normalised
from ..base import STRICT, Callback, Cost, Field, Graph, Job, Problem, Solver, Task, part_of, settings
from . import fit as vipaint_fit
from .bound import Bound
from .choice import SMALL, choose_settings
from .correction import CORRECTED_STEPS, FULL_SHARE, Refinement
from .likelihood import Likelihood, perceptual_loss
from .official import OFFICIAL, OfficialBound
from .phase2 import refine
from .posterior import FittedSampler, Posterior
from .presets import PRESETS, Guidance, Rules
from .printed import PRINTED, PrintedBound
from .variables import Ladder, halfway_to_the_top

# sigma / alpha of T_s and T_e in data_std: components need levels where modes have parted, weights a good twist.
_LOWER = (1.0, 2.0)


@settings(frozen=True, config=STRICT)
class VIPaint(Solver, name="vipaint"):
    """q(z_s | z_t) = N(g E_p[z_s | z_t] + (1 - g) alpha_s mu_s, tau_s^2) on levels T_e > ... > T_s, fitted to y."""

    title: ClassVar[str] = "VIPaint"
    about: ClassVar[str] = (
        "The flagship: fits a hierarchical posterior, then samples it; plausible and diverse large holes."
    )
    reference: ClassVar[str] = "Agarwal et al., VIPaint, arXiv 2411.18929"
    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "linear"})
    cost_formula: ClassVar[str] = (
        "fill_steps forward and iterations * mc_samples * (levels + 1) * components forward+backward an image, then "
        "levels - 1 forward and refine_steps forward+backward a sample (projected: forward; langevin: refine_steps * "
        "(refine_inner + 1) + 4 forward); with correct particles / "
        "num_kept times levels - 1 + up_steps forward and a quarter of refine_steps forward+backward, and the rest once"
    )
    fits: ClassVar[bool] = True
    through_decoder: ClassVar[bool] = True

    levels: int | None = Field(
        None, ge=1, description="K, the noise levels of the posterior; 1 is only t_start (2; preset None up to 256: 1)"
    )
    preset: Literal["exact", "projected", "langevin", "printed", "official-imagenet", "official-lsun"] | None = Field(
        None,
        description="'exact': the corrected bound; for wide holes with several contents 'projected': the same at high "
        "noise, and DDNM's steps from there, or 'langevin': Langevin steps at a few levels, for masks; 'printed': "
        "the paper's equations; 'official-imagenet', 'official-lsun': the published runs; fills what is None below; "
        "None: 'langevin' for a mask and a prior of whole pictures, else 'exact', with correct up to 256 values",
    )
    t_start: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="T_s, the cleanest level, where phase 2 starts; None: sigma/alpha = 1.8 data_std (projected and "
        "langevin: 8), and 1 data_std with components or correct",
    )
    t_end: float | None = Field(
        None, gt=0, lt=1, description="T_e, the noisiest level; None: where sigma/alpha is 3.5 (32, or 2) data_std"
    )
    iterations: int | None = Field(
        None, ge=1, description="steps of the optimiser (exact 100, projected and langevin 10, official 50)"
    )
    mc_samples: int | None = Field(
        None, ge=1, description="Monte-Carlo samples an image and iteration (4; official-imagenet 5, official-lsun 10)"
    )
    lr: float | None = Field(None, gt=0, description="learning rate of the means, in image units (0.1, 0.1)")
    lr_log_var: float | None = Field(None, gt=0, description="of the log variances, in units of lr (1, 0.01)")
    lr_gate: float | None = Field(None, gt=0, description="of the gates, in units of lr (1, 0.1)")
    beta: float | None = Field(None, gt=0, description="weight of the KL terms (1 on nats, 100 on means)")
    eta: float | None = Field(None, gt=0, le=1, description="noise of the prior between levels; 1 is DDPM (1, 0.447)")
    gate: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="first weight g of the prior's mean (0.95; official-imagenet 0.993, official-lsun 0.982)",
    )
    fill_steps: int | None = Field(
        None, ge=0, description="rounds that fill the holes of y before the fit, each one forward pass (10, 0)"
    )
    top_steps: int | None = Field(None, ge=1, description="steps of the grid from t = 1 to T_e (100, published grid)")
    likelihood: Literal["gaussian", "laplace"] | None = Field(
        None, description="p(y | z_Ts): 'gaussian' or 'laplace', which is an L1 loss (gaussian, laplace)"
    )
    likelihood_scale: float | None = Field(
        None,
        ge=0,
        description="std of the denoised z_Ts about x_0 in image units (that of white data; official-imagenet 0.64, "
        "official-lsun 1)",
    )
    perceptual: str | None = Field(
        None,
        description="LPIPS in the reconstruction, for masks: a safetensors file with its weights, as "
        "priorpaint.metrics.lpips_weights writes it; without it there is the likelihood alone",
    )
    perceptual_weight: float | None = Field(None, ge=0, description="of LPIPS, in nats a value of an image (1, 1)")
    fit_cfg: float | None = Field(
        None, description="guidance scale of phase 1, for a conditioned prior (its own, 1: no guidance)"
    )
    sample_cfg: float | None = Field(
        None, description="guidance scale of phase 2, likewise (its own; official-imagenet 3)"
    )
    refine_guidance: Guidance | None = Field(
        None,
        description="guidance of phase 2: log-likelihood, plain norm as DPS, the loss, or, forward only, DDNM's "
        "projection or Langevin dynamics (exact likelihood, projected projection, langevin langevin, official loss)",
    )
    refine_steps: int | None = Field(
        None, ge=1, description="steps of phase 2 from T_s to 0 (100, 50, 6 levels, 400; correct 25)"
    )
    refine_inner: int | None = Field(None, ge=0, description="langevin: steps at each level (14)")
    refine_dt: float | None = Field(None, gt=0, description="langevin: their length, in units of sigma_t^2 (0.5)")
    refine_lam: float | None = Field(
        None, ge=0, description="langevin: how strongly unknown pixels act on known ones; 0 is plain (32)"
    )
    refine_scale: float | None = Field(
        None, ge=0, description="guidance step of phase 2 of one sample (1; official-imagenet 0.4, official-lsun 0.2)"
    )
    refine_eta: float | None = Field(None, ge=0, le=1, description="noise of phase 2; 1 is DDPM (1, 0.85, 0, 0.2)")
    components: int | None = Field(
        None, ge=1, description="M, chains in the mixture q; several keep several modes (1; preset None up to 256: 8)"
    )
    correct: bool | None = Field(
        None,
        description="phase 2 by twisted SMC with the fitted posterior as proposal, weighted so that its bias cancels "
        "(no; preset None up to 256: yes)",
    )
    particles: int = Field(64, ge=1, description="correct: particles of a group")
    num_kept: int = Field(16, ge=1, description="correct: samples that a group gives, at most as many as particles")
    up_steps: int = Field(
        16, ge=1, description="correct: steps from T_s up to pure noise that weigh z_Ts, forward only"
    )
    widen: float = Field(1.0, ge=1, description="correct: factor on the variances of the fitted posterior as proposal")
    twist: Literal["auto", "mmps", "pigdm", "dps"] = Field(
        "auto",
        description="correct: twist of the SMC; 'auto': 'mmps' up to 256 elements, else 'pigdm', or 'dps' with a "
        "latent prior",
    )
    checkpoint: bool = Field(
        False, description="recompute activations of network and decoder in phase 1: less memory, more time"
    )
    paste: bool = Field(True, description="with sigma_y = 0, make the result agree with y exactly at the end")

    @property
    def rules(self) -> Rules:
        """The preset with the settings that are not None."""
        chosen = {field.name: getattr(self, field.name, None) for field in fields(Rules)}
        if self.chains > 1 or self.correct:
            chosen["levels_at"] = _LOWER
        if self.correct and self.refine_steps is None:
            chosen["refine_steps"] = CORRECTED_STEPS
        rules = {**PRESETS, **OFFICIAL, "printed": PRINTED}[self.preset or "exact"]
        return replace(rules, **{name: value for name, value in chosen.items() if value is not None})

    def __post_init__(self) -> None:
        self._refinement("mmps", 1.0)  # fewer particles than num_kept are an error there
        if (self.chains > 1 or self.correct) and not self.rules.is_bound:
            raise UsageError(f"components and correct need a bound, which preset '{self.preset}' is not; use 'exact'")

    @property
    def num_levels(self) -> int:
        """K."""
        return self.levels or 2

    @property
    def chains(self) -> int:
        """M."""
        return self.components or 1

    @property
    def corrected(self) -> bool:
        """Whether phase 2 has weights."""
        return bool(self.correct)

    def settled(self, prior: Prior, shape: tuple[int, int, int], mask: bool) -> VIPaint:
        if self.preset is not None:
            return self
        return replace(self, **choose_settings(prior, shape, mask, self.levels, self.components, self.correct))

    def cost(self, num_samples: int = 1) -> Cost:
        rules = self.rules
        fit = rules.iterations * rules.mc_samples * self.chains * (self.num_levels + 1)
        once = vipaint_fit.other_calls(rules, self.chains, self.num_levels) + (fit if self.checkpoint else 0)
        if not self.correct:
            up, down = (self.num_levels - 1) * num_samples, rules.calls_down * num_samples
            return Cost(once + up + down, fit) if rules.forward_only else Cost(once + up, fit + down)
        weighed = math.ceil(num_samples / self.num_kept) * self.particles * (self.num_levels - 1 + self.up_steps)
        smc = self._refinement("mmps", 1.0).cost(num_samples)
        return Cost(once + weighed + smc.forward, fit + smc.backward)

    @property
    def shared_rows(self) -> int:
        return self.rules.mc_samples * self.chains

    @property
    def graph(self) -> Graph:
        return Graph(self.num_levels + 1, 1)

    def ladder(self, prior: Prior) -> Ladder:
        """The times of the levels, from T_e down to T_s, and the pairs above T_e.

        Raises:
            UsageError: T_e is not above T_s, or not below t = 1.
        """
        rules = self.rules
        low, high = rules.ends(prior, self.num_levels)
        t_start = self.t_start or low
        t_end = (self.t_end or high) if self.num_levels > 1 else t_start
        if self.t_end is None and t_start < 1 <= t_end:
            t_end = halfway_to_the_top(prior.schedule, t_start)
        if not 0 < t_start <= t_end < 1 or (self.num_levels > 1 and t_start == t_end):
            raise UsageError(f"VIPaint needs 0 < t_start < t_end < 1, not {t_start:.4g} and {t_end:.4g}; set both")
        pairs = rules.pairs(prior, t_end)
        if len(pairs) == 0:
            raise UsageError(f"the published grid has no step above t_end = {t_end:.4g}; lower t_end or set top_steps")
        return Ladder(rules.between(prior, t_end, t_start, self.num_levels - 1), pairs)

    def _likelihood(
        self, prior: Prior, operator: LinearOperator, y: Tensor, sigma_y: float, t_start: Tensor
    ) -> Likelihood:
        rules = self.rules
        if sigma_y == 0 and rules.likelihood_scale == 0:
            raise UsageError("likelihood_scale 0 and sigma_y 0 give a likelihood without width; raise one of them")
        height, width = operator.image_shape(y)[1:]
        return Likelihood(
            prior,
            operator,
            y,
            sigma_y,
            rules.likelihood,
            rules.likelihood_scale,
            t_start,
            gain=decoder_gain(prior, prior.latent_shape(height, width)) if rules.likelihood_scale is None else 1.0,
            perceptual=perceptual_loss(self.perceptual, operator, prior.device) if rules.perceptual_weight else None,
            perceptual_weight=rules.perceptual_weight,
        )

    def _cfg(self, prior: Prior, scale: float | None, setting: float | None) -> Prior:
        """The prior at a guidance scale; one without a condition has none, which matters if a setting asks for it."""
        if scale is not None and setting is None and not prior.info.null_state:
            return prior  # there is nothing that a preset's scale could lead away from
        changed = prior if scale is None else rescaled(prior, scale)
        if changed is None and setting is not None:
            raise UsageError(f"fit_cfg and sample_cfg need a condition; give {prior.name} a class or a text")
        return prior if changed is None else changed

    def condition(
        self, problem: Problem, *, seed: Seed = 0, batch_size: int | None = None, callback: Callback | None = None
    ) -> FittedSampler:
        """``fit``, whose samples are drawn with one seed a sample; see `Solver.condition`."""
        posterior = self.fit(
            problem.prior,
            cast(LinearOperator, problem.operator),
            problem.y,
            sigma_y=problem.sigma_y,
            seed=[seed] * len(problem.y) if isinstance(seed, int) else seed,
            batch_size=batch_size,
            callback=callback,
        )
        return FittedSampler(posterior)

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
        watch: Callable[[int, Posterior], None] | None = None,
    ) -> Posterior:
        """Phase 1: the posterior of each image of y.

        Args:
            prior: the prior; its weights are not changed and get no gradient.
            operator, y, sigma_y, seed: as in ``sample``; an image's fit does not depend on the rest of the batch.
            batch_size: rows (image, Monte-Carlo sample) at a time; the gradient is the same for any.
            callback: called as callback(iteration, iterations, D(z_Ts) of all rows); may raise ``Cancelled``.
            watch: called as watch(iterations done, the posterior so far), before the first iteration and after each.

        Raises:
            UsageError: arguments that do not fit together.
            Cancelled: from the callback.
        """
        return self._fit(self._job(prior, operator, y, sigma_y, 1, seed, batch_size, callback), watch)

    def _fit(self, job: Job, watch: Callable[[int, Posterior], None] | None = None) -> Posterior:
        if self.preset is None:
            return self._settled(job)._fit(job, watch)
        self._check_latent(job.prior)
        if self.rules.refine_guidance == "langevin" and not isinstance(job.operator, Inpainting):
            raise UsageError("Langevin steps hold known pixels, so they need a mask; use preset 'projected' or 'exact'")
        prior, y = self._cfg(job.prior, self.rules.fit_cfg, self.fit_cfg), job.y
        prior = RecomputePrior(prior) if self.checkpoint else prior
        operator, family = job.linear.to(y.device), self.bound(prior)
        likelihood = self._likelihood(prior, operator, y, job.sigma_y, family.ladder.levels[-1]).normalised()
        noise = Streams([derive("fit", image) for image in job.seeds], device=prior.device)

        def posterior(found: vipaint_fit.Fitted) -> Posterior:
            return Posterior(self, job.prior, operator, y, job.sigma_y, found.parameters, found.losses, found.objective)

        seen = None if watch is None else (lambda iteration, found: watch(iteration, posterior(found)))
        return posterior(vipaint_fit.fit(family, likelihood, self.chains, noise, job.batch_size, job.callback, seen))

    def _check_latent(self, prior: Prior) -> None:
        if not prior.latent:
            return
        if self.rules.forward_only:
            raise UsageError(
                f"{self.rules.refine_guidance} replaces pixels, and a latent prior has none; use preset 'exact' with it"
            )
        if complaint := self.rules.complaint(self.perceptual):
            warnings.warn(complaint, stacklevel=2)

    def bound(self, prior: Prior) -> Bound:
        """q and p, and the objective of phase 1."""
        rules = self.rules
        kind = PrintedBound if self.preset == "printed" else Bound if rules.is_bound else OfficialBound
        return kind(prior, self.ladder(prior), rules, prior.denoise)

    def sampling_prior(self, prior: Prior) -> Prior:
        """The prior of phase 2."""
        return self._cfg(prior, self.rules.sample_cfg, self.sample_cfg)

    def restore(self, prior: Prior, operator: LinearOperator, state: dict[str, Tensor]) -> Posterior:
        """The posterior whose ``state_dict`` this is; settings, prior and operator must be those of the fit.

        Raises:
            UsageError: tensors are missing, or the levels are not those of these settings and this prior.
        """
        method = self
        if "y" in state:
            shape = prior.latent_shape(*operator.image_shape(state["y"])[1:])
            method = self.settled(prior, shape, isinstance(operator, Inpainting))
        return Posterior.from_state(method, normalised(prior), operator.to(prior.device), state)

    def _sample(self, job: Job) -> Tensor:
        """``fit`` and ``Posterior.sample``."""
        if self.preset is None:
            return self._settled(job)._sample(job)
        rules = self.rules
        total = rules.iterations + self._chunks(job) * self._steps()
        posterior = self._fit(replace(job, callback=part_of(job.callback, 0, total)))
        return posterior.draw(replace(job, callback=part_of(job.callback, rules.iterations, total)))

    def _chunks(self, job: Job) -> int:
        """Parts that phase 2 of a job is cut into."""
        rows, size = len(job.y) * job.num_samples, job.batch_size
        if self.correct:
            rows = len(job.y) * math.ceil(job.num_samples / self.num_kept)
            size = None if size is None else max(1, size // self.particles)
        return -(-rows // (size or rows))

    def refine(self, job: Job) -> Tensor:
        """Phase 2 without correction: samples (B, num_samples, C, H, W) from z_Ts in ``job.initial``."""
        return super()._sample(replace(job, prior=self.sampling_prior(job.prior)))

    def refinement(self, prior: Prior, shape: tuple[int, int, int]) -> Refinement:
        """Phase 2 with correction: SMC from T_s for images of this shape."""
        twist: str = self.twist
        if twist == "auto":
            twist = "mmps" if math.prod(shape) <= SMALL else "dps" if prior.latent else "pigdm"
        return self._refinement(twist, float(prior.schedule.log_nsr(self.ladder(prior).levels[-1]).exp()))

    def _refinement(self, twist: str, top: float) -> Refinement:
        chosen: dict[str, Any] = {"twist": twist, "kernel": "dense" if twist == "mmps" else "first"}
        return Refinement(
            steps=self.rules.refine_steps,
            particles=self.particles,
            num_kept=self.num_kept,
            full_share=FULL_SHARE,
            top=top,
            paste=self.paste,
            **chosen,
        )

    def _steps(self) -> int:
        return self.rules.steps_down

    def _run(self, task: Task) -> Tensor:
        t_start = self.ladder(task.prior).levels[-1]

        def likelihood() -> Likelihood:
            return self._likelihood(task.prior, task.linear, task.y, task.sigma_y, t_start)

        return refine(task, self.rules, t_start, likelihood)
