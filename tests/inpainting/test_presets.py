"""Every preset of every method fills a hole with every embedded prior, in whatever schedule."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest

import priorpaint
from priorpaint import SOLVERS, Prior, UsageError, solver
from priorpaint.solvers.base import GridSolver
from tests.pinned.cases import FEW
from tests.preset_names import preset_names

SIZES = {"photos": 32, "avatars": 32, "avatars-latent": 64, "fashion": 32}
REPLACES = "replaces pixels, and a latent prior has none"
# What cannot run: (method, preset, prior or "") -> the sentence that says so. The gain of the paper on RePaint+ runs
# away on data that are not of unit variance, as its fact sheet shows; these two presets of VIPaint paste pixels.
REFUSED = {
    ("repaint_plus", "reference", "avatars"): "diverges with gain",
    ("repaint_plus", "reference", "avatars-latent"): "diverges with gain",
    ("repaint_plus", "reference", "fashion"): "diverges with gain",
    ("vipaint", "projected", "avatars-latent"): REPLACES,
    ("vipaint", "langevin", "avatars-latent"): REPLACES,
}


@cache
def loaded(name: str) -> Prior:
    return priorpaint.load_prior(name)


def presets(method: str) -> list[str | None]:
    """ "reference", the choices of the method's own field ``preset``, and None where it chooses by itself."""
    own: list[str | None] = [*preset_names(method)]
    return ["reference", *own, *([None] if own and getattr(solver(method), "preset", "") is None else [])]


CASES = [
    pytest.param(prior, method, preset, marks=[] if prior == "photos" else pytest.mark.slow)
    for prior in SIZES
    for method in sorted(SOLVERS)
    for preset in presets(method)
]


@pytest.mark.filterwarnings("ignore:the published VIPaint adds LPIPS")
@pytest.mark.parametrize(("prior", "method", "preset"), CASES)
def test_a_preset_runs_on_every_embedded_prior(prior: str, method: str, preset: str | None) -> None:
    size, model = SIZES[prior], loaded(prior)
    shape = (size, size) if prior == "fashion" else (size, size, 3)
    picture = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    hole = np.zeros((size, size), dtype=bool)
    hole[size // 4 : size // 2, size // 4 : size // 2] = True
    settings: dict[str, Any] = {**FEW.get(method, {"steps": 4}), "preset": preset}
    refused = REFUSED.get((method, preset, prior))
    if refused is not None:
        with pytest.raises(UsageError, match=refused):
            priorpaint.inpaint(picture, hole, prior=model, method=method, num_samples=1, **settings)
        return
    result = priorpaint.inpaint(picture, hole, prior=model, method=method, num_samples=1, **settings)
    filled = np.asarray(result.images[0])
    assert np.array_equal(filled[~hole], picture[~hole])
    assert filled[hole].std() > 0


@pytest.mark.parametrize("prior", SIZES)
def test_the_time_grid_of_every_reference_run_exists(prior: str) -> None:
    """At its full length, which the runs above shorten."""
    for name in SOLVERS:
        run = solver(name, preset="reference")
        if isinstance(run, GridSolver):
            schedule = loaded(prior).schedule
            times = run._times(schedule)
            assert len(times) == run.steps + 1
            assert times[0] == 1 or schedule.log_nsr(times[0]) > math.log(100), f"{name} starts in noise"
