"""``priorpaint theory`` as a user meets it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.command_line import exit_code, finish, start

FAST = ["theory", "--samples", "20", "--seeds", "2", "--rounds", "12"]


def test_table_figure_and_numbers(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code, stdout, stderr = finish(start(*FAST, "--k", "2", "--d", "6", "--known", "4", "-o", tmp_path / "out"))
    assert code == 0 and "Traceback" not in stderr, stderr  # matplotlib may say that it builds its font cache
    assert (
        all(method in stdout for method in ("RePaint ", "RePaint + reverse SDE", "RePaint+ ")) and "rho = 0." in stdout
    )
    numbers = json.loads((tmp_path / "out" / "theory-appendix-b.json").read_text())
    assert numbers["settings"]["rounds"] == 12 and len(numbers["curves"]["RePaint+"]) == 13
    assert sum(numbers["known"]) == 4
    with Image.open(tmp_path / "out" / "theory-appendix-b.png") as picture:
        assert picture.width > 1000 and len(picture.convert("RGB").getcolors(2**24) or []) > 50


def test_json_mask_and_protection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, *FAST, "--json", "--d", "3", "--mask", "011") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["known"] == [0, 1, 1] and numbers["rho"] == pytest.approx(1 / 3)
    (tmp_path / "theory-appendix-b.png").write_bytes(b"mine")
    assert exit_code(monkeypatch, *FAST, "-o", tmp_path) == 2
    assert "use --overwrite" in capsys.readouterr().err
    assert (tmp_path / "theory-appendix-b.png").read_bytes() == b"mine"


def test_an_invisible_direction_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(monkeypatch, *FAST, "--k", "3", "--d", "6", "--known", "1") == 0
    assert "rho = 1: 2 of 3 directions" in capsys.readouterr().out


CHEAP = {
    "noisy": "--training 400 --samples 20 --rounds 5 --d 6 --k 2",
    "masks": "--training 400 --samples 20 --rounds 5 --d 6 --k 2 --masks 4",
    "states": "--calls 10 --samples 20 --d 6 --k 2",
    "marginals": "--samples 20",
    "lecture": "--samples 20",
}


@pytest.mark.parametrize("name", CHEAP)
def test_every_experiment(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its table, its figure and its numbers; the other experiments' files are left alone."""
    pytest.importorskip("matplotlib")
    (tmp_path / "theory-appendix-b.png").write_bytes(b"mine")
    command = ["theory", "--experiment", name, *CHEAP[name].split(), "-o", tmp_path]
    assert exit_code(monkeypatch, *command) == 0
    printed = capsys.readouterr().out
    assert "Monte Carlo" in printed and ("equal" in printed or "below" in printed)
    numbers = json.loads((tmp_path / f"theory-{name}.json").read_text())
    assert numbers["experiment"] == name and all(row["holds"] is not False for row in numbers["table"])
    with Image.open(tmp_path / f"theory-{name}.png") as picture:
        assert picture.width > 1000 and len(picture.convert("RGB").getcolors(2**24) or []) > 50
    assert exit_code(monkeypatch, *command) == 2 and "use --overwrite" in capsys.readouterr().err
    assert (tmp_path / "theory-appendix-b.png").read_bytes() == b"mine"


def test_options_of_another_experiment_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (["--experiment", "round"], "--experiment is one of appendix-b, noisy"),
        (["--experiment", "lecture", "--beta", "0.5"], "--beta is not an option of the experiment lecture; it takes"),
        (["--experiment", "masks", "--mask", "10"], "--mask is not an option of the experiment masks"),
        (["--calls", "10"], "--calls is not an option of the experiment appendix-b"),
        (["--experiment", "states", "--calls", "11"], "10, 100 or 1000"),
        (["--experiment", "noisy", "--training", "10"], "at least 200 samples"),
    ):
        assert exit_code(monkeypatch, "theory", *arguments) == 2
        printed = capsys.readouterr()
        assert message in printed.err and printed.out == "" and len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "3"], "1 <= k <= d"),
        (["--known", "5"], "take 0 to 2"),
        (["--known", "2"], "hide at least one"),
        (["--mask", "1"], "2 digits"),
        (["--mask", "1x"], "2 digits"),
        (["--mask", "10", "--known", "1"], "leave one of them out"),
        (["--beta", "1.5"], "between 0 and 1"),
        (["--tolerance", "0"], "--tolerance"),
        (["--basis", "round"], "auto, random or diagonal"),
        (["--basis", "diagonal", "--k", "2", "--d", "4"], "--k 1"),
    ],
)
def test_wrong_use(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, *FAST, *arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.out == "" and len(printed.err.splitlines()) == 1


def test_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert exit_code(monkeypatch, *FAST, "-o", tmp_path / "out") == 1
    assert "pip install 'priorpaint[plot]'" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert exit_code(monkeypatch, *FAST) == 0
