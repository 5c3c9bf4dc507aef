"""``priorpaint serve`` as a process: what it says, and the examples that call its API."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from priorpaint.cli.serve import _bound
from priorpaint.errors import UsageError
from priorpaint.server.state import STATIC
from tests.server.conftest import hole, photo

ROOT = Path(__file__).parents[2]


def test_a_port_in_use_and_a_foreign_address_are_told_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} cannot be used .*--port"):
            _bound("127.0.0.1", port)
    with pytest.raises(UsageError, match="cannot be used"):
        _bound("192.0.2.1", 0)
    with _bound("127.0.0.1", 0) as free:
        assert free.getsockname()[1] > 0


def test_the_page_asks_no_other_computer() -> None:
    """No address in it leads elsewhere (the name of the format of SVG is none)."""
    for file in STATIC.iterdir():
        if file.suffix != ".jpg":
            text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "http" not in text and "style=" not in text and "onclick" not in text, file


@pytest.mark.slow
def test_the_examples_fill_in_a_picture(address: str, tmp_path: Path) -> None:
    picture, mask = tmp_path / "a.png", tmp_path / "m.png"
    photo().save(picture)
    mask.write_bytes(hole())
    command = [
        sys.executable,
        str(ROOT / "examples/api.py"),
        address,
        str(picture),
        str(mask),
        str(tmp_path / "out.png"),
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert '"state": "done"' in said
    known = np.asarray(Image.open(mask)) == 0
    out = np.asarray(Image.open(tmp_path / "out.png"))
    assert (out[known] == np.asarray(photo())[known]).all() and (out != np.asarray(photo())).any()
    if shutil.which("curl") is None:
        return
    archive = tmp_path / "out.zip"
    subprocess.run(
        ["sh", str(ROOT / "examples/api.sh"), address, picture, mask, archive], check=True, capture_output=True
    )
    assert "a_1.png" in zipfile.ZipFile(archive).namelist()


@pytest.mark.slow
def test_the_page_is_in_the_wheel(tmp_path: Path) -> None:
    copy = tmp_path / "src"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".git", "tests", "docs", "benchmarks", "build", "*.egg-info")
    )
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        str(copy),
    ]
    subprocess.run(build, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {f"priorpaint/server/static/{file.name}" for file in STATIC.iterdir()} <= set(names)
