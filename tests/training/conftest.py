"""Synthetic pictures for the training tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def draw_pictures(folder: Path, count: int = 10, side: int = 40) -> Path:
    """Smooth coloured waves with edges: easy to denoise, unlike noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    for index in range(count):
        fx, fy, phase = rng.uniform(-2, 2), rng.uniform(-2, 2), rng.uniform(0, 6.3)
        wave = np.sin(6.3 * (fx * x + fy * y) + phase)[:, :, None] * rng.uniform(0.2, 1, 3)
        pixels = (127.5 + 100 * wave + 20 * (x > rng.random())[:, :, None]).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of ten 40x40 pictures."""
    return draw_pictures(tmp_path / "pictures")
