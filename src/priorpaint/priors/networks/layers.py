"""Layers that several published networks share."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

# What a number, or a list of numbers, of a published configuration can be.
Positive = Annotated[int, Field(ge=1, le=65536, strict=True)]
Truth = Annotated[bool, Field(strict=True)]
Positives = Annotated[tuple[Positive, ...], Field(strict=False, max_length=64)]


class GroupNorm(nn.GroupNorm):
    """Group norm that works in float32 whatever the network's type."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            return super().forward(x)
        weight, bias = self.weight.float(), self.bias.float()
        return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)


def upsample(channels: int, with_weights: bool) -> nn.Module:
    """Twice the resolution: repeated pixels, and a convolution where it has weights."""
    conv: nn.Module = nn.Conv2d(channels, channels, 3, padding=1) if with_weights else nn.Identity()
    return nn.Sequential(OrderedDict(repeat=nn.Upsample(scale_factor=2.0, mode="nearest"), conv=conv))


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """(cos, sin) of t times 10000^(-i / half), i = 0 ... half - 1: (N,) -> (N, channels), float32."""
    half = channels // 2
    decay = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * torch.exp(-math.log(10000) * decay)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, channels % 2))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention v softmax(k^T q / sqrt(width)) for (N, heads, width, pixels), over the pixels of k."""
    return F.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT
