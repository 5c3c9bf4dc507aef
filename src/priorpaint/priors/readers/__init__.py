"""Readers of published checkpoint formats, one file a format; each is imported when a file is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from .base import Reader, Request

__all__ = ["MODULES", "Reader", "Request", "readers"]

# In the order in which they are asked whether they recognise a file.
MODULES = ("diffusers", "edm", "ldm", "adm")


def readers() -> Iterator[Reader]:
    """All readers."""
    for name in MODULES:
        reader: Reader = import_module(f".{name}", __name__).READER
        yield reader
