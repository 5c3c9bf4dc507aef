"""The full state of a training run in one file that a killed run, or another machine, continues from."""

from __future__ import annotations

import io
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from priorpaint.errors import UsageError
from priorpaint.imaging.writing import write_bytes_atomic
from priorpaint.priors.native.autoencoder import AutoencoderConfig
from priorpaint.priors.native.mlp import MLPConfig
from priorpaint.priors.native.unet import UNetConfig
from priorpaint.priors.native.weights_file import Config

CHECKPOINT = "checkpoint.pt"
FORMAT = 1
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
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = [key for key in _KEYS if key not in state]
    except (RuntimeError, OSError, EOFError, TypeError, pickle.UnpicklingError):
        raise UsageError(f"{path} is not a readable checkpoint; delete it, or start afresh with --no-resume.") from None
    if missing or state.get("format") != FORMAT:
        raise UsageError(
            f"{path} is not a checkpoint of this version; start afresh with --no-resume, or another --out."
        )
    return state


def stored_network(path: Path) -> Config:
    """The shape of the network in a checkpoint; errors as for `read_checkpoint`."""
    return _network(read_checkpoint(path))


def _network(state: dict[str, Any]) -> Config:
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
