"""`priorpaint inpaint` with the options of masks: what is printed and written, from files, pipes and nothing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import exit_code, finish, start
from tests.e2e.test_cli import FAST, hole, mask, photo

__all__ = ["mask", "photo"]  # fixtures


class Piped(io.TextIOWrapper):
    """Stdin that holds bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))


def test_a_mask_comes_through_a_pipe(
    photo: Path, mask: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["--prior", prior, "--samples", "1", *FAST]
    assert exit_code(monkeypatch, "inpaint", photo, mask, "-o", tmp_path / "a", *run) == 0
    monkeypatch.setattr(sys, "stdin", Piped(mask.read_bytes()))
    assert exit_code(monkeypatch, "inpaint", photo, "-", "-o", tmp_path / "b", *run) == 0
    outputs = [(tmp_path / folder / "photo_0.png").read_bytes() for folder in "ab"]
    assert outputs[0] == outputs[1]
    first, second = (json.loads((tmp_path / folder / "run.json").read_text())["mask"] for folder in "ab")
    assert second == {**first, "path": None}


def test_a_pipe_is_opened_once(photo: Path, mask: Path, prior: Path, tmp_path: Path) -> None:
    """As the shell's <(...) gives one, which is empty the second time."""
    with subprocess.Popen(["cat", str(mask)], stdout=subprocess.PIPE) as cat:
        assert cat.stdout is not None
        monitor = tmp_path / "pipe"
        run = ["inpaint", photo, monitor, "-o", tmp_path / "out", "--prior", prior, "--samples", "1", *FAST]
        monitor.symlink_to(f"/proc/{os.getpid()}/fd/{cat.stdout.fileno()}")
        code, _, err = finish(start(*run))
    assert code == 0, err
    out = np.asarray(Image.open(tmp_path / "out" / "photo_0.png"))
    changed = (out != np.asarray(Image.open(photo))).any(axis=2)
    assert changed.any() and not changed[hole() == 0].any()


@pytest.mark.parametrize("data", [b"", b"not a picture"])
def test_a_pipe_without_a_mask_is_refused(
    data: bytes, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Piped(data))
    assert exit_code(monkeypatch, "inpaint", photo, "-", "-o", photo.parent / "out") == 2
    error = capsys.readouterr().err
    assert ("The mask is not a picture" if data else "nothing came") in error
    assert not (photo.parent / "out").exists()


def test_a_preview_is_all_that_is_written(
    photo: Path,
    mask: Path,
    prior: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ["inpaint", photo, mask, "-o", tmp_path / "out", "--prior", prior, "--preview", *FAST]
    assert exit_code(monkeypatch, *run, "--grow", "2", "--extend", "0,0,8,0") == 0
    file, facts = capsys.readouterr().out.splitlines()
    assert [Path(file)] == list((tmp_path / "out").iterdir()) and Path(file).name == "photo_preview.png"
    assert facts.startswith("73x48, ") and "to repaint" in facts and "4 samples" in facts
    shown = np.asarray(Image.open(file)).astype(int)
    assert ((shown[..., 0] - shown[..., 1]) > 100).any()  # the tint
    assert exit_code(monkeypatch, *run) == 2
    assert "exists already" in capsys.readouterr().err
    assert exit_code(monkeypatch, *run, "--overwrite") == 0


def test_all_options_together_change_the_hole_and_nothing_else(
    photo: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.array(Image.open(photo))
    marked = values.copy()
    marked[10:16, 20:40] = 255, 0, 255
    marked[30:34, 4:9] = 0, 255, 255
    Image.fromarray(marked).save(tmp_path / "marked.png")
    run = ["--prior", prior, "--samples", "1", *FAST, "-o", tmp_path / "out", "--box", "50,40,6,6"]
    colours = ["--mask-color", "#ff00ff", "--mask-color", "cyan", "--tolerance", "0", "--mask-diff", photo]
    options = [*colours, "--grow", "2", "--feather", "3", "--extend", "4,0,0,3"]
    assert exit_code(monkeypatch, "inpaint", tmp_path / "marked.png", *run, *options) == 0
    out = np.asarray(Image.open(tmp_path / "out" / "marked_0.png"))
    info = json.loads((tmp_path / "out" / "run.json").read_text())
    assert out.shape == (51, 69, 3) and info["call"]["extend"] == [4, 0, 0, 3]
    changed = (out[:48, 4:] != marked).any(axis=2)
    allowed = np.zeros((48, 65), dtype=bool)
    for top, left, bottom, right in (
        (8, 18, 18, 42),
        (28, 2, 36, 11),
        (38, 48, 48, 58),
        (0, 0, 48, 2),
        (46, 0, 48, 65),
    ):
        allowed[top:bottom, left:right] = True
    assert changed.any() and not changed[~allowed].any()
    assert changed[11:15, 21:39].all(axis=1).any()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--mask-color, --mask-diff or --extend"),
        (["{mask}", "--tolerance", "3"], "--tolerance is for --mask-color and --mask-diff"),
        (["{mask}", "--invert", "--mask-means", "keep"], "turn the mask round twice"),
        (["{mask}", "--extend", "1,2,3"], "left,top,right,bottom"),
        (["{mask}", "--grow", "-90"], "is gone; shrink it less"),
        (["{mask}", "--mask-color", "#00ff00", "--tolerance", "0"], "the nearest is"),
        (["--mask-color", "15"], "single values"),
        (["--mask-diff", "{mask}", "--tolerance", "255"], "differ nowhere by more than"),
        (["--mask-diff", "gone.png"], "gone.png does not exist"),
        (["--extend", "0,0,9,0", "--feather", "3"], "--grow 3"),
    ],
)
def test_options_that_cannot_be_meant_are_one_sentence(
    arguments: list[str],
    sentence: str,
    photo: Path,
    mask: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [text.format(mask=mask) for text in arguments]
    assert exit_code(monkeypatch, "inpaint", photo, *filled, "-o", photo.parent / "out") == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and "Traceback" not in error
    assert not (photo.parent / "out").exists()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("mask_values_0_1", ["--mask-color", "1"]),
        ("mask_red_on_black", ["--mask-color", "#ff0000"]),
        ("mask_voc_palette", ["--mask-color", "1"]),
    ],
)
def test_masks_that_people_brought(
    name: str,
    advice: list[str],
    shared: Path,
    prior: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is advised for each of these files works as it is typed."""
    cases = shared / "data" / "cases"
    if not cases.exists():
        pytest.skip("these files are not here")
    run = ["inpaint", cases / "base.png", cases / f"{name}.png", "-o", tmp_path, "--prior", prior, "--preview"]
    assert exit_code(monkeypatch, *run) == 2
    error = capsys.readouterr().err
    assert "(806 pixels)" in error and "everywhere" not in error
    assert advice[1] in error.rpartition("add ")[2]
    assert exit_code(monkeypatch, *run, *advice) == 0
    assert "96x80, 10.5% to repaint (806 pixels)" in capsys.readouterr().out
