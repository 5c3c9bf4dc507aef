"""Layers of the EDM networks (Karras et al. 2022): convolutions with filters, one residual block for both U-Nets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from .layers import GroupNorm, Positive, attend

_MOST_GROUPS = 32
_LEAST_CHANNELS = 4  # of a group

# What the arguments of published constructors can be.
Whole = Annotated[int, Field(ge=0, le=65536, strict=True)]
List = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=64)]
Taps = Annotated[tuple[float, ...], Field(min_length=1, max_length=64)]
Share = Annotated[float, Field(ge=0, le=1)]


def norm(channels: int, eps: float = 1e-5) -> GroupNorm:
    """Group norm with 32 groups, or fewer so that each has 4 channels."""
    return GroupNorm(max(1, min(_MOST_GROUPS, channels // _LEAST_CHANNELS)), channels, eps)


def resampled(x: Tensor, taps: Tensor, change: str, pad: int) -> Tensor:
    """x (N, C, H, W) at half or, for ``change`` = ``up``, twice the resolution, filtered with ``taps`` (n, n)."""
    weight = taps.expand(x.shape[1], 1, -1, -1)
    if change == "down":
        return F.conv2d(x, weight, stride=2, padding=pad, groups=x.shape[1])
    return F.conv_transpose2d(x, 4 * weight, stride=2, padding=pad, groups=x.shape[1])


class Pyramid(nn.Module):
    """Encoder and decoder of a U-Net, as EDM names their layers: by resolution. A subclass makes the blocks.

    Args:
        config: the published constructor's arguments.

    Attributes:
        levels: (resolution, channels) of each level.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        side, width = config.img_resolution, config.model_channels
        self.levels = [(side >> level, width * times) for level, times in enumerate(config.channel_mult)]
        self.config, self.enc, self.dec = config, nn.ModuleDict(), nn.ModuleDict()

    def _block(self, name: str, channels: int, out: int, change: str, attends: bool) -> nn.Module:
        """A block by its name, such as ``enc.64x64_block0``; ``change`` is ``down``, ``up`` or empty."""
        raise NotImplementedError

    def _add(self, part: str, name: str, channels: int, out: int, change: str = "", attends: bool = False) -> None:
        getattr(self, part)[name] = self._block(f"{part}.{name}", channels, out, change, attends)

    def _build(self, first: nn.Module, out: int) -> int:
        """Encoder and decoder around ``first``, which gives ``out`` channels; channels at the end."""
        blocks, attended = self.config.num_blocks, self.config.attn_resolutions
        widths: list[int] = []
        for level, (side, width) in enumerate(self.levels):
            if level == 0:
                self.enc[f"{side}x{side}_conv"] = first
            else:
                self._add("enc", f"{side}x{side}_down", out, out, "down")
                self._beside_encoder(side, out)
            widths.append(out)
            for index in range(blocks):
                self._add("enc", f"{side}x{side}_block{index}", out, width, attends=side in attended)
                out = width
                widths.append(out)
        for level, (side, width) in reversed(list(enumerate(self.levels))):
            if level == len(self.levels) - 1:
                self._add("dec", f"{side}x{side}_in0", out, out, attends=True)
                self._add("dec", f"{side}x{side}_in1", out, out)
            else:
                self._add("dec", f"{side}x{side}_up", out, out, "up")
            for index in range(blocks + 1):
                attends = side in attended and self._decoder_attends(index)
                self._add("dec", f"{side}x{side}_block{index}", out + widths.pop(), width, attends=attends)
                out = width
            self._beside_decoder(level, side, out)
        return out

    def _decoder_attends(self, index: int) -> bool:
        return True

    def _beside_encoder(self, side: int, channels: int) -> None:
        pass

    def _beside_decoder(self, level: int, side: int, channels: int) -> None:
        pass

    def _through(self, x: Tensor, embedding: Tensor, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """x through all layers; ``join``: of a block's input and what the encoder kept for it."""
        kept: list[Tensor] = []
        for name, layer in self.enc.items():
            x = layer(x) if name.endswith("_conv") else layer(x, embedding)
            kept.append(x)
        for name, layer in self.dec.items():
            x = layer(join(x, kept.pop()) if "block" in name else x, embedding)
        return x


class Conv(nn.Module):
    """A convolution, with a filter where it halves or doubles the resolution; ``kernel`` 0 is the filter alone.

    Args:
        change: ``down``, ``up`` or empty.
        taps: the filter along one side; its outer product, of sum 1, is in the state as ``resample_filter``.
        fused: the filter comes after the convolution and shares its padding.
    """

    resample_filter: Tensor | None

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        change: str = "",
        taps: Sequence[float] = (1, 1),
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.out, self.change, self.fused = channels, out, change, fused
        self.weight = nn.Parameter(torch.empty(out, channels, kernel, kernel)) if kernel else None
        self.bias = nn.Parameter(torch.empty(out)) if kernel else None
        shape = (1, 1, len(taps), len(taps))
        self.register_buffer("resample_filter", torch.empty(shape) if change else None)

    def forward(self, x: Tensor) -> Tensor:
        pad = self.weight.shape[-1] // 2 if self.weight is not None else 0
        filter_pad = (self.resample_filter.shape[-1] - 1) // 2 if self.resample_filter is not None else 0
        if self.fused and self.change == "down" and self.weight is not None:
            x = self._filtered(F.conv2d(x, self.weight, padding=pad + filter_pad), 0)
        elif self.fused and self.change == "up" and self.weight is not None:
            x = self._filtered(x, max(filter_pad - pad, 0))
            x = F.conv2d(x, self.weight, padding=max(pad - filter_pad, 0))
        else:
            x = self._filtered(x, filter_pad) if self.change else x
            x = F.conv2d(x, self.weight, padding=pad) if self.weight is not None else x
        return x if self.bias is None else x + self.bias[:, None, None]

    def _filtered(self, x: Tensor, pad: int) -> Tensor:
        assert self.resample_filter is not None
        return resampled(x, self.resample_filter.to(x.dtype)[0, 0], self.change, pad)


@dataclass(frozen=True)
class BlockStyle:
    """What all residual blocks of a network have in common.

    Attributes:
        embedding: channels of the time embedding.
        skip_scale: the sum with the input is multiplied by this.
        eps: of the norms.
        taps: of the filters that change the resolution.
        project: whether the input passes a convolution where the resolution changes, even with equal channels.
        scales: whether the time scales and shifts the second norm, or is added before it.
    """

    embedding: int
    skip_scale: float
    eps: float
    taps: tuple[float, ...]
    project: bool
    scales: bool


class Block(nn.Module):
    """Two convolutions with the time between them, then attention where ``heads`` > 0."""

    def __init__(self, channels: int, out: int, style: BlockStyle, change: str = "", heads: int = 0) -> None:
        super().__init__()
        self.style, self.heads = style, heads
        self.norm0 = norm(channels, style.eps)
        self.conv0 = Conv(channels, out, 3, change, style.taps)
        self.affine = nn.Linear(style.embedding, 2 * out if style.scales else out)
        self.norm1 = norm(out, style.eps)
        self.conv1 = Conv(out, out, 3)
        self.skip: Conv | None = None
        if channels != out or change:
            self.skip = Conv(channels, out, 1 if style.project or channels != out else 0, change, style.taps)
        if heads:
            self.norm2 = norm(out, style.eps)
            self.qkv = Conv(out, 3 * out, 1)
            self.proj = Conv(out, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        added = self.affine(embedding)[:, :, None, None]
        if self.style.scales:
            scale, shift = added.chunk(2, dim=1)
            h = self.norm1(h) * (scale + 1) + shift
        else:
            h = self.norm1(h + added)
        h = self.conv1(F.silu(h))
        h = (h + (x if self.skip is None else self.skip(x))) * self.style.skip_scale
        out: Tensor = (h + self._attention(h)) * self.style.skip_scale if self.heads else h
        return out

    def _attention(self, x: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        # The channels of one head hold (query, key, value) side by side.
        mixed = self.qkv(self.norm2(x)).reshape(rows, self.heads, channels // self.heads, 3, height * width)
        out: Tensor = self.proj(attend(*mixed.unbind(3)).reshape(x.shape))
        return out


def positional(t: Tensor, channels: int, endpoint: bool) -> Tensor:
    """(cos, sin) of t times 10000^(-i / n): (N,) -> (N, channels), float32; ``endpoint``: n = half - 1, else half."""
    half = channels // 2
    powers = torch.arange(half, dtype=torch.float32, device=t.device) / max(half - endpoint, 1)
    angles = t.float()[:, None] * (1 / 10000) ** powers
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Fourier(nn.Module):
    """(cos, sin) of 2 pi f t for frequencies f that the state holds: (N,) -> (N, channels), float32."""

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.empty(channels // 2))

    def forward(self, t: Tensor) -> Tensor:
        angles = t.float()[:, None] * (2 * math.pi * self.freqs.float())
        return torch.cat([angles.cos(), angles.sin()], dim=1)
