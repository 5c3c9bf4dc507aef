"""What every reader promises: it knows its own files by their contents, and damage ends in one sentence."""

from __future__ import annotations

import io
import json
import math
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from priorpaint import load_prior
from priorpaint.errors import CheckpointError, PriorpaintError, UsageError
from priorpaint.priors.cfg import CFGPrior
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights
from priorpaint.priors.readers import MODULES, Reader, Request, readers
from tests.priors.readers.small_files import read_or_refuse

SUFFIXES = (".pt", ".bin", ".ckpt", ".pkl", ".safetensors", "")


@dataclass(frozen=True)
class Case:
    """A small file of a format.

    Attributes:
        reader: the reader's name; None for priorpaint's own format, which no reader recognises.
        write: makes the file, or the folder, at a path.
        inside: the file that is damaged, below a folder.
        flags: with which it is read.
        beside: endings of files that belong to it.
    """

    reader: str | None
    write: Callable[[Path], Any]
    inside: str = ""
    flags: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()


def adm(path: Path, zipped: bool = True) -> None:
    from tests.priors.readers import test_adm as files

    files.write(path, files.ADMConfig(3, 3, 32, (32,), 1, frozenset({0}), "conv", True, files.Heads(2)), zipped=zipped)


def edm(path: Path) -> None:
    from tests.priors.readers import test_edm as files

    files.write(path, "SongUNet", "EDMPrecond", files.KWARGS, sigma_data=0.5, sigma_min=0, sigma_max=math.inf)


def ldm(path: Path) -> None:
    pytest.importorskip("yaml", reason="the YAML of these checkpoints needs PyYAML")
    from tests.priors.readers import test_ldm as files

    files.write(path, files.tensors(), files.configuration())


def diffusers(path: Path) -> None:
    pytest.importorskip("diffusers")
    from tests.priors.readers import diffusers_models as models

    models.pixel(path, block_out_channels=(4,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
                 attention_head_dim=2, norm_num_groups=2, add_attention=False)  # fmt: skip


def own(path: Path) -> None:
    save_weights(path, UNet(UNetConfig((8,), (1,), 8), seed=0), WeightsMetadata())


CASES = {
    "adm": Case("adm", adm, flags={"num_heads": 2}),
    "adm in torch's old container": Case("adm", lambda path: adm(path, zipped=False), flags={"num_heads": 2}),
    "edm": Case("edm", edm),
    "ldm": Case("ldm", ldm, beside=(".yaml",)),
    "diffusers": Case("diffusers", diffusers, "unet/diffusion_pytorch_model.safetensors"),
    "diffusers' index": Case("diffusers", diffusers, "model_index.json"),
    "diffusers' configuration": Case("diffusers", diffusers, "unet/config.json"),
    "diffusers' scheduler": Case("diffusers", diffusers, "scheduler/scheduler_config.json"),
    "priorpaint": Case(None, own),
}
OF_READERS = [name for name, case in CASES.items() if case.reader]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of a case -> its file, written once."""
    paths: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in paths:
            path = tmp_path_factory.mktemp("case") / "model"
            CASES[name].write(path)
            paths[name] = path
        return paths[name]

    return get


def copied(source: Path, target: Path, beside: tuple[str, ...] = ()) -> Path:
    if source.is_dir():
        return Path(shutil.copytree(source, target))
    for ending in beside:
        shutil.copy(source.with_suffix(ending), target.with_suffix(ending))
    return Path(shutil.copy(source, target))


def reader_of(name: str) -> Reader:
    return next(reader for reader in readers() if reader.name == CASES[name].reader)


def test_every_reader_has_a_case() -> None:
    assert {case.reader for case in CASES.values()} - {None} == set(MODULES) == {reader.name for reader in readers()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_recognised_by_its_contents(written: Any, tmp_path: Path, name: str, suffix: str) -> None:
    """By its own reader and by no other, whatever its name ends in."""
    path = copied(written(name), tmp_path / f"model{suffix}", CASES[name].beside)
    assert [r.name for r in readers() if r.recognises(path)] == ([CASES[name].reader] if CASES[name].reader else [])


@pytest.mark.parametrize("name", CASES)
def test_a_renamed_file_is_read(written: Any, tmp_path: Path, name: str) -> None:
    """The prior is the one of the file under its own name, and says where it comes from."""
    case = CASES[name]
    path = copied(written(name), tmp_path / "renamed.weights", case.beside)
    prior, other = (load_prior(p, flags=case.flags or None, device="cpu") for p in (path, written(name)))
    assert prior.source == path and prior.hash == other.hash
    assert prior.hash is not None and len(prior.hash) == 64 and int(prior.hash, 16)
    assert prior.facts is not None and json.loads(json.dumps(prior.facts)) == prior.facts
    assert prior.facts["format"] == (case.reader or "priorpaint")
    x_t = torch.randn(1, *prior.shape[:1], 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(prior.denoise(x_t, 0.5), other.denoise(x_t, 0.5))


def with_classes(path: Path) -> None:
    pytest.importorskip("diffusers")
    from tests.priors.readers import diffusers_models as models

    models.pixel(path, num_class_embeds=4)


def dit(path: Path) -> None:
    pytest.importorskip("diffusers")
    from tests.priors.readers import diffusers_models as models

    models.dit(path)


def adm_with_classes(path: Path) -> None:
    from tests.priors.readers import test_adm as files

    files.write(path, files.ADMConfig(3, 3, 32, (32,), 1, frozenset(), "conv", True, files.Heads(2), 4))


def trained(rate: float) -> Callable[[Path], None]:
    """By ``priorpaint train --label-dropout``."""
    metadata = WeightsMetadata(training={"label_dropout": rate})
    return lambda path: save_weights(path, UNet(UNetConfig((8,), (1,), 8, classes=4), seed=0), metadata)


@pytest.mark.parametrize(
    ("write", "flags", "guides"),
    [
        (adm_with_classes, {"num_heads": 2}, False),
        (with_classes, {}, False),
        (with_classes, {"null_class": 3}, True),
        (dit, {}, True),
        (trained(0.0), {}, False),
        (trained(0.5), {}, True),
    ],
    ids=["adm", "diffusers", "diffusers with null_class", "dit", "never hidden in training", "trained"],
)
def test_guidance_needs_a_state_that_was_trained(tmp_path: Path, write: Any, flags: Any, guides: bool) -> None:
    """Without a class that stood for none in training, any scale but 1 is refused in one sentence."""
    write(tmp_path / "model")
    prior = load_prior(tmp_path / "model", flags=flags or None, device="cpu")
    assert prior.info.null_state == guides
    assert CFGPrior(prior, label=1).denoise(torch.zeros(1, prior.shape[0], 8, 8), 0.5).isfinite().all()
    if guides:
        CFGPrior(prior, label=1, scale=3.0)
        return
    with pytest.raises(UsageError, match="needs a state without a class.*leave guidance at 1"):
        CFGPrior(prior, label=1, scale=3.0)


def rubbish(folder: Path) -> list[Path]:
    """Paths that no reader reads."""
    contents = {
        "empty.pt": b"",
        "random.ckpt": random.Random(0).randbytes(4000),
        "text.pkl": b"Entry not found",
        "index.json": b'{"_class_name": "UNet2DModel"}',
        "page.safetensors": b"<!DOCTYPE html><title>404</title>",
        "short": b"\x80",
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (folder / "folder").mkdir()
    (folder / "strange").mkdir()
    (folder / "strange" / "config.json").write_bytes(b"\xff\xfe[")
    (folder / "list").mkdir()
    (folder / "list" / "config.json").write_text("[1]")
    (folder / "link").symlink_to(folder / "nowhere")
    return [*folder.iterdir(), folder / "missing.pt", folder / "text.pkl" / "below"]


def test_rubbish_is_recognised_by_no_reader(tmp_path: Path) -> None:
    """And asking never raises; the loader says in one sentence what is wrong."""
    for path in rubbish(tmp_path):
        assert not any(reader.recognises(path) for reader in readers()), path
        with pytest.raises((CheckpointError, UsageError)) as caught:
            load_prior(path, device="cpu")
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_tensors_of_another_program_are_refused_in_one_sentence(tmp_path: Path) -> None:
    """A safetensors file and a file of torch.save that hold a network of nobody's."""
    save_file({"w": torch.ones(2)}, tmp_path / "a.ckpt")
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    (tmp_path / "b.safetensors").write_bytes(buffer.getvalue())
    for name in ("a.ckpt", "b.safetensors"):
        with pytest.raises(CheckpointError, match=name):
            load_prior(tmp_path / name, device="cpu")


@pytest.mark.parametrize("name", OF_READERS)
def test_an_unknown_flag_is_named(written: Any, name: str) -> None:
    with pytest.raises(UsageError, match=r"'nonsense'; it takes \w+"):
        reader_of(name).read(Request(written(name), {**CASES[name].flags, "nonsense": 1}))


@pytest.mark.parametrize("name", OF_READERS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_a_file_that_was_cut_is_refused(written: Any, tmp_path: Path, name: str, share: float) -> None:
    """At any place, the last byte included (but for the newline that ends a text)."""
    path = copied(written(name), tmp_path / "model", CASES[name].beside)
    data = (path / CASES[name].inside).read_bytes()
    (path / CASES[name].inside).write_bytes(data[: min(int(share * len(data)), len(data.rstrip()) - 1)])
    request = Request(path, CASES[name].flags)
    assert read_or_refuse(lambda _: reader_of(name).read(request), path) is None


def changes(data: bytes, count: int, seed: int) -> list[bytes]:
    """Copies with a few bits or bytes changed, or cut, or with a piece doubled; mostly at the ends, where a format has
    its descriptions."""
    draw, out = random.Random(seed), []
    for _ in range(count):
        changed = bytearray(data)
        ends = draw.choice([(0, len(data)), (0, min(3000, len(data))), (max(0, len(data) - 3000), len(data))])
        for _ in range(draw.choice([1, 1, 4])):
            index = draw.randrange(*ends)
            changed[index] = changed[index] ^ (1 << draw.randrange(8)) if draw.random() < 0.7 else draw.randrange(256)
        if draw.random() < 0.1:
            del changed[draw.randrange(*ends) :]
        elif draw.random() < 0.1:
            index = draw.randrange(*ends)
            changed[index:index] = changed[index : index + draw.randrange(1, 64)]
        out.append(bytes(changed))
    return out


@pytest.mark.parametrize("name", CASES)
def test_nothing_but_errors_of_the_project_escapes(written: Any, tmp_path: Path, name: str) -> None:
    """Whatever is changed in a file: it is read, or refused in one sentence; from recognition on."""
    case = CASES[name]
    path = copied(written(name), tmp_path / "model", case.beside)
    data = (path / case.inside).read_bytes()
    refused = 0
    for changed in changes(data, 50, seed=len(name)):
        (path / case.inside).write_bytes(changed)
        try:
            load_prior(path, flags=case.flags or None, device="cpu")
        except PriorpaintError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 1500
    assert refused > 5
