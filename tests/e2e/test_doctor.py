"""`priorpaint doctor`: what it finds, and what it says of a library that is missing or too old."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from typer import Exit

import priorpaint
from priorpaint.cli.doctor import doctor, requirements
from tests.command_line import exit_code

NEEDS = (
    "torch>=2.4",
    "left<2,>=3.5; python_version < '3.9'",
    'numpy ; python_version >= "3.10"',
    "tifffile; extra == 'sci'",
    'pillow[a]>=999.1; python_version >= "3.10" and extra == "sci"',
    "priorpaint[sci]; extra == 'all'",
)


def test_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PRIORPAINT_CACHE", str(tmp_path))
    monkeypatch.setattr(metadata, "requires", lambda _: ["torch>=2.4", "pillow>=10.1"])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(bytes(5000))
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    assert exit_code(monkeypatch, "doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["priorpaint"] == priorpaint.__version__
    assert found["versions"]["torch"] == torch.__version__
    assert found["devices"][0]["name"] == "cpu" and found["memory"]["total"] > found["memory"]["free"] > 0
    place = found["folders"]["adapted priors"]
    assert (place["path"], place["variable"]) == (str(tmp_path), "PRIORPAINT_CACHE")
    assert 5000 <= place["bytes"] < 6000  # a file, and a link that is not followed
    assert "photos" in found["priors"] and found["problems"] == []
    assert exit_code(monkeypatch, "doctor") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"folder    adapted priors: {tmp_path}, 5 kB (PRIORPAINT_CACHE)" in lines


def test_what_is_missing_or_too_old(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert requirements(NEEDS) == (
        {"torch": ">=2.4", "numpy": ""},
        {"sci": {"tifffile": "", "pillow": ">=999.1"}},
    )
    monkeypatch.setattr(metadata, "requires", lambda _: [*NEEDS, "not-there-1"])
    assert exit_code(monkeypatch, "doctor") == 1
    printed = capsys.readouterr()
    have = metadata.version("pillow")
    assert f"lacks pillow {have} is older than 999.1; pip install 'priorpaint[sci]'" in printed.out
    assert printed.err == "Warning: not-there-1 is missing; run: pip install --upgrade priorpaint\n"


def test_a_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(Exit):
        doctor()
    printed = capsys.readouterr()
    assert "Warning: torch cannot be imported (ModuleNotFoundError: " in printed.err and "memory" in printed.out
