"""The embedded classifier: files, shapes, and whether it tells garments from what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from typer.testing import CliRunner

from priorpaint.errors import CheckpointError, UsageError
from priorpaint.lab.fashion import Classifier, classifier, pictures
from priorpaint.lab.fashion.__main__ import app
from priorpaint.lab.fashion.checking import check
from priorpaint.lab.fashion.classifier import EMBEDDED, load_classifier
from tests.lab.fashion.made_up import made_up


@pytest.fixture(scope="module")
def embedded() -> Classifier:
    return classifier()


def test_files_round_trip(embedded: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "again.safetensors"
    path.write_bytes(embedded.to_bytes())
    again, x = load_classifier(path), made_up(8)[0]
    assert torch.equal(again.features(x), embedded.features(x)) and again.facts == embedded.facts
    assert (again.confidence, again.reach) == (embedded.confidence, embedded.reach)
    assert EMBEDDED.stat().st_size < 1_000_000


def test_judgements_have_a_row_a_picture(embedded: Classifier) -> None:
    x = made_up(5)[0]
    judged = embedded.judge(x)
    assert judged.features.shape == (5, 64) and judged.distance.shape == (5,) and judged.valid.dtype == torch.bool
    assert torch.allclose(judged.probabilities.sum(1), torch.ones(5))
    alone = torch.cat([embedded.judge(row[None]).features for row in x])
    assert torch.allclose(judged.features, alone, atol=1e-4)
    assert embedded.judge(x[:0]).valid.shape == (0,)


def test_values_beyond_the_range_are_clamped(embedded: Classifier) -> None:
    x = made_up(4)[0] * 3
    assert torch.equal(embedded.features(x), embedded.features(x.clamp(-1, 1)))


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 28, 28), (1, 32, 32)])
def test_other_shapes_are_refused(embedded: Classifier, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="grey pictures"):
        embedded.judge(torch.zeros(shape))


def damaged(content: bytes, kind: str) -> bytes:
    tensors = load(content)
    about = json.loads(_header(content)["fashion_classifier"])
    if kind == "cut":
        return content[: len(content) // 2]
    if kind == "foreign":
        return save({"weight": torch.zeros(2, 2)})
    if kind == "text":
        return b"no tensors here"
    if kind == "newer":
        about["format"] = 99
    if kind == "missing":
        del tensors["network.reduce.weight"]
    if kind == "shape":
        tensors["whiten"] = torch.zeros(3, 3)
    if kind == "nan":
        tensors["means"][0, 0] = float("nan")
    if kind == "threshold":
        del about["reach"]
    return save(tensors, metadata={"fashion_classifier": json.dumps(about)})


def _header(content: bytes) -> dict[str, str]:
    size = int.from_bytes(content[:8], "little")
    found: dict[str, str] = json.loads(content[8 : 8 + size])["__metadata__"]
    return found


@pytest.mark.parametrize("kind", ["cut", "foreign", "text", "newer", "missing", "shape", "nan", "threshold"])
def test_damaged_and_foreign_files_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(damaged(EMBEDDED.read_bytes(), kind))
    with pytest.raises(CheckpointError, match="format 99" if kind == "newer" else "no classifier of Fashion-MNIST"):
        load_classifier(path)


def test_absent_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no classifier"):
        load_classifier(tmp_path / "none.safetensors")


def test_it_knows_test_pictures_and_refuses_noise(embedded: Classifier, shared: Path) -> None:
    """500 pictures: the standard error of a share of 0.9 is 0.013."""
    found = check(embedded, shared / "data" / "fashion-mnist", count=500)
    assert found.pictures == 500 and found.accuracy >= 0.88 and found.valid >= 0.93
    shares = {name: share for name, (share, _) in found.corrupted.items()}
    assert shares["noise"] <= 0.05 and shares["noisy"] <= 0.05
    assert all(share < found.valid - 0.3 for name, share in shares.items() if found.corrupted[name][1])


def test_the_same_picture_is_judged_the_same_in_any_company(embedded: Classifier, shared: Path) -> None:
    x, _ = pictures(shared / "data" / "fashion-mnist", "t10k", range(40))
    assert torch.equal(embedded.judge(x).valid, torch.cat([embedded.judge(row[None]).valid for row in x]))


def test_commands(tmp_path: Path, shared: Path) -> None:
    folder = str(shared / "data" / "fashion-mnist")
    absent = CliRunner().invoke(app, ["check", "--data", str(tmp_path)])
    assert isinstance(absent.exception, UsageError)
    foreign = CliRunner().invoke(app, ["check", "--data", folder, "--weights", str(tmp_path / "none")])
    assert isinstance(foreign.exception, CheckpointError)
