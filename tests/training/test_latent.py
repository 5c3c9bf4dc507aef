"""An autoencoder, and then the denoiser of its latents: a latent prior, made by the same loop as any other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint import inpaint, load_prior
from priorpaint.errors import UsageError
from priorpaint.priors.cfg import CFGPrior
from priorpaint.priors.latent import LatentPrior
from priorpaint.priors.native.autoencoder import AutoencoderConfig, ConvAutoencoder
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import read_weights
from priorpaint.training.config import TrainConfig, noise_levels
from priorpaint.training.data import Pictures, to_float
from priorpaint.training.loop import Report, train
from priorpaint.training.objectives import objective
from priorpaint.training.optim import Optimizers
from priorpaint.training.tasks import LatentDenoising, load_autoencoder
from tests.training.command import run

CODEC = AutoencoderConfig(4, 6, (16, 24), (1, 1))
TINY = UNetConfig((24,), (1,), embedding=16, in_channels=6)


def codec_run(data: Path, out: Path, crops: int, **options: Any) -> TrainConfig:
    usual: dict[str, Any] = {"network": CODEC, "loss": "reconstruction", "size": 16, "batch": 8, "precision": "float32"}
    return TrainConfig((str(data),), str(out), crops=crops, **(usual | options))


def latent_run(data: Path, autoencoder: Path, out: Path, crops: int, **options: Any) -> TrainConfig:
    usual: dict[str, Any] = {
        "network": TINY,
        "latent": str(autoencoder),
        "size": 16,
        "batch": 8,
        "precision": "float32",
    }
    noise = noise_levels(whole=False, latent=True)
    return TrainConfig((str(data),), str(out), crops=crops, **(noise | usual | options))


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures of 32x32 pixels, half of them in red, half in blue, in folders of these names."""
    folder = tmp_path_factory.mktemp("waves")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] / 32
    for name, channel in (("blue", 2), ("red", 0)):
        (folder / name).mkdir()
        for index in range(10):
            fx, fy, phase = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0, 6.3)
            pixels = np.full((32, 32, 3), 60, dtype=np.uint8)
            pixels[..., channel] = 150 + 90 * np.sin(6.3 * (fx * x + fy * y) + phase)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def autoencoder(waves: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained autoencoder."""
    out = tmp_path_factory.mktemp("ae")
    train(codec_run(waves, out, 1600, val=(str(waves),)))
    return out


def state(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return loaded


# -- the autoencoder ---------------------------------------------------------------------------------------------------


def test_an_autoencoder_learns_and_its_latents_are_standard(waves: Path, autoencoder: Path) -> None:
    lines = [json.loads(line) for line in (autoencoder / "log.jsonl").read_text().splitlines()]
    # The pictures' mean colour alone has about 10 dB.
    assert lines[-1]["crops"] == 1600 and lines[-1]["psnr"]["reconstruction"] > 20
    with Image.open(autoencoder / "samples.png") as sheet:
        assert sheet.size == (6 * 34 - 2, 4 * 34 - 2)
    held = read_weights(autoencoder / "weights.safetensors")
    assert held.autoencoder is not None and held.autoencoder.config == CODEC
    facts = held.metadata.training
    assert facts["latent_noise"] == 0.1 and facts["loss"] == "reconstruction" and "p_mean" not in facts
    assert facts["held_out_psnr_db"]["reconstruction"] == pytest.approx(lines[-1]["psnr"]["reconstruction"], abs=1e-3)
    crops = to_float(Pictures([waves], 16).batch(3, 256, seed=5)[0])
    with torch.no_grad():
        latents = held.autoencoder.encode(crops)
        back = held.autoencoder.decode(latents + 0.1 * torch.randn(latents.shape, generator=_seeded(0)))
    # 256 other crops of the same 20 pictures than the 512 that the numbers are from.
    assert float(latents.mean((0, 2, 3)).abs().max()) < 0.2
    assert 0.8 < float(latents.std((0, 2, 3)).min()) and float(latents.std((0, 2, 3)).max()) < 1.2
    assert float((back - crops).square().mean()) < 4 * 10**-1.8  # 18 dB with noise on the latents


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class _Stop(Exception):
    pass


def _stop(report: Report) -> None:
    if report.crops >= 24:
        raise _Stop


def test_both_runs_resume_bit_by_bit(waves: Path, autoencoder: Path, tmp_path: Path) -> None:
    for make in (
        lambda name, **more: codec_run(waves, tmp_path / f"ae-{name}", 80, **more),
        lambda name, **more: latent_run(waves, autoencoder, tmp_path / f"latent-{name}", 80, **more),
    ):
        whole, cut = make("whole", report_seconds=0.0), make("cut", report_seconds=0.0, checkpoint_seconds=0.0)
        train(whole)
        with pytest.raises(_Stop):
            train(cut, _stop)
        assert 0 < state(cut.folder)["crops"] < 80
        train(cut)
        for part in ("network", "ema"):
            one, other = state(whole.folder)[part], state(cut.folder)[part]
            assert one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def test_what_does_not_belong_together_is_refused(waves: Path, autoencoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "prior"
    train(latent_run(waves, autoencoder, out, 8))
    train(codec_run(waves, tmp_path / "other", 8))
    train(
        replace(latent_run(waves, autoencoder, tmp_path / "pixels", 8), latent=None, network=UNetConfig((8, 8), (1, 1)))
    )
    cases = {
        "trained on latents of the autoencoder .* not on latents": latent_run(waves, tmp_path / "other", out, 16),
        "and not on pictures": replace(latent_run(waves, autoencoder, out, 16), latent=None, network=TINY_PICTURES),
        "trained with the loss 'edm'": codec_run(waves, out, 16),
        "holds a network with factor 4, 6 latent channels": codec_run(
            waves, autoencoder, 1608, network=replace(CODEC, latent_channels=7)
        ),
        "holds no autoencoder": latent_run(waves, tmp_path / "pixels", tmp_path / "new", 8),
        "give it in_channels=6": latent_run(waves, autoencoder, tmp_path / "new", 8, network=UNetConfig((8,), (1,))),
        "size must be a multiple of 8 pixels": latent_run(waves, autoencoder, tmp_path / "new", 8, size=20),
        "holds no such network, and this run": latent_run(
            waves, autoencoder, tmp_path / "new", 8, init=str(autoencoder / "weights.safetensors")
        ),
    }
    for words, wrong in cases.items():
        with pytest.raises(UsageError, match=words):
            train(wrong)
    for options in ({"loss": "edm"}, {"latent": str(autoencoder)}, {"latent_noise": -1.0}):
        with pytest.raises(UsageError):
            codec_run(waves, out, 8, **options)
    with pytest.raises(UsageError, match="'hybrid' ends in the likelihood of 8-bit pixels"):
        latent_run(waves, autoencoder, out, 8, loss="hybrid", network=replace(TINY, learned_variance=True))
    with pytest.raises(UsageError, match="'vlb' ends in the likelihood of 8-bit pixels"):
        latent_run(waves, autoencoder, out, 8, loss="vlb")


TINY_PICTURES = replace(TINY, in_channels=3)


def test_an_autoencoder_starts_from_another(waves: Path, autoencoder: Path, tmp_path: Path) -> None:
    weights = autoencoder / "weights.safetensors"
    train(codec_run(waves, tmp_path / "more", 8, init=str(weights), lr=1e-9, adam_lr=1e-9, ema=0.0))
    before, after = (read_weights(f / "weights.safetensors").autoencoder for f in (autoencoder, tmp_path / "more"))
    assert before is not None and after is not None
    key = "decoder.0.weight"
    torch.testing.assert_close(before.state_dict()[key], after.state_dict()[key], atol=1e-3, rtol=1e-2)


def test_every_weight_of_an_autoencoder_has_one_optimizer() -> None:
    network = ConvAutoencoder(CODEC)
    optimizers = Optimizers(network, 0.02, 1e-3)
    muon = [id(p) for g in optimizers.muon.param_groups for p in g["params"]]
    adam = [id(p) for g in optimizers.adam.param_groups for p in g["params"]]
    assert sorted(muon + adam) == sorted(id(p) for p in network.parameters())
    assert id(network.encoder[1].first.weight) in muon
    assert all(id(layer.weight) in adam for layer in network.ends)


# -- the latent prior --------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_latents(waves: Path, autoencoder: Path, tmp_path: Path) -> None:
    config = latent_run(waves, autoencoder, tmp_path, 8)
    held = load_autoencoder(autoencoder)
    task, network = LatentDenoising(config, held), UNet(TINY, seed=1)
    with torch.no_grad():
        network.tail.weight.normal_(0, 0.1, generator=_seeded(0))
    pixels = Pictures([waves], 16).batch(0, 4, seed=0)[0]
    crops = to_float(pixels)
    losses = task.losses(network, task.learned(pixels), torch.zeros(4, dtype=torch.int64), 7)
    expected = objective(config).losses(network, held.network.encode(crops), _seeded(7))
    torch.testing.assert_close(losses.plain, expected.plain)
    losses.weighed.mean().backward()
    assert all(weight.grad is None for weight in held.network.parameters())


def test_pictures_that_are_never_cropped_are_encoded_once(waves: Path, autoencoder: Path, tmp_path: Path) -> None:
    """Batches of `Encoded` are the latents of the batches of `Pictures`; a crop or a mirror image is encoded anew."""
    held = load_autoencoder(autoencoder)
    task = LatentDenoising(latent_run(waves, autoencoder, tmp_path, 8), held)
    whole = Pictures([waves], 32, classes="auto", augment="none", whole=True)
    source = task.source(whole, torch.device("cpu"))
    for index in (0, 5):
        codes, labels = source.batch(index, 7, seed=3)
        pixels, expected = whole.batch(index, 7, seed=3)
        torch.testing.assert_close(task.learned(codes), task.learned(pixels), atol=1e-5, rtol=1e-4)
        assert labels.tolist() == expected.tolist()
    for other in (Pictures([waves], 32, augment="flip", whole=True), Pictures([waves], 16, augment="none")):
        assert task.source(other, torch.device("cpu")) is other


def test_a_latent_prior_end_to_end(waves: Path, autoencoder: Path, tmp_path: Path) -> None:
    """Trained, its autoencoder's folder gone: one file that knows classes, samples and inpaints."""
    ae, out = tmp_path / "ae", tmp_path / "prior"
    shutil.copytree(autoencoder, ae)
    config = latent_run(waves, ae, out, 4000, val=(str(waves),), batch=16, whole=True, size=32)
    reports: list[Report] = []
    train(config, reports.append)
    shutil.rmtree(ae)
    assert "2 classes (blue, red)" in " ".join(reports[0].notes)
    gain = json.loads((out / "log.jsonl").read_text().splitlines()[-1])["psnr"]
    # The best linear denoiser of white latents has 10 log10(1 + 1 / sigma^2) dB; these are far from white.
    assert set(gain) == {"0.25", "0.5", "1.0", "2.0", "4.0"} and gain["1.0"] > 10 * np.log10(2) + 1
    assert reports[-1].loss < 0.8
    with Image.open(out / "samples.png") as sheet:
        assert sheet.size == (6 * 34 - 2, 9 * 34 - 2)
    prior: Any = load_prior(out, device="cpu")
    assert isinstance(prior, LatentPrior) and prior.shape == (6, 8, 8) and prior.image_shape == (3, 32, 32)
    assert prior.classes == 2 and prior.facts["classes"] == ["blue", "red"]
    assert prior.facts["training"]["autoencoder_sha256"] and prior.facts["autoencoder_training"]["crops"] == 1600
    stored = read_weights(autoencoder / "weights.safetensors").autoencoder
    assert stored is not None
    assert all(torch.equal(v, stored.state_dict()[k]) for k, v in prior.autoencoder.state_dict().items())
    for label, channel in ((0, 2), (1, 0)):
        mean = CFGPrior(prior, label=label).sample(4, seed=0, steps=12).mean((0, 2, 3))
        assert mean[channel] > mean[2 - channel] + 0.05
    with Image.open(waves / "red" / "0.png") as file:
        picture = np.asarray(file)
    hole = np.zeros((32, 32), dtype=bool)
    hole[8:27, 5:22] = True
    for method in (None, "psld"):
        result = inpaint(picture, hole, prior, method, num_samples=2, steps=6)
        for completion in result.images:
            assert np.array_equal(np.asarray(completion)[~hole], picture[~hole])
        assert not np.array_equal(np.asarray(result.images[0])[hole], picture[hole])
        assert result.info["prior"]["facts"]["autoencoder"] == "ConvAutoencoder"


# -- the command line --------------------------------------------------------------------------------------------------


def test_two_commands_make_a_latent_prior(waves: Path, tmp_path: Path) -> None:
    words = ["--data", waves, "--size", "16", "--batch", "8", "--precision", "float32", "--blocks", "1"]
    ae, out = tmp_path / "ae", tmp_path / "prior"
    first = run(*words, "--autoencoder", "--factor", "4", "--latent-channels", "5", "--channels", "8", "--crops", "16",
                "--out", ae)  # fmt: skip
    assert first.exit_code == 0, first.output
    assert f"--latent {ae}" in " ".join(first.stderr.split()) and "classes" not in first.stderr
    held = read_weights(ae / "weights.safetensors").autoencoder
    assert held is not None and held.config == AutoencoderConfig(4, 5, (8,), (1,))
    again = run(*words[:-2], "--autoencoder", "--crops", "24", "--out", ae)  # the shape of the checkpoint
    assert again.exit_code == 0 and "Trained on 24 crops" in " ".join(again.stdout.split()), again.output
    second = run(*words, "--latent", ae, "--channels", "8", "--crops", "16", "--out", out)
    assert second.exit_code == 0, second.output
    assert f"--prior {out}" in " ".join(second.stderr.split())
    prior: Any = load_prior(out, device="cpu")
    assert prior.image_shape == (3, None, None) and prior.image_multiple == 8 and prior.classes == 2
    assert (prior.data_std, prior.schedule.nsr_range) == (1.0, (0.02, 80.0))


def test_the_latents_of_whole_pictures_take_a_dense_network(waves: Path, autoencoder: Path, tmp_path: Path) -> None:
    words = [
        "--data",
        waves,
        "--size",
        "32",
        "--latent",
        autoencoder,
        "--network",
        "mlp",
        "--width",
        "16",
        "--dense",
        "8",
    ]
    result = run(*words, "--batch", "8", "--crops", "16", "--precision", "float32", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    prior: Any = load_prior(tmp_path, device="cpu")
    assert isinstance(prior, LatentPrior) and prior.shape == (6, 8, 8) and prior.image_shape == (3, 32, 32)
    assert (prior.facts["prediction"], prior.data_std, prior.classes) == ("x0", 1.0, 2)


def test_wrong_words(waves: Path, autoencoder: Path, tmp_path: Path) -> None:
    words = ["--data", waves, "--size", "16", "--crops", "8", "--out", tmp_path / "out"]
    cases = {
        "are for --autoencoder": ["--factor", "4"],
        "says whether pictures are grey": ["--latent", autoencoder, "--grey"],
        "not the latents of another one": ["--latent", autoencoder, "--autoencoder"],
        "There is no weights file": ["--latent", tmp_path / "nowhere"],
        "power of two": ["--autoencoder", "--factor", "6"],
        "size must be a multiple of 8 pixels": [
            "--latent",
            autoencoder,
            "--size",
            "20",
            "--channels",
            "8",
            "--blocks",
            "1",
        ],
        "'reconstruction', and no other": ["--loss", "reconstruction"],
    }
    for message, wrong in cases.items():
        result = run(*words, *wrong)
        assert result.exit_code in (1, 2) and message in result.stderr, result.output
        assert result.stderr.startswith("priorpaint: ") and result.stderr.count("\n") == 1
