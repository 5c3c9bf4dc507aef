"""Several plausible completions of a picture, from a diffusion model that was never trained for inpainting."""

from typing import TYPE_CHECKING

from .errors import Cancelled, CancelToken, MissingExtra, PriorError, PriorpaintError, UsageError

__version__ = "0.2.0"

__all__ = [
    "JPEG",
    "OPERATORS",
    "SOLVERS",
    "TiledPrior",
    "Blur",
    "CancelToken",
    "Completion",
    "Cancelled",
    "DenoiserPrior",
    "Downsampling",
    "GaussianBlur",
    "Grayscale",
    "CFGPrior",
    "ClassifierGuidedPrior",
    "Inpainting",
    "LinearOperator",
    "Loading",
    "MatrixOperator",
    "MissingExtra",
    "MotionBlur",
    "NetworkPrior",
    "Operator",
    "Plan",
    "Prior",
    "PriorError",
    "PriorpaintError",
    "RandomPixels",
    "Result",
    "Solver",
    "Step",
    "Stopped",
    "UsageError",
    "WalshHadamard",
    "analytic",
    "inpaint",
    "load_prior",
    "plan",
    "restore",
    "schedules",
    "solver",
]

# Where a public name is found when it is first asked for, so that `priorpaint --help` does not wait for torch, nor a
# program that only wants solvers and priors for picture formats.
_ROOMS = {
    "inpainting.api": ("inpaint", "plan"),
    "inpainting.events": ("Completion", "Loading", "Step"),
    "inpainting.plans": ("Plan", "Stopped"),
    "inpainting.restoration": ("restore",),
    "inpainting.result": ("Result",),
    "operators": (
        *("JPEG", "OPERATORS", "Blur", "Downsampling", "GaussianBlur", "Grayscale", "Inpainting", "LinearOperator"),
        *("MatrixOperator", "MotionBlur", "Operator", "RandomPixels", "WalshHadamard"),
    ),
    "priors": ("TiledPrior", "DenoiserPrior", "CFGPrior", "NetworkPrior", "Prior"),
    "priors.analytic": ("analytic",),
    "priors.classifier_guidance": ("ClassifierGuidedPrior",),
    "priors.loading": ("load_prior",),
    "schedules": ("schedules",),
    "solvers": ("SOLVERS", "Solver", "solver"),
}

if TYPE_CHECKING:
    from . import schedules
    from .inpainting.api import inpaint, plan
    from .inpainting.events import Completion, Loading, Step
    from .inpainting.plans import Plan, Stopped
    from .inpainting.restoration import restore
    from .inpainting.result import Result
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
    from .priors import CFGPrior, DenoiserPrior, NetworkPrior, Prior, TiledPrior, analytic
    from .priors.classifier_guidance import ClassifierGuidedPrior
    from .priors.loading import load_prior
    from .solvers import SOLVERS, Solver, solver
else:

    def __getattr__(name: str) -> object:
        for room, names in _ROOMS.items():
            if name in names:
                from importlib import import_module

                module = import_module(f".{room}", __name__)
                value = module if room.split(".")[-1] == name else getattr(module, name)
                globals()[name] = value
                return value
        raise AttributeError(f"module 'priorpaint' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
