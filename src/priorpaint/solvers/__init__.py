"""The methods. A new one is one file and one line here."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ..errors import UsageError
from .base import Cost, Solver, explain
from .dps import DPS
from .repaint import RePaint
from .replacement import Replacement
from .vipaint import VIPaint

SOLVERS: dict[str, type[Solver]] = {
    "dps": DPS,
    "repaint": RePaint,
    "replacement": Replacement,
    "vipaint": VIPaint,
}

__all__ = ["SOLVERS", "Cost", "Solver", "explain", "solver"]


def solver(name: str, **params: Any) -> Solver:
    """A method by name.

    Args:
        name: a key of ``SOLVERS``.
        params: its hyper-parameters; strings are converted, as they come from a command line.

    Raises:
        UsageError: an unknown name or hyper-parameter, or a value out of range; the message lists what exists.
    """
    if name not in SOLVERS:
        raise UsageError(f"there is no method {name!r}; the methods are {', '.join(sorted(SOLVERS))}")
    cls = SOLVERS[name]
    known = explain(cls)
    for key in params:
        if key not in known:
            raise UsageError(f"{name} has no setting {key!r}; its settings are {', '.join(known)}")
    try:
        return cls(**params)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{name}: {key} = {first['input']!r} is not valid: {first['msg'].lower()}") from None
