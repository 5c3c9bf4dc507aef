"""ILVR: what it keeps of y, its exact law, and what it is the same as."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from priorpaint import Downsampling, Grayscale, Inpainting, UsageError, solver
from priorpaint.operators import LinearOperator, MatrixOperator
from priorpaint.priors.analytic import Gaussian
from tests.solvers import affine
from tests.solvers.linear_toy import Affine, Level, Rule, ar1, chain, dense
from tests.solvers.toy import KNOWN, Y, toy_g, toy_m


def replacing(v: np.ndarray, singular: np.ndarray, measured: np.ndarray, sigma_y: float, eta: float) -> Rule:
    """In the basis V, the coordinate of value d: alpha_s v^T A^+ y + sqrt(sigma_s^2 - alpha_s^2 sigma_y^2 / d^2) z.

    Where d = 0 or the root is not real, it stays what STEP(eta) made of it.
    """

    def step(level: Level) -> Affine:
        variance = (1 - level.a_s) * (1 - level.a_t / level.a_s) / (1 - level.a_t)
        kept = np.sqrt(max(1 - level.a_s - eta**2 * variance, 0))
        move = v.T @ (np.sqrt(level.a_s) * level.denoise + kept * level.eps)
        shift, noise = np.zeros(len(v)), np.full(len(v), eta**2 * variance)
        for i, d in enumerate(singular):
            missing = 1 - level.a_s - level.a_s * (sigma_y / d) ** 2 if d > 0 else -1.0
            if missing >= 0:
                move[i], shift[i], noise[i] = 0, np.sqrt(level.a_s) * v[:, i] @ measured, missing
        return v @ move, v @ shift, v @ np.diag(noise) @ v.T

    return step


@pytest.mark.parametrize("sigma_y", [0.0, 0.05, 0.6])
@pytest.mark.parametrize("eta", [1.0, 0.0])
def test_its_law_on_a_gaussian_exactly(monkeypatch: pytest.MonkeyPatch, eta: float, sigma_y: float) -> None:
    """Singular values 2, .5, 0 and a direction that A does not have: each has its own rule."""
    operator, singular, v = dense()
    cov = 0.6 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    prior, y = Gaussian(torch.zeros(4), torch.from_numpy(cov)), torch.tensor([[0.8, -0.3, 0.1]])
    run = solver("ilvr", steps=12, eta=eta, paste=False, spacing="respaced")
    mean, got = affine.of_solver(monkeypatch, run, prior, operator, y, 4 * 25, sigma_y)
    measured = operator.pinv(y).flatten().double().numpy()
    want_mean, want = chain(cov, 12, replacing(v, singular, measured, sigma_y, eta))
    np.testing.assert_allclose(mean.numpy(), want_mean, atol=2e-5)
    np.testing.assert_allclose(got.numpy(), want, atol=2e-5)


@pytest.mark.parametrize("sigma_y", [0.0, 0.3])
def test_for_a_mask_it_is_replacement(sigma_y: float) -> None:
    ours, theirs = (
        solver(name, steps=30).sample(toy_m(), KNOWN, Y, sigma_y=sigma_y, num_samples=20, seed=2)
        for name in ("ilvr", "replacement")
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def pictures() -> Gaussian:
    """1 x 8 x 8, smooth."""
    _, _, cov, _ = ar1(8)
    return Gaussian(torch.zeros(64), torch.from_numpy(np.kron(cov, cov)), (1, 8, 8))


@pytest.mark.parametrize("paste", [True, False])
@pytest.mark.parametrize("operator", [Downsampling(2, "box"), Downsampling(4, "bicubic")], ids=["box", "bicubic"])
def test_the_low_frequencies_are_those_of_the_reference(operator: Downsampling, paste: bool) -> None:
    """phi_N of the result is phi_N of the reference, with the paper's phi_N: shrink by N, interpolate back."""
    prior = pictures()
    reference = prior.sample(2, seed=3)
    out = solver("ilvr", steps=10, paste=paste).sample(prior, operator, operator(reference), num_samples=3, seed=1)

    def phi(image: torch.Tensor) -> torch.Tensor:
        return F.interpolate(operator(image), scale_factor=operator.factor, mode="bicubic")

    for k in range(3):
        torch.testing.assert_close(phi(out[:, k]), phi(reference), rtol=0, atol=2e-5)
        rest = out[:, k] - operator.pinv(operator(out[:, k]))
        assert rest.std() > 0.1, "the high frequencies are sampled"


def test_a_larger_factor_keeps_less_of_y() -> None:
    """A whole picture as reference: its means over 4 x 4 pixels stay, those over 2 x 2 do not."""
    prior, whole = pictures(), Downsampling(1, "box")
    y = prior.sample(1, seed=3)
    out = solver("ilvr", steps=10, factor=4).sample(prior, whole, y, num_samples=4)[0]
    torch.testing.assert_close(F.avg_pool2d(out, 4), F.avg_pool2d(y, 4).expand(4, -1, -1, -1), rtol=0, atol=1e-5)
    assert (F.avg_pool2d(out, 2) - F.avg_pool2d(y, 2)).square().mean().sqrt() > 0.1


@pytest.mark.parametrize("sigma_y", [0.0, 0.2])
def test_a_factor_is_another_measurement(sigma_y: float) -> None:
    """4 of y that was shrunk by 2: the same law as of the means of its 2 x 2 entries, with half of their noise."""
    prior, fine, coarse = pictures(), Downsampling(2, "box"), Downsampling(4, "box")
    y = fine(prior.sample(1, seed=3))
    got = solver("ilvr", steps=6, factor=4).sample(prior, fine, y, sigma_y=sigma_y, num_samples=3, seed=[5])
    direct = solver("ilvr", steps=6).sample(
        prior, coarse, F.avg_pool2d(y, 2), sigma_y=sigma_y / 2, num_samples=3, seed=[5]
    )
    torch.testing.assert_close(got, direct, rtol=0, atol=1e-4)


def test_the_factor_of_the_measurement_itself_changes_nothing() -> None:
    prior, operator = pictures(), Downsampling(2)
    y = operator(prior.sample(1, seed=3))
    same, plain = (
        solver("ilvr", steps=6, **more).sample(prior, operator, y, num_samples=2) for more in ({"factor": 2}, {})
    )
    torch.testing.assert_close(same, plain, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (Downsampling(4), "factor = 6 is not a multiple of the 4"),
        (Grayscale(), "Grayscale has none; leave factor out"),
        (Inpainting(torch.ones(2, 2)), "Inpainting has none; leave factor out"),
    ],
)
def test_a_factor_that_means_nothing_is_refused(operator: LinearOperator, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        solver("ilvr", factor=6).check(operator)


def test_a_factor_that_does_not_divide_the_picture_is_refused() -> None:
    prior, operator = pictures(), Downsampling(2)
    y = operator(prior.sample(1, seed=3))
    with pytest.raises(UsageError, match="no whole blocks of 6"):
        solver("ilvr", factor=6).sample(prior, operator, y)


def test_free_steps_replace_nothing() -> None:
    """All steps free: y does not matter. The last one free: y is met up to the noise of .01 before it, then pasted."""
    prior, operator = toy_g(), MatrixOperator(torch.tensor([[1.0, 0.0]]), (1, 1, 2))

    def run(y: float, **more: Any) -> torch.Tensor:
        measured = torch.tensor([[y]])
        method = solver("ilvr", steps=20, spacing="respaced", **more)
        return method.sample(prior, operator, measured, num_samples=50, seed=[1])[0].flatten(1)

    assert torch.equal(run(1.0, free_steps=20, paste=False), run(-1.0, free_steps=99, paste=False))
    last = run(1.0, free_steps=1, paste=False)[:, 0]
    assert (last != 1).all() and (last - 1).abs().max() < 0.05
    assert (run(1.0, free_steps=1)[:, 0] - 1).abs().max() < 1e-6
