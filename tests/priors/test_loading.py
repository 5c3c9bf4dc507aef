"""Priors by name and path: what is found, what it is, and what goes wrong in one sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from priorpaint import PriorError, UsageError, load_prior
from priorpaint.priors.loading import PRIORS
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights


def tiny_network() -> UNet:
    network = UNet(UNetConfig((8, 8), (1, 1), 8), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        network.tail.weight.normal_(0, 0.1, generator=generator)  # an untrained tail is 0 and would hide everything
    return network


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "weights.safetensors"
    save_weights(path, tiny_network(), WeightsMetadata(0.4, 0.02, 6.0, {"crops": 3}), dtype=torch.float32)
    return path


def test_a_weights_file_becomes_an_edm_prior(weights: Path) -> None:
    prior = load_prior(weights, device="cpu")
    assert prior.shape == (3, None, None) and prior.multiple == 4 and prior.name == "weights"
    assert prior.schedule.nsr_range == (0.02, 6.0)
    assert prior.hash == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert prior.metadata.training == {"crops": 3}
    x_t = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    t = torch.tensor(0.5, dtype=torch.float64)
    sigma = prior.schedule.sigma(t).float()
    # Karras et al. 2022, Table 1.
    c_skip = 0.4**2 / (sigma**2 + 0.4**2)
    c_out = sigma * 0.4 / (sigma**2 + 0.4**2).sqrt()
    c_in = 1 / (sigma**2 + 0.4**2).sqrt()
    raw = tiny_network()(c_in * x_t, (sigma.log() / 4).expand(2))
    assert torch.allclose(prior.denoise(x_t, t), c_skip * x_t + c_out * raw, atol=1e-5)


def test_a_training_folder_is_a_prior_of_its_name(weights: Path) -> None:
    prior = load_prior(str(weights.parent), device="cpu")
    assert prior.name == "run" and prior.source == weights


def test_bfloat16_keeps_float32_images_and_is_close(weights: Path) -> None:
    x_t = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    full, half = (load_prior(weights, device="cpu", dtype=dtype) for dtype in (None, torch.bfloat16))
    out = half.denoise(x_t, 0.4)
    assert out.dtype == torch.float32
    assert torch.allclose(out, full.denoise(x_t, 0.4), atol=0.05)
    assert not torch.equal(out, full.denoise(x_t, 0.4))


def test_gradients_reach_the_image_and_not_the_weights(weights: Path) -> None:
    prior = load_prior(weights, device="cpu")
    x_t = torch.zeros(1, 3, 8, 8, requires_grad=True)
    prior.denoise(x_t, 0.5).square().sum().backward()
    assert x_t.grad is not None
    assert all(weight.grad is None and not weight.requires_grad for weight in prior.parameters())


@pytest.mark.parametrize("name", PRIORS)
def test_an_embedded_prior_without_its_file_says_so(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("priorpaint.priors.loading.embedded_file", lambda _: tmp_path / "gone.safetensors")
    with pytest.raises(PriorError, match="missing from this installation"):
        load_prior(name)


@pytest.mark.parametrize("name", PRIORS)
def test_an_embedded_prior_denoises(name: str) -> None:
    prior = load_prior(name, device="cpu")
    channels, height, width = prior.shape
    size = (height or prior.multiple * 3, width or prior.multiple * 2)
    assert prior.name == name
    out = prior.denoise(torch.zeros(1, channels, *size), 0.3)
    assert out.shape == (1, channels, *size) and bool(torch.isfinite(out).all())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:google", "hf:owner/name"),
        ("no/such/path", "no prior and no file"),
        ("nonsense", "embedded priors are photos"),
    ],
)
def test_names_that_cannot_be_read(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_prior(name)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="priorpaint train"):
        load_prior(tmp_path)


def test_a_damaged_file(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(PriorError, match="safetensors"):
        load_prior(weights)


@pytest.mark.parametrize(
    ("file", "data", "kind"),
    [
        ("model.pt", b"", "an empty file"),
        ("model.pth", b"<!DOCTYPE html><title>404</title>", "a web page"),
        ("model.pkl", b"version https://git-lfs.github.com/spec/v1", "git-lfs pointer"),
        ("model.bin", b"hello, I am a text", "a text that begins"),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "safetensors"),
        ("picture.png", b"\x89PNG\r\n", "a picture"),
    ],
)
def test_files_that_are_no_checkpoints_say_what_they_look_like(
    tmp_path: Path, file: str, data: bytes, kind: str
) -> None:
    (tmp_path / file).write_bytes(data)
    with pytest.raises(PriorError, match=kind):
        load_prior(tmp_path / file)


@pytest.mark.parametrize("name", ["weights.ckpt", "weights.bin", "weights"])
def test_the_name_of_a_file_does_not_matter(weights: Path, name: str) -> None:
    """Nor where it holds another program's tensors: the sentence is the one of its contents."""
    renamed = weights.rename(weights.with_name(name))
    assert load_prior(renamed, device="cpu").source == renamed
    save_file({"w": torch.ones(2)}, renamed)
    with pytest.raises(PriorError, match="was not written by priorpaint"):
        load_prior(renamed)


def test_a_name_of_the_user_stands_for_its_files_as_they_were(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from priorpaint.priors.address_book import Entry, add

    monkeypatch.setenv("PRIORPAINT_HOME", str(weights.parent / "home"))
    first = load_prior(weights, device="cpu")
    add("mine", Entry(str(weights), {}, first.hash))
    named = load_prior("mine", device="cpu")
    assert named.name == "mine" and named.spec == str(weights) and named.hash == first.hash
    with pytest.raises(UsageError, match="yours are mine"):
        load_prior("nine")
    save_weights(weights, tiny_network(), WeightsMetadata(0.5, 0.02, 6.0), dtype=torch.float32)
    with pytest.raises(PriorError, match="not those that were added"):
        load_prior("mine")


def test_every_prior_says_what_it_is(weights: Path) -> None:
    prior = load_prior(weights, device="cpu", offline=True)
    assert json.loads(json.dumps(prior.facts)) == prior.facts and prior.spec == str(weights) and prior.flags == {}
    assert prior.facts["parameters"] == sum(weight.numel() for weight in prior.parameters())


def test_arguments_that_do_not_fit(weights: Path) -> None:
    with pytest.raises(UsageError, match="leave the flags out"):
        load_prior(weights, flags={"attention": 16})
    with pytest.raises(UsageError, match="float32, bfloat16 or float16"):
        load_prior(weights, dtype=torch.float64)
    for device in ("nonsense", "meta"):
        with pytest.raises(UsageError, match=f"cannot use the device '{device}'"):
            load_prior(weights, device=device)
