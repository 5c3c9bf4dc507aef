"""The variance of an ancestral step: small, large or learned, in every method that takes such steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from priorpaint import SOLVERS, Inpainting, UsageError, solver
from priorpaint.diffusion import transitions
from priorpaint.diffusion.denoiser import Denoising
from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.samplers import DDIM, DDPM, sampler
from priorpaint.diffusion.schedules import VP
from priorpaint.priors.base import Prior
from priorpaint.priors.network import NetworkPrior
from priorpaint.priors.networks.adm import ADMConfig, Heads
from priorpaint.solvers.base import Task, explain
from tests.priors.readers.test_adm import read, write
from tests.solvers import affine
from tests.solvers.toy import COV, KNOWN, Y, levels, toy_g, toy_m

ANCESTRAL: dict[str, dict[str, Any]] = {
    "replacement": {"steps": 5},
    "repaint": {"steps": 6, "jump_length": 2, "resamplings": 2},
    "ilvr": {"steps": 5},
    "mcg": {"steps": 5},
    "dps": {"steps": 5},
    "pigdm": {"steps": 5},
    "psld": {"steps": 5, "eta": 1.0},
    "ddnm": {"steps": 5, "form": "ddpm"},
    "mmps": {"steps": 5, "sampler": "ddim"},
    "tmpd": {"steps": 5},
    "smc": {"steps": 5, "particles": 4, "num_kept": 2, "kernel": "first"},
}
LEARNS = ("replacement", "repaint", "ilvr", "mcg", "dps", "smc")  # by default
NEVER = ("ddnm", "mmps", "tmpd")  # their steps go to estimates that know y


def learned_mean(x: Tensor, condition: Tensor) -> Tensor:
    """E[x_0 | x_t] of some kind, and shares of the variance from 0 to a half over the pixels."""
    share = torch.linspace(0, 0.5, x[0].numel()).reshape(1, *x.shape[1:]).expand_as(x)
    return torch.cat([torch.tanh(x), 2 * share - 1 + 0 * x], 1)


def learning() -> NetworkPrior:
    prior = NetworkPrior(learned_mean, VP(), (1, 1, 2), prediction="x0", name="toy")
    prior.learned_variance = True
    return prior


@pytest.fixture(scope="module")
def adm(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    """A small checkpoint in the format of guided diffusion, with a learned sigma."""
    path = tmp_path_factory.mktemp("adm") / "a.pt"
    write(path, ADMConfig(3, 6, 32, (32, 64), 1, frozenset(), "block", True, Heads(1, 32)))
    return read(path, {"num_head_channels": 32})


@pytest.mark.parametrize("name", ANCESTRAL)
def test_the_large_variance_is_another_run(name: str) -> None:
    runs = [
        solver(name, **ANCESTRAL[name], variance=variance).sample(toy_m(), KNOWN, Y, sigma_y=0.1, num_samples=2, seed=1)
        for variance in ("small", "large")
    ]
    default = solver(name, **ANCESTRAL[name]).sample(toy_m(), KNOWN, Y, sigma_y=0.1, num_samples=2, seed=1)
    assert torch.equal(runs[0], default), "toy_m has learned none"
    assert float((runs[0] - runs[1]).abs().max()) > 1e-3


def large_chain(steps: int) -> tuple[float, float]:
    """Mean and variance of x_2 after replacement with sigma_t^2 = beta_t on Toy G, by the algebra of Gaussians."""
    abar, eye = levels(steps), np.eye(2)
    mean, cov = np.zeros(2), np.eye(2)
    for level in range(steps, 0, -1):
        a_t, a_s = abar[level], abar[level - 1]
        beta = 1 - a_t / a_s
        denoise = np.sqrt(a_t) * COV @ np.linalg.inv(a_t * COV + (1 - a_t) * eye)
        # Ho et al. 2020, Eq. 7.
        move = (np.sqrt(a_s) * beta * denoise + np.sqrt(1 - beta) * (1 - a_s) * eye) / (1 - a_t)
        mean, cov = move @ mean, move @ cov @ move.T + (beta if level > 1 else 0) * eye
        mean[0], cov[0, :], cov[:, 0], cov[0, 0] = np.sqrt(a_s), 0.0, 0.0, 1 - a_s
    return mean[1], cov[1, 1]


def test_replacement_with_the_large_variance_has_exactly_its_law(monkeypatch: pytest.MonkeyPatch) -> None:
    run = solver("replacement", steps=50, spacing="respaced", variance="large")
    mean, cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, 2 + 4 * 50)
    exact_mean, exact_var = large_chain(50)
    assert mean[1].item() == pytest.approx(exact_mean, abs=2e-5)
    assert cov[1, 1].item() == pytest.approx(exact_var, abs=5e-5)
    small = affine.of_solver(
        monkeypatch, solver("replacement", steps=50, spacing="respaced"), toy_g(), KNOWN, Y, 2 + 4 * 50
    )
    assert cov[1, 1] > small[1][1, 1] + 0.01, "larger steps leave a larger variance"


@pytest.mark.parametrize("name", LEARNS)
def test_what_was_learned_is_the_default(name: str) -> None:
    settings, prior = ANCESTRAL[name], learning()
    extra = {"twist": "dps"} if name == "smc" else {}
    default, learned, small, large = (
        solver(name, **settings, **extra, **asked).sample(prior, KNOWN, Y, sigma_y=0.1, num_samples=2, seed=1)
        for asked in ({}, {"variance": "learned"}, {"variance": "small"}, {"variance": "large"})
    )
    assert torch.equal(default, learned)
    assert float((learned - small).abs().max()) > 1e-3 and float((learned - large).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["replacement", "repaint", "dps"])
def test_a_checkpoint_of_guided_diffusion_steps_with_its_learned_sigma(adm: Prior, name: str) -> None:
    operator = Inpainting((torch.arange(64).reshape(8, 8) % 3 > 0).float())
    y = operator(torch.full((1, 3, 8, 8), 0.3))
    learned, small = (
        solver(name, **ANCESTRAL[name], **asked).sample(adm, operator, y, seed=1)
        for asked in ({}, {"variance": "small"})
    )
    assert torch.equal(operator(learned[:, 0]), y)
    assert float((learned - small).abs().max()) > 1e-3


def test_the_step_of_dps_has_that_standard_deviation(adm: Prior) -> None:
    """x_s = mean + sqrt(var) z + move, with log var = v log beta + (1 - v) log beta-tilde (Eq. 15)."""
    operator, schedule = Inpainting(torch.ones(8, 8)), adm.schedule
    x_t, t, s = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2)), at(0.5), at(0.4)
    run: Any = solver("dps", scale=0.0)
    task = Task(adm, operator, torch.zeros(1, 3, 8, 8), 0.0, Streams([7]), (3, 8, 8), lambda step, x_0: None)
    x_s, x_0 = run.step(task)(x_t, t, s)
    share = adm.evaluate(x_t, t).variance_share
    assert share is not None
    large = float(transitions.forward(schedule, s, t)[1].log())
    small = float(transitions.backward_variance(schedule, t, s).log())
    std = torch.exp((share * large + (1 - share) * small) / 2)
    mean = transitions.step_mean(schedule, x_t, x_0, t, s)
    torch.testing.assert_close(x_s, mean + std * Streams([7]).normal_like(x_t))


def at(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("name", ["replacement", "repaint", "ilvr", "mcg", "dps", "pigdm", "psld", "smc"])
def test_learned_is_refused_where_nothing_was(name: str) -> None:
    run, prior = solver(name, **ANCESTRAL[name], variance="learned"), toy_m()
    prior.name = "gulls"
    with pytest.raises(UsageError, match="the prior gulls has not; choose 'small' or 'large'"):
        run.sample(prior, KNOWN, Y, sigma_y=0.1)
    assert prior.nfe.forward == prior.nfe.backward == 0


@pytest.mark.parametrize("name", NEVER)
def test_learned_is_refused_for_steps_that_know_y(name: str) -> None:
    with pytest.raises(UsageError, match="does not know y"):
        solver(name, **ANCESTRAL[name], variance="learned")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("replacement", {"eta": 0.5}),
        ("repaint", {"eta": 0.0}),
        ("ilvr", {"eta": 0.0}),
        ("mcg", {"eta": 0.5}),
        ("dps", {"eta": 0.0}),
        ("dps", {"sampler": "heun"}),
        ("psld", {}),
        ("mmps", {}),
        ("ddnm", {}),
        ("smc", {}),
    ],
)
@pytest.mark.parametrize("variance", ["large", "learned"])
def test_other_steps_have_no_such_variance(name: str, settings: dict[str, Any], variance: str) -> None:
    with pytest.raises(UsageError, match=f"variance '{variance}' belongs to"):
        solver(name, **settings, variance=variance)


def test_every_method_with_the_setting_is_tested_here() -> None:
    offered = {name for name, cls in SOLVERS.items() if "'large'" in explain(cls).get("variance", ("", "", ""))[2]}
    assert offered - {"ddrm", "diffpir"} == set(ANCESTRAL), "these two take ancestral steps with sampler='ddim' only"


def test_the_samplers_take_the_same_words() -> None:
    x_1, prior = torch.randn(1, 1, 1, 2, generator=torch.Generator().manual_seed(0)), learning()
    runs = {v: DDPM(6, variance=v)(prior, x_1, Streams([3])) for v in ("small", "large", "learned", None)}  # type: ignore[arg-type]
    assert torch.equal(runs["learned"], runs[None])
    assert torch.equal(runs["small"], DDIM(6, eta=1.0)(prior, x_1, Streams([3])))
    # The share of the first pixel is 0, of the second a half.
    assert torch.equal(runs["learned"][..., 0], runs["small"][..., 0])
    low, learned, high = sorted(float(runs[v][..., 1]) for v in ("small", "learned", "large"))
    assert float(runs["learned"][..., 1]) == learned and low < learned < high
    assert Denoising(x_1).share(None) == 0
    with pytest.raises(UsageError, match="eta = 0 "):
        sampler("ddim", steps=6, variance="large")
    with pytest.raises(UsageError, match="choose 'small' or 'large'"):
        DDPM(6, variance="learned")(toy_m(), x_1, Streams([3]))
