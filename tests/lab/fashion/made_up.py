"""Pictures that stand in for Fashion-MNIST: each class is a bright bar at a place of its own."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def made_up(num: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(num, 1, 32, 32) in [-1, 1] and labels 0 to 9 in turn; bars of random brightness under a little noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % 10
    x = torch.full((num, 1, 32, 32), -1.0)
    for row, label in enumerate(labels.tolist()):
        bar = slice(6 + 4 * (label % 5), 10 + 4 * (label % 5))
        area = (row, 0, bar, slice(4, 28)) if label < 5 else (row, 0, slice(4, 28), bar)
        x[area] = 0.4 + 0.6 * float(torch.rand((), generator=generator))
    return (x + 0.05 * torch.randn(x.shape, generator=generator)).clamp(-1, 1), labels


def write_idx(path: Path, values: np.ndarray) -> None:
    """An idx file of bytes, packed where the name ends in .gz."""
    content = b"\x00\x00\x08" + bytes([values.ndim]) + np.array(values.shape, dtype=">u4").tobytes()
    content += values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
