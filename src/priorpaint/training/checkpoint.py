"""The full state of a training run in one file that a killed run, or another machine, continues from."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from priorpaint.errors import UsageError
from priorpaint.imaging.writing import write_bytes_atomic
from priorpaint.priors.native.autoencoder import AutoencoderConfig
from priorpaint.priors.native.mlp import MLPConfig
from priorpaint.priors.native.unet import UNetConfig
from priorpaint.priors.native.weights_file import Config
from priorpaint.priors.readers.untrusted.reading import named

CHECKPOINT = "checkpoint.pt"
FORMAT = 1
_MOST = 1 << 53
_KEYS = ("network", "ema", "optimizers", "balance", "step", "crops", "seconds", "config")


@dataclass
class Progress:
    """How far a run is: updates, crops seen, seconds spent (over all resumptions)."""

    step: int = 0
    crops: int = 0
    seconds: float = 0.0


def save_checkpoint(path: Path, state: dict[str, Any], progress: Progress) -> None:
    """Write the state atomically; a crash leaves the previous checkpoint."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state, **asdict(progress)}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, buffer.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU; only tensors and plain values are read, nothing is executed.

    Raises:
        UsageError: the file is damaged or of another version.
    """
    with restoring(path):
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()  # torch does not look at the checksums of its own files
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} is wrong")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not {"format", *_KEYS} <= state.keys() or state["format"] != FORMAT:
            raise UsageError(
                f"{path} is not a checkpoint of this version; start afresh with --no-resume, or another --out."
            )
        _check(state)
    return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Whatever goes wrong while a state is read and taken over is one sentence about its file.

    Raises:
        UsageError: in place of any other error.
    """
    try:
        yield
    except (MemoryError, UsageError):
        raise
    except Exception as error:  # bytes that were changed on the way can look like anything
        raise UsageError(
            f"{path} is not a readable checkpoint ({named(error)}); delete it, or start afresh with --no-resume."
        ) from None


def _check(state: Mapping[str, Any]) -> None:
    """That a state is one, before a network is built of it; any error says that it is not."""
    if not (0 <= int(state["step"]) < _MOST and 0 <= int(state["crops"]) < _MOST and 0 <= state["seconds"] < math.inf):
        raise ValueError("its step, crops or seconds are out of range")
    for part in ("network", "ema"):
        if not all(isinstance(value, Tensor) for value in state[part].values()):
            raise TypeError(f"{part} holds other things than tensors")
    try:
        needed = _network(state).fewest_weights
    except UsageError as error:
        raise ValueError(str(error)) from None
    if needed > sum(value.numel() for value in state["network"].values()):
        raise ValueError("the network that it describes is larger than the one that it holds")


def stored_network(path: Path) -> Config:
    """The shape of the network in a checkpoint; errors as for `read_checkpoint`."""
    return _network(read_checkpoint(path))


def _network(state: Mapping[str, Any]) -> Config:
    shape = state["config"]["network"]
    if state["config"].get("loss") == "reconstruction":
        return AutoencoderConfig(**shape)
    return MLPConfig(**shape) if "width" in shape else UNetConfig(**shape)


def check_same_run(path: Path, state: dict[str, Any], network: Config, loss: str, autoencoder: str | None) -> None:
    """That a checkpoint is of this network, loss and autoencoder (SHA-256; None for pictures).

    Raises:
        UsageError: it is of others.
    """
    held, stored, learned = _network(state), state["config"].get("loss", "edm"), state.get("autoencoder")
    for same, what in (
        (stored == loss, f"was trained with the loss {stored!r}"),
        (learned == autoencoder, f"was trained on {_learned(learned)} and not on {_learned(autoencoder)}"),
        (held == network, f"holds a network with {held}"),
    ):
        if not same:
            raise UsageError(f"{path} {what}; ask for the same, start afresh with --no-resume, or use another --out.")


def _learned(autoencoder: str | None) -> str:
    return "pictures" if autoencoder is None else f"latents of the autoencoder {autoencoder[:12]}..."
