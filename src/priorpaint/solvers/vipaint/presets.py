"""How the corrected VIPaint (``exact``, ``projected``, ``langevin``) and the published code (``official``) differ.

"Released" means the code at github.com/SakshiAgarwal/VIPaint (HEAD 9ec3fca); see docs/methods/vipaint.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Guidance = Literal["likelihood", "norm", "loss", "projection", "langevin"]

CALM_STEPS = 4  # langevin: plain steps from the lowest level to 0


@dataclass(frozen=True)
class Rules:
    """Every choice that a preset makes; a setting of ``VIPaint`` that is not None replaces it."""

    # Phase 1, optimiser: Adam with betas (0.9, 0.99).
    iterations: int
    mc_samples: int
    lr: float  # of the means
    lr_log_var: float  # in units of lr
    lr_gate: float  # in units of lr
    lr_decay: Literal["tail", "step"]  # constant, then linear to zero over the last 40 %; or 0.99 every ten iterations
    # Phase 1, loss: w_rec reconstruction + beta w_kl (hierarchy + diffusion + prior).
    beta: float
    units: Literal["nats", "means"]  # weights 1 and 1, or 100 / pixels and 1 / elements
    kl: Literal["exact", "released"]  # mean term (m1 - m2)^2 / (2 v2), or v2 (m1 - m2)^2 / 2
    top: Literal["marginal", "released"]  # KL of q(z_s | z_t), or of q(z_s | z_t, z_Te) with the released weights
    top_steps: int | None  # pairs of neighbouring times above T_e; None is the released grid
    likelihood: Literal["gaussian", "laplace"]
    likelihood_scale: float | None  # spread of D(z_Ts) about x_0 in image units; None is that of white data
    perceptual_weight: float  # of LPIPS in the reconstruction, in nats an image value, where the loss is asked for
    fit_cfg: float | None  # guidance scale of a conditioned prior in phase 1; None is the prior's own
    # Family and its starting point.
    levels_at: tuple[float, float]  # sigma / alpha of T_s and T_e in units of data_std
    eta: float  # the prior's jump between levels adds noise of variance eta^2 v
    gate: float  # weight on the prior's mean at the start
    coupled_top: bool  # mean of q(z_Te) is sqrt(alpha^2 + sigma^2 - tau^2) mu instead of alpha mu
    start: Literal["matched", "released"]  # of lower levels: mu = filled, tau^2 = g v; or noised twice and 0.7 sqrt(v)
    fill_steps: int  # before the start: x_0 <- project(D(x_0 noised to T_e)), so that holes do not start grey
    encoding_noise: float  # added to filled A^+ y, in units of the prior's data_std
    top_noise: float  # added to the highest mean, in units of the prior's data_std
    # Phase 2.
    sample_cfg: float | None  # guidance scale of a conditioned prior
    refine_guidance: Guidance
    refine_steps: int
    refine_scale: float
    refine_eta: float
    refine_noise: bool  # add the noise that refine_eta leaves room for
    # Of refine_guidance "langevin" alone.
    refine_inner: int = 14  # steps at each of refine_steps levels
    refine_dt: float = 0.5  # their length, in units of sigma_t^2
    refine_lam: float = 32.0  # how hard unknown pixels push on known ones

    @property
    def forward_only(self) -> bool:
        """Phase 2 takes no gradients."""
        return self.refine_guidance in ("projection", "langevin")

    @property
    def steps_down(self) -> int:
        """Steps of phase 2 from T_s to 0."""
        return self.refine_steps + (CALM_STEPS if self.refine_guidance == "langevin" else 0)

    @property
    def calls_down(self) -> int:
        """Network calls of phase 2, a sample."""
        return self.steps_down + (self.refine_steps * self.refine_inner if self.refine_guidance == "langevin" else 0)

    def rate(self, iteration: int) -> float:
        """Learning rate at an iteration (from 0) in units of the first."""
        if self.lr_decay == "step":
            return float(0.99 ** (iteration // 10))
        return min(1.0, (1 - iteration / self.iterations) / 0.4)

    def weights(self, pixels: int, elements: int) -> tuple[float, float]:
        """(w_rec, w_kl) for an image of so many values and a z of so many elements."""
        return (1.0, 1.0) if self.units == "nats" else (100 / pixels, 1 / elements)


# Levels 400 and 550 of the ImageNet-256 model, whose data have unit variance.
_PUBLISHED = (1.807, 3.505)
# Where nothing is decided yet: what a Gaussian at T_e cannot hold, several contents for one hole, the prior's jumps and
# phase 2 decide.
_UNDECIDED = (8.0, 32.0)

_EXACT = Rules(
    iterations=100,
    mc_samples=4,
    lr=0.1,
    lr_log_var=1.0,
    lr_gate=1.0,
    lr_decay="tail",
    beta=1.0,
    units="nats",
    kl="exact",
    top="marginal",
    top_steps=100,
    likelihood="gaussian",
    likelihood_scale=None,
    perceptual_weight=1.0,
    fit_cfg=None,
    sample_cfg=None,
    levels_at=_PUBLISHED,
    eta=1.0,
    gate=0.95,
    coupled_top=False,
    start="matched",
    fill_steps=10,
    encoding_noise=0.0,
    top_noise=0.1,
    refine_guidance="likelihood",
    refine_steps=100,
    refine_scale=1.0,
    refine_eta=1.0,
    refine_noise=True,
)

PRESETS: dict[str, Rules] = {
    "exact": _EXACT,
    "projected": replace(
        _EXACT, iterations=10, levels_at=_UNDECIDED, refine_guidance="projection", refine_steps=50, refine_eta=0.85
    ),
    # Few levels and many Langevin steps at each, so that known and unknown parts get to agree before the next decision.
    "langevin": replace(
        _EXACT, iterations=10, levels_at=_UNDECIDED, refine_guidance="langevin", refine_steps=6, refine_eta=0.0
    ),
    "official": Rules(
        iterations=50,
        mc_samples=5,
        lr=0.1,
        lr_log_var=0.01,
        lr_gate=0.1,
        lr_decay="step",
        beta=100.0,
        units="means",
        kl="released",
        top="released",
        top_steps=None,
        likelihood="laplace",
        likelihood_scale=1.0,
        perceptual_weight=1.0,
        fit_cfg=1.0,
        sample_cfg=3.0,
        levels_at=_PUBLISHED,
        eta=0.2**0.5,
        gate=1 / (1 + math.exp(-5)),
        coupled_top=True,
        start="released",
        fill_steps=0,
        encoding_noise=1.0,
        top_noise=0.8,
        refine_guidance="loss",
        refine_steps=400,
        refine_scale=0.2,
        refine_eta=0.2,
        refine_noise=False,
    ),
}
