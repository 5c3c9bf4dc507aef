"""What a sampler is: a walk down the time grid, from x_1 to x_0, with one random stream a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from ...errors import UsageError
from ..denoiser import Denoiser, Denoising
from ..rng import Streams

Callback = Callable[[int, int, Tensor], None]
"""Called as callback(step, total, x0_estimate) after each step; may raise ``Cancelled``."""

STRICT = ConfigDict(extra="forbid")
SAMPLERS: dict[str, type[Sampler]] = {}
"""Every sampler by name, filled by the classes themselves: ``class DDIM(Sampler, name="ddim")``."""

MAX_STEPS = 100_000


@settings(frozen=True, config=STRICT)
class Sampler(ABC):
    """A walk down the time grid; its settings are its fields.

    Called as sampler(prior, x_1, noise), with one stream a row in ``noise``, it returns x_0.

    Class attributes:
        title: its name in the literature, and the paper.
        cost_formula: network evaluations of one sample in terms of the settings.
    """

    title: ClassVar[str]
    cost_formula: ClassVar[str]

    steps: int = Field(default=50, ge=1, le=MAX_STEPS, description="steps of the time grid")
    spacing: str | None = Field(default=None, description="spacing of the time grid; none is the schedule's own")
    start: float = Field(default=1.0, gt=0, le=1, description="first time of the grid")
    clip: bool = Field(default=False, kw_only=True, description="clip each estimate of x_0 to [-1, 1]")

    def __init_subclass__(cls, *, name: str | None = None, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if name is not None:
            SAMPLERS[name] = cls

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """Network evaluations of one sample."""

    @abstractmethod
    def step(self, prior: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        """(x_s, estimate of x_0) from x_t (N, C, H, W); t > s are 0-d float64 times."""

    def __call__(self, prior: Denoiser, x_1: Tensor, noise: Streams, callback: Callback | None = None) -> Tensor:
        """x_0 (N, C, H, W) from x_1 (N, C, H, W); with ``start`` < 1, from x at that time."""
        times = prior.schedule.grid(self.steps, self.spacing, start=self.start)
        x_t = x_1
        for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            x_t, x_0 = self.step(prior, x_t, t, s, noise)
            if callback is not None:
                callback(index + 1, self.steps, x_0)
        return x_t

    def check(self, *, latent: bool, learned_variance: bool) -> None:
        """Whether it can sample from a prior, before any work.

        Args:
            latent: whether the prior's x_0 is a latent.
            learned_variance: whether its network has learned the variance of an ancestral step.

        Raises:
            UsageError: it cannot.
        """
        if self.clip and latent:
            raise UsageError("latents have no range that they could be clipped to; leave clip out")

    def estimate(self, prior: Denoiser, x_t: Tensor, t: Tensor) -> Tensor:
        """D(x_t, t), clipped where the settings say so."""
        return self.clipped(prior.evaluate(x_t, t)).mean

    def clipped(self, out: Denoising) -> Denoising:
        """What a prior says about x_0, its mean clipped where the settings say so."""
        return Denoising(out.mean.clamp(-1, 1), out.variance_share) if self.clip else out


def is_clean(t: Tensor) -> bool:
    """Whether a time is the end of the grid, t = 0."""
    return float(t) == 0


def explain(cls: type[Sampler]) -> dict[str, tuple[Any, str]]:
    """Each setting of a sampler: name -> (default, meaning)."""
    schema = TypeAdapter(cls).json_schema()["properties"]
    return {
        field.name: (schema[field.name].get("default"), schema[field.name].get("description", ""))
        for field in fields(cls)
    }


def column(value: float | Tensor, x: Tensor) -> Tensor:
    """(N,) numbers, shaped to broadcast against x (N, ...)."""
    return torch.as_tensor(value).reshape(-1, *[1] * (x.ndim - 1))
