"""VIPaint: fits against exact posteriors, independence of batch, chunk and memory, presets and settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from priorpaint.diffusion import transitions
from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.errors import Cancelled, UsageError
from priorpaint.operators import Downsampling, Inpainting
from priorpaint.priors import NetworkPrior
from priorpaint.priors.analytic import Gaussian, GaussianMixture
from priorpaint.priors.recompute import RecomputePrior
from priorpaint.solvers import solver
from priorpaint.solvers.base import Job
from priorpaint.solvers.vipaint import VIPaint, bound
from priorpaint.solvers.vipaint.fit import Adam, fill, gradient_step
from priorpaint.solvers.vipaint.likelihood import Likelihood
from priorpaint.solvers.vipaint.variables import Draws, Ladder, Mixture, Variational
from tests.solvers.vipaint_toy import (
    CIN,
    DIAGONAL,
    EXACT,
    FULL,
    SEEN,
    SIGMA_Y,
    Y,
    affine_denoiser,
    at,
    chain,
    evidence,
    exact_parts,
    family,
    ladder,
    likelihood,
    mixed,
    optimum,
    points,
    spread_over,
    toy,
)

T_S, T_E = float(at(400)), float(at(550))
STRIDE_10 = [*range(550, 991, 10), 999]
PARTS = ("reconstruction", "hierarchy", "diffusion", "prior")


# --- the fit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_fit_reproduces_the_exact_posterior(levels: int) -> None:
    """The gap of the bound is KL(q || p(. | y)) or more, so it bounds the errors of mean and standard deviation:
    a mean that is off by d has KL >= d^2 / (2 var), a ratio r of standard deviations has KL >= (r - 1)^2 / 2 for r < 1
    and more than (r - 1)^2 / 2 for r up to 1.5."""
    prior, count = toy(DIAGONAL), 4000
    method = VIPaint(
        preset="exact",
        levels=levels,
        t_start=T_S,
        t_end=T_E,
        iterations=120,
        mc_samples=8,
        top_steps=40,
        refine_steps=40,
    )
    posterior = method.fit(prior, SEEN, Y, sigma_y=SIGMA_Y)
    steps, rules = method.ladder(prior), method.rules
    lam = Variational(*(value[:, 0].double() for value in posterior.parameters.tensors()[:3]))
    white = likelihood(prior, 1, steps.levels[-1], None).std(steps.levels[-1])
    value, mean, cov = evidence(prior, steps, 1.0, white)
    gap = float(exact_parts(family(prior, steps, rules), lam, None).total()) - value
    assert 0 <= gap < 0.02

    z = posterior.ancestral(count, seed=1)[0].double().flatten(1)
    std = cov.diagonal().sqrt()
    slack = (2 * gap) ** 0.5 + 4 / count**0.5
    assert bool(((z.mean(0) - mean).abs() < slack * std).all())
    assert bool((z.std(0) / std - 1).abs().lt(slack).all())
    assert abs(float(torch.corrcoef(z.mT)[0, 1])) < slack

    # Phase 2: the unseen element is independent of y, so its law is that of the prior chain down to 0.
    x = posterior.sample(1000, seed=2)[0].double().flatten(1)
    times = CIN.grid(40, start=T_S)
    down = Ladder(torch.cat([steps.levels, times[1:]]), steps.pairs)
    free_mean, free_cov = chain(prior, down, 1.0)
    truth = prior.posterior(SEEN, Y, SIGMA_Y)
    slack = (2 * gap) ** 0.5 + 4 / 1000**0.5
    assert abs(float(x[:, 1].mean() - free_mean[1])) < slack * float(free_cov[1, 1]) ** 0.5
    assert abs(float(x[:, 1].std() / free_cov[1, 1] ** 0.5) - 1) < slack
    assert float(free_cov[1, 1] ** 0.5) == pytest.approx(float(truth.cov[1, 1]) ** 0.5, rel=0.1)  # 40 steps are coarse
    assert float(x[:, 0].mean()) == pytest.approx(float(truth.mean.flatten()[0]), abs=0.02)
    assert 0 < float(x[:, 0].std()) < 1.2 * float(truth.cov[0, 0]) ** 0.5


def test_phase_2_is_exact_for_white_data_as_its_steps_grow() -> None:
    """With white data p(y | z_t) is the likelihood of phase 2, so from exact z_Ts the law tends to p(x_0 | y)."""
    prior = Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], schedule=CIN)
    truth = prior.posterior(SEEN, Y, 0.5)
    errors = []
    alpha, sigma = CIN.alpha(at(400)), CIN.sigma(at(400))
    z = truth.sample(2000, seed=4) * alpha.float() + sigma.float() * Streams([9]).normal(2000, 1, 1, 2)[0]
    for steps in (10, 160):
        job = Job(prior, SEEN, Y.float(), 0.5, 2000, [7], None, None, (1, 1, 2), z[None])
        x = VIPaint(preset="exact", levels=1, t_start=T_S, refine_steps=steps).refine(job)[0]
        x = x.double().flatten(1)
        assert float((x.mean(0) - truth.mean.flatten()).abs().max()) < 4 / 2000**0.5
        errors.append(float((x.std(0) / truth.cov.diagonal().sqrt() - 1).abs().max()))
    assert errors[1] < 4 / 4000**0.5 + errors[0] / 8


@pytest.mark.slow
def test_one_learning_rate_for_all_parameters_reaches_the_optimum() -> None:
    """Without Monte-Carlo error: Adam(0.9, 0.99) at 0.05 is within 3e-4 of the best bound in 500 steps, which is 1e-4
    above -log p(y), and draws from the fit have the moments of p(z_Ts | y); the published rates (0.1, 0.001, 0.01) are
    more than 2 nats above, because variances and gates lag."""
    prior, steps = toy(DIAGONAL), ladder((550, 400), STRIDE_10)
    value, mean, cov = evidence(prior, steps, 1.0)
    assert value == pytest.approx(0.985006, abs=6e-7)
    assert mean.tolist() == pytest.approx([1.327, -0.097], abs=6e-4)
    assert cov.flatten().tolist() == pytest.approx([0.0407, 0, 0, 0.8215], abs=6e-5)
    near = family(prior, steps)
    floor = float(exact_parts(near, optimum(prior, steps, 1.0)).total()) - value
    gaps, fits = [], []
    for lr, log_var, gate in ((0.05, 1.0, 1.0), (0.1, 0.01, 0.1)):
        lam = near.start(SEEN.pinv(Y), torch.zeros(1, 4, 1, 1, 2, dtype=torch.float64))
        adam = Adam(replace(EXACT, lr=lr, lr_log_var=log_var, lr_gate=gate, iterations=10**6), lam)
        for _ in range(500):
            total = exact_parts(near, lam).total().sum()
            adam.step(list(torch.autograd.grad(total, lam.tensors())))
        gaps.append(total.item() - value)
        fits.append(lam)
    assert 0 < floor < 1.1e-4 and floor < gaps[0] < floor + 3e-4
    assert gaps[1] > 2
    # z_Ts is affine in its noise, so these points have its exact mean and covariance; KL <= gap bounds their errors.
    noise = points(4).reshape(-1, 2, 1, 1, 2)
    z = near.path(spread_over(fits[0], len(noise)), noise).levels[-1].detach().flatten(1)
    std, slack = cov.diagonal().sqrt(), (2 * gaps[0]) ** 0.5
    assert bool(((z.mean(0) - mean).abs() < slack * std).all())
    assert bool((z.std(0, correction=0) / std - 1).abs().lt(slack).all())
    assert abs(float(torch.corrcoef(z.mT)[0, 1])) < slack


def test_filling_keeps_y_and_moves_the_hole_towards_its_mean() -> None:
    """A round from x_2 = b and x_1 = y gives on average the unseen element of D(alpha (y, b)), affine in b with a slope
    below 1; many rounds therefore average to its fixed point."""
    prior, rows, t = toy(FULL), 4000, at(550)[0]
    like_y = replace(likelihood(prior, rows, t, None), sigma_y=0.0)
    x_0, noise = Y.expand(rows, -1, -1, -1), Streams([8])
    for _ in range(12):
        before = x_0
        x_0 = fill(like_y, before, noise.normal(*x_0.shape)[0].double(), t, None)
        assert bool((x_0[..., 0] == 0.9).all())
    c, gain = (value[0] for value in affine_denoiser(prior, t[None]))
    alpha = CIN.alpha(t)
    fixed = (c[1] + alpha * gain[1, 0] * 0.9) / (1 - alpha * gain[1, 1])
    hole = x_0[..., 1]
    assert float(hole.mean()) == pytest.approx(float(fixed), abs=4 * float(hole.std()) / rows**0.5)
    assert float(fixed) == pytest.approx(-0.164, abs=1e-3)  # so much noise leaves it near the prior's mean, -0.2
    parts = fill(like_y, before, x_0, t, 700), fill(like_y, before, x_0, t, None)
    torch.testing.assert_close(*parts, rtol=0, atol=1e-12)


# --- independence of batch, chunk and memory -----------------------------------------------------------------------


def network_prior() -> NetworkPrior:
    """A small convolutional network of two layers under EDM preconditioning, any size."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 1, 3, padding=1)
            generator = torch.Generator().manual_seed(7)
            for parameter in self.parameters():
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)

        def forward(self, x: Tensor, level: Tensor) -> Tensor:
            plane = level[:, None, None, None].expand(-1, 1, *x.shape[2:])
            result: Tensor = self.second(torch.tanh(self.first(torch.cat([x, plane], 1))))
            return result

    return NetworkPrior(Net(), EDM(), (1, None, None), prediction="edm")


def pictures(count: int) -> tuple[Inpainting, Tensor]:
    known = (Streams([11]).normal(count, 1, 8, 8)[0] > 0).float()
    operator = Inpainting(known)
    return operator, operator(Streams([12]).normal(count, 1, 8, 8)[0].tanh())


@pytest.mark.parametrize("preset", ["exact", "projected", "langevin", "printed", "official-imagenet"])
def test_batch_of_three_equals_three_runs(preset: str) -> None:
    prior, (operator, y) = network_prior(), pictures(3)
    method = solver("vipaint", preset=preset, levels=3, iterations=6, refine_steps=5, top_steps=20)
    together = method.sample(prior, operator, y, num_samples=2, seed=5)
    for image in range(3):
        alone = method.sample(
            prior, operator.select(torch.tensor([image])), y[image : image + 1], num_samples=2, seed=5
        )
        torch.testing.assert_close(together[image], alone[0], rtol=0, atol=2e-4)
    in_chunks = method.sample(prior, operator, y, num_samples=2, seed=5, batch_size=4)
    torch.testing.assert_close(in_chunks, together, rtol=0, atol=2e-4)
    assert not torch.equal(together[:, 0], together[:, 1])
    assert not torch.equal(together, method.sample(prior, operator, y, num_samples=2, seed=6))


@pytest.mark.parametrize("components", [1, 3])
def test_gradient_does_not_depend_on_batching_or_checkpointing(components: int) -> None:
    prior, (operator, y) = network_prior(), pictures(3)
    method = VIPaint(preset="exact", levels=3, mc_samples=4)
    steps = method.ladder(prior)
    near = family(prior, steps, method.rules)
    lam = mixed(*(near.start(y, Streams([m, m + 5, m + 10]).normal(6, 1, 8, 8)) for m in range(components)))
    for value in lam.tensors():
        value.requires_grad_()
    noise = Streams([4, 5, 6]).normal(4 * components, 4, 1, 8, 8).flatten(0, 1)
    draws = Draws(noise[:, :3], noise[:, 3], torch.arange(len(noise)) * 8 % 100)
    like_y = Likelihood(prior, operator, y, 0.0, "gaussian", None, steps.levels[-1]).normalised()
    whole = gradient_step(near, lam, like_y, draws, None)

    runs: dict[str, Callable[[], list[Tensor]]] = {
        "five rows at a time": lambda: gradient_step(near, lam, like_y, draws, 5).gradient,
        "checkpointed": lambda: (
            gradient_step(replace(near, denoise=RecomputePrior(prior).denoise), lam, like_y, draws, None).gradient
        ),
        "one image": lambda: [
            torch.cat(values)
            for values in zip(*(_one_image(near, lam, like_y, draws, image) for image in range(3)), strict=True)
        ],
    }
    for name, run in runs.items():
        for ours, theirs in zip(run(), whole.gradient, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
    assert all(float(value.abs().max()) > 0 for value in whole.gradient[: 3 if components == 1 else 4])
    assert all(parameter.grad is None for parameter in prior.network.parameters())  # type: ignore[union-attr]


def _one_image(near: bound.Bound, lam: Mixture, like_y: Likelihood, draws: Draws, image: int) -> list[Tensor]:
    own = Mixture(*(value.detach()[image : image + 1].requires_grad_() for value in lam.tensors()))
    rows = slice(4 * lam.count * image, 4 * lam.count * (image + 1))
    return gradient_step(near, own, like_y.rows(torch.tensor([image])), draws.rows(rows), None).gradient


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("levels", [1, 3])
def test_cost_is_what_runs(levels: int, checkpoint: bool) -> None:
    prior, (operator, y) = network_prior(), pictures(2)
    method = VIPaint(preset="exact", levels=levels, iterations=3, mc_samples=2, refine_steps=4, checkpoint=checkpoint)
    method.sample(prior, operator, y, num_samples=3, batch_size=4)
    cost = method.cost(3)
    assert (prior.nfe.forward, prior.nfe.backward) == (2 * cost.forward, 2 * cost.backward)
    assert cost.backward == 3 * 2 * (levels + 1) + 3 * 4


@pytest.mark.parametrize("sigma_y", [0.0, 0.2])
@pytest.mark.parametrize("preset", ["projected", "langevin"])
def test_projection_and_langevin_take_no_gradients_in_phase_2(preset: Any, sigma_y: float) -> None:
    prior, (operator, y) = network_prior(), pictures(2)
    method = VIPaint(preset=preset, iterations=3, mc_samples=2, refine_steps=4, refine_inner=2)
    reported: list[tuple[int, int]] = []
    x = method.sample(
        prior, operator, y, sigma_y=sigma_y, num_samples=3, callback=lambda *at: reported.append((at[0], at[1]))
    )
    assert not x.requires_grad
    total = 3 + (4 if preset == "projected" else 4 + 4)
    assert reported == [(step, total) for step in range(1, total + 1)]
    cost = method.cost(3)
    assert (prior.nfe.forward, prior.nfe.backward) == (2 * cost.forward, 2 * cost.backward)
    assert cost.backward == 3 * 2 * 3
    if sigma_y == 0:
        assert torch.equal(operator(x.flatten(0, 1)[::3]), y)


def test_projection_keeps_every_content_of_a_wide_hole() -> None:
    """Two likely contents, decided at a noise far above the levels of 'exact': one Gaussian there holds one of them."""
    means = torch.tensor([[0.0, 1.0], [0.0, -1.0]]).repeat_interleave(32, 1).reshape(2, 1, 8, 8)
    law = GaussianMixture([0.3, 0.7], means, 0.05**2 * torch.eye(64), schedule=EDM(), shape=(1, 8, 8))
    operator = Inpainting((torch.arange(64) < 32).float().reshape(8, 8))
    y, share = torch.zeros(1, 1, 8, 8), {}
    for preset in ("exact", "projected", "langevin"):
        x = VIPaint(preset=preset).sample(law, operator, y, num_samples=256, seed=0)[0]
        hidden = x.flatten(1)[:, 32:].mean(1)
        assert bool((hidden.abs() - 1).abs().lt(0.1).all())
        share[preset] = float((hidden > 0).float().mean())
    for preset in ("projected", "langevin"):
        assert share[preset] == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 256) ** 0.5)
    assert min(share["exact"], 1 - share["exact"]) < 0.1


def test_langevin_steps_make_known_and_unknown_parts_agree() -> None:
    """Half of the avatars' pixels hidden along a random line: nearly every completion is an avatar that fits the rest.
    DDNM's steps, for the same number of evaluations, get fewer of them right."""
    from priorpaint.lab.avatars.prior import ExactAvatars
    from priorpaint.lab.certify.pictures import certify_pictures

    methods = ["vipaint:preset=langevin", "vipaint:preset=projected"]
    report = certify_pictures(ExactAvatars(), methods, ["rotated"], budget=100, pictures=4, num_samples=8)
    langevin, projected = (report.cell(method, "rotated") for method in methods)
    assert langevin is not None and projected is not None
    assert langevin.measures.agree > 0.85
    assert langevin.measures.agree > projected.measures.agree + 0.15


def test_t_e_stays_below_the_top_of_a_short_schedule() -> None:
    """T_s is at 8 data_std, and the schedule ends below 32 data_std, at 10: T_e is halfway."""
    law = Gaussian(torch.zeros(4), 0.25 * torch.eye(4), schedule=EDM(sigma_max=10.0), shape=(1, 2, 2))
    times = VIPaint(preset="langevin").ladder(law).levels
    ratios = law.schedule.log_nsr(times).exp()
    torch.testing.assert_close(
        ratios, torch.tensor([(80 * law.data_std) ** 0.5, 8 * law.data_std], dtype=torch.float64)
    )


def test_langevin_steps_take_masks_only() -> None:
    prior, (_, y) = network_prior(), pictures(1)
    blurred = Downsampling(2)
    with pytest.raises(UsageError, match="they need a mask"):
        VIPaint(preset="langevin").fit(prior, blurred, blurred(y))


def test_losses_have_four_parts_for_every_image_and_iteration() -> None:
    prior, (operator, y) = network_prior(), pictures(2)
    posterior = VIPaint(preset="exact", iterations=30).fit(prior, operator, y)
    for name in PARTS:
        assert getattr(posterior.losses, name).shape == (2, 30)
    torch.testing.assert_close(posterior.objective, posterior.losses.total())
    assert bool((posterior.objective[:, -5:].mean(1) < posterior.objective[:, :5].mean(1)).all())
    assert bool((posterior.losses.hierarchy > 0).all()) and bool((posterior.losses.prior > 0).all())


# --- the posterior that is kept ------------------------------------------------------------------------------------


def test_posterior_is_sampled_again_and_kept(tmp_path: Path) -> None:
    prior, (operator, y) = network_prior(), pictures(2)
    method = VIPaint(preset="exact", iterations=3, refine_steps=4)
    posterior = method.fit(prior, operator, y, seed=3)
    before = prior.nfe.copy()
    five, two = posterior.sample(5, seed=3), posterior.sample(2, seed=3)
    assert (prior.nfe - before).backward == 2 * 7 * 4  # no fit among them
    torch.testing.assert_close(five[:, :2], two, rtol=0, atol=1e-5)
    torch.testing.assert_close(method.sample(prior, operator, y, num_samples=2, seed=3), two, rtol=0, atol=1e-5)
    save_file(posterior.state_dict(), tmp_path / "posterior.safetensors")
    restored = method.restore(prior, operator, load_file(tmp_path / "posterior.safetensors"))
    assert torch.equal(restored.sample(2, seed=3), two)
    assert torch.equal(restored.losses.diffusion, posterior.losses.diffusion)
    with pytest.raises(UsageError, match="settings and the prior of the fit"):
        VIPaint(preset="exact", levels=3).restore(prior, operator, posterior.state_dict())
    with pytest.raises(UsageError, match="parameters.mean is missing"):
        state = posterior.state_dict()
        method.restore(prior, operator, {name: state[name] for name in state if name != "parameters.mean"})


def test_known_pixels_are_kept_without_noise_and_y_is_not_changed() -> None:
    prior, (operator, y) = network_prior(), pictures(2)
    copy = y.clone()
    samples = VIPaint(preset="exact", iterations=2, refine_steps=3).sample(prior, operator, y, num_samples=2)
    assert torch.equal(y, copy)
    assert samples.shape == (2, 2, 1, 8, 8) and bool(torch.isfinite(samples).all())
    for sample in range(2):
        assert torch.equal(operator(samples[:, sample]), y)


def test_callback_counts_both_phases_and_cancels() -> None:
    prior, (operator, y) = network_prior(), pictures(2)
    method, calls = VIPaint(preset="exact", iterations=3, refine_steps=4), []

    def callback(step: int, total: int, x_0: Tensor) -> None:
        calls.append((step, total))
        if len(calls) == 20:
            raise Cancelled("enough")

    method.sample(prior, operator, y, num_samples=3, batch_size=4, callback=callback)
    assert calls == [(step, 11) for step in range(1, 12)]  # 3 iterations and 2 chunks of 4 steps
    with pytest.raises(Cancelled):
        method.sample(prior, operator, y, num_samples=3, batch_size=4, callback=callback)
    assert len(calls) == 20


# --- presets and settings ------------------------------------------------------------------------------------------


def test_official_preset_moves_no_further_than_adam_can() -> None:
    """50 iterations at most move a mean by 5, a log-variance by 0.05 and a gate logit by 0.5."""
    prior = toy(DIAGONAL)
    method = VIPaint(preset="official-imagenet", t_start=T_S, t_end=T_E, refine_steps=20)
    posterior = method.fit(prior, SEEN, Y)
    steps, lam = method.ladder(prior), posterior.parameters
    v = float(transitions.backward_variance(CIN, steps.levels[0], steps.levels[1]))
    assert v**0.5 == pytest.approx(0.7497, abs=6e-5)
    assert method.rules.eta * v**0.5 == pytest.approx(0.3353, abs=6e-5)
    start = torch.tensor([2 * CIN.sigma(at(550)).log().item(), math.log(0.49 * v)])
    assert 0 < float((lam.log_var - start[:, None, None, None]).abs().max()) <= 0.05 + 1e-6
    assert 0 < float((lam.gate[:, :, 1:] - 5).abs().max()) <= 0.5 + 1e-6
    assert bool((lam.gate[:, :, 0] == 5).all())
    # 100 mean |D| over both elements, from a Laplace density of scale 1 that says |D| + log 2 of the seen one.
    expected = 50 * posterior.losses.reconstruction + 50 * posterior.losses.kl() * 1.0
    torch.testing.assert_close(posterior.objective, expected)
    assert bool((posterior.losses.prior == 0).all())
    assert posterior.sample(3).shape == (1, 3, 1, 1, 2)


def test_default_levels_have_the_published_noise_per_unit_data() -> None:
    prior = network_prior()  # data_std = 0.5
    levels = VIPaint(preset="exact", levels=4).ladder(prior).levels
    ratio = (prior.schedule.sigma(levels) / prior.schedule.alpha(levels)).tolist()
    assert (ratio[0], ratio[-1]) == (pytest.approx(3.505 * 0.5), pytest.approx(1.807 * 0.5))
    assert ratio[0] / ratio[1] == pytest.approx(ratio[2] / ratio[3])
    index = VIPaint(preset="exact", levels=4).ladder(toy(DIAGONAL)).levels * 1000 - 1
    assert index.tolist() == pytest.approx([550, 500, 450, 400], abs=0.1)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"levels": 2, "t_start": 0.6, "t_end": 0.4}, "t_start < t_end"),
        ({"likelihood_scale": 0.0}, "without width"),
        ({"preset": "official-imagenet", "t_end": 0.9995}, "no step above"),
    ],
)
def test_settings_that_do_not_fit_are_told(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        solver("vipaint", **params).sample(toy(DIAGONAL), SEEN, Y)


def test_settings_out_of_range_are_told() -> None:
    with pytest.raises(UsageError, match="levels"):
        solver("vipaint", preset="exact", levels=0)
    with pytest.raises(UsageError, match="given images"):
        solver("vipaint").sample(toy(DIAGONAL), SEEN, Y, initial=torch.zeros(1, 1, 1, 1, 2))


def test_other_schedules_and_likelihoods_run() -> None:
    schedules: list[Schedule] = [VP("cosine"), VE(), EDM(), Flow()]
    for schedule in schedules:
        prior = Gaussian([0.3, -0.2], DIAGONAL, schedule=schedule)
        for params in (
            {"likelihood": "laplace"},
            {"preset": "official-imagenet"},
            {"preset": "exact", "refine_guidance": "norm"},
        ):
            method = solver("vipaint", iterations=3, refine_steps=5, **params)
            samples = method.sample(prior, SEEN, Y, num_samples=4)
            assert bool(torch.isfinite(samples).all()), (schedule, params)
            assert torch.equal(samples[0, :, 0, 0, 0], torch.full((4,), 0.9))


CHURCHES = VP("scaled_linear", 1000, 0.0015, 0.0155)


@pytest.mark.parametrize(
    ("levels", "index"), [(1, [400]), (2, [550, 400]), (4, [550, 500, 450, 400]), (6, [650, 600, 550, 500, 450, 400])]
)
@pytest.mark.parametrize("preset", ["printed", "official-imagenet", "official-lsun"])
def test_official_levels_are_indices_of_a_table_of_1000(preset: Any, levels: int, index: list[int]) -> None:
    """Fig. 1 of the paper, on LSUN-Churches: 550, 500, 450, 400; phase 2 goes down index by index (400 steps)."""
    prior = Gaussian([0.0], [[1.0]], schedule=CHURCHES)
    method = VIPaint(preset=preset, levels=levels)
    ladder = method.ladder(prior)
    assert (ladder.levels * 1000 - 1).tolist() == pytest.approx(index)
    down = method.rules.down(prior, float(ladder.levels[-1]))
    assert (down[:-1] * 1000 - 1).tolist() == pytest.approx(list(range(400, 0, -1))) and down[-1] == 0


@pytest.mark.parametrize(("preset", "end"), [("official-imagenet", 0.0195), ("official-lsun", 0.0155)])
def test_official_levels_elsewhere_are_the_noise_ratios_of_the_run(preset: Any, end: float) -> None:
    table = VP("scaled_linear", 1000, 0.0015, end)
    prior = Gaussian([0.0], [[0.25]], schedule=EDM())
    prior.data_std = 0.5
    wanted = table.log_nsr(torch.tensor([551, 501, 451, 401], dtype=torch.float64) / 1000).exp()
    steps = VIPaint(preset=preset, levels=4).ladder(prior)
    torch.testing.assert_close(EDM().sigma(steps.levels), 0.5 * wanted)
    pairs = EDM().sigma(steps.pairs) / 0.5
    assert len(pairs) == 137 and float(pairs.min()) > float(wanted[0])


def test_official_runs_differ_as_published() -> None:
    imagenet, lsun = (VIPaint(preset=preset).rules for preset in ("official-imagenet", "official-lsun"))
    assert (imagenet.mc_samples, imagenet.top_noise, imagenet.sample_cfg, imagenet.refine_scale) == (5, 0.8, 3.0, 0.4)
    assert (lsun.mc_samples, lsun.top_noise, lsun.sample_cfg, lsun.refine_scale) == (10, 0.1, 1.0, 0.2)
    assert imagenet.gate == pytest.approx(0.9933, abs=1e-4) and lsun.gate == pytest.approx(0.9820, abs=1e-4)
    # 100 mean |D| / (2 0.566^2) = 156.08 mean |D| through a VQ decoder, 100 mean |D| through a KL one.
    assert 100 / float(imagenet.likelihood_scale or 0) == pytest.approx(156.08, abs=0.01) and lsun.likelihood_scale == 1
