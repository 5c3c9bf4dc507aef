"""The benchmark measures what it says: FFDNet is wired right, known pixels stay, numbers are means over pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import baselines, photos, photos_report
from priorpaint.diffusion.schedules import VE, VP
from priorpaint.imaging import mask_generators as masks
from priorpaint.metrics import psnr
from priorpaint.priors.base import DenoiserPrior


@pytest.fixture
def photo(shared: Path) -> photos.Photo:
    return photos.read_photos(shared / "data" / "photos-cid22" / "val", 1)[0].crop(128)


@pytest.fixture
def ffdnet(shared: Path) -> baselines.FFDNet:
    return baselines.FFDNet.load(shared / "data" / "diffusion-weights" / "ffdnet_color.pth")


def test_ffdnet_denoises_by_as_much_as_it_should(photo: photos.Photo, ffdnet: baselines.FFDNet) -> None:
    """sigma = 25/255 is 20.17 dB; FFDNet's paper gives 31-32 dB, and a wrong fold or plane loses more than 10 dB."""
    noise = torch.randn(photo.x.shape, generator=torch.Generator().manual_seed(0))
    sigma = 25 / 127.5
    assert float(psnr(photo.x + sigma * noise, photo.x)) == pytest.approx(20 * np.log10(255 / 25), abs=0.15)
    assert photos.clamped_psnr(photos.ffdnet_denoise(ffdnet, photo.x, sigma, noise), photo.x) > 30
    told_wrong = 2 * ffdnet((photo.x + sigma * noise + 1) / 2, 5 / 255) - 1
    assert photos.clamped_psnr(told_wrong, photo.x) < 25


def test_ffdnet_takes_odd_sizes(photo: photos.Photo, ffdnet: baselines.FFDNet) -> None:
    odd = photo.x[:, :, :63, :61]
    even = torch.nn.functional.pad(odd, (0, 1, 0, 1), mode="replicate")
    assert torch.equal(ffdnet(odd, 0.1), ffdnet(even, 0.1)[:, :, :63, :61])


@pytest.mark.parametrize("schedule", [VE(sigma_min=0.01, sigma_max=10.0), VP("linear")])
def test_prior_denoise_scales_for_any_schedule(schedule: VE | VP) -> None:
    """For x_0 ~ N(0, s^2) the denoiser is known: s^2 / (s^2 + sigma^2) times (x_0 + sigma eps), whatever alpha is."""
    variance = 0.3**2

    def wiener(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (value.view(-1, 1, 1, 1) for value in (schedule.alpha(t), schedule.sigma(t)))
        return (alpha * variance / (alpha**2 * variance + sigma**2)).to(x_t) * x_t

    prior = DenoiserPrior(wiener, schedule, (3, None, None))
    generator = torch.Generator().manual_seed(0)
    x, noise = 0.3 * torch.randn(1, 3, 8, 8, generator=generator), torch.randn(1, 3, 8, 8, generator=generator)
    found = photos.prior_denoise(prior, x, 0.5, noise)
    assert torch.allclose(found, variance / (variance + 0.25) * (x + 0.5 * noise), atol=1e-4)


@pytest.mark.parametrize("name", baselines.CLASSICAL)
def test_classical_methods_fill_a_flat_picture_and_keep_known_pixels(name: str) -> None:
    known = masks.holes(64, 0, side=(8, 16))
    flat = np.full((64, 64, 3), (200, 100, 50), dtype=np.uint8)
    filled = baselines.CLASSICAL[name](np.where(known[..., None], flat, 0).astype(np.uint8), known)
    assert np.abs(filled.astype(int) - flat).max() <= 4  # Telea adds up rounding errors from pixel to pixel
    assert np.array_equal(filled[known], flat[known])


def test_the_answer_of_a_classical_method_keeps_known_pixels() -> None:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    known = masks.holes(64, 0, side=(8, 16))
    answer = photos.classical_answer("opencv-telea", x, known)
    assert torch.equal(answer.mean[..., torch.from_numpy(known)], x[..., torch.from_numpy(known)])


def test_bytes_and_tensors_are_inverse() -> None:
    picture = np.arange(256 * 3, dtype=np.uint16).reshape(16, 16, 3).astype(np.uint8)
    assert np.array_equal(photos.to_bytes(photos.to_tensor(picture)[0]), picture)


def test_methods_are_parsed() -> None:
    method = photos.Method.parse("vipaint:levels=2,preset=official-imagenet,t_end=0.5")
    assert method.name == "vipaint" and method.settings == {"levels": 2, "preset": "official-imagenet", "t_end": 0.5}
    assert photos.Method.parse("dps").settings == {}


def test_aggregation_is_the_mean_over_pictures() -> None:
    cells = [{"picture": str(i), "mask": "box", "method": "a", "lpips": float(i)} for i in range(4)]
    (row,) = photos.aggregated(cells)
    assert row == {"mask": "box", "method": "a", "pictures": 4, "lpips": 1.5}


def test_baselines_run_end_to_end(shared: Path, tmp_path: Path) -> None:
    """The table in the file is the mean of its own cells, and the gain of the best classical method is 0."""
    stem = tmp_path / "photos"
    command = ["inpaint", "--baselines-only", "--pictures", "1", "--crop", "128", "--masks", "holes"]
    photos.main([*command, "--data", str(shared / "data"), "--out", str(stem), "--sheets", str(tmp_path / "sheets")])
    result = json.loads(stem.with_suffix(".json").read_text())["inpainting"]
    assert [row["method"] for row in result["rows"]] == list(baselines.CLASSICAL)
    assert all(row["mean_psnr"] == row["sample_psnr"] and row["mean_psnr"] > 10 for row in result["rows"])
    assert result["rows"] == photos.aggregated(result["each"])
    page = stem.with_suffix(".md").read_text()
    assert page.count("+0.00") == 1 and page == photos_report.markdown({"inpainting": result})
    assert len(list((tmp_path / "sheets").glob("*.png"))) == 1
