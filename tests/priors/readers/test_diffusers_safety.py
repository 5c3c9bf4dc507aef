"""Diffusers folders that are hostile, broken or wrong: one CheckpointError each, and nothing of them is run."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from priorpaint import load_prior
from priorpaint.errors import CheckpointError
from priorpaint.priors.readers.diffusers import recognises

diffusers = pytest.importorskip("diffusers")
models = pytest.importorskip("tests.priors.readers.diffusers_models")

WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")
UNET, INDEX = Path("unet", "config.json"), Path("model_index.json")
SCHEDULER = Path("scheduler", "scheduler_config.json")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    models.pixel(folder, block_out_channels=(4,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
                 attention_head_dim=2, norm_num_groups=2, add_attention=False)  # fmt: skip
    load_prior(folder, device="cpu")
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


class Marker:
    """Pickles as a call that creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def refused(folder: Path, match: str) -> None:
    assert recognises(folder)
    with pytest.raises(CheckpointError, match=match) as caught:
        load_prior(folder, device="cpu")
    assert "\n" not in str(caught.value) and caught.value.__cause__ is None


def test_a_pickle_that_calls_a_function_is_not_run(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"conv_in.weight": Marker(tmp_path / "ran")}, folder / "unet" / "diffusion_pytorch_model.bin")
    refused(folder, "system")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("part", "value", "named"),
    [
        ("unet", ["my_unet", "MyUNet"], "my_unet.MyUNet"),
        ("unet", ["diffusers", "MyUNet"], "diffusers.MyUNet"),
        ("unet", ["diffusers.utils", "UNet2DModel"], "diffusers.utils.UNet2DModel"),
        ("unet", ["diffusers", "AutoencoderKL"], "diffusers.AutoencoderKL"),
        ("unet", "UNet2DModel", "names no scheduler|no autoencoder"),
        ("unet", ["diffusers"], r"should be \[library, class\]"),
        ("unet", ["diffusers", 3], r"should be \[library, class\]"),
        ("scheduler", ["os", "system"], "comes from 'os'"),
        ("scheduler", ["diffusers", "UNet2DModel"], "the scheduler 'UNet2DModel' is not one"),
        ("prior", ["transformers", "AutoModel"], "part 'prior' .transformers.AutoModel. is not one"),
        ("text_encoder", ["transformers", "AutoModel"], "transformers.AutoModel"),
        ("_class_name", ["my_pipeline", "MyPipeline"], "Python file of its own"),
    ],
    ids=str,
)
def test_classes_come_from_the_lists_only(folder: Path, part: str, value: Any, named: str) -> None:
    models.edit(folder / INDEX, **{part: value})
    refused(folder, named)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"block_out_channels": [8]}, r"conv_in.weight .expected \(8, 3, 3, 3\), found \(4, 3, 3, 3\)"),
        ({"block_out_channels": [1 << 40]}, r"block_out_channels\[0\] is 1099511627776"),
        ({"downsample_padding": 10**9}, "downsample_padding is 1000000000; expected a whole number from 0 to 1"),
        ({"norm_eps": 10**400}, "norm_eps is 1000000"),
        ({"add_attention": "x"}, "add_attention is 'x'; expected true or false"),
        ({"block_out_channels": "wide"}, "block_out_channels is 'wide'; expected a whole number from 1 to"),
        ({"in_channels": 4}, "conv_in.weight"),
        ({"layers_per_block": 10**9}, "layers_per_block is 1000000000; expected .* its weights are"),
        ({"layers_per_block": 2}, "missing"),
        ({"down_block_types": ["os.system"]}, "os.system"),
        ({"act_fn": "magic"}, "UNet2DModel"),
        ({"norm_num_groups": 3}, "UNet2DModel"),
        ({"sample_size": "large"}, "sample_size|fit together"),
        ({"sample_size": [8, 8, 8]}, r"sample_size is \[8, 8, 8\]"),
        ({"class_embed_type": "timestep"}, "not part|missing|class_embed_type"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
    ],
    ids=str,
)
def test_configurations_that_do_not_fit(folder: Path, changes: dict[str, Any], named: str) -> None:
    models.edit(folder / UNET, **changes)
    refused(folder, named)


def test_broken_files(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    cases: list[tuple[bytes, str]] = [
        (b"", "an empty file"),
        (pointer, "git-lfs pointer.*must be downloaded"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (whole[: len(whole) // 2], "incomplete or damaged .*incomplete metadata"),
        (struct.pack("<Q", 1 << 40) + b"{}", "header too large"),
        (struct.pack("<Q", 8) + b"{      }", "its weights are 0 tensors"),
        (whole.replace(b"F32", b"F31", 1), "damaged"),
    ]
    for data, named in cases:
        (folder / WEIGHTS).write_bytes(data)
        refused(folder, named)
    (folder / WEIGHTS).unlink()
    refused(folder, r"unet.diffusion_pytorch_model.safetensors is missing")
    (folder / WEIGHTS).write_bytes(whole)
    (folder / SCHEDULER).write_bytes(pointer)
    refused(folder, "scheduler_config.json is a git-lfs pointer")
    (folder / SCHEDULER).write_text("[1, 2]")
    refused(folder, "should hold a JSON object")
    (folder / SCHEDULER).write_text("[" * 100_000)
    refused(folder, "not JSON")
    (folder / SCHEDULER).unlink()
    refused(folder, "scheduler_config.json is missing")
    (folder / INDEX).unlink()
    refused(folder, "model_index.json is missing")


def test_values_that_are_not_finite_are_named(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / WEIGHTS)
    state["conv_out.bias"][1] = float("nan")
    save_file(state, folder / WEIGHTS)
    refused(folder, "conv_out.bias holds values that are not finite")


def test_extra_and_missing_tensors_are_named(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / WEIGHTS)
    save_file({**state, "conv_in.lora": torch.zeros(1)}, folder / WEIGHTS)
    refused(folder, "not part of it: conv_in.lora")
    save_file({key: value for key, value in state.items() if key != "conv_in.bias"}, folder / WEIGHTS)
    refused(folder, "missing: conv_in.bias")


@pytest.mark.parametrize(
    "name", ["../../outside.safetensors", "/etc/passwd", "..\\outside.safetensors", "..", "code.py", "a/b.safetensors"]
)
def test_shards_stay_in_the_folder(folder: Path, name: str) -> None:
    (folder / WEIGHTS).rename(folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"conv_in.weight": name}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "must be .safetensors files that lie beside it")


def test_a_list_of_shards_that_lies(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "unet" / "one.safetensors")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    for value, named in (
        ({}, "no weight_map"),
        ({"weight_map": ["one.safetensors"]}, "no weight_map"),
        ({"weight_map": {"conv_in.weight": "two.safetensors"}}, "two.safetensors is missing"),
        ({"weight_map": {"conv_in.weight": "one.safetensors", "more": "one.safetensors"}}, "first 'more'"),
    ):
        path.write_text(json.dumps(value))
        refused(folder, named)


def survives(folder: Path, change: Callable[[bytes, torch.Generator], bytes], file: Path, seeds: range) -> int:
    """How many changed files are refused; whatever else they raise fails the test."""
    whole, count = (folder / file).read_bytes(), 0
    for seed in seeds:
        (folder / file).write_bytes(change(whole, torch.Generator().manual_seed(seed)))
        try:
            load_prior(folder, device="cpu")
        except CheckpointError as error:
            assert "\n" not in str(error)
            count += 1
    (folder / file).write_bytes(whole)
    return count


def place(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (1,), generator=generator))


def cut(data: bytes, generator: torch.Generator) -> bytes:
    return data[: place(len(data), generator)]


def flip(data: bytes, generator: torch.Generator) -> bytes:
    """Change one bit of the first 3000 bytes, where headers are."""
    at = place(min(len(data), 3000), generator)
    return data[:at] + bytes([data[at] ^ (1 << place(8, generator))]) + data[at + 1 :]


def test_fuzz_of_weights(folder: Path) -> None:
    assert survives(folder, cut, WEIGHTS, range(20)) == 20
    assert survives(folder, flip, WEIGHTS, range(40)) > 20


@pytest.mark.parametrize("file", [UNET, SCHEDULER, INDEX], ids=str)
def test_fuzz_of_configurations(folder: Path, file: Path) -> None:
    assert survives(folder, cut, file, range(8)) == 8
    assert survives(folder, flip, file, range(20)) > 0


def test_adversarial_folders(shared: Path) -> None:
    where = shared / "data" / "checkpoints" / "adversarial"
    if not (where / "EXPECTED.json").is_file():
        pytest.skip("../shared/data/checkpoints/adversarial is not here")
    says = {
        "not finite": "conv_out.weight|not finite",
        "truncated": "incomplete",
        "wrong architecture": "expected .* found",
        "path traversal": "must be .safetensors files that lie beside it",
        "bad configuration": "prediction_type is 'w_prediction'",
    }
    cases = json.loads((where / "EXPECTED.json").read_text())["cases"]
    cases = [case for case in cases if case.get("format") == "diffusers"]
    assert len(cases) >= 10
    for case in cases:
        marker = Path(case["must_not_appear"]) if "must_not_appear" in case else None
        if marker is not None:
            marker.unlink(missing_ok=True)
        refused(where / case["file"].rstrip("/"), says.get(case["kind"], "."))
        assert marker is None or not marker.exists()
