"""The YAML configuration beside a CompVis checkpoint: plain values only, and no class that it names is imported.

The models here are the sections of the file, with the names and defaults of the published program; what the program
knows and they do not say is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ...errors import CheckpointError, MissingExtra, UsageError
from ..networks.adm import Heads, Transformer
from ..networks.autoencoder import AutoencoderConfig
from ..networks.layers import Positives
from .base import explained
from .flags import HeadCount, a_number

_LARGEST_FILE = 1 << 20
_IMAGENET = 1000

Whole = Annotated[int, Field(ge=1, le=10**6)]
# YAML reads 1e-4 without a point as text.
Beta = Annotated[float, Field(strict=False, gt=0, lt=1), BeforeValidator(a_number)]
Scale = Annotated[float, Field(strict=False, gt=0, le=10**4), BeforeValidator(a_number)]


def _one(blocks: Any) -> Any:
    """The blocks of a level, where the file has the same number for each."""
    return blocks[0] if isinstance(blocks, list) and blocks and blocks == blocks[:1] * len(blocks) else blocks


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, protected_namespaces=())  # of its own: model_channels


class _UNet(_Section):
    in_channels: Whole
    out_channels: Whole
    model_channels: Whole
    num_res_blocks: Annotated[Whole, BeforeValidator(_one)]
    attention_resolutions: Positives  # 2^level of the levels that attend
    channel_mult: Positives = (1, 2, 4, 8)
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    conv_resample: bool = True
    num_heads: HeadCount = None
    num_head_channels: HeadCount = None
    num_heads_upsample: HeadCount = None
    use_new_attention_order: bool = False
    use_spatial_transformer: bool = False
    transformer_depth: Whole = 1
    context_dim: Whole | None = None
    num_classes: None = None  # classes by cross attention alone
    dims: Literal[2] = 2

    @property
    def resampling(self) -> str:
        """As in `ADMConfig`."""
        return "block" if self.resblock_updown else "conv" if self.conv_resample else "pool"

    def transformer(self, linear: bool) -> Transformer | None:
        """As in `ADMConfig`; ``linear`` is what the file does not say."""
        known = Transformer(self.transformer_depth, self.context_dim or 0, linear)
        return known if self.use_spatial_transformer else None


class _UNetSection(_Section):
    target: Literal["ldm.modules.diffusionmodules.openaimodel.UNetModel"]
    params: _UNet


class _FirstStage(_Section):
    embed_dim: Whole
    ddconfig: AutoencoderConfig
    n_embed: Whole | None = None
    remap: None = None


class _FirstStageSection(_Section):
    target: Literal["ldm.models.autoencoder.VQModelInterface", "ldm.models.autoencoder.AutoencoderKL"]
    params: _FirstStage


class ClassEmbedder(_Section):
    """The embedding of classes: its rows and their width.

    Attributes:
        ucg_rate: how often training put the last class in the place of the true one; None: the file does not say.
    """

    embed_dim: Whole
    n_classes: Whole = 1000
    ucg_rate: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def null(self) -> int | None:
        """The class that stood for none in training: the last, but for the plain 1000 of ImageNet; else None."""
        trained = self.n_classes != _IMAGENET if self.ucg_rate is None else self.ucg_rate > 0
        return self.n_classes - 1 if trained else None


class _ClassSection(_Section):
    target: Literal["ldm.modules.encoders.modules.ClassEmbedder"]
    params: ClassEmbedder


class LDMConfig(_Section):
    """The params of the model: the noise, and its parts."""

    unet_config: _UNetSection
    first_stage_config: _FirstStageSection
    cond_stage_config: _ClassSection | Literal["__is_unconditional__"] = "__is_unconditional__"
    conditioning_key: str | None = None
    concat_mode: bool = True
    beta_schedule: Literal["linear", "cosine", "sqrt_linear", "sqrt"] = "linear"
    timesteps: Whole = 1000
    linear_start: Beta = 1e-4
    linear_end: Beta = 2e-2
    cosine_s: Beta = 8e-3
    parameterization: Literal["eps", "x0", "v"] = "eps"
    image_size: Whole = 256  # of the latents
    channels: Whole = 3
    scale_factor: Scale = 1.0  # where the checkpoint holds none
    scale_by_std: bool = False  # whether it must hold one
    use_ema: bool = True

    @property
    def classes(self) -> ClassEmbedder | None:
        """The embedding of the classes; None: unconditional."""
        return None if isinstance(self.cond_stage_config, str) else self.cond_stage_config.params

    @property
    def heads(self) -> Heads:
        """Of the attentions in the U-Net."""
        unet = self.unet_config.params
        count, width = unet.num_heads or 1, unet.num_head_channels
        return Heads(count, width, unet.num_heads_upsample, unet.use_new_attention_order)

    @property
    def first_stage(self) -> str:
        """``kl`` or ``vq``."""
        return "kl" if self.first_stage_config.target.endswith("KL") else "vq"

    def complaint(self) -> str | None:
        """What in it does not fit together; None where all does."""
        unet, first = self.unet_config.params, self.first_stage_config.params
        if unet.num_heads is None and unet.num_head_channels is None:
            return "unet_config has neither num_heads nor num_head_channels; expected a number"
        if first.ddconfig.double_z != (self.first_stage == "kl"):
            return f"double_z is {first.ddconfig.double_z}; the autoencoder {self.first_stage} expects the other"
        if first.n_embed is None and self.first_stage == "vq":
            return "VQModelInterface has no n_embed; expected the number of its codes"
        if self.classes is None:
            return "conditioning_key is set, but the model is unconditional" if self.conditioning_key else None
        key = self.conditioning_key or ("concat" if self.concat_mode else "crossattn")  # the program's own rule
        return None if key == "crossattn" else f"conditioning_key is {key!r}; expected crossattn"


class _Model(_Section):
    target: Literal["ldm.models.diffusion.ddpm.LatentDiffusion"]
    params: LDMConfig


class _File(_Section):
    model: _Model


def find(checkpoint: Path, said: str | None) -> Path:
    """The YAML of a checkpoint: where the user says, or beside it under its name, or the only one in its folder.

    Raises:
        UsageError: there is none, or several and none of the checkpoint's name.
    """
    if said is not None:
        path = Path(said)
        if not path.is_file():
            raise UsageError(f"there is no configuration {path}; check the flag config.")
        return path
    for ending in (".yaml", ".yml"):
        if checkpoint.with_suffix(ending).is_file():
            return checkpoint.with_suffix(ending)
    beside = sorted(p for p in checkpoint.parent.iterdir() if p.suffix in (".yaml", ".yml"))
    named = [p for p in beside if p.stem in ("config", "project")]
    if len(named) == 1 or len(beside) == 1:
        return (named or beside)[0]
    raise UsageError(
        f"{checkpoint} needs the YAML file of its configuration, which the repository of the model has; put it beside "
        f'the checkpoint as {checkpoint.with_suffix(".yaml").name}, or give --flags "--config path.yaml".'
    )


def load(path: Path) -> LDMConfig:
    """Read and check a configuration.

    Raises:
        CheckpointError: it is damaged, too large, or asks for what priorpaint does not read.
        MissingExtra: PyYAML is not installed.
    """
    try:
        config = _File.model_validate(_parsed(path)).model.params
    except ValidationError as error:
        raise CheckpointError(f"{path}: {explained(error)}; no class that it names was imported.") from None
    complaint = config.complaint()
    if complaint is not None:
        raise CheckpointError(f"{path}: {complaint}.")
    return config


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError:
        raise MissingExtra(
            "reading the YAML of an LDM checkpoint needs PyYAML; run: pip install 'priorpaint[ldm]'"
        ) from None
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise CheckpointError(f"{path} has {size} bytes; a configuration has at most {_LARGEST_FILE}.")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as text ({error}); download it again.") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} is not plain YAML ({reason}); expected values only, and nothing of it was run."
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds {type(content).__name__}; expected the sections of a configuration.")
    return content
