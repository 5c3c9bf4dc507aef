"""``priorpaint certify`` as a user meets it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import priorpaint
from priorpaint.lab.certify import PROBLEMS, Certificate
from tests.command_line import exit_code

SMALL = ["certify", "--problem", "G1", "--budget", "5", "--draws", "1", "-n", "32", "--workers", "1"]


def test_a_run_and_an_update(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", tmp_path / "out", "--no-figures"]
    assert exit_code(monkeypatch, *SMALL, "--method", "replacement", "--method", "dps:scale=0.3", *out) == 0
    shown = capsys.readouterr()
    assert "dps:scale=0.3" in shown.out and "error over the floor" in shown.out
    assert re.search(r"2/2 dps:scale=0.3 G1 NFE 5: \d\S* x floor in \d\S* CPU s", shown.err)
    first = Certificate.read(tmp_path / "out" / "certification.json")
    assert (
        first.methods == ["replacement", "dps:scale=0.3"] and "CPU s" in (tmp_path / "out/certification.md").read_text()
    )

    assert exit_code(monkeypatch, *SMALL, "--method", "pigdm", *out, "--update", "--quiet", "--json") == 0
    shown = capsys.readouterr()
    assert [cell["method"] for cell in json.loads(shown.out)["cells"]] == ["pigdm"]
    assert "NFE" not in shown.err
    both = Certificate.read(tmp_path / "out" / "certification.json")
    assert both.cells[:2] == first.cells and both.methods[2] == "pigdm"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "magic"], "no method 'magic'"),
        (["--problem", "M17"], "no problem 'M17'"),
        (["--method", "dps:scale"], "NAME:key=value"),
        (["--write-docs"], "run it in a checkout"),
    ],
)
def test_errors_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code(monkeypatch, "certify", *arguments, "--workers", "1") == 2
    shown = capsys.readouterr()
    assert shown.out == "" and message in shown.err and len(shown.err.splitlines()) == 1


def test_the_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(monkeypatch, "certify", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(PROBLEMS) and lines[0].startswith("G1") and "* 2-D Gaussian" in lines[0]


@pytest.mark.slow
def test_processes_give_the_same_numbers_and_ctrl_c_keeps_cells(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(priorpaint.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "priorpaint", "certify", "--method", "dps", "--problem", "G1", "--no-figures"]
    small = [*command, "--problem", "M3", "--budget", "5", "--draws", "2", "-n", "32"]
    cells = []
    for workers in ("1", "2"):
        out = tmp_path / workers
        subprocess.run([*small, "--workers", workers, "-o", out], env=environment, check=True, capture_output=True)
        cells.append([(cell.problem, cell.measures) for cell in Certificate.read(out / "certification.json").cells])
    for (name, one), (other, two) in zip(*cells, strict=True):
        assert name == other
        assert [part.sliced for part in one] == pytest.approx([part.sliced for part in two], rel=1e-4)

    long = [*command, "--budget", "3", "--budget", "1000000", "--workers", "2", "-o", tmp_path / "long"]
    for number, to in ((signal.SIGINT, os.kill), (signal.SIGTERM, os.killpg)):  # a terminal and a service manager
        process = subprocess.Popen(
            long, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "NFE 3:" in line:
                break
        to(process.pid, number)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 128 + number and "Traceback" not in stderr
        assert "1 of 2 cells are finished and in" in stderr
        assert [cell.budget for cell in Certificate.read(tmp_path / "long" / "certification.json").cells] == [3]
