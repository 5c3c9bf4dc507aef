"""``priorpaint bench`` as a user types it: what it prints, what it leaves behind, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import priorpaint
from tests.command_line import exit_code

GRID = """
masks = ["rotated"]
methods = ["A = ddnm:steps=2", "B = dps:steps=2"]
samples = 2
settings = "default"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the commands run in, with a grid and two pictures."""
    (tmp_path / "grid.toml").write_text(GRID)
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.png"):
        pixels = np.random.default_rng(ord(name[0])).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    return exit_code(monkeypatch, "bench", "grid.toml", "--prior", "avatars", "--images", "pictures", *arguments)


def test_from_a_grid_to_a_report(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert run(monkeypatch, "-o", "out", "--metric", "psnr", "--limit", 3) == 0
    first = (place / "out" / "done.jsonl").read_text()
    assert first.count("\n") == 3
    assert capsys.readouterr().out.split() == ["out/report.md", "out/report.json", "out/report.html"]
    assert run(monkeypatch, "-o", "out", "--metric", "psnr") == 2
    assert capsys.readouterr().err == "priorpaint: out holds a benchmark already; add --resume to go on with it.\n"
    assert run(monkeypatch, "-o", "out", "--metric", "psnr", "--resume", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (place / "out" / "done.jsonl").read_text().startswith(first)
    assert report["missing"] == 0 and [one["method"] for one in report["cases"][0]["methods"]] == ["A", "B"]
    assert list((place / "out").rglob("*.part")) == []


def test_a_dry_run_counts_and_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert run(monkeypatch, "-o", "out", "--dry-run", "--json", "-n", 5, "--seed", 1, "--seed", 2) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers.pop("seconds") > 0
    # 2 pictures, 2 seeds, 5 samples of 2 steps of each method.
    assert numbers == {"cells": 8, "left": 8, "nfe_forward": 40, "nfe_backward": 40}
    assert run(monkeypatch, "-o", "out", "--dry-run") == 0
    assert "4 cells (2 pictures, 1 masks and operators, 2 methods" in capsys.readouterr().out
    assert not (place / "out").exists()


def test_a_picture_that_cannot_be_read_is_told_and_the_rest_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (place / "pictures" / "c.png").write_bytes(b"no picture")
    assert run(monkeypatch, "-o", "out", "--method", "ddnm:steps=2") == 3
    assert "Warning: pictures/c.png is not a picture" in capsys.readouterr().err
    assert (place / "out" / "done.jsonl").read_text().count("\n") == 2
    assert "c.png" in (place / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "nosuch"], "there is no method 'nosuch'"),
        (["--mask", "nosuch"], "there is no kind of masks 'nosuch'"),
        (["--operator", "nosuch"], "there is no operator 'nosuch'"),
        (["--metric", "nosuch"], "there is no metric 'nosuch'; the metrics are"),
        (["--metric", "lpips"], "--lpips FILE"),
        (["--metric", "frechet"], "--features FILE"),
        (["--lpips", "nosuch.safetensors"], "nosuch.safetensors"),
        (["--settings", "fast"], "'fast' is not one of reference, paper, default, budget=N"),
        (["--method", "ddnm", "--method", "ddnm"], "'ddnm' stands there twice"),
        (["--guidance", "3"], "add --label"),
        (["--label", "red"], "the word folder, not 'red'"),
        (["--label", "10000"], "class"),
        (["--size", "64"], "leave --size out"),
        (["--noise", "nan"], "sigma_y"),
        (["--images", "nosuch"], "there is no folder nosuch"),
        (["-o", "grid.toml"], "cannot be used for results"),
    ],
)
def test_nonsense_is_one_sentence_and_no_work(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], said: str
) -> None:
    assert run(monkeypatch, "-o", "out", *arguments) in (1, 2)
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert not (place / "out" / "plan.json").exists() and not (place / "out" / "cells").exists()


def test_a_suite_without_prior_says_what_to_fetch(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert exit_code(monkeypatch, "bench", "vipaint-table1-imagenet64") == 2
    said = capsys.readouterr().err
    assert "needs --prior NAME and --images FOLDER" in said and "edm-imagenet-64x64-cond-adm.pkl" in said
    assert exit_code(monkeypatch, "bench", "nosuch") == 2 and "the suites are" in capsys.readouterr().err
    assert exit_code(monkeypatch, "bench") == 2 and "--list" in capsys.readouterr().err
    assert exit_code(monkeypatch, "bench", "--list") == 0
    assert "vipaint-table4\n  VIPaint, Table 4" in capsys.readouterr().out


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(place: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(priorpaint.__file__).parents[1])}
    command = [sys.executable, "-m", "priorpaint", "bench", "grid.toml", "--prior", "avatars", "--images", "pictures"]
    slow = ["-o", "out", "--method", "ddnm:steps=2", "--method", "dps:steps=5000"]
    log = place / "out" / "done.jsonl"
    with subprocess.Popen([*command, *slow], env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not (log.exists() and log.read_bytes().endswith(b"\n")):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert "Stopped: 1 of 4 cells are finished and in out; --resume goes on." in said and "Traceback" not in said
    assert log.read_text().count("\n") == 1
