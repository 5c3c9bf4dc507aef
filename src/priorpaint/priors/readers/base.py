"""What a reader of a checkpoint format is. Nothing from a checkpoint is ever executed."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ..base import Prior


@dataclass(frozen=True)
class Request:
    """A checkpoint to read.

    Attributes:
        source: the file, or the folder of formats that are folders.
        flags: what the format cannot say about itself, for example ``{"num_head_channels": 64}``.
        device: where the network runs.
        dtype: of the network's weights.
    """

    source: Path
    flags: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Reader:
    """One checkpoint format.

    Attributes:
        name: as in ``priorpaint priors info``, for example ``adm``.
        title: the program that writes it.
        recognises: whether a path looks like this format, from its contents and not from its name; one reader at most
            recognises a path; never raises.
        read: the prior; raises ``CheckpointError`` where the file is damaged, unsafe or of another architecture.
    """

    name: str
    title: str
    recognises: Callable[[Path], bool]
    read: Callable[[Request], Prior]


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


def explained(error: ValidationError) -> str:
    """The first setting that is wrong, its value, shortened, and what it should be."""
    wrong = error.errors()[0]
    return f"{'.'.join(map(str, wrong['loc'])) or 'it'} is {shown(wrong)}"


def shown(wrong: Mapping[str, Any]) -> str:
    """A wrong value, shortened, and what it should be, of one error of pydantic."""
    value = "missing" if wrong["type"] == "missing" else _SHORT.repr(wrong["input"])
    return f"{value} ({wrong['msg'][:1].lower()}{wrong['msg'][1:]})"
