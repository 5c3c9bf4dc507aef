"""Every prior around another one keeps what that one knows: learned variance, score, provenance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from priorpaint import CFGPrior, DenoiserPrior, NetworkPrior, Prior, TiledPrior, UsageError
from priorpaint.diffusion.schedules import VP
from priorpaint.priors.analytic import Gaussian
from priorpaint.priors.base import Denoising
from priorpaint.priors.latent import LatentPrior, LatentSpace, LinearAutoencoder
from priorpaint.priors.recompute import RecomputePrior
from priorpaint.solvers.guidance import PosteriorDenoiser


def network(x: Tensor, condition: Tensor, labels: Tensor) -> Tensor:
    """Means that depend on the class, and a variance that depends on the pixel."""
    return torch.cat([x * (0.5 + 0.1 * labels[:, None, None, None]), torch.tanh(x)], 1)


def learned() -> NetworkPrior:
    prior = NetworkPrior(
        network,
        VP(),
        (1, 4, 4),
        prediction="x0",
        classes=3,
        embed=lambda labels, _: {"labels": torch.zeros(1, dtype=torch.int64) if labels is None else labels},
    )
    prior.learned_variance = True
    prior.name, prior.source, prior.hash, prior.facts = "toy", Path("toy.pt"), "ab" * 32, {"format": "toy"}
    prior.spec, prior.flags = "toy.pt", {"image_size": 4}
    return prior


def autoencoder() -> LinearAutoencoder:
    patch = torch.ones(1, 2, 2, 1, dtype=torch.float64)
    return LinearAutoencoder.patches(patch, 4, 4)


WRAPPERS: dict[str, Callable[[Prior], Prior]] = {
    "windows": TiledPrior,
    "resize": lambda prior: TiledPrior(prior, "resize"),
    "recompute": RecomputePrior,
    "label": lambda prior: CFGPrior(prior, label=2),
    "guidance": lambda prior: CFGPrior(prior, label=2, scale=2.0),
    "latent": lambda prior: LatentPrior(prior, autoencoder()),
    "latent space": lambda prior: LatentSpace(LatentPrior(prior, autoencoder())),
    "all": lambda prior: RecomputePrior(CFGPrior(TiledPrior(prior), label=2, scale=2.0)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_a_wrapped_prior_keeps_variance_score_and_provenance(wrap: Callable[[Prior], Prior]) -> None:
    inner = learned()
    prior, x_t = wrap(inner), torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert prior.info.provenance == inner.info.provenance and prior.nfe is inner.nfe
    out = prior.evaluate(x_t, 0.4)
    assert isinstance(out, Denoising) and out.variance_share is not None
    torch.testing.assert_close(out.variance_share, (torch.tanh(x_t) + 1) / 2)
    assert torch.equal(prior.denoise(x_t, 0.4), out.mean)
    time = torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = float(prior.schedule.alpha(time)), float(prior.schedule.sigma(time))
    torch.testing.assert_close(prior.score(x_t, 0.4), (alpha * out.mean - x_t) / sigma**2)
    with pytest.raises(AttributeError):
        prior.nothing_of_the_kind  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("fit", ["windows", "resize"])
def test_windows_join_the_learned_variance_as_they_join_the_mean(fit: str) -> None:
    prior = TiledPrior(learned(), fit)
    x_t = torch.full((1, 1, 9, 8), 0.3)
    share = prior.evaluate(x_t, 0.4).variance_share
    assert share is not None and share.shape == x_t.shape and 0.5 < float(share.min()) <= float(share.max()) < 1
    if fit == "windows":
        torch.testing.assert_close(share, (torch.tanh(x_t) + 1) / 2)


def test_gradients_reach_the_learned_variance_through_a_recomputed_call() -> None:
    x_t = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    grads = []
    for prior in (learned(), RecomputePrior(learned())):
        share = prior.evaluate(x_t, 0.4).variance_share
        assert share is not None
        grads.append(torch.autograd.grad(share.sum(), x_t)[0])
    assert torch.equal(*grads) and bool(grads[0].any())


def test_an_estimate_given_y_has_the_provenance_of_its_prior_and_its_own_score() -> None:
    inner = learned()
    prior, x_t = PosteriorDenoiser(inner, lambda x, t: 0 * x), torch.ones(1, 1, 4, 4)
    assert prior.info == replace(inner.info, learned_variance=False)
    assert prior.evaluate(x_t, 0.4).variance_share is None
    sigma = float(inner.schedule.sigma(torch.tensor(0.4, dtype=torch.float64)))
    torch.testing.assert_close(prior.score(x_t, 0.4), -x_t / sigma**2)


def test_the_score_of_a_denoiser_is_that_of_the_law() -> None:
    law = Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 0.3], [0.3, 0.5]]))
    prior = DenoiserPrior(law.denoise, law.schedule, law.shape)
    x_t = torch.tensor([[[[0.2, 0.7]]], [[[-1.0, 2.0]]]], dtype=torch.float64)
    torch.testing.assert_close(prior.score(x_t, 0.3), law.score(x_t, 0.3), rtol=1e-6, atol=1e-6)
    assert prior.nfe.forward == 2


def test_a_condition_that_the_prior_does_not_take_is_named() -> None:
    prior = DenoiserPrior(lambda x, t: x, VP(), (1, 4, 4))
    with pytest.raises(UsageError, match="takes no condition, but labels was given"):
        TiledPrior(prior).evaluate(torch.zeros(1, 1, 4, 4), 0.5, {"labels": torch.tensor([1])})
