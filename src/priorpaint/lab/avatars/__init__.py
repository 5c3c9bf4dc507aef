"""Avatars: a picture prior of parts whose posterior is known exactly (docs/avatars.md).

``standard``: the law; ``posterior``: what some pixels say about the rest; ``read``: which avatar a picture shows;
``as_tensor``: pictures as solvers want them. ``python -m priorpaint.lab.avatars write FOLDER`` writes training
pictures.
"""

from .model import Avatars, Part
from .pixels import as_tensor
from .posterior import Posterior, posterior
from .reading import THRESHOLD, Reading, read
from .standard import standard

__all__ = ["THRESHOLD", "Avatars", "Part", "Posterior", "Reading", "as_tensor", "posterior", "read", "standard"]
