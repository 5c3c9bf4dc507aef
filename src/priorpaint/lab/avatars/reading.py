"""Which avatar is it? The combination nearest to a picture, exactly, or that there is none near."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .drawing import Parts
from .elimination import Elimination, largest
from .model import Avatars
from .pixels import as_tensor, cell_features, mask_for, over_cells
from .standard import standard
from .tables import tables

# Half of the smallest contrast: two different avatars differ by at least .24 in some cell (docs/avatars.md). So no
# picture is within this of two, and one that is half-way between two parts is within this of none.
THRESHOLD = 0.12
_CHUNK = 64


@dataclass(frozen=True)
class Reading:
    """The nearest combinations of N pictures; all values on the scale [-1, 1].

    Attributes:
        parts: (N, P), the combination with the smallest RMS distance.
        distance: (N,) float32, that distance: RMS over all 3072 values.
        worst: (N,) float32, the RMS over the 12 values of the cell that fits worst.
        valid: (N,) bool, whether ``worst`` is at most `THRESHOLD`; other pictures show no avatar.
    """

    parts: Parts
    distance: Tensor
    worst: Tensor
    valid: Tensor


def read(pictures: Tensor, *, avatars: Avatars | None = None) -> Reading:
    """The nearest combination of each picture; exact, by the elimination of the posterior with maxima for sums.

    Args:
        pictures: (N, 3, 32, 32) on the scale [-1, 1].
        avatars: the law; default `standard`. Where several combinations make the same picture, as smaller laws may
            have it, one of them is named.

    Raises:
        UsageError: pictures of another shape.
    """
    avatars = standard() if avatars is None else avatars
    pictures = pictures.detach().cpu().float()
    mask_for(torch.ones(1, 1, 1, 1), pictures)
    pieces = [_nearest(avatars, chunk) for chunk in torch.split(pictures, _CHUNK)]
    parts, distance, worst = (torch.cat(column) for column in zip(*pieces, strict=True))
    return Reading(parts.numpy(), distance, worst, worst <= THRESHOLD)


def _nearest(avatars: Avatars, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Parts (N, P), distance (N,) and largest distance in a cell (N,)."""
    # In float32: rounding of 1e-7 of a distance does not matter where avatars are far apart.
    flat = [torch.zeros(1, len(part.options)) for part in avatars.parts]
    features = cell_features(pictures, mask_for(torch.ones(1, 1, 1, 1), pictures)).float()
    parts = Elimination(tables(avatars, torch.float32), features, 1.0, flat, torch.amax).combinations(largest)[:, 0]
    squares = (pictures - as_tensor(avatars.compose(parts.numpy()))).square()
    return parts, squares.mean((1, 2, 3)).sqrt(), (over_cells(squares).sum(-1) / 12).amax(1).sqrt()
