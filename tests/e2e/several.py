"""A run of several samples as a process, and what it leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image


def picture(folder: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / "photo.png")
    return folder / "photo.png"


def command(photo: Path, prior: Path, out: Path) -> list[object]:
    """The command, of 6 samples of several steps each."""
    method = ["--method", "replacement", "--set", "steps=30", "--threads", "1", "--batch-size", "1"]
    return ["inpaint", photo, "--box", "10,12,9,8", "-o", out, "--prior", prior, "-n", "6", *method]


def completions(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("photo_*.png") if re.fullmatch(r"photo_\d+\.png", file.name))


def check_finished(out: Path, whole: dict[str, bytes]) -> None:
    """All files of a run are there, and no others."""
    assert {file.name: file.read_bytes() for file in completions(out)} == whole
    info = json.loads((out / "run.json").read_text())
    assert sorted(file.name for file in out.iterdir()) == sorted(info["outputs"])
