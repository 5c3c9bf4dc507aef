"""Dense blocks: what the network gains for aligned pictures, and what it then refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from priorpaint import load_prior
from priorpaint.errors import CheckpointError, UsageError
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, read_weights, save_weights
from priorpaint.training.config import TrainConfig
from priorpaint.training.loop import train
from priorpaint.training.optim import Optimizers
from tests.training.command import run

PLAIN = UNetConfig((8, 8), (1, 1), embedding=16)
DENSE = replace(PLAIN, dense=(24, 12), side=16)


def shaken(config: UNetConfig) -> UNet:
    """A network whose output is not 0."""
    network, generator = UNet(config, seed=1), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return network


def reach(config: UNetConfig) -> Tensor:
    """(16, 16), whether the first pixel of the output feels a pixel of the input."""
    x = torch.zeros(1, 3, 16, 16, requires_grad=True)
    (slope,) = torch.autograd.grad(shaken(config)(x, torch.zeros(1))[0, :, 0, 0].sum(), x)
    return slope[0].abs().sum(0) > 0


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Black pictures of 16 x 16 pixels, whose first and last 2 x 2 pixels are all white in half of them."""
    folder = tmp_path_factory.mktemp("twins")
    for index in range(64):
        pixels = np.zeros((16, 16), dtype=np.uint8)
        pixels[:2, :2] = pixels[-2:, -2:] = 255 * (index % 2)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_every_place_feels_every_other() -> None:
    assert reach(DENSE).all()
    assert not reach(replace(PLAIN, channels=(8,), blocks=(1,))).all()


def test_a_dense_block_is_two_matrices() -> None:
    network = shaken(DENSE)
    block, x, told = network.dense[0], torch.randn(3, DENSE.joined), torch.randn(3, 16)
    first, second = block.first, block.second
    scale, shift = block.film(told).chunk(2, dim=1)
    hidden = ((x @ first.weight.flatten(1).T + first.bias) * (1 + scale) + shift).relu()
    wanted = x + hidden @ second.weight.flatten(1).T + second.bias
    torch.testing.assert_close(block(x[:, :, None, None], told).flatten(1), wanted)
    assert (first.weight.shape, second.weight.shape) == ((24, 128, 1, 1), (128, 24, 1, 1))


def test_other_weights_stay_as_they_are_and_dense_matrices_go_to_adam() -> None:
    network, plain = UNet(DENSE, seed=3), UNet(PLAIN, seed=3)
    shared = {key: value for key, value in network.state_dict().items() if not key.startswith("dense.")}
    assert shared.keys() == plain.state_dict().keys() and len(network.state_dict()) == len(shared) + 12
    optimizers = Optimizers(network, 0.01, 1e-3)
    muon, adam = (
        {id(p) for g in each.param_groups for p in g["params"]} for each in (optimizers.muon, optimizers.adam)
    )
    for block in network.dense:
        assert {id(block.first.weight), id(block.second.weight)} <= adam
    assert id(network.bottom[0].first.weight) in muon and not muon & adam
    assert sum(p.numel() for p in network.parameters()) >= DENSE.fewest_weights == PLAIN.fewest_weights + 2 * 128 * 36


@pytest.mark.parametrize("change", [{"dense": ()}, {"side": 0}, {"side": 18}, {"side": -16}, {"dense": (8, 0)}])
def test_shapes_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(DENSE, **change)


def test_other_sizes_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="16x16 only; got 16x32"):
        UNet(DENSE)(torch.zeros(1, 3, 16, 32), torch.zeros(1))


def test_files_keep_dense_blocks_and_say_so(tmp_path: Path) -> None:
    path, network = tmp_path / "w.safetensors", shaken(DENSE)
    save_weights(path, network, WeightsMetadata(size=(16, 16)), torch.float32)
    weights = read_weights(path)
    stored, metadata = weights.denoiser, weights.metadata
    assert stored.config == DENSE and metadata.size == (16, 16)
    x, level = torch.randn(2, 3, 16, 16), torch.tensor([0.1, -0.4])
    torch.testing.assert_close(stored(x, level), network(x, level))
    with safe_open(str(path), framework="pt") as file:
        entry = json.loads(file.metadata()["priorpaint"])
    entry["config"]["dense"] = [24, 10**9]
    save_file(load_file(path), path, {"priorpaint": json.dumps(entry)})
    with pytest.raises(CheckpointError, match="at least"):  # and not built first
        read_weights(path)


def test_runs_say_what_dense_blocks_need(twins: Path, tmp_path: Path) -> None:
    common = {"size": 16, "crops": 8, "batch": 4}
    with pytest.raises(UsageError, match="--whole"):
        TrainConfig((str(twins),), str(tmp_path), network=DENSE, **common)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="made for 16x16"):
        TrainConfig((str(twins),), str(tmp_path), network=DENSE, whole=True, size=32, crops=8)
    base = ["--data", str(twins), "--out", str(tmp_path / "x"), "--crops", "8", "--size", "16"]
    for words, more in (
        ("--whole", ["--dense", "8"]),
        ("for denoisers", ["--whole", "--dense", "8", "--autoencoder"]),
        ("--dense must be whole numbers", ["--whole", "--dense", "wide"]),
    ):
        result = run(*base, *more)
        assert result.exit_code == 2 and words in result.output and "Traceback" not in result.output


def test_far_pixels_agree(twins: Path, tmp_path: Path) -> None:
    """The eight bright or dark pixels are one coin: E[x_0 | x_t] = tanh(sum of the eight / sigma^2) there."""
    args = ["--data", str(twins), "--out", str(tmp_path), "--size", "16", "--whole", "--grey", "--augment", "none",
            "--channels", "8", "--blocks", "1", "--dense", "32", "--batch", "32", "--precision", "float32",
            "--threads", "1", "--p-mean", "0.7", "--p-std", "0.5", "--crops", "48000"]  # fmt: skip
    result = run(*args)
    assert result.exit_code == 0, result.output
    prior, generator, sigma = load_prior(str(tmp_path)), torch.Generator().manual_seed(0), 2.0
    assert prior.shape == (1, 16, 16)
    coin = torch.tensor([1.0, -1.0]).repeat(256)[:, None, None]
    x_t = torch.full((512, 1, 16, 16), -1.0)
    x_t[:, 0, :2, :2] = x_t[:, 0, -2:, -2:] = coin
    x_t += sigma * torch.randn(x_t.shape, generator=generator)
    first, last = x_t[:, 0, :2, :2].sum((1, 2)), x_t[:, 0, -2:, -2:].sum((1, 2))
    with torch.no_grad():
        answer = prior.denoise(x_t, prior.schedule.time_at(torch.tensor(sigma, dtype=torch.float64)))
    stored = answer[:, 0, -2:, -2:].mean((1, 2))
    exact, near = torch.tanh((first + last) / sigma**2), torch.tanh(last / sigma**2)
    assert (stored - exact).square().mean().sqrt() < 0.5 * (near - exact).square().mean().sqrt()


def test_a_dense_run_goes_on(twins: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        (str(twins),), str(tmp_path / "whole"), network=DENSE, size=16, whole=True, batch=4, hours=1.0, crops=32,
        augment="none", precision="float32",
    )  # fmt: skip
    train(config)
    part = replace(config, out=str(tmp_path / "parts"))
    train(replace(part, crops=16))
    train(part)
    one, other = (read_weights(tmp_path / name / "weights.safetensors").denoiser for name in ("whole", "parts"))
    assert one.config == other.config == DENSE
    assert not torch.equal(one.head.weight, UNet(DENSE).head.weight)
