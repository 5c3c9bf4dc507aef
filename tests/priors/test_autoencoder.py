"""The autoencoder and its weights file, alone and with the denoiser of its latents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from priorpaint import load_prior
from priorpaint.errors import CheckpointError, UsageError
from priorpaint.priors.latent import LatentPrior
from priorpaint.priors.native.autoencoder import AutoencoderConfig, ConvAutoencoder
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import (
    WeightsMetadata,
    read_weights,
    save_autoencoder,
    save_weights,
)
from tests.priors.test_weights_file import rewrite

TINY = AutoencoderConfig(4, 5, (8, 12), (1, 1))
DENOISER = UNetConfig((8,), (1,), embedding=16, in_channels=5)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def autoencoder() -> ConvAutoencoder:
    autoencoder = ConvAutoencoder(TINY, seed=3)
    autoencoder.standardise([noise(8, 3, 16, 16)])
    return autoencoder


@pytest.fixture
def both(autoencoder: ConvAutoencoder, tmp_path: Path) -> Path:
    """A file with an autoencoder and a denoiser of its latents."""
    network = UNet(DENOISER, seed=0)
    with torch.no_grad():
        network.tail.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    metadata = WeightsMetadata(1.0, 0.02, 80.0, {"crops": 7}, autoencoder_training={"crops": 9})
    path = tmp_path / "both" / "weights.safetensors"
    save_weights(path, network, metadata, torch.float32, autoencoder=autoencoder)
    return path


# -- the network -------------------------------------------------------------------------------------------------------


def test_the_usual_one_is_small() -> None:
    autoencoder = ConvAutoencoder()
    count = sum(weight.numel() for weight in autoencoder.parameters())
    assert (autoencoder.factor, autoencoder.channels, autoencoder.image_channels) == (8, 8, 3)
    assert 1_400_000 < count < 1_700_000 and 0.9 * count < autoencoder.config.fewest_weights <= count
    assert autoencoder.encode(torch.zeros(2, 3, 64, 32)).shape == (2, 8, 8, 4)
    assert autoencoder.decode(torch.zeros(2, 8, 8, 4)).shape == (2, 3, 64, 32)


@pytest.mark.parametrize(
    ("factor", "channels", "cut"), [(2, (8,), 2), (2, (8, 8), 1), (4, (8, 8), 2), (16, (8, 8, 8), 4)]
)
def test_factors(factor: int, channels: tuple[int, ...], cut: int) -> None:
    autoencoder = ConvAutoencoder(AutoencoderConfig(factor, 3, channels, (1,) * len(channels), in_channels=1))
    assert autoencoder.config.cut == cut
    latent = autoencoder.encode(torch.zeros(1, 1, 32, 48))
    assert latent.shape == (1, 3, 32 // factor, 48 // factor) and autoencoder.decode(latent).shape == (1, 1, 32, 48)
    assert autoencoder.config.fewest_weights <= sum(weight.numel() for weight in autoencoder.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"factor": 6}, "power of two"),
        ({"factor": 1, "channels": (8,), "blocks": (1,)}, "power of two"),
        ({"factor": 2, "channels": (8, 8, 8), "blocks": (1, 1, 1)}, "at least 4 for 3 levels"),
        ({"blocks": (1,)}, "one of each per level"),
        ({"latent_channels": 0}, "must be positive"),
    ],
)
def test_shapes_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        AutoencoderConfig(**options)


def test_standardised_latents_have_mean_0_and_deviation_1(autoencoder: ConvAutoencoder) -> None:
    pictures = [noise(6, 3, 16, 24, seed=1), 0.3 + noise(5, 3, 16, 24, seed=2)]
    autoencoder.standardise(pictures)
    latents = torch.cat([autoencoder.encode(each) for each in pictures])
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(latents.var((0, 2, 3), correction=0), torch.ones(5), atol=1e-4, rtol=0)


def test_training_sees_the_round_trip_of_use_with_noise_on_the_latents(autoencoder: ConvAutoencoder) -> None:
    x, n = noise(4, 3, 16, 16, seed=1), noise(4, 5, 4, 4, seed=2)
    autoencoder.standardise([x])  # on the very batch, so that both standardise alike
    with torch.no_grad():
        torch.testing.assert_close(
            autoencoder(x, 0.1 * n), autoencoder.decode(autoencoder.encode(x) + 0.1 * n), atol=1e-5, rtol=1e-5
        )


def test_larger_codes_do_not_evade_the_noise(autoencoder: ConvAutoencoder) -> None:
    x, n = noise(4, 3, 16, 16, seed=1), noise(4, 5, 4, 4, seed=2)
    with torch.no_grad():
        before = autoencoder(x, 0.1 * n)
        autoencoder.encoder[-1].weight.mul_(100)
        torch.testing.assert_close(autoencoder(x, 0.1 * n), before, atol=1e-4, rtol=1e-4)


def test_a_cell_feels_its_neighbourhood_and_not_the_size_of_the_picture(autoencoder: ConvAutoencoder) -> None:
    x = noise(1, 3, 192, 192)
    with torch.no_grad():
        whole, crop = autoencoder.encode(x), autoencoder.encode(x[:, :, 32:160, 32:160])
        torch.testing.assert_close(whole[:, :, 16:32, 16:32], crop[:, :, 8:24, 8:24], atol=1e-5, rtol=0)
        back, part = autoencoder.decode(whole), autoencoder.decode(whole[:, :, 8:40, 8:40])
    torch.testing.assert_close(back[:, :, 64:128, 64:128], part[:, :, 32:96, 32:96], atol=1e-5, rtol=0)


def test_first_weights_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (ConvAutoencoder(TINY, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert not torch.equal(one["encoder.0.weight"], other["encoder.0.weight"])


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (1, 3, 16, 18), (3, 16, 16)])
def test_pictures_that_do_not_fit(autoencoder: ConvAutoencoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        autoencoder.encode(torch.zeros(shape))


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.0), (torch.float16, 1e-3)])
def test_an_autoencoder_alone(
    autoencoder: ConvAutoencoder, tmp_path: Path, dtype: torch.dtype, tolerance: float
) -> None:
    path = tmp_path / "ae" / "weights.safetensors"
    save_autoencoder(path, autoencoder, {"crops": 5}, dtype)
    stored = read_weights(path)
    assert stored.denoiser is None and stored.autoencoder is not None and stored.metadata.training == {"crops": 5}
    assert stored.autoencoder.config == TINY
    torch.testing.assert_close(
        stored.autoencoder.state_dict(), autoencoder.state_dict(), atol=tolerance, rtol=tolerance
    )
    with pytest.raises(CheckpointError, match="half of a latent prior; train the denoiser .* --latent"):
        load_prior(path)
    with pytest.raises(CheckpointError, match="half of a latent prior"):
        load_prior(path.parent)


def test_one_file_is_a_latent_prior(autoencoder: ConvAutoencoder, both: Path) -> None:
    prior: Any = load_prior(both.parent, device="cpu")
    assert isinstance(prior, LatentPrior) and prior.latent and prior.name == "both"
    assert (prior.shape, prior.multiple) == ((5, None, None), 2)
    assert (prior.image_shape, prior.image_multiple) == ((3, None, None), 8)
    assert (prior.data_std, prior.schedule.nsr_range) == (1.0, (0.02, 80.0))
    assert prior.source == both and len(prior.hash) == 64
    x = noise(2, 3, 16, 24)
    z = prior.encode(x)
    with torch.no_grad():
        torch.testing.assert_close(z, autoencoder.encode(x))
        torch.testing.assert_close(prior.decode(z), autoencoder.decode(z))
    weights = list(prior.parameters())
    assert prior.facts["parameters"] == sum(weight.numel() for weight in weights)
    assert not any(weight.requires_grad for weight in weights)
    assert json.loads(json.dumps(prior.facts)) == prior.facts
    assert prior.facts["autoencoder_training"] == {"crops": 9} and prior.facts["training"] == {"crops": 7}
    assert prior.sample(2, seed=0, size=(16, 16), steps=3).shape == (2, 3, 16, 16)
    latent = z.requires_grad_()
    prior.decode(prior.denoise(latent, 0.5)).square().sum().backward()
    assert latent.grad is not None and bool(latent.grad.any())


def test_low_precision_keeps_float32_outside(both: Path) -> None:
    full, half = (load_prior(both, device="cpu", dtype=dtype) for dtype in (None, torch.bfloat16))
    x = noise(1, 3, 16, 16)
    z, other = full.encode(x), half.encode(x)
    back = half.decode(z)
    assert other.dtype == back.dtype == half.denoise(z, 0.4).dtype == torch.float32
    torch.testing.assert_close(other, z, atol=0.1, rtol=0.1)
    assert not torch.equal(other, z) and not torch.equal(back, full.decode(z))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, e: t.pop("autoencoder.shift"), "autoencoder.shift"),
        (lambda t, e: t.update({"decoder.0.weight": torch.zeros(1)}), "decoder.0.weight"),
        (lambda t, e: t["autoencoder.scale"].fill_(float("inf")), "not finite"),
        (lambda t, e: t.update({"denoiser.tail.bias": torch.zeros(20, dtype=torch.int8)}), "not floating point"),
        (lambda t, e: e["config"].update(in_channels=6), "denoiser of 6 channels .* latents have 5"),
        (lambda t, e: e["autoencoder"]["config"].update(factor=3), "incomplete .*power of two"),
        (lambda t, e: e["autoencoder"]["config"].update(channels=[8.5, 12]), "incomplete .*channels.0 is 8.5"),
        (lambda t, e: e["autoencoder"]["config"].update(attention=1), "attention"),
        (lambda t, e: e["autoencoder"].pop("config"), "incomplete"),
        (lambda t, e: e.update(autoencoder=[1]), "incomplete"),
        (lambda t, e: e["autoencoder"]["config"].update(channels=[1 << 20, 12]), "has .* weights, and that needs"),
        (lambda t, e: e["autoencoder"]["config"].update(factor=1 << 40), "has .* weights, and that needs"),
        (lambda t, e: e["config"].update(embedding=1 << 30), "has .* weights, and that needs"),
        (lambda t, e: e["config"].update(blocks=[1 << 40]), "at most 16 levels and 1000 blocks"),
        (lambda t, e: e.update(format=4), "update priorpaint"),
        (lambda t, e: e.update(architecture="autoencoder"), "does not hold|incomplete"),
        (lambda t, e: e.pop("autoencoder"), "does not hold"),
    ],
)
def test_files_that_contradict_themselves(both: Path, change: Any, words: str) -> None:
    rewrite(both, change)
    with pytest.raises(CheckpointError, match=words):
        load_prior(both)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.999])
def test_truncated_files(both: Path, share: float) -> None:
    data = both.read_bytes()
    both.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError):
        load_prior(both.parent)


def test_flipped_bits_are_noticed_or_harmless(both: Path) -> None:
    data = both.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for index in range(0, 8 + length, 37):
        changed = bytearray(data)
        changed[index] ^= 1 << (index % 7)
        both.write_bytes(bytes(changed))
        try:
            read_weights(both)
        except CheckpointError as error:
            assert "\n" not in str(error)
