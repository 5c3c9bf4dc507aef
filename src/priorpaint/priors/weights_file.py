"""Weights of priorpaint's own networks: one safetensors file that describes itself.

The file's ``priorpaint`` metadata entry is JSON: format version, architecture, network shape, what the network
predicts, its noise schedule, and facts about the training. Format 1 is the EDM network for pictures of any size without
classes; format 2 has further entries, which an older reader would pass over without knowing. Nothing in the file is
ever executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from priorpaint.errors import PriorError, UsageError
from priorpaint.priors.unet import UNet, UNetConfig

FORMATS = (1, 2)
ARCHITECTURE = "unet"
_ENTRY = "priorpaint"
# Options of a network that format 1 does not know.
_LATER = {"classes", "learned_variance"}


@dataclass(frozen=True)
class WeightsMetadata:
    """What a weights file says about itself.

    Args:
        sigma_data: standard deviation of the pictures in the preconditioning (pictures in [-1, 1]).
        sigma_min, sigma_max: noise levels sigma / alpha that the network was trained for (pictures in [-1, 1]).
        training: facts about the training, free form, JSON values only.
        prediction: ``edm`` (Karras et al. 2022) or ``eps`` on the table ``betas`` (Ho et al. 2020).
        betas: name of a table of 1000 betas (see ``schedules.VP``), for ``eps``.
        size: (height, width) of the pictures that the network knows as a whole; None for any size.
        class_names: a name for each class, or none.
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.01
    sigma_max: float = 8.0
    training: Mapping[str, Any] = field(default_factory=dict)
    prediction: str = "edm"
    betas: str = "linear"
    size: tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()


def save_weights(
    path: str | Path, network: UNet, metadata: WeightsMetadata, dtype: torch.dtype = torch.float16
) -> None:
    """Write ``network`` to ``path``, atomically, with its weights in ``dtype``.

    Raises:
        PriorError: a weight is not finite, or too large for ``dtype``.
    """
    path = Path(path)
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in network.state_dict().items()}
    _check_finite(tensors, path)
    more = {key: value for key, value in _further(metadata).items() if value}
    config = {key: value for key, value in asdict(network.config).items() if value or key not in _LATER}
    entry = {
        "format": 2 if more or set(config) & _LATER else 1,
        "architecture": ARCHITECTURE,
        "config": config,
        "sigma_data": metadata.sigma_data,
        "schedule": {"sigma_min": metadata.sigma_min, "sigma_max": metadata.sigma_max},
        **more,
        "training": dict(metadata.training),
    }
    write_atomically(path, save(tensors, metadata={_ENTRY: json.dumps(entry, sort_keys=True)}))


def load_weights(path: str | Path) -> tuple[UNet, WeightsMetadata]:
    """Read a file of `save_weights`: the network in float32, in evaluation mode, on the CPU, and its metadata.

    Raises:
        PriorError: the file is missing, damaged, of another kind or version, or its weights do not fit its own config.
    """
    path = Path(path)
    if not path.is_file():
        raise PriorError(f"There is no weights file {path}; check the path.")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            header = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise PriorError(f"{path} is not a readable safetensors file ({error}); download or export it again.") from None
    config, metadata = _parse(header, path)
    network = UNet(config)
    _check_fit(tensors, network, path)
    _check_finite(tensors, path)
    network.load_state_dict({k: v.float() for k, v in tensors.items()})
    return network.eval().requires_grad_(False), metadata


def _further(metadata: WeightsMetadata) -> dict[str, Any]:
    """The entries of format 2."""
    eps = metadata.prediction != "edm"
    return {
        "prediction": metadata.prediction if eps else None,
        "betas": metadata.betas if eps else None,
        "size": list(metadata.size) if metadata.size else None,
        "class_names": list(metadata.class_names),
    }


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _parse(header: Mapping[str, str], path: Path) -> tuple[UNetConfig, WeightsMetadata]:
    if _ENTRY not in header:
        raise PriorError(f"{path} was not written by priorpaint (it has no 'priorpaint' entry); use its own reader.")
    try:
        entry = json.loads(header[_ENTRY])
        version, architecture = entry["format"], entry["architecture"]
    except (ValueError, KeyError, TypeError):
        raise PriorError(f"The description inside {path} is damaged; download or export the file again.") from None
    if version not in FORMATS or architecture != ARCHITECTURE:
        raise PriorError(
            f"{path} holds a {architecture!r} network in format {version!r}; this version of priorpaint reads "
            f"{ARCHITECTURE!r} in format {' or '.join(map(str, FORMATS))}, so update priorpaint."
        )
    try:
        unknown = set(entry["config"]) - {f.name for f in fields(UNetConfig)}
        if unknown:
            raise PriorError(f"{path} uses network options {sorted(unknown)} that are unknown here; update priorpaint.")
        schedule = entry["schedule"]
        metadata = WeightsMetadata(
            sigma_data=float(entry["sigma_data"]),
            sigma_min=float(schedule["sigma_min"]),
            sigma_max=float(schedule["sigma_max"]),
            prediction=_choice(entry, "prediction", ("edm", "eps")),
            betas=_choice(entry, "betas", ("linear", "cosine", "scaled_linear")),
            size=_size(entry.get("size")),
            class_names=tuple(map(str, entry.get("class_names", ()))),
            training=dict(entry.get("training", {})),
        )
        return UNetConfig(**entry["config"]), metadata
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise PriorError(f"The description inside {path} is incomplete ({error}); export the file again.") from None


def _choice(entry: Mapping[str, Any], key: str, known: tuple[str, ...]) -> str:
    value = entry.get(key, known[0])
    if value not in known:
        raise ValueError(f"{key} is {value!r} and not one of {', '.join(known)}")
    return str(value)


def _size(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    height, width = (int(side) for side in value)
    if min(height, width) < 1:
        raise ValueError(f"size is {height}x{width}")
    return height, width


def _check_fit(tensors: Mapping[str, Tensor], network: UNet, path: Path) -> None:
    wanted = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in tensors.items()}
    wrong = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if wrong:
        raise PriorError(
            f"{path} does not hold the network that it describes: {len(wrong)} tensors are missing, unknown or of "
            f"another shape, the first being {wrong[0]!r}; export the file again."
        )


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for key, value in tensors.items():
        if not value.is_floating_point():
            raise PriorError(f"{path}: the weights {key!r} are {value.dtype}, not floating point; export them again.")
        if not bool(torch.isfinite(value).all()):
            raise PriorError(f"{path}: the weights {key!r} hold values that are not finite; train them again.")
