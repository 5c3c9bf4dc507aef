"""The exact denoiser of avatars against the exact posterior, brute force and finite differences."""

from __future__ import annotations

import pytest
import torch

from priorpaint.diffusion.schedules import VP, Flow
from priorpaint.lab.avatars.model import Avatars
from priorpaint.lab.avatars.pixels import as_tensor
from priorpaint.lab.avatars.posterior import posterior
from priorpaint.lab.avatars.prior import ExactAvatars
from priorpaint.lab.avatars.reading import read
from priorpaint.lab.avatars.standard import standard


def noisy(prior: ExactAvatars, nsr: float, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """x_t and t at a given sigma / alpha."""
    x_0 = as_tensor(prior.avatars.compose(prior.avatars.draw(count, 5)))
    t = prior.schedule.time_at(torch.tensor([nsr], dtype=torch.float64)).expand(count)
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    alpha, sigma = float(prior.schedule.alpha(t[:1])), float(prior.schedule.sigma(t[:1]))
    return alpha * x_0 + sigma * noise, t


@pytest.mark.parametrize("schedule", [None, VP("linear"), Flow()])
def test_it_is_the_mean_of_the_posterior_that_sees_everything_through_noise(schedule: object) -> None:
    prior = ExactAvatars(schedule=schedule)  # type: ignore[arg-type]
    x_t, t = noisy(prior, 0.9)
    alpha = float(prior.schedule.alpha(t[:1]))
    nsr = float(prior.schedule.sigma(t[:1])) / alpha
    truth = posterior(x_t / alpha, torch.ones(32, 32), nsr).mean
    assert torch.allclose(prior.denoise(x_t, t).double(), truth, atol=1e-4)


def few() -> Avatars:
    law = standard()
    kept = {part.name: part.options[:1] for part in law.parts}
    return law.only(
        {**kept, "skin": law.parts[law.index["skin"]].options, "mouth": law.parts[law.index["mouth"]].options}
    )


def test_against_brute_force() -> None:
    prior = ExactAvatars(few())
    law = prior.avatars
    skin, mouth = law.index["skin"], law.index["mouth"]
    every = law.draw(1, 0).repeat(len(law.parts[skin].options) * len(law.parts[mouth].options), 0)
    every[:, skin] = [i // len(law.parts[mouth].options) for i in range(len(every))]
    every[:, mouth] = [i % len(law.parts[mouth].options) for i in range(len(every))]
    pictures = as_tensor(law.compose(every)).double()
    x_t, t = noisy(prior, 2.0)
    distance = (x_t.double()[:, None] - pictures).square().sum((2, 3, 4))
    weights = torch.softmax(torch.from_numpy(law.log_prob(every)) - distance / (2 * 2.0**2), 1)
    truth = (weights[:, :, None, None, None] * pictures).sum(1)
    assert weights.amax(1).max() < 0.99  # several combinations matter
    assert torch.allclose(prior.denoise(x_t, t).double(), truth, atol=1e-5)


def test_the_gradient_is_that_of_finite_differences() -> None:
    prior = ExactAvatars()
    x_t, t = noisy(prior, 1.5, count=1)
    direction = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(2))
    x_t.requires_grad_()
    slope = torch.autograd.grad((prior.denoise(x_t, t) * weight).sum(), x_t)[0]
    with torch.no_grad():
        ahead, behind = (float((prior.denoise(x_t + h * direction, t).double() * weight).sum()) for h in (2e-2, -2e-2))
    assert float((slope * direction).sum()) == pytest.approx((ahead - behind) / 4e-2, rel=0.02)


def test_rows_do_not_feel_each_other_and_calls_are_counted() -> None:
    prior = ExactAvatars()
    x_t, t = noisy(prior, 1.0, count=3)
    times = torch.stack([t[0], t[1] * 0.9, t[2]])
    together = prior.denoise(x_t, times)
    assert prior.nfe.forward == 3
    assert torch.allclose(together[1:2], prior.denoise(x_t[1:2], times[1:2]), atol=1e-6)


def test_unconditional_samples_are_avatars() -> None:
    assert bool(read(ExactAvatars().sample(2, seed=0, steps=20)).valid.all())
