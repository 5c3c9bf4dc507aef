"""Twisted SMC: exact weights for Gaussians, evidence, and particles that keep together with what is known of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from priorpaint import DenoiserPrior, Inpainting, UsageError, solver
from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.schedules import EDM
from priorpaint.priors.analytic import Gaussian, GaussianMixture
from priorpaint.solvers.base import Task
from priorpaint.solvers.smc.resampling import connected, effective_share, log_mean, systematic
from priorpaint.solvers.smc.solver import SMC
from priorpaint.solvers.smc.twists import DenseTwist, Level, move, pick, positive
from tests.solvers.toy import KNOWN, Y, mode_weights, toy_g, toy_m


def smc(**settings: Any) -> SMC:
    run = solver("smc", **settings)
    assert isinstance(run, SMC)
    return run


def three_pixels() -> GaussianMixture:
    """Two components in three correlated pixels, of which the first will be known."""
    covs = [[[1.0, 0.6, 0.2], [0.6, 0.8, 0.1], [0.2, 0.1, 0.3]], [[0.3, -0.2, 0.0], [-0.2, 0.5, 0.1], [0.0, 0.1, 0.2]]]
    return GaussianMixture([0.6, 0.4], [[1.0, 0.5, 0.0], [-0.5, -1.0, 0.8]], covs, schedule=EDM())


ONE_KNOWN = Inpainting(torch.tensor([[1.0, 0.0, 0.0]]))
MEASURED = torch.tensor([[[[0.3, 0.0, 0.0]]]])


# -- resampling --------------------------------------------------------------------------------------------------------


def test_effective_share_and_mean() -> None:
    weights = torch.tensor([[1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0]], dtype=torch.float64)
    logs = weights.log()[..., None] + 700.0  # far from what exp can hold
    assert effective_share(logs)[:, 0].tolist() == pytest.approx([1.0, 0.25, 0.5])
    assert (log_mean(logs)[:, 0] - 700).exp().tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_systematic_resampling_takes_floor_or_ceil_of_the_expected_number() -> None:
    weights = torch.tensor([0.05, 0.5, 0.0, 0.3, 0.15], dtype=torch.float64)
    u = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)[:, None]
    chosen = systematic(weights.log()[None, :, None].expand(1000, 5, 1), u, 8)[..., 0]
    assert bool((chosen.diff(dim=1) >= 0).all())
    counts = torch.stack([(chosen == k).sum(1) for k in range(5)], 1).double()
    assert bool((counts >= (8 * weights).floor()).all()) and bool((counts <= (8 * weights - 1e-9).ceil()).all())
    assert counts.mean(0).tolist() == pytest.approx((8 * weights).tolist(), abs=0.005)


def test_connected_follows_paths() -> None:
    links = torch.zeros(1, 5, 5, dtype=torch.bool)
    for i, j in ((0, 3), (3, 4)):
        links[0, i, j] = links[0, j, i] = True
    assert connected(links)[0].long().tolist() == [
        [1, 0, 0, 1, 1],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [1, 0, 0, 1, 1],
        [1, 0, 0, 1, 1],
    ]


# -- kernels -----------------------------------------------------------------------------------------------------------


def random_level(cov: str) -> Level:
    generator = torch.Generator().manual_seed(2)
    x_0, guided = torch.randn(2, 1, 4, 3, generator=generator, dtype=torch.float64)
    mix = torch.randn(2, 1, 4, 3, 3, generator=generator, dtype=torch.float64)
    covs = mix @ mix.mT
    if cov == "scalar":
        covs = covs.diagonal(dim1=3, dim2=4).mean(3, keepdim=True)
    return Level(x_0, guided, torch.zeros(1, 4, 1, dtype=torch.float64), *(covs if cov != "first" else (None, None)))


@pytest.mark.parametrize("cov", ["dense", "scalar", "first"])
def test_log_ratio_is_that_of_the_two_normal_densities(cov: str) -> None:
    generator = torch.Generator().manual_seed(1)
    level, z = random_level(cov), torch.randn(1, 4, 3, generator=generator, dtype=torch.float64)
    a, b, v = (torch.tensor(value, dtype=torch.float64) for value in (0.7, 0.4, 0.09))
    x_s, ratio = move(level, x_t := torch.randn(1, 4, 3, generator=generator).double(), a, b, v, z)

    def normal(mean: Tensor, cov: Tensor | None) -> torch.distributions.MultivariateNormal:
        eye = torch.eye(3, dtype=torch.float64)
        extra = 0.0 if cov is None else b**2 * (cov if cov.ndim == 4 else cov[..., None] * eye)
        return torch.distributions.MultivariateNormal(a * x_t + b * mean, (v * eye + extra).expand(1, 4, 3, 3))

    p, q = normal(level.x_0, level.cov), normal(level.guided, level.guided_cov)
    expected: Tensor = p.log_prob(x_s) - q.log_prob(x_s)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ratio[..., 0], expected)
    torch.testing.assert_close(x_s, q.loc + (q.scale_tril @ z[..., None])[..., 0])


def test_positive_projects_what_is_not_and_leaves_the_rest() -> None:
    good, bad = torch.diag(torch.tensor([1.0, 0.0, 2.0])), torch.diag(torch.tensor([1.0, -0.5, 2.0]))
    both = positive(torch.stack([good, bad]).double())
    assert torch.equal(both[0], good.double())
    torch.testing.assert_close(both[1], good.double())


# -- exactness ---------------------------------------------------------------------------------------------------------


def test_weights_are_one_for_a_gaussian_prior_at_any_step_size() -> None:
    """Second-order kernels and the moment-matching twist are the exact conditional of a Gaussian, with 3 steps too.

    What is left is the first weight: at the top level x says a little about y. No later weight adds anything.
    """
    prior = toy_g(EDM())
    low, high = (smc(steps=3, particles=4096, top=top).run(prior, KNOWN, 0.8 * Y, sigma_y=0.5) for top in (10.0, 40.0))
    assert high.ess.min() > 0.998 > low.ess.min() > 0.99
    for run in (low, high):
        torch.testing.assert_close(run.ess, run.ess[..., :1].expand_as(run.ess), atol=1e-5, rtol=0.0)
        assert run.log_evidence.item() == pytest.approx(prior.log_evidence(KNOWN, 0.8 * Y, 0.5), abs=0.01)
    exact = prior.posterior(KNOWN, 0.8 * Y, 0.5)
    x = high.images.double().reshape(-1, 2)
    assert x.mean(0).tolist() == pytest.approx(exact.mean.flatten().tolist(), abs=4 * 0.6 / 64)
    torch.testing.assert_close(x.T.cov(), exact.cov, atol=0.03, rtol=0.0)


def test_first_order_kernels_do_not_have_unit_weights() -> None:
    """Measured for ten steps elsewhere: ESS / K about .17, and an evidence that is nevertheless right."""
    prior = toy_g(EDM())
    first = smc(steps=10, particles=4096, kernel="first", threshold=0.0, top=40.0).run(prior, KNOWN, Y, sigma_y=0.5)
    second = smc(steps=10, particles=4096, threshold=0.0, top=40.0).run(prior, KNOWN, Y, sigma_y=0.5)
    assert first.ess.min() < 0.6 < 0.998 < second.ess.min()
    assert first.log_evidence.item() == pytest.approx(prior.log_evidence(KNOWN, Y, 0.5), abs=0.15)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({"steps": 25}, 0.1), ({"steps": 60, "kernel": "first"}, 0.2), ({"steps": 40, "kernel": "scalar"}, 0.2)],
)
def test_log_evidence_of_a_mixture(settings: dict[str, Any], tolerance: float) -> None:
    """A wrong sign or a missing log determinant is off by more than 1 here."""
    prior = three_pixels()
    run = smc(particles=512, **settings).run(prior, ONE_KNOWN, MEASURED, sigma_y=0.1, groups=2)
    exact = prior.log_evidence(ONE_KNOWN, MEASURED, 0.1)
    assert run.log_evidence_of_image.item() == pytest.approx(exact, abs=tolerance)


def test_mode_weights_that_guidance_alone_gets_wrong() -> None:
    """Toy M at sigma_y = .5: .599/.400/.001; guidance alone leaves .05 on the mode that y excludes."""
    x = smc(steps=30, particles=256, num_kept=64).sample(toy_m(), KNOWN, Y, sigma_y=0.5, num_samples=1024)
    shares = mode_weights(x)
    exact = mode_weights(toy_m().posterior(KNOWN, Y, 0.5).sample(20000, seed=3))
    assert shares == pytest.approx(exact, abs=0.04)
    assert shares[2] < 0.02


@pytest.mark.parametrize("twist", ["mmps_cg", "tmpd", "pigdm", "dps"])
def test_the_likelihood_of_any_method_is_a_twist(twist: str) -> None:
    """Posterior N(.72, .352) at sigma_y = .5; a first-order kernel is a little narrow, a poor twist noisy."""
    run = smc(steps=60, particles=64, num_kept=32, twist=twist, kernel="scalar")
    x = run.sample(toy_g(EDM()), KNOWN, Y, sigma_y=0.5, num_samples=512)[0, ..., 1].double()
    assert x.mean().item() == pytest.approx(0.72, abs=0.15)
    assert x.std().item() == pytest.approx(math.sqrt(0.352), abs=0.12)


# -- no information ----------------------------------------------------------------------------------------------------


def test_without_information_weights_are_one_and_samples_are_the_priors() -> None:
    prior, nothing = three_pixels(), Inpainting(torch.zeros(1, 3))
    free = smc(steps=12, particles=256).run(prior, nothing, torch.zeros(1, 1, 1, 3), sigma_y=0.1, seed=[0])
    torch.testing.assert_close(free.log_weights.exp() * 256, torch.ones(1, 1, 256).double(), atol=1e-9, rtol=0.0)
    assert bool((free.ess > 1 - 1e-9).all())
    assert free.ancestors.item() == 256 and abs(free.log_evidence.item()) < 1e-9
    noisy = smc(steps=12, particles=256).run(prior, ONE_KNOWN, MEASURED, sigma_y=1e3, seed=[0])
    assert bool((noisy.ess > 1 - 1e-4).all())
    torch.testing.assert_close(noisy.images, free.images, atol=1e-2, rtol=0.0)
    assert free.images.mean((0, 1, 2)).flatten().tolist() == pytest.approx(prior.mean.flatten().tolist(), abs=0.25)


# -- particles and what is known of them -------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [0.0, 0.05])
def test_everything_known_of_a_particle_moves_with_it(local: float) -> None:
    """The classic bug: a resampled particle that keeps the twist of another one."""
    operator, y = Inpainting(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), torch.tensor([[[[0.5, 0.0], [0.0, 0.1]]]])
    same_row = torch.kron(torch.eye(2), torch.ones(2, 2))
    cov = same_row * torch.tensor([1.0, 0.8, 0.8, 1.0]).reshape(2, 2).repeat(2, 2)  # the two rows are independent
    prior = GaussianMixture([0.5, 0.5], [[0.0] * 4, [1.0, 0.0] * 2], cov.tolist(), (1, 2, 2), EDM())
    if local > 0:
        prior = Gaussian([0.0] * 4, cov.tolist(), (1, 2, 2), EDM())
    streams = Streams([1])
    task = Task(prior, operator, y, 0.2, streams, (1, 2, 2), lambda step, x: None)
    x, t = 2 * streams.normal(8, 4).double(), prior.schedule.time_at(torch.tensor(1.0, dtype=torch.float64))
    twist = DenseTwist(task, 8, None, 0.2, "dense", local)
    level = twist.evaluate(x, t, streams)
    parents = torch.tensor([7, 0, 0, 3, 3, 5, 6, 6])[None, :, None]
    if local > 0:
        assert twist.joined[0].long().tolist() == same_row.long().tolist()
        parents = torch.cat([parents, parents, parents.flip(1), parents.flip(1)], 2)
    moved, again = level.pick(parents), twist.evaluate(pick(x, parents), t, streams)
    for name in ("x_0", "guided", "log_twist", "cov", "guided_cov"):
        torch.testing.assert_close(getattr(moved, name), getattr(again, name), atol=1e-5, rtol=1e-5)


def test_blocks_are_found_and_their_evidence_adds_up() -> None:
    """Four independent copies of a problem: local resampling sees four, joint resampling one."""
    one = three_pixels()
    copies = 4

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        rows = x_t.reshape(-1, 1, 1, 3)
        return one._denoise(rows, t.repeat_interleave(copies)).reshape(x_t.shape)

    prior = DenoiserPrior(denoise, one.schedule, (1, copies, 3))
    operator, y = Inpainting(ONE_KNOWN.known.expand(1, 1, copies, 3)), MEASURED.expand(1, 1, copies, 3).clone()
    run = smc(steps=20, particles=128, local=0.05).run(prior, operator, y, sigma_y=0.1)
    assert run.blocks.item() == copies
    assert run.log_evidence.item() == pytest.approx(copies * one.log_evidence(ONE_KNOWN, MEASURED, 0.1), abs=0.6)
    joint = smc(steps=20, particles=128).run(prior, operator, y, sigma_y=0.1)
    assert joint.blocks.item() == 1
    assert joint.log_evidence.item() == pytest.approx(run.log_evidence.item(), abs=0.6)
    assert run.ess[..., -1] > joint.ess.amin()


def test_one_step_leads_from_the_level_of_the_whole_to_the_level_of_a_block() -> None:
    """Of the whole picture's levels most lie where a block has nothing to decide yet."""
    prior = three_pixels()
    for shape, first in (((1, 16, 16), [40.0, 10.0]), ((1, 4, 4), [10.0])):
        times = smc(steps=6, local=0.05)._times(prior, shape)
        nsr = prior.schedule.log_nsr(times[:-1]).exp() / prior.data_std
        assert len(times) == 7 and times[-1] == 0
        torch.testing.assert_close(nsr[: len(first)], torch.tensor(first, dtype=nsr.dtype), rtol=1e-6, atol=0)
        assert float(nsr[-1]) == pytest.approx(0.05)
        root = nsr[len(first) - 1 :] ** (1 / 7)
        torch.testing.assert_close(root.diff(), root.diff()[:1].expand(len(root) - 1), rtol=1e-6, atol=1e-9)


# -- groups ------------------------------------------------------------------------------------------------------------


def test_samples_come_from_the_groups_of_a_run() -> None:
    prior, run = three_pixels(), smc(steps=8, particles=16, num_kept=4, full_share=1)
    whole = run.run(prior, ONE_KNOWN, MEASURED, sigma_y=0.1, groups=2, seed=5)
    assert whole.images.shape == (1, 2, 16, 1, 1, 3) and whole.ess.shape == (1, 2, 8)
    torch.testing.assert_close(whole.log_weights.exp().sum(2), torch.ones(1, 2, dtype=torch.float64))
    samples = run.sample(prior, ONE_KNOWN, MEASURED, sigma_y=0.1, num_samples=7, seed=5)
    for i in range(7):
        assert bool((whole.images[0, i // 4] == samples[0, i]).flatten(1).all(1).any())


def test_thinning_leaves_keep_particles_and_the_law() -> None:
    """Particles that have decided on a mode need no competitors for what is left of the way."""
    prior, run = three_pixels(), smc(steps=12, particles=64, num_kept=16, full_share=0.5)
    sizes: list[int] = []
    denoise = prior._denoise

    def watch(x_t: Tensor, t: Tensor) -> Tensor:
        sizes.append(len(x_t))
        return denoise(x_t, t)

    prior._denoise = watch  # type: ignore[method-assign]
    x = run.sample(prior, ONE_KNOWN, MEASURED, sigma_y=0.1, num_samples=16 * 32)[0].double().flatten(1)
    assert sizes == [32 * 64] * 6 + [32 * 16] * 6
    assert run.cost(16).backward == 6 * 64 + 6 * 16
    exact = prior.posterior(ONE_KNOWN, MEASURED, 0.1)
    assert x.mean(0).tolist() == pytest.approx(exact.mean.flatten().tolist(), abs=0.15)
    torch.testing.assert_close(x.T.cov(), exact.cov, atol=0.15, rtol=0.0)


@pytest.mark.parametrize("twist", ["mmps", "pigdm"])
def test_particles_can_be_denoised_a_few_at_a_time(twist: str) -> None:
    prior, run = three_pixels(), smc(steps=8, particles=8, num_kept=2, twist=twist, kernel="scalar")
    sizes: list[int] = []
    denoise = prior._denoise

    def watch(x_t: Tensor, t: Tensor) -> Tensor:
        sizes.append(len(x_t))
        return denoise(x_t, t)

    prior._denoise = watch  # type: ignore[method-assign]
    whole = run.sample(prior, ONE_KNOWN, MEASURED, sigma_y=0.1, num_samples=4)
    assert max(sizes) == 16
    sizes.clear()
    parts = run.sample(prior, ONE_KNOWN, MEASURED, sigma_y=0.1, num_samples=4, batch_size=3)
    assert max(sizes) == 3
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"particles": 2, "num_kept": 3}, "lower num_kept"),
        ({"twist": "pigdm"}, "whole Jacobian"),
        ({"local": 0.1, "kernel": "first"}, "local resampling"),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        smc(**settings)


def test_levels_that_do_not_go_down_and_pictures_that_are_too_large() -> None:
    with pytest.raises(UsageError, match="raise top or lower bottom"):
        smc(top=0.1, bottom=1.0).sample(toy_g(), KNOWN, Y)
    large = DenoiserPrior(lambda x, t: 0.5 * x, EDM(), (1, 32, 33))
    with pytest.raises(UsageError, match="kernel='first'"):
        smc().sample(large, Inpainting(torch.ones(32, 33)), torch.zeros(1, 1, 32, 33))
