"""A prior of a fixed size on pictures of any size: overlapping windows, fused at each denoising call.

Fusing the denoiser's answers (Bar-Tal et al. 2023, "MultiDiffusion") lets neighbouring windows agree step by step,
where completions that were drawn one after the other would only meet at their seams.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.transitions import like
from ..errors import UsageError
from .base import Denoising, Prior, rows_of, times_of
from .cfg import condition_inside
from .wrapped import WrappedPrior

FITS = ("windows", "resize")
OVERLAP = 0.5
ROWS = 16
# Standard deviation of the detail that `resize` cannot know, in units of image values.
DETAIL = 0.05


class TiledPrior(WrappedPrior):
    """A fixed-size prior, such as one of 256x256 pixels, whose ``denoise`` takes (N, C, H, W) of any H and W.

    ``windows`` keeps the scale of the picture: windows of the prior's size cover it, evenly spaced, neighbours sharing
    at least ``overlap`` of their side, and their answers are averaged with weights that fall smoothly to their borders:

        D(x_t, t) = sum_w h_w D_inner(x_t[w], t) / sum_w h_w,    h_w = sin^2 x sin^2

    A picture that is smaller than the prior is continued by reflection. Each window sees its own part alone, so this
    is for priors of textures and scenes, at the scale that they know.

    ``resize`` shrinks the picture until its shorter side, or the one that is short for the prior's format, is that of
    the prior, and lays windows along the other side only. With z = x_t / alpha and box averages A, A z is the small
    picture with noise of standard deviation kappa sigma / alpha, so the prior denoises it at the time with that ratio;
    the answer is enlarged (U), and what the small picture does not hold is taken from z by the Wiener filter of white
    detail of standard deviation d:

        D(x_t, t) = U D_inner(A z) + d^2 / (d^2 + (sigma / alpha)^2) (z - U A z)

    This is for priors of whole things, such as faces; the result holds no detail finer than the prior's pixels. A
    picture that would have to be enlarged goes through ``windows``.

    On pictures of the prior's own size both are the prior itself, exactly. The result is differentiable, no row feels
    another one, and ``nfe`` counts what runs: one evaluation a window and row.

    Args:
        prior: the prior; a side of its ``shape`` that is None is one window.
        fit: ``windows`` or ``resize``.
        overlap: least share of a window's side that it has in common with the next, in [0, 1).
        rows: windows that are computed together, over all rows of a batch; less takes less memory.
        detail: d, > 0, in units of image values.

    Raises:
        UsageError: values out of range, or a prior under one label a row (condition the TiledPrior instead).
    """

    def __init__(
        self,
        prior: Prior,
        fit: str = "windows",
        *,
        overlap: float = OVERLAP,
        rows: int = ROWS,
        detail: float = DETAIL,
    ) -> None:
        if fit not in FITS:
            raise UsageError(f"a fixed-size prior fits a picture by {' or '.join(FITS)}, not by {fit!r}")
        if not 0 <= overlap < 1 or rows < 1 or not detail > 0:
            raise UsageError("windows need an overlap in [0, 1), at least one row at a time and detail > 0")
        condition = condition_inside(prior)
        if condition is not None and condition.rows is not None:
            raise UsageError(
                "a prior with one label a row cannot be cut into windows; use CFGPrior(TiledPrior(prior), ...)"
            )
        super().__init__(
            prior,
            shape=(prior.shape[0], None, None),
            multiple=prior.multiple if None in prior.shape else 1,
            window=prior.image_shape[1:],
            fit=fit,
        )
        self.fit, self.overlap, self.chunk, self.detail = fit, overlap, rows, detail

    @property
    def window(self) -> tuple[int | None, int | None]:
        """(height, width) of the prior inside."""
        return self.inner.shape[1], self.inner.shape[2]

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        times, small = times_of(t, x_t), None
        if self.fit == "resize":
            small = self._small_size(x_t.shape[2], x_t.shape[3])
        return self._fused(x_t, times, given) if small is None else self._resized(x_t, times, given, small)

    def _fused(self, x_t: Tensor, t: Tensor, given: Mapping[str, Tensor] | None) -> Denoising:
        height, width = x_t.shape[2:]
        sides = self.window[0] or height, self.window[1] or width
        if sides == (height, width):
            return self.inner.evaluate(x_t, t, given)
        padded = _continued(x_t, sides)
        tops = starts(padded.shape[2], sides[0], self.overlap)
        lefts = starts(padded.shape[3], sides[1], self.overlap)
        corners = [(top, left) for top in tops for left in lefts]
        # Rows in the order window, image: so all windows of one image have its time and its condition.
        parts = torch.cat([padded[:, :, top : top + sides[0], left : left + sides[1]] for top, left in corners])
        answers = self._chunked(parts, t.repeat(len(corners)), _tiled(given, len(x_t), len(corners)))
        weight = _hann(sides[0], len(tops))[:, None] * _hann(sides[1], len(lefts))

        def joined(windows: Tensor) -> Tensor:
            weights = weight.to(windows)
            total = torch.zeros_like(padded)
            norm = total.new_zeros(padded.shape[2:])
            for (top, left), answer in zip(corners, windows.chunk(len(corners)), strict=True):
                right, bottom = padded.shape[3] - left - sides[1], padded.shape[2] - top - sides[0]
                total = total + F.pad(weights * answer, (left, right, top, bottom))
                norm[top : top + sides[0], left : left + sides[1]] += weights
            top, left = (padded.shape[2] - height) // 2, (padded.shape[3] - width) // 2
            return (total / norm)[:, :, top : top + height, left : left + width]

        share = answers.variance_share
        return Denoising(joined(answers.mean), None if share is None else joined(share))

    def _chunked(self, parts: Tensor, t: Tensor, given: Mapping[str, Tensor] | None) -> Denoising:
        rows = [slice(first, first + self.chunk) for first in range(0, len(parts), self.chunk)]
        answers = [
            self.inner.evaluate(parts[r], t[r], None if given is None else {name: v[r] for name, v in given.items()})
            for r in rows
        ]
        shares = [answer.variance_share for answer in answers if answer.variance_share is not None]
        return Denoising(torch.cat([answer.mean for answer in answers]), torch.cat(shares) if shares else None)

    def _small_size(self, height: int, width: int) -> tuple[int, int] | None:
        """The size at which ``resize`` shows the picture to the prior; None where that would not be smaller."""
        if self.window[0] is None or self.window[1] is None:
            return None
        factor = max(self.window[0] / height, self.window[1] / width)
        if factor >= 1:
            return None
        return max(round(height * factor), self.window[0]), max(round(width * factor), self.window[1])

    def _resized(self, x_t: Tensor, t: Tensor, given: Mapping[str, Tensor] | None, small: tuple[int, int]) -> Denoising:
        down, across = (averages(n, m).to(x_t) for n, m in zip(x_t.shape[2:], small, strict=True))
        kappa = float((down.square().sum(1).mean() * across.square().sum(1).mean()).sqrt())
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        time = self.schedule.time_at(kappa * sigma / alpha)
        low_alpha, low_sigma = self.schedule.alpha(time), self.schedule.sigma(time)
        shrunk = down @ x_t @ across.mT
        # alpha_low / alpha = sigma_low / (kappa sigma), written so that it holds where one of them is 0 / 0.
        scale = ((low_alpha**2 + low_sigma**2) / (alpha**2 + (kappa * sigma) ** 2)).sqrt()
        answer = self._fused(like(scale, x_t) * shrunk, time, given)
        gain = self.detail**2 * alpha / ((self.detail * alpha) ** 2 + sigma**2)  # of x_t, so divided by alpha
        rest, share = x_t - _enlarged(shrunk, x_t), answer.variance_share
        return Denoising(
            _enlarged(answer.mean, x_t) + like(gain, x_t) * rest,
            None if share is None else _enlarged(share, x_t).clamp(share.amin(), share.amax()),  # bicubic overshoots
        )


def starts(length: int, side: int, overlap: float) -> list[int]:
    """First pixels of the fewest evenly spaced windows of ``side`` that cover ``length`` >= side with the overlap."""
    step = max(1, math.floor(side * (1 - overlap)))
    count = math.ceil((length - side) / step) + 1
    return [round(i * (length - side) / max(count - 1, 1)) for i in range(count)]


@lru_cache(maxsize=32)
def averages(length: int, small: int) -> Tensor:
    """Box averages (small, length), float64: each small pixel is the mean of the part of the line that it covers."""
    edges = torch.arange(small + 1, dtype=torch.float64) * length / small
    pixels = torch.arange(length, dtype=torch.float64)
    ends = torch.minimum(edges[1:, None], pixels + 1)
    begins = torch.maximum(edges[:-1, None], pixels)
    return (ends - begins).clamp(min=0) * small / length


def _hann(side: int, count: int) -> Tensor:
    """Weights (side,) of one axis, positive everywhere; all equal where one window is all there is."""
    if count == 1:
        return torch.ones(side, dtype=torch.float64)
    return torch.sin(math.pi * (torch.arange(side, dtype=torch.float64) + 0.5) / side).square()


def _continued(x: Tensor, sides: tuple[int, int]) -> Tensor:
    """x (N, C, H, W), reflected evenly on both ends of an axis that is shorter than its side."""
    for axis, side in zip((2, 3), sides, strict=True):
        length = x.shape[axis]
        if length >= side:
            continue
        index = torch.arange(side, device=x.device) - (side - length) // 2
        period = max(2 * length - 2, 1)
        index = index % period
        x = x.index_select(axis, torch.where(index < length, index, period - index))
    return x


def _tiled(given: Mapping[str, Tensor] | None, rows: int, times: int) -> Mapping[str, Tensor] | None:
    if given is None:
        return None
    return {name: rows_of(v, rows).repeat(times, *[1] * (v.ndim - 1)) for name, v in given.items()}


def _enlarged(small: Tensor, x: Tensor) -> Tensor:
    return F.interpolate(small, size=x.shape[2:], mode="bicubic", align_corners=False)
