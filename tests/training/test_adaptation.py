"""A prior that learns the known part of a picture: never the hole, always the same, and better at it than before."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from priorpaint import DenoiserPrior, Prior, load_prior, schedules
from priorpaint.errors import Cancelled, CancelToken, UsageError
from priorpaint.priors.native.autoencoder import AutoencoderConfig, ConvAutoencoder
from priorpaint.priors.native.mlp import MLP, MLPConfig
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, read_weights, save_weights
from priorpaint.training.adaptation import BATCH, FACTS, Learned, adapt, facts_in, save_adapted
from priorpaint.training.known import KnownCrops, KnownPicture
from priorpaint.training.objectives import (
    EDMObjective,
    HybridObjective,
    Objective,
    SimpleObjective,
    VLBObjective,
    X0Objective,
)
from tests.training.conftest import draw_pictures

CROPS = 3 * BATCH


@pytest.fixture
def prior(tmp_path: Path) -> Prior:
    """A network of two narrow levels, with an output that is not 0."""
    network = UNet(UNetConfig((8, 8), (1, 1), 8), seed=0)
    with torch.no_grad():
        network.tail.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    facts = {"augment": "photo", "crops": 8}
    save_weights(tmp_path / "tiny.safetensors", network, WeightsMetadata(training=facts))
    return load_prior(tmp_path / "tiny.safetensors")


@pytest.fixture
def picture(tmp_path: Path) -> Tensor:
    """(3, 80, 80) in [-1, 1]."""
    folder = draw_pictures(tmp_path / "drawn", count=1, side=80)
    values = torch.from_numpy(np.asarray(Image.open(next(folder.iterdir()))).copy())
    return values.permute(2, 0, 1).float() / 127.5 - 1


def holed(side: int = 80, hole: slice = slice(24, 56)) -> Tensor:
    known = torch.ones(side, side, dtype=torch.bool)
    known[hole, hole] = False
    return known


def weights(prior: Prior) -> list[Tensor]:
    return [weight.detach().clone() for weight in prior.parameters()]


def same(one: Prior, other: Prior) -> bool:
    return one.hash == other.hash and all(map(torch.equal, weights(one), weights(other)))


@pytest.mark.parametrize("inside", [torch.ones(()), torch.tensor(float("nan")), torch.tensor(1e6)])
def test_what_is_in_the_hole_makes_no_difference_to_any_bit(prior: Prior, picture: Tensor, inside: Tensor) -> None:
    known = holed()
    other = torch.where(known, picture, inside)
    assert same(adapt(prior, picture, known, crops=CROPS), adapt(prior, other, known, crops=CROPS))


def test_what_is_known_makes_one(prior: Prior, picture: Tensor) -> None:
    known = holed()
    changed = picture.clone()
    changed[:, 0, 0] = -changed[:, 0, 0]
    assert not same(adapt(prior, picture, known, crops=CROPS), adapt(prior, changed, known, crops=CROPS))


def test_the_same_call_gives_the_same_bytes_and_another_seed_others(
    prior: Prior, picture: Tensor, tmp_path: Path
) -> None:
    before, known = weights(prior), holed()
    files = [
        save_adapted(adapt(prior, picture, known, crops=CROPS, seed=seed), tmp_path / name)
        for name, seed in (("a", 0), ("b.safetensors", 0), ("c", 1))
    ]
    assert [file.name for file in files] == ["weights.safetensors", "b.safetensors", "weights.safetensors"]
    first, again, other = (file.read_bytes() for file in files)
    assert first == again != other
    assert all(map(torch.equal, before, weights(prior)))  # which is not changed


def test_an_adapted_prior_is_what_its_file_gives_back(prior: Prior, picture: Tensor, tmp_path: Path) -> None:
    own = adapt(prior, picture, holed(), crops=CROPS)
    file = save_adapted(own, tmp_path / "own")
    back = load_prior(tmp_path / "own")
    assert back.hash == own.hash == hashlib.sha256(file.read_bytes()).hexdigest()
    assert same(own, back)
    x_t, t = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5)
    assert torch.equal(own.denoise(x_t, t), back.denoise(x_t, t))
    facts = facts_in(back)
    assert facts is not None and facts == facts_in(own)
    assert facts["prior_sha256"] == prior.hash and facts["crops"] == CROPS and facts["seed"] == 0
    assert facts["known_sha256"] == [hashlib.sha256(np.packbits(holed().numpy()).tobytes()).hexdigest()]
    assert facts_in(prior) is None
    training = read_weights(file).metadata.training
    assert json.loads(json.dumps(training))[FACTS] == facts and training["verify"]["denoises"] in (True, False)


def test_the_known_part_is_learned(prior: Prior, picture: Tensor) -> None:
    heard: list[Learned] = []
    known = holed()
    own = adapt(prior, picture, known, crops=60 * BATCH, on_progress=heard.append)
    assert [one.crops for one in heard] == [BATCH * (i + 1) for i in range(60)]
    assert {one.total for one in heard} == {60 * BATCH}
    assert heard[1].seconds_left is None and heard[2].seconds_left is not None and heard[-1].seconds_left == 0
    assert float(np.mean([one.loss for one in heard[-10:]])) < 0.8 * float(np.mean([one.loss for one in heard[:10]]))

    def error(prior: Prior) -> float:
        noise = torch.randn(8, *picture.shape, generator=torch.Generator().manual_seed(3))
        t = prior.schedule.time_at(torch.tensor(0.5, dtype=torch.float64))
        out = prior.denoise(picture + 0.5 * noise, t)
        return float((out - picture).square()[..., known].mean())

    assert error(own) < 0.8 * error(prior)


def test_several_pictures_make_one_prior(prior: Prior, picture: Tensor) -> None:
    known = holed()
    both = adapt(prior, [picture, picture.flip(2)], [known, torch.ones_like(known)], crops=CROPS)
    facts = facts_in(both)
    assert facts is not None and len(facts["values_sha256"]) == 2
    assert not same(both, adapt(prior, picture, known, crops=CROPS))
    hidden = [picture, picture], [known, torch.zeros_like(known)]  # the second says nothing
    assert same(adapt(prior, *hidden, crops=CROPS), adapt(prior, picture, known, crops=CROPS))


def test_a_cancelled_adaptation_ends_after_its_update(prior: Prior, picture: Tensor) -> None:
    token, heard = CancelToken(), []

    def hear(learned: Learned) -> None:
        heard.append(learned)
        token.cancel()

    with pytest.raises(Cancelled):
        adapt(prior, picture, holed(), crops=CROPS, cancel=token, on_progress=hear)
    assert len(heard) == 1


def test_a_picture_smaller_than_a_crop_is_learned_in_smaller_crops(prior: Prior, picture: Tensor) -> None:
    small = picture[:, :37, :50]
    known = torch.ones(37, 50, dtype=torch.bool)
    known[:4, :4] = False
    assert not same(adapt(prior, small, known, crops=BATCH), prior)


def test_what_cannot_be_learned_is_refused_in_a_sentence(prior: Prior, picture: Tensor, tmp_path: Path) -> None:
    known = holed()
    few = torch.zeros_like(known)
    few[:32, :63] = True
    for values, mask, words in (
        (picture, few, "too small to learn from"),
        (picture[:, :3, :3], known[:3, :3], "too small to learn from"),
        (picture, torch.zeros_like(known), "too small to learn from"),
        (picture[:1], known, r"learns pictures \(3, H, W\)"),
        (picture, known[1:], r"learns pictures \(3, H, W\)"),
        ([picture, picture], [known], "one mask for each picture"),
        (picture.where(known, torch.tensor(float("nan"))), torch.ones_like(known), "not finite"),
    ):
        with pytest.raises(UsageError, match=words):
            adapt(prior, values, mask, crops=CROPS)  # type: ignore[arg-type]
    for numbers in ({"crops": 0}, {"crops": 10**9}, {"seed": -1}):
        with pytest.raises(UsageError, match="crops are from 1"):
            adapt(prior, picture, known, **numbers)


def test_priors_without_a_network_of_ours_are_refused(picture: Tensor, tmp_path: Path) -> None:
    function = DenoiserPrior(lambda x_t, t: x_t, schedules.EDM(), (3, None, None))
    with pytest.raises(UsageError, match="not in priorpaint's own format"):
        adapt(function, picture, holed())
    autoencoder = ConvAutoencoder(AutoencoderConfig(4, 4, (8,), (1,)), seed=0)
    network = UNet(UNetConfig((8,), (1,), 8, in_channels=4), seed=0)
    save_weights(tmp_path / "latent.safetensors", network, WeightsMetadata(), autoencoder=autoencoder)
    with pytest.raises(UsageError, match="one of latents"):
        adapt(load_prior(tmp_path / "latent.safetensors"), picture, holed())


@pytest.mark.parametrize(
    "metadata",
    [
        WeightsMetadata(prediction="eps", betas="linear"),
        WeightsMetadata(prediction="mean", betas="cosine"),
        WeightsMetadata(size=(32, 32)),
    ],
)
def test_every_kind_of_prior_of_ours_learns(metadata: WeightsMetadata, picture: Tensor, tmp_path: Path) -> None:
    network = UNet(UNetConfig((8, 8), (1, 1), 8, classes=2), seed=0)
    save_weights(tmp_path / "one.safetensors", network, metadata)
    own = adapt(load_prior(tmp_path / "one.safetensors"), picture, holed(), crops=CROPS)
    assert own.metadata.prediction == metadata.prediction and own.metadata.size == metadata.size
    assert torch.isfinite(own.denoise(torch.zeros(1, 3, 32, 32), 0.5)).all()


def test_dense_networks_and_learned_variances_learn(picture: Tensor, tmp_path: Path) -> None:
    dense = MLP(MLPConfig(8, width=16, hidden=(16,)), seed=0)
    save_weights(tmp_path / "mlp.safetensors", dense, WeightsMetadata(prediction="x0", size=(8, 8)))
    hybrid = UNet(UNetConfig((8, 8), (1, 1), 8, learned_variance=True), seed=0)
    save_weights(tmp_path / "hybrid.safetensors", hybrid, WeightsMetadata(prediction="eps"))
    for name in ("mlp", "hybrid"):
        base = load_prior(tmp_path / f"{name}.safetensors")
        assert not same(adapt(base, picture, holed(), crops=CROPS), base)


def test_crops_are_of_known_pixels_and_what_is_smooth_between_them(picture: Tensor) -> None:
    known = holed()
    crops = KnownCrops([KnownPicture.of(picture, known)], 64, (1.0, 0.9), "none")
    values, weight = crops.batch(0, 64, seed=0)
    assert values.shape == (64, 3, 64, 64) and weight.shape == (64, 1, 64, 64)
    assert set(weight.unique().tolist()) == {0.0, 1.0} and float(weight.mean((1, 2, 3)).min()) >= 0.5
    whole = [(v, w) for v, w in zip(values, weight, strict=True) if _is_of(v, w, picture, known)]
    assert len(whole) > 10  # of scale 1, the others being of the smaller view
    again = crops.batch(0, 64, seed=0)
    assert torch.equal(values, again[0]) and torch.equal(weight, again[1])


def test_every_fourth_batch_has_wide_crops_of_pictures_that_are_large_enough() -> None:
    large, small = torch.zeros(1, 150, 150), torch.zeros(1, 70, 70)
    pictures = [KnownPicture.of(one, torch.ones(one.shape[1:], dtype=torch.bool)) for one in (large, small)]
    crops = KnownCrops(pictures, 64, (1.0, 0.5), "photo", wide=128)
    shapes = [tuple(crops.batch(index, 16, seed=0)[0].shape) for index in range(8)]
    assert shapes == 2 * [*3 * [(16, 1, 64, 64)], (4, 1, 128, 128)]


def test_of_a_large_picture_the_part_around_the_hole_is_learned() -> None:
    known = torch.ones(300, 400, dtype=torch.bool)
    known[40:60, 350:390] = False
    picture = KnownPicture.of(torch.arange(120_000.0).view(1, 300, 400), known)
    part = picture.around_the_hole(10_000)
    height, width = part.known.shape
    assert height * width <= 10_000 < (height + 2) * (width + 1)  # a pixel more on three sides, the right being full
    assert int((~part.known).sum()) == 20 * 40
    where = part.values[0] > 0
    assert torch.equal(part.values[0][where], picture.values[0][torch.isin(picture.values[0], part.values[0][where])])
    assert picture.around_the_hole(120_000) is picture and picture.around_the_hole(799) is picture
    whole = KnownPicture.of(picture.values, torch.ones_like(known))
    assert whole.around_the_hole(10_000) is whole


def test_pictures_that_do_not_fit_into_memory_are_refused(
    prior: Prior, picture: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("priorpaint.training.adaptation.machine_memory", lambda: 2 * 80 * 80 * 35 - 1)
    with pytest.raises(UsageError, match="more than half of this machine's memory"):
        adapt(prior, picture, holed(), crops=CROPS)


def _is_of(values: Tensor, weight: Tensor, picture: Tensor, known: Tensor) -> bool:
    """Whether the known pixels of a crop are those of the picture somewhere."""
    where = weight[0] > 0
    corners = [(top, left) for top in range(17) for left in range(17)]
    return any(
        torch.equal(known[top : top + 64, left : left + 64], where)
        and torch.equal(picture[:, top : top + 64, left : left + 64][:, where], values[:, where])
        for top, left in corners
    )


def test_a_known_frame_too_narrow_for_any_crop_is_learned(prior: Prior, picture: Tensor) -> None:
    known = holed(hole=slice(20, 60))  # no 64x64 crop is known as a whole
    _, weight = KnownCrops([KnownPicture.of(picture, known)], 64, (1.0,), "photo").batch(0, 8, seed=0)
    assert bool((weight.mean((1, 2, 3)) < 1).all())
    assert not same(adapt(prior, picture, known, crops=BATCH), prior)


@pytest.mark.parametrize(
    ("objective", "outputs"),
    [
        (EDMObjective(-1.2, 1.3, (0.01, 8.0), 0.5, balance=False), 1),
        (X0Objective(-1.2, 1.3, (0.01, 8.0), 0.5, balance=False), 1),
        (SimpleObjective(), 1),
        (HybridObjective(), 2),
        (VLBObjective(), 1),
    ],
)
def test_the_loss_of_weighed_pixels_is_that_of_these_pixels_alone(objective: Objective, outputs: int) -> None:
    x_0 = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    weight = torch.zeros(4, 1, 8, 8)
    weight[..., :4, :] = 1

    def network(x: Tensor, c_noise: Tensor) -> Tensor:
        return torch.cat([0.1 * x] * outputs, dim=1)

    def losses(x_0: Tensor, weight: Tensor | None) -> Tensor:
        return objective.losses(network, x_0, torch.Generator().manual_seed(1), weight).plain

    half, all_pixels = losses(x_0, weight), losses(x_0, torch.ones_like(weight))
    torch.testing.assert_close(all_pixels, losses(x_0, None))
    torch.testing.assert_close((half + losses(x_0, 1 - weight)) / 2, all_pixels)
    hidden = torch.where(weight > 0, x_0, torch.full_like(x_0, 0.4))
    assert torch.equal(losses(hidden, weight), half)
