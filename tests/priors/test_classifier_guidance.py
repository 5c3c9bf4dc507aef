"""Classifier guidance: exact where the classifier is, and a prior like any other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from priorpaint import ClassifierGuidedPrior, Inpainting, NetworkPrior, PriorError, UsageError, solver
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.priors.analytic import GaussianMixture
from priorpaint.priors.wrapped import normalised

SCHEDULES = {"vp": VP("linear"), "ve": VE(), "edm": EDM(), "flow": Flow()}
CLASS_OF = torch.tensor([0, 0, 1])  # of three components; class 0 has two


def parts(schedule: Schedule | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (3,), means (3, 4), covariances (3, 4, 4)."""
    generator = torch.Generator().manual_seed(2)
    mix = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64) / 3
    means = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    return torch.tensor([0.5, 0.2, 0.3]), means, mix @ mix.mT + 0.05 * torch.eye(4, dtype=torch.float64)


def mixture(schedule: Schedule | None = None) -> GaussianMixture:
    return GaussianMixture(*parts(), (1, 2, 2), schedule)  # type: ignore[arg-type]


def of_class(label: int, schedule: Schedule | None = None) -> GaussianMixture:
    """p(x | c): the components of the class alone."""
    chosen = label == CLASS_OF
    weights, means, covs = parts()
    return GaussianMixture(weights[chosen] / weights[chosen].sum(), means[chosen], covs[chosen], (1, 2, 2), schedule)  # type: ignore[arg-type]


def classifier(label: int, schedule: Schedule | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """log p(c | x_t) of the mixture, exactly."""
    prior = mixture(schedule)
    return lambda x_t, t: prior.responsibilities(x_t, t.double())[:, label == CLASS_OF].sum(1).log()


def noisy(count: int = 6) -> Tensor:
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("family", SCHEDULES)
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_at_scale_1_it_is_the_denoiser_of_the_class(
    family: str, label: int, dtype: torch.dtype, tolerance: float
) -> None:
    schedule = SCHEDULES[family]
    guided = ClassifierGuidedPrior(mixture(schedule), classifier(label, schedule))
    for t in (0.15, 0.4, 0.7):
        x_t = (float(guided.std_at(torch.tensor(t))) * noisy()).to(dtype)
        got, want = guided.denoise(x_t, t), of_class(label, schedule).denoise(x_t, t)
        assert got.dtype == dtype
        torch.testing.assert_close(got, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, -1.0])
def test_the_scale_is_a_power_of_the_class(scale: float) -> None:
    """The score is that of p(x_t) p(c | x_t)^scale."""
    prior, log_prob = mixture(), classifier(1)
    x_t = noisy().requires_grad_()
    (push,) = torch.autograd.grad(log_prob(x_t, torch.full((6,), 0.4)).sum(), x_t)
    got = ClassifierGuidedPrior(prior, log_prob, scale).score(x_t.detach(), 0.4)
    torch.testing.assert_close(got, prior.score(x_t.detach(), 0.4) + scale * push, rtol=1e-5, atol=1e-6)


def test_each_row_has_its_own_time() -> None:
    guided, times = ClassifierGuidedPrior(mixture(), classifier(0)), torch.tensor([0.2, 0.9, 0.5], dtype=torch.float64)
    together = guided.denoise(noisy(3), times)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], guided.denoise(noisy(3)[k : k + 1], times[k]))


def test_only_the_network_of_the_prior_is_counted() -> None:
    guided = ClassifierGuidedPrior(mixture(), classifier(0))
    guided.denoise(noisy(), 0.5)
    guided.denoise(noisy().requires_grad_(), 0.5)
    assert (guided.nfe.forward, guided.nfe.backward) == (6, 6) and guided.nfe is guided.inner.nfe


def test_it_can_be_differentiated() -> None:
    """J of the guided denoiser, by finite differences: what DPS and others need."""
    guided = ClassifierGuidedPrior(mixture(), classifier(1), 2.0)
    x_t, step = noisy(1), 1e-5
    wanted = torch.stack(
        [
            ((guided.denoise(x_t + step * e, 0.4) - guided.denoise(x_t - step * e, 0.4)) / (2 * step)).flatten()
            for e in torch.eye(4, dtype=torch.float64).reshape(4, 1, 1, 2, 2)
        ],
        1,
    )
    got = torch.autograd.functional.jacobian(lambda x: guided.denoise(x, 0.4), x_t).reshape(4, 4)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        assert not guided.denoise(x_t.requires_grad_(), 0.4).requires_grad


def test_samples_are_of_the_class() -> None:
    guided = ClassifierGuidedPrior(mixture(), classifier(1))
    out, want = guided.sample(2000, seed=1, steps=40).flatten(1).double(), of_class(1)
    error = 4 * want.cov.diagonal().sqrt() / 2000**0.5
    assert ((out.mean(0) - want.mean.flatten()).abs() < error + 0.01).all()
    torch.testing.assert_close(out.T.cov(), want.cov, rtol=0, atol=0.06)


@pytest.mark.parametrize("method", ["ddnm", "dps", "mmps"])
def test_methods_take_it_for_a_prior_of_the_class(method: str) -> None:
    """The samples of a method with the guided prior are those with the prior of the class itself."""
    operator = Inpainting(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    y = operator(of_class(1).sample(1, seed=2))
    guided, plain = (
        solver(method, steps=8).sample(prior, operator, y, num_samples=3, seed=1)
        for prior in (ClassifierGuidedPrior(mixture(), classifier(1)), of_class(1))
    )
    torch.testing.assert_close(guided, plain, rtol=1e-3, atol=1e-3)


def test_other_coordinates_go_around_it() -> None:
    schedule = EDM()
    guided = normalised(ClassifierGuidedPrior(mixture(schedule), classifier(0, schedule)))
    u = noisy()
    torch.testing.assert_close(guided.denoise(u, 0.4), normalised(of_class(0, schedule)).denoise(u, 0.4))


def test_the_learned_variance_stays() -> None:
    prior = NetworkPrior(lambda x, t: torch.cat([0.5 * x, torch.tanh(x)], 1), VP(), (1, 2, 2), prediction="x0")
    prior.learned_variance = True
    guided = ClassifierGuidedPrior(prior, lambda x, t: -x.square().flatten(1).sum(1))
    x_t = noisy().float()
    share = guided.evaluate(x_t, 0.5).variance_share
    assert share is not None and torch.equal(share, (torch.tanh(x_t) + 1) / 2)


def test_pure_noise_says_nothing() -> None:
    """Flow at t = 1: alpha = 0, where sigma^2 / alpha is infinite and even the true classifier is flat."""
    guided = ClassifierGuidedPrior(mixture(Flow()), lambda x, t: x.flatten(1).sum(1))
    x_t = noisy()
    assert torch.equal(guided.denoise(x_t, 1.0), guided.inner.denoise(x_t, 1.0))


def test_the_classifier_gets_times_in_the_type_of_the_picture() -> None:
    seen: list[tuple[torch.dtype, tuple[int, ...]]] = []

    def log_prob(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((t.dtype, tuple(t.shape)))
        return x_t.flatten(1).sum(1)

    ClassifierGuidedPrior(mixture(), log_prob).denoise(noisy().float(), 0.5)
    assert seen == [(torch.float32, (6,))]


@pytest.mark.parametrize(
    ("log_prob", "message"),
    [
        (lambda x, t: x.sum(), r"one log-probability a row, \(6,\), not \(\)"),
        (lambda x, t: x.flatten(1), "take the entry of the class"),
        (lambda x, t: torch.zeros(6), "has no gradient by x_t"),
    ],
)
def test_a_classifier_that_cannot_guide_is_refused(log_prob: Callable[[Tensor, Tensor], Tensor], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        ClassifierGuidedPrior(mixture(), log_prob).denoise(noisy(), 0.5)


def test_a_scale_that_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="finite number, not nan"):
        ClassifierGuidedPrior(mixture(), classifier(0), float("nan"))
