"""A network that predicts eps, v, x_0, EDM output or flow velocity becomes a Prior."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..schedules import Schedule
from ..transitions import like
from .base import Prior, Shape

PREDICTIONS = ("eps", "v", "x0", "edm", "flow")


class NetworkPrior(Prior):
    """x_0 from what a network predicts.

    With x_t = alpha x_0 + sigma eps:
        eps:  x_0 = (x_t - sigma F) / alpha                                    (Ho et al. 2020)
        v:    F ~ alpha eps - sigma x_0;  x_0 = (alpha x_t - sigma F) / (alpha^2 + sigma^2)   (Salimans and Ho 2022)
        x0:   x_0 = F
        edm:  with r = sigma / alpha and z = x_t / alpha: x_0 = c_skip z + c_out F(c_in z)   (Karras et al. 2022, Eq. 7)
        flow: F ~ eps - x_0;  x_0 = (x_t - sigma F) / (alpha + sigma)          (Lipman et al. 2023)

    Args:
        network: module or callable (input (N, C, H, W), condition (N,)) -> (N, >= C, H, W); extra channels (learned
            variance) are cut off. The condition is what ``condition`` makes of t.
        schedule: noise schedule.
        shape: (C, H, W); None = any size.
        prediction: one of ``eps``, ``v``, ``x0``, ``edm``, ``flow``.
        condition: t (N,) float64 -> the network's noise argument; the default is ln(sigma/alpha)/4 for ``edm`` and t
            itself otherwise (an index-conditioned network passes ``lambda t: 1000 * t - 1``).
        sigma_data: EDM's data standard deviation; also the prior's ``data_std`` for ``edm``.
        dtype: the network's own dtype; images are cast on the way in and out.
    """

    def __init__(
        self,
        network: nn.Module | Callable[[Tensor, Tensor], Tensor],
        schedule: Schedule,
        shape: Shape,
        *,
        prediction: str = "eps",
        condition: Callable[[Tensor], Tensor] | None = None,
        sigma_data: float = 0.5,
        multiple: int = 1,
        dtype: torch.dtype = torch.float32,
        name: str = "network",
    ) -> None:
        super().__init__()
        if prediction not in PREDICTIONS:
            raise UsageError(f"unknown prediction {prediction!r}; choose one of {', '.join(PREDICTIONS)}")
        if prediction in ("eps", "edm") and float(schedule.alpha(torch.ones((), dtype=torch.float64))) == 0:
            raise UsageError(f"prediction {prediction!r} divides by alpha, which is 0 at t = 1 here; use 'flow' or 'v'")
        self.network, self.schedule, self.shape = network, schedule, shape
        self.prediction, self.sigma_data = prediction, sigma_data
        self.data_std = sigma_data if prediction == "edm" else 1.0
        self.multiple, self.dtype, self.name = multiple, dtype, name
        self._condition = condition or (self._edm_condition if prediction == "edm" else _identity)
        if isinstance(network, nn.Module):
            network.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        parameters = self.network.parameters() if isinstance(self.network, nn.Module) else iter(())
        first = next(parameters, None)
        return torch.device("cpu") if first is None else first.device

    def _edm_condition(self, t: Tensor) -> Tensor:
        return self.schedule.log_ratio(t) / 4

    def _raw(self, x: Tensor, t: Tensor) -> Tensor:
        condition = self._condition(t).to(device=x.device, dtype=torch.float32)
        return self.network(x.to(self.dtype), condition)[:, : x.shape[1]].to(x.dtype)

    def _denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        if self.prediction == "edm":
            ratio, data = sigma / alpha, self.sigma_data
            total = ratio**2 + data**2
            z = x_t / like(alpha, x_t)
            raw = self._raw(like(total.rsqrt(), x_t) * z, t)
            return like(data**2 / total, x_t) * z + like(ratio * data * total.rsqrt(), x_t) * raw
        raw = self._raw(x_t, t)
        if self.prediction == "x0":
            return raw
        if self.prediction == "eps":
            return (x_t - like(sigma, x_t) * raw) / like(alpha, x_t)
        if self.prediction == "v":
            total = alpha**2 + sigma**2
            return like(alpha / total, x_t) * x_t - like(sigma / total, x_t) * raw
        return (x_t - like(sigma, x_t) * raw) / like(alpha + sigma, x_t)


def _identity(t: Tensor) -> Tensor:
    return t
