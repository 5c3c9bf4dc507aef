"""PSLD against its own formulas, written down again in numpy for a linear decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from priorpaint import Inpainting, UsageError, solver
from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.schedules import EDM, VP, Flow
from priorpaint.operators import Downsampling
from priorpaint.priors.latent import LatentPrior
from priorpaint.solvers.base import Task
from tests.latent_toy import Identity, orthonormal, pictures, toy
from tests.solvers.toy import KNOWN, Y, levels, toy_g

MASK = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
C = np.array([[1.0, 0.6], [0.6, 1.0]])
W = orthonormal(4, 2).numpy()


def chain(z: np.ndarray, y: np.ndarray, steps: int, omega: float, gamma: float) -> np.ndarray:
    """Latents (N, 2) after PSLD, from the formulas: DDIM less the gradient of omega E1 + gamma E2."""
    abar, seen = levels(steps), np.diag(MASK.numpy().flatten())
    for level in range(steps, 0, -1):
        a_t, a_s = abar[level], abar[level - 1]
        denoise = np.sqrt(a_t) * C @ np.linalg.inv(a_t * C + (1 - a_t) * np.eye(2))
        d = z @ denoise.T
        r = y - d @ (seen @ W).T
        e1 = -(r / np.linalg.norm(r, axis=1, keepdims=True)) @ (seen @ W @ denoise)
        u = r @ seen @ W  # Enc(glue) - D
        e2 = -(u / np.linalg.norm(u, axis=1, keepdims=True)) @ (W.T @ seen @ W @ denoise)
        eps = (z - np.sqrt(a_t) * d) / np.sqrt(1 - a_t)
        z = np.sqrt(a_s) * d + np.sqrt(1 - a_s) * eps - omega * e1 - gamma * e2
    return z


@pytest.mark.parametrize(("omega", "gamma"), [(0.1, 0.1), (0.02, 0.3), (0.3, 0.0), (0.0, 0.2)])
def test_chain_through_a_linear_decoder(omega: float, gamma: float) -> None:
    prior, y = toy(), MASK * torch.tensor([[[[0.9, 0.0], [0.0, -0.4]]]])
    noise = Streams(range(6)).normal(2, 1, 1).flatten(1).double().numpy()
    task = Task(prior, Inpainting(MASK), y.expand(6, -1, -1, -1), 0.0, Streams(range(6)), (2, 1, 1), lambda s, x: None)
    run: Any = solver("psld", steps=20, omega=omega, gamma=gamma, spacing="respaced")
    got = run._run(task).flatten(1).double().numpy()
    np.testing.assert_allclose(got, chain(noise, y.flatten(1).double().numpy(), 20, omega, gamma), atol=2e-4)


def test_without_gluing_it_is_latent_dps_bit_for_bit() -> None:
    prior, operator = pictures(), Inpainting((torch.arange(64).reshape(8, 8) % 3 > 0).float())
    y = operator(prior.decode(prior.inner.sample(2, seed=1)))
    for sigma_y in (0.0, 0.1):
        glued = solver("psld", steps=5, gamma=0, omega=0.4).sample(prior, operator, y, sigma_y=sigma_y, num_samples=2)
        plain = solver("dps", steps=5, eta=0, scale=0.4).sample(prior, operator, y, sigma_y=sigma_y, num_samples=2)
        assert torch.equal(glued, plain)


def test_gluing_adds_only_weight_where_the_codec_does_nothing() -> None:
    """Then E2 = ||A^T (y - A D)|| = E1: PSLD is DPS with scale omega + gamma."""
    prior = LatentPrior(toy_g(), Identity(1))
    glued = solver("psld", steps=10, omega=0.2, gamma=0.1, paste=False).sample(prior, KNOWN, Y, num_samples=3)
    plain = solver("dps", steps=10, eta=0, scale=0.3, paste=False).sample(toy_g(), KNOWN, Y, num_samples=3)
    torch.testing.assert_close(glued, plain, rtol=1e-4, atol=1e-5)


def test_a_latent_that_fits_y_is_not_moved() -> None:
    """Both terms vanish on data-consistent latents (up to the rounding inside the norms)."""
    prior, operator = toy(), Inpainting(MASK)
    z = torch.tensor([[[[0.3]], [[-0.2]]]])
    y = operator(prior.decode(prior.denoise(z, 0.3)))
    moved: Any = solver("psld", steps=50).guide(prior, operator, y)  # type: ignore[attr-defined]
    t = torch.tensor([0.3], dtype=torch.float64)
    torch.testing.assert_close(moved.denoise(z, t), prior.denoise(z, t), rtol=0, atol=2e-2)
    moved.denoise(z + 1, t)
    assert float((moved.denoise(z + 1, t) - prior.denoise(z + 1, t)).abs().max()) > 0.1


def test_official_adds_noise_to_the_prediction() -> None:
    prior, operator = pictures(), Inpainting((torch.arange(64).reshape(8, 8) % 3 > 0).float())
    y = operator(prior.decode(prior.inner.sample(1, seed=1)))

    def run(**settings: Any) -> torch.Tensor:
        sigma_y = settings.pop("sigma_y", 0.0)
        return solver("psld", steps=4, **settings).sample(prior, operator, y, sigma_y=sigma_y, seed=[3])

    torch.testing.assert_close(run(preset="reference"), run())  # masks: A^T is A^+, and there is no noise to add
    assert not torch.equal(run(preset="reference", sigma_y=0.2), run(sigma_y=0.2))


def test_official_gluing_is_no_projection_for_other_measurements() -> None:
    prior, operator = pictures(), Downsampling(2)
    y = operator(prior.decode(prior.inner.sample(1, seed=1)))
    out = [solver("psld", steps=4, preset=preset).sample(prior, operator, y) for preset in ("corrected", "reference")]
    assert not torch.allclose(*out)


def test_needs_a_linear_measurement() -> None:
    from priorpaint import JPEG

    with pytest.raises(UsageError, match="not linear"):
        solver("psld", steps=2).sample(pictures(), JPEG(50), torch.zeros(1, 2, 8, 8))


@pytest.mark.parametrize("schedule", [VP("linear"), EDM(), Flow()])
def test_weights_mean_the_same_under_every_schedule(schedule: Any) -> None:
    """omega and gamma are those of variance-preserving latents: y is met about as well everywhere."""
    prior, operator, y = toy(schedule), Inpainting(MASK), MASK * torch.tensor([[[[0.3, 0.0], [0.0, -0.1]]]])
    run = solver("psld", steps=200, omega=0.02, gamma=0.02, paste=False)
    out = run.sample(prior, operator, y, num_samples=64)
    assert float((operator(out[0]) - y).abs().median()) < 0.01
