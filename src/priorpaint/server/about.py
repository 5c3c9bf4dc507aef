"""What there is to choose from: priors, methods with the schema of their settings, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from priorpaint import __version__
from priorpaint.errors import UsageError
from priorpaint.inpainting.method import DEFAULT_METHOD, NARROW_SETTINGS, choose_solver
from priorpaint.priors.loading import PRIORS
from priorpaint.solvers import SOLVERS

from .limits import Limits

DEFAULT_PRIOR = "photos"
_FILES = ("perceptual",)  # settings that name a file of this computer
_LARGEST_COUNT = 1000  # of steps, rounds and the like: a plan alone of more takes long, before a limit can be checked
# Of the default method: how the same picture is done in less time, and with more care.
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"steps": 15},
    "default": {},
    "thorough": {"steps": 100},
}


@cache
def _schema(name: str) -> dict[str, Any]:
    schema = TypeAdapter(SOLVERS[name]).json_schema()
    return {key: value for key, value in schema["properties"].items() if key not in _FILES}


def check_settings(method: str | None, settings: Mapping[str, Any]) -> None:
    """Refuse settings that name a file of this computer, that are no plain values, or wrong or endless ones.

    Raises:
        UsageError: there is one, or the method does not exist.
    """
    name = method or DEFAULT_METHOD
    if name not in SOLVERS:
        raise UsageError(f"there is no method {name!r}; the methods are {', '.join(sorted(SOLVERS))}.")
    allowed = {*_schema(name), "preset"}
    for key, value in settings.items():
        if key not in allowed:
            raise UsageError(f"{name} has no setting {key!r} here; its settings are {', '.join(_schema(name))}.")
        if not isinstance(value, str | int | float | bool | None):
            raise UsageError(f"the setting {key} is a number, a word, true, false or null.")
    solver = choose_solver(method, settings)  # which reads "2000" and 2000.0 as whole numbers, too
    for key in settings:
        value = getattr(solver, key, None)
        if isinstance(value, int) and value > _LARGEST_COUNT:
            raise UsageError(f"the setting {key} is at most {_LARGEST_COUNT} here, not {value}; take a smaller one.")


def about(priors: tuple[str, ...], limits: Limits, device: str | None) -> dict[str, Any]:
    """For ``GET /api/about``.

    Args:
        priors: that were named when the server was started, besides the embedded ones.
    """
    embedded = [{"name": name, "about": prior.description} for name, prior in PRIORS.items()]
    named = [{"name": name, "about": "named when this server was started"} for name in priors if name not in PRIORS]
    methods = {
        name: {"title": cls.title, "about": cls.about, "reference": cls.reference, "settings": _schema(name)}
        for name, cls in sorted(SOLVERS.items())
    }
    return {
        "version": __version__,
        "priors": embedded + named,
        "default_prior": DEFAULT_PRIOR,
        "methods": methods,
        "default_method": DEFAULT_METHOD,
        "default_settings": NARROW_SETTINGS,
        "presets": PRESETS,
        "limits": asdict(limits),
        "device": device or "the GPU where there is one, else the CPU",
    }
