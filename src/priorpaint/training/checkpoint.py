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


def stored_network(path: Path) -> Config:
    """The shape of the network in a checkpoint.

    Raises:
        UsageError: the file cannot be read.
    """
    return _network(_read(path))


def held_out_before(path: Path) -> bool:
    """Whether the run of a checkpoint kept pictures out of training; False for one that does not say.

    Raises:
        UsageError: the file cannot be read.
    """
    return bool(_read(path).get("held_out", False))


def load_checkpoint(
    path: Path, network: Config, loss: str = "edm", autoencoder: str | None = None
) -> tuple[dict[str, Any], Progress]:
    """Read a checkpoint onto the CPU; only tensors and plain values are read, nothing is executed.

    Args:
        autoencoder: SHA-256 of the autoencoder whose latents are learned; None for pictures.

    Raises:
        UsageError: the file is damaged, of another version, or holds another network or one for another loss or
            for the latents of another autoencoder.
    """
    state = _read(path)
    if state["config"].get("loss", "edm") != loss:
        raise UsageError(
            f"{path} was trained with the loss {state['config'].get('loss', 'edm')!r}; ask for the same, start afresh "
            "with --no-resume, or use another --out."
        )
    if state.get("autoencoder") != autoencoder:
        raise UsageError(
            f"{path} was trained on {_learned(state.get('autoencoder'))} and not on {_learned(autoencoder)}; ask for "
            "the same, start afresh with --no-resume, or use another --out."
        )
    held = _network(state)
    if held != network:
        raise UsageError(
            f"{path} holds a network with {held}; ask for the same, start afresh with --no-resume, or use another "
            "--out."
        )
    return state, Progress(int(state["step"]), int(state["crops"]), float(state["seconds"]))


def _network(state: dict[str, Any]) -> Config:
    config = state["config"]
    if config.get("loss") == "reconstruction":
        return AutoencoderConfig(**config["network"])
    kind = MLPConfig if "width" in config["network"] else UNetConfig
    return kind(**config["network"])


def _learned(autoencoder: str | None) -> str:
    return "pictures" if autoencoder is None else f"latents of the autoencoder {autoencoder[:12]}..."


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing = [key for key in _KEYS if key not in state]
    except (RuntimeError, OSError, EOFError, TypeError, pickle.UnpicklingError):
        raise UsageError(f"{path} is not a readable checkpoint; delete it, or start afresh with --no-resume.") from None
    if missing or state.get("format") != FORMAT:
        raise UsageError(
            f"{path} is not a checkpoint of this version; start afresh with --no-resume, or another --out."
        )
    loaded: dict[str, Any] = state
    return loaded
