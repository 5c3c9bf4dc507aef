"""The network and its weights file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from priorpaint.errors import CheckpointError, PriorError, UsageError
from priorpaint.priors.loading import load_prior
from priorpaint.priors.native.mlp import MLPConfig
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, read_weights, save_weights

TINY = UNetConfig((8, 12), (1, 2), embedding=16)


@pytest.fixture
def network() -> UNet:
    network = UNet(TINY, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network


def rewrite(path: Path, change: Any) -> None:
    """Write ``path`` again after ``change(tensors, entry)``."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        entry = json.loads(file.metadata()["priorpaint"])
    tensors = load_file(path)
    change(tensors, entry)
    save_file(tensors, path, {"priorpaint": json.dumps(entry)})


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.0), (torch.float16, 1e-3)])
def test_round_trip(network: UNet, tmp_path: Path, dtype: torch.dtype, tolerance: float) -> None:
    metadata = WeightsMetadata(0.5, 0.02, 6.0, {"crops": 12})
    save_weights(tmp_path / "a" / "w.safetensors", network, metadata, dtype)
    weights = read_weights(tmp_path / "a" / "w.safetensors")
    loaded, stored = weights.denoiser, weights.metadata
    assert stored == metadata and loaded.config == TINY and not loaded.training
    torch.testing.assert_close(loaded.state_dict(), network.state_dict(), atol=tolerance, rtol=tolerance)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["w.safetensors"]


def test_damaged_files_are_refused(network: UNet, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(PriorError, match="no weights file"):
        read_weights(path)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(PriorError, match="expected a safetensors file, found a text"):
        read_weights(path)
    save_weights(path, network, WeightsMetadata())
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(PriorError, match="incomplete or damaged safetensors"):
        read_weights(path)
    save_file(network.state_dict(), path)
    with pytest.raises(PriorError, match="not written by priorpaint"):
        read_weights(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, e: t.pop("tail.bias"), "tail.bias"),
        (lambda t, e: t.update(extra=torch.zeros(1)), "extra"),
        (lambda t, e: t.update({"tail.bias": torch.zeros(5)}), "tail.bias"),
        (lambda t, e: t["tail.bias"].fill_(float("nan")), "not finite"),
        (lambda t, e: e.update(format=99), "update priorpaint"),
        (lambda t, e: e.update(architecture="other"), "update priorpaint"),
        (lambda t, e: e["config"].update(attention=True), "attention"),
        (lambda t, e: e["config"].update(channels=[]), "incomplete"),
        (lambda t, e: e.pop("schedule"), "incomplete"),
        (lambda t, e: e.update(sigma_data="wide"), "incomplete"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(network: UNet, tmp_path: Path, change: Any, words: str) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, network, WeightsMetadata())
    rewrite(path, change)
    with pytest.raises(PriorError, match=words):
        read_weights(path)


def test_weights_of_8_bits_are_read_and_checked(network: UNet, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, network, WeightsMetadata())
    rewrite(path, lambda t, e: t.update({key: value.to(torch.float8_e4m3fn) for key, value in t.items()}))
    loaded = read_weights(path).denoiser.state_dict()
    torch.testing.assert_close(loaded, dict(network.state_dict()), atol=1e-3, rtol=2**-4)  # 3 bits after the first
    damaged = torch.full((3,), float("nan")).to(torch.float8_e4m3fn)
    rewrite(path, lambda t, e: t.update({"tail.bias": damaged}))
    with pytest.raises(PriorError, match="tail.bias holds values that are not finite"):
        read_weights(path)


def test_weights_that_are_not_finite_are_not_written(network: UNet, tmp_path: Path) -> None:
    with torch.no_grad():
        network.tail.bias[0] = 1e6  # finite in float32, infinite in float16
    with pytest.raises(PriorError, match="not finite"):
        save_weights(tmp_path / "w.safetensors", network, WeightsMetadata())
    assert not (tmp_path / "w.safetensors").exists()


def test_initial_weights_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = UNet(TINY, seed=1), UNet(TINY, seed=1), UNet(TINY, seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.head.weight, same.head.weight) and not torch.equal(one.head.weight, other.head.weight)
    assert not one(torch.ones(1, 3, 8, 8), torch.zeros(1)).detach().any()


def test_a_pixel_feels_its_neighbourhood_and_not_the_size_of_the_picture(network: UNet) -> None:
    # The receptive field of this network is under 40 px, so the middle of a large picture equals that of a crop of it.
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    level = torch.tensor([-0.3])
    with torch.no_grad():
        whole, crop = network(x, level), network(x[:, :, 16:112, 16:112], level)
    torch.testing.assert_close(whole[:, :, 56:72, 56:72], crop[:, :, 40:56, 40:56], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 3, 6, 8), (1, 3, 8, 10), (1, 1, 8, 8), (3, 8, 8)])
def test_pictures_that_do_not_fit_are_refused(network: UNet, shape: tuple[int, ...]) -> None:
    assert network.config.multiple == 4
    with pytest.raises(UsageError):
        network(torch.zeros(shape), torch.zeros(1))


def test_grey_pictures() -> None:
    assert UNet(UNetConfig((4,), (1,), in_channels=1))(torch.zeros(2, 1, 6, 4), torch.zeros(2)).shape == (2, 1, 6, 4)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.update(format=2, size=[10**9, 10**9]),
        lambda entry: entry.update(format=2, size=[65536, 65536]),  # more than any picture has
        lambda entry: entry.update(format=2, size=[30, 30]),  # not a multiple of 4
        *(lambda entry, value=value: entry.update(sigma_data=value) for value in (float("nan"), 0, -1, 1e-300)),
        lambda entry: entry.update(schedule={"sigma_min": 9, "sigma_max": 1}),
        lambda entry: entry["config"].update(channels=[1] * 10**5, blocks=[1] * 10**5),
        lambda entry: entry["config"].update(blocks=[10**5, 10**5]),
        lambda entry: entry["config"].update(channels=[10**400, 1]),
        lambda entry: entry.update(training=nested(500)),
    ],
)
def test_what_a_file_claims_is_refused_before_time_or_memory_is_taken(
    network: UNet, tmp_path: Path, change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file is large enough for what it claims: a network of 10^5 levels takes minutes to build."""
    path = tmp_path / "w.safetensors"
    save_weights(path, network, WeightsMetadata())
    rewrite(path, lambda tensors, entry: (change(entry), tensors.update(more=torch.zeros(10**7, dtype=torch.float16))))
    monkeypatch.setattr("priorpaint.priors.native.weights_file.check_fit", lambda *_: None)
    monkeypatch.setattr(UNet, "load_state_dict", lambda *_: None)
    with pytest.raises(CheckpointError, match=r"w(\.safetensors)?\b") as caught:
        load_prior(path, device="cpu")
    assert len(str(caught.value)) < 700


def test_no_network_is_deeper_than_any_that_is_of_use() -> None:
    for shape in ((8,) * 17, (1,) * 17), ((8,), (1001,)):
        with pytest.raises(UsageError, match="at most 16 levels and 1000 blocks"):
            UNetConfig(*shape)
    with pytest.raises(UsageError, match="at most 16 levels and 1000 blocks"):
        MLPConfig(8, hidden=(8,) * 1001)
