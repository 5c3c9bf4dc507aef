"""Progress never runs backwards, and the time left that is shown is what the run says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from priorpaint.cli import progress
from priorpaint.inpainting import levels
from tests.command_line import exit_code

LINE = re.compile(r"^ *(\d+)%  (\d+) of (\d+) completions(?:  (\d+) (s|min|h)[^\n]* left)?$", re.MULTILINE)


class Clock:
    """A clock that the test turns."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_the_share_never_falls_and_time_left_counts_down_from_what_the_run_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """100 s of reading, then 1 % a second; four samples are finished 2 s after 92 %."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with progress.Display(4, quiet=False) as display:
        clock.now = 100.0
        for percent in range(1, 93):
            clock.now += 1
            display.step(percent / 100, None if percent == 1 else 100 - percent)
        clock.now += 2
        for _ in range(4):
            display.sample()
        display.step(0.5, 6.0)  # a smaller share changes nothing
        clock.now += 20
        display.step(0.93, 7.0)
        clock.now += 1
        display.step(1.0, 0.0)
        display.sample(0)
    lines = LINE.findall(capsys.readouterr().err)
    shares = [int(line[0]) for line in lines]
    assert shares == sorted(shares) and shares[-1] == 100
    for share, finished, _, left, unit in lines:
        if 1 < int(share) <= 92:
            assert unit == "s" and int(left) == 100 - int(share) - 2 * (finished != "0")
    assert [line[1] for line in lines if line[0] == "92"] == ["1", "2", "3", "4"]
    assert lines[-1][3] == ""  # nothing is left


def test_a_run_of_several_windows_scales_and_samples_only_advances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(levels, "MAX_AREA", 64 * 64)
    monkeypatch.setattr(levels, "COARSE_ABOVE", 24)
    values = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "photo.png")
    run = ["inpaint", tmp_path / "photo.png", "--box", "4,4,60,50", "--box", "90,60,20,20", "-o", tmp_path / "out"]
    few = ["-n", "3", "--batch-size", "2", "--set", "steps=3", "--threads", "1"]
    assert exit_code(monkeypatch, *run, *few) == 0
    lines = LINE.findall(capsys.readouterr().err)
    shares, counts = ([int(line[index]) for line in lines] for index in (0, 1))
    assert len(set(shares)) > 5 and shares == sorted(shares) and shares[-1] == 100
    assert counts == sorted(counts) and counts[-1] == 3
    assert all(share < 100 or count > 0 for share, count in zip(shares, counts, strict=True))


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (99, "99 s"), (125, "2 min"), (7800, "2 h 10 min"), (1e6, "12 days")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words
