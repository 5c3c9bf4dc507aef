"""What VIPaint fits and on which times: parameters, levels, draws, parts of the bound.

Levels T_e = t_1 > ... > t_K = T_s; row i of every parameter belongs to t_{i+1} (row 0 is the noisiest).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...diffusion.schedules import Schedule


@dataclass(frozen=True)
class Variational:
    """The parameters of one chain q(z_Te, ..., z_Ts) for each of R rows, each (R, K, C, H, W).

    Attributes:
        mean: mu, on the scale of x_0.
        log_var: log tau^2.
        gate: logit of g, the weight on the prior's mean; row 0 is unused.
    """

    mean: Tensor
    log_var: Tensor
    gate: Tensor

    def tensors(self) -> list[Tensor]:
        """mean, log_var, gate."""
        return [self.mean, self.log_var, self.gate]


@dataclass(frozen=True)
class Mixture:
    """The parameters lambda of N images: q = sum_m pi_m q_m, a mixture of M whole chains.

    Attributes:
        mean, log_var, gate: as in `Variational`, each (N, M, K, C, H, W).
        logits: (N, M); pi is their softmax.
    """

    mean: Tensor
    log_var: Tensor
    gate: Tensor
    logits: Tensor

    def tensors(self) -> list[Tensor]:
        """mean, log_var, gate, logits."""
        return [self.mean, self.log_var, self.gate, self.logits]

    @property
    def count(self) -> int:
        """M."""
        return self.logits.shape[1]

    @property
    def log_weights(self) -> Tensor:
        """log pi, (N, M)."""
        return torch.log_softmax(self.logits, 1)

    def rows(self, images: Tensor, component: Tensor | int) -> Variational:
        """The chain of each row; images (R,), component (R,) or one for all rows."""
        images = images.to(self.mean.device)
        component = torch.as_tensor(component, device=images.device).expand(len(images))
        return Variational(*(value[images, component] for value in (self.mean, self.log_var, self.gate)))


@dataclass(frozen=True)
class Ladder:
    """The times of the bound, float64.

    Attributes:
        levels: (K,), decreasing from T_e to T_s.
        pairs: (n, 2), each (t, s) with t > s, both >= T_e; for a bound they are all steps of a grid from 1 to T_e.
    """

    levels: Tensor
    pairs: Tensor


@dataclass(frozen=True)
class Draws:
    """Standard normal noise and pair indices of R rows: levels (R, K, C, H, W), top (R, C, H, W), pair (R,)."""

    levels: Tensor
    top: Tensor
    pair: Tensor

    def rows(self, index: Tensor | slice) -> Draws:
        """A part of the rows."""
        return Draws(self.levels[index], self.top[index], self.pair[index])


@dataclass(frozen=True)
class Path:
    """z_Te, ..., z_Ts of R rows, and the prior's kernels along it.

    Attributes:
        levels: K tensors (R, C, H, W).
        prior_means: of p(z_s | z_t) for the K - 1 jumps, (R, C, H, W).
        prior_variances: likewise, 0-d.
    """

    levels: list[Tensor]
    prior_means: list[Tensor]
    prior_variances: list[Tensor]


class Parts(NamedTuple):
    """The five parts of the bound, one value for each row (or image, or image and iteration); see ``bound``."""

    reconstruction: Tensor
    hierarchy: Tensor
    diffusion: Tensor
    prior: Tensor
    mixing: Tensor

    def kl(self) -> Tensor:
        """hierarchy + diffusion + prior + mixing: KL(q || p), what beta multiplies."""
        return self.hierarchy + self.diffusion + self.prior + self.mixing

    def total(self) -> Tensor:
        """The bound at beta = 1."""
        return self.reconstruction + self.kl()


def section(schedule: Schedule, high: float, low: float, steps: int) -> Tensor:
    """``steps + 1`` decreasing float64 times from ``high`` to ``low`` > 0: uniform in t where that is the schedule's
    own spacing (tables, flow), and uniform in log(sigma / alpha) elsewhere (VE, EDM)."""
    if schedule.default_spacing == "uniform":
        return torch.linspace(high, low, steps + 1, dtype=torch.float64)
    top, bottom = schedule.log_nsr(torch.tensor([high, low], dtype=torch.float64)).tolist()
    times = schedule.time_at(torch.linspace(top, bottom, steps + 1, dtype=torch.float64).exp())
    times[0], times[-1] = high, low
    return times


def halfway_to_the_top(schedule: Schedule, t: float) -> float:
    """The time whose sigma / alpha is the geometric mean of that of t and the schedule's largest."""
    nsr = float(schedule.log_nsr(torch.tensor(t, dtype=torch.float64)).exp())
    return float(schedule.time_at(torch.tensor((nsr * schedule.nsr_range[1]) ** 0.5, dtype=torch.float64)))


def neighbours(times: Tensor) -> Tensor:
    """All steps (n, 2) of a decreasing time grid (n + 1,)."""
    return torch.stack([times[:-1], times[1:]], 1)
