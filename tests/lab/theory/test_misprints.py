"""Misprints of the three documents (docs/papers.md): what is printed fails where what is meant holds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from priorpaint.diffusion import transitions
from priorpaint.diffusion.schedules import VP
from priorpaint.lab.theory.model import normal

LINEAR = VP("linear")
TIMES = LINEAR.grid(1000, "respaced").flip(0)  # TIMES[t] is the time of state t
ABAR = LINEAR.alpha(TIMES) ** 2
BETA = 1 - ABAR[1:] / ABAR[:-1]  # of t = 1, 2, ...
TILDE = transitions.backward_variance(LINEAR, TIMES[1:], TIMES[:-1])


def log_normal(x: float, mean: float, variance: float) -> float:
    return -0.5 * ((x - mean) ** 2 / variance + math.log(2 * math.pi * variance))


# -- the lecture -------------------------------------------------------------------------------------------------------


def test_forward_kernel() -> None:
    """1: x_t ~ N(sqrt(1 - alpha_t) x_{t-1}, ...) for sqrt(alpha_t). The product of the factors is sqrt(abar_t)."""
    assert float((1 - BETA[:300]).sqrt().prod()) == pytest.approx(math.sqrt(float(ABAR[300])))
    assert float(BETA[:300].sqrt().prod()) < 1e-300


def test_example_of_two_steps() -> None:
    """2: the noise of the first step is shrunk by the second; unshrunk, its variance is not 1 - abar_2."""
    first, second = (1 - BETA[:2]).tolist()
    assert second * (1 - first) + 1 - second == pytest.approx(1 - first * second)
    assert abs((1 - first) + (1 - second) - (1 - first * second)) > 1e-8


def test_bayes_rule_in_the_bound() -> None:
    """3: log q(x_t | x_{t-1}) = log q(x_{t-1} | x_t, x_0) + log q(x_t | x_0) - log q(x_{t-1} | x_0); printed is
    q(x_t | x_{t-1}, x_0) in the first place, which would make the other two equal."""
    t, x_0, x_s, x_t = 300, 0.7, 0.2, -0.4
    alpha_s, alpha_t = (float(ABAR[i].sqrt()) for i in (t - 1, t))
    step = log_normal(x_t, alpha_t / alpha_s * x_s, float(BETA[t - 1]))
    mean = transitions.step_mean(LINEAR, torch.tensor(x_t), torch.tensor(x_0), TIMES[t], TIMES[t - 1])
    back = log_normal(x_s, float(mean), float(TILDE[t - 1]))
    marginal_s, marginal_t = (
        log_normal(x_s, alpha_s * x_0, 1 - alpha_s**2),
        log_normal(x_t, alpha_t * x_0, 1 - alpha_t**2),
    )
    assert step == pytest.approx(back + marginal_t - marginal_s, abs=1e-3)  # the mean is in float32
    assert abs(marginal_t - marginal_s) > 0.1


def test_deviation_where_the_variance_is_meant() -> None:
    """8: + beta~ z for + sqrt(beta~) z, and beta z for sqrt(beta) z. N(0, 1) is generated as N(0, .99), or shrinks."""

    def generated(added: Tensor) -> float:
        variance = 1.0
        for t in range(1000, 0, -1):  # D(x_t) = alpha_t x_t, so x_s = sqrt(1 - beta_t) x_t + noise
            variance = (1 - float(BETA[t - 1])) * variance + (float(added[t - 1]) if t > 1 else 0)
        return variance

    assert generated(TILDE) == pytest.approx(0.991, abs=1e-3) and generated(BETA) == pytest.approx(1, abs=1e-3)
    assert generated(TILDE**2) < 0.01 > generated(BETA**2)


def test_moving_average() -> None:
    """9: (1 - mu) theta_{n+1} + mu theta_n averages two iterates; theta~_n in the second place averages all."""
    theta = normal(20_000, 1, seed=0, use="iterates")[:, 0]
    mu, average, averages = 0.9, 0.0, []
    for value in theta.tolist():
        average = (1 - mu) * value + mu * average
        averages.append(average)
    meant = float(torch.tensor(averages[100:]).var())
    printed = float(((1 - mu) * theta[1:] + mu * theta[:-1]).var())
    assert meant == pytest.approx((1 - mu) / (1 + mu), rel=0.1) and printed == pytest.approx(0.82, rel=0.1)


def test_time_reversal() -> None:
    """10, 11, 13: for dx = -beta x / 2 dt + sqrt(beta) dw in N(0, 1), whose reversal is itself; score(x) = -x."""
    beta = 0.4

    def settles(slope: float) -> float:
        """The variance at which dx = slope x dt + sqrt(beta) dw rests."""
        return beta / (-2 * slope) if slope < 0 else math.inf

    forward, score = -beta / 2, -1.0
    assert settles(-forward + beta * score) == 1  # b-bar = -b + sigma^2 score
    assert settles(-forward - beta * score) == math.inf  # printed: -b - sigma^2 score
    # Slide of the discretisation, time running down: printed is +beta x / 2 for -beta x / 2.
    assert settles(-(-beta / 2 - beta * score)) == 1 and settles(-(beta / 2 - beta * score)) == pytest.approx(1 / 3)
    # dw^ = dw + sigma score dt must be uncorrelated with x_t: E[dw x_t] = sigma dt. Printed is score dt without sigma.
    sigma = math.sqrt(beta)
    assert sigma + sigma * score == 0 and sigma + score != 0


def test_score_of_the_noise() -> None:
    """12: s = -eps / (1 - abar) for -eps / sqrt(1 - abar): of x_t | x_0 the score is -(x_t - alpha x_0) / sigma^2."""
    eps, sigma = 1.3, float((1 - ABAR[50]).sqrt())
    score = -(sigma * eps) / sigma**2
    assert score == pytest.approx(-eps / sigma) and abs(score + eps / sigma**2) > 1


def test_known_pixels_of_repaint() -> None:
    """16, 17: sqrt(abar_t) y + (1 - abar_t) eps for sqrt(abar_{t-1}) y + sqrt(1 - abar_{t-1}) eps, which ends at y."""
    assert float(ABAR[0]) == 1, "t - 1 = 0 is clean"
    assert float(ABAR[1].sqrt()) < 1 and float(1 - ABAR[1]) > 0, "as printed, the result is off y and noisy"
    assert float((1 - ABAR[300]) / (1 - ABAR[300]).sqrt()) < 0.8, "and has the deviation of another level"


# -- VIPaint -----------------------------------------------------------------------------------------------------------


def test_sign_of_red_diff() -> None:
    """Eq. 10: sg[eps - eps_theta]^T mu has the gradient eps - eps_theta, which drives mu away from the prior.

    For x_0 ~ N(0, 1), eps_theta - eps is sigma alpha mu on average: descent must shrink
    mu, as the method does (tests/solvers/test_reddiff.py).
    """
    alpha, sigma, mu = (float(LINEAR.alpha(TIMES[500])), float(LINEAR.sigma(TIMES[500])), 2.0)
    eps = normal(100_000, 1, seed=0, use="eps")
    x_t = alpha * mu + sigma * eps
    eps_theta = (x_t - alpha * alpha * x_t) / sigma  # D = alpha x_t
    assert float((eps_theta - eps).mean()) == pytest.approx(sigma * alpha * mu, rel=0.02)


def test_the_steps_that_are_given_z_end_with_an_infinite_term() -> None:
    """Eq. 5 with t = 1, Eq. 14 with t = T_e + 1: given z_Te, z_Te has no variance, and the prior's step has."""
    assert float(TILDE[0]) == 0 and float(BETA[0]) > 0
    given = transitions.backward_variance(LINEAR, TIMES[551], TIMES[550])
    assert float(given) > 0, "the prior's step from T_e + 1 to T_e; that given z_Te is a point"
