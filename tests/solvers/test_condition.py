"""``Solver.condition``: one seed a sample, the fit of VIPaint kept and shared, phase 2 in one call of all rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from priorpaint.errors import UsageError
from priorpaint.priors import NetworkPrior
from priorpaint.solvers import Cost, solver
from priorpaint.solvers.base import Problem
from priorpaint.solvers.vipaint.solver import VIPaint
from tests.solvers.test_vipaint import network_prior, pictures

SEEDS = [11, 5, 7, 11]
FIT: dict[str, Any] = {
    "preset": "exact",
    "levels": 2,
    "iterations": 2,
    "mc_samples": 2,
    "refine_steps": 3,
    "top_steps": 5,
}
VARIANTS = ({}, {"components": 2}, {"preset": "projected"}, {"correct": True, "particles": 3, "num_kept": 2})


def problem(rows: int = 1) -> Problem:
    operator, y = pictures(rows)
    return Problem(network_prior(), operator, y)


class Calls:
    """The rows of every call of a prior's network."""

    def __init__(self, prior: NetworkPrior) -> None:
        self.rows: list[int] = []
        assert isinstance(prior.network, torch.nn.Module)
        prior.network.register_forward_pre_hook(lambda _, inputs: self.rows.append(len(inputs[0])))


@pytest.mark.parametrize("name", ["dps", "ddnm", "smc"])
def test_without_a_fit_it_is_solver_sample_with_a_seed_a_row(name: str) -> None:
    method, task = solver(name, steps=3), problem()
    copies = task.y.expand(4, -1, -1, -1)
    there = method.sample(task.prior, task.operator, copies, seed=SEEDS)[:, 0]
    assert not method.fits and method.shared_cost() == Cost(0, 0) and method.shared_rows == 0
    assert torch.equal(method.condition(task, seed=3).sample(SEEDS), there)
    four = Problem(task.prior, task.operator, torch.cat([task.y, -task.y, 0 * task.y, task.y]))
    rows = method.condition(four).sample(SEEDS)
    assert torch.equal(rows, method.sample(four.prior, four.operator, four.y, seed=SEEDS)[:, 0])
    with pytest.raises(UsageError, match="3 seeds were given for 4 rows of y"):
        method.condition(four).sample(SEEDS[:3])


def test_a_warm_start_is_handed_on() -> None:
    method, task = solver("ddnm", steps=3, t_init=0.5), problem()
    starts = torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)
    there = method.sample(task.prior, task.operator, task.y.expand(2, -1, -1, -1), seed=[1, 2], initial=starts[:, None])
    assert torch.equal(method.condition(task).sample([1, 2], initial=starts), there[:, 0])
    with pytest.raises(UsageError, match="does not start from given images"):
        VIPaint(**FIT).condition(task).sample([1, 2], initial=starts)


@pytest.mark.parametrize("settings", VARIANTS)
def test_vipaint_fits_once_and_a_sample_does_not_depend_on_its_company(settings: dict[str, Any]) -> None:
    method, task = VIPaint(**{**FIT, **settings}), problem()
    steps: list[int] = []
    sampler = method.condition(task, seed=9, batch_size=2, callback=lambda step, total, x_0: steps.append(step))
    assert method.fits and steps == [1, 2]
    spent = task.prior.nfe
    assert Cost(spent.forward, spent.backward) == method.shared_cost()
    posterior = method.fit(task.prior, task.operator, task.y, seed=[9], batch_size=2)  # type: ignore[arg-type]
    together = sampler.sample(SEEDS)
    for seed, row in zip(SEEDS, together, strict=True):
        assert torch.equal(sampler.sample([seed])[0], posterior.sample(1, seed=[seed])[0, 0])
        torch.testing.assert_close(sampler.sample([seed])[0], row, rtol=0, atol=1e-5)
    torch.testing.assert_close(together[0], together[3], rtol=0, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_vipaint_draws_all_samples_in_calls_of_as_many_rows() -> None:
    method, task = VIPaint(**FIT), problem()
    sampler = method.condition(task)
    assert isinstance(task.prior, NetworkPrior)
    calls = Calls(task.prior)
    sampler.sample([1, 2, 3, 4])
    assert calls.rows == [4] * (method.levels - 1 + 3)


def test_vipaint_fits_every_row_by_itself() -> None:
    method, task = VIPaint(**FIT), problem(2)
    sampler = method.condition(task, seed=9)
    rows = sampler.sample([1, 2])
    for index, seed in enumerate([1, 2]):
        alone = Problem(task.prior, task.operator.select(torch.tensor([index])), task.y[index : index + 1])
        torch.testing.assert_close(method.condition(alone, seed=9).sample([seed])[0], rows[index], rtol=0, atol=1e-5)
    own = method.condition(task, seed=[1, 2]).sample([1, 2])
    assert torch.equal(own, method.sample(task.prior, task.operator, task.y, seed=[1, 2])[:, 0])
    with pytest.raises(UsageError, match="3 seeds were given for 2 rows of y"):
        sampler.sample([1, 2, 3])
