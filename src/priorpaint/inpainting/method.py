"""Which method a run uses, and the seeds of its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from numbers import Integral
from typing import Any

import numpy as np

from ..diffusion.rng import Seed, derive
from ..errors import UsageError
from ..operators import LinearOperator, Operator
from ..solvers import SOLVERS, Solver
from ..solvers import solver as make_solver
from .inputs import whole

# The method where the caller names none, with settings for holes up to WIDE pixels wide and for wider ones, whose
# coarse scales, where the network sees few pixels, can afford more steps; and those of a grid of which windows that
# start near their answer take the part below REFINE_RATIO. All chosen by CRPS (docs/results/defaults.md).
DEFAULT_METHOD = "ddnm"
NARROW_SETTINGS: dict[str, Any] = {
    "steps": 40,
    "eta": 0.8,
    "redraw_above": 1.0,
    "extrapolation": 0.3,
    "bottom": 0.03,
}
WIDE_SETTINGS: dict[str, Any] = {"steps": 80, "eta": 0.7}
REFINE_SETTINGS: dict[str, Any] = {"steps": 22, "eta": 0.85, "extrapolation": 0.5, "bottom": 0.03}
WIDE_REFINE_SETTINGS: dict[str, Any] = {"eta": 0.7}
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


def refiner_for(
    solver: Solver, named: bool, params: Mapping[str, Any], width: int, refine: Mapping[str, Any] | None
) -> Solver | None:
    """The method of windows that start near their answer, where it is another than ``solver``.

    Args:
        solver: of the run.
        named: whether the caller named it; the default has settings of its own for such windows.
        params: the caller's settings, which go for these windows too.
        width: of the widest hole, in pixels.
        refine: the caller's settings for these windows.

    Raises:
        UsageError: an unknown setting, or a method that does not start from given images.
    """
    default = not named and "preset" not in params
    if refine is None and not default:
        return None
    chosen: dict[str, Any] = {}
    if default:
        chosen = {**REFINE_SETTINGS, **(WIDE_REFINE_SETTINGS if width > WIDE else {}), **params}
    if not solver.warm_start:
        able = ", ".join(name for name, cls in sorted(SOLVERS.items()) if cls.warm_start)
        raise UsageError(f"{solver.title} does not start from given images; refine is for {able}.")
    return make_solver(method_name(solver), **{**asdict(solver), **chosen, **(refine or {})})  # type: ignore[call-overload]


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
