"""A network that predicts eps, v, x_0, EDM output or flow velocity becomes a Prior."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..diffusion import transitions
from ..diffusion.schedules import VP, Schedule
from ..diffusion.transitions import like
from ..errors import UsageError
from .base import Denoising, Prior, rows_of
from .info import Label, PriorInfo, Provenance, Shape

PREDICTIONS = ("eps", "v", "x0", "edm", "flow", "mean")

# (labels int64 (1,) or (N,) or None, prompt or None) -> keyword arguments of the network; None, None = unconditional.
Embed = Callable[[Tensor | None, str | None], Mapping[str, Tensor]]


class NetworkPrior(Prior):
    """x_0 from what a network predicts.

    With x_t = alpha x_0 + sigma eps:
        eps:  x_0 = (x_t - sigma F) / alpha                                    (Ho et al. 2020)
        v:    F ~ alpha eps - sigma x_0;  x_0 = (alpha x_t - sigma F) / (alpha^2 + sigma^2)   (Salimans and Ho 2022)
        x0:   x_0 = F
        edm:  with r = sigma / alpha and z = x_t / alpha: x_0 = c_skip z + c_out F(c_in z)   (Karras et al. 2022, Eq. 7)
        flow: F ~ eps - x_0;  x_0 = (x_t - sigma F) / (alpha + sigma)          (Lipman et al. 2023)
        mean: F ~ a x_t + b x_0, the mean of x_{t-1} given x_t and x_0, one entry of the table of betas down;
              x_0 = (F - a x_t) / b                                            (Ho et al. 2020, Eq. 7 and 8)

    Args:
        network: module or callable (input (N, C, H, W), condition (N,), **given) -> (N, >= C, H, W); extra channels
            (learned variance) are cut off. The condition is what ``condition`` makes of t; what is given comes from
            ``embed``, with N rows each, and is empty for a network without classes and text.
        schedule: noise schedule.
        shape: (C, H, W); None = any size.
        prediction: one of ``eps``, ``v``, ``x0``, ``edm``, ``flow``, ``mean`` (with a `VP` schedule).
        condition: t (N,) float64 -> the network's noise argument; the default is ln(sigma/alpha)/4 for ``edm`` and t
            itself otherwise (an index-conditioned network passes ``lambda t: 1000 * t - 1``).
        sigma_data: EDM's data standard deviation; also the prior's ``data_std`` for ``edm``.
        dtype: the network's own dtype; images are cast on the way in and out.
        embed: makes the network's further arguments from (labels (1,) or (N,) int64 or None, prompt or None): tensors
            with 1 or N rows, by name. Both None ask for the unconditional state: raise UsageError where the network
            has none. The default for a network with classes is ``labels`` alone, without an unconditional state.
        classes: number of classes that the network knows.
        takes_text: whether ``embed`` makes something of a prompt.
        device: where x_t must live; None is where the weights are (hooks of accelerate may bring them for each call).

    Where ``learned_variance`` is set to true (not with ``edm``), the extra channels r are the variance of an ancestral
    step, in improved DDPM's form: the share (r + 1) / 2.
    """

    def __init__(
        self,
        network: nn.Module | Callable[..., Tensor],
        schedule: Schedule,
        shape: Shape,
        *,
        prediction: str = "eps",
        condition: Callable[[Tensor], Tensor] | None = None,
        sigma_data: float = 0.5,
        multiple: int = 1,
        dtype: torch.dtype = torch.float32,
        name: str = "network",
        embed: Embed | None = None,
        classes: int = 0,
        takes_text: bool = False,
        device: torch.device | None = None,
    ) -> None:
        if prediction not in PREDICTIONS:
            raise UsageError(f"unknown prediction {prediction!r}; choose one of {', '.join(PREDICTIONS)}")
        if prediction in ("eps", "edm") and float(schedule.alpha(torch.ones((), dtype=torch.float64))) == 0:
            raise UsageError(f"prediction {prediction!r} divides by alpha, which is 0 at t = 1 here; use 'flow' or 'v'")
        if prediction == "mean" and not isinstance(schedule, VP):
            raise UsageError("prediction 'mean' is one of a table of betas; pass a VP schedule")
        data_std = sigma_data if prediction == "edm" else 1.0
        info = PriorInfo(schedule, shape, multiple, data_std, classes, takes_text, provenance=Provenance(name))
        super().__init__(replace(info, null_state=not classes or embed is not None))
        self.network, self.prediction, self.sigma_data, self.dtype = network, prediction, sigma_data, dtype
        self._device = device
        self._embed = embed or (self._labels_alone if classes else _nothing)
        self._null: Mapping[str, Tensor] | None = None
        self._condition = condition or (self._edm_condition if prediction == "edm" else _identity)
        if isinstance(network, nn.Module):
            network.requires_grad_(False).eval()

    def parameters(self) -> Iterator[Tensor]:
        return self.network.parameters() if isinstance(self.network, nn.Module) else iter(())

    @property
    def device(self) -> torch.device:
        if self._device is not None:
            return self._device
        first = next(self.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def _edm_condition(self, t: Tensor) -> Tensor:
        return self.schedule.log_nsr(t) / 4

    def condition(self, *, label: Label | None = None, prompt: str | None = None) -> Mapping[str, Tensor]:
        labels = self._check_condition(label, prompt)
        with torch.no_grad():
            return {name: value.to(self.device) for name, value in self._embed(labels, prompt).items()}

    def _labels_alone(self, labels: Tensor | None, prompt: str | None) -> Mapping[str, Tensor]:
        if labels is None:
            raise UsageError(
                f"the prior {self.name} knows its pictures by class only; name one of its {self.classes} classes "
                "(label=..., or --label on the command line)"
            )
        return {"labels": labels}

    def _raw(self, x: Tensor, t: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        return self._all_channels(x, t, given)[:, : x.shape[1]]

    def _all_channels(self, x: Tensor, t: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """The network's whole output, also the channels of a learned variance."""
        condition = self._condition(t).to(device=x.device, dtype=torch.float32)
        typed = {name: v.to(self.dtype) if v.is_floating_point() else v for name, v in given.items()}
        rows = {name: rows_of(value, len(x)) for name, value in typed.items()}
        return self.network(x.to(self.dtype), condition, **rows).to(x.dtype)

    def _evaluate(self, x_t: Tensor, t: Tensor, given: Mapping[str, Tensor] | None) -> Denoising:
        if given is None:
            if self._null is None:
                self._null = self.condition()
            given = self._null
        if self.prediction == "edm":
            alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
            nsr, data = sigma / alpha, self.sigma_data
            total = nsr**2 + data**2
            z = x_t / like(alpha, x_t)
            raw = self._raw(like(total.rsqrt(), x_t) * z, t, given)
            return Denoising(like(data**2 / total, x_t) * z + like(nsr * data * total.rsqrt(), x_t) * raw)
        if not self.learned_variance:
            return Denoising(self._x_0(x_t, t, self._raw(x_t, t, given)))
        estimate, share = self._all_channels(x_t, t, given).chunk(2, dim=1)
        return Denoising(self._x_0(x_t, t, estimate), (share + 1) / 2)

    def _x_0(self, x_t: Tensor, t: Tensor, raw: Tensor) -> Tensor:
        """x_0 from what the network says of x_t itself (all predictions but ``edm``)."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        if self.prediction == "x0":
            return raw
        if self.prediction == "mean":
            return x_0_of_mean(self.schedule, x_t, raw, t)
        if self.prediction == "eps":
            return (x_t - like(sigma, x_t) * raw) / like(alpha, x_t)
        if self.prediction == "v":
            total = alpha**2 + sigma**2
            return like(alpha / total, x_t) * x_t - like(sigma / total, x_t) * raw
        return (x_t - like(sigma, x_t) * raw) / like(alpha + sigma, x_t)


def x_0_of_mean(schedule: Schedule, x_t: Tensor, mean: Tensor, t: Tensor) -> Tensor:
    """x_0 of a x_t + b x_0, the mean of x_s given x_t and x_0, s being one entry of the table of betas below t (N,)."""
    assert isinstance(schedule, VP)
    a, b = transitions.backward_weights(schedule, t, schedule.entry_below(t))
    return (mean - like(a, x_t) * x_t) / like(b, x_t)


def labels_or(null: int) -> Embed:
    """An `Embed` of labels alone, with the class ``null`` where there is none."""

    def embed(labels: Tensor | None, prompt: str | None) -> Mapping[str, Tensor]:
        return {"labels": torch.tensor([null]) if labels is None else labels}

    return embed


def _identity(t: Tensor) -> Tensor:
    return t


def _nothing(labels: Tensor | None, prompt: str | None) -> Mapping[str, Tensor]:
    return {}
