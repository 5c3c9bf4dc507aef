"""What every solver promises on a latent prior: operators measure images, known pixels are kept bit by bit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from priorpaint import SOLVERS, Inpainting, UsageError, solver
from priorpaint.diffusion.rng import Streams
from priorpaint.lab.certify.problems import problem as certify_problem
from priorpaint.operators import Downsampling, LinearOperator, MatrixOperator
from priorpaint.priors.analytic import Gaussian
from priorpaint.priors.latent import LatentPrior, LinearAutoencoder
from priorpaint.priors.recompute import RecomputePrior
from priorpaint.solvers.base import Cost, Task
from priorpaint.solvers.daps import steepness
from priorpaint.solvers.dps import DPS
from priorpaint.solvers.likelihoods import Decoded, white_variance
from priorpaint.solvers.mmps import MMPS
from priorpaint.solvers.smc.solver import SMC
from priorpaint.solvers.smc.twists import DenseTwist
from tests.latent_toy import Curved, Identity, orthonormal, pictures, toy
from tests.solvers.test_contract import make
from tests.solvers.test_contract import problem as pixel_problem

NAMES = sorted(SOLVERS)
THROUGH = [name for name in NAMES if SOLVERS[name].through_decoder]
ON_GRID = [name for name in NAMES if not SOLVERS[name].through_decoder]
MASK = torch.ones(8, 8)
MASK[2:7, 3:] = 0


def problem(count: int = 2) -> tuple[LatentPrior, Inpainting, Tensor]:
    prior, operator = pictures(), Inpainting(MASK)
    return prior, operator, operator(prior.decode(prior.inner.sample(count, seed=3)))


def test_who_goes_through_the_decoder() -> None:
    assert set(THROUGH) == {
        *("copaint", "copaint_tt", "daps", "dps", "mmps", "psld", "reddiff", "reddiff_v", "resample", "smc", "vipaint")
    }


@pytest.mark.parametrize("name", NAMES)
def test_images_known_pixels_batches_and_cost(name: str) -> None:
    prior, operator, y = problem()
    run = make(name)
    before = y.clone()
    seen: list[tuple[int, ...]] = []
    out = run.sample(prior, operator, y, num_samples=2, callback=lambda step, total, z: seen.append(tuple(z.shape[1:])))
    assert out.shape == (2, 2, 2, 8, 8) and out.dtype == torch.float32 and out.isfinite().all()
    for k in range(2):
        assert torch.equal(operator(out[:, k]), y), "known pixels are not bit-identical"
    assert torch.equal(y, before) and set(seen) == {(3, 4, 4)}, "reports are latents"
    assert Cost(prior.nfe.forward, prior.nfe.backward) == Cost(2 * run.cost(2).forward, 2 * run.cost(2).backward)
    alone = run.sample(RecomputePrior(prior, rows=1), operator, y[1:], num_samples=2, batch_size=1)
    torch.testing.assert_close(alone, out[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_noise_leaves_y_as_evidence(name: str) -> None:
    prior, operator, y = problem(1)
    out = make(name).sample(prior, operator, y, sigma_y=0.1, num_samples=2)
    assert out.isfinite().all() and not torch.equal(operator(out[:, 0]), y)


@pytest.mark.parametrize("name", THROUGH)
def test_with_a_codec_that_does_nothing_it_is_the_pixel_method(name: str) -> None:
    prior, operator, y = pixel_problem(2)
    latent = LatentPrior(prior, Identity(2))
    settings = {"omega": 0.3} if name == "psld" else {}
    sigma_y = 0.1 if name == "smc" else 0.0  # without noise its particles allow for what a decoder loses
    wanted = make(name, **settings).sample(prior, operator, y, num_samples=2, sigma_y=sigma_y)
    if name in ("daps", "resample"):  # DAPS measures the curvature, ReSample optimises latents instead of pixels
        got = make(name, **settings).sample(latent, operator, y, num_samples=2)
        assert torch.equal(operator(got[:, 0]), y) and got.isfinite().all()
        return
    got = make(name, **settings).sample(latent, operator, y, num_samples=2, sigma_y=sigma_y)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", ON_GRID)
def test_hidden_pixels_do_not_leak_through_the_encoder(name: str) -> None:
    prior, operator, y = problem(1)
    out = make(name).sample(prior, operator, y, seed=[7])
    assert torch.equal(make(name).sample(prior, operator, y + (1 - MASK) * 5, seed=[7]), out)


def test_replacement_on_the_grid_is_replacement_of_the_encoded_picture() -> None:
    """With one pixel a cell nothing is lost on the grid, so it is the pixel method on W^-1 y."""
    law = pixel_problem()[0]
    turn = torch.block_diag(*[orthonormal(2, 2, seed=1)] * 12)
    order = torch.arange(24).reshape(2, 4, 3).permute(1, 2, 0).flatten()  # channels of a pixel side by side
    matrix = torch.zeros(24, 24, dtype=torch.float64)
    matrix[order[:, None], order] = turn
    latent = LatentPrior(law, LinearAutoencoder(matrix, (2, 4, 3), (2, 4, 3)))
    _, operator, y = pixel_problem(1)
    picture = latent.decode(law.sample(1, seed=9))
    got = make("replacement").sample(latent, operator, operator(picture), seed=[3])
    wanted = make("replacement").sample(law, operator, operator(latent.encode(operator(picture))), seed=[3])
    torch.testing.assert_close(latent.encode(got[:, 0]), wanted[:, 0])


@pytest.mark.parametrize("name", ON_GRID)
def test_measurements_that_are_no_mask_are_refused(name: str) -> None:
    prior, operator = pictures(), Downsampling(2)
    y = operator(prior.decode(prior.inner.sample(1, seed=3)))
    with pytest.raises(UsageError, match="mask"):
        make(name).sample(prior, operator, y)


@pytest.mark.parametrize("name", THROUGH)
def test_measurements_that_are_no_mask(name: str) -> None:
    prior, operator = pictures(), Downsampling(2)
    y = operator(prior.decode(prior.inner.sample(1, seed=3)))
    out = make(name).sample(prior, operator, y)
    torch.testing.assert_close(operator(out[:, 0]), y, rtol=0, atol=1e-5)


def test_a_mask_without_a_whole_cell() -> None:
    prior, _, _ = problem(1)
    scattered = Inpainting((torch.arange(64).reshape(8, 8) % 3 == 0).float())
    y = scattered(prior.decode(prior.inner.sample(1, seed=3)))
    with pytest.raises(UsageError, match="no 2 x 2 cell of the latent grid is known as a whole"):
        make("ddnm").sample(prior, scattered, y)
    assert make("dps").sample(prior, scattered, y).isfinite().all()
    nothing = Inpainting(torch.zeros(8, 8))
    assert make("ddnm").sample(prior, nothing, torch.zeros(1, 2, 8, 8)).isfinite().all()


def test_start_from_given_images() -> None:
    prior, operator, y = problem(1)
    start = prior.decode(prior.inner.sample(2, seed=8))[None]
    near = make("dps", t_init=0.01, scale=0.02).sample(prior, operator, y, num_samples=2, initial=start)
    far = make("dps", scale=0.02).sample(prior, operator, y, num_samples=2)
    away = [((out - start) * (1 - MASK)).abs().mean() for out in (near, far)]
    assert away[0] < 0.3 * away[1], "far from the images that it started from"
    on_grid = make("replacement", t_init=0.01).sample(prior, operator, y, num_samples=2, initial=start)
    assert torch.equal(operator(on_grid[:, 0]), y)
    with pytest.raises(UsageError, match="must have the shape"):
        make("dps", t_init=0.01).sample(prior, operator, y, initial=torch.zeros(1, 1, 3, 4, 4))


def test_wrong_channels_and_sizes() -> None:
    prior, operator, _ = problem(1)
    with pytest.raises(UsageError, match="2 channels and the image has 3"):
        make("dps").sample(prior, operator, torch.zeros(1, 3, 8, 8))
    with pytest.raises(UsageError, match="works on height 8"):
        make("dps").sample(prior, Inpainting(torch.ones(4, 4)), torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize("t", [0.2, 0.6, 0.95])
def test_moment_matching_is_exact_for_gaussian_latents_and_a_linear_decoder(t: float) -> None:
    """D' is the denoiser of the exact posterior: with enough iterations nothing is approximated."""
    place = certify_problem("Z-G16")
    prior, time = place.solver_prior, torch.tensor([t], dtype=torch.float64)
    guided = MMPS(iterations=16, jitter=1e-6).guide(prior, place.operator, place.y, place.sigma_y)
    x_t = Streams([1]).normal(*prior.shape).float() * float(prior.schedule.sigma(time))
    wanted = place.posterior.denoise(x_t, time)
    assert float((wanted - prior.denoise(x_t, time)).abs().max()) > 0.05
    torch.testing.assert_close(guided.denoise(x_t, time), wanted, rtol=1e-3, atol=2e-3)


def test_particles_of_latents_have_the_exact_evidence() -> None:
    """Gaussian latents and a linear decoder: every twist is exact, so weights are 1 and p(y) is that of y in pixels."""
    place = certify_problem("Z-G16")
    assert isinstance(place.autoencoder, LinearAutoencoder)
    rows = place.operator(place.autoencoder.matrix.mT.reshape(-1, 1, 8, 8).float()).flatten(1).mT  # A W
    seen = rows.abs().sum(1) > 0
    composed = MatrixOperator(rows[seen], place.law.shape)
    wanted = place.law.log_evidence(composed, place.y.flatten(1)[:, seen], place.sigma_y)
    run = solver("smc", steps=12, particles=32)
    assert isinstance(run, SMC)
    found = run.run(place.solver_prior, place.operator, place.y, sigma_y=place.sigma_y, groups=2)
    assert found.images.shape == (1, 2, 32, 1, 8, 8)
    assert float(found.log_evidence_of_image) == pytest.approx(float(wanted), abs=0.3)
    assert float(found.ess[..., 1:].min()) > 0.95, "a twist is not exact"


def test_rows_of_a_decoder_that_bends() -> None:
    """N(y; A Dec(D), sigma_y^2 + M V M^T) with M = A dDec/dz at each particle, all of y and its constant included."""
    law = Gaussian(torch.zeros(16), 0.5 * torch.eye(16) + 0.5, (4, 2, 2))
    prior, sigma_y = LatentPrior(law, Curved()), 0.2
    operator = Inpainting((torch.arange(16).reshape(4, 4) % 3 > 0).float())
    streams = Streams([3])
    y = operator(prior.decode(law.sample(1, seed=1)))
    place = Task(prior, operator, y, sigma_y, streams, (4, 2, 2), lambda step, x_0: None)
    x, t = streams.normal(5, 16).double(), torch.tensor(0.4, dtype=torch.float64)
    level = DenseTwist(place, 5, 2, sigma_y, "dense").evaluate(x, t, streams)
    assert level.cov is not None
    seen = operator.known.expand(1, 3, 4, 4).flatten() > 0
    for k in range(5):
        mean = level.x_0[0, k].float()
        through = lambda z: operator(prior.decode(z.reshape(1, 4, 2, 2))).flatten()[seen]  # noqa: E731
        matrix = torch.autograd.functional.jacobian(through, mean).double()
        residual = y.flatten()[seen] - through(mean)
        cov = sigma_y**2 * torch.eye(len(matrix)) + matrix @ level.cov[0, k] @ matrix.mT
        there = torch.distributions.MultivariateNormal(torch.zeros(len(cov), dtype=cov.dtype), cov)
        assert float(level.log_twist[0, k]) == pytest.approx(float(there.log_prob(residual.double())), abs=1e-3)
        moved = level.x_0[0, k] + level.cov[0, k] @ matrix.mT @ torch.linalg.solve(cov, residual.double())
        torch.testing.assert_close(level.guided[0, k], moved, rtol=1e-4, atol=1e-4)


def test_particles_allow_for_what_a_decoder_loses_and_are_decoded_some_at_a_time() -> None:
    """Noise-free y counts as sigma_y = .02, because no decoder meets a picture exactly."""
    prior = LatentPrior(Gaussian(torch.zeros(16), torch.eye(16), (4, 2, 2)), Curved())
    sizes: list[int] = []
    decode = prior.autoencoder.decode

    def watch(latent: Tensor) -> Tensor:
        sizes.append(len(latent))
        return decode(latent)

    prior.autoencoder.decode = watch  # type: ignore[method-assign]
    operator = Inpainting((torch.arange(16).reshape(4, 4) % 3 > 0).float())
    y = operator(torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    run = solver("smc", steps=3, particles=7, num_kept=1, paste=False)
    assert isinstance(run, SMC)
    free = run.run(prior, operator, y, seed=[1], batch_size=3)
    assert max(sizes) == 3
    torch.testing.assert_close(run.run(prior, operator, y, sigma_y=0.02, seed=[1]).images, free.images)


def test_twists_that_do_not_know_a_decoder_are_refused() -> None:
    for settings in ({"twist": "pigdm", "kernel": "first"}, {"twist": "tmpd", "kernel": "first"}, {"local": 0.1}):
        with pytest.raises(UsageError, match="goes through the decoder, mmps, mmps_cg, dps"):
            solver("smc", **settings).sample(*problem(1))
    with pytest.raises(UsageError, match="goes through the decoder"):
        make("vipaint", correct=True, twist="pigdm").sample(*problem(1))


@pytest.mark.parametrize("twist", ["mmps_cg", "dps"])
def test_other_twists_through_the_decoder_find_the_posterior_of_the_toy(twist: str) -> None:
    prior, operator = toy(), Inpainting(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    law = prior.inner
    assert isinstance(law, Gaussian)
    y = torch.tensor([[[[0.5, 0.0], [0.0, -0.3]]]])
    w = orthonormal(4, 2)
    exact = law.posterior(MatrixOperator(w[[0, 3]], (2, 1, 1)), y.flatten(1)[:, [0, 3]], 0.3)
    run = solver("smc", steps=60, particles=128, num_kept=32, twist=twist, kernel="first")
    z = prior.encode(run.sample(prior, operator, y, sigma_y=0.3, num_samples=512)[0]).flatten(1).double()
    std = exact.cov.diagonal().sqrt()
    assert bool(((z.mean(0) - exact.mean.flatten()).abs() < 0.2 * std).all())
    assert bool(((z.std(0) / std - 1).abs() < 0.15).all())


def test_white_latents_are_as_wide_as_the_decoder_makes_them() -> None:
    """Columns of length g: sigma_y^2 + (g r)^2 in place of sigma_y^2 + r^2."""
    g, law = 3.0, Gaussian(torch.zeros(2), torch.eye(2), (2, 1, 1))
    prior = LatentPrior(law, LinearAutoencoder(g * orthonormal(4, 2), (2, 1, 1), (1, 2, 2)))
    y, t = torch.zeros(1, 1, 2, 2), torch.tensor(0.5, dtype=torch.float64)
    z = torch.tensor([[[[0.4]], [[-0.2]]]])
    seen = DPS(guidance="likelihood", widen=True).likelihood(prior, Inpainting(torch.ones(2, 2)), y, 0.1).evaluate(z, t)
    square = float((g * seen.x_0).square().sum())
    variance = 0.01 + g**2 * float(white_variance(prior, t))
    wanted = -0.5 * (square / variance + 4 * math.log(2 * math.pi * variance))
    assert float(seen.log_likelihood) == pytest.approx(wanted, rel=1e-4)


def test_products_with_the_jacobian_of_a_decoder() -> None:
    """Of a decoder that is not linear, against differences; pixels pass as they are."""
    prior = LatentPrior(Gaussian(torch.zeros(64), torch.eye(64), (4, 4, 4)), Curved())
    z, v, w = (Streams([seed]).normal(4, 4, 4).float() for seed in (1, 2, 3))
    decoded = Decoded(prior, z)
    ahead, behind = (prior.decode(z + sign * 1e-2 * v).detach() for sign in (1, -1))
    torch.testing.assert_close(decoded.jvp(v), (ahead - behind) / 2e-2, rtol=1e-2, atol=1e-3)
    image = prior.decode(w).detach()
    assert float((decoded.jvp(v) * image).sum()) == pytest.approx(float((decoded.vjp(image) * v).sum()), rel=1e-4)
    pixels = Decoded(prior.inner, z)
    assert torch.equal(pixels.jvp(v), v) and torch.equal(pixels.vjp(v), v) and torch.equal(pixels.image, z)


def test_steepness_is_the_largest_singular_value() -> None:
    """DAPS needs the curvature of log p(y | z); through a linear decoder that is a singular value of A W."""
    prior = toy()
    operator: LinearOperator = Inpainting(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    y = torch.zeros(3, 1, 2, 2)
    here = Task(prior, operator, y, 0.0, Streams([1, 2, 3]), (2, 1, 1), lambda step, x_0: None)
    matrix = orthonormal(4, 2)[[0, 2]]
    found = steepness(here, torch.zeros(3, 2, 1, 1))
    assert found.tolist() == pytest.approx([float(torch.linalg.svdvals(matrix)[0])] * 3, rel=0.05)


def test_daps_reaches_the_posterior_of_the_toy() -> None:
    """Latent DAPS on a Gaussian: the exact posterior mean, and a spread of the right size."""
    prior, operator = toy(), Inpainting(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    w = orthonormal(4, 2)
    law = prior.inner
    assert isinstance(law, Gaussian)
    y = torch.tensor([[[[0.5, 0.0], [0.0, -0.3]]]])
    composed = MatrixOperator(w[[0, 3]], (2, 1, 1))
    exact = law.posterior(composed, y.flatten(1)[:, [0, 3]], 0.2)
    out = solver("daps", steps=40, n_mc=30, variance="data").sample(prior, operator, y, sigma_y=0.2, num_samples=600)
    z = prior.encode(out[0]).flatten(1).double()
    spread = exact.cov.diagonal().sqrt()
    assert ((z.mean(0) - exact.mean.flatten()).abs() < 0.35 * spread).all()
    assert (z.std(0) / spread).tolist() == pytest.approx([1, 1], abs=0.4)
