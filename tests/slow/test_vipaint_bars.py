"""VIPaint on the 16-D mixture of four: the bar of its corrected samples, and what the fit alone leaves."""

from __future__ import annotations

import math

import pytest

from priorpaint.lab.certify.measures import Measures, Ruler
from priorpaint.lab.certify.problems import m16
from priorpaint.solvers.vipaint.solver import VIPaint

pytestmark = pytest.mark.slow

CORRECTED = VIPaint(components=8, levels=1, correct=True)


def measured(method: VIPaint, draw: int) -> tuple[Measures, float]:
    """Measures of 1024 samples of a draw of M16, and the floor of the sliced distance."""
    problem = m16(draw)
    ruler = Ruler(problem)
    x = method.sample(problem.solver_prior, problem.operator, problem.y, sigma_y=0.1, num_samples=1024, seed=draw)
    return ruler.measure(x[0]), ruler.floor(1024).sliced


def test_corrected_samples_are_within_twice_the_floor() -> None:
    """Bar: sliced Wasserstein-2 at most 2 x that of exact samples, averaged over three draws; modes within 0.05."""
    results = [measured(CORRECTED, draw) for draw in range(3)]
    distance = math.sqrt(sum(measures.sliced**2 for measures, _ in results))
    floor = math.sqrt(sum(floor**2 for _, floor in results))
    assert distance <= 2 * floor
    for measures, _ in results:
        assert measures.modes is not None and measures.modes < 0.06
        assert measures.std == pytest.approx(1, abs=0.05)
        assert measures.cover90 == pytest.approx(0.9, abs=0.04)


def test_evidence_and_proposal_of_a_fit() -> None:
    for draw in range(3):
        problem = m16(draw)
        posterior = CORRECTED.fit(problem.solver_prior, problem.operator, problem.y, sigma_y=0.1, seed=draw)
        population = posterior.population(16, seed=draw)
        truth = problem.law.log_evidence(problem.operator, problem.y, 0.1)
        assert float(population.log_evidence_of_image) == pytest.approx(truth, abs=0.35)
        assert float(population.ess[0, :, 0].mean()) > 0.05
