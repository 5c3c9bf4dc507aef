"""What VIPaint decides by itself for a problem, where its ``preset`` is None.

1. A small x_0 (`SMALL` values): eight components on one level, and phase 2 with weights. A Gaussian at T_e holds one
   mode of several, components hold more, and the weights make good what is left; in so few dimensions particles can
   afford it. Each further level is one more set of variables whose mismatch costs effective samples.
2. A mask and a prior of whole pictures, whose noise reaches levels where nothing is decided: the preset ``langevin``.
   Several contents for one hole part above any level at which a Gaussian could be fitted well.
3. Else the preset ``exact``: what is left to decide below a prior's largest noise (of photos: texture) has one mode.

docs/methods/vipaint.md has the measurements behind each.
"""

from __future__ import annotations

import math
from typing import Any

from ...priors.base import Prior
from .presets import UNDECIDED

SMALL = 256  # values of x_0 up to which the whole Jacobian of every particle is cheap
COMPONENTS = 8


def choose_settings(
    prior: Prior,
    shape: tuple[int, int, int],
    mask: bool,
    levels: int | None,
    components: int | None,
    correct: bool | None,
) -> dict[str, Any]:
    """preset, levels, components and correct for a problem; what is given stays.

    Args:
        prior: in variance-preserving coordinates or any others.
        shape: (C, H, W) of x_0, in the prior's space.
        mask: whether the operator is a mask.
        levels, components, correct: as asked for; None is free.
    """
    if components is None and correct is None and math.prod(shape) <= SMALL:
        return {"preset": "exact", "levels": levels or 1, "components": COMPONENTS, "correct": True}
    asked = (components or 1) > 1 or bool(correct)
    whole = prior.schedule.nsr_range[1] >= UNDECIDED[1] * prior.data_std
    langevin = mask and whole and not prior.latent and not asked
    preset = "langevin" if langevin else "exact"
    return {"preset": preset, "levels": levels or 2, "components": components or 1, "correct": bool(correct)}
