"""`priorpaint masks`: files that `inpaint` takes, of each picture's size, and refusals before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from priorpaint.cli import app
from priorpaint.errors import UsageError
from priorpaint.imaging import read_mask
from priorpaint.imaging.mask_kinds import MASK_KINDS


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of different sizes, one of them turned by its EXIF block."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    grey = np.linspace(0, 255, 40 * 60).reshape(40, 60).astype(np.uint8)
    Image.fromarray(grey).save(folder / "wide.png")
    Image.fromarray(grey).resize((32, 32)).convert("RGB").save(folder / "square.jpg")
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    Image.fromarray(grey).save(folder / "turned.png", exif=exif)
    return folder


def drawn(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["masks", *map(str, words)])


def refused(*words: str | Path) -> str:
    done = drawn(*words)
    assert isinstance(done.exception, UsageError), done.output
    return str(done.exception)


def test_masks_fit_their_pictures_and_white_is_to_be_repainted(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = drawn(pictures, "--kind", "expand", "-o", out)
    assert done.exit_code == 0, done.output
    sizes = {"wide": (60, 40), "square": (32, 32), "turned": (40, 60)}
    assert {path.name for path in out.iterdir()} == {f"{name}_mask.png" for name in sizes} | {"masks_sheet.png"}
    for name, size in sizes.items():
        mask = read_mask(out / f"{name}_mask.png", size)
        assert mask.known[size[1] // 2, size[0] // 2] and not mask.known[0, 0]  # only the middle is known
        assert f"{name}_mask.png  {mask.hole_share:.1%} hidden" in done.output


def test_a_mask_depends_on_seed_name_and_size_alone(pictures: Path, tmp_path: Path) -> None:
    def files(folder: str, *words: str | Path) -> dict[str, bytes]:
        assert drawn("--kind", "random", "--num", "2", "-o", tmp_path / folder, *words).exit_code == 0
        return {path.name: path.read_bytes() for path in (tmp_path / folder).glob("*_mask_*.png")}

    every, alone, other = (
        files("a", pictures), files("b", pictures / "wide.png"), files("c", pictures, "--seed", "1")
    )  # fmt: skip
    assert len(every) == 6 and len(set(every.values())) == 6
    assert alone == {name: every[name] for name in ("wide_mask_0.png", "wide_mask_1.png")}
    assert all(other[name] != every[name] for name in every)


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_text("not a picture")
    done = drawn(pictures, "--kind", "half", "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "broken.png is not a picture" in done.stderr and "1 of 4 pictures have no mask" in done.stderr
    assert len(list((tmp_path / "out").glob("*_mask.png"))) == 3


def test_nonsense_is_refused_before_any_work(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "the kinds are rotated" in refused(pictures, "--kind", "spots", "-o", out)
    assert "name the pictures" in refused("-o", out)
    assert "does not exist" in refused(pictures / "nowhere.png", "-o", out)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no picture in" in refused(empty, "-o", out)
    (tmp_path / "wide.jpg").write_bytes((pictures / "wide.png").read_bytes())
    assert "would both get wide_mask.png" in refused(pictures, tmp_path / "wide.jpg", "-o", out)
    assert "is a file" in refused(pictures, "-o", pictures / "wide.png")
    assert not out.exists()
    assert drawn(pictures, "-o", out).exit_code == 0
    assert "allow overwriting (--overwrite)" in refused(pictures, "-o", out)
    assert drawn(pictures, "-o", out, "--overwrite").exit_code == 0


def test_kinds_are_listed_with_their_sources() -> None:
    lines = drawn("--list").output.splitlines()
    assert [line.split()[0] for line in lines] == list(MASK_KINDS)
    assert "VIPaint" in lines[0] and "half plane" in lines[0]
