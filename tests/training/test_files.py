"""Class folders and idx files as training data."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.imaging.idx import is_idx, read_idx
from priorpaint.priors.native.mlp import MLPConfig
from priorpaint.priors.native.unet import UNetConfig
from priorpaint.training.config import TrainConfig
from priorpaint.training.data import Pictures, centre_crops
from priorpaint.training.files import class_names, read_pictures
from priorpaint.training.loop import _Run
from tests.training.conftest import draw_pictures

SHARED = Path(__file__).parents[3] / "shared" / "data" / "fashion-mnist"


def write_idx(path: Path, array: np.ndarray) -> Path:
    content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()
    ways: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
    opened = ways.get(path.suffix, open)
    with opened(path, "wb") as file:
        file.write(content)
    return path


def digits(folder: Path, suffix: str = "", count: int = 30) -> Path:
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 256, (count, 12, 10), dtype=np.uint8)
    pixels[:, 0, 0] = np.arange(count) % 11 + 100
    write_idx(folder / f"train-labels-idx1-ubyte{suffix}", (np.arange(count) % 11).astype(np.uint8))
    return write_idx(folder / f"train-images-idx3-ubyte{suffix}", pixels)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_idx_files_are_padded_evenly_and_labelled(tmp_path: Path, suffix: str) -> None:
    source = digits(tmp_path, suffix)
    assert is_idx(source) and not is_idx(tmp_path / "nothing-idx3-ubyte")
    stream = Pictures([source], 16, channels=1, classes="auto", augment="auto")
    assert stream.class_names == tuple(f"{k:02d}" for k in range(11)) and sum(stream.counts) == 30
    assert stream.augment == "none"
    crops, labels = stream.batch(0, 64, seed=0)
    assert crops.shape == (64, 1, 16, 16) and labels.dtype == torch.int64
    assert torch.equal(crops[:, 0, 2, 3].long() - 100, labels)  # 12x10 in 16x16: 2 rows above, 3 columns left
    assert int(crops[:, :, :2].max()) == 0 and int(crops[:, :, :, 13:].max()) == 0
    assert int(crops[:, :, 2:14, 3:13].min()) > 0
    assert Pictures([source], 16, channels=1, classes="none").class_names == ()
    assert centre_crops([source], 128, 4, 1, [], pad=16).shape == (30, 1, 16, 16)


def test_damaged_idx_files_are_one_sentence(tmp_path: Path) -> None:
    source = digits(tmp_path)
    content = source.read_bytes()
    cases = {
        "announces": content[:-1],
        "not an idx file": b"PNG" + content[3:],
        "holds": content + b"x",
    }
    for words, damaged in cases.items():
        source.write_bytes(damaged)
        with pytest.raises(UsageError, match=words):
            read_idx(source)
    packed = tmp_path / "cut-images-idx3-ubyte.xz"
    packed.write_bytes(lzma.compress(content)[:-20])
    with pytest.raises(UsageError, match="unpacked|announces"):
        read_idx(packed)
    source.write_bytes(b"\x00\x00\x08\x03" + b"\xff" * 12)  # announces 2^96 values: nothing of that size is allocated
    with pytest.raises(UsageError, match="announces"):
        read_idx(source)
    write_idx(source, np.zeros((30, 12, 10), dtype=np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(29, dtype=np.uint8))
    with pytest.raises(UsageError, match="29 labels for the 30 pictures"):
        Pictures([source], 16, channels=1)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/fashion-mnist beside the project")
def test_fashion_mnist() -> None:
    source = SHARED / "t10k-images-idx3-ubyte.xz"
    stream = Pictures([source], 32, channels=1, classes="auto", augment="auto", whole=True)
    assert len(stream.names) == 10000 and stream.counts == [1000] * 10
    crops, labels = stream.batch(0, 256, seed=0)
    assert crops.shape == (256, 1, 32, 32) and int(crops[..., :2, :].max()) == 0
    bright = crops.float().mean((1, 2, 3))
    # Pullovers (2) and coats (4) are large and bright; sandals (5) are small.
    assert bright[(labels == 2) | (labels == 4)].mean() > 2 * bright[labels == 5].mean()


@pytest.fixture
def classes(pictures: Path, tmp_path: Path) -> Path:
    """Five cats and five dogs; the red channel of cats is 0, that of dogs 255."""
    root = tmp_path / "classes"
    for index, path in enumerate(sorted(pictures.glob("*.png"))):
        folder = root / ("dogs" if index % 2 else "cats") / "deeper"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.array(Image.open(path))
        pixels[..., 0] = 255 * (index % 2)
        Image.fromarray(pixels).save(folder / path.name)
    return root


def test_subfolders_are_classes(classes: Path) -> None:
    assert class_names([classes]) == ("cats", "dogs")
    stream = Pictures([classes], 16, classes="auto", augment="auto")
    assert (stream.class_names, stream.counts, stream.augment) == (("cats", "dogs"), [5, 5], "flip")
    crops, labels = stream.batch(0, 32, seed=0)
    assert torch.equal(crops[:, 0, 0, 0].long() // 255, labels) and 0 < int(labels.sum()) < 32
    assert torch.equal(stream.batch(0, 32, seed=0)[0], crops)


def test_folders_in_a_tar_file_are_classes_too(classes: Path, pictures: Path, tmp_path: Path) -> None:
    for name, source in (("kinds.tar", classes), ("flat.tar", pictures)):
        with tarfile.open(tmp_path / name, "w") as tar:
            tar.add(source, arcname=".")
    assert class_names([tmp_path / "kinds.tar"]) == ("cats", "dogs")
    assert class_names([tmp_path / "flat.tar"]) == () and class_names([pictures / "00.png"]) == ()
    packed, loose = (Pictures([source], 16, classes="auto") for source in (tmp_path / "kinds.tar", classes))
    for one, other in zip(packed.batch(0, 8, seed=0), loose.batch(0, 8, seed=0), strict=True):
        assert torch.equal(one, other)


def test_folders_that_are_no_classes(pictures: Path, classes: Path) -> None:
    assert class_names([pictures]) == () and class_names([classes, pictures]) == ()
    assert class_names([classes / "cats"]) == ()  # one folder alone
    (classes / "cats").rename(classes / "train")
    (classes / "dogs").rename(classes / "val")
    assert class_names([classes]) == ()  # parts of a data set
    shutil.copy(pictures / "00.png", classes / "loose.png")
    assert class_names([classes]) == ()


def test_whole_pictures_are_shrunk_to_the_size(tmp_path: Path) -> None:
    for index in range(8):
        Image.fromarray(np.full((40, 60 + index, 3), 30 * index, dtype=np.uint8)).save(tmp_path / f"{index}.png")
    stream = Pictures([tmp_path], 16, whole=True)
    assert all(min(p.shape[:2]) == 16 for p in stream.some(8)) and len(stream.some(100)) == 8
    assert stream.batch(0, 4, seed=0)[0].shape == (4, 3, 16, 16)


def test_augmentation(pictures: Path) -> None:
    source = np.stack([np.asarray(Image.open(p)) for p in sorted(pictures.glob("*.png"))])
    for augment, views in {"none": [source], "flip": [source, source[:, :, ::-1]]}.items():
        known = {p[y : y + 32, x : x + 32].tobytes() for v in views for p in v for y in range(9) for x in range(9)}
        stream = Pictures([pictures], 32, scales=(1.0,), augment=augment)
        hits = [
            crop.permute(1, 2, 0).contiguous().numpy().tobytes() in known for crop in stream.batch(0, 40, seed=0)[0]
        ]
        assert all(hits)


def test_wholes_have_an_upright_and_dense_networks_places(pictures: Path) -> None:
    assert Pictures([pictures], 16, augment="auto").augment == "photo"
    assert Pictures([pictures], 16, augment="auto", whole=True).augment == "flip"
    assert Pictures([pictures], 16, augment="auto", dense=True).augment == "none"
    assert Pictures([pictures], 16, augment="flip", dense=True).augment == "flip"


def test_a_run_says_whether_its_network_is_dense(tmp_path: Path) -> None:
    folder = draw_pictures(tmp_path / "squares", side=16)
    for network, augment in ((MLPConfig(16, 8, (8,)), "none"), (UNetConfig((8,), (1,), embedding=8), "flip")):
        config = TrainConfig((str(folder),), str(tmp_path / augment), network=network, size=16, whole=True, crops=8)
        assert _Run(config, lambda report: None).pictures.augment == augment


def test_pictures_of_any_mode(tmp_path: Path) -> None:
    deep = np.full((16, 16), 257 * 128, np.uint16)
    hidden = np.zeros((16, 16, 4), np.uint8)
    hidden[..., 0], hidden[8:] = 255, (0, 0, 255, 255)  # red under full transparency above, blue below
    palette = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16) % 2).convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0])
    Image.fromarray(deep).save(tmp_path / "a-deep.png")
    Image.fromarray(hidden).save(tmp_path / "b-clear.png")
    palette.save(tmp_path / "c-palette.png", transparency=0)
    Image.fromarray(np.zeros((16, 16), np.float32)).save(tmp_path / "d-float.tif")
    Image.fromarray(np.full((16, 16), 70_000, np.int32)).save(tmp_path / "e-long.tif")
    Image.new("L", (16, 16)).save(tmp_path / "f.gif")
    (tmp_path / "notes.txt").write_text("no picture")
    skipped: list[str] = []
    hits = {each.name: each.picture for each in read_pictures([tmp_path], 3, skipped)}
    values = {Path(name).stem: np.asarray(picture) for name, picture in hits.items()}
    assert list(values) == ["a-deep", "b-clear", "c-palette"]
    assert (values["a-deep"] == 128).all()
    assert (values["b-clear"][:8] == 255).all() and (values["b-clear"][8:] == (0, 0, 255)).all()
    assert (values["c-palette"][:, ::2] == 255).all() and (values["c-palette"][:, 1::2] == (0, 255, 0)).all()
    reasons = [Path(line.split(" ")[0]).name + " " + line.split(" ", 1)[1] for line in skipped]
    assert reasons[0].startswith("f.gif is of a format that is not read")
    assert [line.split(" ")[0] for line in reasons[1:]] == ["d-float.tif", "e-long.tif"]
    assert all("not of 8 or 16 bits" in line for line in reasons[1:])


def test_transparency_of_every_kind_is_laid_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[8:] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "a-key.png", transparency=(10, 20, 30))
    half = np.zeros((16, 16, 2), np.uint8)
    half[..., 1] = 51  # black at a fifth: 80 % of white shines through
    Image.fromarray(half, "LA").save(tmp_path / "b-grey.png")
    Image.merge("RGBA", [Image.new("L", (16, 16), value) for value in (255, 0, 0, 51)]).save(tmp_path / "c-half.png")
    skipped: list[str] = []
    read = {Path(each.name).stem: np.asarray(each.picture) for each in read_pictures([tmp_path], 3, skipped)}
    assert not skipped
    assert (read["a-key"][:8] == 0).all() and (read["a-key"][8:] == 255).all()
    assert (read["b-grey"] == 204).all()
    assert (read["c-half"] == (255, 204, 204)).all()


def test_turned_tiffs_stand_upright(tmp_path: Path) -> None:
    pixels = np.zeros((16, 24), np.uint8)
    pixels[:, :12] = 255
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise: what is left comes to the top
    Image.fromarray(pixels).save(tmp_path / "turned.tif", exif=exif)
    (picture,) = (each.picture for each in read_pictures([tmp_path], 1, []))
    assert picture.size == (16, 24)
    assert (np.asarray(picture)[:12] == 255).all() and (np.asarray(picture)[12:] == 0).all()


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2"])
def test_a_tar_file_that_was_cut_is_one_sentence(pictures: Path, tmp_path: Path, kind: str) -> None:
    whole, cut = tmp_path / f"all.tar.{kind}", tmp_path / f"cut.tar.{kind}"
    with tarfile.open(whole, f"w:{kind}") as tar:  # type: ignore[call-overload]
        tar.add(pictures, arcname="all")
    content = whole.read_bytes()
    for length in (len(content) // 2, 100):
        cut.write_bytes(content[:length])
        with pytest.raises(UsageError, match=r"is damaged|is neither a folder"):
            Pictures([cut], 16)


def test_other_formats_in_a_tar_file_are_named(pictures: Path, tmp_path: Path) -> None:
    Image.new("L", (16, 16)).save(pictures / "moving.gif")
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(pictures, arcname="all")
    skipped: list[str] = []
    assert len(list(read_pictures([tmp_path / "all.tar"], 3, skipped))) == 10
    assert [line.split(" ")[0] for line in skipped] == [f"{tmp_path / 'all.tar'}:all/moving.gif"]


def test_what_is_no_file_is_named_and_never_opened(pictures: Path, tmp_path: Path) -> None:
    (pictures / "a-gone.png").symlink_to(tmp_path / "nothing.png")
    (pictures / "b-round.png").symlink_to("b-round.png")
    os.mkfifo(pictures / "c-pipe.png")  # opening it would wait for a writer
    (pictures / "d-pipe.png").symlink_to("c-pipe.png")
    (tmp_path / "elsewhere").mkdir()
    (pictures / "e-folder").symlink_to(tmp_path / "elsewhere")
    (pictures / "f-link.png").symlink_to("00.png")
    (pictures / "notes.txt").symlink_to("nothing")
    skipped: list[str] = []
    assert len(list(read_pictures([pictures], 3, skipped))) == 11
    told = {Path(line.split(" ")[0]).name: line.split(" ", 1)[1] for line in skipped}
    assert sorted(told) == ["a-gone.png", "b-round.png", "c-pipe.png", "d-pipe.png", "e-folder"]
    assert told["a-gone.png"] == told["b-round.png"] == "is a link to a file that is not there; mend or remove it."
    assert told["c-pipe.png"] == told["d-pipe.png"]
    assert told["c-pipe.png"] == "is no file but a pipe, a socket or a device, and was not opened."
    assert told["e-folder"] == "is a link to a folder, which is not followed; name that folder itself."
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(pictures, "all")
    skipped.clear()
    assert len(list(read_pictures([tmp_path / "all.tar"], 3, skipped))) == 10
    names = [line.split(" ")[0].rpartition("/")[2] for line in skipped]
    assert names == ["a-gone.png", "b-round.png", "c-pipe.png", "d-pipe.png", "f-link.png"]
    assert all("is no file but a link or a device" in line for line in skipped)


def drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An EPS picture; a Ghostscript that is found first says on a file that it was started."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("gs", "gswin32c", "gswin64c"):
        (programs / name).write_text(f"#!/bin/sh\necho started >> {tmp_path / 'started'}\nexit 1\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"


def test_a_file_that_is_called_a_picture_starts_no_program(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = drawing(tmp_path, monkeypatch)
    for name in ("x.png", "x.jpg", "x.tif"):
        (pictures / name).write_bytes(content)
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(pictures, "all")
    for source in (pictures, tmp_path / "all.tar"):
        skipped: list[str] = []
        assert len(list(read_pictures([source], 3, skipped))) == 10
        assert len(skipped) == 3 and all("cannot be read as a picture" in sentence for sentence in skipped)
    assert not (tmp_path / "started").exists()


def test_classes_of_a_tar_file_are_folders_and_nothing_above_them(pictures: Path, tmp_path: Path) -> None:
    names = ("../cats/1.png", "/cats/2.png", "./cats/3.png", "../../dogs/4.png", "dogs/../dogs/5.png")
    with tarfile.open(tmp_path / "odd.tar", "w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = (pictures / "00.png").stat().st_size
            with open(pictures / "00.png", "rb") as file:
                tar.addfile(entry, file)
    assert class_names([tmp_path / "odd.tar"]) == ("cats", "dogs")
    with tarfile.open(tmp_path / "flat.tar", "w") as tar:
        for name in ("../1.png", "/2.png"):
            tar.add(pictures / "00.png", name)
    assert class_names([tmp_path / "flat.tar"]) == ()
