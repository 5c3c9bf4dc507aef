"""What the settings of a network in a diffusers folder can be, checked before anything is built from them.

The libraries take any number and allocate what it says, or fail in the first call. Here each setting has the kind that
the class's own constructor gives it, and the range that published models have.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...errors import CheckpointError
from .base import short

_MOST_LAYERS = 1000
_MOST_TABLE = 2**25  # numbers of a table of positions that a constructor computes
# (lowest, highest) whole number; any other one of a network is a count.
_COUNT = (1, 65536)
_WHOLE: dict[str, tuple[int, int]] = {
    "conv_in_kernel": (1, 31),
    "conv_out_kernel": (1, 31),
    "downsample_padding": (0, 1),
    "dual_attention_layers": (0, _MOST_LAYERS),
    "freq_shift": (0, 1),
    "num_train_timesteps": (1, 100_000),
    "patch_size": (1, 64),
    "pos_embed_max_size": (1, 4096),
    "sample_size": (1, 16384),
    "upsampling_scaling_factor": (1, 8),
}
# (lowest, highest) number; any other one of a network lies between the last two.
_NUMBER: dict[str, tuple[float, float]] = {
    "dropout": (0, 1),
    "latent_magnitude": (1e-6, 1e4),
    "latents_std": (1e-6, 1e4),
    "mid_block_scale_factor": (1e-4, 1e4),
    "norm_eps": (1e-12, 0.1),
    "resnet_out_scale_factor": (1e-4, 1e4),
    "scaling_factor": (1e-6, 1e4),
}
_ANY = (-1e4, 1e4)
# Of the configurations of text encoders, which say no kinds: everything that a network is built from.
_TEXT_COUNTS = (
    *("d_ff", "d_kv", "d_model", "hidden_size", "intermediate_size", "max_position_embeddings", "num_attention_heads"),
    *("num_heads", "projection_dim", "relative_attention_max_distance", "relative_attention_num_buckets"),
)
_TEXT_LAYERS = ("num_hidden_layers", "num_layers")
_MOST_WORDS = 2**21


def check(config: Mapping[str, Any], cls: type[nn.Module], where: Path, state: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError where a setting of one of diffusers' networks cannot be, naming it.

    Args:
        config: as the folder has it.
        cls: the network's class.
        where: its folder, for messages.
        state: its tensors: it has no more layers than that.
    """
    for key, parameter in inspect.signature(cls.__init__).parameters.items():
        if key in config and key != "self":
            kinds, optional = _kinds(parameter)
            for name, value in _scalars(key, config[key]):
                if value is None and (optional or bool in kinds or key == "norm_num_groups"):  # as NCSN++ has it
                    continue
                expected = [said for fits, said in _allowed(key, value, kinds, len(state)) if not fits]
                if len(expected) == len(kinds):
                    raise _wrong(where, name, value, " or ".join(expected))
    _check_positions(config, cls, where, state)


def check_text(config: Mapping[str, Any], where: Path, state: Mapping[str, Tensor]) -> None:
    """The same for one of transformers' text encoders."""
    layers = min(_MOST_LAYERS, len(state))
    ranges = dict.fromkeys(_TEXT_COUNTS, _COUNT) | dict.fromkeys(_TEXT_LAYERS, (1, layers))
    for key, (low, high) in {**ranges, "vocab_size": (1, _MOST_WORDS)}.items():
        if key in config and not _whole(config[key], low, high):
            raise _wrong(where, key, config[key], f"a whole number from {low} to {high}")
    for key in ("layer_norm_eps", "layer_norm_epsilon"):
        low_eps, high_eps = _NUMBER["norm_eps"]
        if key in config and not _number(config[key], low_eps, high_eps):
            raise _wrong(where, key, config[key], f"a number from {low_eps:g} to {high_eps:g}")
    for key, value in config.items():
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _MOST_WORDS:
            raise _wrong(where, key, value, "a smaller number")


def _allowed(key: str, value: Any, kinds: set[type], tensors: int) -> Iterator[tuple[bool, str]]:
    """(whether a value of the setting ``key`` is one of it, what it is) for each of its kinds."""
    for kind in sorted(kinds, key=lambda kind: kind.__name__):
        if kind is bool or kind is str:
            yield isinstance(value, kind), "true or false" if kind is bool else "a name"
        elif kind is float or key in _NUMBER:
            least, greatest = _NUMBER.get(key, _ANY)
            yield _number(value, least, greatest), f"a number from {least:g} to {greatest:g}"
        elif _counts_layers(key):
            most = min(_MOST_LAYERS, tensors)
            yield _whole(value, 1, most), f"a whole number from 1 to {most}, as its weights are {tensors} tensors"
        else:
            low, high = _WHOLE.get(key, _COUNT)
            yield _whole(value, low, high), f"a whole number from {low} to {high}"


def _wrong(where: Path, key: str, value: Any, expected: str) -> CheckpointError:
    return CheckpointError(f"{where}: {key} is {short(value)}; expected {expected}.")


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _counts_layers(key: str) -> bool:
    return ("layers" in key and key != "dual_attention_layers") or key in ("num_encoder_blocks", "num_decoder_blocks")


def _scalars(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The values of a setting that may be a list, or a list of lists, each with its name."""
    if isinstance(value, (list, tuple)) and depth < 3:
        for index, part in enumerate(value):
            yield from _scalars(f"{name}[{index}]", part, depth + 1)
    else:
        yield name, value


def _kinds(parameter: inspect.Parameter) -> tuple[set[type], bool]:
    """(bool, int, float, str that a constructor's argument or its elements are, whether it may be None)."""
    found: set[type] = set()
    waiting = [type(parameter.default) if parameter.annotation is inspect.Parameter.empty else parameter.annotation]
    optional = parameter.default is None
    while waiting:
        kind = waiting.pop()
        if kind is types.NoneType:
            optional = True
        elif kind in (bool, int, float, str):
            found.add(kind)
        elif kind in (tuple, list):  # of what, it does not say: of counts
            found.add(int)
        else:
            waiting.extend(part for part in typing.get_args(kind) if part is not Ellipsis)
    return found or {bool, int, float, str}, optional


def _check_positions(config: Mapping[str, Any], cls: type[nn.Module], where: Path, state: Mapping[str, Tensor]) -> None:
    """Tables of positions, and how Flux shares out the channels of a head among the axes."""
    usual = {name: known.default for name, known in inspect.signature(cls.__init__).parameters.items()}
    known = {**usual, **config}
    largest, table = known.get("pos_embed_max_size"), state.get("pos_embed.pos_embed")
    patch, side = known.get("patch_size"), known.get("sample_size")
    if isinstance(patch, int) and isinstance(side, int):
        rows = (side // patch) ** 2 * known["num_attention_heads"] * known["attention_head_dim"]
        if side % patch or (largest is None and not 0 < rows <= _MOST_TABLE):
            raise _wrong(where, "sample_size", side, f"a smaller multiple of patch_size, {patch}")
        if largest is not None and side > largest * patch:
            raise _wrong(where, "sample_size", side, f"at most {largest * patch}, pos_embed_max_size times patch_size")
    if largest is not None and (table is None or table.ndim != 3 or table.shape[1] != largest**2):
        found = None if table is None else tuple(table.shape)
        raise _wrong(where, "pos_embed_max_size", largest, f"the root of the rows of pos_embed.pos_embed, {found}")
    if "axes_dims_rope" in known:
        axes, head = known["axes_dims_rope"], known["attention_head_dim"]
        if not isinstance(axes, (list, tuple)) or len(axes) != 3 or any(n % 2 for n in axes) or sum(axes) != head:
            raise _wrong(where, "axes_dims_rope", axes, f"three even numbers whose sum is attention_head_dim, {head}")
