"""JPEG compression as a measurement: not linear, not differentiable, and so with a gradient of its own."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from .base import Operator
from .colour import LUMA
from .spectral import Constants, Shape, check_floats, image_shape

Rounding = Literal["straight_through", "cubic"]
Subsampling = Literal["4:2:0", "4:4:4"]

# ITU-T T.81, Annex K, Tables K.1 (luminance) and K.2 (chrominance), in rows.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)


class JPEG(Operator, name="jpeg"):
    """y = the picture after JPEG compression and decompression, an image of the same size.

    Forward it is baseline JPEG as libjpeg does it: JFIF colours, chroma averaged over 2 x 2 pixels and interpolated
    back (4:2:0), 8 x 8 DCT, the standard tables scaled by ``quality``, rounding. Only pixel values are not rounded to 8
    bits. Rounding has no useful gradient, so the gradient is a **surrogate**:

    - ``straight_through``: the forward value is exact and rounding counts as the identity in the gradient, as does the
      clipping to [-1, 1] at the end;
    - ``cubic``: rounding is replaced by round(v) + (v - round(v))^3 (Shin and Song 2017), which has the derivative
      3 (v - round(v))^2; the forward value is then only near that of JPEG, by up to 1/8 of a quantisation step.

    y is known to the width of a quantisation step, so there is noise in it even at sigma_y = 0.

    Args:
        quality: 1 to 100, on the scale of libjpeg and Pillow.
        subsampling: "4:2:0" (libjpeg's default) or "4:4:4" (chroma as fine as luma); one channel has no chroma.
        rounding: the surrogate.

    Raises:
        UsageError: an argument out of range; on use, images with other than 1 or 3 channels.
    """

    title: ClassVar[str] = "JPEG compression (nonlinear; its gradient is a surrogate)"

    def __init__(
        self, quality: int = 25, subsampling: Subsampling = "4:2:0", rounding: Rounding = "straight_through"
    ) -> None:
        if int(quality) != quality or not 1 <= quality <= 100:
            raise UsageError(f"quality is a whole number from 1 to 100, not {quality}")
        if subsampling not in get_args(Subsampling):
            raise UsageError(f"there is no chroma subsampling {subsampling!r}; pass '4:2:0' or '4:4:4'")
        if rounding not in get_args(Rounding):
            raise UsageError(f"there is no rounding {rounding!r}; pass 'straight_through' or 'cubic'")
        self.quality, self.subsampling, self.rounding = int(quality), subsampling, rounding
        self._constants = Constants(self._parts)

    def __call__(self, x: Tensor) -> Tensor:
        channels, height, width = self.image_shape(check_floats(x))
        dct, luminance, chrominance, to_ycc, to_rgb = self._constants.get((), x)
        levels = 127.5 * x - 0.5  # 0 to 255, less 128
        if channels == 1:
            return self._straight_clip(self._coded(levels, luminance, dct))
        planes = _mix(levels, to_ycc)
        luma, chroma = self._coded(planes[:, :1], luminance, dct), planes[:, 1:]
        fine = self.subsampling == "4:4:4"
        chroma = chroma if fine else F.avg_pool2d(_padded(chroma, 2), 2)
        chroma = self._coded(chroma, chrominance, dct)
        if not fine:  # the triangle filter of libjpeg: weights 3/4 and 1/4
            chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
        return self._straight_clip(_mix(torch.cat([luma, chroma], 1), to_rgb))

    def image_shape(self, y: Tensor) -> Shape:
        shape = image_shape(y)
        if shape[0] not in (1, 3):
            raise UsageError(f"JPEG stores images with 1 or 3 channels, not {shape[0]}")
        return shape

    def guess(self, y: Tensor) -> Tensor:
        return y

    def _parts(self) -> tuple[Tensor, ...]:
        return _dct(), *quantisation_tables(self.quality), *_colours()

    def _coded(self, plane: Tensor, table: Tensor, dct: Tensor) -> Tensor:
        """Planes (B, c, h, w) after DCT, quantisation and back; each 8 x 8 block by itself."""
        height, width = plane.shape[2:]
        padded = _padded(plane, 8)
        count, channels, down, across = padded.shape
        blocks = padded.reshape(count, channels, down // 8, 8, across // 8, 8).transpose(3, 4)  # (B, c, i, j, 8, 8)
        quantised = table * self._round(dct @ blocks @ dct.mT / table)
        return (dct.mT @ quantised @ dct).transpose(3, 4).reshape(padded.shape)[..., :height, :width]

    def _round(self, v: Tensor) -> Tensor:
        nearest = v.detach().round()
        if self.rounding == "cubic":
            return nearest + (v - nearest) ** 3
        return _straight(v, nearest)

    def _straight_clip(self, levels: Tensor) -> Tensor:
        image = (levels + 0.5) / 127.5
        return _straight(image, image.detach().clamp(-1, 1))


def quantisation_tables(quality: int) -> tuple[Tensor, Tensor]:
    """The luminance and chrominance tables (8, 8) of a quality from 1 to 100, scaled as libjpeg does it."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = torch.tensor([_LUMINANCE, _CHROMINANCE])
    luminance, chrominance = ((tables * scale + 50) // 100).clamp(1, 255).double()
    return luminance, chrominance


def _straight(v: Tensor, value: Tensor) -> Tensor:
    """``value``, with the gradient of v."""
    return value + (v - v.detach())


def _dct() -> Tensor:
    """The orthonormal DCT-II of 8 points, (8, 8)."""
    k = torch.arange(8, dtype=torch.float64)
    basis = torch.cos(math.pi * k[:, None] * (2 * k + 1) / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis


def _colours() -> tuple[Tensor, Tensor]:
    """RGB to YCbCr (JFIF; Cb and Cr about 0) and back, (3, 3) each."""
    luma = torch.tensor(LUMA, dtype=torch.float64)
    cb = (torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) - luma) / (2 * (1 - LUMA[2]))
    cr = (torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64) - luma) / (2 * (1 - LUMA[0]))
    to_ycc = torch.stack([luma, cb, cr])
    return to_ycc, torch.linalg.inv(to_ycc)


def _mix(image: Tensor, matrix: Tensor) -> Tensor:
    """Channels mixed by a matrix (3, 3)."""
    return torch.einsum("ij,bjhw->bihw", matrix, image)


def _padded(plane: Tensor, multiple: int) -> Tensor:
    """Planes grown to the right and below to a multiple, by repeating the last pixel."""
    height, width = plane.shape[2:]
    return F.pad(plane, (0, -width % multiple, 0, -height % multiple), mode="replicate")
