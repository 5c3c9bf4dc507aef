"""A diffusers scheduler configuration as a noise schedule: what x_t is, what the network predicts and is told of t."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...diffusion.schedules import EDM, VE, VP, Flow
from ...errors import CheckpointError, UsageError
from .base import Noise, short
from .diffusers_folder import quiet
from .untrusted.reading import named

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
# Samplers of networks that were trained on a table of betas.
TABLES = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
EDMS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
VES = ("ScoreSdeVeScheduler",)
_MOST_STEPS = 100_000
_MOST_SHIFT = 10_000
_MOST_TOKENS = 2**24
_MOST_SIGMA = 1e6
# A class that needs a further library, and one with the same table that does not.
_SAME_TABLE = {"DPMSolverSDEScheduler": "KDPM2DiscreteScheduler"}


def read_noise(
    config: Mapping[str, Any], path: Path, tokens: int = 4096, cls: str = "", *, even: bool = False
) -> Noise:
    """What a scheduler configuration says.

    Args:
        config: the JSON object.
        path: its file, for messages.
        tokens: patches of a picture of the size that is denoised; some flow schedules are shifted by it.
        cls: the class that model_index.json names; "" takes the configuration's own.
        even: whether the network's pipeline asks its flow scheduler for even steps, 1 ... 1/n before the shift (Flux).

    Raises:
        CheckpointError: an unknown scheduler, or a setting that cannot be, named with its value.
    """
    name = cls or config.get("_class_name")
    prediction = config.get("prediction_type", "flow_prediction" if name in FLOWS else "epsilon")
    if prediction not in PREDICTIONS:
        raise CheckpointError(f"{path}: prediction_type is {prediction!r}; expected one of {', '.join(PREDICTIONS)}.")
    steps = config.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or isinstance(steps, bool) or not 2 <= steps <= _MOST_STEPS:
        raise CheckpointError(f"{path}: num_train_timesteps is {short(steps)}; expected 2 to {_MOST_STEPS}.")
    facts = {"scheduler": name, "prediction": prediction}
    if name in FLOWS or _truth(config, "use_flow_sigmas", path) or prediction == "flow_prediction":
        even = even or name not in FLOWS  # so do the multistep schedulers, of themselves
        return _flow(config, path, steps, tokens, even, facts)
    if name in EDMS:
        return _edm(config, path, prediction, facts)
    if name in VES:
        return _ve(config, path, facts)
    if name in TABLES:
        return _table(str(name), config, path, steps, prediction, facts)
    raise CheckpointError(
        f"{path}: the scheduler {name!r} is not one that priorpaint knows; expected one of "
        f"{', '.join((*TABLES, *FLOWS, *EDMS, *VES))}."
    )


def _table(
    name: str, config: Mapping[str, Any], path: Path, steps: int, prediction: str, facts: dict[str, Any]
) -> Noise:
    if config.get("timestep_type", "discrete") != "discrete":
        raise CheckpointError(f"{path}: timestep_type is {config['timestep_type']!r}; expected 'discrete'.")
    for key in ("beta_start", "beta_end"):
        _number(config, key, path, 1.0, high=1)
    _check_trained(config.get("trained_betas"), path)
    _truth(config, "rescale_betas_zero_snr", path)
    betas, table = _betas(name, config, path)
    ends_in_noise = float(betas[-1]) == 1
    try:
        schedule = VP(betas, to_pure_noise=ends_in_noise)
    except UsageError as error:
        raise CheckpointError(f"{path}: its betas make no noise schedule: {error}.") from None
    if ends_in_noise and prediction == "epsilon":
        raise CheckpointError(
            f"{path}: prediction_type is 'epsilon' with a table that ends in pure noise (zero terminal SNR), where "
            "epsilon says nothing about the picture; expected 'v_prediction' or 'sample'."
        )
    count = len(betas)

    def index(t: Tensor) -> Tensor:
        return (count * t - 1).clamp(min=0)

    facts |= {"schedule": "vp", "betas": table, "timesteps": count, "zero_terminal_snr": ends_in_noise}
    return Noise(schedule, PREDICTIONS[prediction], index, facts=facts)


def _betas(name: str, config: Mapping[str, Any], path: Path) -> tuple[Tensor, str]:
    """The table as diffusers' own class makes it, float64, and its name."""
    import diffusers

    # Settings of the sampling grid need no reading here, and some of them need further libraries.
    known = (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
    )
    wanted = {key: config[key] for key in known if key in config}
    try:
        with quiet():
            scheduler = getattr(diffusers, _SAME_TABLE.get(name, name)).from_config(wanted)
        table = "trained_betas" if scheduler.config.get("trained_betas") is not None else scheduler.config.beta_schedule
        return torch.as_tensor(scheduler.betas, dtype=torch.float64), table
    except Exception as error:  # whatever a wrong setting runs into inside diffusers
        raise CheckpointError(
            f"{path}: {name} makes no betas from beta_schedule = {config.get('beta_schedule')!r}, trained_betas and "
            f"the rest ({named(error)})."
        ) from None


def _flow(config: Mapping[str, Any], path: Path, steps: int, tokens: int, even: bool, facts: dict[str, Any]) -> Noise:
    key = "flow_shift" if "flow_shift" in config and "shift" not in config else "shift"
    shift = _number(config, key, path, 1.0, high=_MOST_SHIFT)
    first = 1 / steps
    if _truth(config, "use_dynamic_shifting", path):
        key, shift = "the shift of base_shift and max_shift", _dynamic_shift(config, path, tokens)
    else:  # the scheduler shifts its lowest level once more when it makes a grid
        first = shift * first / (1 + (shift - 1) * first)
    if not 0 < shift <= _MOST_SHIFT:
        raise CheckpointError(f"{path}: {key} is {shift:g}; expected a positive number, at most {_MOST_SHIFT}.")
    facts |= {"schedule": "flow", "shift": round(shift, 6), "timesteps": steps, "prediction": "flow_prediction"}
    return Noise(Flow(shift, 0 if even else first), "flow", lambda t: steps * t, facts=facts)


def _dynamic_shift(config: Mapping[str, Any], path: Path, tokens: int) -> float:
    """The shift for a picture of so many patches: linear in their number, then exp (Esser et al. 2024; Flux)."""
    few, many = (
        _number(config, f"{end}_image_seq_len", path, n, high=_MOST_TOKENS) for end, n in (("base", 256), ("max", 4096))
    )
    low, high = (_number(config, f"{end}_shift", path, n, -100, 100) for end, n in (("base", 0.5), ("max", 1.15)))
    if few == many:
        raise CheckpointError(f"{path}: base_image_seq_len and max_image_seq_len are both {few:g}; expected two sizes.")
    mu = low + (high - low) * (tokens - few) / (many - few)
    kind = config.get("time_shift_type", "exponential")
    if kind not in ("exponential", "linear"):
        raise CheckpointError(f"{path}: time_shift_type is {kind!r}; expected 'exponential' or 'linear'.")
    return math.exp(min(mu, 700.0)) if kind == "exponential" else mu


def _edm(config: Mapping[str, Any], path: Path, prediction: str, facts: dict[str, Any]) -> Noise:
    if prediction not in ("epsilon", "v_prediction"):
        raise CheckpointError(f"{path}: prediction_type is {prediction!r}; EDM expects 'epsilon' or 'v_prediction'.")
    names = (("sigma_min", 0.002), ("sigma_max", 80.0), ("sigma_data", 0.5))
    low, high, data = (_number(config, key, path, usual) for key, usual in names)
    rho = _number(config, "rho", path, 7.0, high=100)
    try:
        schedule = EDM(low, high, rho)
    except UsageError as error:
        raise CheckpointError(f"{path}: {error}.") from None
    facts |= {"schedule": "edm", "sigma_min": low, "sigma_max": high, "sigma_data": data}
    return Noise(schedule, "edm", None, data, negate=prediction == "v_prediction", facts=facts)


def _ve(config: Mapping[str, Any], path: Path, facts: dict[str, Any]) -> Noise:
    low, high = _number(config, "sigma_min", path, 0.01), _number(config, "sigma_max", path, 1348.0)
    try:
        schedule = VE(2 * low, 2 * high)  # on [-1, 1], which is twice as wide as the network's [0, 1]
    except UsageError as error:
        raise CheckpointError(f"{path}: {error}.") from None
    facts |= {"schedule": "ve", "sigma_min": 2 * low, "sigma_max": 2 * high, "prediction": "score"}
    return Noise(schedule, "eps", lambda t: schedule.sigma(t) / 2, facts=facts)


def _number(
    config: Mapping[str, Any], key: str, path: Path, usual: float, low: float = 0, high: float = _MOST_SIGMA
) -> float:
    """A setting above ``low`` and at most ``high``."""
    value = config.get(key, usual)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low < value <= high:
        raise CheckpointError(f"{path}: {key} is {short(value)}; expected a number above {low:g} and at most {high:g}.")
    return float(value)


def _truth(config: Mapping[str, Any], key: str, path: Path) -> bool:
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(f"{path}: {key} is {short(value)}; expected true or false.")
    return bool(value)


def _check_trained(table: Any, path: Path) -> None:
    if table is None:
        return
    if not isinstance(table, list) or not 2 <= len(table) <= _MOST_STEPS:
        raise CheckpointError(f"{path}: trained_betas is {short(table)}; expected 2 to {_MOST_STEPS} numbers.")
    for index, beta in enumerate(table):
        _number({f"trained_betas[{index}]": beta}, f"trained_betas[{index}]", path, 1, high=1)
