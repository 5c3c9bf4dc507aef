"""A sample is the same alone, in any batch and with any batch size: to the last bit, for every method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from priorpaint import SOLVERS, NetworkPrior, inpaint, load_prior
from priorpaint.diffusion.schedules import VP
from priorpaint.diffusion.transitions import row_sum
from priorpaint.inpainting.rowwise import RowwisePrior
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.solvers import explain

FAST: dict[str, dict[str, Any]] = {
    "copaint_tt": {"steps": 4, "jump_length": 2, "resamplings": 2},
    "langevin": {"steps": 3, "inner_steps": 2},
    "daps": {"steps": 2, "n_ode": 2, "n_mc": 3},
    "smc": {"twist": "mmps_cg", "kernel": "first", "steps": 3, "particles": 2, "num_kept": 1},
    "repaint": {"steps": 4, "jump_length": 2, "resamplings": 2},
    "repaint_plus": {"steps": 3, "resamplings": 2},
    "resample": {"steps": 4, "every": 2, "lookahead": 2, "latent_iterations": 3},
    "vipaint": {"preset": "exact", "levels": 2, "iterations": 2, "mc_samples": 2, "refine_steps": 3},
}


def network_prior() -> NetworkPrior:
    """A small network with random weights, in the sizes at which kernels differ with the number of rows."""
    network = UNet(UNetConfig((8, 16), (1, 1), 8), seed=0).eval().requires_grad_(False)
    with torch.no_grad():
        network.tail.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    return NetworkPrior(network, VP(), (3, None, None), prediction="x0", multiple=2, name="random")


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.slow)])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_a_sample_is_the_same_to_the_bit_alone_and_in_any_batch(name: str, threads: int) -> None:
    """In floating values, so that no rounding hides a difference; above 32,768 values torch sums by its threads."""
    side = 40 if threads == 1 else 112
    rows, columns = np.indices((side, side))
    values = (0.5 + 0.4 * np.sin(rows / 9)[..., None] * np.cos(columns[..., None] / (7, 11, 13))).astype(np.float32)
    hole = np.zeros((side, side), dtype=bool)
    hole[side // 4 : -side // 4, side // 3 : -side // 4] = True
    settings = FAST.get(name, {"steps": 3} if "steps" in explain(SOLVERS[name]) else {})
    prior = network_prior()
    together, apart = (inpaint(values, hole, prior, name, 3, batch_size=size, **settings) for size in (3, 1))
    seed = together.info["sample_seeds"][1:2]
    one = inpaint(values, hole, prior, name, 1, seed, **settings)
    for a, b in zip(together.images, apart.images, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    np.testing.assert_array_equal(np.asarray(one.images[0]), np.asarray(together.images[1]))
    np.testing.assert_array_equal(together.uncertainty, apart.uncertainty)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("name", ["photos", "fashion", "avatars"])
def test_four_samples_of_deep_values_are_the_same_for_any_batch_size(name: str, dtype: str) -> None:
    """The priors of the package, on a picture that is larger than those of a fixed size, and in its own units."""
    prior = load_prior(name, device="cpu")
    side, grey = 36, prior.image_shape[0] == 1
    rows, columns = np.indices((side, side))
    values = 0.5 + 0.4 * np.sin(rows / 9)[..., None] * np.cos(columns[..., None] / (7, 11, 13))
    values = values[..., 0] if grey else values
    stored = (values * 65535).astype(np.uint16) if dtype == "uint16" else values.astype(np.float32)
    hole = np.zeros((side, side), dtype=bool)
    hole[9:-9, 12:-9] = True
    first, *others = (inpaint(stored, hole, prior, num_samples=4, batch_size=size, steps=3) for size in (1, 2, 4))
    for other in others:
        for one, two in zip(first.images, other.images, strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(two))
        np.testing.assert_array_equal(np.asarray(first.mean), np.asarray(other.mean))


def test_the_wrapper_counts_and_differentiates_as_the_prior_inside() -> None:
    prior = network_prior()
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    apart = RowwisePrior(prior)
    (gradient,) = torch.autograd.grad(apart.denoise(x, t).square().sum(), x)
    assert (prior.nfe.forward, prior.nfe.backward) == (0, 3)
    (expected,) = torch.autograd.grad(prior.denoise(x, t).square().sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(apart.denoise(x.detach(), 0.5), prior.denoise(x.detach(), 0.5), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        alone = torch.cat([prior.denoise(x[i : i + 1], t[i : i + 1]) for i in range(3)])
        assert torch.equal(apart.denoise(x, t), alone)


def test_the_sum_of_a_row_is_the_same_alone_on_two_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _check_row_sums(torch.randn(4, 3, 120, 120, generator=torch.Generator().manual_seed(0)))
    finally:
        torch.set_num_threads(before)


def _check_row_sums(x: torch.Tensor) -> None:
    for value in (x, x.flatten(1)):
        assert torch.equal(row_sum(value), torch.cat([row_sum(value[i : i + 1]) for i in range(4)]))
    torch.testing.assert_close(row_sum(x), x.double().sum((1, 2, 3)).float())
    assert row_sum(x[:0]).shape == (0,)
