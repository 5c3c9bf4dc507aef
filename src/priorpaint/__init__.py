"""Several plausible completions of a picture, from a diffusion model that was never trained for inpainting."""

from typing import TYPE_CHECKING, Any

from . import schedules
from .errors import (
    Cancelled,
    CancelToken,
    MissingExtra,
    PriorError,
    PriorpaintError,
    UsageError,
)
from .operators import (
    JPEG,
    OPERATORS,
    Blur,
    Downsampling,
    GaussianBlur,
    Grayscale,
    Inpainting,
    LinearOperator,
    MatrixOperator,
    MotionBlur,
    Operator,
    RandomPixels,
    WalshHadamard,
)
from .priors import (
    AnySize,
    DenoiserPrior,
    Guided,
    NetworkPrior,
    Prior,
    analytic,
)
from .solvers import SOLVERS, Solver, solver

if TYPE_CHECKING:
    from .inpainting.api import Stopped, inpaint
    from .inpainting.result import Result
    from .priors.loading import load_prior

__version__ = "0.2.0"

__all__ = [
    "JPEG",
    "OPERATORS",
    "SOLVERS",
    "AnySize",
    "Blur",
    "CancelToken",
    "Cancelled",
    "DenoiserPrior",
    "Downsampling",
    "GaussianBlur",
    "Grayscale",
    "Guided",
    "Inpainting",
    "LinearOperator",
    "MatrixOperator",
    "MissingExtra",
    "MotionBlur",
    "NetworkPrior",
    "Operator",
    "Prior",
    "PriorError",
    "PriorpaintError",
    "RandomPixels",
    "Result",
    "Solver",
    "Stopped",
    "UsageError",
    "WalshHadamard",
    "analytic",
    "inpaint",
    "load_prior",
    "schedules",
    "solver",
]

# Imported when first asked for, so that a program that only wants solvers and priors does not load picture formats.
_LAZY = {
    "Result": "inpainting.result",
    "Stopped": "inpainting.api",
    "inpaint": "inpainting.api",
    "load_prior": "priors.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'priorpaint' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
