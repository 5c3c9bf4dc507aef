"""The main job on pictures and masks that nobody thought of, with a prior that answers nothing in no time."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from priorpaint import DenoiserPrior, UsageError, inpaint, plan, schedules
from priorpaint.imaging import read_picture
from priorpaint.imaging.writing import save_picture
from tests.robustness.corpus import Case, cases

PRIOR = DenoiserPrior(lambda x_t, t: torch.zeros_like(x_t), schedules.EDM(), (3, None, None), data_std=0.5)
PHASES = (Phase.explicit, Phase.generate)  # a failure is shown as it was found: making it smaller takes minutes
# The same examples in every run; `deadline` would measure the machine.
ALWAYS = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=PHASES
)


def scratch() -> str | None:
    """Where files need not reach a disk: thousands that do take minutes."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def known_pixels(image: Image.Image, hidden: np.ndarray) -> np.ndarray:
    """The values outside of the holes, with the colours of a palette and the opacity."""
    same = image if image.mode.startswith("I") else image.convert("RGBA")
    return np.asarray(same)[~hidden]


def check(case: Case) -> None:
    """Size, mode and known pixels stay; nothing is raised and nothing is printed by the libraries."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        source, mask = Path(folder, f"picture{case.suffix}"), Path(folder, "mask.png")
        source.write_bytes(case.file)
        Image.fromarray(case.hidden.astype(np.uint8) * 255).save(mask)
        result = inpaint(source, mask, prior=PRIOR, method="replacement", num_samples=1, steps=2)
        out = Path(folder, f"out.{case.to}")
        save_picture(result.images[0], out, result.picture)
        expected = case.upright()
        with Image.open(out) as written:
            written.load()
            assert not written.getexif().get(274, 1) > 1  # it is upright, and says nothing else
            for found in (result.images[0], written):
                assert (found.size, found.mode) == (expected.size, expected.mode)
                assert (known_pixels(found, case.hidden) == known_pixels(expected, case.hidden)).all()


@given(cases())
@settings(ALWAYS, max_examples=1000)
def test_size_mode_and_known_pixels_stay(case: Case) -> None:
    check(case)


@pytest.mark.slow
@given(cases())
@settings(ALWAYS, max_examples=10_000, derandomize=False)
def test_size_mode_and_known_pixels_stay_ten_thousand_times(case: Case) -> None:
    check(case)


@given(cases(), st.data())
@settings(ALWAYS, max_examples=150)
def test_a_damaged_picture_is_read_or_refused_in_one_sentence(case: Case, data: st.DataObject) -> None:
    content = bytearray(case.file)
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(0, 8))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        source = Path(folder, f"picture{case.suffix}")
        source.write_bytes(content)
        try:
            read_picture(source).values()
        except UsageError as error:
            assert str(source) in str(error) and "\n" not in str(error)


@given(st.integers(16, 700), st.integers(16, 700), st.integers(0, 2**32 - 1))
@settings(ALWAYS, max_examples=60)
@example(16, 700, 0)
def test_windows_cover_every_hole_of_any_picture(width: int, height: int, seed: int) -> None:
    """Whatever the holes are, each of their pixels lies in a window of the last scale."""
    rng = np.random.default_rng(seed)
    hidden = np.zeros((height, width), bool)
    for _ in range(int(rng.integers(1, 5))):
        left, top = int(rng.integers(width)), int(rng.integers(height))
        hidden[top : top + int(rng.integers(1, height)), left : left + int(rng.integers(1, width))] = True
    ready = plan(
        np.zeros((height, width, 3), np.uint8), hidden, prior=PRIOR, method="replacement", num_samples=1, steps=2
    )
    covered, windows = np.zeros((height, width), bool), ready.windows
    assert windows
    finest = min(window["scale"] for window in windows)
    for window in (each for each in windows if each["scale"] == finest):
        left, top, wide, high = window["box"]
        left, top = left + window["frame"][0], top + window["frame"][1]
        covered[max(0, top) : max(0, top + high), max(0, left) : max(0, left + wide)] = True
    assert covered[hidden].all()
