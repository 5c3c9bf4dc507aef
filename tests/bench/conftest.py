"""A small analytic prior of 16 x 16 pixels and a folder of pictures, so that the tests of the grid take no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint.priors import analytic
from priorpaint.priors.base import Prior


@pytest.fixture
def prior() -> Prior:
    """Independent pixels with a mean of .1 and a standard deviation of .4."""
    return analytic.Gaussian(torch.full((256,), 0.1), 0.16 * torch.eye(256), (1, 16, 16))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three grey pictures, one of them with other proportions and one in a folder of its own."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (16, 16)), ("b.PNG", (40, 24)), ("more/c.jpg", (32, 32))):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / name)
    return folder
