"""The benchmark of fashion priors: the published network is wired right, and the page says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import fashion
from benchmarks.fashion_network import TableUNet
from priorpaint import load_prior
from priorpaint.diffusion.transitions import like
from priorpaint.errors import CheckpointError
from priorpaint.lab.fashion import pictures
from priorpaint.priors.base import Prior


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    return shared / "data" / "diffusion-weights" / fashion.WEIGHTS


@pytest.fixture(scope="module")
def published(weights: Path) -> Prior:
    return fashion.published(weights)


def noisy(shared: Path, prior: Prior, t: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Truth, noise and x_t of 32 test pictures."""
    x = pictures(shared / "data" / "fashion-mnist", "t10k", range(32))[0][:, :, 2:30, 2:30]
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    at = torch.full((1,), t, dtype=torch.float64)
    alpha, sigma = (like(value, x) for value in (prior.schedule.alpha(at), prior.schedule.sigma(at)))
    return x, eps, alpha * x + sigma * eps


@pytest.mark.parametrize("step", [60, 200, 400])
def test_the_network_finds_the_noise(weights: Path, published: Prior, shared: Path, step: int) -> None:
    """Its error is well below 1, the answer 0; with the row of the table at a far step it is worse."""
    _, eps, x_t = noisy(shared, published, (step + 1) / 1000)
    network = TableUNet.load(weights)

    def error(at: int) -> float:
        return float((network(x_t, torch.full((32,), at)) - eps).square().mean().sqrt())

    assert error(step) < 0.5
    assert error(step) < error((step + 500) % 1000)


@pytest.mark.parametrize("t", [0.1, 0.3])
def test_the_prior_takes_noisy_pictures_closer_to_the_truth(published: Prior, shared: Path, t: float) -> None:
    """The best answer that scales x_t alone has the error of a picture's own variance; denoising does far better."""
    x, _, x_t = noisy(shared, published, t)
    found = published.denoise(x_t, t)
    before = (x_t - x).square().mean((1, 2, 3)).sqrt()
    after = (found - x).square().mean((1, 2, 3)).sqrt()
    assert bool((after < before).all()) and float((after / before).mean()) < 0.6
    assert float(found.abs().max()) <= 1


def test_damaged_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, map_location="cpu", weights_only=True)
    del state["network.conv_out.bias"]
    torch.save(state, tmp_path / "less.pt")
    (tmp_path / "none.pt").write_bytes(b"nothing")
    for name, message in (("less.pt", "expected network"), ("none.pt", "expected network"), ("absent.pt", "no file")):
        with pytest.raises(CheckpointError, match=message):
            TableUNet.load(tmp_path / name)


def test_every_set_gets_the_same_border() -> None:
    x = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 4 - 2
    bordered = fashion.bordered(x)
    assert torch.equal(bordered[..., 2:30, 2:30], x[..., 2:30, 2:30].clamp(-1, 1))
    assert torch.equal(bordered, fashion.bordered(x[..., 2:30, 2:30]))
    edge = bordered.clone()
    edge[..., 2:30, 2:30] = -1
    assert bool((edge == -1).all())


def test_it_runs_end_to_end(weights: Path, shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench"
    words = ["--prior", "", "--num", "65", "--their-steps", "3", "--data", str(shared / "data"), "--out", str(out)]
    fashion.main(words)
    results = json.loads(out.with_suffix(".json").read_text())
    sets = results["sets"]
    assert list(sets) == ["real", "ddpm_fashion"] and sets["real"]["num"] == 65
    assert sets["real"]["valid"] > 0.8 and sets["real"]["frechet"] < sets["ddpm_fashion"]["frechet"]
    assert sum(sets["real"]["classes"].values()) == pytest.approx(1)
    page = out.with_suffix(".md").read_text()
    assert "3 deterministic steps" in page and f"| real | 65 | {sets['real']['frechet']:.2f} |" in page
    with Image.open(out.with_suffix(".png")) as picture:
        assert picture.size == (20 * 64, (4 * 32 + 4) * 2)


def test_guidance_makes_the_embedded_prior_do_as_it_is_told() -> None:
    rows = fashion.told(load_prior("fashion", device="cpu"), 30, 0, 10)
    assert [row["scale"] for row in rows] == [1, 2]
    # Of ten classes one in ten is right by chance; 0.1 + 5 standard errors is 0.37.
    assert rows[0]["agree"] > 0.37 and rows[1]["agree"] > 0.6
    assert rows[1]["valid"] > rows[0]["valid"]


def test_too_few_samples_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fashion.main(["--num", "64"])
    assert "at least 65 samples" in capsys.readouterr().err
