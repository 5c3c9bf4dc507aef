"""Diffusers folders: pixel U-Nets, latent diffusion, Stable Diffusion 1.x, 2.x, XL and 3, Flux and DiT.

The networks are diffusers' and transformers' own classes, built from the folder's configurations; the scheduler's
configuration decides the noise schedule, the prediction, and what the network is told of the time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from ...errors import CheckpointError, UsageError
from ..base import Prior
from ..latent import LatentPrior
from ..network import Embed, NetworkPrior, labels_or
from .base import Reader, Request
from .diffusers_autoencoder import DiffusersAutoencoder
from .diffusers_folder import MODEL_INDEX, Folder, Loaded, build, fill, libraries
from .diffusers_networks import (
    FLUX_PATCH,
    DiT,
    FluxTransformer,
    Negated,
    PixelUNet,
    ScoreUNet,
    SD3Transformer,
    TextUNet,
)
from .diffusers_schedule import VES, read_noise
from .diffusers_settings import check
from .diffusers_text import Encoder, FluxText, SD3Text, SDXLText, StableDiffusionText, Text, read_encoder
from .flags import Flags, Number, Positive, Whole
from .untrusted.reading import named

_FLUX_TOKENS, _SD3_TOKENS = 512, 256
_MOST_TOKENS = 4096
_FLUX_GUIDANCE = 3.5
_DEFAULT_LATENT_SIZE = 128


class DiffusersFlags(Flags):
    """What the user may say.

    Attributes:
        variant: which weights, such as fp16, where the folder has several.
        image_size: pixels along a side, or 'any', instead of the size of the model's training; Flux's shift follows.
        null_class: the class that stands for no class, for guidance of a class-conditional U-Net.
        max_sequence_length: tokens of T5's text (Stable Diffusion 3: 256, Flux: 512).
        guidance: the guidance that a distilled Flux is told (3.5).
    """

    variant: str | None = None
    image_size: Annotated[Positive, Field(le=65536)] | Literal["any"] | None = None
    null_class: Whole | None = None
    max_sequence_length: Annotated[Positive, Field(le=_MOST_TOKENS)] | None = None
    guidance: Number | None = None


@dataclass(frozen=True)
class _Denoiser:
    """The network and all that depends on its kind; ``patch``: along a side of a token of what it denoises."""

    network: nn.Module
    config: Mapping[str, Any]
    multiple: int
    embed: Embed | Text | None = None
    classes: int = 0
    patch: int = 1

    @property
    def encoders(self) -> tuple[Encoder, ...]:
        """Of a network that takes text."""
        return self.embed.encoders if isinstance(self.embed, Text) else ()


def recognises(path: Path) -> bool:
    """Whether ``path`` is a folder of diffusers, by the files that it has."""
    try:
        if not path.is_dir():
            return False
        if (path / MODEL_INDEX).is_file() or any((path / part / "config.json").is_file() for part in _PARTS):
            return True
        config = path / "config.json"
        return config.is_file() and "_class_name" in json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def read(request: Request) -> Prior:
    """A prior from a diffusers folder.

    Returns:
        A pixel prior where the folder has no autoencoder, else a ``LatentPrior``.

    Raises:
        CheckpointError: something in the folder is missing, damaged, unsafe or of a kind that is not read.
        UsageError: a flag that is unknown or does not fit.
        MissingExtra: diffusers or transformers are not installed.
    """
    libraries()
    flags = DiffusersFlags.of(request.flags, "a diffusers folder")
    folder = Folder(request.source, flags.variant)
    if "scheduler" not in folder.index:
        raise CheckpointError(f"{folder.root / MODEL_INDEX} names no scheduler; download the whole model again.")
    try:
        return _read(folder, request, flags)
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        # Settings of a configuration that have the wrong type are met at many places; all mean the same.
        raise CheckpointError(
            f"the configurations in {folder.root} do not fit together ({named(error)}); download the whole model again."
        ) from None


READER = Reader("diffusers", "a diffusers folder (save_pretrained) or hf:owner/name", recognises, read)
_PARTS = ("unet", "transformer", "vae", "vqvae")


def loaded(pipe: Any, device: torch.device, dtype: torch.dtype, flags: Mapping[str, Any]) -> Prior:
    """A prior of a pipeline of diffusers that is in memory: its own networks, where they are and as they are.

    Args:
        device: where they compute, to which hooks may bring them for each call (``enable_model_cpu_offload``).
        dtype: of the denoiser.
        flags: as for a folder.

    Raises:
        CheckpointError: a part is missing, or of a kind that is not read.
        UsageError: a flag that is unknown or does not fit.
    """
    return _read(Loaded(pipe), Request(Path(), flags, device, dtype), DiffusersFlags.of(flags, "a diffusers pipeline"))


def _read(folder: Folder, request: Request, flags: DiffusersFlags) -> Prior:
    autoencoder = _autoencoder(folder, request)
    factor = 1 if autoencoder is None else autoencoder.factor
    denoiser = _denoiser(_Source(folder, request, flags, factor), autoencoder is not None)
    own = _size_of(denoiser.config.get("sample_size"))
    if autoencoder is not None:
        _check_channels(denoiser, autoencoder.channels, folder)
        own = own or (_DEFAULT_LATENT_SIZE,) * 2
    size = _size(flags, own, factor, denoiser.multiple)
    height, width = (side or usual for side, usual in zip(size, own or (1, 1), strict=True))
    config, path, cls = _scheduler(folder)
    flux = isinstance(denoiser.network, FluxTransformer)
    noise = read_noise(config, path, (height // denoiser.patch) * (width // denoiser.patch), cls, even=flux)
    prior: NetworkPrior | LatentPrior = NetworkPrior(
        Negated(denoiser.network) if noise.negate else denoiser.network,
        noise.schedule,
        (denoiser.config["in_channels"] if autoencoder is None else autoencoder.channels, *size),
        prediction=noise.prediction,
        condition=noise.condition,
        sigma_data=noise.sigma_data,
        multiple=denoiser.multiple,
        dtype=request.dtype,
        name=folder.root.resolve().name,
        embed=denoiser.embed,
        classes=denoiser.classes,
        takes_text=bool(denoiser.encoders),
        device=request.device if folder.source is None else None,
    )
    facts: dict[str, Any] = {}
    if autoencoder is not None:
        prior = LatentPrior(prior, autoencoder)
        kind = type(autoencoder.network).__name__
        facts = {"autoencoder": kind, "factor": factor, "latent_channels": autoencoder.channels}
    prior.source, prior.hash = folder.source, folder.hash()
    prior.facts = {
        "format": "diffusers",
        "pipeline": folder.settings.get("_class_name"),
        "architecture": folder.index["unet" if "unet" in folder.index else "transformer"],
        **noise.facts,
        **facts,
        "parameters": sum(weight.numel() for weight in prior.parameters()),
        "classes": denoiser.classes,
        "text": bool(denoiser.encoders),
        "text_parameters": sum(w.numel() for encoder in denoiser.encoders for w in encoder.network.parameters()),
    }
    return prior


def _autoencoder(folder: Folder, request: Request) -> DiffusersAutoencoder | None:
    """None where the folder has none, and so pixels are denoised."""
    name = next((name for name in ("vae", "vqvae") if name in folder.index), None)
    if name is None:
        return None
    network, config = _built(folder, name, torch.float32, request.device)
    if folder.ready(name) is not None:
        half, xl = next(network.parameters()).dtype == torch.float16, {"unet", "text_encoder_2"} <= folder.index.keys()
        if half and xl and config.get("force_upcast", True):  # diffusers itself decodes those of SDXL in float32
            raise UsageError("the autoencoder of SDXL overflows in float16; call pipe.vae.to(torch.float32) first.")
    elif request.dtype == torch.bfloat16 or (request.dtype == torch.float16 and not config.get("force_upcast", True)):
        network.to(request.dtype)
    return DiffusersAutoencoder(network, config, folder.path(name))


@dataclass(frozen=True)
class _Source:
    """What a denoiser is made from; ``factor``: pixels along a side of what it denoises."""

    folder: Folder
    request: Request
    flags: DiffusersFlags
    factor: int

    def encoder(self, suffix: str, length: int = 0) -> Encoder:
        """As `read_encoder`."""
        return read_encoder(self.folder, suffix, self.request.device, self.request.dtype, length)


def _denoiser(source: _Source, latent: bool) -> _Denoiser:
    """The denoiser of pixels or latents, by its class."""
    folder = source.folder
    part = next((part for part in ("unet", "transformer") if part in folder.index), None)
    if not latent and (part is None or folder.index[part] != "UNet2DModel"):
        raise CheckpointError(f"{folder.root} has no autoencoder; without one, a unet of UNet2DModel is expected.")
    if part is None:
        raise CheckpointError(f"{folder.root / MODEL_INDEX} names no unet and no transformer, so nothing can denoise.")
    network, config = _built(folder, part, source.request.dtype, source.request.device)
    makers: dict[str, Callable[[_Source, nn.Module, Mapping[str, Any]], _Denoiser]] = {
        "UNet2DModel": _unet,
        "UNet2DConditionModel": _text_unet,
        "SD3Transformer2DModel": _sd3,
        "FluxTransformer2DModel": _flux,
        "DiTTransformer2DModel": _dit,
        "Transformer2DModel": _dit,
    }
    denoiser = makers[folder.index[part]](source, network, config)
    if isinstance(denoiser.embed, Text):
        wanted = config.get("joint_attention_dim") or config["cross_attention_dim"]
        _check_width(denoiser.embed, wanted, folder.path(part))
    return denoiser


def _built(folder: Folder, name: str, dtype: torch.dtype, device: torch.device) -> tuple[nn.Module, Mapping[str, Any]]:
    """(network with its weights, its configuration with all defaults)."""
    import diffusers

    if (network := folder.ready(name)) is not None:
        return network, network.config
    state = folder.weights(name)
    cls = getattr(diffusers, folder.index[name])
    where = folder.path(name)
    settings = folder.config(name)
    check(settings, cls, where, state)
    network = build(cls, cls.from_config, settings, where)
    network._fix_state_dict_keys_on_load(state)  # type: ignore[operator]  # names of attention weights before 2023
    fill(network, state, where, dtype, device)
    return network, network.config  # type: ignore[return-value]


def _unet(source: _Source, network: nn.Module, config: Mapping[str, Any]) -> _Denoiser:
    if config["class_embed_type"] is not None:
        where, kind = source.folder.path("unet"), config["class_embed_type"]
        raise CheckpointError(f"{where}: class_embed_type is {kind!r}; expected classes by number.")
    classes = config["num_class_embeds"] or 0
    multiple = 2 ** (len(config["block_out_channels"]) - 1)
    if _scheduler(source.folder)[2] in VES:
        return _Denoiser(ScoreUNet(network), config, multiple)
    wrapped = PixelUNet(network, whole_steps=config["time_embedding_type"] == "learned")
    null = source.flags.null_class
    if null is not None and not 0 <= null < classes:
        raise UsageError(f"null_class is {null!r}, but the model knows the classes 0 to {classes - 1}.")
    embed = None if null is None else labels_or(null)
    return _Denoiser(wrapped, config, multiple, embed, classes)


def _text_unet(source: _Source, network: nn.Module, config: Mapping[str, Any]) -> _Denoiser:
    folder, where = source.folder, source.folder.path("unet")
    if config["addition_embed_type"] not in (None, "text_time") or config["class_embed_type"] is not None:
        raise CheckpointError(
            f"{where}: addition_embed_type is {config['addition_embed_type']!r} and class_embed_type "
            f"{config['class_embed_type']!r}; the layouts of Stable Diffusion 1, 2 and XL are expected."
        )
    if folder.says("requires_aesthetics_score", False):
        raise CheckpointError(f"{folder.root} is a refiner, which no prior is made of; use the base model.")
    suffixes = [suffix for suffix in ("", "_2") if f"text_encoder{suffix}" in folder.index]
    if not suffixes:
        raise CheckpointError(f"{folder.root} has no text encoder, which its U-Net needs; download the whole model.")
    encoders = tuple(source.encoder(suffix) for suffix in suffixes)
    zeros = folder.says("force_zeros_for_empty_prompt", True)
    xl = config["addition_embed_type"] == "text_time"
    embed = SDXLText(encoders, zeros) if xl else StableDiffusionText(encoders[:1])
    return _Denoiser(TextUNet(network, source.factor), config, 2 ** (len(config["block_out_channels"]) - 1), embed)


def _sd3(source: _Source, network: nn.Module, config: Mapping[str, Any]) -> _Denoiser:
    length, size = source.flags.max_sequence_length or _SD3_TOKENS, source.flags.image_size
    most = config["pos_embed_max_size"] * config["patch_size"] * source.factor
    if isinstance(size, int) and size > most:
        raise UsageError(
            f"image_size is {size}, but the model knows positions in pictures of up to {most} pixels a side."
        )
    encoders = [source.encoder(suffix) for suffix in ("", "_2")]
    if "text_encoder_3" in source.folder.index:
        encoders.append(source.encoder("_3", length))
    embed = SD3Text(tuple(encoders), length, config["joint_attention_dim"])
    return _Denoiser(SD3Transformer(network), config, config["patch_size"], embed, patch=config["patch_size"])


def _flux(source: _Source, network: nn.Module, config: Mapping[str, Any]) -> _Denoiser:
    length = source.flags.max_sequence_length or _FLUX_TOKENS
    embed = FluxText((source.encoder(""), source.encoder("_2", length)))
    guidance = (source.flags.guidance or _FLUX_GUIDANCE) if config["guidance_embeds"] else None
    return _Denoiser(FluxTransformer(network, guidance), config, FLUX_PATCH, embed, patch=FLUX_PATCH)


def _dit(source: _Source, network: nn.Module, config: Mapping[str, Any]) -> _Denoiser:
    classes = config.get("num_embeds_ada_norm")
    if config.get("norm_type") != "ada_norm_zero" or not isinstance(classes, int):
        where, kind = source.folder.path("transformer"), config.get("norm_type")
        raise CheckpointError(f"{where}: norm_type is {kind!r}; expected 'ada_norm_zero', of DiT.")
    # The row after the last class is what training put in place of a dropped label.
    return _Denoiser(DiT(network), config, config["patch_size"], labels_or(classes), classes, config["patch_size"])


def _check_width(embed: Text, wanted: Any, where: Path) -> None:
    """That the network takes states as wide as the text encoders make them."""
    width = embed(None, "")["states"].shape[-1]
    widths = set(wanted) if isinstance(wanted, (list, tuple)) else {wanted}
    if widths != {width}:
        raise CheckpointError(
            f"{where} expects text states of width {wanted} and the text encoders make {width}; they are of two models."
        )


def _check_channels(denoiser: _Denoiser, wanted: int, folder: Folder) -> None:
    """That denoiser and autoencoder agree on the channels of the latent."""
    packed = FLUX_PATCH**2 if isinstance(denoiser.network, FluxTransformer) else 1
    channels = denoiser.config["in_channels"]
    if channels != wanted * packed:
        hint = " (a model for inpainting: take the plain one)" if channels == 2 * wanted + 1 else ""
        raise CheckpointError(
            f"{folder.root}: the denoiser takes {channels} channels and the autoencoder makes {wanted * packed}{hint}."
        )


def _scheduler(folder: Folder) -> tuple[dict[str, Any], Path, str]:
    """(configuration, its file, class)."""
    path = folder.path("scheduler") / "scheduler_config.json"
    if (scheduler := folder.ready("scheduler")) is not None:
        return dict(scheduler.config), path, type(scheduler).__name__
    config = folder.json(path)
    return config, path, str(folder.index["scheduler"] or config.get("_class_name"))


def _size_of(value: Any) -> tuple[int, int] | None:
    """A sample_size of a configuration as (H, W)."""
    if value is None:
        return None
    sides = [value, value] if isinstance(value, int) else list(value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise CheckpointError(f"sample_size is {value!r}; expected one or two positive numbers.")
    return sides[0], sides[1]


def _size(
    flags: DiffusersFlags, own: tuple[int, int] | None, factor: int, multiple: int
) -> tuple[int | None, int | None]:
    """(H, W) where the prior denoises: the model's own, or what the flag image_size says in pixels."""
    wanted = flags.image_size
    if wanted == "any":
        return None, None
    if wanted is None:
        return own or (None, None)
    if wanted % (factor * multiple):
        raise UsageError(f"image_size is {wanted}; expected 'any' or a multiple of {factor * multiple} pixels.")
    return wanted // factor, wanted // factor
