"""The transformer that LDM puts between residual blocks: self-attention, attention to a context, feed-forward."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import GroupNorm, Marker, attend


class SpatialTransformer(nn.Module):
    """Pixels as tokens: x (N, C, H, W), context (N, tokens, width) or None (then it looks at itself)."""

    def __init__(self, channels: int, heads: int, depth: int, context: int | None, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.norm = GroupNorm(32, channels, eps=1e-6)
        self.proj_in: nn.Module = nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(channels, heads, context) for _ in range(depth))
        self.proj_out: nn.Module = nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        height, width = x.shape[2:]
        h = self.norm(x)
        h = self.proj_in(_tokens(h)) if self.linear else _tokens(self.proj_in(h))
        for block in self.transformer_blocks:
            h = block(h, context)
        h = _pixels(self.proj_out(h), height, width) if self.linear else self.proj_out(_pixels(h, height, width))
        return x + h


class TransformerBlock(nn.Module):
    """Self-attention, attention to the context, feed-forward; each after a layer norm and added to its input."""

    def __init__(self, channels: int, heads: int, context: int | None) -> None:
        super().__init__()
        self.attn1 = Attention(channels, heads, channels)
        self.ff = FeedForward(channels)
        self.attn2 = Attention(channels, heads, context or channels)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(channels), nn.LayerNorm(channels), nn.LayerNorm(channels)

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        normed = self.norm1(h)
        h = h + self.attn1(normed, normed)
        normed = self.norm2(h)
        h = h + self.attn2(normed, normed if context is None else context)
        out: Tensor = h + self.ff(self.norm3(h))
        return out


class Attention(nn.Module):
    """Tokens (N, L, C) look at a context (N, M, width)."""

    def __init__(self, channels: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context, channels, bias=False)
        self.to_v = nn.Linear(context, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels), Marker())

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        q, k, v = (self._split(part) for part in (self.to_q(h), self.to_k(context), self.to_v(context)))
        out: Tensor = self.to_out(attend(q, k, v).transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """A gated layer of four times the width, and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(Gated(channels, 4 * channels), Marker(), nn.Linear(4 * channels, channels))

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.net(h)
        return out


class Gated(nn.Module):
    """GEGLU (Shazeer 2020): a linear map times GELU of another."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * out)

    def forward(self, h: Tensor) -> Tensor:
        value, gate = self.proj(h).chunk(2, dim=-1)
        out: Tensor = value * F.gelu(gate)
        return out


def _tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _pixels(h: Tensor, height: int, width: int) -> Tensor:
    return h.transpose(1, 2).reshape(h.shape[0], -1, height, width)
