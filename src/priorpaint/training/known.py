"""Crops of the known pixels of pictures with holes: what is hidden is never looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from priorpaint.imaging.filling import smooth_fill
from priorpaint.training.data import WIDE_EVERY, turned

SHARE = 0.5
"""Of a crop that is known, at least, where such crops are found."""
_TRIES = 8
# Hidden pixels have this much say in a pixel of a smaller view that counts as known, for rounding.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class KnownPicture:
    """A picture of which a part is known.

    Args:
        values: (C, H, W) in [-1, 1], 0 where a pixel is hidden, whatever was there.
        known: bool (H, W).
    """

    values: Tensor
    known: Tensor

    @classmethod
    def of(cls, values: Tensor, known: Tensor) -> KnownPicture:
        """With hidden values, finite or not, put out."""
        known = known.to("cpu", torch.bool)
        return cls(torch.where(known, values.to("cpu", torch.float32), torch.zeros(())), known)

    def around_the_hole(self, most: int) -> KnownPicture:
        """The part of a large picture that lies around what is hidden and has at most so many pixels; the picture
        itself where it is small, wholly known, or hidden in places too far apart."""
        sides = self.known.shape
        hidden = ~self.known
        if self.known.numel() <= most or not bool(hidden.any()):
            return self
        spans = [hidden.any(dim).nonzero() for dim in (1, 0)]
        ends = [(int(span[0]), int(span[-1]) + 1) for span in spans]

        def part(margin: int) -> tuple[slice, slice]:
            rows, columns = (
                slice(max(0, first - margin), min(side, last + margin))
                for (first, last), side in zip(ends, sides, strict=True)
            )
            return rows, columns

        fitting = [margin for margin in range(max(sides)) if self.known[part(margin)].numel() <= most]
        if not fitting:
            return self
        rows, columns = part(fitting[-1])
        return KnownPicture(self.values[:, rows, columns], self.known[rows, columns])

    def hashes(self) -> tuple[str, str]:
        """SHA-256 of the known values, and of the mask, in hexadecimal."""
        values = np.ascontiguousarray(self.values.numpy()).tobytes()
        mask = np.packbits(self.known.numpy()).tobytes()
        shape = repr(tuple(self.values.shape)).encode()
        return hashlib.sha256(shape + values).hexdigest(), hashlib.sha256(mask).hexdigest()


@dataclass(frozen=True)
class _View:
    """A picture at one scale: values and, behind them, 1 where they are known, (H, W, C + 1); the numbers of these
    pixels."""

    pixels: NDArray[np.float32]
    places: NDArray[np.int32]


class KnownCrops:
    """Crops that depend only on known pixels, a seed and the index of the batch.

    A crop is drawn around a known pixel, each of which is as likely as any other, at a place that is as likely as any
    other that has it inside. Hidden pixels in it have smooth values, made of the known ones around.

    Args:
        pictures: with at least one known pixel each.
        side: of a crop in pixels; no picture is smaller.
        wide: side of the crops of every fourth batch in pixels, fewer at the same cost; 0 for none. No picture is
            smaller.
        scales: factors in (0, 1] at which each picture is offered; one that is too small for a crop is left out.
        augment: "photo" mirrors half of the crops and transposes a quarter, "flip" only mirrors, "none" neither.
    """

    def __init__(
        self,
        pictures: Sequence[KnownPicture],
        side: int,
        scales: Sequence[float],
        augment: str,
        *,
        wide: int = 0,
    ) -> None:
        self.side, self.wide, self.augment = side, wide, augment
        self._views = [view for picture in pictures for view in _views(picture, side, scales)]
        self._shares = {length: self._cumulative(length) for length in (side, wide) if length}

    def _cumulative(self, side: int) -> NDArray[np.float64]:
        """Cumulative shares of the views: by the square root of what is known, 0 where no crop fits."""
        counts = [len(view.places) * (min(view.pixels.shape[:2]) >= side) for view in self._views]
        roots = np.sqrt(counts).cumsum()
        return np.asarray(roots / roots[-1], dtype=np.float64)

    def batch(self, index: int, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Batch ``index`` of the endless stream of ``seed``.

        Returns:
            Crops (count, C, side, side) in [-1, 1], and 1 where a pixel is known, (count, 1, side, side); of every
            fourth batch, where wide crops are on, (count * side^2 / wide^2, ..., wide, wide).
        """
        rng = np.random.default_rng([seed, index])
        side = self.wide if self.wide and index % WIDE_EVERY == WIDE_EVERY - 1 else self.side
        count = max(1, count * self.side**2 // side**2)
        crops = np.stack([turned(self._crop(side, rng), rng, self.augment) for _ in range(count)])
        planes = torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous()
        return planes[:, :-1], planes[:, -1:]

    def _crop(self, side: int, rng: np.random.Generator) -> NDArray[np.float32]:
        view = self._views[int(self._shares[side].searchsorted(rng.random(), side="right"))]
        for _ in range(_TRIES):
            crop = _any_crop(view, side, rng)
            if crop[..., -1].mean() >= SHARE:
                break
        return crop


def _any_crop(view: _View, side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A crop around some known pixel."""
    lengths = view.pixels.shape[:2]
    inside = divmod(int(view.places[rng.integers(len(view.places))]), lengths[1])
    top, left = (
        int(rng.integers(max(0, at - side + 1), min(at, length - side) + 1))
        for at, length in zip(inside, lengths, strict=True)
    )
    return view.pixels[top : top + side, left : left + side]


def _views(picture: KnownPicture, side: int, scales: Sequence[float]) -> list[_View]:
    whole = smooth_fill(picture.values[None], picture.known)[0]
    views = []
    for scale in scales:
        size = tuple(int(length * scale) for length in picture.known.shape)
        if min(size) < side:
            continue
        values, known = whole, picture.known
        if size != tuple(known.shape):
            values = _resized(values[None], size, "bicubic")[0].clamp(-1, 1)
            known = _resized(known[None, None].float(), size, "bilinear")[0, 0] > 1 - _ROUNDING
        pixels = torch.cat([values, known[None].float()]).permute(1, 2, 0).contiguous().numpy()
        views.append(_View(pixels, np.flatnonzero(known.numpy()).astype(np.int32)))
    return [view for view in views if len(view.places)]


def _resized(x: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
    return F.interpolate(x, size=size, mode=mode, antialias=True, align_corners=False)
