"""Every method on every operator that it supports: both registries are the lists of cases.

A method that needs a mask or a linear operator says so when it gets another one. What a method makes of the measurement
is tested elsewhere; here every pair runs, on a small Gaussian, with and without noise, alone and in a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from priorpaint import (
    JPEG,
    OPERATORS,
    SOLVERS,
    Blur,
    Downsampling,
    GaussianBlur,
    Grayscale,
    Inpainting,
    LinearOperator,
    MatrixOperator,
    MotionBlur,
    Operator,
    RandomPixels,
    Solver,
    UsageError,
    WalshHadamard,
)
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers import explain
from tests.solvers.test_contract import make

SHAPE = (3, 4, 8)
SIZE = 96

# Cheaper still than in the contract; "smc" takes a vector-Jacobian product an element.
QUICK: dict[str, dict[str, Any]] = {
    "smc": {"steps": 2, "particles": 2, "num_kept": 2},
    "vipaint": {"preset": "exact", "levels": 1, "iterations": 2, "mc_samples": 1, "refine_steps": 2},
}
# Methods that climb to a mode; a Gaussian has one, so that their samples agree.
ONE_ANSWER = {"repaint_plus"}


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# name in the registry -> operator for images (., 3, 4, 8)
MAKE: dict[str, Callable[[], Operator]] = {
    "blur": lambda: Blur(torch.ones(2, 2)),
    "downsampling": lambda: Downsampling(2),
    "gaussian_blur": lambda: GaussianBlur(2.0),
    "grayscale": Grayscale,
    "inpainting": lambda: Inpainting(torch.arange(32).reshape(4, 8) % 3 == 0),
    "jpeg": lambda: JPEG(50),
    "matrix": lambda: MatrixOperator(noise(5, SIZE, seed=0), SHAPE),
    "motion_blur": lambda: MotionBlur(4),
    "random_pixels": lambda: RandomPixels((4, 8), keep=0.3),
    "walsh_hadamard": lambda: WalshHadamard((4, 8), keep=0.3),
}
PAIRS = [(method, name) for method in sorted(SOLVERS) for name in sorted(OPERATORS)]


def quick(method: str) -> Solver:
    steps = {"steps": 3} if "steps" in explain(SOLVERS[method]) else {}
    return make(method, **{**steps, **QUICK.get(method, {})})


def supported(method: str, name: str) -> bool:
    needs, cls = SOLVERS[method].needs, OPERATORS[name]
    fits_mask = "mask" not in needs or issubclass(cls, Inpainting)
    return fits_mask and ("linear" not in needs or issubclass(cls, LinearOperator))


SUPPORTED = [pair for pair in PAIRS if supported(*pair)]


@cache
def prior() -> Gaussian:
    """Six directions and a little white noise."""
    directions = noise(SIZE, 6, seed=1).double() / 6
    cov = directions @ directions.mT + 0.01 * torch.eye(SIZE, dtype=torch.float64)
    return Gaussian(0.1 * noise(SIZE, seed=2), cov, SHAPE)  # type: ignore[arg-type]


@cache
def measured(name: str) -> Tensor:
    """Two measurements."""
    return MAKE[name]()(prior().sample(2, seed=9))


def test_every_operator_is_here() -> None:
    assert set(MAKE) == set(OPERATORS)
    assert all(type(build()) is OPERATORS[name] for name, build in MAKE.items())


@pytest.mark.parametrize("method", sorted(SOLVERS))
def test_every_method_has_an_operator(method: str) -> None:
    assert any(supported(method, name) for name in OPERATORS)


@pytest.mark.parametrize("sigma_y", [0.0, 0.1])
@pytest.mark.parametrize(("method", "name"), SUPPORTED)
def test_pair(method: str, name: str, sigma_y: float) -> None:
    """Shape, finite, samples that differ, and an image alone is an image in a batch, up to float rounding."""
    run, operator, y = quick(method), MAKE[name](), measured(name)
    out = run.sample(prior(), operator, y, sigma_y=sigma_y, num_samples=2, seed=4)
    assert out.shape == (2, 2, *SHAPE) and out.dtype == torch.float32
    assert out.isfinite().all() and out.abs().max() < 50
    assert torch.allclose(out[:, 0], out[:, 1], atol=1e-3) == (method in ONE_ANSWER), "samples that do not differ"
    alone = run.sample(prior(), operator, y[1:], sigma_y=sigma_y, num_samples=2, seed=4)
    torch.testing.assert_close(out[1:], alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("method", "name"), [pair for pair in PAIRS if not supported(*pair)])
def test_unsupported_pair(method: str, name: str) -> None:
    with pytest.raises(UsageError, match=OPERATORS[name].__name__):
        quick(method).sample(prior(), MAKE[name](), measured(name))
