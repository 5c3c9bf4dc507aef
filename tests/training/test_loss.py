"""EDM preconditioning and loss against closed forms; the balance of noise levels; the moving average."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.training.ema import EMA
from priorpaint.training.objectives import Balance, EDMObjective

LEVELS = (0.01, 8.0)
EDM = EDMObjective(-1.2, 1.3, LEVELS, 0.5, balance=False)


def zero(x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x)


def test_with_a_zero_network_the_denoiser_is_the_wiener_filter() -> None:
    x, sigma = torch.ones(2, 3, 4, 4), torch.tensor([0.5, 2.0])
    shrink = 0.25 / (sigma**2 + 0.25)
    torch.testing.assert_close(EDM.denoise(zero, x, sigma), shrink[:, None, None, None].expand_as(x))


def test_the_network_sees_unit_variance_and_a_quarter_of_ln_sigma() -> None:
    inputs: dict[str, torch.Tensor] = {}

    def spy(x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
        inputs.update(x=x, c_noise=c_noise)
        return x

    sigma = torch.tensor([0.1, 1.0, 5.0])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 1, 200, 200, generator=generator) * (sigma**2 + 0.25).sqrt()[:, None, None, None]
    EDM.denoise(spy, x, sigma)
    torch.testing.assert_close(inputs["c_noise"], sigma.log() / 4)
    # 40,000 values: the standard error of their standard deviation is 0.0035
    torch.testing.assert_close(inputs["x"].std((1, 2, 3)), torch.ones(3), atol=0.02, rtol=0)


def test_loss_of_the_zero_network_is_one_at_every_level() -> None:
    # Gaussian data of variance s_d^2: E |D - x_0|^2 = sigma^2 s_d^2 / (sigma^2 + s_d^2), the inverse of lambda.
    generator = torch.Generator().manual_seed(0)
    for sigma in (0.02, 0.3, 1.0, 6.0):
        x_0 = 0.5 * torch.randn(1, 1, 200, 200, generator=generator)
        at_sigma = EDMObjective(math.log(sigma), 1e-6, LEVELS, 0.5, balance=False)
        loss = at_sigma.losses(zero, x_0, generator).plain
        torch.testing.assert_close(loss, torch.ones(1), atol=0.03, rtol=0)  # standard error sqrt(2 / 40000) = 0.007


def test_noise_levels_follow_the_clamped_log_normal() -> None:
    seen: list[torch.Tensor] = []

    def spy(x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
        seen.append((4 * c_noise).exp())
        return x

    EDM.losses(spy, torch.zeros(20_000, 1, 1, 1), torch.Generator().manual_seed(0))
    drawn = seen[0]
    assert float(drawn.min()) == pytest.approx(0.01) and float(drawn.max()) == pytest.approx(8.0)
    assert float(drawn.log().median()) == pytest.approx(
        -1.2, abs=0.05
    )  # standard error 1.25 * 1.3 / sqrt(20000) = 0.012


def test_balance_brings_every_level_to_a_loss_of_one() -> None:
    balance = Balance(LEVELS, rate=0.1)
    sigma = torch.tensor([0.02, 0.02, 4.0])
    for _ in range(200):
        weighed = balance.weigh(torch.tensor([0.9, 0.9, 0.05]), sigma)
    torch.testing.assert_close(weighed, torch.ones(3), atol=1e-3, rtol=0)


def test_balance_takes_losses_as_if_one_by_one() -> None:
    together, apart = Balance(LEVELS, rate=0.1), Balance(LEVELS, rate=0.1)
    together.weigh(torch.tensor([0.5, 0.5, 0.5]), torch.full((3,), math.e**-1))
    for _ in range(3):
        apart.weigh(torch.tensor([0.5]), torch.full((1,), math.e**-1))
    torch.testing.assert_close(together.means, apart.means)


def test_moving_average_follows_its_formula() -> None:
    network = UNet(UNetConfig((4,), (1,)))
    ema = EMA(network, decay=0.5)
    expected = network.tail.bias.detach().clone()
    for step in range(12):
        with torch.no_grad():
            network.tail.bias.fill_(float(step))
        ema.update(network, step)
        decay = min(0.5, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(ema.network.tail.bias.detach(), expected)
