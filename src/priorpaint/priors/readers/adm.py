"""ADM checkpoints: the state_dict of a U-Net of guided-diffusion (.pt), and of improved-diffusion before it.

The tensors show nearly all of the architecture. Flags, with the names of the program's command line, say the rest: the
number of attention heads and their order, the noise schedule and its number of steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from ...diffusion.schedules import VP
from ...errors import CheckpointError, UsageError
from ..base import Prior
from ..network import NetworkPrior
from ..networks.adm import ADM, ADMConfig, Heads
from .adm_shapes import check_kind, infer, of_latent_diffusion
from .base import Reader, Request, of_file
from .flags import Flags, HeadCount, Numbers, Positive, Whole
from .untrusted import reading as safe

# Channel multipliers that the programs use where the command line gives none.
_MULTIPLIERS: dict[int, tuple[float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),
}


class ADMFlags(Flags):
    """The programs' command line: what the tensors show, which is compared with them, and then what they do not.

    Attributes:
        image_size: pixels along a side of the pictures that it was trained on.
        channel_mult: channels of the levels over ``num_channels``.
        attention_resolutions: sides of the pictures at which it attends.
        num_heads_upsample: number of attention heads in the decoder.
        num_head_channels: channels of an attention head, instead of ``num_heads``.
        use_new_attention_order: whether queries, keys and values are split before the heads.
        predict_xstart: whether it predicts the clean picture instead of the noise.
        rescale_timesteps: whether the network is told t * 1000 / diffusion_steps.
    """

    image_size: Annotated[Positive, Field(le=65536)] | None = None
    num_channels: Whole | None = None
    num_res_blocks: Whole | None = None
    channel_mult: Numbers = None
    attention_resolutions: Numbers = None
    resblock_updown: bool | None = None
    use_scale_shift_norm: bool | None = None
    class_cond: bool | None = None
    learn_sigma: bool | None = None
    num_heads: HeadCount = None
    num_heads_upsample: HeadCount = None
    num_head_channels: HeadCount = None
    use_new_attention_order: bool = False
    noise_schedule: Literal["linear", "cosine"] = "linear"
    diffusion_steps: Annotated[Positive, Field(ge=2, le=100_000)] = 1000
    predict_xstart: bool = False
    rescale_timesteps: bool = False

    @property
    def prediction(self) -> str:
        """As in `NetworkPrior`."""
        return "x0" if self.predict_xstart else "eps"

    def index(self, t: Tensor) -> Tensor:
        """What the network is told at the time t (N,) in (0, 1]: the index of the noise level, from 0."""
        index = (self.diffusion_steps * t - 1).clamp(min=0)
        return index * (1000 / self.diffusion_steps) if self.rescale_timesteps else index


# Flags of the same command lines that say nothing about the network.
_IGNORED = frozenset(
    "dropout use_checkpoint use_fp16 timestep_respacing use_kl rescale_learned_sigmas sigma_small batch_size "
    "num_samples use_ddim model_path clip_denoised classifier_path classifier_scale lr microbatch ema_rate "
    "lr_anneal_steps weight_decay log_interval save_interval resume_checkpoint fp16_scale_growth schedule_sampler "
    "data_dir classifier_use_fp16 classifier_width classifier_depth classifier_attention_resolutions "
    "classifier_use_scale_shift_norm classifier_resblock_updown classifier_pool".split()
)
# What the README of the programs gives for the files that it offers; used where a file has that name and the user gives
# no flags. The tensors are checked against all of it.
_COMMON = {"attention_resolutions": "32,16,8", "learn_sigma": True, "resblock_updown": True}
_LARGE = {**_COMMON, "use_scale_shift_norm": True, "num_channels": 256, "num_res_blocks": 2, "num_head_channels": 64}
_LSUN = {**_LARGE, "image_size": 256, "class_cond": False}
PUBLISHED: dict[str, dict[str, Any]] = {
    "64x64_diffusion.pt": {
        **_LARGE,
        "image_size": 64,
        "class_cond": True,
        "noise_schedule": "cosine",
        "num_channels": 192,
        "num_res_blocks": 3,
        "use_new_attention_order": True,
    },
    "128x128_diffusion.pt": {
        **{key: value for key, value in _LARGE.items() if key != "num_head_channels"},
        "image_size": 128,
        "class_cond": True,
        "num_heads": 4,
    },
    "256x256_diffusion.pt": {**_LARGE, "image_size": 256, "class_cond": True},
    "256x256_diffusion_uncond.pt": {**_LARGE, "image_size": 256, "class_cond": False},
    "512x512_diffusion.pt": {**_LARGE, "image_size": 512, "class_cond": True},
    "lsun_bedroom.pt": _LSUN,
    "lsun_cat.pt": _LSUN,
    "lsun_horse.pt": _LSUN,
    "lsun_horse_nodropout.pt": _LSUN,
}


def recognises(path: Path) -> bool:
    """Whether torch.save wrote the file, but for latent diffusion; what else it may hold, reading it says."""
    start = safe.container_start(path)
    return bool(start) and not of_latent_diffusion(start)


@of_file
def read(request: Request) -> Prior:
    """A prior from the state_dict of an ADM network.

    Flags: see `ADMFlags`.

    Raises:
        CheckpointError: the file is damaged, unsafe or of another network, or contradicts a flag.
        UsageError: a flag that is unknown or has no such value, or no word about the attention heads.
    """
    path = request.source
    state = safe.load_state(path)
    check_kind(state, path)
    values = request.flags or PUBLISHED.get(path.name, {})
    flags = ADMFlags.of({name: value for name, value in values.items() if name not in _IGNORED}, "an ADM checkpoint")
    given = any(value is not None for value in values.values())
    config = infer(state, path, _heads(flags, given), flags.learn_sigma)
    # What the user says, or the size that the programs give these channel multipliers; None: any.
    known = (size for size, multipliers in _MULTIPLIERS.items() if multipliers == _multipliers(config))
    size = flags.image_size or next(known, None)
    _check_flags(flags, config, size, path)
    network = safe.assemble(lambda: ADM(config), state, path, device=request.device, dtype=request.dtype)
    if not given and any(".qkv." in name for name in state):
        raise UsageError(
            f"{path} is an ADM checkpoint, whose tensors do not show the number of attention heads; give the flags of "
            "the model's README, at least num_heads or num_head_channels, such as "
            '--flags "--num_head_channels 64 --noise_schedule linear".'
        )
    prior = NetworkPrior(
        network,
        VP(flags.noise_schedule, steps=flags.diffusion_steps),
        (config.in_channels, size, size),
        prediction=flags.prediction,
        condition=flags.index,
        multiple=2 ** (len(config.levels) - 1),
        dtype=request.dtype,
        name=path.stem,
        classes=config.classes,
    )
    prior.learned_variance = config.out_channels == 2 * config.in_channels
    prior.facts = {
        "format": "adm",
        "architecture": "ADM U-Net",
        "image_size": size,
        "channels": config.in_channels,
        "num_channels": config.model_channels,
        "channel_mult": list(_multipliers(config)),
        "num_res_blocks": config.blocks,
        "attention_levels": sorted(config.attention),
        "attention_order": "new" if config.heads.split_first else "legacy",
        "num_head_channels": config.heads.width,
        "num_heads": None if config.heads.width else config.heads.count,
        "prediction": flags.prediction,
        "learned_variance": prior.learned_variance,
        "schedule": "vp",
        "betas": flags.noise_schedule,
        "timesteps": flags.diffusion_steps,
        "classes": config.classes,
        "parameters": sum(weight.numel() for weight in network.parameters()),
    }
    return prior


def _heads(flags: ADMFlags, given: bool) -> Heads:
    """The programs use 4 heads where their command line names no number; without one, nothing is known."""
    count = flags.num_heads or (4 if given else 1)
    return Heads(count, flags.num_head_channels, flags.num_heads_upsample, flags.use_new_attention_order)


def _multipliers(config: ADMConfig) -> tuple[float, ...]:
    return tuple(width / config.model_channels for width in config.levels)


def _check_flags(flags: ADMFlags, config: ADMConfig, size: int | None, path: Path) -> None:
    """Compare each flag with what the tensors show."""
    checks: list[tuple[str, Any, Any, str]] = [
        ("num_channels", flags.num_channels, config.model_channels, "time_embed.0.weight"),
        ("num_res_blocks", flags.num_res_blocks, config.blocks, "input_blocks"),
        ("use_scale_shift_norm", flags.use_scale_shift_norm, config.scale_shift, "emb_layers.1.weight"),
        ("class_cond", flags.class_cond, config.classes > 0, "label_emb.weight"),
    ]
    if len(config.levels) > 1:  # nothing shows how a single level would change its resolution
        checks.append(("resblock_updown", flags.resblock_updown, config.resampling == "block", "output_blocks"))
    if flags.channel_mult is not None:
        widths = tuple(int(multiplier * config.model_channels) for multiplier in flags.channel_mult)
        checks.append(("channel_mult", widths, config.levels, "in_layers.2.weight"))
    if flags.attention_resolutions is not None and size is not None:
        factors = {size // int(side) for side in flags.attention_resolutions if side >= 1}
        attended = [level for level in range(len(config.levels)) if 2**level in factors]
        checks.append(("attention_resolutions", attended, sorted(config.attention), "qkv.weight"))
    for name, said, shown, where in checks:
        if said is not None and said != shown:
            said = f"levels {said}" if name == "attention_resolutions" else said
            shown = "classes" if name == "class_cond" and shown else shown
            raise CheckpointError(
                f"{path}: the flag {name} says {said}, but the tensors ({where}) show {shown}; correct the flag or "
                "choose the file that belongs to it."
            )
    table = _MULTIPLIERS.get(flags.image_size or 0)
    if table and flags.channel_mult is None and _multipliers(config) != table:
        raise CheckpointError(
            f"{path}: for image_size {size} without channel_mult the levels have {table} times num_channels, but "
            f"the tensors show {_multipliers(config)}; correct image_size or give channel_mult."
        )


READER = Reader("adm", "guided-diffusion or improved-diffusion (.pt)", recognises, read)
