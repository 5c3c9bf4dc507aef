"""The methods. A new one is one file and its import here; its class registers itself in ``SOLVERS``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from ..errors import UsageError, invalid
from .base import SOLVERS, Cost, Solver, explain
from .copaint import CoPaint, CoPaintTT
from .daps import DAPS
from .ddnm import DDNM
from .ddrm import DDRM
from .diffpir import DiffPIR
from .dps import DPS
from .ilvr import ILVR
from .langevin import Langevin
from .mcg import MCG
from .mmps import MMPS
from .pigdm import PiGDM
from .psld import PSLD
from .reddiff import RedDiff, RedDiffV
from .reference import with_preset
from .repaint import RePaint
from .repaint_plus import RePaintPlus
from .replacement import Replacement
from .resample import ReSample
from .smc.solver import SMC
from .tmpd import TMPD
from .vipaint.solver import VIPaint

__all__ = [
    "CoPaint",
    "CoPaintTT",
    "Cost",
    "DAPS",
    "DDNM",
    "DDRM",
    "DPS",
    "DiffPIR",
    "ILVR",
    "Langevin",
    "MAX_COUNT",
    "MCG",
    "MMPS",
    "PSLD",
    "PiGDM",
    "RePaint",
    "RePaintPlus",
    "ReSample",
    "RedDiff",
    "RedDiffV",
    "Replacement",
    "SMC",
    "SOLVERS",
    "Solver",
    "TMPD",
    "VIPaint",
    "explain",
    "parse_method",
    "solver",
]

# Grids, jumps and inner loops of more would fill the memory or never end.
MAX_COUNT = 100_000


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """Name and settings of a method that is written NAME or NAME:key=value,key=value; the value none is None.

    Raises:
        UsageError: a setting without a value.
    """
    name, _, rest = text.partition(":")
    settings: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"settings of a method are NAME:key=value,key=value, not {part!r}")
        settings[key.strip()] = None if value.strip().lower() == "none" else value.strip()
    return name, settings


def solver(name: str, **params: Any) -> Solver:
    """A method by name.

    Args:
        name: a key of ``SOLVERS``.
        params: its hyper-parameters; strings are converted, as they come from a command line. ``preset="reference"``
            takes the settings of the authors (`reference.REFERENCE`) for all that are not given; "paper" says the same.

    Raises:
        UsageError: an unknown name or hyper-parameter, or a value out of range; the message lists what exists.
    """
    if not isinstance(name, str) or name not in SOLVERS:
        raise UsageError(f"there is no method {name!r}; the methods are {', '.join(sorted(SOLVERS))}")
    cls = SOLVERS[name]
    known = explain(cls)
    params = with_preset(name, params)
    for key in params:
        if key not in known:
            raise UsageError(f"{name} has no setting {key!r}; its settings are {', '.join(known)}")
    try:
        built = cls(**params)
    except ValidationError as error:
        raise invalid(name, error) from None
    for key, value in asdict(built).items():  # type: ignore[call-overload]
        if isinstance(value, int) and value > MAX_COUNT:
            raise UsageError(f"{name}: {key} = {value} is more than {MAX_COUNT}; no method gains from so many")
    return built
