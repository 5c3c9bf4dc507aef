"""What a preset of VIPaint decides, and the corrected ones; ``official`` is a file of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ...priors.base import Prior
from .variables import neighbours, section

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
    # Phase 1, loss: w_rec reconstruction + beta w_kl (hierarchy + diffusion + prior).
    beta: float
    top_steps: int  # pairs of neighbouring times above T_e
    likelihood: Literal["gaussian", "laplace"]
    likelihood_scale: float | None  # standard deviation of D(z_Ts) about x_0 in image units; None is that of white data
    perceptual_weight: float  # of LPIPS in the reconstruction, in nats an image value, where the loss is asked for
    fit_cfg: float | None  # guidance scale of a conditioned prior in phase 1; None is the prior's own
    # Family and its starting point.
    levels_at: tuple[float, float]  # sigma / alpha of T_s and T_e in units of data_std
    eta: float  # the prior's jump between levels adds noise of variance eta^2 v
    gate: float  # weight on the prior's mean at the start
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
    refine_lam: float = 32.0  # how strongly unknown pixels act on known ones

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

    @property
    def is_bound(self) -> bool:
        """What phase 1 minimises at beta = 1 bounds -log p(y)."""
        return True

    def rate(self, iteration: int) -> float:
        """Learning rate at an iteration (from 0) in units of the first: constant, then to zero over the last 40 %."""
        return min(1.0, (1 - iteration / self.iterations) / 0.4)

    def weights(self, pixels: int, elements: int) -> tuple[float, float]:
        """(w_rec, w_kl) for an image of so many values and a z of so many elements."""
        return 1.0, 1.0

    def ends(self, prior: Prior, levels: int) -> tuple[float, float]:
        """T_s and T_e of so many levels; 1 where the schedule does not go so far."""
        nsr = torch.tensor(self.levels_at, dtype=torch.float64) * prior.data_std
        low, high = prior.schedule.time_at(nsr).tolist()
        return low, high

    def between(self, prior: Prior, high: float, low: float, steps: int) -> Tensor:
        """``steps + 1`` levels from T_e = ``high`` to T_s = ``low``."""
        return section(prior.schedule, high, low, steps)

    def pairs(self, prior: Prior, t_end: float) -> Tensor:
        """The steps (n, 2) of the grid from t = 1 down to T_e."""
        return neighbours(section(prior.schedule, 1.0, t_end, self.top_steps))

    def down(self, prior: Prior, t_start: float) -> Tensor:
        """The time grid of phase 2."""
        return prior.schedule.grid(self.refine_steps, start=t_start)

    def complaint(self, perceptual: str | None) -> str | None:
        """What a user should know about a run with a latent prior and this setting of ``perceptual``, or None."""
        return None


# Levels 400 and 550 of the ImageNet-256 model, whose data have unit variance.
PUBLISHED = (1.807, 3.505)
# Where nothing is decided yet: what a Gaussian at T_e cannot hold, several contents for one hole, the prior's jumps and
# phase 2 decide.
UNDECIDED = (8.0, 32.0)

_EXACT = Rules(
    iterations=100,
    mc_samples=4,
    lr=0.1,
    lr_log_var=1.0,
    lr_gate=1.0,
    beta=1.0,
    top_steps=100,
    likelihood="gaussian",
    likelihood_scale=None,
    perceptual_weight=1.0,
    fit_cfg=None,
    sample_cfg=None,
    levels_at=PUBLISHED,
    eta=1.0,
    gate=0.95,
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
        _EXACT, iterations=10, levels_at=UNDECIDED, refine_guidance="projection", refine_steps=50, refine_eta=0.85
    ),
    # Few levels and many Langevin steps at each, so that known and unknown parts get to agree before the next decision.
    "langevin": replace(
        _EXACT, iterations=10, levels_at=UNDECIDED, refine_guidance="langevin", refine_steps=6, refine_eta=0.0
    ),
}
