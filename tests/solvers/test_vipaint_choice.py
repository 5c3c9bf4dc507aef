"""What VIPaint decides by itself for a problem."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from priorpaint.diffusion.schedules import EDM, VP
from priorpaint.lab.certify.problems import problem
from priorpaint.operators import Inpainting
from priorpaint.priors.analytic import Gaussian
from priorpaint.priors.base import Prior
from priorpaint.solvers.vipaint.solver import VIPaint

FEW = {"iterations": 2, "mc_samples": 1, "refine_steps": 2, "top_steps": 5}


def whole() -> Prior:
    """Noise up to 160 standard deviations of the data."""
    prior = Gaussian([0.0], [[0.25]], schedule=EDM(sigma_min=0.01, sigma_max=80.0))
    prior.data_std = 0.5
    return prior


def local() -> Prior:
    """Up to 16, as of photos."""
    prior = Gaussian([0.0], [[0.25]], schedule=EDM(sigma_min=0.01, sigma_max=8.0))
    prior.data_std = 0.5
    return prior


@pytest.mark.parametrize(
    ("asked", "prior", "shape", "mask", "preset", "components", "correct"),
    [
        ({}, local(), (1, 16, 16), True, "exact", 8, True),
        ({}, whole(), (1, 16, 16), False, "exact", 8, True),
        ({}, local(), (1, 16, 17), True, "exact", 1, False),
        ({}, whole(), (1, 16, 17), True, "langevin", 1, False),
        ({}, whole(), (1, 16, 17), False, "exact", 1, False),
        ({"components": 2}, whole(), (1, 16, 17), True, "exact", 2, False),
        ({"correct": False}, whole(), (1, 4, 4), True, "langevin", 1, False),
        ({"correct": True}, whole(), (3, 64, 64), True, "exact", 1, True),
    ],
)
def test_choice(
    asked: dict[str, object],
    prior: Prior,
    shape: tuple[int, int, int],
    mask: bool,
    preset: str,
    components: int,
    correct: bool,
) -> None:
    settled = VIPaint(**asked).settled(prior, shape, mask)  # type: ignore[arg-type]
    assert (settled.preset, settled.components, settled.correct) == (preset, components, correct)
    assert settled.settled(local(), (3, 512, 512), False) is settled


def test_a_preset_decides_everything() -> None:
    method = VIPaint(preset="exact")
    assert method.settled(whole(), (1, 2, 2), True) is method


def test_a_run_is_that_of_the_settled_method_and_costs_what_it_says() -> None:
    m16 = problem("M16", 0)
    method = VIPaint(particles=8, num_kept=4, up_steps=2, **FEW)  # type: ignore[arg-type]
    settled = m16.settled(method)
    assert settled == replace(method, preset="exact", levels=1, components=8, correct=True)
    run = (m16.solver_prior, m16.solver_operator, m16.solver_y)
    before = m16.solver_prior.nfe.copy()
    samples = method.sample(*run, sigma_y=0.1, num_samples=8, seed=3)
    spent = m16.solver_prior.nfe - before
    assert torch.equal(samples, settled.sample(*run, sigma_y=0.1, num_samples=8, seed=3))
    cost = settled.cost(8)
    assert (spent.forward, spent.backward) == (cost.forward, cost.backward)


def test_a_fit_keeps_what_was_chosen_and_is_restored_with_it() -> None:
    prior = Gaussian([0.3, -0.2], [[1.0, 0.5], [0.5, 1.0]], schedule=VP())
    operator = Inpainting(torch.tensor([[1.0, 0.0]]))
    method = VIPaint(particles=8, num_kept=4, up_steps=2, **FEW)  # type: ignore[arg-type]
    posterior = method.fit(prior, operator, torch.tensor([[[[0.9, 0.0]]]]), seed=2)
    assert posterior.solver.chains == 8 and posterior.solver.corrected
    again = method.restore(prior, operator, posterior.state_dict())
    assert torch.equal(again.sample(2, seed=1), posterior.sample(2, seed=1))
