"""The pictures of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017; MIT licence, Zalando SE)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ...errors import UsageError
from ...imaging.idx import Pixels, as_stored, padded, read_idx_pictures

SIZE, CONTENT = 32, 28
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
SYSTEM = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package dataset-fashion-mnist
SPLITS = {"train": 60_000, "t10k": 10_000}


def pictures(
    folder: str | Path | None = None, split: str = "t10k", indices: Sequence[int] | range | None = None
) -> tuple[Tensor, Tensor]:
    """Pictures and their classes, as ``priorpaint train --size 32`` learns them: 28 x 28 in an even black border.

    Args:
        folder: where ``train-images-idx3-ubyte`` and its kin are, also .gz or .xz; None is the folder of the Debian
            package dataset-fashion-mnist.
        split: ``train`` (60,000) or ``t10k`` (10,000).
        indices: which ones, in this order; None is all.

    Returns:
        (N, 1, 32, 32) float32 in [-1, 1], and (N,) int64, places in ``CLASSES``.

    Raises:
        UsageError: there are no such files, they hold something else, or an index is out of range.
    """
    pixels, labels = _read(_images_file(Path(folder) if folder is not None else SYSTEM, split))
    if indices is not None:
        rows = torch.as_tensor(list(indices), dtype=torch.int64)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(pixels):
            raise UsageError(f"the pictures of {split} are numbered 0 to {len(pixels) - 1}; ask for some of these.")
        pixels, labels = pixels[rows.numpy()], labels[rows.numpy()]
    x = torch.from_numpy(padded(pixels, SIZE))[:, None].float() / 127.5 - 1
    return x, torch.from_numpy(labels.astype("int64"))


def _images_file(folder: Path, split: str) -> Path:
    if split not in SPLITS:
        raise UsageError(f"the splits of Fashion-MNIST are {' and '.join(SPLITS)}, not {split!r}.")
    if file := as_stored(folder / f"{split}-images-idx3-ubyte"):
        return file
    raise UsageError(
        f"there are no pictures of Fashion-MNIST ({split}-images-idx3-ubyte, also .gz or .xz) in {folder}; run "
        "`apt-get install dataset-fashion-mnist`, or name the folder that has them with --data FOLDER."
    )


@lru_cache(maxsize=2)
def _read(file: Path) -> tuple[Pixels, Pixels]:
    pixels, labels = read_idx_pictures(file)
    if labels is None:
        raise UsageError(f"there are no labels beside {file}; put the file of labels into the same folder.")
    if pixels.shape[1:] != (CONTENT, CONTENT) or int(labels.max()) >= len(CLASSES):
        raise UsageError(f"{file} holds no pictures of Fashion-MNIST: shape {pixels.shape}, labels to {labels.max()}.")
    return pixels, labels
