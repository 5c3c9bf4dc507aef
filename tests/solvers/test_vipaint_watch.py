"""A fit while it goes on, and what its levels expect of the picture: what VIPaint's figures are made of."""

from __future__ import annotations

import pytest
import torch

from priorpaint.errors import UsageError
from priorpaint.operators import Inpainting
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers.vipaint import VIPaint
from priorpaint.solvers.vipaint.posterior import Posterior
from tests.solvers.vipaint_toy import CIN, FULL

METHOD = VIPaint(preset="exact", levels=3, iterations=4, refine_steps=4)
PRIOR = Gaussian([0.3, -0.2], FULL, schedule=CIN)
OPERATOR = Inpainting(torch.tensor([[[[1.0, 0.0]]]]))
Y = torch.tensor([[[[0.9, 0.0]]], [[[-0.4, 0.0]]]])


def watched() -> tuple[list[Posterior], Posterior]:
    seen: list[Posterior] = []

    def watch(iteration: int, posterior: Posterior) -> None:
        assert iteration == len(seen)
        seen.append(posterior)

    return seen, METHOD.fit(PRIOR, OPERATOR, Y, sigma_y=0.1, seed=2, watch=watch)


def test_a_fit_can_be_watched_and_is_the_same() -> None:
    seen, posterior = watched()
    unwatched = METHOD.fit(PRIOR, OPERATOR, Y, sigma_y=0.1, seed=2)
    assert len(seen) == 5 and torch.equal(posterior.objective, unwatched.objective)
    for done, state in enumerate(seen):
        assert torch.equal(state.objective, posterior.objective[:, :done])
        assert torch.equal(state.losses.diffusion, posterior.losses.diffusion[:, :done])
    means = [state.parameters.mean for state in seen]
    assert all(not torch.equal(a, b) for a, b in zip(means[:-1], means[1:], strict=True))
    assert torch.equal(means[-1], posterior.parameters.mean)
    assert torch.equal(seen[-1].sample(2, seed=0), unwatched.sample(2, seed=0))
    assert bool(seen[0].sample(1, seed=0).isfinite().all())  # the start is a posterior as well


def test_expectations_are_the_denoiser_on_the_paths_that_samples_come_from() -> None:
    _, posterior = watched()
    actual = posterior.expectations(3, seed=5)
    assert actual.shape == (2, 3, 3, 1, 1, 2)
    z = posterior.ancestral(3, seed=5).flatten(0, 1)
    t_s = METHOD.ladder(posterior.prior).levels[-1]
    expected = posterior.prior.denoise(z, t_s).reshape(2, 3, 1, 1, 2)
    torch.testing.assert_close(actual[:, :, -1], expected.float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(posterior.expectations(1, seed=5, batch_size=1), actual[:, :1], rtol=0, atol=1e-6)


def test_expectations_at_the_top_have_the_mean_of_q() -> None:
    """z_Te is N(m, tau^2) and the denoiser of a Gaussian is affine, so D(z_Te) is D(m) on average: of 400 draws within
    four standard errors, and the standard deviation of D(z_Te) is at most that of the data, 1."""
    _, posterior = watched()
    family = posterior.family
    m, _ = family.top(posterior.parameters.rows(torch.arange(2), 0))
    expected = family.denoise(m, family.ladder.levels[0]).float()
    actual = posterior.expectations(400, seed=0)[:, :, 0].mean(1)
    assert bool(((actual - expected).abs() < 4 / 400**0.5).all())


def test_numbers_out_of_range_are_told() -> None:
    _, posterior = watched()
    with pytest.raises(UsageError, match="at least 1"):
        posterior.expectations(0)
