"""What a network is trained to do: EDM's denoising, DDPM's L_simple or bound, or improved DDPM's L_hybrid.

An objective draws the noise of a batch, gives its losses, and turns the network back into a denoiser.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from priorpaint.diffusion import transitions
from priorpaint.diffusion.schedules import VP
from priorpaint.diffusion.transitions import like
from priorpaint.priors.likelihood import log_pixel
from priorpaint.priors.native.mlp import MLPConfig
from priorpaint.priors.network import x_0_of_mean
from priorpaint.training.config import TrainConfig

# F(c_in x, ln(sigma) / 4) for pictures (N, C, H, W) and sigma (N,).
Network = Callable[[Tensor, Tensor], Tensor]
# Weight of L_vlb in L_hybrid, for the sum over all steps, in bits per value (Nichol and Dhariwal 2021, Section 3.1).
VLB_WEIGHT = 0.001


@dataclass(frozen=True)
class Losses:
    """Losses of the N pictures of a batch: ``plain`` to report, ``weighed`` to train on."""

    plain: Tensor
    weighed: Tensor


class Balance:
    """The running mean of the loss at each noise level, so that every level can have the same say.

    Args:
        levels: (sigma_min, sigma_max).
        bins: number of bins, even in ln sigma.
        rate: share of a new loss in the running mean of its bin.
    """

    def __init__(self, levels: tuple[float, float], bins: int = 40, rate: float = 0.02) -> None:
        self.low, self.high = map(math.log, levels)
        self.rate = rate
        self.means = torch.ones(bins)

    def weigh(self, losses: Tensor, sigma: Tensor) -> Tensor:
        """Losses divided by the running mean of their bin, shape (N,); the means then take the new losses in."""
        self.means = self.means.to(losses.device)
        position = (sigma.log() - self.low) / (self.high - self.low) * (len(self.means) - 1)
        index = position.round().long().clamp(0, len(self.means) - 1)
        weighed = losses / self.means[index]
        count = torch.zeros_like(self.means).index_add_(0, index, torch.ones_like(losses))
        total = torch.zeros_like(self.means).index_add_(0, index, losses.detach())
        share = 1 - (1 - self.rate) ** count
        self.means = self.means + share * (total / count.clamp(min=1) - self.means)
        return weighed


class Objective(ABC):
    """A training loss.

    Attributes:
        prediction: what the network predicts, as in ``NetworkPrior``.
        levels: (sigma_min, sigma_max) of sigma / alpha, for samples.
        balance: running means of the losses, which a resumed run needs; None where the loss keeps none.
    """

    prediction: str
    levels: tuple[float, float]
    balance: Balance | None = None

    @abstractmethod
    def losses(self, network: Network, x_0: Tensor, generator: torch.Generator, weight: Tensor | None = None) -> Losses:
        """Losses of clean pictures x_0 (N, C, H, W) in [-1, 1], with noise from ``generator``.

        They are means over all pixels, or with ``weight`` (N, 1, H, W) over pixels in this proportion.
        """

    @abstractmethod
    def denoise(self, network: Network, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x] for x = x_0 + sigma n (N, C, H, W), sigma (N,) > 0."""


class EDMObjective(Objective):
    """Karras et al. 2022, "Elucidating the design space of diffusion-based generative models" (Table 1 and Eq. 8).

    D(x; sigma) = c_skip x + c_out F(c_in x; ln(sigma) / 4), and the loss is lambda(sigma) |D(x_0 + sigma n; sigma) -
    x_0|^2 with lambda = 1 / c_out^2, so that every noise level starts with a loss of about one.

    Args:
        mean, std: ln sigma ~ N(mean, std^2), clamped to the ``levels``.
        levels: (sigma_min, sigma_max).
        sigma_data: standard deviation of clean pictures.
        balance: whether the losses of all noise levels are brought to the same mean.
    """

    prediction = "edm"

    def __init__(
        self, mean: float, std: float, levels: tuple[float, float], sigma_data: float, *, balance: bool
    ) -> None:
        self.mean, self.std, self.levels, self.sigma_data = mean, std, levels, sigma_data
        self.balance: Balance = Balance(levels)
        self._balanced = balance

    def losses(self, network: Network, x_0: Tensor, generator: torch.Generator, weight: Tensor | None = None) -> Losses:
        low, high = map(math.log, self.levels)
        normal = torch.randn(len(x_0), generator=generator, device=generator.device)
        sigma = (self.mean + self.std * normal).clamp(low, high).exp()
        x = x_0 + sigma[:, None, None, None] * _noise(x_0, generator)
        error = _mean((self.denoise(network, x, sigma).to(x_0.dtype) - x_0).square(), weight)
        plain = error * (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2
        return Losses(plain, self.balance.weigh(plain, sigma) if self._balanced else plain)

    def denoise(self, network: Network, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma[:, None, None, None]
        total = s**2 + self.sigma_data**2
        raw = network(x * total.rsqrt(), sigma.log() / 4)
        return x * (self.sigma_data**2 / total) + raw.to(x.dtype) * (s * self.sigma_data * total.rsqrt())


class X0Objective(EDMObjective):
    """The same noise levels and loss for a network that predicts x_0 itself."""

    prediction = "x0"

    def denoise(self, network: Network, x: Tensor, sigma: Tensor) -> Tensor:
        return network(x, sigma.log() / 4).to(x.dtype)


class SimpleObjective(Objective):
    """L_simple = E |eps - F(x_t, t)|^2 with t uniform in 1 ... T (Ho et al. 2020, Algorithm 1 and Eq. 14).

    The network sees ln(sigma_t / alpha_t) / 4 in place of t, so that it needs no table and takes any noise level.
    """

    prediction = "eps"

    def __init__(self, betas: str = "linear") -> None:
        self.schedule = VP(betas)
        self.levels = self.schedule.nsr_range
        self.beta = self.schedule.betas
        self.log_abar = torch.log1p(-self.beta).cumsum(0)
        self.alpha, self.sigma = (self.log_abar / 2).exp(), (-torch.expm1(self.log_abar)).sqrt()  # of the table, (T,)

    def losses(self, network: Network, x_0: Tensor, generator: torch.Generator, weight: Tensor | None = None) -> Losses:
        index = torch.randint(len(self.beta), (len(x_0),), generator=generator, device=generator.device)
        noise = _noise(x_0, generator)
        alpha, sigma = (_rows(values[index.cpu()], x_0) for values in (self.alpha, self.sigma))
        x_t = alpha * x_0 + sigma * noise
        out = network(x_t, (sigma / alpha).log().flatten() / 4).to(x_0.dtype)
        loss = _mean(self._loss(out, x_0, x_t, noise, index.cpu()), weight)
        return Losses(loss, loss)

    def denoise(self, network: Network, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma[:, None, None, None]
        raw = network(x * (1 + s**2).rsqrt(), sigma.log() / 4)[:, : x.shape[1]]
        return x - s * raw.to(x.dtype)

    def _loss(self, out: Tensor, x_0: Tensor, x_t: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """The loss of each value, (N, C, H, W)."""
        return (out - noise).square()


class HybridObjective(SimpleObjective):
    """L_hybrid = L_simple + 0.001 L_vlb, where L_vlb trains the variance alone (Nichol and Dhariwal 2021, Eq. 15, 16).

    The second half of the output is r in log Sigma = v log beta_t + (1 - v) log beta~_t with v = (r + 1) / 2; the mean
    stands still in L_vlb. Its terms are KL(q(x_{t-1} | x_t, x_0) | p(x_{t-1} | x_t)) and, for t = 1, the negative log
    likelihood of the 8-bit picture, per value and in bits.
    """

    def __init__(self, betas: str = "linear") -> None:
        super().__init__(betas)
        before = torch.cat([torch.zeros(1, dtype=torch.float64), self.log_abar[:-1]])
        rest = -torch.expm1(self.log_abar)
        small = self.beta * -torch.expm1(before) / rest
        # beta~_1 is 0: the first step takes that of the second one.
        self.log_small = torch.cat([small[1:2], small[1:]]).log()
        self.mean_x_0 = (before / 2).exp() * self.beta / rest
        self.mean_x_t = (1 - self.beta).sqrt() * -torch.expm1(before) / rest

    def variance(self, out: Tensor, index: Tensor) -> Tensor:
        """log Sigma (N, C, H, W) from the network's output (N, 2 C, H, W) at the table's entries ``index`` (N,)."""
        share = (out[:, out.shape[1] // 2 :] + 1) / 2
        large, small = _rows(self.beta.log()[index], out), _rows(self.log_small[index], out)
        return share * large + (1 - share) * small

    def _loss(self, out: Tensor, x_0: Tensor, x_t: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        eps = out[:, : x_0.shape[1]]
        alpha, sigma = (_rows(values[index], x_0) for values in (self.alpha, self.sigma))
        guess = (x_t - sigma * eps.detach()) / alpha
        to_x_0, to_x_t = _rows(self.mean_x_0[index], x_0), _rows(self.mean_x_t[index], x_0)
        mean, log_variance = to_x_0 * guess + to_x_t * x_t, self.variance(out, index)
        log_true = _rows(self.log_small[index], x_0)
        away = (to_x_0 * (x_0 - guess)).square()
        kl = 0.5 * (log_variance - log_true - 1 + (log_true - log_variance).exp() + away * (-log_variance).exp())
        first = -log_pixel(x_0, mean, log_variance)
        bits = torch.where((index == 0).to(out.device)[:, None, None, None], first, kl) / math.log(2)
        return (eps - noise).square() + VLB_WEIGHT * len(self.beta) * bits


class VLBObjective(SimpleObjective):
    """The variational bound itself, for a network that predicts the mean of x_{t-1} given x_t (Ho et al. 2020, Eq. 8).

    For t uniform in 1 ... T the loss is T times a term of the bound, in bits a value: (mu~ - mu)^2 / (2 beta~_t), where
    mu~ = a x_t + b x_0 is the mean of x_{t-1} given x_t and x_0, and for t = 1 the negative log likelihood of the 8-bit
    picture under N(mu, beta_1). Its mean is the bound, up to KL(q(x_T | x_0) || N(0, I)), which has no weights.
    """

    prediction = "mean"

    def denoise(self, network: Network, x: Tensor, sigma: Tensor) -> Tensor:
        scale = (1 + sigma**2).rsqrt()[:, None, None, None]
        raw = network(x * scale, sigma.log() / 4).to(x.dtype)
        return x_0_of_mean(self.schedule, x * scale, raw, self.schedule.time_at(sigma.double().cpu()))

    def _loss(self, out: Tensor, x_0: Tensor, x_t: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        t = (index + 1).double() / len(self.beta)
        s = self.schedule.entry_below(t)
        a, b = transitions.backward_weights(self.schedule, t, s)
        away = (like(a, x_t) * x_t + like(b, x_0) * x_0 - out).square()
        first = (index == 0).to(out.device)[:, None, None, None]
        variance = torch.where(index == 0, self.beta[0], transitions.backward_variance(self.schedule, t, s))
        at_first = -log_pixel(x_0, out, like(variance.log(), x_0))
        nats = torch.where(first, at_first, away / (2 * like(variance, x_0)))
        return len(self.beta) / math.log(2) * nats


def objective(config: TrainConfig) -> Objective:
    """The objective that a run asks for."""
    if config.loss == "simple":
        return SimpleObjective(config.betas)
    if config.loss == "vlb":
        return VLBObjective(config.betas)
    if config.loss == "hybrid":
        return HybridObjective(config.betas)
    kind = X0Objective if isinstance(config.network, MLPConfig) else EDMObjective
    levels = config.sigma_min, config.sigma_max
    return kind(config.p_mean, config.p_std, levels, config.sigma_data, balance=config.balance)


def _noise(x_0: Tensor, generator: torch.Generator) -> Tensor:
    return torch.empty_like(x_0, memory_format=torch.contiguous_format).normal_(generator=generator)


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Of each row of values (N, C, H, W), with weights (N, 1, H, W) that are not all 0."""
    if weight is None:
        return values.mean((1, 2, 3))
    return (weight * values).sum((1, 2, 3)) / (values.shape[1] * weight.sum((1, 2, 3)))


def _rows(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x)[:, None, None, None]
