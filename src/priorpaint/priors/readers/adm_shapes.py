"""The architecture of an ADM network from the names and shapes of its tensors.

What the names of one part leave open (a missing block, for example) is taken from the others, so that a damaged file
shows as tensors that do not fit rather than as another network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from ...errors import CheckpointError
from ..networks.adm import ADMConfig, Heads, Transformer
from .untrusted.reading import check_count

_LABELS = "label_emb.weight"
_BLOCK = re.compile(r"(input|output)_blocks\.(\d{1,4})\.(\d)\.(.+)")
# Channels of the pictures of published models: grey, colour, colour with opacity or a latent. A network with more is an
# upsampler, which also looks at the small picture.
_PICTURES = (1, 2, 3, 4)


class Shapes:
    """Names and shapes of a state_dict, with errors that say what is missing."""

    def __init__(self, state: Mapping[str, Tensor], path: Path) -> None:
        self.shapes = {key: tuple(value.shape) for key, value in state.items()}
        self.path = path
        self.parts: dict[tuple[str, int], set[str]] = {}
        self.keys: dict[tuple[str, int], str] = {}  # a tensor of each block
        for key in self.shapes:
            match = _BLOCK.fullmatch(key)
            if match:
                side, index, part, rest = match.groups()
                self.parts.setdefault((side, int(index)), set()).add(f"{part}.{rest}")
                self.keys[side, int(index)] = key

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def of(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a tensor that must be there."""
        shape = self.shapes.get(name)
        if shape is None:
            raise CheckpointError(f"{self.path} lacks the tensor {name}; the file is incomplete or of another network.")
        if len(shape) != dimensions or not all(shape):
            raise CheckpointError(f"{self.path}: {name} has the shape {shape}; expected {dimensions} dimensions.")
        return shape

    def blocks(self, side: str) -> int:
        """Number of blocks of a side, ``input`` or ``output``."""
        return 1 + max((index for where, index in self.parts if where == side), default=-1)

    def has(self, side: str, index: int, pattern: str) -> bool:
        """Whether a block has a tensor whose name (after the block's number) matches."""
        return any(re.match(pattern, rest) for rest in self.parts.get((side, index), ()))


def of_latent_diffusion(start: bytes) -> bool:
    """Whether a file that begins like this holds the U-Net as a part of latent diffusion, by the tensors' names."""
    return b"model.diffusion_model." in start or b"first_stage_model." in start


def check_kind(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError where the names are not at all those of this kind of U-Net."""
    wanted = ("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight")
    if sum(name in state for name in wanted) >= 2:
        return
    names = ", ".join(list(state)[:3]) or "nothing"
    raise CheckpointError(
        f"{path} does not hold a diffusion U-Net of guided-diffusion: expected tensors named {wanted[0]}, {wanted[1]}, "
        f"{wanted[2]}; found {names} ... Choose the file of a diffusion model."
    )


def infer(state: Mapping[str, Tensor], path: Path, heads: Heads, learned_variance: bool | None = None) -> ADMConfig:
    """The configuration that the tensors show.

    Args:
        state: the state_dict.
        path: for messages.
        heads: how attention is shared out, which no tensor shows.
        learned_variance: what the user says; where None, the number of output channels tells.

    Raises:
        CheckpointError: the tensors are of no such network, or contradict each other in a way that leaves it open.
    """
    check_kind(state, path)
    shapes = Shapes(state, path)
    model_channels = shapes.of("time_embed.0.weight", 2)[1]
    in_channels = shapes.of("input_blocks.0.0.weight", 4)[1]
    if in_channels not in _PICTURES:
        raise CheckpointError(
            f"{path} takes pictures of {in_channels} channels; expected {_PICTURES[0]} to {_PICTURES[-1]} "
            "(models that enlarge or fill pictures take more: choose the plain model)."
        )
    _check_gaps(shapes)
    per_level, resampling = _layout(shapes)
    count = max(shapes.blocks("input"), shapes.blocks("output")) // per_level
    transformer = _transformer(shapes)
    check_count(2 * count * per_level * (transformer.depth if transformer else 1), state, path)
    levels = tuple(_width(shapes, level, per_level) for level in range(count))
    config = ADMConfig(
        in_channels=in_channels,
        out_channels=_outputs(shapes, in_channels, learned_variance),
        model_channels=model_channels,
        levels=levels,
        blocks=per_level - 1,
        attention=_attention(shapes, count, per_level),
        resampling=resampling,
        scale_shift=_scale_shift(shapes, per_level),
        heads=heads,
        classes=shapes.of(_LABELS, 2)[0] if _LABELS in shapes else 0,
        transformer=transformer,
    )
    check_layers(config, path)
    return config


def check_layers(config: ADMConfig, path: Path) -> None:
    """Raise CheckpointError where channels cannot be shared out among groups and heads."""
    odd = next((width for width in config.levels if width % 32), None)
    if odd is not None:
        raise CheckpointError(
            f"{path} has a level of {odd} channels; expected multiples of 32, the groups of its norms."
        )
    attended = [config.levels[level] for level in sorted(config.attention)] + [config.levels[-1]]
    for width in attended:
        for up in (False, True):
            if not config.heads.of(width, up):
                said = config.heads.width or (config.heads.count_up if up else None) or config.heads.count
                what = "channels a head" if config.heads.width else "heads"
                raise CheckpointError(
                    f"{path} has an attention over {width} channels, which cannot have {said} {what}; correct "
                    "num_heads, num_heads_upsample or num_head_channels."
                )


def _check_gaps(shapes: Shapes) -> None:
    """That the blocks of a side follow each other; one of them may have no weights, where it only halves pictures."""
    for side in ("input", "output"):
        held = sorted(index for where, index in shapes.parts if where == side)
        for before, after in pairwise([-1, *held]):
            if after - before > 2:
                raise CheckpointError(
                    f"{shapes.path} has the tensor {shapes.keys[side, after]}, but none of the blocks {before + 1} to "
                    f"{after - 1} before it: that tensor is not part of the network, or these are missing."
                )


def _layout(shapes: Shapes) -> tuple[int, str]:
    """(blocks of a level with its change of resolution, how it changes), from where the resolution changes."""
    inputs, outputs = shapes.blocks("input"), shapes.blocks("output")
    count = max(inputs, outputs)
    strided = [i for i in range(1, inputs) if shapes.has("input", i, r"0\.op\.weight$")]
    doubled = [i for i in range(outputs) if shapes.has("output", i, r"[12]\.conv\.weight$")]
    rising = [i for i in range(outputs) if shapes.has("output", i, r"[12]\.in_layers\.")]
    empty = [i for i in range(1, inputs) if ("input", i) not in shapes.parts]
    if strided or doubled:
        period, resampling = min(strided[:1] + [i + 1 for i in doubled[:1]]), "conv"
    elif rising:
        period, resampling = rising[0] + 1, "block"
    elif empty:
        period, resampling = empty[0], "pool"
    else:
        period, resampling = count, "conv"
    if period < 2 or not count or count % period:
        last = [shapes.keys[side, n - 1] for side, n in (("input", inputs), ("output", outputs)) if n]
        raise CheckpointError(
            f"{shapes.path} has {inputs} input and {outputs} output blocks, up to {' and '.join(last)}, with a change "
            f"of resolution every {period}; expected the same number of blocks at each level: some are missing or of "
            "another network."
        )
    return period, resampling


def _width(shapes: Shapes, level: int, per_level: int) -> int:
    """Channels of a level: of its residual blocks, in the encoder or else in the decoder."""
    count = max(shapes.blocks("input"), shapes.blocks("output"))
    inputs = [level * per_level + i for i in range(1, per_level)]
    outputs = [count - (level + 1) * per_level + i for i in range(per_level)]
    names = [f"input_blocks.{i}.0" for i in inputs] + [f"output_blocks.{i}.0" for i in outputs]
    for name in names:
        if f"{name}.in_layers.2.weight" in shapes:
            return shapes.of(f"{name}.in_layers.2.weight", 4)[0]
    raise CheckpointError(f"{shapes.path} lacks all residual blocks of level {level}, such as {names[0]}.")


def _outputs(shapes: Shapes, channels: int, learned_variance: bool | None) -> int:
    outputs = shapes.of("out.2.weight", 4)[0]
    if learned_variance is not None:
        return 2 * channels if learned_variance else channels
    return outputs if outputs in (channels, 2 * channels) else channels


def _attention(shapes: Shapes, levels: int, per_level: int) -> frozenset[int]:
    """Levels where some block has an attention; the fit of all tensors then asks it of all blocks there."""
    count = levels * per_level
    attended = set()
    for side, index in shapes.parts:
        if shapes.has(side, index, r"1\.(qkv|norm|proj_out|proj_in|transformer_blocks)\."):
            from_end = index if side == "input" else count - 1 - index
            attended.add(from_end // per_level)
    return frozenset(attended)


def _scale_shift(shapes: Shapes, per_level: int) -> bool:
    """Whether the time gives two numbers a channel."""
    for name in ["middle_block.0", "middle_block.2"] + [f"input_blocks.{i}.0" for i in range(1, per_level)]:
        if f"{name}.emb_layers.1.weight" in shapes and f"{name}.in_layers.2.weight" in shapes:
            outputs = shapes.of(f"{name}.emb_layers.1.weight", 2)[0]
            return outputs == 2 * shapes.of(f"{name}.in_layers.2.weight", 4)[0]
    raise CheckpointError(f"{shapes.path} lacks the tensor input_blocks.1.0.emb_layers.1.weight; it is incomplete.")


def _transformer(shapes: Shapes) -> Transformer | None:
    if not any("transformer_blocks." in name for name in shapes.shapes):
        return None
    depths = [int(m[1]) for name in shapes.shapes if (m := re.search(r"transformer_blocks\.(\d{1,3})\.", name))]
    context = shapes.of("middle_block.1.transformer_blocks.0.attn2.to_k.weight", 2)[1]
    linear = len(shapes.shapes.get("middle_block.1.proj_in.weight", (0,) * 4)) == 2
    return Transformer(1 + max(depths), context, linear)
