"""Which method a run uses, and the seeds of its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np

from ..diffusion.rng import Seed, derive
from ..errors import UsageError
from ..operators import LinearOperator, Operator
from ..solvers import SOLVERS, Solver
from ..solvers import solver as make_solver
from .inputs import whole

# The method where the caller names none, with settings for holes up to WIDE pixels wide, for wider ones (whose coarse
# scales, where the network sees few pixels, can afford more steps), and for windows that start near their answer, of
# whose grid they take the part below REFINE_RATIO. All chosen by CRPS at equal work (docs/results/defaults.md).
DEFAULT_METHOD = "ddnm"
NARROW_SETTINGS: dict[str, Any] = {"steps": 40, "eta": 0.8, "extrapolation": 0.3, "bottom": 0.03}
WIDE_SETTINGS: dict[str, Any] = {"steps": 80, "eta": 0.6}
REFINE_SETTINGS: dict[str, Any] = {"steps": 26, "eta": 0.85, "extrapolation": 0.5, "bottom": 0.03}
WIDE = 48
# Seeds of samples stay below this, so that every JSON reader gets them exactly.
_SEEDS = 2**48
# More samples than this are a slip of the finger: their names and seeds alone would take minutes.
MAX_SAMPLES = 100_000


def choose_solver(
    method: str | Solver | None,
    params: Mapping[str, Any],
    default: tuple[str, Mapping[str, Any]] = (DEFAULT_METHOD, NARROW_SETTINGS),
) -> Solver:
    """The solver of a run: named, given, or the default with some settings changed.

    Args:
        method: a name, a solver, or None.
        params: settings.
        default: name and settings of the default; a ``preset`` takes the place of its settings.

    Raises:
        UsageError: an unknown method or setting, or settings beside a ready solver.
    """
    if isinstance(method, Solver):
        if params:
            raise UsageError(f"{', '.join(params)}: a ready solver takes no settings; put them into the solver.")
        return method
    if method is not None:
        return make_solver(method, **params)
    name, settings = default
    return make_solver(name, **(params if "preset" in params else {**settings, **params}))


def for_width(solver: Solver, params: Mapping[str, Any], width: int) -> Solver:
    """The default method, chosen with ``params``, for holes that are at most ``width`` pixels wide."""
    if width <= WIDE or "preset" in params:
        return solver
    wide = {key: value for key, value in WIDE_SETTINGS.items() if key not in params}
    return replace(solver, **wide)  # type: ignore[type-var]


def refiner_of(params: Mapping[str, Any]) -> Solver | None:
    """The default method, with settings ``params``, of windows that start near their answer; None for a ``preset``."""
    return None if "preset" in params else make_solver(DEFAULT_METHOD, **{**REFINE_SETTINGS, **params})


def restoration_default(operator: Operator, sigma_y: float) -> tuple[str, Mapping[str, Any]]:
    """Name and settings of the method that restores from this measurement where the caller names none."""
    if not isinstance(operator, LinearOperator):
        return "dps", {}
    return ("diffpir", {"steps": 40}) if sigma_y > 0 else (DEFAULT_METHOD, NARROW_SETTINGS)


def sample_seeds(seed: Seed, num_samples: int) -> list[int]:
    """The seed of each sample.

    Raises:
        UsageError: num_samples is below 1 or above MAX_SAMPLES, or there is another number of seeds than of samples.
    """
    if not 1 <= num_samples <= MAX_SAMPLES:
        raise UsageError(f"num_samples must be from 1 to {MAX_SAMPLES}, not {num_samples}")
    if isinstance(seed, Integral):
        return [derive("inpaint", int(seed), k) % _SEEDS for k in range(num_samples)]
    if not isinstance(seed, Sequence | np.ndarray) or isinstance(seed, str | bytes) or not np.ndim(seed):
        raise UsageError(f"a seed is a whole number, or a list with one for each sample, not {seed!r}")
    if len(seed) != num_samples:
        raise UsageError(f"{len(seed)} seeds were given for {num_samples} samples; pass one int or one seed a sample")
    return [whole(value, "each seed") for value in seed]


def method_name(solver: Solver) -> str:
    """The key in ``SOLVERS``, or the class's name for a solver that is not registered."""
    return next((name for name, cls in SOLVERS.items() if type(solver) is cls), type(solver).__name__)
