"""The errors that priorpaint raises on purpose; each message is one sentence that says what to do next."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


class PriorpaintError(Exception):
    """Base of every error that priorpaint raises on purpose.

    Attributes:
        result: what a run had finished before the error, a `Result`; None where nothing was.
    """

    result: Any = None


class UsageError(PriorpaintError, ValueError):
    """An argument, setting, mask or picture that cannot be used as it is."""


class PriorError(PriorpaintError):
    """A prior that cannot be found, read or run."""


class CheckpointError(PriorError):
    """A checkpoint that is damaged, unsafe or of another kind; the message says what was expected and found."""


class Cancelled(PriorpaintError):
    """Raised by a callback to stop a solver at the next step."""


class MissingExtra(PriorpaintError, ImportError):
    """An optional library is needed; the message gives the exact pip command."""


def run_module(app: Callable[..., object], module: str) -> None:
    """Run the commands of ``python -m module``; an error is one sentence, and exit code 2 (wrong use) or 1."""
    try:
        app(prog_name=f"python -m {module}")
    except PriorpaintError as error:
        print(f"{module}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
