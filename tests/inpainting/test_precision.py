"""A network in bfloat16: asked for, recorded, repeated; a sample is still the same alone and in any batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint import DenoiserPrior, Result, UsageError, inpaint, load_prior, schedules
from tests.command_line import exit_code

QUICK: dict[str, Any] = {"num_samples": 1, "steps": 2}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rows, columns = np.indices((36, 36))
    values = 127 + 90 * np.sin(rows / 9)[..., None] * np.cos(columns[..., None] / (7, 11, 13))
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def hole() -> np.ndarray:
    out = np.zeros((36, 36), dtype=bool)
    out[9:-9, 12:-9] = True
    return out


def pixels(result: Result) -> bytes:
    return result.images[0].tobytes()


def test_a_sample_in_bfloat16_is_the_same_to_the_bit_alone_and_in_any_batch(photo: Path) -> None:
    values = np.asarray(Image.open(photo), dtype=np.float32) / 255
    prior = load_prior("photos", device="cpu", dtype=torch.bfloat16)
    first, *others = (inpaint(values, hole(), prior, num_samples=4, batch_size=size, steps=3) for size in (1, 3, 4))
    alone = inpaint(values, hole(), prior, num_samples=1, seed=first.info["sample_seeds"][2:3], steps=3)
    np.testing.assert_array_equal(np.asarray(alone.images[0]), np.asarray(first.images[2]))
    for other in others:
        for one, two in zip(first.images, other.images, strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(two))


def test_the_record_of_a_run_in_bfloat16_repeats_it(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["inpaint", photo, "--box", "10,10,12,9", "-n", "1", "--set", "steps=2", "-o", tmp_path / "out"]
    assert exit_code(monkeypatch, *arguments, "--precision", "bfloat16") == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["call"]["precision"] == "bfloat16"
    again = inpaint(photo, prior=record["prior"]["source"], **record["call"])
    assert pixels(again) == Image.open(tmp_path / "out" / "photo_0.png").tobytes()
    plain = inpaint(photo, prior=record["prior"]["source"], **{**record["call"], "precision": "float32"})
    difference = np.abs(np.asarray(plain.images[0], dtype=int) - np.asarray(again.images[0], dtype=int))
    assert 0 < difference.max() < 40


def test_what_has_no_such_precision_says_so(photo: Path) -> None:
    ready = DenoiserPrior(lambda x, t: 0.5 * x, schedules.EDM(), (3, None, None), name="half")
    with pytest.raises(UsageError, match="half is a ready one with its own precision"):
        inpaint(photo, hole(), ready, precision="bfloat16", **QUICK)
    assert inpaint(photo, hole(), ready, **QUICK).info["call"]["precision"] is None
    with pytest.raises(UsageError, match="precision is float32, bfloat16, float16, not 'double'"):
        inpaint(photo, hole(), precision="double", **QUICK)
