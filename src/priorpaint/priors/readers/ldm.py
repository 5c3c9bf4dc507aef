"""CompVis latent-diffusion checkpoints (.ckpt) with their YAML: KL and VQ first stages, unconditional or by class.

The moving average of the weights is preferred, as the published program samples with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ...diffusion.schedules import VP
from ...errors import CheckpointError, UsageError
from ..base import Prior
from ..latent import LatentPrior
from ..network import NetworkPrior, labels_or
from ..networks.adm import ADM, ADMConfig
from ..networks.autoencoder import LatentAutoencoder
from .adm_shapes import check_layers, infer, of_latent_diffusion
from .base import Reader, Request, of_file
from .diffusers_folder import libraries
from .flags import Flags, Whole
from .ldm_config import ClassEmbedder, LDMConfig, find, load
from .training_words import TRAINING
from .untrusted import reading as safe

_MODEL, _AVERAGE, _FIRST, _CONDITION = "model.", "model_ema.", "first_stage_model.", "cond_stage_model."
_UNET = "diffusion_model."
# Tensors that follow from the table of betas, and what only training needs.
_BUFFERS = frozenset(
    "betas alphas_cumprod alphas_cumprod_prev sqrt_alphas_cumprod sqrt_one_minus_alphas_cumprod "
    "log_one_minus_alphas_cumprod sqrt_recip_alphas_cumprod sqrt_recipm1_alphas_cumprod posterior_variance "
    "posterior_log_variance_clipped posterior_mean_coef1 posterior_mean_coef2 lvlb_weights logvar scale_factor".split()
)
_SAME_BETAS = 1e-2  # relative: the buffers may be float16


class LDMFlags(Flags):
    """What the user may say.

    Attributes:
        config: path of the YAML configuration, where it does not lie beside the checkpoint.
        null_class: the class that stands for no class in guidance; where not given, the one of training.
    """

    config: str | None = None
    null_class: Whole | None = None


class ClassContext(nn.Module):
    """A U-Net with cross attention to one token, the embedding of a class; called with ``labels`` (N,) int64.

    Args:
        unet: called as unet(x, t, context=...).
        rows, width: of the embedding.
    """

    def __init__(self, unet: nn.Module, rows: int, width: int) -> None:
        super().__init__()
        self.unet = unet
        # With its weight given: torch draws the first weights of an embedding even on the meta device.
        self.embedding = nn.Embedding(rows, width, _weight=torch.empty(rows, width))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        out: Tensor = self.unet(x, t, context=self.embedding(labels)[:, None])
        return out


def recognises(path: Path) -> bool:
    """Whether torch.save wrote the file, with tensors named as latent diffusion's."""
    return of_latent_diffusion(safe.container_start(path))


@of_file
def read(request: Request) -> Prior:
    """A latent prior from a CompVis checkpoint and its YAML.

    Raises:
        CheckpointError: one of the two is damaged, unsafe, of another network, or they contradict each other.
        UsageError: no YAML is found, or a flag is unknown.
        MissingExtra: PyYAML is not installed or, for a model with classes, diffusers.
    """
    path = request.source
    flags = LDMFlags.of(request.flags, "an LDM checkpoint")
    config = load(find(path, flags.config))
    parts = _Parts(safe.load_state(path, TRAINING, "state_dict"), path)
    schedule = _schedule(config, parts)
    weights, average = parts.denoiser(config.use_ema)
    shape = _denoiser_shape(config, weights, path)
    if shape.transformer is not None:
        libraries("a latent diffusion model with classes")
    network: nn.Module = _assembled(lambda: ADM(shape), weights, request, "the denoiser", request.dtype)
    classes = 0 if config.classes is None else config.classes.n_classes
    null = flags.null_class if config.classes is None or flags.null_class is not None else config.classes.null
    if flags.null_class is not None and not 0 <= flags.null_class < classes:
        raise UsageError(f"the flag null_class is {null}, but the model has {classes} classes.")
    if config.classes is not None:
        network = _with_classes(network, config.classes, parts, request)
    autoencoder = _autoencoder(config, parts, request)
    inner = NetworkPrior(
        network,
        schedule,
        (config.channels, config.image_size, config.image_size),
        prediction=config.parameterization,
        condition=lambda t: (config.timesteps * t - 1).clamp(min=0),
        multiple=2 ** (len(shape.levels) - 1),
        dtype=request.dtype,
        name=path.stem,
        classes=classes,
        embed=None if null is None else labels_or(null),
    )
    prior = LatentPrior(inner, autoencoder, path.stem)
    prior.facts = {
        "format": "ldm",
        "architecture": "ADM U-Net" + (" with cross attention" if shape.transformer else ""),
        "first_stage": config.first_stage,
        "factor": autoencoder.factor,
        "latent_channels": autoencoder.channels,
        "scale_factor": autoencoder.scale,
        "image_size": config.image_size * autoencoder.factor,
        "weights": "moving average" if average else "last step",
        "prediction": config.parameterization,
        "schedule": "vp",
        "betas": config.beta_schedule,
        "timesteps": config.timesteps,
        "classes": classes,
        "parameters": sum(weight.numel() for weight in prior.parameters()),
        **({"null_class": null} if classes else {}),
    }
    return prior


class _Parts:
    """The tensors of the file by the part that they belong to; every one has a part."""

    def __init__(self, state: Mapping[str, Tensor], path: Path) -> None:
        self.path = path
        self.model = _below(state, _MODEL)
        self.average = _below(state, _AVERAGE)
        self.condition = _below(state, _CONDITION)
        first = _below(state, _FIRST)
        self.first = {name: value for name, value in first.items() if not name.startswith("loss.")}
        prefixes = (_MODEL, _AVERAGE, _FIRST, _CONDITION)
        self.rest = {name: value for name, value in state.items() if not name.startswith(prefixes)}
        unknown = sorted(set(self.rest) - _BUFFERS)
        if unknown:
            raise CheckpointError(
                f"{path} holds tensors that no part of a latent diffusion model has, such as {unknown[0]}; expected "
                f"names that begin with {', '.join(prefixes)}."
            )
        if not self.model or not self.first:
            lacking = _MODEL + _UNET if not self.model else _FIRST
            raise CheckpointError(
                f"{path} does not hold a latent diffusion model: expected tensors named {lacking}..., found "
                f"{', '.join(list(state)[:3]) or 'none'}."
            )

    def denoiser(self, averaged: bool) -> tuple[dict[str, Tensor], bool]:
        """(tensors of the U-Net, whether they are the moving average)."""
        raw = _below(self.model, _UNET)
        stray = sorted(set(self.model) - {_UNET + name for name in raw})
        if stray or not raw:
            raise CheckpointError(f"{self.path}: {_MODEL}{(stray or ['*'])[0]} is not part of a U-Net.")
        average = {k: v for k, v in self.average.items() if k not in ("decay", "num_updates")}
        if not average or not averaged:
            return raw, False
        # The program keeps the average under each name with its dots removed.
        wanted = {(_UNET + name).replace(".", ""): name for name in raw}
        missing = [name for name in wanted if name not in average]
        unknown = [name for name in average if name not in wanted]
        if missing or unknown or len(wanted) != len(raw):
            raise CheckpointError(
                f"{self.path}: the moving average lacks {len(missing)} tensors of the network and has {len(unknown)} "
                f"others, such as {_AVERAGE}{(missing + unknown + ['?'])[0]}; download it again."
            )
        for key, name in wanted.items():
            if average[key].shape != raw[name].shape:
                raise CheckpointError(
                    f"{self.path}: {_MODEL}{_UNET}{name} has the shape {tuple(raw[name].shape)} and its moving average "
                    f"{tuple(average[key].shape)}; expected the same, so download it again."
                )
        return {name: average[key] for key, name in wanted.items()}, True


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _assembled(
    make: Callable[[], nn.Module], state: Mapping[str, Tensor], request: Request, what: str, dtype: torch.dtype
) -> nn.Module:
    return safe.assemble(make, state, request.source, device=request.device, dtype=dtype, what=what)


def _schedule(config: LDMConfig, parts: _Parts) -> VP:
    """The table of betas by its name, compared with the one in the file."""
    steps, low, high = config.timesteps, config.linear_start, config.linear_end
    if steps < 2 or not low < high < 1:
        raise CheckpointError(f"{parts.path}: {steps} betas from {low} to {high}; expected 0 < start < end < 1.")
    if config.beta_schedule == "linear":  # in that program, linear in the roots
        betas = torch.linspace(low**0.5, high**0.5, steps, dtype=torch.float64) ** 2
    elif config.beta_schedule == "sqrt_linear":
        betas = torch.linspace(low, high, steps, dtype=torch.float64)
    elif config.beta_schedule == "sqrt":
        betas = torch.linspace(low, high, steps, dtype=torch.float64) ** 0.5
    else:
        level = (torch.arange(steps + 1, dtype=torch.float64) / steps + config.cosine_s) / (1 + config.cosine_s)
        abar = (level * torch.pi / 2).cos() ** 2
        betas = (1 - abar[1:] / abar[:-1]).clamp(max=0.999)
    inside = parts.rest.get("betas")
    if inside is not None:
        if inside.shape != betas.shape or not torch.allclose(inside.double(), betas, rtol=_SAME_BETAS, atol=1e-6):
            raise CheckpointError(
                f"{parts.path}: its table of {inside.numel()} betas is not the one of its YAML "
                f"({config.beta_schedule}, {steps} steps from {low} to {high}); the two files do not belong together."
            )
    return VP(betas)


def _denoiser_shape(config: LDMConfig, weights: Mapping[str, Tensor], path: Path) -> ADMConfig:
    """What the tensors show, confirmed by the YAML; the YAML where they leave something open."""
    shown = infer(weights, path, config.heads)
    said = config.unet_config.params
    expected = replace(
        shown,
        in_channels=said.in_channels,
        out_channels=said.out_channels,
        model_channels=said.model_channels,
        levels=tuple(said.model_channels * multiplier for multiplier in said.channel_mult),
        blocks=said.num_res_blocks,
        attention=frozenset(i for i in range(len(said.channel_mult)) if 2**i in said.attention_resolutions),
        resampling=shown.resampling if len(shown.levels) == 1 else said.resampling,
        scale_shift=said.use_scale_shift_norm,
        transformer=said.transformer(shown.transformer is not None and shown.transformer.linear),
    )
    for name in (part.name for part in fields(ADMConfig)):
        one, other = getattr(shown, name), getattr(expected, name)
        if one != other:
            show = [sorted(value) if isinstance(value, frozenset) else value for value in (other, one)]
            raise CheckpointError(
                f"{path}: {name} of the U-Net is {show[0]} in the YAML and {show[1]} in the tensors; the two files do "
                "not belong together."
            )
    transformer, classes = shown.transformer, config.classes
    if classes is not None and (transformer is None or transformer.context != classes.embed_dim):
        raise CheckpointError(f"{path}: the U-Net does not look at the classes' {classes.embed_dim} numbers.")
    if transformer is not None and classes is None:
        raise CheckpointError(f"{path}: the U-Net looks at a context, but the YAML gives it none.")
    if shown.in_channels != config.channels or shown.out_channels != config.channels:
        raise CheckpointError(f"{path}: the U-Net does not work on the {config.channels} channels of the latents.")
    check_layers(expected, path)
    return expected


def _with_classes(network: nn.Module, classes: ClassEmbedder, parts: _Parts, request: Request) -> nn.Module:
    make = lambda: ClassContext(nn.Identity(), classes.n_classes, classes.embed_dim)  # noqa: E731
    what = f"the embedding of classes ({_CONDITION}*)"
    wrapped = _assembled(make, parts.condition, request, what, request.dtype)
    wrapped.unet = network
    return wrapped


def _scale(config: LDMConfig, parts: _Parts) -> float:
    """The buffer in the file, where it has one, else what the YAML says."""
    inside = parts.rest.get("scale_factor")
    if inside is None:
        if config.scale_by_std:
            raise CheckpointError(f"{parts.path} lacks the tensor scale_factor, which its YAML (scale_by_std) expects.")
        return config.scale_factor
    value = float(inside) if inside.numel() == 1 else float("nan")
    if not 0 < value < float("inf"):
        raise CheckpointError(
            f"{parts.path}: scale_factor is {inside.flatten()[:3].tolist()}; expected a positive number."
        )
    return value


def _autoencoder(config: LDMConfig, parts: _Parts, request: Request) -> LatentAutoencoder:
    first, scale = config.first_stage_config.params, _scale(config, parts)
    shape, codes = first.ddconfig, (first.n_embed or 0) if config.first_stage == "vq" else 0
    odd = next((width for width in (shape.ch, *(width for width, _ in shape.levels)) if width % 32), None)
    if odd is not None:
        raise CheckpointError(f"{parts.path}: the autoencoder has a level of {odd} channels; expected multiples of 32.")
    safe.check_count(2 * len(shape.levels) * shape.num_res_blocks, parts.first, parts.path)
    # In float32 whatever the denoiser's type: nearest codes and the pixels of a picture need its precision.
    make = lambda: LatentAutoencoder(shape, first.embed_dim, codes, scale)  # noqa: E731
    network = _assembled(make, parts.first, request, "the autoencoder", torch.float32)
    assert isinstance(network, LatentAutoencoder)
    return network


READER = Reader("ldm", "CompVis latent-diffusion (.ckpt with its .yaml)", recognises, read)
