"""The classifier of noisy pictures of guided-diffusion (Dhariwal and Nichol 2021): the encoder of ADM, and a pooling.

Only the names of the weights and what is computed from them follow the published program.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .adm import ADM, ADMConfig
from .layers import GroupNorm, attend


class ADMClassifier(ADM):
    """Call with x (N, C, side, side) and t (N,) as the program numbers it; returns logits (N, K).

    Args:
        config: of the encoder; ``out_channels`` is K.
        side: of the pictures, in pixels.
    """

    def __init__(self, config: ADMConfig, side: int) -> None:
        super().__init__(config)
        wide, pixels = config.levels[-1], (side >> (len(config.levels) - 1)) ** 2
        pool = AttentionPool(wide, pixels, config.heads.of(wide), config.out_channels)
        self.output_blocks = nn.ModuleList()  # no decoder
        self.out = nn.Sequential(GroupNorm(32, wide), nn.SiLU(), pool)


class AttentionPool(nn.Module):
    """Attention of the mean of all pixels, and of the pixels, to each other; what comes out for the mean (CLIP)."""

    def __init__(self, channels: int, pixels: int, heads: int, out: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(channels, pixels + 1))
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        tokens = torch.cat([flat.mean(2, keepdim=True), flat], dim=2) + self.positional_embedding
        rows, channels, length = tokens.shape
        parts = self.qkv_proj(tokens).reshape(rows, 3, self.heads, channels // self.heads, length).unbind(1)
        out: Tensor = self.c_proj(attend(*parts).reshape(rows, channels, length)[:, :, :1])
        return out[:, :, 0]
