"""What every solver promises, present and future: the registry is the list of cases.

A new solver is tested here as soon as it is in ``SOLVERS``. ``FAST`` makes it cheap; ``LAW`` says how far from the
exact posterior it may be. A solver without an entry runs with ``steps`` cut down, where it has that field, and must
meet the strictest bar.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from priorpaint import SOLVERS, Cancelled, DenoiserPrior, Inpainting, NetworkPrior, Solver, UsageError, solver
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow
from priorpaint.priors.analytic import GaussianMixture
from priorpaint.priors.base import Prior
from priorpaint.solvers import explain
from priorpaint.solvers.base import Cost
from tests.solvers.toy import KNOWN, Y, jump_path, levels, propagate, toy_g

FAST: dict[str, dict[str, Any]] = {
    "copaint_tt": {"steps": 8, "jump_length": 2, "resamplings": 2},
    "langevin": {"steps": 6, "inner_steps": 3},
    "daps": {"steps": 4, "n_ode": 2, "n_mc": 5},
    "ddnm": {"steps": 4, "travel_length": 2, "travel_repeat": 2},
    "smc": {"steps": 6, "particles": 4, "num_kept": 2},
    "repaint": {"steps": 8, "jump_length": 2, "resamplings": 2},
    "repaint_plus": {"steps": 4, "resamplings": 2},
    "resample": {"steps": 8, "every": 2, "lookahead": 2, "latent_iterations": 5},
    "vipaint": {"preset": "exact", "levels": 2, "iterations": 3, "mc_samples": 2, "refine_steps": 4},
}

# Methods that climb to one fill and forget their random start: all samples of an image end at the same point, and a
# test says so. With these settings the start still shows, so that the promises about seeds can be checked as well.
ONE_FILL: dict[str, dict[str, Any]] = {
    "repaint_plus": {"algorithm": "two", "level": 0.3, "resamplings": 2},
}


@dataclass(frozen=True)
class Law:
    """Where a solver must end on Toy G (x_2 ~ N(0.72, 0.352) at sigma_y = 0.5, or N(0.9, 0.19) at 0).

    ``mean`` and ``std`` are the solver's own values, bias included, to be met within ``slack`` plus four standard
    errors; the sources are the literature checks (their exact chains are in test_replacement, test_repaint, test_dps).
    """

    settings: dict[str, Any]
    mean: float
    std: float
    slack: float
    sigma_y: float = 0.0


def exact_chain(path: list[int]) -> tuple[float, float]:
    mean, var = propagate(path, levels(100))
    return mean, math.sqrt(var)


LAW: dict[str, Law] = {
    # Their exact chains with 100 levels; those of the papers are in test_ddrm, test_ddnm, test_diffpir, test_daps.
    "ddrm": Law({"steps": 100, "spacing": "respaced"}, 0.789, math.sqrt(0.178), 0.002),
    "ddnm": Law({"steps": 100, "spacing": "respaced"}, 0.851, math.sqrt(0.157), 0.002),
    "diffpir": Law({"steps": 100, "spacing": "respaced"}, 0.834, math.sqrt(0.107), 0.002),
    "daps": Law({"steps": 40, "n_mc": 20}, 0.739, math.sqrt(0.218), 0.002),
    # Exact chains (test_copaint, test_langevin), over-confident and biased; samples (test_reddiff) of an optimiser that
    # in random order misses y.
    "copaint": Law({"steps": 50, "spacing": "respaced"}, 0.9886, math.sqrt(0.119), 0.002),
    "copaint_tt": Law({"steps": 30, "jump_length": 5, "spacing": "respaced"}, 0.9698, math.sqrt(0.1115), 0.002),
    "langevin": Law({"spacing": "karras"}, 0.797, math.sqrt(0.199), 0.002),
    "reddiff": Law({"steps": 100, "lr": 0.5}, 0.906, math.sqrt(0.341), 0.02),
    "reddiff_v": Law({"steps": 100, "lr": 0.1}, 0.113, math.sqrt(0.0203), 0.01),
    # Exact for a Gaussian, but for 4 dependent samples a group.
    "smc": Law({"steps": 10, "particles": 8}, 0.9, math.sqrt(0.19), 0.03),
    # Their known bias, from the exact chains: about .61 and .29 after 100 plain steps, .82 and .20 with resampling.
    "replacement": Law({"steps": 100, "spacing": "respaced"}, *exact_chain(list(range(100, -1, -1))), 0.002),
    "repaint": Law(
        {"steps": 100, "jump_length": 5, "resamplings": 4, "spacing": "respaced"},
        *exact_chain(jump_path(100, 5, 4)),
        0.002,
    ),
    # For a mask it is replacement.
    "ilvr": Law({"steps": 100, "spacing": "respaced"}, *exact_chain(list(range(100, -1, -1))), 0.002),
    # Overshooting and over-confident: 400,000 samples of the independent chain in test_mcg.
    "mcg": Law({"steps": 100, "scale": 0.1, "spacing": "respaced"}, 0.9103, 0.4093, 0.002),
    # One fill, the mode of the noised conditional at the last level: no spread at all.
    "repaint_plus": Law({"steps": 30, "spacing": "logsnr"}, 0.9, 0.0, 0.02),
    # Over-confident, overshooting: reported with 20,000 samples.
    "dps": Law({"steps": 250, "scale": 0.1, "spacing": "respaced"}, 0.981, math.sqrt(0.147), 0.005),
    # Exact for a Gaussian.
    "mmps": Law({}, 0.9, math.sqrt(0.19), 0.005),
    # Exact chain with 100 published steps; reported .980/.131.
    "pigdm": Law({"steps": 100, "spacing": "respaced"}, 0.9781, math.sqrt(0.1325), 0.002),
    # On pixels the gluing term is the misfit again: DDIM with scale .1, from 200,000 samples of an independent chain
    # (test_psld has the chain sample by sample). ReSample without its DPS term has an exact one, in test_resample.
    "psld": Law({"omega": 0.05, "gamma": 0.05, "spacing": "respaced"}, 1.043, 0.370, 0.008),
    "resample": Law({"scale": 0.0, "spacing": "respaced"}, 0.5087, 0.5859, 0.002),
    # With one measurement it is MMPS; STEP(1) has less variance than the posterior by O(1/N).
    "tmpd": Law({"steps": 100, "spacing": "respaced"}, 0.9, math.sqrt(0.164), 0.002),
    # The corrected bound on a Gaussian; its own test file has sharper statements.
    "vipaint": Law(
        {"preset": "exact", "levels": 2, "iterations": 150, "mc_samples": 8, "refine_steps": 50},
        0.9,
        math.sqrt(0.19),
        0.12,
    ),
}
EXACT = Law({}, 0.9, math.sqrt(0.19), 0.05)

SCHEDULES = {"vp": VP("linear"), "ve": VE(), "edm": EDM(), "flow": Flow()}
NAMES = sorted(SOLVERS)


def make(name: str, **extra: Any) -> Solver:
    default = {"steps": 6} if "steps" in explain(SOLVERS[name]) else {}
    return solver(name, **{**FAST.get(name, default), **extra})


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def image_prior(schedule: object = None) -> GaussianMixture:
    """Two 2 x 4 x 3 images with correlated noise: channels, and sides that differ."""
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(24, 24, generator=generator, dtype=torch.float64) / 12
    means = 0.4 * torch.randn(2, 24, generator=generator, dtype=torch.float64)
    cov = mix @ mix.mT + 0.01 * torch.eye(24, dtype=torch.float64)
    return GaussianMixture([0.4, 0.6], means, cov, (2, 4, 3), schedule)  # type: ignore[arg-type]


MASK = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1]])


def problem(count: int = 1) -> tuple[GaussianMixture, Inpainting, Tensor]:
    prior = image_prior()
    operator = Inpainting(MASK)
    return prior, operator, operator(prior.sample(count, seed=9))


# -- shape, dtype, known pixels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_shape_and_float32_whatever_comes_in(name: str, dtype: torch.dtype) -> None:
    exact, operator, y = problem(2)
    seen: set[torch.dtype] = set()

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        seen.add(x_t.dtype)
        return exact.denoise(x_t, t)

    prior = DenoiserPrior(denoise, exact.schedule, exact.shape)
    out = make(name).sample(prior, operator, y.to(dtype), num_samples=3)
    assert seen == {torch.float32}, "the algebra is float32, as MPS and speed want it"
    assert out.shape == (2, 3, 2, 4, 3) and out.dtype == torch.float32 and not out.requires_grad


def test_known_pixels_are_kept_exactly(name: str) -> None:
    prior, operator, y = problem(2)
    out = make(name).sample(prior, operator, y, num_samples=2)
    known = MASK.bool().expand(2, 2, 2, 4, 3)
    assert torch.equal(out[known], y[:, None].expand_as(out)[known])
    assert not torch.equal(out, y[:, None].expand_as(out)), "nothing was filled in"


@pytest.mark.parametrize("sigma_y", [0.0, 1e-3, 0.3])
def test_finite_with_and_without_noise(name: str, sigma_y: float) -> None:
    prior, operator, y = problem()
    assert make(name).sample(prior, operator, y, sigma_y=sigma_y, num_samples=4).isfinite().all()


@pytest.mark.parametrize("family", SCHEDULES)
def test_every_schedule_family(name: str, family: str) -> None:
    prior = image_prior(SCHEDULES[family])
    operator = Inpainting(MASK)
    y = operator(prior.sample(1, seed=9))
    out = make(name).sample(prior, operator, y, num_samples=4)
    assert out.isfinite().all() and out.abs().max() < 20
    if name in ONE_FILL:
        settled = make(name, resamplings=20).sample(prior, operator, y, num_samples=4)
        assert (settled.std(1) < 0.001).all(), "not one fill: take it out of ONE_FILL"
        return
    assert (out.std(1)[:, :, MASK == 0] > 0.001).all(), "samples that do not differ"


@pytest.mark.parametrize("known", [0, 1])
def test_nothing_known_and_everything_known(name: str, known: int) -> None:
    prior, _, y = problem()
    operator = Inpainting(torch.full((4, 3), known))
    full = operator(prior.sample(1, seed=9))
    out = make(name).sample(prior, operator, full, num_samples=2)
    assert out.isfinite().all()
    assert torch.equal(out[:, 0], full) == bool(known)


# -- seeds and batches -------------------------------------------------------------------------------------------------


def test_seeds(name: str) -> None:
    prior, operator, y = problem()
    run = make(name, **ONE_FILL.get(name, {}))
    zero, again, one = (run.sample(prior, operator, y, num_samples=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(zero, again)
    assert not torch.equal(zero, one)
    assert not torch.equal(zero[:, 0], zero[:, 1])


def test_a_batch_is_its_images_alone(name: str) -> None:
    """Up to float rounding: sums over a batch may be ordered differently."""
    prior, operator, y = problem(3)
    together = make(name).sample(prior, operator, y, num_samples=2, seed=4)
    for j in range(3):
        alone = make(name).sample(prior, operator, y[j : j + 1], num_samples=2, seed=4)
        torch.testing.assert_close(together[j : j + 1], alone, rtol=1e-4, atol=1e-4)


def test_order_of_the_images_does_not_matter(name: str) -> None:
    prior, operator, y = problem(3)
    together = make(name).sample(prior, operator, y, seed=4)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(
        make(name).sample(prior, operator, y[order], seed=4), together[order], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_any_batch_size(name: str, batch_size: int) -> None:
    prior, operator, y = problem(2)
    whole = make(name).sample(prior, operator, y, num_samples=3)
    parts = make(name).sample(prior, operator, y, num_samples=3, batch_size=batch_size)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


def test_more_samples_keep_the_first_ones(name: str) -> None:
    prior, operator, y = problem()
    few = make(name).sample(prior, operator, y, num_samples=2)
    many = make(name).sample(prior, operator, y, num_samples=5)
    torch.testing.assert_close(many[:, :2], few, rtol=1e-4, atol=1e-4)


def test_copies_of_an_image_differ_and_one_seed_an_image_is_obeyed(name: str) -> None:
    prior, operator, y = problem()
    twice, run = torch.cat([y, y]), make(name, **ONE_FILL.get(name, {}))
    out = run.sample(prior, operator, twice)
    assert not torch.allclose(out[0], out[1], atol=1e-4)
    same = run.sample(prior, operator, twice, seed=[5, 5])
    torch.testing.assert_close(same[0], same[1], rtol=1e-4, atol=1e-4)


def test_one_mask_an_image(name: str) -> None:
    prior, _, _ = problem()
    masks = torch.stack([MASK, 1 - MASK])[:, None]
    operator = Inpainting(masks)
    y = operator(prior.sample(2, seed=9))
    out = make(name).sample(prior, operator, y, num_samples=2, seed=[1, 2], batch_size=3)
    for j in range(2):
        alone = make(name).sample(prior, Inpainting(masks[j : j + 1]), y[j : j + 1], num_samples=2, seed=[j + 1])
        torch.testing.assert_close(out[j : j + 1], alone, rtol=1e-4, atol=1e-4)


# -- what must not be touched ------------------------------------------------------------------------------------------


def test_arguments_and_global_generators_are_untouched(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    prior = image_prior()
    mask = MASK.float()
    operator = Inpainting(mask)
    y = operator(prior.sample(1, seed=9)).requires_grad_()
    y_before, mask_before = y.detach().clone(), mask.clone()
    known_before = operator.known.clone()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    make(name).sample(prior, operator, y, num_samples=2, callback=lambda step, total, x_0: None)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all() and random.getstate() == before[2]  # type: ignore[index]
    assert torch.equal(y, y_before) and y.grad is None
    assert torch.equal(mask, mask_before) and torch.equal(operator.known, known_before)
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float64])
def test_masks_of_any_dtype(name: str, dtype: torch.dtype) -> None:
    prior, operator, y = problem()
    assert torch.equal(make(name).sample(prior, Inpainting(MASK.to(dtype)), y), make(name).sample(prior, operator, y))


@pytest.mark.parametrize("garbage", [7.0, float("nan"), float("inf")])
def test_hidden_pixels_of_y_have_no_influence(name: str, garbage: float) -> None:
    prior, operator, y = problem()
    dirty = torch.where(MASK > 0, y, garbage)
    for sigma_y in (0.0, 0.2):
        clean = make(name).sample(prior, operator, y, sigma_y=sigma_y, num_samples=2)
        assert torch.equal(make(name).sample(prior, operator, dirty, sigma_y=sigma_y, num_samples=2), clean)


def test_hidden_gradient_state_of_the_caller_does_not_matter(name: str) -> None:
    prior, operator, y = problem()
    plain = make(name).sample(prior, operator, y)
    with torch.no_grad():
        assert torch.equal(make(name).sample(prior, operator, y), plain)


def test_a_network_with_trainable_weights_gets_no_gradient(name: str) -> None:
    network = torch.nn.Conv2d(2, 2, 3, padding=1)
    torch.nn.init.constant_(network.weight, 0.01)
    prior: Prior = DenoiserPrior(lambda x, t: network(x), VP(), (2, None, None))
    out = make(name).sample(prior, Inpainting(MASK), problem()[2])
    assert not out.requires_grad and network.weight.grad is None
    half = NetworkPrior(lambda x, t: 0.1 * x, EDM(), (2, 4, 3), prediction="edm", dtype=torch.bfloat16)
    assert make(name).sample(half, Inpainting(MASK), problem()[2]).dtype == torch.float32


# -- reports and cost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 2])
def test_callback(name: str, batch_size: int | None) -> None:
    prior, operator, y = problem()
    seen: list[tuple[int, int]] = []

    def watch(step: int, total: int, x_0: Tensor) -> None:
        assert x_0.shape[1:] == (2, 4, 3) and not x_0.requires_grad and x_0.isfinite().all()
        seen.append((step, total))

    make(name).sample(prior, operator, y, num_samples=3, batch_size=batch_size, callback=watch)
    steps = [step for step, _ in seen]
    assert steps == sorted(set(steps)) and steps[0] >= 1
    assert len({total for _, total in seen}) == 1 and steps[-1] == seen[0][1]


def test_cancel(name: str) -> None:
    prior, operator, y = problem()
    calls: list[int] = []

    def stop(step: int, total: int, x_0: Tensor) -> None:
        calls.append(step)
        if len(calls) == 2:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        make(name).sample(prior, operator, y, callback=stop)
    assert len(calls) == 2


@pytest.mark.parametrize("num_samples", [1, 3])
def test_cost_is_what_runs(name: str, num_samples: int) -> None:
    prior, operator, y = problem()
    run = make(name)
    before = prior.nfe.copy()
    run.sample(prior, operator, y, num_samples=num_samples)
    spent = prior.nfe - before
    assert Cost(spent.forward, spent.backward) == run.cost(num_samples)


# -- settings and errors -----------------------------------------------------------------------------------------------


def test_description(name: str) -> None:
    cls = SOLVERS[name]
    assert cls.title and cls.reference and cls.cost_formula and cls.__doc__
    assert cls.about.endswith(".") and len(cls.about) <= 100
    assert [other.about for other in SOLVERS.values()].count(cls.about) == 1
    assert cls.needs <= {"gradient", "mask", "linear", "latent", "classes"}
    settings = explain(cls)
    assert list(settings) == [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for key, (kind, _, meaning) in settings.items():
        assert kind and len(meaning) > 5, f"{name}.{key} has no description"


def test_settings_are_frozen_and_strings_are_converted(name: str) -> None:
    run = make(name)
    key, value = next((f.name, getattr(run, f.name)) for f in fields(run) if type(getattr(run, f.name)) is int)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        setattr(run, key, 3)
    assert make(name, **{key: str(value)}) == run


def test_bad_settings(name: str) -> None:
    settings = explain(SOLVERS[name])
    with pytest.raises(UsageError) as error:
        solver(name, no_such_setting=1)
    assert all(key in str(error.value) for key in settings)
    key = next(key for key, (kind, _, _) in settings.items() if kind == "int")
    for value in (-1, "many", 2.5, None):
        with pytest.raises(UsageError, match=key):
            solver(name, **{key: value})


def test_unknown_method() -> None:
    with pytest.raises(UsageError) as error:
        solver("magic")
    assert all(name in str(error.value) for name in NAMES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma_y": -0.1}, "sigma_y"),
        ({"sigma_y": float("nan")}, "sigma_y"),
        ({"sigma_y": float("inf")}, "sigma_y"),
        ({"num_samples": 0}, "num_samples"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": [1, 2]}, "2 seeds"),
    ],
)
def test_bad_arguments(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(name).sample(*problem(), **change)


def test_y_that_does_not_fit(name: str) -> None:
    prior, operator, y = problem()
    cases = {
        "no image": y[:0],
        "does not fit the mask": y[..., :2],
        "not finite": y.masked_fill(MASK > 0, math.nan),
        "channels": y[:, :1],
    }
    for message, bad in cases.items():
        with pytest.raises(UsageError, match=message):
            make(name).sample(prior, operator, bad)
    with pytest.raises(UsageError, match="masks for"):
        make(name).sample(prior, Inpainting(MASK.expand(3, 1, 4, 3)), y)
    with pytest.raises(UsageError, match="works on height"):
        make(name).sample(prior, Inpainting(torch.ones(5, 3)), torch.zeros(1, 2, 5, 3))


# -- the law -----------------------------------------------------------------------------------------------------------


def test_law_on_a_correlated_gaussian(name: str) -> None:
    """Mean and standard deviation of x_2 given x_1 = 1 under Toy G, with the method's own known bias."""
    law = LAW.get(name, EXACT)
    run = solver(name, **law.settings)
    x_2 = run.sample(toy_g(), KNOWN, Y, sigma_y=law.sigma_y, num_samples=1000)[0, ..., 1].double()
    assert x_2.mean().item() == pytest.approx(law.mean, abs=law.slack + 4 * law.std / math.sqrt(1000))
    assert x_2.std().item() == pytest.approx(law.std, abs=law.slack + 4 * law.std / math.sqrt(2 * 1000))
