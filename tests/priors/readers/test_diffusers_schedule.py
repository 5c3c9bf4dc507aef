"""Scheduler configurations: the noise levels of diffusers' own schedulers, and what is refused by key and value."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from priorpaint.diffusion.schedules import Flow
from priorpaint.errors import CheckpointError
from priorpaint.priors.readers.diffusers_schedule import TABLES, read_noise

diffusers = pytest.importorskip("diffusers")

FILE = Path("scheduler_config.json")


def config_of(name: str, **settings: Any) -> dict[str, Any]:
    cls = getattr(diffusers, "KDPM2DiscreteScheduler" if name == "DPMSolverSDEScheduler" else name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about code of the library
        return {**dict(cls(**settings).config), "_class_name": name}


def levels(table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    abar = torch.cumprod(1 - table.double(), 0)
    return abar.sqrt(), (1 - abar).sqrt()


@pytest.mark.parametrize("name", TABLES)
def test_every_table_scheduler_gives_its_own_levels(name: str) -> None:
    config = config_of(name, beta_schedule="scaled_linear", beta_start=0.001, beta_end=0.013, num_train_timesteps=400)
    actual = read_noise(config, FILE)
    alpha, sigma = levels(torch.linspace(0.001**0.5, 0.013**0.5, 400, dtype=torch.float64) ** 2)
    t = torch.arange(1, 401, dtype=torch.float64) / 400
    assert torch.allclose(actual.schedule.alpha(t), alpha, rtol=1e-5)
    assert torch.allclose(actual.schedule.sigma(t), sigma, rtol=1e-5)
    assert actual.condition is not None
    assert torch.allclose(actual.condition(t), torch.arange(400, dtype=torch.float64), atol=1e-9)
    assert actual.prediction == "eps" and actual.facts["betas"] == "scaled_linear"


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "sigmoid"},
        {"trained_betas": [0.01, 0.02, 0.05, 0.3, 0.9], "num_train_timesteps": 5},
        {"beta_schedule": "linear", "num_train_timesteps": 50, "beta_end": 0.3},
    ],
    ids=str,
)
def test_tables_by_name_and_by_value(settings: dict[str, Any]) -> None:
    scheduler = diffusers.DDPMScheduler(**settings)
    actual = read_noise({**dict(scheduler.config), "_class_name": "DDPMScheduler"}, FILE)
    count = len(scheduler.betas)
    alpha, sigma = levels(scheduler.betas)
    t = torch.arange(1, count + 1, dtype=torch.float64) / count
    assert torch.allclose(actual.schedule.alpha(t), alpha, rtol=1e-5, atol=1e-8)
    assert torch.allclose(actual.schedule.sigma(t), sigma, rtol=1e-5)


def test_zero_terminal_snr_is_exactly_zero_and_monotone() -> None:
    settings = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "beta_schedule": "scaled_linear"}
    scheduler = diffusers.DDIMScheduler(**settings)
    actual = read_noise({**dict(scheduler.config), "_class_name": "DDIMScheduler"}, FILE)
    end = torch.ones((), dtype=torch.float64)
    assert float(actual.schedule.alpha(end)) == 0 and float(actual.schedule.sigma(end)) == 1
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert torch.allclose(actual.schedule.alpha(t), scheduler.alphas_cumprod.double().sqrt(), rtol=1e-4)
    fine = torch.linspace(0, 1, 20001, dtype=torch.float64)
    assert bool((actual.schedule.alpha(fine).diff() < 0).all())
    assert torch.allclose(actual.schedule.time_at(actual.schedule.log_nsr(fine).exp()), fine, atol=1e-12)
    assert actual.facts["zero_terminal_snr"] and actual.prediction == "v"
    times = actual.schedule.grid(7)
    assert times[0] == 1 and bool((times.diff() < 0).all())


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"])
def test_the_shift_moves_the_grid_and_not_the_meaning_of_t(name: str) -> None:
    actual = read_noise({"_class_name": name, "shift": 3.0}, FILE)
    t = torch.tensor([0.03, 0.5, 1.0], dtype=torch.float64)
    assert torch.equal(actual.schedule.sigma(t), t) and actual.condition is not None
    assert torch.equal(actual.condition(t), 1000 * t) and actual.prediction == "flow"
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    for steps in (1, 2, 10, 28):
        scheduler.set_timesteps(steps)
        assert torch.allclose(actual.schedule.grid(steps).float(), scheduler.sigmas, atol=1e-6)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_a_shift_by_the_number_of_patches(kind: str) -> None:
    config = {"use_dynamic_shifting": True, "time_shift_type": kind, "base_shift": 0.5, "max_shift": 1.15}
    actual = read_noise({"_class_name": "FlowMatchEulerDiscreteScheduler", **config}, FILE, tokens=1024)
    mu = 0.5 + (1.15 - 0.5) * (1024 - 256) / (4096 - 256)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**config)
    u = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    assert isinstance(actual.schedule, Flow)
    expected = scheduler.time_shift(mu, 1.0, u)
    assert torch.allclose(actual.schedule._shifted(u), expected, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 10, 28])
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_grids_of_both_pipelines(steps: int, dynamic: bool) -> None:
    """Flux's asks its scheduler for 1 ... 1/n; Stable Diffusion 3's leaves the grid to it."""
    config = {"shift": 3.0, "use_dynamic_shifting": dynamic}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**config)
    settings = {"mu": 0.5 + (1.15 - 0.5) * (1024 - 256) / (4096 - 256)} if dynamic else {}
    for even in (True, False):
        sigmas = {"sigmas": np.linspace(1.0, 1 / steps, steps)} if even else {}
        scheduler.set_timesteps(None if even else steps, **sigmas, **settings)
        actual = read_noise({"_class_name": "FlowMatchEulerDiscreteScheduler", **config}, FILE, 1024, even=even)
        assert torch.allclose(actual.schedule.grid(steps).float(), scheduler.sigmas, atol=1e-6)


def test_multistep_schedulers_of_flow_models() -> None:
    """To a step of the training's, as their highest level is just below pure noise."""
    config = {"use_flow_sigmas": True, "flow_shift": 2.0, "prediction_type": "flow_prediction"}
    for name in ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler"):
        actual = read_noise({"_class_name": name, **config}, FILE)
        assert isinstance(actual.schedule, Flow) and actual.schedule.shift == 2 and actual.prediction == "flow"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy, about code of the library
            scheduler = getattr(diffusers, name)(**config)
            scheduler.set_timesteps(10)
        assert torch.allclose(actual.schedule.grid(10).float(), scheduler.sigmas, atol=2e-3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prediction_type": "w_prediction"}, "prediction_type is 'w_prediction'"),
        ({"prediction_type": None}, "prediction_type is None"),
        ({"num_train_timesteps": 10**12}, "num_train_timesteps is 1000000000000"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps is 'many'"),
        ({"num_train_timesteps": 1}, "num_train_timesteps is 1;"),
        ({"beta_start": "small"}, "beta_start is 'small'"),
        ({"beta_end": math.nan}, "beta_end is nan"),
        ({"beta_end": 1.5}, "beta_end is 1.5"),
        ({"beta_start": -0.1}, "beta_start is -0.1"),
        ({"beta_schedule": "wiggly"}, "beta_schedule = 'wiggly'"),
        ({"trained_betas": ["a", "b"]}, r"trained_betas\[0\] is 'a'"),
        ({"trained_betas": [0.1, 0.2, -1]}, r"trained_betas\[2\] is -1"),
        ({"trained_betas": 0.1}, "trained_betas is 0.1"),
        ({"trained_betas": [0.1, 1.0, 0.2]}, "no noise schedule"),
        ({"rescale_betas_zero_snr": True}, "prediction_type is 'epsilon' with a table that ends in pure noise"),
        ({"rescale_betas_zero_snr": "x"}, "rescale_betas_zero_snr is 'x'; expected true or false"),
        ({"rescale_betas_zero_snr": 1}, "rescale_betas_zero_snr is 1; expected true or false"),
        ({"use_flow_sigmas": "x"}, "use_flow_sigmas is 'x'"),
        ({"_class_name": "MyScheduler"}, "scheduler 'MyScheduler' is not one that"),
        ({"_class_name": "os.system"}, "scheduler 'os.system' is not one that"),
        ({"_class_name": "UNet2DModel"}, "scheduler 'UNet2DModel' is not one that"),
        ({"timestep_type": "continuous"}, "timestep_type is 'continuous'"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": -1}, "shift is -1"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": [3]}, r"shift is \[3\]"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1e308}, r"shift is 1e\+308"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 10**400}, "shift is 1000"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": "x"}, "use_dynamic_shifting is"),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "max_shift": 99},
            r"the shift of base_shift and max_shift is 9.88903e\+42",
        ),
        ({"_class_name": "EDMEulerScheduler", "rho": 0}, "rho is 0"),
        ({"_class_name": "EDMEulerScheduler", "sigma_min": 5, "sigma_max": 1}, "sigma_min"),
        ({"_class_name": "ScoreSdeVeScheduler", "sigma_min": -1}, "sigma_min"),
    ],
    ids=str,
)
def test_what_cannot_be_is_named_with_its_value(changes: dict[str, Any], named: str) -> None:
    base = {"_class_name": "DDIMScheduler", "prediction_type": "epsilon", "beta_schedule": "linear"}
    changed = {**base, **changes}
    if str(changes.get("_class_name", "")).startswith(("FlowMatch", "ScoreSde")):
        changed.pop("prediction_type")
    with pytest.raises(CheckpointError, match=named):
        read_noise(changed, FILE)
