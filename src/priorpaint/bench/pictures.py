"""Pictures of a folder, one at a time, as a prior sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UsageError
from ..imaging.arrays import is_array
from ..imaging.picture import on_white
from ..imaging.reading import read_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
Shape = tuple[int, int, int]


def picture_files(folder: Path) -> Iterator[str]:
    """The names of picture files below a folder, relative to it, in order.

    Raises:
        UsageError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; --images takes a folder of pictures.")
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not names:
        raise UsageError(f"there is no picture in {folder} ({', '.join(SUFFIXES)}).")
    yield from names


def prepared(path: Path, shape: Shape) -> Tensor:
    """The middle of a picture, cut to the proportions of ``shape`` (C, H, W) and resized (Lanczos), in [-1, 1].

    One of the right size keeps its values. Transparency is laid on white; one channel is Pillow's grey.

    Raises:
        UsageError: the picture cannot be read.
    """
    channels, height, width = shape
    picture = read_picture(path)
    if is_array(picture.image):
        raise UsageError(f"{path} has values that no picture of 8 bits holds; save it with 8 bits first.")
    image = on_white(picture.image).convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        wide, tall = image.size
        cut = min(wide, round(tall * width / height)), min(tall, round(wide * height / width))
        left, top = (wide - cut[0]) // 2, (tall - cut[1]) // 2
        image = image.crop((left, top, left + cut[0], top + cut[1])).resize((width, height), Image.Resampling.LANCZOS)
    values = np.asarray(image, dtype=np.float32).reshape(height, width, -1).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(values)).div_(127.5).sub_(1)


def digest_of(truth: Tensor) -> str:
    """A hash of a prepared picture's shape and values, 128 bits in hexadecimal."""
    shape = ",".join(map(str, truth.shape)).encode()
    return hashlib.sha256(shape + b":" + truth.contiguous().numpy().tobytes()).hexdigest()[:32]
