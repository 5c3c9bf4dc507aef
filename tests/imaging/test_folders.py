"""What is said of the place of the results before any work: rights, names in bytes, room."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.imaging import check_results, check_space, save_picture, size_on_disk, write_text_atomic

CAT = "\N{CJK UNIFIED IDEOGRAPH-732B}"  # three bytes in UTF-8


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def without_rights() -> Iterator[None]:
    """As a user to whom nothing belongs, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [(0o000, "the folder .*locked/o cannot be used .Permission denied."), (0o555, "locked cannot be written to")],
)
def test_a_locked_folder_is_told_before_the_work(open_folder: Path, mode: int, sentence: str) -> None:
    locked = open_folder / "locked"
    locked.mkdir()
    locked.chmod(mode)
    try:
        with without_rights(), pytest.raises(UsageError, match=sentence):
            check_results(locked / "o", [locked / "o" / "a_0.png"], overwrite=False)
    finally:
        locked.chmod(0o755)
    check_results(locked / "o", [locked / "o" / "a_0.png"], overwrite=False)
    assert list(open_folder.rglob("*")) == [locked]


def test_places_that_can_be_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    (tmp_path / "file").touch()
    (tmp_path / "a_0.png").mkdir()
    for folder, sentence in (
        (tmp_path / "link" / "o", "link is a link to nothing; remove it, or choose another folder"),
        (tmp_path / "ring" / "o", "ring/o cannot be used .Too many levels of symbolic links.; choose another one"),
        (tmp_path / "file" / "o", "file is a file, but results go into a folder"),
        (Path("/proc/x"), "the folder /proc cannot be written to"),
        (tmp_path / "nul\0", "cannot be used .embedded null byte."),
        (tmp_path, "a_0.png is a folder, where a result would go"),
    ):
        with pytest.raises(UsageError, match=sentence):
            check_results(folder, [folder / "a_0.png"], overwrite=True)


@pytest.mark.parametrize(("letter", "count"), [("a", 252), (CAT, 84), ("\udce9", 252)])
def test_names_are_counted_in_bytes(tmp_path: Path, letter: str, count: int) -> None:
    """255 bytes are what all common file systems allow; the last letter is a byte that is not UTF-8."""
    assert os.pathconf(tmp_path, "PC_NAME_MAX") == 255
    allowed = tmp_path / f"{letter * (count // 3 * 3 - 3)}aa.png"
    assert len(os.fsencode(allowed.name)) <= 255
    check_results(tmp_path, [allowed], overwrite=False)
    save_picture(Image.new("RGB", (16, 16)), allowed)
    write_text_atomic(allowed.with_suffix(".txt"), "")
    with pytest.raises(UsageError, match=r"the name .* has 256 bytes, and .* allows 255; give the picture or the"):
        check_results(tmp_path, [tmp_path / f"{letter * count}.png"], overwrite=False)
    with pytest.raises(UsageError, match=r"the folder .{80,90} cannot be used .File name too long.; choose another"):
        check_results(tmp_path / (letter * (count + 4)), [tmp_path / "a.png"], overwrite=False)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".png", ".txt"]


def test_a_full_disk_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_space(tmp_path / "o", 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3_000_000))
    check_space(tmp_path / "o", 3_000_000)
    with pytest.raises(UsageError, match=r"need at least 4 MB, and .* has 3 MB left; free some space, or choose"):
        check_space(tmp_path / "o", 4_000_000)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_the_size_of_a_file_is_judged_by_its_middle(tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    noise = Image.fromarray(values)
    save_picture(noise, tmp_path / f"a{suffix}")
    size = (tmp_path / f"a{suffix}").stat().st_size
    assert size_on_disk(f"a{suffix}", noise) == pytest.approx(size, rel=0.03)


def test_a_link_to_nothing_is_not_replaced_unasked(tmp_path: Path) -> None:
    link = tmp_path / "a_0.png"
    link.symlink_to(tmp_path / "elsewhere" / "a.png")
    with pytest.raises(UsageError, match="a_0.png exists already; choose another folder"):
        check_results(tmp_path, [link], overwrite=False)
    check_results(tmp_path, [link], overwrite=True)
