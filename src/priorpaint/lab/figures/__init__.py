"""Figures of papers, on any prior, picture and mask."""

from .base import FIGURES, Drawn, Figure, Request
from .comparisons import classes, reddiff
from .convergence import convergence
from .examples import Examples, read_examples
from .vipaint import levels, progress

__all__ = [
    "FIGURES",
    "Drawn",
    "Examples",
    "Figure",
    "Request",
    "classes",
    "convergence",
    "levels",
    "progress",
    "read_examples",
    "reddiff",
]
