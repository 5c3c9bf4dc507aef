"""Problems in a latent space: their posteriors, what they measure, and who may take part."""

from __future__ import annotations

import pytest
import torch

from priorpaint import Inpainting, UsageError
from priorpaint.lab.certify import Problem, certify
from priorpaint.lab.certify.calibration import calibrate
from priorpaint.lab.certify.cells import why_not
from priorpaint.lab.certify.measures import Ruler
from priorpaint.lab.certify.problems import problem
from priorpaint.priors.latent import LatentPrior
from priorpaint.solvers import SOLVERS, solver
from priorpaint.solvers.base import Task
from tests.lab.certify.exact import Exact

LATENT = ("Z-G16", "Z-M32")


class Decoded(Exact):
    """Exact samples of the latent posterior, decoded by the frame."""

    through_decoder = True

    def __init__(self, place: Problem, stretch: float = 1.0) -> None:
        super().__init__(stretch)
        self.place = place

    def _run(self, task: Task) -> torch.Tensor:
        posterior = self.place.posterior
        rows = [posterior.sample(1, seed=seed) for seed in task.noise.seeds]
        out = posterior.mean + self.stretch * (torch.cat(rows).double() - posterior.mean)
        task.report(1, out.float())
        return out.float()


def test_the_posterior_is_that_of_the_composed_linear_model() -> None:
    """Bayes for y = M z + sigma_y n, M = A W, without a mask operator or an autoencoder's help."""
    place = problem("Z-G16")
    assert place.autoencoder is not None and isinstance(place.operator, Inpainting)
    m = place.operator.known.flatten().double()[:, None] * place.autoencoder.matrix
    precision = torch.linalg.inv(place.law.covs[0]) + m.mT @ m / 0.1**2
    cov = torch.linalg.inv(precision)
    torch.testing.assert_close(place.posterior.covs[0], cov, rtol=1e-6, atol=1e-9)
    mean = cov @ m.mT @ place.y.double().flatten() / 0.1**2
    torch.testing.assert_close(place.posterior.mean.flatten(), mean, rtol=1e-5, atol=1e-7)


def test_the_decoder_is_a_basis_of_patches() -> None:
    place = problem("Z-M32")
    autoencoder = place.autoencoder
    assert autoencoder is not None and autoencoder.factor == 4 and place.solver_prior.image_shape == (1, 16, 16)
    z = place.law.sample(4, seed=1)
    torch.testing.assert_close(autoencoder.encode(autoencoder.decode(z)), z, rtol=1e-4, atol=1e-5)
    gram = autoencoder.matrix.mT @ autoencoder.matrix
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", LATENT)
def test_modes_are_undecided_and_y_matters(name: str) -> None:
    for seed in range(2):
        place = problem(name, seed)
        assert place.seed == seed
        if len(place.law.weights) > 1:
            assert 0.2 < float(place.posterior.weights.max()) < 0.8
        assert float(place.posterior.cov.trace()) < 0.5 * float(place.law.cov.trace())


@pytest.mark.parametrize("name", LATENT)
def test_exact_latents_score_the_floor_and_wrong_ones_do_not(name: str) -> None:
    place = problem(name)
    ruler = Ruler(place)
    scores = []
    for stretch in (1.0, 1.5):
        x = Decoded(place, stretch).sample(
            place.solver_prior, place.solver_operator, place.solver_y, sigma_y=place.sigma_y, num_samples=128, seed=1
        )
        assert x.shape[2:] == place.solver_prior.image_shape
        scores.append(ruler.measure(x[0]))
    floor = ruler.floor(128)
    assert scores[0].sliced < 1.5 * floor.sliced < 3 * floor.sliced < 2.2 * scores[1].sliced
    assert scores[0].residual == pytest.approx(place.sigma_y, rel=0.35)
    assert scores[1].std == pytest.approx(1.5, rel=0.2)


def test_joint_draws_are_images() -> None:
    place = problem("Z-G16")
    x, y = place.joint(5, seed=3)
    assert x.shape == (5, 1, 8, 8) and y.shape == (5, 1, 8, 8)
    assert ((y - place.operator(x)) != 0).any()
    torch.testing.assert_close(place.split(x)[0].shape, torch.Size([5, 16]))


def test_methods_that_need_pixels_are_listed_with_the_reason() -> None:
    place = problem("Z-G16")
    reasons = {name: why_not(solver(name), place) for name in SOLVERS}
    assert {name for name, reason in reasons.items() if not reason} == {
        name for name, cls in SOLVERS.items() if cls.through_decoder
    }
    assert "pixel prior" in reasons["ddnm"] and "pixel prior" in reasons["ddrm"]
    methods = ["ddnm", "dps:steps=10", "vipaint:preset=projected"]
    certificate = certify(methods, ["Z-G16"], [None], draws=1, num_samples=8, calibrated=False)
    assert [cell.status for cell in certificate.cells] == ["not applicable", "done", "not applicable"]
    assert "latent prior" in certificate.cells[2].note


def test_rank_test_runs_on_images() -> None:
    place = problem("Z-G16")
    assert 0 <= calibrate(solver("dps", steps=3), place).p <= 1


def test_copies_have_no_latents() -> None:
    place = problem("Z-G16")
    assert isinstance(place.solver_prior, LatentPrior)
    with pytest.raises(UsageError, match="no rows"):
        Problem("two", place.law, place.operator, place.y, 0.1, copies=2, autoencoder=place.autoencoder)
