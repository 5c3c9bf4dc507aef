"""What a reader of a checkpoint format is. Nothing from a checkpoint is ever executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..base import Prior


@dataclass(frozen=True)
class Request:
    """A checkpoint to read.

    Attributes:
        source: the file, or the folder of formats that are folders.
        flags: what the format cannot say about itself, for example ``{"num_head_channels": 64}``.
        device: where the network shall run.
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
