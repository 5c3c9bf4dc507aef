"""Whether a prior denoises is known before it draws anything, and said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from priorpaint import DenoiserPrior, plan
from priorpaint.diffusion.schedules import EDM
from priorpaint.priors.loading import PRIORS, embedded_file, load_prior
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights
from priorpaint.priors.verify import check, doubts


def untrained(folder: Path, **training: Any) -> Path:
    """The weights file of a network as it was before its first step."""
    metadata = WeightsMetadata(training=training)
    save_weights(folder / "untrained.safetensors", UNet(UNetConfig((8,), (1,), embedding=8)), metadata)
    return folder / "untrained.safetensors"


@pytest.mark.parametrize("training", [{}, {"verify": None}, {"verify": {"denoises": "yes"}}, {"verify": [1]}])
def test_without_figures_a_prior_is_measured(tmp_path: Path, training: dict[str, Any]) -> None:
    prior = load_prior(untrained(tmp_path, **training), device="cpu")
    assert not check(prior).denoises
    before = prior.nfe.copy()
    (sentence,) = doubts(prior)
    assert prior.nfe == before
    assert "The prior untrained does not find noise" in sentence and "\n" not in sentence


@pytest.mark.parametrize("denoises", [True, False])
def test_stored_figures_are_believed(tmp_path: Path, denoises: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = load_prior(untrained(tmp_path, verify={"denoises": denoises, "levels": []}), device="cpu")
    monkeypatch.setattr(type(prior), "evaluate", lambda *_: pytest.fail("it was asked"))
    assert (doubts(prior) == ()) == denoises


@pytest.mark.parametrize("name", sorted(PRIORS))
def test_the_embedded_priors_pass_by_any_path(name: str, tmp_path: Path) -> None:
    shutil.copy(embedded_file(name), tmp_path / "copy.safetensors")
    copy = load_prior(tmp_path / "copy.safetensors", device="cpu")
    assert doubts(copy) == () == doubts(load_prior(name, device="cpu"))


@pytest.mark.parametrize(
    "answer",
    [
        lambda x_t, t: 0.96 * x_t,  # noise is left in
        lambda x_t, t: 0.0 * x_t,  # one colour
        lambda x_t, t: x_t - torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1)) * EDM().sigma(t),
    ],
)
def test_answers_that_no_trained_network_gives(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """The last is a network of the noise with random weights: it takes some noise away, but not that which is there."""
    prior = DenoiserPrior(lambda x_t, t: answer(x_t, t).to(x_t.dtype), EDM(), (3, 32, 32), data_std=0.5)
    assert not check(prior).denoises


def test_a_prior_of_one_picture_finds_the_noise_on_that_picture() -> None:
    """It answers with its picture, whatever it is shown."""
    known = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)
    prior = DenoiserPrior(lambda x_t, t: known.expand_as(x_t), EDM(), (3, 16, 16), data_std=0.5)
    assert check(prior, pictures=known.expand(2, -1, -1, -1)).denoises
    assert not check(prior, pictures=-known).denoises
    assert check(prior).denoises and check(prior).own


def test_a_plan_warns_in_one_line(tmp_path: Path) -> None:
    image, mask = Image.new("RGB", (16, 16), "grey"), Image.new("L", (16, 16), 0)
    mask.paste(255, (4, 4, 8, 8))
    ready = plan(image, mask, untrained(tmp_path), num_samples=1, device="cpu")
    assert [sentence for sentence in ready.warnings if "untrained" in sentence] == list(ready.warnings)
    assert ready.prior.nfe.forward == 0
    torch.manual_seed(0)
    assert not any("untrained" in sentence for sentence in plan(image, mask, num_samples=1, device="cpu").warnings)
