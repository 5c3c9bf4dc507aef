"""Several plausible completions of a picture, from a diffusion model that was never trained for inpainting."""

from . import schedules
from .errors import Cancelled, MissingExtra, PriorError, PriorpaintError, UsageError
from .operators import Inpainting, LinearOperator
from .priors import DenoiserPrior, NetworkPrior, Prior, analytic
from .solvers import SOLVERS, Solver, solver

__version__ = "0.1.0"

__all__ = [
    "SOLVERS",
    "Cancelled",
    "DenoiserPrior",
    "Inpainting",
    "LinearOperator",
    "MissingExtra",
    "NetworkPrior",
    "Prior",
    "PriorError",
    "PriorpaintError",
    "Solver",
    "UsageError",
    "analytic",
    "schedules",
    "solver",
]
