"""Scores of answers whose worth is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks.photos.answers import Answer
from benchmarks.photos.scores import around, score, texture
from priorpaint.imaging import mask_generators as masks


class _NoLPIPS:
    """Stands for a distance that is the mean absolute difference."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean((1, 2, 3))


def _score(samples: Tensor, x: Tensor, hole: int | None = None) -> dict[str, float]:
    known = masks.box(x.shape[2], 16)
    inside = torch.where(torch.from_numpy(known), x, samples)
    return score(Answer(inside), x, known, _NoLPIPS(), hole)  # type: ignore[arg-type]


def test_a_single_answer_has_its_mean_absolute_error_as_crps() -> None:
    x = torch.zeros(1, 3, 64, 64)
    cell = _score(torch.full_like(x, 0.25), x)
    assert cell["crps"] == pytest.approx(0.25) and cell["energy"] == pytest.approx(0.25)
    assert cell["mean_psnr"] == cell["sample_psnr"] == pytest.approx(20 * math.log10(2 / 0.25))
    assert not cell.keys() & {"variance", "ranks", "cover50", "cover90"}


def test_samples_of_the_true_law_are_calibrated_and_have_the_crps_of_the_law() -> None:
    """Truth and samples N(0, s^2): CRPS s / sqrt(pi), variance = error, flat ranks. 768 values: 3 sigma below 12 %."""
    generator = torch.Generator().manual_seed(0)
    x, samples = (0.2 * torch.randn(n, 3, 64, 64, generator=generator) for n in (1, 32))
    cell = _score(samples, x)
    assert cell["crps"] == pytest.approx(0.2 / math.sqrt(math.pi), rel=0.1)
    assert cell["variance"] / cell["squared_error"] == pytest.approx(1, rel=0.16)
    assert cell["cover50"] == pytest.approx(0.5, abs=0.06) and cell["cover90"] == pytest.approx(0.9, abs=0.04)
    assert len(cell["ranks"]) == 33 and sum(cell["ranks"]) == pytest.approx(1)  # type: ignore[arg-type]


def test_samples_that_are_too_sure_lose_by_crps_and_say_so() -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise = (0.2 * torch.randn(n, 3, 64, 64, generator=generator) for n in (1, 32))
    right, sure = _score(noise, x), _score(0.1 * noise, x)
    assert sure["crps"] > right["crps"] and sure["sample_psnr"] > right["sample_psnr"]  # PSNR prefers it
    assert sure["variance"] / sure["squared_error"] < 0.02 and sure["cover90"] < 0.3


def test_lpips_around_looks_at_the_hole_and_32_pixels_around_it() -> None:
    x = torch.zeros(1, 3, 256, 256)
    cell = _score(torch.ones_like(x), x, hole=16)
    assert cell["lpips"] == pytest.approx(16**2 / 256**2) and cell["lpips_around"] == pytest.approx(16**2 / 80**2)
    assert around(torch.zeros(1, 3, 60, 64), 16).shape[2:] == (60, 64)  # as far as the picture goes


def test_an_exact_fill_is_not_infinitely_good() -> None:
    x = torch.zeros(1, 3, 64, 64)
    assert _score(x, x)["mean_psnr"] == 60


@pytest.mark.parametrize("frequency", [0.3, 1.0, 2.0])
def test_texture_of_a_wave_is_what_a_gaussian_filter_takes_away(frequency: float) -> None:
    """The filter scales a wave of frequency w by exp(-w^2 s^2 / 2); its standard deviation is a / sqrt(2)."""
    wave = 0.5 * torch.cos(frequency * torch.arange(400, dtype=torch.float64))
    x = wave.expand(1, 3, 64, -1)
    region = torch.zeros(1, 64, 400, dtype=torch.bool)
    region[..., 40:360] = True
    expected = 0.5 * (1 - math.exp(-((frequency * 2.0) ** 2) / 2)) * float(torch.std(wave[40:360], correction=0)) / 0.5
    assert float(texture(x, region)) == pytest.approx(expected, rel=0.002)


def test_texture_looks_at_the_hole_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(2, 3, 64, 64)
    x[1, :, :, :16] = torch.randn(3, 64, 16, generator=generator)
    region = torch.zeros(1, 64, 64, dtype=torch.bool)
    region[..., 40:] = True
    assert texture(x, region).tolist() == [0, 0]
