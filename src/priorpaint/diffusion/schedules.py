"""Noise schedules: x_t = alpha_t x_0 + sigma_t eps for continuous t in [0, 1], with t = 1 the noisiest.

Every schedule is described by one function, lambda(t) = log(sigma_t / alpha_t), and by the scale alpha_t; the two
give sigma_t without cancellation at either end. All arithmetic is float64; results come back in the dtype of the
argument (pass float64 times, as ``grid`` returns them, to keep float64 coefficients).

References:
    Ho et al. 2020 (DDPM), Nichol and Dhariwal 2021 (cosine), Rombach et al. 2022 (scaled linear),
    Song et al. 2021 (VP, VE), Karras et al. 2022 (EDM, Eq. 5), Lipman et al. 2023 (rectified flow).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..errors import UsageError

SPACINGS = ("uniform", "quad", "logsnr", "karras", "respaced", "leading")
TABLED = ("respaced", "leading")
"""Spacings whose times are entries of a table of betas, the first one too."""

# Below this time VE, EDM and flow leave their textbook formula and run linearly to sigma = 0, so that t = 0 is clean
# and sigma / alpha stays strictly increasing and invertible.
_FIRST = 1e-3

_Number = TypeVar("_Number", float, Tensor)


class Level(NamedTuple):
    """alpha_t, sigma_t and lambda(t) = log(sigma_t / alpha_t), float64, in the shape of t."""

    alpha: Tensor
    sigma: Tensor
    log_nsr: Tensor


class _Grid(NamedTuple):
    """The last time grid of a schedule: what was asked for, its times, and their levels by time."""

    asked: tuple[int, str, float, float, float | None]
    times: Tensor
    levels: Mapping[float, Level]


class Schedule(ABC):
    """alpha(t), sigma(t) and time grids.

    ``t`` has any shape and lies in [0, 1]; sigma_0 = 0 and alpha_0 = 1; sigma / alpha is strictly increasing.
    """

    default_spacing: str = "uniform"
    _last: _Grid | None = None

    def level(self, t: Tensor) -> Level:
        """alpha_t, sigma_t and lambda(t), float64; read from a table where t is a single time of the last grid.

        A step of a solver needs each of them some ten times, which one by one would take longer than a small network.
        """
        if self._last is not None and t.ndim == 0 and t.device.type == "cpu":
            known = self._last.levels.get(float(t))
            if known is not None:
                return known
        t = t.to(torch.float64)
        return Level(self.alpha(t), self.sigma(t), self.log_nsr(t))

    def _levels(self, times: Tensor) -> Mapping[float, Level]:
        """The levels of ``times`` (n,), by time."""
        columns = (column.unbind() for column in Level(self.alpha(times), self.sigma(times), self.log_nsr(times)))
        return dict(zip(times.tolist(), map(Level._make, zip(*columns, strict=True)), strict=True))

    @abstractmethod
    def log_nsr(self, t: Tensor) -> Tensor:
        """lambda(t) = log(sigma_t / alpha_t), float64, any shape; -inf at t = 0."""

    @abstractmethod
    def time_at(self, nsr: Tensor) -> Tensor:
        """The time at which sigma_t / alpha_t equals ``nsr`` (any shape, >= 0); clamped to [0, 1]."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """alpha_t in the shape and dtype of ``t``."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """sigma_t in the shape and dtype of ``t``."""

    @property
    @abstractmethod
    def nsr_range(self) -> tuple[float, float]:
        """The smallest positive and the largest finite sigma / alpha that a time grid uses."""

    def grid(
        self,
        steps: int,
        spacing: str | None = None,
        *,
        rho: float = 7.0,
        start: float = 1.0,
        low: float | None = None,
    ) -> Tensor:
        """``steps + 1`` strictly decreasing float64 times, the first ``start`` (but for ``leading``), the last 0.

        Args:
            steps: number of steps, >= 1; each goes from one time to the next.
            spacing: ``uniform`` in t, ``quad`` (1 - t is the root of a uniform grid, dense at low noise; DiffPIR's),
                ``logsnr`` (uniform in log sigma/alpha), ``karras`` (uniform in
                (sigma/alpha)^(1/rho), Karras et al. 2022, Eq. 5), ``respaced`` (the entries round(k (T-1)/(steps-1))
                of a table of betas, DDPM respacing) or ``leading`` (the entries 0, j, 2j, ... for j = T // steps, as
                DDIM's program has them, so that the first time is below 1); without a table, the noise levels of
                those of the linear table of 1000, from 1 down where the schedule ends below them. None is the
                schedule's own habit.
            rho: exponent of ``karras``.
            start: the first time, in (0, 1].
            low: sigma/alpha of the last noisy level of ``karras`` and ``logsnr``, at most half of the first one where
                ``start`` is below 1; None is the smallest of the schedule.

        Raises:
            UsageError: steps < 1, an unknown spacing, ``start`` out of range, more steps than a table has entries, or
                ``low`` with another spacing.
        """
        if steps < 1:
            raise UsageError(f"a time grid needs at least 1 step, not {steps}")
        if not 0 < start <= 1:
            raise UsageError(f"a time grid starts in (0, 1], not at {start}")
        spacing = spacing or self.default_spacing
        if low is not None and spacing not in ("karras", "logsnr"):
            raise UsageError(
                f"a grid with the spacing {spacing!r} has a last level of its own; use 'karras' or 'logsnr'"
            )
        asked = steps, spacing, rho, start, low
        last = self._last
        if last is None or last.asked != asked:  # some methods ask for their grid at every call
            times = self._grid(*asked)
            last = self._last = _Grid(asked, times, self._levels(times))
        return last.times.clone()

    def _grid(self, steps: int, spacing: str, rho: float, start: float, low: float | None) -> Tensor:
        if spacing not in SPACINGS:
            raise UsageError(f"unknown spacing {spacing!r}; choose one of {', '.join(SPACINGS)}")
        if spacing in TABLED:
            if start != 1:
                raise UsageError(f"spacing {spacing!r} has a first time of its own; use 'uniform' to start lower")
            return self._of_table(steps, spacing)
        # From the start down to the lowest noisy level in steps - 1 moves, then to clean.
        down = torch.linspace(0, 1, steps, dtype=torch.float64)
        if spacing == "uniform":
            return torch.linspace(start, 0, steps + 1, dtype=torch.float64)
        if spacing == "quad":
            return start * (1 - torch.linspace(0, 1, steps + 1, dtype=torch.float64).sqrt())
        least, high = self.nsr_range
        low = least if low is None else max(low, least)
        if start < 1:
            high = math.exp(float(self.log_nsr(torch.tensor(start, dtype=torch.float64))))
            low = min(low, high / 2)
        if spacing == "logsnr":
            nsr = torch.exp(math.log(high) + down * (math.log(low) - math.log(high)))
        else:
            nsr = (high ** (1 / rho) + down * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        times = torch.cat([self.time_at(nsr), torch.zeros(1, dtype=torch.float64)])
        times[0] = start
        return times

    def _of_table(self, steps: int, spacing: str) -> Tensor:
        """Entries of the 1000 linear betas of Ho et al., carried over as noise levels, as far up as they go."""
        table = VP().nsr()
        levels = table[table <= self.nsr_range[1]]
        index = _entries(steps, len(levels), spacing)
        times = torch.cat([self.time_at(levels[index]), torch.zeros(1, dtype=torch.float64)])
        if spacing == "respaced" or len(levels) < len(table):
            times[0] = 1  # a schedule that ends below the table's noise begins with all that it has
        return times


class VP(Schedule):
    """Variance preserving: alpha^2 + sigma^2 = 1, from a table of betas.

    Table entry i (0-based, as in DDPM code) is the level at t = (i + 1) / T; t = 0 is clean. Between table points
    log(sigma / alpha) is linear in t; below the first point sigma / alpha is. With ``to_pure_noise`` (zero terminal
    SNR, Lin et al. 2024) alpha = 0 at t = 1, and between the last two points alpha / sigma is linear in t.

    Args:
        betas: ``linear``, ``cosine``, ``scaled_linear`` or any sequence of betas in (0, 1).
        steps: length of a named table.
        beta_start, beta_end: ends of ``linear`` and ``scaled_linear`` (defaults: the published ones).
        to_pure_noise: the last beta is 1.
    """

    def __init__(
        self,
        betas: str | Sequence[float] | Tensor = "linear",
        steps: int = 1000,
        beta_start: float | None = None,
        beta_end: float | None = None,
        *,
        to_pure_noise: bool = False,
    ) -> None:
        table = _named_betas(betas, steps, beta_start, beta_end) if isinstance(betas, str) else betas
        self.betas = torch.as_tensor(table, dtype=torch.float64).flatten().cpu()
        below_one = self.betas[:-1] if to_pure_noise else self.betas
        if self.betas.numel() < 2 or not bool((self.betas > 0).all() and (below_one < 1).all()):
            raise UsageError("a beta table needs at least two values, all strictly between 0 and 1")
        if to_pure_noise and float(self.betas[-1]) != 1:
            raise UsageError(f"a beta table that ends in pure noise ends in 1, not in {float(self.betas[-1])}")
        self._ends_in_noise = to_pure_noise
        log_abar = torch.log1p(-self.betas).cumsum(0)
        self._knots = 0.5 * (torch.log(-torch.expm1(log_abar)) - log_abar)
        self._count = self.betas.numel()

    @property
    def nsr_range(self) -> tuple[float, float]:
        return math.exp(self._knots[0].item()), math.exp(self._knots[-2 if self._ends_in_noise else -1].item())

    def log_nsr(self, t: Tensor) -> Tensor:
        position = t.to(torch.float64) * self._count - 1
        knots = self._knots.to(t.device)
        left = position.floor().long().clamp(0, self._count - 2)
        weight = (position - left).clamp(0, 1)
        if self._ends_in_noise:
            last = knots[-2] - torch.log1p(-weight)
            inside = torch.where(left == self._count - 2, last, torch.lerp(knots[left], knots[left + 1], weight))
        else:
            inside = torch.lerp(knots[left], knots[left + 1], weight)
        return torch.where(position < 0, knots[0] + torch.log1p(position.clamp(max=0)), inside)

    def time_at(self, nsr: Tensor) -> Tensor:
        log_nsr = nsr.to(torch.float64).log()
        knots = self._knots.to(nsr.device)
        left = (torch.searchsorted(knots, log_nsr.contiguous(), right=True) - 1).clamp(0, self._count - 2)
        weight = (log_nsr - knots[left]) / (knots[left + 1] - knots[left])
        if self._ends_in_noise:
            weight = torch.where(left == self._count - 2, -torch.expm1(knots[-2] - log_nsr), weight)
        inside = left + 1 + weight
        below = torch.exp(log_nsr - knots[0])
        return (torch.where(log_nsr < knots[0], below, inside) / self._count).clamp(0, 1).to(_float(nsr))

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-2 * self.log_nsr(t)).sqrt().to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sigmoid(2 * self.log_nsr(t)).sqrt().to(t.dtype)

    def entry_below(self, t: Tensor) -> Tensor:
        """The time one entry of the table below t, at least 0, in the shape and dtype of t."""
        return (t - 1 / self._count).clamp(min=0)

    def nsr(self) -> Tensor:
        """sigma / alpha of the entries of the table, the cleanest first, (T,) float64."""
        return self._knots.exp()

    def _of_table(self, steps: int, spacing: str) -> Tensor:
        index = _entries(steps, self._count, spacing)
        return torch.cat([(index + 1).double() / self._count, torch.zeros(1, dtype=torch.float64)])


class _AlphaOne(Schedule):
    """Schedules with alpha = 1, given by sigma on [0.001, 1] and a linear run to 0 below."""

    sigma_min: float
    sigma_max: float
    default_spacing = "karras"

    @abstractmethod
    def _textbook(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _inverse(self, sigma: Tensor) -> Tensor: ...

    def _check(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise UsageError(f"need 0 < sigma_min < sigma_max, not {self.sigma_min} and {self.sigma_max}")

    @property
    def nsr_range(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self._sigma64(t).to(t.dtype)

    def log_nsr(self, t: Tensor) -> Tensor:
        return self._sigma64(t).log()

    def _sigma64(self, t: Tensor) -> Tensor:
        t = t.to(torch.float64)
        return self._textbook(t.clamp(min=_FIRST)) * (t / _FIRST).clamp(max=1)

    def time_at(self, nsr: Tensor) -> Tensor:
        sigma = nsr.to(torch.float64)
        first = self._textbook(torch.tensor(_FIRST, dtype=torch.float64, device=nsr.device))
        t = torch.where(sigma < first, _FIRST * sigma / first, self._inverse(sigma.clamp(min=first)))
        return t.clamp(0, 1).to(_float(nsr))


class VE(_AlphaOne):
    """Variance exploding: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t (Song et al. 2021)."""

    default_spacing = "logsnr"

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self._check()

    def _textbook(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def _inverse(self, sigma: Tensor) -> Tensor:
        return (sigma / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)


class EDM(_AlphaOne):
    """alpha = 1, sigma^(1/rho) linear in t (Karras et al. 2022, Eq. 5)."""

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        self.sigma_min, self.sigma_max, self.rho = float(sigma_min), float(sigma_max), float(rho)
        self._check()

    def _textbook(self, t: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        sigma: Tensor = (low + t * (high - low)) ** self.rho
        return sigma

    def _inverse(self, sigma: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        t: Tensor = (sigma ** (1 / self.rho) - low) / (high - low)
        return t


class Flow(Schedule):
    """Rectified flow: alpha = 1 - t, sigma = t. At t = 1 sigma/alpha is infinite; grids in nsr stop at 999 first.

    Args:
        shift: moves the ``uniform`` grid towards noise, t = shift u / (1 + (shift - 1) u) with u uniform, as models for
            large pictures are sampled (Esser et al. 2024, Eq. 23); the meaning of t stays. 1 is no shift.
        last: u at the last noisy level of that grid, before the step to clean; 0 is equal steps in u down to clean, as
            Flux is sampled. None is 0 without a shift and else the shifted 0.001, as Stable Diffusion 3 is sampled.
    """

    def __init__(self, shift: float = 1.0, last: float | None = None) -> None:
        if not 0 < shift < math.inf:
            raise UsageError(f"the shift of a flow schedule must be a positive number, not {shift}")
        if last is not None and not 0 <= last < 1:
            raise UsageError(f"the last noisy level of a flow schedule must lie in [0, 1), not {last}")
        self.shift = float(shift)
        self.last = (0.0 if shift == 1 else self._shifted(_FIRST)) if last is None else float(last)

    def _grid(self, steps: int, spacing: str, rho: float, start: float, low: float | None) -> Tensor:
        if spacing != "uniform":
            return super()._grid(steps, spacing, rho, start, low)
        high = start / (self.shift - (self.shift - 1) * start)
        times = self._shifted(torch.linspace(high, 0, steps + 1, dtype=torch.float64))
        if self.last:
            last = min(self.last, high / 2)
            times[:-1] = self._shifted(torch.linspace(high, last, steps, dtype=torch.float64))
        times[0] = start
        return times

    def _shifted(self, u: _Number) -> _Number:
        return self.shift * u / (1 + (self.shift - 1) * u)

    @property
    def nsr_range(self) -> tuple[float, float]:
        return _FIRST, (1 - _FIRST) / _FIRST

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t.clone()

    def log_nsr(self, t: Tensor) -> Tensor:
        t = t.to(torch.float64)
        return t.log() - torch.log1p(-t)

    def time_at(self, nsr: Tensor) -> Tensor:
        # 1 / (1 + 1/r) is right at r = 0 and at r = inf, where r / (1 + r) is not.
        return (1 / (1 + 1 / nsr.to(torch.float64))).to(_float(nsr))


def _entries(steps: int, count: int, spacing: str) -> Tensor:
    """``steps`` indices of a table of ``count`` entries, int64, the noisiest first and entry 0 last."""
    if not 2 <= steps <= count:
        raise UsageError(f"spacing {spacing!r} takes 2 to {count} steps here, not {steps}")
    if spacing == "leading":
        return count // steps * torch.arange(steps - 1, -1, -1)
    return torch.linspace(count - 1, 0, steps, dtype=torch.float64).round().long()


def _float(like: Tensor) -> torch.dtype:
    return like.dtype if like.is_floating_point() else torch.float64


def _named_betas(name: str, steps: int, beta_start: float | None, beta_end: float | None) -> Tensor:
    if steps < 2:
        raise UsageError(f"a beta table needs at least 2 steps, not {steps}")
    if name == "linear":
        # Published for 1000 steps; scaled so that a table of another length spans the same noise.
        scale = 1000 / steps
        start = 1e-4 * scale if beta_start is None else beta_start
        end = 0.02 * scale if beta_end is None else beta_end
        return torch.linspace(start, end, steps, dtype=torch.float64)
    if name == "scaled_linear":
        start = 0.00085 if beta_start is None else beta_start
        end = 0.012 if beta_end is None else beta_end
        return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    if name == "cosine":
        level = torch.arange(steps + 1, dtype=torch.float64) / steps
        log_abar = 2 * torch.cos((level + 0.008) / 1.008 * math.pi / 2).clamp(min=1e-30).log()
        return (-torch.expm1(log_abar[1:] - log_abar[:-1])).clamp(max=0.999)
    raise UsageError(f"unknown beta table {name!r}; choose linear, scaled_linear or cosine, or pass the betas")
