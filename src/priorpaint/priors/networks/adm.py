"""The U-Net of guided-diffusion (Dhariwal and Nichol 2021, "ADM"), of improved-diffusion before it, and of LDM.

Only the names of the weights and what is computed from them follow the published programs; the three differ in how
blocks change resolution, how the time enters, and what attention looks at, which `ADMConfig` says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import GroupNorm, attend, timestep_embedding, upsample


@dataclass(frozen=True)
class Heads:
    """How the channels of an attention are shared out.

    Attributes:
        count: number of heads, where ``width`` is None.
        width: channels of one head; None: channels / count.
        count_up: number of heads in the decoder; None: ``count``.
        split_first: the new order, where queries, keys and values are taken apart before the heads; else after.
    """

    count: int = 1
    width: int | None = None
    count_up: int | None = None
    split_first: bool = False

    def of(self, channels: int, up: bool = False) -> int:
        """Heads of an attention over this many channels; 0 where they do not divide."""
        count = (self.count_up if up else None) or self.count
        if self.width is not None:
            return channels // self.width if channels % self.width == 0 else 0
        return count if channels % count == 0 else 0


@dataclass(frozen=True)
class Transformer:
    """Attention as a transformer with a context (LDM): diffusers' own, whose weights have the published names.

    Attributes:
        depth: number of its blocks.
        context: channels of the context.
        linear: whether its first and last layers are linear ones rather than 1x1 convolutions.
    """

    depth: int
    context: int
    linear: bool = False

    def build(self, channels: int, heads: int) -> nn.Module:
        """Called with x (N, channels, H, W) and encoder_hidden_states (N, tokens, context)."""
        from diffusers.models.transformers.transformer_2d import Transformer2DModel

        network: nn.Module = Transformer2DModel(
            heads, channels // heads, in_channels=channels, num_layers=self.depth,
            cross_attention_dim=self.context, use_linear_projection=self.linear,
        )  # fmt: skip
        return network


@dataclass(frozen=True)
class ADMConfig:
    """Shape of the network.

    Attributes:
        in_channels, out_channels: of the picture; twice as many out where the variance is learned.
        model_channels: width of the time embedding.
        levels: channels of each level, the finest first.
        blocks: residual blocks of a level in the encoder (the decoder has one more).
        attention: levels with attention, 0 = the finest; the middle always has it.
        resampling: ``block`` (a residual block changes resolution), ``conv`` or ``pool`` (no weights).
        scale_shift: whether the time scales and shifts the second norm, or is added before it.
        heads: of all attentions.
        classes: rows of the class embedding; 0: none.
        transformer: attention as a transformer; None: plain self-attention.
    """

    in_channels: int
    out_channels: int
    model_channels: int
    levels: tuple[int, ...]
    blocks: int
    attention: frozenset[int]
    resampling: str
    scale_shift: bool
    heads: Heads
    classes: int = 0
    transformer: Transformer | None = None


class ADM(nn.Module):
    """Call with x (N, C, H, W), t (N,) as the published program numbers it, labels (N,) int64 where it knows classes,
    and context (N, tokens, channels) where it has transformers; returns (N, out_channels, H, W).
    """

    def __init__(self, config: ADMConfig) -> None:
        super().__init__()
        self.config = config
        width = config.model_channels
        self.time_embed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        if config.classes:
            # With its weight given: torch draws the first weights of an embedding even on the meta device.
            self.label_emb = nn.Embedding(config.classes, 4 * width, _weight=torch.empty(config.classes, 4 * width))
        widths: list[int] = []
        self.input_blocks = nn.ModuleList(nn.ModuleList(parts) for parts in self._encoder(widths))
        wide = config.levels[-1]
        self.middle_block = nn.ModuleList([self._block(wide, wide), self._attention(wide), self._block(wide, wide)])
        self.output_blocks = nn.ModuleList(nn.ModuleList(parts) for parts in self._decoder(widths))
        self.out = nn.Sequential(
            GroupNorm(32, config.levels[0]),
            nn.SiLU(),
            nn.Conv2d(config.levels[0], config.out_channels, 3, padding=1),
        )

    def _encoder(self, widths: list[int]) -> Iterator[list[nn.Module]]:
        config, channels = self.config, self.config.levels[0]
        yield [nn.Conv2d(config.in_channels, channels, 3, padding=1)]
        widths.append(channels)
        for level, width in enumerate(config.levels):
            for _ in range(config.blocks):
                parts = [self._block(channels, width)]
                channels = width
                if level in config.attention:
                    parts.append(self._attention(channels))
                yield parts
                widths.append(channels)
            if level < len(config.levels) - 1:
                yield [self._resample(channels, "down")]
                widths.append(channels)

    def _decoder(self, widths: list[int]) -> Iterator[list[nn.Module]]:
        config, channels = self.config, self.config.levels[-1]
        for level, width in reversed(list(enumerate(config.levels))):
            for index in range(config.blocks + 1):
                parts = [self._block(channels + widths.pop(), width)]
                channels = width
                if level in config.attention:
                    parts.append(self._attention(channels, up=True))
                if level and index == config.blocks:
                    parts.append(self._resample(channels, "up"))
                yield parts

    def _block(self, channels: int, out: int, change: str = "") -> nn.Module:
        return ResidualBlock(channels, out, 4 * self.config.model_channels, self.config.scale_shift, change)

    def _attention(self, channels: int, up: bool = False) -> nn.Module:
        heads, transformer = self.config.heads, self.config.transformer
        if transformer is None:
            return SelfAttention(channels, heads.of(channels, up), heads.split_first)
        # The published decoder's transformers have the heads of the encoder.
        return transformer.build(channels, heads.of(channels))

    def _resample(self, channels: int, change: str) -> nn.Module:
        if self.config.resampling == "block":
            return self._block(channels, channels, change)
        with_weights = self.config.resampling == "conv"
        if change == "up":
            return upsample(channels, with_weights)
        op: nn.Module = nn.Conv2d(channels, channels, 3, 2, 1) if with_weights else nn.AvgPool2d(2)
        return nn.Sequential(OrderedDict(op=op))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        embedding = self.time_embed(timestep_embedding(t, self.config.model_channels).to(x.dtype))
        if self.config.classes:
            embedding = embedding + self.label_emb(labels)
        skips = []
        for parts in self.input_blocks:
            x = _run(parts, x, embedding, context)
            skips.append(x)
        x = _run(self.middle_block, x, embedding, context)
        for parts in self.output_blocks:
            x = _run(parts, torch.cat([x, skips.pop()], dim=1), embedding, context)
        out: Tensor = self.out(x)
        return out


def _run(parts: nn.Module, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
    for part in parts.children():
        if isinstance(part, ResidualBlock):
            x = part(x, embedding)
        elif hasattr(part, "transformer_blocks"):
            x = part(x, encoder_hidden_states=context, return_dict=False)[0]
        else:
            x = part(x)
    return x


class ResidualBlock(nn.Module):
    """Two convolutions with the time between them; ``change`` is ``down``, ``up`` or empty."""

    def __init__(self, channels: int, out: int, embedding: int, scale_shift: bool, change: str) -> None:
        super().__init__()
        self.scale_shift, self.change = scale_shift, change
        self.in_layers = nn.Sequential(GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out if scale_shift else out))
        # Where the programs have their dropout stands nothing, so that the names of the others keep their numbers.
        self.out_layers = nn.Sequential(GroupNorm(32, out), nn.SiLU(), nn.Identity(), nn.Conv2d(out, out, 3, padding=1))
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers[2](self._resized(self.in_layers[:2](x)))
        added = self.emb_layers(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = added.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + added)
        out: Tensor = self.skip_connection(self._resized(x)) + h
        return out

    def _resized(self, x: Tensor) -> Tensor:
        if self.change == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.change == "up" else x


class SelfAttention(nn.Module):
    """Attention of all pixels to all pixels."""

    def __init__(self, channels: int, heads: int, split_first: bool) -> None:
        super().__init__()
        self.heads, self.split_first = heads, split_first
        self.norm = GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        rows, channels, length = flat.shape
        mixed = self.qkv(self.norm(flat))
        if self.split_first:
            parts = mixed.reshape(rows, 3, self.heads, channels // self.heads, length).unbind(1)
        else:
            parts = mixed.reshape(rows, self.heads, 3, channels // self.heads, length).unbind(2)
        out: Tensor = flat + self.proj_out(attend(*parts).reshape(rows, channels, length))
        return out.reshape(x.shape)
