"""Training pictures in memory, and crops of them that depend only on a seed and the index of the batch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from priorpaint.errors import UsageError
from priorpaint.imaging.idx import Pixels, is_idx
from priorpaint.training.files import class_names, packed, read_pictures

MIN_PICTURES = 8
WIDE_EVERY = 4
# Without held-out pictures of the user's own, one in so many is held out, where there are enough.
HOLD_OUT_EVERY = 50
HOLD_OUT_FROM = 200
_MOST_VALIDATION = 512
_AT_ONCE = 64
_MOST_HELD_OUT = 128
_TRANSPOSE_SHARE = 0.25
_T = TypeVar("_T")
_P = TypeVar("_P", bound=np.generic)


@dataclass(frozen=True)
class _Read:
    """A picture in memory: at its scales, and as it is validated where it may be held out."""

    name: str
    label: str | None
    views: list[Pixels]
    full: Pixels | None


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
            is what `augmentation` says.
        dense: the network is a dense one, for which a place has a meaning.
        whole: every picture is shrunk until its shorter side is ``size``, so that a crop shows (nearly) all of it;
            ``scales`` are then not used.
        hold_out: of at least `HOLD_OUT_FROM` pictures, about one in `HOLD_OUT_EVERY` is kept out of all batches, but
            none of a class with fewer than `HOLD_OUT_EVERY`. Which ones follows from their pixels: copies are kept out
            together, and other pictures, crops or networks do not change the choice.

    Attributes:
        names: the pictures in use.
        num_held_out: how many were kept out.
        held_out: at most 128 of these, evenly chosen, each (H, W, C).
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
        dense: bool = False,
        whole: bool = False,
        hold_out: bool = False,
    ) -> None:
        self.size, self.wide, self.channels = size, wide, channels
        self.skipped: list[str] = []
        self.class_names = class_names(sources) if classes == "auto" else ()
        self.augment = augmentation(augment, sources, upright=whole or bool(self.class_names), dense=dense)
        read = list(self._read(sources, scales, whole=whole, hold_out=hold_out))
        aside = self._chosen(read) if hold_out else []
        self.num_held_out = len(aside)
        self.held_out = [each.full for each in _thinned(aside, _MOST_HELD_OUT) if each.full is not None]
        names = {each.name for each in aside}
        self._keep([each for each in read if each.name not in names])
        self._check_number(sources)
        self._shares = {side: self._cumulative(side) for side in (size, wide) if side}

    def _read(
        self, sources: Sequence[str | Path], scales: Sequence[float], *, whole: bool, hold_out: bool
    ) -> Iterator[_Read]:
        """All pictures that are large enough, in a fixed order; those that may be held out with ``full``."""
        for each in read_pictures(sources, self.channels, self.skipped, pad=self.size):
            picture = each.picture
            if min(picture.size) < self.size:
                width, height = picture.size
                self.skipped.append(f"{each.name} is {width}x{height} pixels, less than a crop of {self.size}.")
                continue
            views = [_shrunk(picture, self.size)] if whole else list(_scaled(picture, scales, self.size))
            aside = hold_out and _set_aside(_array(picture))
            full = (views[0] if whole else _array(picture)) if aside else None
            yield _Read(each.name, each.label, views, full)

    def _chosen(self, read: list[_Read]) -> list[_Read]:
        """The pictures that are held out."""
        if len(read) < HOLD_OUT_FROM:
            return []
        aside = [each for each in read if each.full is not None]
        if not self.class_names:
            return aside
        counts = Counter(each.label for each in read)
        return [each for each in aside if counts[each.label] >= HOLD_OUT_EVERY]

    def _keep(self, read: list[_Read]) -> None:
        """Take pictures for batches."""
        indices = {name: index for index, name in enumerate(self.class_names)}
        labels = [indices.get(each.label or "", 0) for each in read]
        self.names = [each.name for each in read]
        self.counts = [labels.count(index) for index in indices.values()]
        self._pixels = [view for each in read for view in each.views]
        self._labels = np.repeat(np.array(labels, dtype=np.int64), [len(each.views) for each in read])

    def _check_number(self, sources: Sequence[str | Path]) -> None:
        if len(self.names) >= MIN_PICTURES:
            return
        hidden = packed(sources)
        hint = f" There is {hidden[0]} in it; name that file itself." if hidden else ""
        raise UsageError(
            f"Only {len(self.names)} pictures of at least {self.size}x{self.size} pixels were found in "
            f"{', '.join(map(str, sources))} ({len(self.skipped)} files skipped); training needs {MIN_PICTURES}." + hint
        )

    def _cumulative(self, side: int) -> NDArray[np.float64]:
        """Cumulative shares of pictures and scales: by the square root of the area, 0 where no crop fits."""
        areas = np.array([p.shape[0] * p.shape[1] if min(p.shape[:2]) >= side else 0 for p in self._pixels], float)
        if not areas.any():
            raise UsageError(f"No training picture is as large as the wide crops of {side} px; use smaller ones, or 0.")
        roots = np.sqrt(areas).cumsum()
        return np.asarray(roots / roots[-1], dtype=np.float64)

    @property
    def fixed(self) -> bool:
        """Whether a crop is always the picture itself: squares of one size, shown whole and as they are."""
        squares = all(pixels.shape[:2] == (self.size, self.size) for pixels in self._pixels)
        return squares and self.augment == "none"

    def batch(self, index: int, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Batch ``index`` of the endless stream of ``seed``; the same on every machine and after every restart.

        Returns:
            uint8 crops, shape (count, C, size, size); every fourth batch, where wide crops are on, shape
            (count * size^2 / wide^2, C, wide, wide), at least one crop. And their classes, int64, shape (count,); all 0
            where there are no classes.
        """
        rng = np.random.default_rng([seed, index])
        side = self.wide if self.wide and index % WIDE_EVERY == WIDE_EVERY - 1 else self.size
        count = max(1, count * self.size**2 // side**2)
        picks = self._picks(side, count, rng)
        crops = np.stack([_crop(self._pixels[pick], side, rng, self.augment) for pick in picks])
        return _planes(crops), torch.from_numpy(self._labels[picks])

    def encoded(self, encode: Callable[[Tensor], Tensor]) -> Encoded:
        """The pictures as what ``encode`` makes of them, once, where they are `fixed`.

        Args:
            encode: uint8 pictures (N, C, size, size) -> tensors (N, ...).
        """
        parts = range(0, len(self._pixels), _AT_ONCE)
        codes = torch.cat([encode(_planes(np.stack(self._pixels[start : start + _AT_ONCE]))) for start in parts])
        return Encoded(codes.float(), self)

    def picks(self, index: int, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """The numbers of the pictures in batch ``index``, and their classes, both int64 of shape (count,)."""
        picks = self._picks(self.size, count, np.random.default_rng([seed, index]))
        return torch.from_numpy(picks), torch.from_numpy(self._labels[picks])

    def _picks(self, side: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return self._shares[side].searchsorted(rng.random(count), side="right").astype(np.int64)

    def some(self, count: int) -> list[Pixels]:
        """At most ``count`` of the pictures, evenly chosen, each (H, W, C)."""
        return self._pixels[:: max(1, len(self._pixels) // count)][:count]

    def held_out_crops(self, side: int, multiple: int) -> Tensor | None:
        """As `centre_crops`, of ``held_out``; None where there are none."""
        return _centred(self.held_out, side, multiple) if self.held_out else None


@dataclass(frozen=True)
class Encoded:
    """Pictures that were encoded once; batches are those of `Pictures.batch`, without its crops.

    Args:
        codes: one row for each picture.
        pictures: where the codes come from.
    """

    codes: Tensor
    pictures: Pictures

    def batch(self, index: int, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """As `Pictures.batch`, with codes in place of crops."""
        picks, labels = self.pictures.picks(index, count, seed=seed)
        return self.codes[picks], labels


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
    least = side if whole else multiple
    all_pictures = (each.picture for each in read_pictures(sources, channels, skipped, pad=pad))
    pictures = [picture for picture in all_pictures if min(picture.size) >= least]
    if not pictures:
        wanted = f" of at least {side}x{side} pixels" if whole else ""
        raise UsageError(
            f"No held-out picture{wanted} was found in {', '.join(map(str, sources))}; name another folder."
        )
    pictures = _thinned(pictures, _MOST_VALIDATION)
    return _centred([_shrunk(picture, side) if whole else _array(picture) for picture in pictures], side, multiple)


def to_float(pixels: Tensor) -> Tensor:
    """uint8 in 0..255, any shape -> float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def _planes(pictures: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, C) -> (N, C, H, W)."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def augmentation(asked: str, sources: Sequence[str | Path], *, upright: bool, dense: bool) -> str:
    """What is done to crops: ``asked``, or for "auto" what suits the pictures.

    That is "none" for idx files and a dense network, for which a place has a meaning; "flip" for pictures that have an
    ``upright``, which wholes and classes do; and else "photo".
    """
    if asked != "auto":
        return asked
    if dense or any(is_idx(source) for source in sources):
        return "none"
    return "flip" if upright else "photo"


def _thinned(pictures: list[_T], most: int) -> list[_T]:
    """At most ``most`` of the pictures, evenly chosen."""
    return pictures[:: -(-len(pictures) // most) or 1]


def _set_aside(pixels: Pixels) -> bool:
    """Whether a picture is one of those, about one in `HOLD_OUT_EVERY`, that may be held out."""
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=8, key=str(pixels.shape).encode()).digest()
    return int.from_bytes(digest, "big") % HOLD_OUT_EVERY == 0


def _centred(pictures: list[Pixels], side: int, multiple: int) -> Tensor:
    """The middle of pictures (H, W, C), in [-1, 1], shape (N, C, S, S); S as in `centre_crops`."""
    side = min(side, *(min(pixels.shape[:2]) for pixels in pictures)) // multiple * multiple
    crops = []
    for pixels in pictures:
        top, left = ((length - side) // 2 for length in pixels.shape[:2])
        crops.append(pixels[top : top + side, left : left + side])
    return to_float(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))


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
    return turned(pixels[top : top + side, left : left + side], rng, augment)


def turned(crop: NDArray[_P], rng: np.random.Generator, augment: str) -> NDArray[_P]:
    """A crop (H, W, C), mirrored or transposed as it falls out; see ``augment`` of `Pictures`."""
    if augment != "none" and rng.random() < 0.5:
        crop = crop[:, ::-1]
    if augment == "photo" and rng.random() < _TRANSPOSE_SHARE:
        crop = crop.transpose(1, 0, 2)
    return crop
