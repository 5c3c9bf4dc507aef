"""What the embedded priors are worth on pictures that they have not seen, and whether their cards fit the files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from priorpaint import inpaint, load_prior
from priorpaint.lab.avatars import as_tensor, read, standard
from priorpaint.lab.certify.pictures.run import PictureReport
from priorpaint.priors.base import Prior
from priorpaint.priors.cfg import CFGPrior
from priorpaint.priors.latent import LatentPrior
from priorpaint.priors.loading import PRIORS, embedded_file

UNSEEN = 20_261_122
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def faces() -> tuple[Tensor, Tensor]:
    """64 avatars (64, 3, 32, 32) and their hair styles, the classes."""
    law = standard()
    parts = law.draw(64, seed=UNSEEN)
    index = [part.name for part in law.parts].index("hair")
    return as_tensor(law.compose(parts)), torch.from_numpy(parts[:, index].copy()).long()


def decibels(actual: Tensor, wanted: Tensor, peak: float) -> float:
    return float((10 * torch.log10(peak**2 / (actual - wanted).square().mean((1, 2, 3)))).mean())


def denoised(prior: Prior, x_0: Tensor, nsr: float, label: Tensor | None = None) -> Tensor:
    """E[x_0 | x_t] at a noise level sigma / alpha, for all rows together; every prior here has alpha = 1."""
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    conditional = prior if label is None else CFGPrior(prior, label=label)
    with torch.no_grad():
        return conditional.denoise(
            x_0 + nsr * noise, conditional.schedule.time_at(torch.tensor(nsr, dtype=torch.float64))
        )


def embedded_hash(name: str) -> str:
    return hashlib.sha256(Path(embedded_file(name)).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", PRIORS)
def test_cards_name_their_file(name: str) -> None:
    file = Path(embedded_file(name))
    card = file.with_suffix(".md").read_text(encoding="utf-8")
    assert embedded_hash(name) in card
    assert file.stat().st_size < 15e6 and f"`{file.name}`, {file.stat().st_size / 1e6:.1f} MB" in card


@pytest.mark.parametrize(("picture", "clean"), [("chelsea.png", 31.6), ("coffee.png", 32.1), ("astronaut.png", 32.4)])
def test_photos_denoises_photographs(picture: str, clean: float) -> None:
    """Noise of 25 of 255 on photographs that it has not learned: within 0.2 dB of what was measured."""
    pixels = np.asarray(Image.open(ROOT / "examples" / picture).convert("RGB"))[:256, :256]
    x_0 = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    actual = denoised(load_prior("photos", device="cpu"), x_0, 25 / 127.5).clamp(-1, 1)
    assert decibels(actual, x_0, 2) == pytest.approx(clean, abs=0.2)


def test_results_are_of_these_weights() -> None:
    """What docs/results says of the embedded priors was measured with the files that are here."""
    photos, avatars, fashion = map(embedded_hash, ("photos", "avatars", "fashion"))
    tables = json.loads((ROOT / "docs/results/photos.json").read_text(encoding="utf-8"))
    assert {tables[kind]["setup"]["prior_sha256"] for kind in ("denoising", "inpainting")} == {photos}
    assert json.loads((ROOT / "docs/results/avatars.json").read_text(encoding="utf-8"))["prior"] == avatars
    unconditional = json.loads((ROOT / "docs/results/fashion.json").read_text(encoding="utf-8"))
    assert unconditional["sets"]["fashion"]["weights"] == fashion
    for name, weights in (("avatars-avatars", avatars), ("fashion", fashion)):
        report = PictureReport.from_json((ROOT / f"docs/results/pictures-{name}.json").read_text(encoding="utf-8"))
        assert {cell.weights for cell in report.cells} == {weights}


def test_avatars_denoises_avatars_and_listens_to_the_hair(faces: tuple[Tensor, Tensor]) -> None:
    (x_0, hair), prior = faces, load_prior("avatars", device="cpu")
    assert decibels(denoised(prior, x_0, 50 / 127.5).clamp(-1, 1), x_0, 2) > 44
    told, untold, wrong = (denoised(prior, x_0, 3.0, label) for label in (hair, None, (hair + 5) % 16))
    assert decibels(told, x_0, 2) > decibels(untold, x_0, 2) > decibels(wrong, x_0, 2)


def test_samples_of_avatars_are_avatars() -> None:
    """94 % are (lab/weights/avatars.md); then of 64 fewer than 54 would be seen a few times in a thousand."""
    actual = read(load_prior("avatars", device="cpu").sample(64, seed=0).clamp(-1, 1))
    assert int(actual.valid.sum()) >= 54
    assert len({tuple(parts) for parts in actual.parts.tolist()}) == 64  # and no two the same


def test_avatars_latent_knows_larger_avatars(faces: tuple[Tensor, Tensor]) -> None:
    small, hair = faces
    x_0, prior = small.repeat_interleave(2, 2).repeat_interleave(2, 3), load_prior("avatars-latent", device="cpu")
    assert isinstance(prior, LatentPrior) and prior.image_shape == (3, 64, 64) and prior.classes == 16
    with torch.no_grad():
        z_0 = prior.encode(x_0)
        assert decibels(prior.decode(z_0).clamp(-1, 1), x_0, 2) > 40
    assert z_0.mean().abs() < 0.05 and abs(z_0.std() - 1) < 0.05
    # Latents are white but for what the prior knows; the best that can be done without it is z_t / (1 + sigma^2).
    assert decibels(denoised(prior, z_0, 1.0), z_0, 1) > 10 * torch.log10(torch.tensor(2.0)) + 5
    told, untold, wrong = (denoised(prior, z_0, 2.0, label) for label in (hair, None, (hair + 5) % 16))
    assert decibels(told, z_0, 1) > decibels(untold, z_0, 1) > decibels(wrong, z_0, 1)


@pytest.mark.parametrize(("method", "settings"), [("ddnm", {"steps": 20}), ("psld", {"steps": 30})])
def test_avatars_latent_completes_a_face(faces: tuple[Tensor, Tensor], method: str, settings: dict[str, int]) -> None:
    """The middle of a face comes back nearer to the truth than other faces are, and the rest bit by bit."""
    small, _ = faces
    pixels = ((small + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy().repeat(2, 1).repeat(2, 2)
    hole = np.zeros((64, 64), dtype=bool)
    hole[24:40, 16:48] = True
    result = inpaint(pixels[0], hole, "avatars-latent", method, 4, 0, **settings)
    actual = np.stack([np.asarray(image, dtype=float) for image in result.images])
    assert (actual[:, ~hole] == pixels[0][~hole]).all()
    others = np.square(pixels[1:, hole].astype(float) - pixels[0][hole]).mean()
    assert np.square(actual[:, hole] - pixels[0][hole]).mean() < 0.5 * others
