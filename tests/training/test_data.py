"""Training pictures: the stream of crops, scales, damaged files."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.training.data import Pictures, centre_crops, to_float


def test_a_batch_depends_only_on_seed_and_number(pictures: Path) -> None:
    first, second = Pictures([pictures], 16), Pictures([pictures], 16)
    first.batch(0, 4, seed=5)
    assert torch.equal(first.batch(7, 4, seed=5), second.batch(7, 4, seed=5))
    assert not torch.equal(first.batch(7, 4, seed=5), first.batch(8, 4, seed=5))
    assert not torch.equal(first.batch(7, 4, seed=5), first.batch(7, 4, seed=6))


def test_every_fourth_batch_is_wide_at_the_same_cost(pictures: Path) -> None:
    stream = Pictures([pictures], 16, wide=32)
    shapes = [tuple(stream.batch(k, 8, seed=0).shape) for k in range(8)]
    assert shapes == ([(8, 3, 16, 16)] * 3 + [(2, 3, 32, 32)]) * 2


def test_crops_are_pieces_of_the_pictures(pictures: Path) -> None:
    source = np.stack([np.asarray(Image.open(p)) for p in sorted(pictures.glob("*.png"))])
    views = [v for t in (source, source[:, :, ::-1]) for v in (t, t.transpose(0, 2, 1, 3))]
    known = {w.tobytes() for v in views for w in _windows(v, 16)}
    batch = Pictures([pictures], 16, scales=(1.0,)).batch(0, 32, seed=0)
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


def test_a_tar_file_gives_the_same_pictures_as_its_folder(pictures: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(pictures, arcname="pictures")
    loose, packed = Pictures([pictures], 16), Pictures([tmp_path / "all.tar"], 16)
    assert torch.equal(loose.batch(3, 4, seed=1), packed.batch(3, 4, seed=1))


def test_a_tar_file_inside_a_folder_is_pointed_at(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    with tarfile.open(tmp_path / "inside" / "all.tar", "w") as tar:
        tar.add(pictures, arcname="pictures")
    with pytest.raises(UsageError, match="all.tar in it; name that file itself"):
        Pictures([tmp_path / "inside"], 16)


def test_grey_and_centre_crops(pictures: Path) -> None:
    assert Pictures([pictures], 16, channels=1).batch(0, 2, seed=0).shape == (2, 1, 16, 16)
    crops = centre_crops([pictures], 128, 8, 3, [])
    picture = np.asarray(Image.open(pictures / "00.png"))
    assert crops.shape == (10, 3, 40, 40)
    assert torch.equal(crops[0], to_float(torch.tensor(picture).permute(2, 0, 1)))
    assert float(crops.min()) >= -1 and float(crops.max()) <= 1


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
