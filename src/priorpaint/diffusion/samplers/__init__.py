"""Unconditional samplers: from x_1 to x_0 with any denoiser, also a guided one; a file a family, and a registry."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ...errors import UsageError, invalid
from .ancestral import DDIM, DDPM, check_variance, ddim_step
from .base import SAMPLERS, Callback, Sampler, explain
from .langevin import AnnealedLangevin
from .ode import Heun, RungeKutta
from .sde import EulerMaruyama, PredictorCorrector

__all__ = [
    "AnnealedLangevin",
    "Callback",
    "DDIM",
    "DDPM",
    "EulerMaruyama",
    "Heun",
    "PredictorCorrector",
    "RungeKutta",
    "SAMPLERS",
    "Sampler",
    "check_variance",
    "ddim_step",
    "explain",
    "sampler",
    "sampler_for",
]


def sampler(name: str, **settings: Any) -> Sampler:
    """A sampler by name.

    Args:
        name: a key of ``SAMPLERS``.
        settings: its settings; strings are converted, as they come from a command line.

    Raises:
        UsageError: an unknown name or setting, or a value out of range; the message lists what exists.
    """
    if name not in SAMPLERS:
        raise UsageError(f"there is no sampler {name!r}; the samplers are {', '.join(sorted(SAMPLERS))}")
    known = explain(SAMPLERS[name])
    for key in settings:
        if key not in known:
            raise UsageError(f"the sampler {name} has no setting {key!r}; its settings are {', '.join(known)}")
    try:
        return SAMPLERS[name](**settings)
    except ValidationError as error:
        raise invalid(name, error) from None


def sampler_for(asked: Sampler | str | None, steps: int | None = None) -> Sampler:
    """A sampler that is given, named, or the usual one, "heun".

    Raises:
        UsageError: as `sampler`, or steps beside a ready sampler.
    """
    if not isinstance(asked, Sampler):
        return sampler(asked or "heun", **({} if steps is None else {"steps": steps}))
    if steps is not None:
        raise UsageError("a ready sampler has its own steps; leave steps out")
    return asked
