"""What a reader of a checkpoint format is. Nothing from a checkpoint is ever executed."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ...diffusion.schedules import Schedule
from ..base import Prior
from .untrusted.reading import file_hash, interpreting


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


@dataclass(frozen=True)
class Noise:
    """How a network was trained.

    Attributes:
        schedule: of x_t.
        prediction: as in ``NetworkPrior``.
        condition: t (N,) float64 -> what the network is told; None is EDM's ln(sigma)/4.
        sigma_data: for ``edm``.
        negate: the network predicts the negative of what ``prediction`` says.
        facts: for ``priors info`` and run.json.
    """

    schedule: Schedule
    prediction: str
    condition: Callable[[Tensor], Tensor] | None = None
    sigma_data: float = 0.5
    negate: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


def of_file(read: Callable[[Request], Prior]) -> Callable[[Request], Prior]:
    """A reader of a file: whatever goes wrong in it is a CheckpointError that names the file, and so does the prior."""

    @wraps(read)
    def careful(request: Request) -> Prior:
        with interpreting(request.source):
            prior = read(request)
            prior.source, prior.hash = request.source, file_hash(request.source)
            return prior

    return careful


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


def short(value: Any) -> str:
    """A value of a configuration as a message shows it, shortened."""
    return _SHORT.repr(value)


def explained(error: ValidationError) -> str:
    """The first setting that is wrong, its value, shortened, and what it should be."""
    wrong = error.errors()[0]
    return f"{'.'.join(map(str, wrong['loc'])) or 'it'} is {shown(wrong)}"


def shown(wrong: Mapping[str, Any]) -> str:
    """A wrong value, shortened, and what it should be, of one error of pydantic."""
    value = "missing" if wrong["type"] == "missing" else short(wrong["input"])
    return f"{value} ({wrong['msg'][:1].lower()}{wrong['msg'][1:]})"
