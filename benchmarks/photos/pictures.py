"""Held-out photos, the squares that are cut out of them, and the masks."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.baselines import Picture
from priorpaint.imaging import mask_generators as masks

# Known pixels on each side of the hole of ``holeN``.
CONTEXT = 96


@dataclass(frozen=True)
class Photo:
    """One picture (1, 3, H, W) in [-1, 1]."""

    name: str
    x: Tensor

    def crop(self, side: int) -> Photo:
        """The square in the middle."""
        height, width = self.x.shape[2:]
        if min(height, width) < side:
            raise SystemExit(f"{self.name} is {width} x {height}; --crop {side} needs pictures of at least that size")
        top, left = (height - side) // 2, (width - side) // 2
        return Photo(self.name, self.x[:, :, top : top + side, left : left + side].contiguous())


@dataclass(frozen=True)
class MaskKind:
    """What is hidden of a picture.

    Attributes:
        name: as the command line and the tables call it.
        make: (side of the square, seed) -> (side, side), True where a pixel is known.
        hole: side of the one hole in the middle, where that is what the mask is.
        framed: whether the square is the hole with CONTEXT pixels around it, and not what ``--crop`` says.
    """

    name: str
    make: Callable[[int, int], masks.Mask]
    hole: int | None = None
    framed: bool = False

    def cropped(self, photo: Photo, side: int) -> Photo:
        """The square that is measured: of ``side``, or framed, which a small picture may cut short."""
        if not self.framed:
            return photo.crop(side)
        assert self.hole is not None
        shortest = min(photo.x.shape[2:])
        if shortest <= self.hole:
            raise SystemExit(f"{photo.name} is {shortest} px on its short side, too small for {self.name}")
        return photo.crop(min(self.hole + 2 * CONTEXT, shortest))


def mask_kind(name: str) -> MaskKind:
    """strokes, holes, box, ``strokesN`` (about N px wide) or ``holeN`` (N x N, in the middle).

    Raises:
        argparse.ArgumentTypeError: another name, or a hole or stroke too small for it.
    """
    if name in _PLAIN:
        return _PLAIN[name]
    found = re.fullmatch(r"(strokes|hole)(\d+)", name)
    if found is None:
        raise argparse.ArgumentTypeError(f"a mask is one of {', '.join(_PLAIN)}, strokesN or holeN, not {name!r}")
    what, number = found[1], int(found[2])
    if number < 4:
        raise argparse.ArgumentTypeError(f"{name!r} is too small; use 4 or more")
    if what == "strokes":
        return MaskKind(name, partial(wide_strokes, width=number))
    return MaskKind(name, lambda size, seed: masks.box(size, number), hole=number, framed=True)


def wide_strokes(size: int, seed: int, width: int) -> masks.Mask:
    """Strokes of about ``width`` px at 256: fewer of 2-4 px, each grown by a square; they hide 5-10 % or a little less.

    Returns:
        (size, size), True where a pixel is known.
    """
    thin = masks.strokes(size, seed, fraction=(0.15 / width, 0.30 / width))
    side = width - 2
    before = side // 2
    padded = F.pad(torch.from_numpy(~thin)[None].float(), (before, side - 1 - before) * 2)
    return np.asarray(F.max_pool2d(padded, side, stride=1)[0] == 0)


_PLAIN = {
    "strokes": MaskKind("strokes", masks.strokes),
    "holes": MaskKind("holes", masks.holes),
    "box": MaskKind("box", lambda size, seed: masks.box(size, 64), hole=64),
}


def read_photos(folder: Path, count: int | None, start: int = 0) -> list[Photo]:
    """``count`` pictures of a folder by name, from number ``start`` on; all that there are where count is None."""
    files = sorted(path for path in folder.glob("*") if path.suffix in {".png", ".webp", ".jpg"})
    if not files:
        raise SystemExit(f"there are no pictures in {folder}; name the folder that holds photos-cid22 with --data")
    chosen = files[start:][:count]
    if not chosen:
        raise SystemExit(f"there are {len(files)} pictures; --start {start} leaves none")
    opened = ((path.stem, Image.open(path, formats=["PNG", "WEBP", "JPEG"])) for path in chosen)
    return [Photo(name, to_tensor(np.asarray(image.convert("RGB")))) for name, image in opened]


def to_tensor(picture: Picture) -> Tensor:
    """(H, W, 3) bytes to (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_bytes(x: Tensor) -> Picture:
    """(3, H, W) in [-1, 1] to (H, W, 3) bytes, rounded."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def composed(filled: Tensor, x: Tensor, known: masks.Mask) -> Tensor:
    """``filled`` in the hole, the true picture elsewhere."""
    return torch.where(torch.from_numpy(known), x, filled)
