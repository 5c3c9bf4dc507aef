"""Class-conditional networks: shape, weights, training, use; other losses end to end; what a run says beforehand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint import inpaint, load_prior
from priorpaint.diffusion.schedules import VP
from priorpaint.errors import UsageError
from priorpaint.priors.cfg import CFGPrior
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, read_weights, save_weights
from priorpaint.training.config import TrainConfig
from priorpaint.training.ema import EMA, power_exponent
from priorpaint.training.loop import Report, train
from tests.training.command import run

TINY = UNetConfig((8, 8), (1, 1), embedding=16)


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Plain pictures: reds in one folder, blues in another."""
    rng = np.random.default_rng(0)
    for name, channel in (("blue", 2), ("red", 0)):
        folder = tmp_path / "colours" / name
        folder.mkdir(parents=True)
        for index in range(12):
            pixels = np.full((16, 16, 3), 60, dtype=np.uint8)
            pixels[..., channel] = rng.integers(150, 250)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "colours"


def config(data: Path, out: Path, **options: Any) -> TrainConfig:
    usual: dict[str, Any] = {"network": TINY, "size": 16, "batch": 16, "crops": 160, "precision": "float32"}
    return TrainConfig((str(data),), str(out), **(usual | options))


# -- network and weights file ------------------------------------------------------------------------------------------


def test_classes_change_nothing_but_what_they_add() -> None:
    plain, told = UNet(TINY, seed=3), UNet(replace(TINY, classes=4), seed=3)
    extra = {k for k in told.state_dict() if k not in plain.state_dict()}
    assert extra == {"classes.weight"} and told.classes.weight.shape == (5, 16)
    assert all(torch.equal(v, told.state_dict()[k]) for k, v in plain.state_dict().items())


def test_labels_reach_the_output_and_none_is_the_null_class() -> None:
    net = UNet(replace(TINY, classes=2), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(0, 0.1, generator=generator)
    x, c = torch.randn(3, 3, 8, 8, generator=generator), torch.zeros(3)
    out = net(x, c, torch.tensor([0, 1, 2]))
    for row, label in enumerate((0, 1)):
        alone = net(x[row : row + 1], c[:1], torch.tensor([label]))
        torch.testing.assert_close(out[row : row + 1], alone)
        assert not torch.allclose(alone, net(x[row : row + 1], c[:1]))
    torch.testing.assert_close(net(x, c)[2:], out[2:])
    with pytest.raises(UsageError, match="knows no classes"):
        UNet(TINY)(x, c, torch.tensor([0, 1, 2]))


def test_files_keep_what_is_new_and_old_files_stay_as_they_were(tmp_path: Path) -> None:
    net = UNet(replace(TINY, classes=2, learned_variance=True, in_channels=1), seed=0)
    metadata = WeightsMetadata(prediction="eps", betas="cosine", size=(16, 16), class_names=("blue", "red"))
    save_weights(tmp_path / "new", net, metadata)
    weights = read_weights(tmp_path / "new")
    loaded, stored = weights.denoiser, weights.metadata
    assert loaded.config == net.config and stored == metadata
    save_weights(tmp_path / "plain", UNet(TINY), WeightsMetadata())
    text = (tmp_path / "plain").read_bytes()[:2000]
    assert b'\\"format\\": 1' in text and b"classes" not in text and b"prediction" not in text
    assert b'\\"format\\": 2' in (tmp_path / "new").read_bytes()[:2000]


# -- training and use --------------------------------------------------------------------------------------------------


def test_class_folders_make_a_prior_that_follows_its_label(colours: Path, tmp_path: Path) -> None:
    reports: list[Report] = []
    train(config(colours, tmp_path / "prior", crops=4000, whole=True, sigma_max=20.0), reports.append)
    notes = " ".join(reports[0].notes)
    assert "24 pictures in 2 classes (blue, red)" in notes and "will take about" in notes and "are few" in notes
    prior: Any = load_prior(tmp_path / "prior", device="cpu")
    assert (prior.classes, prior.shape) == (2, (3, 16, 16)) and prior.facts["classes"] == ["blue", "red"]
    pictures = [CFGPrior(prior, label=k).sample(4, seed=0, steps=12).mean((0, 2, 3)) for k in (0, 1)]
    assert pictures[0][2] > pictures[0][0] + 0.2 and pictures[1][0] > pictures[1][2] + 0.2
    # A picture that is none of both, of another size, with a hole to be filled.
    hole = np.zeros((24, 20), dtype=bool)
    hole[4:20, 2:16] = True
    grey = np.full((24, 20, 3), 60, dtype=np.uint8)
    for label, channel in ((0, 2), (1, 0)):
        result = inpaint(grey, hole, prior, num_samples=1, label=label, guidance_scale=2.0, steps=8)
        fill = np.asarray(result.images[0])[hole].mean(0)
        assert result.info["call"]["label"] == label
        assert fill[channel] > fill[2 - channel]


def test_a_class_run_resumes_as_if_uninterrupted(colours: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(report: Report) -> None:
        if report.crops >= 48:
            raise Stop

    whole = tmp_path / "whole"
    train(config(colours, whole, crops=480, report_seconds=0.0))
    cut = config(colours, tmp_path / "cut", crops=480, report_seconds=0.0, checkpoint_seconds=0.0)
    with pytest.raises(Stop):
        train(cut, stop)
    train(cut)
    one, other = (torch.load(f / "checkpoint.pt", weights_only=True)["ema"] for f in (whole, tmp_path / "cut"))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["simple", "hybrid", "vlb"])
def test_ddpm_losses_make_priors_on_a_table(pictures: Path, tmp_path: Path, loss: str) -> None:
    network = replace(TINY, learned_variance=loss == "hybrid")
    options: dict[str, Any] = {"network": network, "loss": loss, "val": (str(pictures),), "ema_power": 0.1}
    train(config(pictures, tmp_path / "prior", crops=2400, **options))
    prior: Any = load_prior(tmp_path / "prior", device="cpu")
    assert isinstance(prior.schedule, VP) and prior.prediction == ("mean" if loss == "vlb" else "eps")
    psnr = prior.metadata.training["held_out_psnr_db"]
    # Noise of 50/255 alone is 14.2 dB; an untrained network leaves it all.
    assert psnr["50"] > 15 or loss == "vlb"  # which takes far longer to learn anything
    assert prior.sample(1, seed=0, size=(16, 16), steps=3).shape == (1, 3, 16, 16)
    x_t = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    out = prior.evaluate(x_t, 0.3)
    x_0, share = out.mean, out.variance_share
    assert torch.equal(x_0, prior.denoise(x_t, 0.3)) and (share is None) == (loss != "hybrid")
    if share is not None:
        assert share.shape == x_t.shape and 0 < float(share.mean()) < 1
    other = config(pictures, tmp_path / "prior", crops=2410, network=TINY)
    with pytest.raises(UsageError, match=f"trained with the loss '{loss}'"):
        train(other)


# -- the moving average ------------------------------------------------------------------------------------------------


def test_power_function_widths() -> None:
    # Karras et al. 2024, Section 3.1: gamma = 6.94 at 10 % and 16.97 at 5 %.
    assert power_exponent(0.10) == pytest.approx(6.94, abs=0.01)
    assert power_exponent(0.05) == pytest.approx(16.97, abs=0.01)
    for width in (0.0, -0.1, 0.3):
        with pytest.raises(UsageError, match="relative width"):
            power_exponent(width)


def test_the_power_function_average_weighs_updates_by_their_power() -> None:
    net = UNet(TINY, seed=0)
    average = EMA(net, power=0.2)
    count, gamma = 400, power_exponent(0.2)
    for step in range(count):
        with torch.no_grad():
            net.head.bias.fill_(float(step + 1))
        average.update(net, step)
    index = torch.arange(1, count + 1, dtype=torch.float64)
    weights = (index / count) ** gamma
    expected = float((weights / weights.sum() * index).sum())
    assert float(average.network.head.bias[0]) == pytest.approx(expected, rel=5e-3)


# -- the command line --------------------------------------------------------------------------------------------------


def test_the_command_finds_classes_and_goes_on_with_its_own_network(colours: Path, tmp_path: Path) -> None:
    words = ["--data", str(colours), "--out", str(tmp_path / "p"), "--size", "16", "--precision", "float32"]
    first = run(*words, "--channels", "8,8", "--blocks", "1,1", "--batch", "8", "--crops", "16")
    assert first.exit_code == 0, first.output
    assert "2 classes (blue, red)" in first.stderr and "a second on" in first.stderr and "--prior" in first.stderr
    second = run(*words, "--batch", "8", "--crops", "24")  # no --channels: those of the checkpoint
    assert second.exit_code == 0 and "Trained on 24 crops" in " ".join(second.stdout.split())
    without = run(*words, "--batch", "8", "--crops", "32", "--classes", "none")
    assert without.exit_code == 2 and "2 classes; ask for the same" in without.stderr


def test_grey_pictures_and_wrong_words(pictures: Path, tmp_path: Path) -> None:
    for path in pictures.glob("*.png"):
        Image.open(path).convert("L").save(path)
    tiny = ["--size", "16", "--channels", "8,8", "--blocks", "1,1", "--batch", "8", "--crops", "8"]
    words = ["--data", str(pictures), *tiny, "--precision", "float32"]
    assert "--grey trains" in run(*words, "--out", str(tmp_path / "a")).stderr
    assert run(*words, "--out", str(tmp_path / "b"), "--grey").exit_code == 0
    assert load_prior(tmp_path / "b", device="cpu").shape == (1, None, None)
    for wrong in (("--loss", "l2"), ("--classes", "yes"), ("--augment", "all"), ("--ema-power", "0.5")):
        result = run(*words, "--out", str(tmp_path / "c"), *wrong)
        assert result.exit_code == 2 and result.stderr.startswith("priorpaint: ") and result.stderr.count("\n") == 1
