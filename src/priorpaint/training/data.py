"""Training pictures in memory, and crops of them that depend only on a seed and a batch number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from priorpaint.errors import UsageError
from priorpaint.imaging.idx import Pixels, is_idx
from priorpaint.training.files import class_names, find_pictures, packed, read_pictures

MIN_PICTURES = 8
WIDE_EVERY = 4
_MOST_VALIDATION = 512
_TRANSPOSE_SHARE = 0.25


class Pictures:
    """All pictures of some folders, at several scales, as uint8 in memory.

    Args:
        sources: folders (searched recursively), picture files, tar files of pictures or idx files (MNIST's format,
            whose pictures get an even black border up to ``size``).
        size: side of a crop in pixels.
        wide: side of the wide crops of every fourth batch in pixels, 0 for none.
        scales: factors in (0, 1] at which each picture is offered (Lanczos); a scale too small for a crop is left out.
        channels: 3 for RGB, 1 for grey.
        classes: "auto" takes subfolders that hold all pictures, or the labels of idx files, for classes; "none" not.
        augment: "photo" mirrors half of the crops and transposes a quarter, "flip" only mirrors, "none" neither; "auto"
            is "none" for idx files, "flip" with class folders and for wholes, which have an upright, and else "photo".
        whole: every picture is shrunk until its shorter side is ``size``, so that a crop shows (nearly) all of it;
            ``scales`` are then not used.

    Attributes:
        names: the pictures in use.
        skipped: one sentence for each file that is damaged or too small.
        class_names: the classes; empty for none.
        counts: pictures of each class.
        augment: what "auto" has become.

    Raises:
        UsageError: a source is missing, or fewer than `MIN_PICTURES` pictures can be used.
    """

    def __init__(
        self,
        sources: Sequence[str | Path],
        size: int,
        *,
        wide: int = 0,
        scales: Sequence[float] = (1.0, 0.7, 0.5, 0.35),
        channels: int = 3,
        classes: str = "none",
        augment: str = "photo",
        whole: bool = False,
    ) -> None:
        self.size, self.wide, self.channels = size, wide, channels
        self.names: list[str] = []
        self.skipped: list[str] = []
        self._pixels: list[Pixels] = []
        self.class_names = class_names(sources) if classes == "auto" else ()
        upright = whole or bool(self.class_names)
        self.augment = _augment(sources, upright=upright) if augment == "auto" else augment
        number = {name: index for index, name in enumerate(self.class_names)}
        labels: list[int] = []
        self.counts = [0] * len(number)
        for found in find_pictures(sources, channels, self.skipped, pad=size):
            picture = found.picture
            if min(picture.size) < size:
                self.skipped.append(
                    f"{found.name} is {picture.width}x{picture.height} pixels, less than a crop of {size}."
                )
                continue
            self.names.append(found.name)
            views = [_shrunk(picture, size)] if whole else list(_scaled(picture, scales, size))
            label = number.get(found.label or "", 0)
            if number:
                self.counts[label] += 1
            self._pixels.extend(views)
            labels.extend([label] * len(views))
        self._labels = np.array(labels, dtype=np.int64)
        if len(self.names) < MIN_PICTURES:
            hidden = packed(sources)
            hint = f" There is {hidden[0]} in it; name that file itself." if hidden else ""
            raise UsageError(
                f"Only {len(self.names)} pictures of at least {size}x{size} pixels were found in "
                f"{', '.join(map(str, sources))} ({len(self.skipped)} files skipped); training needs {MIN_PICTURES}."
                + hint
            )
        self._shares = {side: self._cumulative(side) for side in (size, wide) if side}

    def _cumulative(self, side: int) -> NDArray[np.float64]:
        """Cumulative shares of pictures and scales: by the square root of the area, 0 where no crop fits."""
        areas = np.array([p.shape[0] * p.shape[1] if min(p.shape[:2]) >= side else 0 for p in self._pixels], float)
        if not areas.any():
            raise UsageError(f"No training picture is as large as the wide crops of {side} px; use smaller ones, or 0.")
        roots = np.sqrt(areas).cumsum()
        return np.asarray(roots / roots[-1], dtype=np.float64)

    def batch(self, number: int, count: int, *, seed: int) -> Tensor:
        """Batch ``number`` of the endless stream of ``seed``; the same on every machine and after every restart.

        Returns:
            uint8 crops, shape (count, C, size, size); every fourth batch, where wide crops are on, shape
            (count * size^2 / wide^2, C, wide, wide), at least one crop.
        """
        return self.labelled_batch(number, count, seed=seed)[0]

    def labelled_batch(self, number: int, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """`batch` and the classes of its crops, int64, shape (count,); all 0 where there are no classes."""
        rng = np.random.default_rng([seed, number])
        side = self.wide if self.wide and number % WIDE_EVERY == WIDE_EVERY - 1 else self.size
        count = max(1, count * self.size**2 // side**2)
        picks = self._shares[side].searchsorted(rng.random(count), side="right")
        crops = np.stack([_crop(self._pixels[pick], side, rng, self.augment) for pick in picks])
        return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(self._labels[picks])

    def some(self, count: int) -> list[Pixels]:
        """At most ``count`` of the pictures, evenly chosen, each (H, W, C)."""
        return self._pixels[:: max(1, len(self._pixels) // count)][:count]


def centre_crops(
    sources: Sequence[str | Path],
    side: int,
    multiple: int,
    channels: int,
    skipped: list[str],
    *,
    pad: int = 0,
    whole: bool = False,
) -> Tensor:
    """The middle of every picture, for validation; of more than 512 pictures, evenly chosen ones.

    Args:
        side: largest side of a crop in pixels; smaller where the smallest picture asks for it.
        multiple: the side is a multiple of this.
        pad: see ``read_pictures``.
        whole: pictures of at least ``side`` pixels, shrunk as training pictures are, so that crops show all of them.

    Returns:
        Pictures in [-1, 1], shape (N, C, S, S).

    Raises:
        UsageError: no picture can be used.
    """
    found = read_pictures(sources, channels, skipped, pad=pad)
    pictures = [picture for _, picture in found if min(picture.size) >= (side if whole else multiple)]
    if not pictures:
        wanted = f" of at least {side}x{side} pixels" if whole else ""
        raise UsageError(
            f"No held-out picture{wanted} was found in {', '.join(map(str, sources))}; name another folder."
        )
    pictures = pictures[:: -(-len(pictures) // _MOST_VALIDATION)]
    side = min(side, *(min(picture.size) for picture in pictures)) // multiple * multiple
    crops = []
    for picture in pictures:
        pixels = _shrunk(picture, side) if whole else _array(picture)
        top, left = ((length - side) // 2 for length in pixels.shape[:2])
        crops.append(pixels[top : top + side, left : left + side])
    return to_float(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))


def to_float(pixels: Tensor) -> Tensor:
    """uint8 in 0..255, any shape -> float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def _augment(sources: Sequence[str | Path], *, upright: bool) -> str:
    if any(is_idx(source) for source in sources):
        return "none"
    return "flip" if upright else "photo"


def _array(picture: Image.Image) -> Pixels:
    pixels = np.array(picture, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _scaled(picture: Image.Image, scales: Sequence[float], size: int) -> Iterator[Pixels]:
    for scale in scales:
        width, height = int(picture.width * scale), int(picture.height * scale)
        if min(width, height) >= size:
            same = (width, height) == picture.size
            yield _array(picture if same else picture.resize((width, height), Image.Resampling.LANCZOS))


def _shrunk(picture: Image.Image, size: int) -> Pixels:
    """The picture with its shorter side at ``size`` pixels."""
    factor = size / min(picture.size)
    if factor == 1:
        return _array(picture)
    width, height = (max(size, round(side * factor)) for side in picture.size)
    return _array(picture.resize((width, height), Image.Resampling.LANCZOS))


def _crop(pixels: Pixels, side: int, rng: np.random.Generator, augment: str) -> Pixels:
    top, left = rng.integers(pixels.shape[0] - side + 1), rng.integers(pixels.shape[1] - side + 1)
    crop = pixels[top : top + side, left : left + side]
    if augment != "none" and rng.random() < 0.5:
        crop = crop[:, ::-1]
    if augment == "photo" and rng.random() < _TRANSPOSE_SHARE:
        crop = crop.transpose(1, 0, 2)
    return crop
