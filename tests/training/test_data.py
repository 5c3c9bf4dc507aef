"""Training pictures: the stream of crops, scales, damaged files."""

from __future__ import annotations

import errno
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.training.checks import remarks
from priorpaint.training.config import TrainConfig
from priorpaint.training.data import Pictures, centre_crops, to_float
from tests.training.conftest import draw_pictures


def test_a_batch_depends_only_on_seed_and_number(pictures: Path) -> None:
    first, second = Pictures([pictures], 16), Pictures([pictures], 16)
    first.batch(0, 4, seed=5)
    assert torch.equal(first.batch(7, 4, seed=5)[0], second.batch(7, 4, seed=5)[0])
    assert not torch.equal(first.batch(7, 4, seed=5)[0], first.batch(8, 4, seed=5)[0])
    assert not torch.equal(first.batch(7, 4, seed=5)[0], first.batch(7, 4, seed=6)[0])


def test_every_fourth_batch_is_wide_at_the_same_cost(pictures: Path) -> None:
    stream = Pictures([pictures], 16, wide=32)
    shapes = [tuple(stream.batch(k, 8, seed=0)[0].shape) for k in range(8)]
    assert shapes == ([(8, 3, 16, 16)] * 3 + [(2, 3, 32, 32)]) * 2


def test_crops_are_pieces_of_the_pictures(pictures: Path) -> None:
    source = np.stack([np.asarray(Image.open(p)) for p in sorted(pictures.glob("*.png"))])
    views = [v for t in (source, source[:, :, ::-1]) for v in (t, t.transpose(0, 2, 1, 3))]
    known = {w.tobytes() for v in views for w in _windows(v, 16)}
    batch = Pictures([pictures], 16, scales=(1.0,)).batch(0, 32, seed=0)[0]
    assert batch.dtype == torch.uint8
    assert all(crop.permute(1, 2, 0).contiguous().numpy().tobytes() in known for crop in batch)


def _windows(pictures: np.ndarray, side: int) -> list[np.ndarray]:
    rows, columns = pictures.shape[1] - side + 1, pictures.shape[2] - side + 1
    return [p[y : y + side, x : x + side] for p in pictures for y in range(rows) for x in range(columns)]


def test_damaged_and_small_files_are_named_and_skipped(pictures: Path) -> None:
    (pictures / "broken.jpg").write_bytes(b"no picture")
    good = (pictures / "00.png").read_bytes()
    (pictures / "cut.png").write_bytes(good[: len(good) // 2])
    Image.new("RGB", (8, 40)).save(pictures / "small.png")
    stream = Pictures([pictures], 16)
    assert len(stream.names) == 10
    assert sorted(Path(s.split(" ")[0]).name for s in stream.skipped) == ["broken.jpg", "cut.png", "small.png"]


def test_too_few_pictures_is_one_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "one.png")
    with pytest.raises(UsageError, match="Only 1 pictures"):
        Pictures([tmp_path], 16)
    with pytest.raises(UsageError, match="no folder or file"):
        Pictures([tmp_path / "nowhere"], 16)
    with pytest.raises(UsageError, match="neither a folder"):
        (tmp_path / "notes.txt").write_text("words")
        Pictures([tmp_path / "notes.txt"], 16)


@pytest.mark.parametrize("locked", ["", "inner"])
def test_a_folder_that_cannot_be_read_is_no_empty_one(
    pictures: Path, locked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "inner").mkdir()
    enter = os.scandir

    def refuse(path: str) -> object:
        if Path(path) == pictures / locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return enter(path)

    assert len(Pictures([pictures], 16).names) == 10
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match="cannot be read .Permission denied.; change its permissions, or leave it out"):
        Pictures([pictures], 16)


@pytest.mark.parametrize(("top", "told"), [(4095, True), (65535, False)])
def test_pictures_of_12_bits_in_files_of_16_are_told(tmp_path: Path, top: int, told: bool) -> None:
    rng = np.random.default_rng(0)
    for k in range(10):
        Image.fromarray(rng.integers(0, top, (20, 20)).astype(np.uint16)).save(tmp_path / f"{k}.png")
    stream = Pictures([tmp_path], 16, channels=1)
    said = " ".join(remarks(TrainConfig((str(tmp_path),), str(tmp_path / "out"), crops=1), stream))
    assert ("10 of 10 pictures that were looked at use less than an eighth of the way" in said) is told


def test_a_tar_file_gives_the_same_pictures_as_its_folder(pictures: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(pictures, arcname="pictures")
    loose, packed = Pictures([pictures], 16), Pictures([tmp_path / "all.tar"], 16)
    assert torch.equal(loose.batch(3, 4, seed=1)[0], packed.batch(3, 4, seed=1)[0])


def test_a_tar_file_inside_a_folder_is_pointed_at(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    with tarfile.open(tmp_path / "inside" / "all.tar", "w") as tar:
        tar.add(pictures, arcname="pictures")
    with pytest.raises(UsageError, match="all.tar in it; name that file itself"):
        Pictures([tmp_path / "inside"], 16)


def test_grey_and_centre_crops(pictures: Path) -> None:
    assert Pictures([pictures], 16, channels=1).batch(0, 2, seed=0)[0].shape == (2, 1, 16, 16)
    crops = centre_crops([pictures], 128, 8, 3, [])
    picture = np.asarray(Image.open(pictures / "00.png"))
    assert crops.shape == (10, 3, 40, 40)
    assert torch.equal(crops[0], to_float(torch.tensor(picture).permute(2, 0, 1)))
    assert float(crops.min()) >= -1 and float(crops.max()) <= 1


def test_of_many_held_out_pictures_some_are_evenly_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = draw_pictures(tmp_path / "twelve", 12)
    everyone = centre_crops([folder], 16, 4, 3, [])
    monkeypatch.setattr("priorpaint.training.data._MOST_VALIDATION", 8)
    assert torch.equal(centre_crops([folder], 16, 4, 3, []), everyone[::2])


def test_wholes_are_held_out_as_they_are_learned(tmp_path: Path) -> None:
    """White quarters at both ends, of which a crop of the middle would show nothing; what is too small is left out."""
    ends = np.zeros((64, 96, 3), dtype=np.uint8)
    ends[:16] = ends[48:] = 255
    Image.fromarray(ends).save(tmp_path / "ends.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "small.png")
    whole = centre_crops([tmp_path], 32, 8, 3, [], whole=True)
    assert whole.shape == (1, 3, 32, 32)
    assert float(whole[0, :, 10:22].max()) < -0.95
    assert float(whole[0, :, :6].min()) > 0.95 and float(whole[0, :, 26:].min()) > 0.95
    with pytest.raises(UsageError, match="of at least 128x128"):
        centre_crops([tmp_path], 128, 8, 3, [], whole=True)


def numbered(folder: Path, count: int) -> Path:
    """Pictures of one value each: their number in the order of their names."""
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (16, 16), (index % 256, index // 256, 0)).save(folder / f"{index:03d}.png")
    return folder


def numbers(corners: torch.Tensor) -> list[int]:
    """The numbers of pictures, from the colours (N, 3) of their corners."""
    return (corners[:, 0].long() + 256 * corners[:, 1].long()).tolist()


def held_out(stream: Pictures) -> list[int]:
    return numbers(torch.tensor(np.stack([pixels[0, 0] for pixels in stream.held_out])))


def test_one_picture_in_fifty_is_held_out_and_never_learned(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "many", 400)
    stream = Pictures([folder], 16, scales=(1.0,), augment="none", hold_out=True)
    kept_out = held_out(stream)
    # 400 draws with probability 1/50: fewer than 1 or more than 20 has a probability below 1e-3.
    assert 1 <= len(kept_out) == stream.num_held_out <= 20 and len(stream.names) == 400 - len(kept_out)
    # 6000 draws of fewer than 400 pictures: one of them is missed with probability 400 exp(-15) < 2e-4.
    learned = set(numbers(stream.batch(0, 6000, seed=0)[0][:, :, 0, 0]))
    assert learned == set(range(400)) - set(kept_out)
    crops = stream.held_out_crops(16, 4)
    assert crops is not None and torch.equal(crops[:, 0, 0, 0], to_float(torch.tensor(kept_out) % 256))


def test_which_pictures_are_held_out_follows_from_their_pixels(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "many", 400)
    chosen = held_out(Pictures([folder], 16, hold_out=True))
    twice = Pictures([folder, folder], 16, augment="none", scales=(1.0,), hold_out=True)
    assert sorted(held_out(twice)) == sorted(2 * chosen)
    assert not set(numbers(twice.batch(0, 4000, seed=0)[0][:, :, 0, 0])) & set(chosen)
    Image.new("RGB", (16, 16), "white").save(folder / "!first.png")  # moves every other by one place
    assert set(chosen) <= set(held_out(Pictures([folder], 16, hold_out=True)))


def test_few_pictures_are_all_learned(tmp_path: Path) -> None:
    few, many = numbered(tmp_path / "few", 199), numbered(tmp_path / "many", 200)
    for stream, count in ((Pictures([few], 16, hold_out=True), 199), (Pictures([many], 16), 200)):
        assert not stream.held_out and stream.held_out_crops(16, 4) is None
        assert len(stream.names) == count
    assert Pictures([many], 16, hold_out=True).held_out


def test_classes_and_wholes_are_held_out_as_they_are_learned(tmp_path: Path) -> None:
    rng, counts = np.random.default_rng(0), {"even": 200, "odd": 200, "rare": 49}
    for kind, (name, count) in enumerate(counts.items()):
        (tmp_path / "kinds" / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            pixels[..., 0] = 100 * kind
            Image.fromarray(pixels).save(tmp_path / "kinds" / name / f"{index:03d}.png")
    parts = Pictures([tmp_path / "kinds"], 16, classes="auto", scales=(1.0, 0.8), augment="none", hold_out=True)
    assert parts.counts[2] == 49 and parts.num_held_out == 400 - sum(parts.counts[:2]) > 0
    assert {pixels.shape for pixels in parts.held_out} == {(20, 30, 3)}
    crops, labels = parts.batch(0, 64, seed=0)
    assert torch.equal(crops[:, 0].float().mean((1, 2)).round().long() // 100, labels)
    wholes = Pictures([tmp_path / "kinds"], 16, whole=True, hold_out=True)
    assert {pixels.shape for pixels in wholes.held_out} == {(16, 24, 3)}
