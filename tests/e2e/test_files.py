"""Files as users bring them, through the whole program: names of any bytes, places without rights, what is not kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import priorpaint
from priorpaint.cli.terminal import echo
from priorpaint.lab.certify.report import Grid, print_grid
from tests.command_line import exit_code, finish, start

FAST = ["-n", "1", "--box", "8,8,10,10", "--method", "replacement", "--set", "steps=2", "--threads", "1"]
SIZE = (40, 32)


def photo(path: Path, mode: str = "RGB", **saved: object) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path, **saved)
    return path


def program(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    source = str(Path(priorpaint.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "priorpaint", *map(os.fsencode, arguments)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": source, **environment},
        timeout=120,
    )


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_a_name_that_is_not_utf_8_comes_out_as_it_went_in(tmp_path: Path, prior: Path, encoding: str) -> None:
    name = photo(tmp_path / os.fsdecode(b"caf\xe9 \xe7\x8c\xab.png"))
    out = tmp_path / "o"
    done = program("inpaint", name, "-o", out, "--prior", prior, *FAST, PYTHONIOENCODING=encoding)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    names = done.stdout.splitlines()
    assert names[0] == os.fsencode(out) + b"/caf\xe9 \xe7\x8c\xab_0.png"
    assert all(os.path.exists(file) for file in names) and len(names) == 4  # one sample has no uncertainty
    about = json.loads((out / "run.json").read_text())
    assert os.fsencode(about["image"]["path"]) == os.fsencode(name)


def test_a_name_gives_no_orders_to_a_terminal(
    tmp_path: Path, prior: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = photo(tmp_path / "a\x1b[31mred\x07.jpg", comment="mine")
    run = ["inpaint", name, "-o", tmp_path / "o", "--prior", prior, *FAST, "--format", "tiff"]
    assert exit_code(monkeypatch, *run) == 0
    piped = capsys.readouterr()
    assert "\x1b" not in piped.err and "TIFF cannot keep the comment of" in piped.err and "a\\x1b[31mred" in piped.err
    assert "a\x1b[31mred\x07_0.tif" in piped.out
    assert exit_code(monkeypatch, *run) == 2  # the files exist already
    assert "a\\x1b[31mred\\x07_0.tif" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert exit_code(monkeypatch, *run, "--overwrite") == 0
    assert "\x1b" not in capsys.readouterr().out


def test_lines_are_kept_and_what_steers_a_terminal_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    echo("a\tb\nc\r\x1b[2J\x9b\u202egpj grün 猫")
    assert capsys.readouterr().out == "a\\tb\nc\\r\\x1b[2J\\x9b\\u202egpj grün 猫\n"


@pytest.mark.parametrize("letter", ["a", "\N{CJK UNIFIED IDEOGRAPH-732B}"])
def test_long_names_are_written_or_refused_before_the_work(
    tmp_path: Path, prior: Path, letter: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """STEM_uncertainty.npy and STEM_uncertainty.png are the longest: 16 bytes beside the stem, of 255."""
    size = len(letter.encode())
    fits = photo(tmp_path / f"{letter * (238 // size)}.png")
    run = ["-o", tmp_path / "o", "--prior", prior, *FAST, "-n", "2"]
    assert exit_code(monkeypatch, "inpaint", fits, *run) == 0
    assert len(list((tmp_path / "o").iterdir())) == 7
    capsys.readouterr()
    long = photo(tmp_path / f"{letter * (246 // size)}.png")
    assert exit_code(monkeypatch, "inpaint", long, *run) == 2
    said = capsys.readouterr().err
    assert "bytes, and" in said and "allows 255; give the picture or the folder a shorter name" in said
    assert len(list((tmp_path / "o").iterdir())) == 7


def test_opaque_rgba_goes_into_a_jpeg(tmp_path: Path, prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = photo(tmp_path / "a.png", "RGBA")
    assert (
        exit_code(monkeypatch, "inpaint", name, "-o", tmp_path / "o", "--prior", prior, *FAST, "--format", "jpg") == 0
    )
    for ending in ("0", "mean"):
        with Image.open(tmp_path / "o" / f"a_{ending}.jpg") as image:
            assert (image.mode, image.size) == ("RGB", SIZE)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_hole_that_becomes_opaque_goes_into_a_jpeg(
    tmp_path: Path, prior: Path, mode: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(photo(tmp_path / "a.png", mode)) as image:
        alpha = Image.new("L", SIZE, 255)
        alpha.paste(0, (8, 8, 18, 18))
        image.putalpha(alpha)
        image.save(tmp_path / "a.png")
    options = [option for option in FAST if option not in ("--box", "8,8,10,10")]
    run = ["inpaint", tmp_path / "a.png", "--mask-from-alpha", "-o", tmp_path / "o", "--prior", prior, *options]
    assert exit_code(monkeypatch, *run, "--format", "jpg", "--no-read-back") == 0
    with Image.open(tmp_path / "o" / "a_0.jpg") as image:
        assert (image.mode, image.size) == (mode[:-1], SIZE)
    run[2:3] = ["--box", "20,20,9,9"]  # the transparent pixels stay
    assert exit_code(monkeypatch, *run, "--format", "jpg", "--overwrite") == 2
    assert "cannot keep the picture's transparency; write PNG, WebP or TIFF instead" in capsys.readouterr().err


CASES = Path(__file__).parents[3] / "shared" / "data" / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the cases")
@pytest.mark.parametrize("format", ["png", "jpg", "webp", "tiff", "same"])
@pytest.mark.parametrize(
    "name", ["tiff_resolution_0_over_0.tif", "photo_exif_xmp_rotated.jpg", "grey_with_gray_icc.png"]
)
def test_cases_of_others(name: str, format: str, tmp_path: Path, prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ["inpaint", CASES / name, "-o", tmp_path, "--prior", prior, *FAST, "--format", format]
    assert exit_code(monkeypatch, *run) == 0
    (completion,) = tmp_path.glob("*_0.*")
    with Image.open(completion) as image, Image.open(CASES / name) as given:
        turned = given.getexif().get(274, 1) > 4
        assert image.size == (given.size[::-1] if turned else given.size)
        assert (b"GRAY" in image.info.get("icc_profile", b"")[:20]) == (name.startswith("grey") and format != "webp")


@pytest.mark.slow
@pytest.mark.parametrize("box", ["600000,4,8,8", "4,600000,8,8"])
def test_a_strip_takes_little_more_memory_than_its_pixels(box: str, prior: Path, tmp_path: Path) -> None:
    """The libraries take 0.25 GB. Pillow holds 4 bytes of a pixel for each picture, of which there are six at the end:
    the input, two completions, the mean, and uncertainty as numbers and colours.
    """
    size = (1_250_000, 16) if box.startswith("6") else (16, 1_250_000)
    Image.new("RGB", size, (9, 90, 200)).save(tmp_path / "strip.tif")
    few = ["--prior", prior, "-n", "2", "--method", "replacement", "--set", "steps=2", "--threads", "1", "--quiet"]
    process = start("inpaint", tmp_path / "strip.tif", "--box", box, "-o", tmp_path / "out", *few)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert finish(process)[0] == 0
    assert usage.ru_maxrss * 1024 < 0.4e9 + 40 * size[0] * size[1]


EVIL = "\x1b[2J\x9b1m\u202egpj[red]"


@pytest.mark.parametrize(
    "command",
    [
        [EVIL],
        ["inpaint", "a.png", "m.png", EVIL],
        ["inpaint", "a.png", f"--{EVIL}"],
        ["inpaint", "a.png", "--box", EVIL],
        ["priors", "info", "a", EVIL],
        ["masks", "--kind", EVIL, "a.png"],
    ],
)
def test_a_wrong_command_line_is_told_without_orders_to_a_terminal(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, *command) == 2
    told = capsys.readouterr()
    assert not set("\x1b\x9b\u202e") & set(told.out + told.err) and "\\x1b" in told.err


@pytest.mark.parametrize("place", ["picture", "mask", "difference", "folder"])
def test_a_path_that_the_system_does_not_take_is_one_short_sentence_before_the_work(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long, name = "a/" * 2500 + "b", photo(tmp_path / "a.png")
    command: dict[str, list[object]] = {
        "picture": [long, "--box", "8,8,10,10"],
        "mask": [name, long],
        "difference": [name, "--mask-diff", long],
        "folder": [name, "--box", "8,8,10,10", "-o", long],
    }
    monkeypatch.chdir(tmp_path)
    assert exit_code(monkeypatch, "inpaint", *command[place]) == 2
    told = capsys.readouterr().err
    assert "(5001 bytes) is longer than the system allows; give a shorter one." in told and len(told) < 250
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_tables_and_bars_show_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["[red]dps[/red]", EVIL]
    print_grid(Grid(EVIL, names, [names, names]), Console(width=200))
    told = capsys.readouterr().out
    assert told.count("[red]dps[/red]") == 3 and told.count("\\x1b[2J\\x9b1m\\u202egpj[red]") == 4
    assert not set("\x1b\x9b\u202e") & set(told)
