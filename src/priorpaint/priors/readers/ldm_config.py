"""The YAML configuration beside a CompVis checkpoint: plain values only, and no class that it names is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, MissingExtra, UsageError
from ..networks.adm import Heads
from ..networks.autoencoder import AutoencoderConfig

_LARGEST_FILE = 1 << 20
_LARGEST = 10**6  # of any whole number
_LONGEST = 64  # of any list
UNCONDITIONAL = "__is_unconditional__"
_MODEL = "ldm.models.diffusion.ddpm.LatentDiffusion"
_UNET = "ldm.modules.diffusionmodules.openaimodel.UNetModel"
_FIRST_STAGES = {
    "ldm.models.autoencoder.VQModelInterface": "vq",
    "ldm.models.autoencoder.AutoencoderKL": "kl",
}
_CLASSES = "ldm.modules.encoders.modules.ClassEmbedder"
_BETAS = ("linear", "cosine", "sqrt_linear", "sqrt")
_PARAMETRISATIONS = {"eps": "eps", "x0": "x0", "v": "v"}
_SIDES_LIMIT = 65536


@dataclass(frozen=True)
class Section:
    """A mapping of the file with its place, for messages."""

    values: Mapping[str, Any]
    where: str
    path: Path

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def error(self, name: str, expected: str) -> CheckpointError:
        """What is wrong with an entry."""
        return CheckpointError(
            f"{self.path}: {self.where}.{name} is {self.values.get(name)!r}; expected {expected}.".replace(" .", " ")
        )

    def section(self, name: str) -> Section:
        """An entry that is a mapping."""
        value = self.values.get(name)
        if not isinstance(value, Mapping):
            raise self.error(name, "a mapping")
        return Section(value, f"{self.where}.{name}".lstrip("."), self.path)

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
            raise self.error(name, "a whole number of at least 1")
        return value

    def number(self, name: str, default: float) -> float:
        """A positive number."""
        value = self.values.get(name, default)
        try:  # YAML reads 1e-4 without a point as text
            number = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            raise self.error(name, "a number") from None
        if not 0 < number < float("inf"):
            raise self.error(name, "a positive number")
        return number

    def truth(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def wholes(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """A list of whole numbers."""
        value = self.values.get(name, default)
        fits = isinstance(value, (list, tuple)) and len(value) <= _LONGEST
        if not fits or not all(type(v) is int and 0 < v <= _SIDES_LIMIT for v in value):
            raise self.error(name, "a list of whole numbers")
        return tuple(value)

    def choice(self, name: str, of: Sequence[str], default: str) -> str:
        """One of some words."""
        value = self.values.get(name, default)
        if value not in of:
            raise self.error(name, f"one of {', '.join(of)}")
        return str(value)

    def target(self, known: Sequence[str]) -> str:
        """The class that the section asks for; a name in our own table, which nothing is imported from."""
        value = self.values.get("target")
        if value not in known:
            raise CheckpointError(
                f"{self.path}: {self.where}.target asks for {value!r}, which priorpaint does not read (nothing was "
                f"imported); expected {' or '.join(known)}."
            )
        return str(value)

    def parameters(self) -> Section:
        """The section's params; none are no params."""
        return self.section("params") if "params" in self else Section({}, f"{self.where}.params", self.path)


@dataclass(frozen=True)
class LDMConfig:
    """What the YAML says that the tensors do not.

    Attributes:
        betas: name of the table of betas in that program.
        steps, linear_start, linear_end, cosine_s: of the table.
        prediction: ``eps``, ``x0`` or ``v``.
        latent_size: side of the latents it was trained on.
        channels: of the latents.
        scale: of the latents, where the file holds none.
        scale_inside: whether the file must hold the scale.
        ema: whether the file keeps a moving average.
        heads: of attentions in the U-Net.
        spatial_transformer: whether the U-Net looks at a context.
        unet: numbers of the U-Net that the tensors must confirm.
        classes, embedding: rows and width of the class embedding; 0: unconditional.
        first_stage: ``kl`` or ``vq``.
        autoencoder: its shape.
    """

    betas: str
    steps: int
    linear_start: float
    linear_end: float
    cosine_s: float
    prediction: str
    latent_size: int
    channels: int
    scale: float
    scale_inside: bool
    ema: bool
    heads: Heads
    spatial_transformer: bool
    unet: Mapping[str, Any]
    classes: int
    embedding: int
    first_stage: str
    autoencoder: AutoencoderConfig


def find(checkpoint: Path, given: str | None) -> Path:
    """The YAML of a checkpoint: as given, or beside it under its name, or the only one in its folder.

    Raises:
        UsageError: there is none, or several and none of the checkpoint's name.
    """
    if given is not None:
        path = Path(given)
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
    model = Section(_parsed(path), "", path).section("model")
    model.target((_MODEL,))
    params = model.parameters()
    classes, embedding = _conditioning(params)
    unet = params.section("unet_config")
    unet.target((_UNET,))
    first = params.section("first_stage_config")
    kind = _FIRST_STAGES[first.target(tuple(_FIRST_STAGES))]
    shape = unet.parameters()
    return LDMConfig(
        betas=params.choice("beta_schedule", _BETAS, "linear"),
        steps=params.whole("timesteps", 1000),
        linear_start=params.number("linear_start", 1e-4),
        linear_end=params.number("linear_end", 2e-2),
        cosine_s=params.number("cosine_s", 8e-3),
        prediction=_PARAMETRISATIONS[params.choice("parameterization", tuple(_PARAMETRISATIONS), "eps")],
        latent_size=params.whole("image_size", 256),
        channels=params.whole("channels", 3),
        scale=params.number("scale_factor", 1.0),
        scale_inside=params.truth("scale_by_std", False),
        ema=params.truth("use_ema", True),
        heads=_heads(shape),
        spatial_transformer=shape.truth("use_spatial_transformer", False),
        unet=_unet(shape),
        classes=classes,
        embedding=embedding,
        first_stage=kind,
        autoencoder=_autoencoder(first.parameters(), kind),
    )


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError:
        raise MissingExtra('reading the YAML of an LDM checkpoint needs PyYAML: pip install "pyyaml"') from None
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise CheckpointError(f"{path} has {size} bytes; a configuration has at most {_LARGEST_FILE}.")
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as text ({error}); download it again.") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} is not plain YAML ({reason}); expected values only, and nothing of it was run."
        ) from None
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path} holds {type(found).__name__}; expected the sections of a configuration.")
    return found


def _conditioning(params: Section) -> tuple[int, int]:
    """(rows, width) of the class embedding; (0, 0): unconditional."""
    given = params.values.get("cond_stage_config", UNCONDITIONAL)
    key = params.values.get("conditioning_key")
    if given == UNCONDITIONAL:
        if key is not None:
            raise params.error("conditioning_key", "none, as the model is unconditional")
        return 0, 0
    if isinstance(given, str):
        raise params.error("cond_stage_config", f"{UNCONDITIONAL} or {_CLASSES}")
    condition = params.section("cond_stage_config")
    condition.target((_CLASSES,))
    if key is None:  # the program's own rule
        key = "concat" if params.truth("concat_mode", True) else "crossattn"
    if key != "crossattn":
        raise params.error("conditioning_key", "crossattn (classes by cross attention)")
    values = condition.parameters()
    return values.whole("n_classes", 1000), values.whole("embed_dim")


def _heads(shape: Section) -> Heads:
    """The program writes -1 for what is not given."""

    def given(name: str) -> int | None:
        return shape.whole(name) if shape.values.get(name) not in (None, -1) else None

    count, width = given("num_heads"), given("num_head_channels")
    if count is None and width is None:
        raise shape.error("num_heads", "a number, or num_head_channels")
    return Heads(count or 1, width, given("num_heads_upsample"), shape.truth("use_new_attention_order", False))


def _unet(shape: Section) -> dict[str, Any]:
    if "num_classes" in shape:
        raise shape.error("num_classes", "none (classes by cross attention)")
    if shape.values.get("dims", 2) != 2:
        raise shape.error("dims", "2")
    blocks = shape.values.get("num_res_blocks")
    if isinstance(blocks, (list, tuple)) and len(set(blocks)) == 1:
        blocks = blocks[0]
    if type(blocks) is not int or blocks < 1:
        raise shape.error("num_res_blocks", "a whole number of at least 1")
    return {
        "in_channels": shape.whole("in_channels"),
        "out_channels": shape.whole("out_channels"),
        "model_channels": shape.whole("model_channels"),
        "blocks": blocks,
        "multipliers": shape.wholes("channel_mult", (1, 2, 4, 8)),
        "attention_factors": shape.wholes("attention_resolutions"),
        "scale_shift": shape.truth("use_scale_shift_norm", False),
        "resampling": "block"
        if shape.truth("resblock_updown", False)
        else ("conv" if shape.truth("conv_resample", True) else "pool"),
        "depth": shape.whole("transformer_depth", 1),
        "context": shape.whole("context_dim") if "context_dim" in shape else None,
    }


def _autoencoder(params: Section, kind: str) -> AutoencoderConfig:
    shape = params.section("ddconfig")
    if "remap" in params:
        raise params.error("remap", "none")
    multipliers = shape.wholes("ch_mult", (1, 2, 4, 8))
    side = shape.whole("resolution")
    sides = shape.wholes("attn_resolutions", ())
    attention = frozenset(level for level in range(len(multipliers)) if side // 2**level in sides)
    style = shape.choice("attn_type", ("vanilla", "none"), "vanilla")
    doubled = shape.truth("double_z", True)
    if doubled != (kind == "kl"):
        raise shape.error("double_z", f"{kind == 'kl'} for this kind of autoencoder".lower())
    if shape.truth("give_pre_end", False) or shape.truth("use_linear_attn", False):
        raise shape.error("give_pre_end", "false, and use_linear_attn false")
    return AutoencoderConfig(
        in_channels=shape.whole("in_channels"),
        out_channels=shape.whole("out_ch"),
        channels=shape.whole("ch"),
        multipliers=multipliers,
        blocks=shape.whole("num_res_blocks"),
        z_channels=shape.whole("z_channels"),
        embed_dim=params.whole("embed_dim"),
        attention=attention if style == "vanilla" else frozenset(),
        middle_attention=style == "vanilla",
        with_conv=shape.truth("resamp_with_conv", True),
        doubled=doubled,
        codes=params.whole("n_embed") if kind == "vq" else 0,
        tanh=shape.truth("tanh_out", False),
    )
