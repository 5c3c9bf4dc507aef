"""The errors that priorpaint raises on purpose; each message is one sentence that says what to do next."""

from __future__ import annotations


class PriorpaintError(Exception):
    """Base of every error that priorpaint raises on purpose."""


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
