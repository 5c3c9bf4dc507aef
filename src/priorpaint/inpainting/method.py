"""Which method a run uses, and the seeds of its samples."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any

from ..diffusion.rng import Seed, derive
from ..errors import UsageError
from ..solvers import SOLVERS, Solver
from ..solvers import solver as make_solver

# The method where the caller names none, and its settings for holes up to WIDE pixels wide and for wider ones. What a
# narrow hole holds is nearly settled by its surroundings; a wide one needs its texture drawn, which takes a trajectory
# that keeps more of its own noise (docs/results/defaults.md).
DEFAULT_METHOD = "ddnm"
NARROW_SETTINGS: dict[str, Any] = {"steps": 40, "eta": 0.95}
WIDE_SETTINGS: dict[str, Any] = {"steps": 40, "eta": 0.7}
WIDE = 48
# Seeds of samples stay below this, so that every JSON reader gets them exactly.
_SEEDS = 2**48


def choose_solver(method: str | Solver | None, params: dict[str, Any], width: int = 0) -> Solver:
    """The solver of a run: named, given, or the default with some settings changed.

    Args:
        method: a name, a solver, or None.
        params: settings.
        width: of the widest hole, in pixels, for the settings of the default.

    Raises:
        UsageError: an unknown method or setting, or settings beside a ready solver.
    """
    if isinstance(method, Solver):
        if params:
            raise UsageError(f"{', '.join(params)}: a ready solver takes no settings; put them into the solver.")
        return method
    if method is not None:
        return make_solver(method, **params)
    if "preset" in params:
        return make_solver(DEFAULT_METHOD, **params)
    settings = WIDE_SETTINGS if width > WIDE else NARROW_SETTINGS
    return make_solver(DEFAULT_METHOD, **{**settings, **params})


def sample_seeds(seed: Seed, num_samples: int) -> list[int]:
    """The seed of each sample.

    Raises:
        UsageError: num_samples < 1, or another number of seeds than of samples.
    """
    if num_samples < 1:
        raise UsageError(f"num_samples must be at least 1, not {num_samples}")
    if isinstance(seed, int):
        return [derive("inpaint", seed, k) % _SEEDS for k in range(num_samples)]
    if len(seed) != num_samples:
        raise UsageError(f"{len(seed)} seeds were given for {num_samples} samples; pass one int or one seed a sample")
    return [int(value) for value in seed]


def method_name(solver: Solver) -> str:
    """The key in ``SOLVERS``, or the class's name for a solver that is not registered."""
    return next((name for name, cls in SOLVERS.items() if type(solver) is cls), type(solver).__name__)


def settings_of(solver: Solver) -> dict[str, Any]:
    """The solver's settings, for run.json; none for one that is not a dataclass."""
    return asdict(solver) if is_dataclass(solver) else {}
