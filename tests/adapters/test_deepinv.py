"""deepinv's physics, denoisers and reconstructors beside ours; skipped where deepinv is not installed."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch

from priorpaint import UsageError, analytic, load_prior

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries that it imports
    deepinv = pytest.importorskip("deepinv")
    from priorpaint.adapters import deepinv as adapter

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
SHAPE = (3, 16, 16)
LARGE = (3, 32, 32)


def physics(kind: str, shape: tuple[int, int, int]) -> Any:
    blur = deepinv.physics.blur.gaussian_blur(sigma=(1.0, 1.0))
    at = deepinv.physics
    made = {
        "denoising": lambda: at.Denoising(),
        "inpainting": lambda: at.Inpainting(shape, mask=0.5),
        "values": lambda: at.Inpainting(shape, mask=0.5, pixelwise=False),
        "blur of a circle": lambda: at.BlurFFT(shape, filter=blur),
        "grey": lambda: at.Decolorize(),
        "mosaic": lambda: at.Demosaicing(shape),
        "camera": lambda: at.SinglePixelCamera(m=100, img_size=shape, fast=True),
        "resonance": lambda: at.MRI(mask=torch.eye(shape[1])[None, None] + 1, img_size=(2, *shape[1:])),
        "smaller": lambda: at.Downsampling(shape, factor=2, filter="bilinear"),
        "rays": lambda: at.Tomography(angles=8, img_width=shape[1]),
        "sensing": lambda: at.CompressedSensing(m=60, img_size=shape),
    }[kind]()
    made.set_noise_model(at.GaussianNoise(0.05))
    return made


KINDS = {
    "denoising": "DecomposedPhysics",
    "inpainting": "Inpainting",
    "values": "DecomposedPhysics",
    "blur of a circle": "DecomposedPhysics",
    "grey": "DecomposedPhysics",
    "mosaic": "DecomposedPhysics",
    "camera": "DecomposedPhysics",
    "resonance": "DecomposedPhysics",
    "smaller": "MatrixOperator",
    "rays": "MatrixOperator",
    "sensing": "MatrixOperator",
}


@pytest.mark.parametrize(
    ("kind", "shape", "name"),
    [*((kind, SHAPE, name) for kind, name in KINDS.items()), ("smaller", LARGE, "IterativePhysics"),
     ("sensing", LARGE, "IterativePhysics")],
)  # fmt: skip
def test_a_physics_measures_the_same_in_both_ranges(kind: str, shape: tuple[int, int, int], name: str) -> None:
    torch.manual_seed(0)
    channels = {"resonance": 2, "rays": 1}.get(kind, 3)
    x, made = torch.rand(2, channels, *shape[1:]), physics(kind, shape)
    operator, y, sigma_y = adapter.problem(made, made.A(x))
    assert type(operator).__name__ == name and sigma_y == pytest.approx(0.1)
    ours = 2 * x - 1
    torch.testing.assert_close(operator(ours), y, atol=2e-5, rtol=0)
    r = torch.randn_like(y)
    assert float((operator(ours) * r).sum()) == pytest.approx(float((ours * operator.adjoint(r)).sum()), abs=1e-2)
    c = torch.tensor([0.3, 0.7])
    u = operator.solve(r, c)
    again = operator(operator.adjoint(u)) + c.reshape(-1, *[1] * (r.ndim - 1)) * u
    if kind != "inpainting":  # ours leaves out what no pixel measures
        torch.testing.assert_close(again, r, atol=1e-4, rtol=0)
    torch.testing.assert_close(operator(operator.pinv(y)), y, atol=1e-3, rtol=0)
    assert float(operator(ours).norm()) <= 1.001 * operator.norm() * float(ours.norm())


def gaussian(side: int) -> analytic.Gaussian:
    """Smooth pictures of one channel with mean 0.2, in [-1, 1]."""
    i = torch.arange(side * side, dtype=torch.float64)
    rows, columns = i // side, i % side
    square = (rows[:, None] - rows).square() + (columns[:, None] - columns).square()
    return analytic.Gaussian(torch.full((side * side,), 0.2), 0.1 * torch.exp(-square / 8), (1, side, side))


@pytest.mark.parametrize("kind", ["blur of a circle", "smaller"])
def test_a_solver_draws_the_exact_posterior_in_deepinvs_range(kind: str) -> None:
    """The mean and standard deviation of 256 samples of MMPS, exact for a Gaussian, within 5 standard errors."""
    prior, made, count = gaussian(8), physics(kind, (1, 8, 8)), 256
    torch.manual_seed(0)
    y = made((prior.sample(1, seed=1).float() + 1) / 2)
    model = adapter.SolverReconstructor(prior, "mmps", num_samples=count, steps=40, iterations=12)
    samples = model.sample(y, made)[0].double()
    operator, measured, sigma_y = adapter.problem(made, y)
    truth = prior.posterior(operator, measured, sigma_y=sigma_y)
    std = truth.cov.diagonal(dim1=-2, dim2=-1).reshape(1, 8, 8).sqrt() / 2
    mean = (truth.mean.reshape(1, 8, 8) + 1) / 2
    error = (samples.mean(0) - mean) / std * math.sqrt(count)
    assert float(error.abs().max()) < 5
    ratio = samples.std(0) / std - 1
    assert float(ratio.abs().mean()) < 2 / math.sqrt(2 * count)
    torch.testing.assert_close(model(y, made)[0].double(), samples.mean(0))


def test_a_prior_denoises_in_deepinvs_range_and_back_again() -> None:
    """E[x | x + sigma n] of the Gaussian N(0.6, 0.025) in [0, 1], each image with a noise level of its own."""
    prior = analytic.Gaussian(torch.full((16,), 0.2), 0.1 * torch.eye(16), (1, 4, 4))
    denoiser, sigma = adapter.PriorDenoiser(prior), torch.tensor([0.05, 0.5])
    x = torch.rand(2, 1, 4, 4)
    weight = (0.025 / (0.025 + sigma**2))[:, None, None, None]
    expected = weight * x + (1 - weight) * 0.6
    torch.testing.assert_close(denoiser(x, sigma), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(denoiser(x, 0.5)[1], expected[1], atol=1e-5, rtol=0)
    again = adapter.prior_of(denoiser, (1, 4, 4), prior.schedule)
    t = torch.tensor([0.3, 0.9], dtype=torch.float64)
    torch.testing.assert_close(again.denoise(x, t), prior.denoise(x, t), atol=1e-4, rtol=0)


def test_without_a_decomposition_a_solver_takes_conjugate_gradients() -> None:
    """DiffPIR with the exact denoiser of white pictures goes where y says, alone as in company."""
    prior = analytic.Gaussian(torch.zeros(1600), torch.eye(1600), (1, 40, 40))
    made = physics("smaller", (1, 40, 40))
    torch.manual_seed(0)
    y = made(torch.rand(2, 1, 40, 40))
    model = adapter.SolverReconstructor(prior, "diffpir", steps=4)
    found = model(y, made)
    assert float((made.A(found) - y).std()) < 0.1  # twice the noise
    torch.testing.assert_close(model(y[:1], made), found[:1], atol=1e-4, rtol=0)


def test_deepinvs_methods_run_on_a_prior_of_ours() -> None:
    made, denoiser = physics("inpainting", LARGE), adapter.PriorDenoiser(load_prior("avatars", device="cpu"))
    torch.manual_seed(0)
    x = (denoiser.prior.sample(1, seed=3) + 1) / 2
    found = deepinv.sampling.DDRM(denoiser)(made(x), made)
    assert float((found - x).square().mean()) < 0.01


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="denoises latents"):
        adapter.PriorDenoiser(load_prior("avatars-latent", device="cpu"))
    blind = physics("inpainting", SHAPE)
    blind.update(mask=torch.ones(2, *SHAPE))
    with pytest.raises(UsageError, match="one image at a time"):
        adapter.problem(blind, torch.zeros(2, *SHAPE))
    with pytest.raises(UsageError, match="not a linear physics"):
        adapter.problem(deepinv.physics.Haze(), torch.zeros(1, *SHAPE))
    operator, y, _ = adapter.problem(physics("smaller", LARGE), torch.zeros(1, 3, 16, 16))
    with pytest.raises(UsageError, match="Downsampling has no singular value decomposition at this size"):
        operator.filter(torch.zeros(1, *LARGE), torch.square)
