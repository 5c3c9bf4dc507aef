"""The main job with a latent prior: any picture size, known pixels bit by bit, a memory limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from priorpaint import DenoiserPrior, inpaint
from priorpaint.diffusion.schedules import VP
from priorpaint.priors.latent import LatentPrior
from tests.latent_toy import Curved, taef2


def picture(height: int, width: int) -> tuple[Image.Image, np.ndarray[Any, Any]]:
    values = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), bool)
    mask[9:20, 7:25] = True
    return Image.fromarray(values), mask


def prior(autoencoder: Any) -> LatentPrior:
    return LatentPrior(
        DenoiserPrior(lambda x, t: 0.5 * x, VP(), (autoencoder.channels, None, None)), autoencoder, "half"
    )


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("ddnm", {"steps": 2}),
        ("psld", {"steps": 2}),
        ("vipaint", {"iterations": 2, "mc_samples": 2, "refine_steps": 2}),
    ],
)
def test_known_pixels_are_kept(method: str, settings: dict[str, Any]) -> None:
    image, mask = picture(37, 41)
    result = inpaint(image, mask, prior(Curved()), method, num_samples=2, max_memory="1GB", **settings)
    before = np.asarray(image)
    for completion in result.images:
        after = np.asarray(completion)
        assert completion.size == image.size and (after[~mask] == before[~mask]).all()
        assert (after[mask] != before[mask]).any()
    assert (np.asarray(result.images[0]) != np.asarray(result.images[1])).any()


def test_a_real_codec() -> None:
    image, mask = picture(64, 72)
    result = inpaint(image, mask, prior(taef2()), "psld", num_samples=1, steps=1)
    assert (np.asarray(result.images[0])[~mask] == np.asarray(image)[~mask]).all()
