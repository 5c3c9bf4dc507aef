"""Avatars as files, and the tool that made the drawings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from priorpaint import solver
from priorpaint.errors import UsageError
from priorpaint.lab.avatars import standard
from priorpaint.lab.avatars.__main__ import main
from priorpaint.lab.avatars.figures import comparison_sheet
from priorpaint.lab.avatars.prior import ExactAvatars
from priorpaint.lab.avatars.writing import write
from priorpaint.training.data import Pictures
from tools.extract_avatars import Drawing, covered


def test_files_hold_the_draw(tmp_path: Path) -> None:
    write(tmp_path / "new", 30, 5)
    written = np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / "new").glob("*.png"))])
    assert np.array_equal(written, standard().pictures(30, 5))
    about = json.loads((tmp_path / "new" / "avatars.json").read_text())
    assert about["combinations"] == standard().draw(30, 5).tolist()
    assert about["seed"] == 5


def test_training_takes_the_folder(tmp_path: Path) -> None:
    write(tmp_path, 12, 0)
    pictures = Pictures([tmp_path], 32)
    assert len(pictures.names) == 12
    assert pictures.skipped == []
    assert pictures.batch(0, 4, seed=0)[0].shape == (4, 3, 32, 32)


def test_classes_are_folders(tmp_path: Path) -> None:
    write(tmp_path, 60, 1, classes="hat")
    column = standard().draw(60, 1)[:, standard().index["hat"]]
    for number, option in enumerate(standard().parts[standard().index["hat"]].options):
        names = sorted(path.stem for path in tmp_path.glob(f"{option.replace(' ', '-')}/*.png"))
        assert names == [f"{row:06d}" for row in np.flatnonzero(column == number)]


@pytest.mark.parametrize("scale", [1, 4])
def test_cells_of_any_size(tmp_path: Path, scale: int) -> None:
    write(tmp_path, 3, 2, scale=scale)
    written = np.stack([np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("*.png"))])
    assert np.array_equal(written, standard().pictures(3, 2)[:, ::2, ::2].repeat(scale, 1).repeat(scale, 2))
    with pytest.raises(UsageError, match="at least 1 pixel"):
        write(tmp_path, 3, 2, scale=0)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1, not 0"):
        write(tmp_path, 0, 0)
    with pytest.raises(UsageError, match="there is no part 'nose'; the parts are left background"):
        write(tmp_path, 1, 0, classes="nose")
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(UsageError, match="is not empty; name another folder"):
        write(tmp_path, 1, 0)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["avatars", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capsys.readouterr()

    code, out, _ = run("write", str(tmp_path / "a"), "--num", "9")
    assert (code, out.split()[0], len(list((tmp_path / "a").glob("*.png")))) == (0, "9", 9)
    code, _, err = run("write", str(tmp_path / "a"))
    assert (code, err.count("\n")) == (2, 1)
    assert "is not empty" in err
    code, _, _ = run("sheet", str(tmp_path / "sheet.png"), "--num", "5")
    assert code == 0
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (12 * 102 + 6, 108)
    for file in (tmp_path / "nowhere" / "sheet.png", tmp_path / "sheet.txt"):
        code, _, err = run("sheet", str(file), "--num", "5")
        assert code == 2 and "in a folder that exists" in err
    code, _, err = run("sheet", str(tmp_path / "sheet.png"), "--method", "magic", "--prior", "exact")
    assert code == 2 and "the methods are" in err


def test_a_method_beside_the_exact_posterior() -> None:
    prior = ExactAvatars()
    picture = np.asarray(comparison_sheet(5, prior, solver("ddnm", steps=4), name="DDNM", samples=2))
    assert prior.nfe.forward == 6 * 2 * 4
    row, column = 28 + 6, 102  # below the heading
    left = 2 * (108 + 14) + (2 * column + 6 + 14) + 6
    first = picture[row : row + 96, left : left + 48]
    assert np.abs(first.astype(int) - picture[row : row + 96, 6 : 6 + 48]).max() <= 1  # the left half is known


def test_paths_become_cells() -> None:
    square = np.array(covered("M2 3h4v2H2z", False))
    assert square.sum() == 8
    assert square[3:5, 2:6].all()
    ring = "M0 0h5v5H0V0Zm1 1h3v3H1z"
    assert np.array(covered(ring, True)).sum() == 25 - 9
    assert np.array(covered(ring, False)).sum() == 25  # both outlines run the same way round
    assert np.array(covered("M0 0h5v5H0V0ZM1 1v3h3V1Z", False)).sum() == 25 - 9
    with pytest.raises(SystemExit, match="does not run along the grid"):
        covered("M0 0L3 3H0Z", False)
    with pytest.raises(SystemExit, match="is not understood"):
        covered("M0 0C1 1 2 2 3 3Z", False)


def test_colours_become_inks() -> None:
    plain = '<path fill="hair" d="M0 0h2v1H0z"/>'
    light = '<g fill="#fff" fill-opacity=".3"><path d="M1 0h2v1H1z"/></g>'
    shade = '<path fill="#000" fill-opacity=".5" d="M0 1h1v1H0z"/>'
    inks = Drawing(plain + light + shade).inks
    assert inks[0][:4] == [(0, 1, 0), (0, 0.7, 0.3), (0.7, 0, 0.3), (1, 0, 0)]
    assert inks[1][0] == (0.5, 0, 0)
    masked = '<mask id="m"><path opacity=".9" d="M4 4h1v1H4z" fill="hair"/></mask>'
    inside = Drawing(masked + '<g mask="url(#m)"><path fill="hair" d="M0 0h16v16H0z"/></g>').inks
    assert inside[4][4] == (0, 1, 0)
    assert sum(ink != (1, 0, 0) for row in inside for ink in row) == 1
