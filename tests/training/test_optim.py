"""Muon's orthogonal updates, its parameter groups and the learning rate."""

from __future__ import annotations

import pytest
import torch

from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.training.optim import Muon, Optimizers, orthogonalise, rate_factor


def quintic(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The iteration as it stands in Jordan et al. 2024, in float64, applied to the singular values themselves."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ vh


@pytest.mark.parametrize("shape", [(24, 216), (64, 24), (32, 32), (192, 1728)])
def test_update_is_the_quintic_of_the_singular_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    update = orthogonalise(matrix[None])[0]
    torch.testing.assert_close(update.double(), quintic(matrix), atol=2e-3, rtol=0)
    if shape[0] != shape[1]:  # a square Gaussian matrix has a singular value near 0, which five steps cannot lift to 1
        values = torch.linalg.svdvals(update)
        assert 0.6 < float(values.min()) and float(values.max()) < 1.3


def test_update_of_an_ill_conditioned_gradient_stays_bounded() -> None:
    generator = torch.Generator().manual_seed(1)
    u = torch.linalg.qr(torch.randn(64, 64, generator=generator)).Q
    v = torch.linalg.qr(torch.randn(300, 64, generator=generator)).Q
    matrix = u @ torch.diag(torch.logspace(0, -7, 64)) @ v.T
    values = torch.linalg.svdvals(orthogonalise(matrix[None])[0])
    assert bool(torch.isfinite(values).all()) and float(values.max()) < 1.3


def test_batched_matrices_do_not_feel_each_other() -> None:
    matrices = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(2))
    alone = torch.cat([orthogonalise(m[None]) for m in matrices])
    torch.testing.assert_close(orthogonalise(matrices), alone)


def test_muon_step_has_the_stated_size() -> None:
    weight = torch.nn.Parameter(torch.zeros(32, 4, 2, 2))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    Muon([weight], lr=0.1).step()
    values = torch.linalg.svdvals(weight.detach().flatten(1)) / (0.1 * 2**0.5)
    assert 0.6 < float(values.min()) and float(values.max()) < 1.3


def test_every_parameter_has_exactly_one_optimizer() -> None:
    network = UNet(UNetConfig((8, 8), (1, 1)))
    optimizers = Optimizers(network, 0.02, 1e-3)
    muon = [id(p) for g in optimizers.muon.param_groups for p in g["params"]]
    adam = [id(p) for g in optimizers.adam.param_groups for p in g["params"]]
    assert sorted(muon + adam) == sorted(id(p) for p in network.parameters())
    assert id(network.head.weight) in adam and id(network.bottom[0].first.weight) in muon


def test_learning_rate_warms_up_stays_and_decays() -> None:
    assert rate_factor(0, 0.0, 0.4) == pytest.approx(0.01)
    assert rate_factor(100, 0.3, 0.4) == 1.0 and rate_factor(10**6, 0.6, 0.4) == 1.0
    assert rate_factor(10**6, 0.8, 0.4) == pytest.approx(0.51)
    assert rate_factor(10**6, 1.0, 0.4) == pytest.approx(0.02)


def test_learning_rate_may_fall_from_the_first_step() -> None:
    assert rate_factor(100, 0.0, 1.0) == 1.0
    assert rate_factor(100, 0.5, 1.0) == pytest.approx(0.51)
    assert rate_factor(100, 1.0, 1.0) == pytest.approx(0.02)
