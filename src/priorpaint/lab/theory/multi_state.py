"""Many noise levels (Rout et al. 2023, Section 3.2.4): is it better to resample, or to take smaller steps?

``times`` is a decreasing grid from the noisiest time to 0, as ``Schedule.grid`` makes it, of a variance-preserving
schedule. alpha_{t|s} = alpha_t / alpha_s, beta_{t|s} = 1 - alpha_{t|s}^2. Where a function takes ``rho``, that is any
number or tensor of eigenvalues of B = P_MM; errors are of a mode, whose hidden part of x_0 has variance rho.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.schedules import VP
from .model import LinearModel

# -- generation --------------------------------------------------------------------------------------------------------


def generator(model: LinearModel, schedule: VP, t: Tensor, s: Tensor) -> Tensor:
    """Theorem 8: theta_t* = alpha_{t|s} P + b_t (I - P), the least-squares map from x_t to E[x_s | x_t, x_0], (d, d).

    b_t = alpha_{t|s} sigma_s^2 / sigma_t^2 is what x_t weighs there.
    """
    keep, b = _pull(schedule, t, s)
    return keep * model.P + b * (torch.eye(model.d, dtype=torch.float64) - model.P)


def signal_generator(model: LinearModel, schedule: VP, t: Tensor, s: Tensor) -> Tensor:
    """Corollary 10: under Assumption 9 only the signal part alpha_{t|s} P of Theorem 8 is kept."""
    return _pull(schedule, t, s)[0] * model.P


def generated_variance(schedule: VP, times: Tensor) -> float:
    """Theorem 11: latent variance of what x_s = alpha_{t|s} P x_t + sqrt(beta_{t|s}) P eps generates from N(0, I).

    It is abar_T + sum over t of abar_s beta_{t|s} = 1: the data's own law, for any number of states.
    """
    t, s = times[:-1], times[1:]
    _, beta = transitions.forward(schedule, s, t)
    return float(schedule.alpha(times[0]) ** 2 + (schedule.alpha(s) ** 2 * beta).sum())


def ancestral_variance(schedule: VP, times: Tensor) -> float:
    """Latent variance of DDPM's own chain with the smaller variance beta-tilde: below 1 for finitely many states."""
    t, s = times[:-1], times[1:]
    keep, _ = _pull(schedule, t, s)
    variance = 1.0
    for factor, added in zip(keep.tolist(), transitions.backward_variance(schedule, t, s).tolist(), strict=True):
        variance = factor**2 * variance + added
    return variance


# -- inpainting without resampling -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModeError:
    """Error of the hidden part v of a mode: E[v | x_0] - x_M = bias x_M, Var[v | x_0] = variance."""

    rho: Tensor
    bias: Tensor
    variance: Tensor

    @property
    def rms(self) -> Tensor:
        """Root mean square over x_0, x_T and all noise."""
        return (self.bias.square() * self.rho + self.variance).sqrt()


def aligned_error(schedule: VP, times: Tensor, rho: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Theorem 12: variances (init, forward, reverse) of the error; Corollary 10, gain 1 / alpha_{t|s}^2, R = 1.

    init = (1 / abar_T + 1) rho^(2T-1) is the mean part, that of T sweeps, over x_0 and x_T; the two others stay:
    forward = sum_{t<T} (sigma_t / alpha_t)^2 rho^(2t-1) (1 - rho), from the noise on the known pixels, and
    reverse = sum_t beta_t / abar_{t-1} rho^(2t-1), from the noise of the reverse steps.
    """
    rho = torch.as_tensor(rho, dtype=torch.float64)
    t, s = times[:-1], times[1:]
    abar = schedule.alpha(times) ** 2
    number = torch.arange(len(t), 0, -1)  # the states T, ..., 1
    power = rho[..., None] ** (2 * number - 1)
    _, beta = transitions.forward(schedule, s, t)
    init = (1 / abar[0] + 1) * power[..., 0]
    forward = ((1 / abar[1:-1] - 1) * power[..., 1:]).sum(-1) * (1 - rho)
    return init, forward, (beta / abar[1:] * power).sum(-1)


def repaint_error(schedule: VP, times: Tensor, rho: Tensor | float, rounds: int = 1) -> ModeError:
    """RePaint with the exact kernel (Theorem 8, variance beta-tilde) and R rounds a state: the exact recursion.

    Down: v <- theta_MM v + theta_MK x_K + sqrt(beta-tilde) eps, with x_K = alpha_t y + sigma_t eps. Up, between two
    rounds: v <- alpha_{t|s} v + sqrt(beta_{t|s}) eps, and the known part is noised anew.
    """
    rho = torch.as_tensor(rho, dtype=torch.float64)
    t, s = times[:-1], times[1:]
    keep, b = _pull(schedule, t, s)
    up, beta = transitions.forward(schedule, s, t)
    spread, alpha, variance_t = transitions.backward_variance(schedule, t, s), schedule.alpha(t), schedule.sigma(t) ** 2
    mean, variance = torch.zeros_like(rho), torch.ones_like(rho)
    for i in range(len(t)):
        own, other = (
            keep[i] * rho + b[i] * (1 - rho),
            (keep[i] - b[i]) * (1 - rho),
        )  # theta_MM; theta_MK x_K = other x_M
        noise = (keep[i] - b[i]) ** 2 * rho * (1 - rho)
        # The first x_T is pure noise, also in the known pixels.
        known_mean, known_variance = (torch.zeros(()), torch.ones(())) if i == 0 else (alpha[i], variance_t[i])
        mean = own * mean + other * known_mean
        variance = own**2 * variance + noise * known_variance + spread[i]
        # The other rounds are one affine map, up and down again.
        mean = _repeat(mean, own * up[i], other * alpha[i], rounds - 1)
        added = own**2 * beta[i] + noise * variance_t[i] + spread[i]
        variance = _repeat(variance, (own * up[i]) ** 2, added, rounds - 1)
    return ModeError(rho, mean - 1, variance)


def _repeat(x: Tensor, factor: Tensor, added: Tensor, times: int) -> Tensor:
    """x <- factor x + added, ``times`` times, for factors below 1."""
    left = factor**times
    return left * x + (1 - left) / (1 - factor) * added


# -- Algorithm 3 -------------------------------------------------------------------------------------------------------


def literal_sweep(model: LinearModel, schedule: VP, t: Tensor, s: Tensor) -> Tensor:
    """A round of Algorithm 3 as printed, in the scale of x_0: theta_t* / alpha_{t|s} = P + c_t (I - P), (d, d)."""
    keep, _ = transitions.forward(schedule, s, t)
    return generator(model, schedule, t, s) / keep


def literal_rate(schedule: VP, t: Tensor, s: Tensor, rho: Tensor | float) -> Tensor:
    """Its rate c + (1 - c) rho with c = sigma_s^2 / sigma_t^2: near 1 for small steps. In the x_0 form it is rho."""
    c = (schedule.sigma(s) / schedule.sigma(t)) ** 2
    return c + (1 - c) * torch.as_tensor(rho, dtype=torch.float64)


def literal_contraction(schedule: VP, times: Tensor, rho: Tensor | float, rounds: int = 1) -> Tensor:
    """What R rounds at each state leave of an error: the product of all rates."""
    rho = torch.as_tensor(rho, dtype=torch.float64)
    rates: Tensor = literal_rate(schedule, times[:-1], times[1:], rho[..., None]) ** rounds
    return rates.prod(-1)


def _pull(schedule: VP, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha_{t|s}, b_t): how theta_t* scales what lies on the manifold, and what does not."""
    b, a = transitions.backward_weights(schedule, t, s)  # E[x_s | x_t, x_0] = b x_t + a x_0, and D = alpha_t P x_t
    return a * schedule.alpha(t) + b, b
