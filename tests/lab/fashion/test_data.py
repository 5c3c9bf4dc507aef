"""Fashion-MNIST as tensors: places, ranges, and what is said where it is absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from priorpaint.errors import UsageError
from priorpaint.lab.fashion import CLASSES, SIZE, pictures
from priorpaint.training.data import Pictures
from tests.lab.fashion.made_up import write_idx


def written(folder: Path, num: int = 6, side: int = 28, labels: list[int] | None = None) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (num, side, side))
    write_idx(folder / "t10k-images-idx3-ubyte.gz", pixels)
    write_idx(folder / "t10k-labels-idx1-ubyte", np.array(range(num) if labels is None else labels))
    return pixels


def test_pictures_are_padded_and_scaled(tmp_path: Path) -> None:
    pixels = written(tmp_path)
    x, labels = pictures(tmp_path, "t10k")
    assert x.shape == (6, 1, SIZE, SIZE) and x.dtype == torch.float32 and labels.tolist() == [0, 1, 2, 3, 4, 5]
    middle = torch.from_numpy(pixels / 127.5 - 1).float()
    assert torch.allclose(x[:, 0, 2:30, 2:30], middle, atol=1e-6)
    border = x.clone()
    border[:, :, 2:30, 2:30] = -1
    assert bool((border == -1).all())


def test_indices_keep_their_order(tmp_path: Path) -> None:
    written(tmp_path)
    every, _ = pictures(tmp_path, "t10k")
    x, labels = pictures(tmp_path, "t10k", [4, 0, 4])
    assert labels.tolist() == [4, 0, 4] and torch.equal(x, every[[4, 0, 4]])
    assert pictures(tmp_path, "t10k", range(0))[0].shape == (0, 1, SIZE, SIZE)


def test_training_sees_the_same_pixels(tmp_path: Path) -> None:
    """`priorpaint train` pads idx pictures as this module does, so a prior and the classifier see the same pictures."""
    written(tmp_path, num=12, labels=[0] * 12)
    source = tmp_path / "t10k-images-idx3-ubyte.gz"
    crop = Pictures([source], SIZE, channels=1, augment="none")
    x, _ = pictures(tmp_path, "t10k")
    assert all(np.array_equal(a.squeeze(), b) for a, b in zip(crop._pixels, _bytes(x), strict=True))


def _bytes(x: torch.Tensor) -> np.ndarray:
    return ((x[:, 0] + 1) * 127.5).round().to(torch.uint8).numpy()


@pytest.mark.parametrize(
    ("split", "indices", "message"),
    [("test", None, "splits of Fashion-MNIST"), ("t10k", [6], "0 to 5"), ("t10k", [-1], "0 to 5")],
)
def test_what_there_is_not(tmp_path: Path, split: str, indices: list[int] | None, message: str) -> None:
    written(tmp_path)
    with pytest.raises(UsageError, match=message):
        pictures(tmp_path, split, indices)


def test_absent_or_foreign_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dataset-fashion-mnist.*--data"):
        pictures(tmp_path, "train")
    written(tmp_path, side=20)
    with pytest.raises(UsageError, match="no pictures of Fashion-MNIST"):
        pictures(tmp_path, "t10k")


def test_labels_are_needed(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UsageError, match="no labels"):
        pictures(tmp_path, "t10k")


def test_labels_above_nine_are_of_something_else(tmp_path: Path) -> None:
    written(tmp_path, labels=[0, 1, 2, 3, 4, 10])
    with pytest.raises(UsageError, match="labels to 10"):
        pictures(tmp_path, "t10k")


def test_the_real_files(shared: Path, tmp_path: Path) -> None:
    """1000 test pictures a class, and the mean of the pixels that is known of this set."""
    x, labels = pictures(shared / "data" / "fashion-mnist", "t10k")
    assert x.shape == (10_000, 1, SIZE, SIZE)
    assert torch.bincount(labels).tolist() == [1000] * len(CLASSES)
    assert float((x[:, :, 2:30, 2:30] + 1).mean()) / 2 == pytest.approx(0.2868, abs=1e-3)
    boots = x[labels == CLASSES.index("ankle boot"), 0, 2:30, 2:30]
    assert float(boots[:, 24:].mean()) > float(boots[:, :4].mean())  # soles are below
