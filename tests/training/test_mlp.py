"""The dense network that predicts the picture itself: what it is, what it learns, what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from priorpaint import load_prior
from priorpaint.errors import CheckpointError, UsageError
from priorpaint.priors.native.mlp import MLP, MLPConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, read_weights, save_weights
from priorpaint.training.config import TrainConfig
from priorpaint.training.loop import train
from priorpaint.training.objectives import X0Objective
from priorpaint.training.optim import Optimizers
from tests.training.command import run

TINY = MLPConfig(8, width=24, hidden=(16, 12), cell=2, embedding=16, classes=2)


def shaken(config: MLPConfig) -> MLP:
    """A network whose output is not 0."""
    network, generator = MLP(config, seed=1), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    return network


@pytest.fixture(scope="module")
def coins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pixel art of 4 x 4 cells of 2 x 2 pixels, black but for the first and the last cell: both white, or none."""
    folder = tmp_path_factory.mktemp("coins")
    for index in range(64):
        pixels = np.zeros((8, 8), dtype=np.uint8)
        pixels[:2, :2] = pixels[-2:, -2:] = 255 * (index % 2)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_a_block_is_two_matrices_around_a_scaled_silu() -> None:
    block, x, told = shaken(TINY).blocks[0], torch.randn(3, 24), torch.randn(3, 16)
    scale, shift = block.film(told).chunk(2, dim=1)
    unit = x / x.square().mean(1, keepdim=True).sqrt()
    hidden = (unit @ block.first.weight.T + block.first.bias) * (1 + scale) + shift
    wanted = x + (hidden * hidden.sigmoid()) @ block.second.weight.T + block.second.bias
    torch.testing.assert_close(block(x, told), wanted, atol=1e-3, rtol=1e-3)  # the mean square is kept from 0 by 1e-4


def test_an_untrained_network_answers_zero_and_its_weights_follow_the_seed() -> None:
    one, same, other = MLP(TINY, seed=3), MLP(TINY, seed=3), MLP(TINY, seed=4)
    torch.testing.assert_close(one.state_dict(), same.state_dict(), atol=0, rtol=0)
    assert not torch.equal(one.head.weight, other.head.weight)
    assert not one(torch.randn(2, 3, 8, 8), torch.zeros(2)).any()


def test_cells_have_one_colour_and_only_their_means_count() -> None:
    network, level = shaken(TINY), torch.tensor([0.1, -0.3])
    x, more = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    means = torch.nn.functional.avg_pool2d(more, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    out = network(x, level)
    assert out.shape == x.shape and out.std() > 0.1
    torch.testing.assert_close(network(x + more - means, level), out, atol=1e-5, rtol=1e-5)
    assert torch.equal(out[:, :, ::2, ::2], out[:, :, 1::2, 1::2])
    assert not torch.allclose(network(x + means, level), out, atol=1e-2)
    alone = shaken(replace(TINY, cell=1))(x, level)
    assert not torch.equal(alone[:, :, ::2, ::2], alone[:, :, 1::2, 1::2])


def test_no_label_is_the_null_class() -> None:
    network, x, level = shaken(TINY), torch.randn(2, 3, 8, 8), torch.zeros(2)
    assert torch.equal(network(x, level), network(x, level, torch.tensor([2, 2])))
    assert not torch.allclose(network(x, level), network(x, level, torch.tensor([0, 1])), atol=1e-3)
    with pytest.raises(UsageError, match="no classes"):
        shaken(replace(TINY, classes=0))(x, level, torch.tensor([0, 1]))


def test_the_loss_is_that_of_edm_on_the_picture_itself() -> None:
    wanted = X0Objective(0.3, 1e-6, (0.01, 8.0), 0.5, balance=False)  # sigma = exp(0.3) for all
    x_0, sigma = torch.full((4, 1, 2, 2), 0.7), torch.tensor(0.3).exp()
    losses = wanted.losses(lambda x, c_noise: torch.full_like(x, 0.1), x_0, torch.Generator().manual_seed(0))
    expected = 0.6**2 * (sigma**2 + 0.25) / (0.5 * sigma) ** 2
    torch.testing.assert_close(losses.plain, expected.expand(4), atol=1e-4, rtol=1e-4)
    calls = []
    wanted.denoise(lambda x, c: calls.append((x, c)) or x, x_0, torch.full((4,), 2.0))  # type: ignore[func-returns-value]
    assert torch.equal(calls[0][0], x_0) and torch.allclose(4 * calls[0][1], torch.tensor(2.0).log())


def test_adam_takes_all_weights() -> None:
    network = MLP(TINY)
    optimizers = Optimizers(network, 0.01, 1e-3)
    assert [p for group in optimizers.muon.param_groups for p in group["params"]] == []
    taken = [id(p) for group in optimizers.adam.param_groups for p in group["params"]]
    assert sorted(taken) == sorted(id(p) for p in network.parameters())


@pytest.mark.parametrize(
    "change", [{"hidden": ()}, {"cell": 3}, {"cell": 0}, {"side": -8}, {"width": 0}, {"classes": -1}]
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(TINY, **change)


@pytest.mark.parametrize("shape", [(1, 3, 8, 16), (1, 1, 8, 8), (3, 8, 8)])
def test_other_pictures_are_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"\(N, 3, 8, 8\) only"):
        MLP(TINY)(torch.zeros(shape), torch.zeros(1))


def test_files_keep_the_network_and_are_priors(tmp_path: Path) -> None:
    path, network = tmp_path / "w.safetensors", shaken(TINY)
    metadata = WeightsMetadata(0.4, 0.02, 40.0, prediction="x0", size=(8, 8), class_names=("a", "b"))
    save_weights(path, network, metadata, torch.float32)
    weights = read_weights(path)
    stored, known = weights.denoiser, weights.metadata
    assert stored.config == TINY and known == metadata
    prior, x, sigma = load_prior(str(path)), torch.randn(2, 3, 8, 8), 0.7
    assert (prior.shape, prior.classes, prior.data_std) == ((3, 8, 8), 2, 0.4)
    time = prior.schedule.time_at(torch.tensor(sigma, dtype=torch.float64))
    level = torch.full((2,), sigma).log() / 4
    torch.testing.assert_close(prior.denoise(x, time), network(x, level), atol=1e-5, rtol=1e-4)
    labelled = network(x, level, torch.tensor([1, 1]))
    torch.testing.assert_close(prior.denoise(x, time, prior.condition(label=1)), labelled, atol=1e-5, rtol=1e-4)


def test_a_file_cannot_ask_for_a_larger_network_than_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, shaken(TINY), WeightsMetadata(prediction="x0", size=(8, 8)))
    with safe_open(str(path), framework="pt") as file:
        entry = json.loads(file.metadata()["priorpaint"])
    assert entry["architecture"] == "mlp" and entry["format"] == 2
    entry["config"]["width"] = 10**9
    save_file(load_file(path), path, {"priorpaint": json.dumps(entry)})
    with pytest.raises(CheckpointError, match="at least"):  # and not built first
        read_weights(path)


def test_runs_say_what_the_network_needs(coins: Path, tmp_path: Path) -> None:
    shape = MLPConfig(8, width=8, hidden=(8,))
    ask = partial(TrainConfig, (str(coins),), str(tmp_path), network=shape, crops=8)
    for words, settings in (
        ("--whole", {"size": 8}),
        ("made for 8x8", {"size": 16, "whole": True}),
        ("predicts the picture itself", {"size": 8, "whole": True, "loss": "simple"}),
    ):
        with pytest.raises(UsageError, match=words):
            ask(**settings)
    base = ["--data", str(coins), "--out", str(tmp_path / "x"), "--crops", "8", "--size", "8"]
    for words, more in (
        ("--network is unet or mlp", ["--network", "dit"]),
        ("are for convolutions", ["--network", "mlp", "--channels", "8"]),
        ("are for --network mlp", ["--cell", "2"]),
        ("--whole", ["--network", "mlp", "--parts"]),
        ("do not fill", ["--network", "mlp", "--cell", "3"]),
        ("are for denoisers", ["--network", "mlp", "--autoencoder"]),
    ):
        result = run(*base, *more)
        assert result.exit_code == 2 and words in result.output and "Traceback" not in result.output, result.output


def test_pictures_that_are_no_pixel_art_are_noticed(coins: Path, pictures: Path, tmp_path: Path) -> None:
    words = ["--out", str(tmp_path / "out"), "--crops", "8", "--batch", "8", "--network", "mlp", "--width", "8",
             "--dense", "8", "--no-resume"]  # fmt: skip
    fine = run(*words, "--data", str(coins), "--size", "8", "--cell", "2")
    mixed = run(*words, "--data", str(pictures), "--size", "8", "--cell", "2")
    whole = run(*words, "--data", str(pictures), "--size", "8")
    assert fine.exit_code == mixed.exit_code == whole.exit_code == 0, mixed.output
    said = [" ".join(each.stderr.split()) for each in (fine, mixed, whole)]
    assert ["10 of 10 pictures that were looked at have several colours in a cell of 2x2" in text for text in said] == [
        False, True, False,
    ]  # fmt: skip


def test_far_cells_agree(coins: Path, tmp_path: Path) -> None:
    """The eight bright or dark pixels are one coin: E[x_0 | x_t] = tanh(sum of the eight / sigma^2) there."""
    args = ["--data", str(coins), "--out", str(tmp_path), "--size", "8", "--grey", "--augment", "none",
            "--network", "mlp", "--cell", "2", "--width", "32", "--dense", "32,32", "--batch", "32",
            "--precision", "float32", "--threads", "1", "--p-mean", "0.7", "--p-std", "0.5"]  # fmt: skip
    for budget in ("20000", "40000"):  # the second run goes on with the network of the checkpoint
        result = run(*args, "--crops", budget)
        assert result.exit_code == 0, result.output
        args = [word for word in args if word not in ("--network", "mlp")]
    prior, generator, sigma = load_prior(str(tmp_path)), torch.Generator().manual_seed(0), 2.0
    assert prior.shape == (1, 8, 8) and prior.facts["architecture"] == "MLP"
    coin = torch.tensor([1.0, -1.0]).repeat(256)[:, None, None]
    x_t = torch.full((512, 1, 8, 8), -1.0)
    x_t[:, 0, :2, :2] = x_t[:, 0, -2:, -2:] = coin
    x_t += sigma * torch.randn(x_t.shape, generator=generator)
    first, last = x_t[:, 0, :2, :2].sum((1, 2)), x_t[:, 0, -2:, -2:].sum((1, 2))
    answer = prior.denoise(x_t, prior.schedule.time_at(torch.tensor(sigma, dtype=torch.float64)))
    exact = torch.tanh((first + last) / sigma**2)
    for near in (first, last):
        assert (torch.tanh(near / sigma**2) - exact).square().mean().sqrt() > 0.3
    for corner in (answer[:, 0, 0, 0], answer[:, 0, -1, -1]):
        assert (corner - exact).square().mean().sqrt() < 0.1
    assert (answer[:, 0, 2:6] + 1).abs().max() < 0.1


def test_a_run_goes_on(coins: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        (str(coins),), str(tmp_path / "whole"), network=replace(TINY, classes=0), size=8, whole=True, batch=4,
        hours=1.0, crops=32, augment="none", precision="float32",
    )  # fmt: skip
    train(config)
    part = replace(config, out=str(tmp_path / "parts"))
    train(replace(part, crops=16))
    train(part)
    one, other = (read_weights(tmp_path / name / "weights.safetensors").denoiser for name in ("whole", "parts"))
    assert one.config == other.config
    assert (tmp_path / "parts" / "samples.png").exists()
    assert not torch.equal(one.head.weight, MLP(replace(TINY, classes=0)).head.weight)
