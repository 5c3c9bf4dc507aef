"""Weights of priorpaint's own networks: one safetensors file that describes itself.

The file's ``priorpaint`` metadata entry is JSON: format version, architecture, network shape, what the network
predicts, its noise schedule, and facts about the training. Format 1 is the EDM network for pictures of any size without
classes; format 2 has further entries, which an older reader would pass over without knowing; format 3 is an
autoencoder, alone or with the denoiser of its latents (tensors ``autoencoder.*`` and ``denoiser.*``). Nothing in the
file is ever executed, and nothing is built that is larger than what the file holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors.torch import save
from torch import Tensor, nn

from priorpaint.errors import CheckpointError, PriorError
from priorpaint.imaging.writing import write_bytes_atomic
from priorpaint.priors.native.autoencoder import AutoencoderConfig, ConvAutoencoder
from priorpaint.priors.native.mlp import MLP, MLPConfig
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.readers.base import explained, short
from priorpaint.priors.readers.untrusted.reading import check_finite, check_fit, check_floating, load_safetensors

TRAINED_FILE = "weights.safetensors"  # in a folder of `priorpaint train`, or of a model on the hub
FORMATS = (1, 2, 3)
ON_A_TABLE = ("eps", "mean")
"""Predictions of networks that were trained on a table of betas."""
ARCHITECTURES = ("unet", "mlp", "autoencoder")
_DENOISER, _AUTOENCODER = "denoiser", "autoencoder"
Denoiser = UNet | MLP
Config = UNetConfig | MLPConfig | AutoencoderConfig
Network = Denoiser | ConvAutoencoder
_UNETS, _MLPS, _AUTOENCODERS = TypeAdapter(UNetConfig), TypeAdapter(MLPConfig), TypeAdapter(AutoencoderConfig)
_Side = Annotated[int, Field(ge=1, le=65536, strict=True)]
_Sigma = Annotated[float, Field(ge=1e-6, le=10**6)]
_ENTRY = "priorpaint"
_DEEPEST = 20
# Options of a network that format 1 does not know.
_LATER = {"classes", "learned_variance", "dense", "side", "hidden"}


@dataclass(frozen=True)
class WeightsMetadata:
    """What a weights file says about itself.

    Args:
        sigma_data: standard deviation of the data in the preconditioning (pictures in [-1, 1]; about 1 for latents).
        sigma_min, sigma_max: noise levels sigma / alpha that the network was trained for (pictures in [-1, 1]).
        training: facts about the training, free form, JSON values only.
        prediction: ``edm`` (Karras et al. 2022), ``x0`` on the same noise levels, or ``eps`` or ``mean`` on the
            table ``betas`` (Ho et al. 2020).
        betas: name of a table of 1000 betas (see ``schedules.VP``), for ``eps`` and ``mean``.
        size: (height, width) of the pictures, or latents, that the network knows as a whole; None for any size.
        class_names: a name for each class, or none.
        autoencoder_training: as ``training``, of the autoencoder that comes with a denoiser of its latents.
    """

    sigma_data: Annotated[float, Field(ge=1e-6, le=1000)] = 0.5
    sigma_min: _Sigma = 0.01
    sigma_max: _Sigma = 8.0
    training: Mapping[str, Any] = field(default_factory=dict)
    prediction: Annotated[str, Field(pattern="^(edm|eps|x0|mean)$")] = "edm"
    betas: Annotated[str, Field(pattern="^(linear|cosine|scaled_linear)$")] = "linear"
    size: tuple[_Side, _Side] | None = None
    class_names: tuple[str, ...] = ()
    autoencoder_training: Mapping[str, Any] = field(default_factory=dict)


_METADATA = TypeAdapter(WeightsMetadata)


@dataclass(frozen=True)
class Weights:
    """What a weights file holds: a denoiser of pictures, an autoencoder, or both, the denoiser being one of latents."""

    denoiser: Denoiser | None
    autoencoder: ConvAutoencoder | None
    metadata: WeightsMetadata


def save_weights(
    path: str | Path,
    network: Denoiser,
    metadata: WeightsMetadata,
    dtype: torch.dtype = torch.float16,
    *,
    autoencoder: ConvAutoencoder | None = None,
) -> None:
    """Write ``network``, and the autoencoder whose latents it denoises, atomically, with weights in ``dtype``.

    Raises:
        PriorError: a weight is not finite, or too large for ``dtype``.
    """
    _write(path, weights_bytes(network, metadata, dtype, autoencoder=autoencoder))


def weights_bytes(
    network: Denoiser,
    metadata: WeightsMetadata,
    dtype: torch.dtype = torch.float16,
    *,
    autoencoder: ConvAutoencoder | None = None,
) -> bytes:
    """What `save_weights` writes.

    Raises:
        PriorError: a weight is not finite, or too large for ``dtype``.
    """
    later = {  # the entries of format 2
        "prediction": metadata.prediction if metadata.prediction != "edm" else None,
        "betas": metadata.betas if metadata.prediction in ON_A_TABLE else None,
        "size": list(metadata.size) if metadata.size else None,
        "class_names": list(metadata.class_names),
    }
    more = {key: value for key, value in later.items() if value}
    config = {key: value for key, value in asdict(network.config).items() if value or key not in _LATER}
    entry = {
        "format": 2 if more or set(config) & _LATER else 1,
        "architecture": "mlp" if isinstance(network, MLP) else "unet",
        "config": config,
        "sigma_data": metadata.sigma_data,
        "schedule": {"sigma_min": metadata.sigma_min, "sigma_max": metadata.sigma_max},
        **more,
        "training": dict(metadata.training),
    }
    if autoencoder is None:
        return _encoded(network.state_dict(), entry, dtype)
    training = dict(metadata.autoencoder_training)
    entry |= {"format": 3, "autoencoder": {"config": asdict(autoencoder.config), "training": training}}
    both = nn.ModuleDict({_DENOISER: network, _AUTOENCODER: autoencoder})
    return _encoded(both.state_dict(), entry, dtype)


def save_autoencoder(
    path: str | Path,
    autoencoder: ConvAutoencoder,
    training: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write an autoencoder alone, with facts about its training, as `save_weights` does.

    Raises:
        PriorError: a weight is not finite, or too large for ``dtype``.
    """
    config = asdict(autoencoder.config)
    entry = {"format": 3, "architecture": "autoencoder", "config": config, "training": dict(training or {})}
    _write(path, _encoded(autoencoder.state_dict(), entry, dtype))


def read_weights(path: str | Path) -> Weights:
    """Read a weights file: its networks in float32, in evaluation mode, on the CPU, and its metadata.

    Raises:
        PriorError: there is no such file.
        CheckpointError: it is damaged, of another kind or version, or its weights do not fit its own description.
    """
    path = Path(path)
    if not path.is_file():
        raise PriorError(f"There is no weights file {path}; check the path.")
    tensors, header = load_safetensors(path)
    configs, metadata = _parse(header, path)
    check_floating(tensors, path)
    check_finite(tensors, path)
    _check_size(tensors, configs, path)
    networks = [new_network(config) for config in configs.values()]
    whole = networks[0] if "" in configs else nn.ModuleDict(dict(zip(configs, networks, strict=True)))
    check_fit(tensors, whole, path)
    whole.load_state_dict({key: value.float() for key, value in tensors.items()})
    whole.eval().requires_grad_(False)
    denoiser = next((network for network in networks if isinstance(network, Denoiser)), None)
    autoencoder = next((network for network in networks if isinstance(network, ConvAutoencoder)), None)
    return Weights(denoiser, autoencoder, metadata)


def new_network(config: Config, seed: int = 0) -> Network:
    """A network of this shape, with its first weights drawn from ``seed``."""
    if isinstance(config, MLPConfig):
        return MLP(config, seed=seed)
    return UNet(config, seed=seed) if isinstance(config, UNetConfig) else ConvAutoencoder(config, seed=seed)


def _encoded(state: Mapping[str, Tensor], entry: Mapping[str, Any], dtype: torch.dtype) -> bytes:
    tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in state.items()}
    check_finite(tensors, "the network", "train it again")
    return save(tensors, metadata={_ENTRY: json.dumps(entry, sort_keys=True)})


def _write(path: str | Path, data: bytes) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, data)


def _parse(header: Mapping[str, str], path: Path) -> tuple[dict[str, Config], WeightsMetadata]:
    """The networks of a file, by the first part of their tensors' names, and what else it says."""
    if _ENTRY not in header:
        raise CheckpointError(
            f"{path} was not written by priorpaint (it has no 'priorpaint' entry); a network of diffusers is given by "
            "its folder, with config.json."
        )
    try:
        entry = json.loads(header[_ENTRY])
        version, architecture = entry["format"], entry["architecture"]
        _check_depth(entry)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"The description inside {path} is damaged; download or export the file again.") from None
    if version not in FORMATS or architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{path} holds a {architecture!r} network in format {version!r}; this version of priorpaint reads "
            f"{' or '.join(map(repr, ARCHITECTURES))} in format {', '.join(map(str, FORMATS))}, so update priorpaint."
        )
    try:
        if architecture == "autoencoder":
            autoencoder = _AUTOENCODERS.validate_python(entry["config"])
            return {"": autoencoder}, WeightsMetadata(training=dict(entry.get("training", {})))
        denoiser = (_MLPS if architecture == "mlp" else _UNETS).validate_python(entry["config"])
        metadata = _metadata(entry)
        if not metadata.sigma_min < metadata.sigma_max:
            raise ValueError(f"sigma_min is {metadata.sigma_min} and sigma_max {metadata.sigma_max}")
        if any(side % denoiser.multiple for side in metadata.size or ()):
            raise ValueError(f"size is {metadata.size}, not a multiple of {denoiser.multiple}")
        if "autoencoder" not in entry:
            return {"": denoiser}, metadata
        autoencoder = _AUTOENCODERS.validate_python(entry["autoencoder"]["config"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = explained(error) if isinstance(error, ValidationError) else error
        raise CheckpointError(
            f"The description inside {path} is incomplete or of a later version ({reason}); export the file again, or "
            "update priorpaint."
        ) from None
    if denoiser.in_channels != autoencoder.latent_channels:
        raise CheckpointError(
            f"{path} holds a denoiser of {denoiser.in_channels} channels and an autoencoder whose latents have "
            f"{autoencoder.latent_channels}; export the file again."
        )
    return {_DENOISER: denoiser, _AUTOENCODER: autoencoder}, metadata


def _check_depth(entry: Any) -> None:
    """Raise ValueError where values lie deeper in each other than any program writes them: facts go on to other files.

    Level by level, without recursion.
    """
    level = [entry]
    for _ in range(_DEEPEST):
        below = [
            value.values() if isinstance(value, dict) else value for value in level if isinstance(value, (dict, list))
        ]
        level = [one for values in below for one in values]
    if level:
        raise ValueError("it is nested too deeply")


def _metadata(entry: Mapping[str, Any]) -> WeightsMetadata:
    schedule = entry["schedule"]
    required = {
        "sigma_data": entry["sigma_data"],
        "sigma_min": schedule["sigma_min"],
        "sigma_max": schedule["sigma_max"],
    }
    training = entry.get("autoencoder", {}).get("training", {})
    return _METADATA.validate_python({**entry, **required, "autoencoder_training": training})


def _check_size(tensors: Mapping[str, Tensor], configs: Mapping[str, Config], path: Path) -> None:
    """That the networks are no larger than the file, before they are built."""
    held, needed = sum(value.numel() for value in tensors.values()), sum(c.fewest_weights for c in configs.values())
    if needed > held:
        raise CheckpointError(
            f"{path} does not hold the network that it describes: it has {held} weights, and that needs at least "
            f"{short(needed)}; export the file again."
        )
