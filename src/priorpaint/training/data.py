"""Training pictures in memory, and crops of them that depend only on a seed and a batch number."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from priorpaint.errors import UsageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
MIN_PICTURES = 8
WIDE_EVERY = 4
_TRANSPOSE_SHARE = 0.25

Pixels = NDArray[np.uint8]


class Pictures:
    """All pictures of some folders, at several scales, as uint8 in memory.

    Args:
        sources: folders (searched recursively), picture files or tar files of pictures.
        size: side of a crop in pixels.
        wide: side of the wide crops of every fourth batch in pixels, 0 for none.
        scales: factors in (0, 1] at which each picture is offered (Lanczos); a scale too small for a crop is left out.
        channels: 3 for RGB, 1 for grey.

    Attributes:
        names: the pictures in use.
        skipped: one sentence for each file that is damaged or too small.

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
    ) -> None:
        self.size, self.wide = size, wide
        self.names: list[str] = []
        self.skipped: list[str] = []
        self._pixels: list[Pixels] = []
        for name, picture in read_pictures(sources, channels, self.skipped):
            if min(picture.size) < size:
                self.skipped.append(f"{name} is {picture.width}x{picture.height} pixels, less than a crop of {size}.")
                continue
            self.names.append(name)
            self._pixels.extend(_scaled(picture, scales, size))
        if len(self.names) < MIN_PICTURES:
            raise UsageError(
                f"Only {len(self.names)} pictures of at least {size}x{size} pixels were found in "
                f"{', '.join(map(str, sources))} ({len(self.skipped)} files skipped); training needs {MIN_PICTURES}."
            )
        self._shares = {side: self._share(side) for side in (size, wide) if side}

    def _share(self, side: int) -> NDArray[np.float64]:
        """How often each picture and scale is drawn: by the square root of its area, 0 where no crop fits."""
        areas = np.array([p.shape[0] * p.shape[1] if min(p.shape[:2]) >= side else 0 for p in self._pixels], float)
        if not areas.any():
            raise UsageError(f"No training picture is as large as the wide crops of {side} px; use smaller ones, or 0.")
        roots = np.sqrt(areas)
        return np.asarray(roots / roots.sum(), dtype=np.float64)

    def batch(self, number: int, count: int, *, seed: int) -> Tensor:
        """Batch ``number`` of the endless stream of ``seed``; the same on every machine and after every restart.

        Returns:
            uint8 crops, shape (count, C, size, size); every fourth batch, where wide crops are on, shape
            (count * size^2 / wide^2, C, wide, wide), at least one crop.
        """
        rng = np.random.default_rng([seed, number])
        side = self.wide if self.wide and number % WIDE_EVERY == WIDE_EVERY - 1 else self.size
        count = max(1, count * self.size**2 // side**2)
        picks = rng.choice(len(self._pixels), count, p=self._shares[side])
        crops = np.stack([_crop(self._pixels[pick], side, rng) for pick in picks])
        return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous()


def read_pictures(
    sources: Sequence[str | Path], channels: int, skipped: list[str]
) -> Iterator[tuple[str, Image.Image]]:
    """Yield (name, picture) in a fixed order, upright, as RGB or grey; damaged files are named in ``skipped``.

    Raises:
        UsageError: a source does not exist, or is neither a folder, a picture nor a tar file.
    """
    mode = "RGB" if channels == 3 else "L"
    for source in sources:
        for name, content in _files(Path(source)):
            try:
                with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as picture:
                    yield name, ImageOps.exif_transpose(picture).convert(mode)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                skipped.append(f"{name} cannot be read as a picture ({error}).")


def centre_crops(sources: Sequence[str | Path], side: int, multiple: int, channels: int, skipped: list[str]) -> Tensor:
    """The middle of every picture, for validation.

    Args:
        side: largest side of a crop in pixels; smaller where the smallest picture asks for it.
        multiple: the side is a multiple of this.

    Returns:
        Pictures in [-1, 1], shape (N, C, S, S).

    Raises:
        UsageError: no picture can be used.
    """
    pictures = [picture for _, picture in read_pictures(sources, channels, skipped) if min(picture.size) >= multiple]
    if not pictures:
        raise UsageError(f"No held-out picture was found in {', '.join(map(str, sources))}; name another folder.")
    side = min(side, *(min(picture.size) for picture in pictures)) // multiple * multiple
    crops = []
    for picture in pictures:
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        crops.append(_array(picture.crop((left, top, left + side, top + side))))
    return to_float(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))


def to_float(pixels: Tensor) -> Tensor:
    """uint8 in 0..255, any shape -> float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def _files(source: Path) -> Iterator[tuple[str, Path | bytes]]:
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        yield from ((str(path), path) for path in paths)
    elif not source.is_file():
        raise UsageError(f"There is no folder or file {source}; check the path of the pictures.")
    elif source.suffix.lower() in SUFFIXES:
        yield str(source), source
    elif tarfile.is_tarfile(source):
        yield from _members(source)
    else:
        raise UsageError(f"{source} is neither a folder, a picture nor a tar file of pictures.")


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(source) as tar:
        wanted = [m for m in tar.getmembers() if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES]
        for member in sorted(wanted, key=lambda m: m.name):
            file = tar.extractfile(member)
            if file is not None:
                yield f"{source}:{member.name}", file.read()


def _array(picture: Image.Image) -> Pixels:
    pixels = np.array(picture, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _scaled(picture: Image.Image, scales: Sequence[float], size: int) -> Iterator[Pixels]:
    for scale in scales:
        width, height = int(picture.width * scale), int(picture.height * scale)
        if min(width, height) >= size:
            same = (width, height) == picture.size
            yield _array(picture if same else picture.resize((width, height), Image.Resampling.LANCZOS))


def _crop(pixels: Pixels, side: int, rng: np.random.Generator) -> Pixels:
    top, left = rng.integers(pixels.shape[0] - side + 1), rng.integers(pixels.shape[1] - side + 1)
    crop = pixels[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    if rng.random() < _TRANSPOSE_SHARE:
        crop = crop.transpose(1, 0, 2)
    return crop
