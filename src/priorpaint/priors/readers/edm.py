"""EDM checkpoints (.pkl): pickles of the networks of Karras et al. 2022, which embed their Python source.

Nothing of that source is run: a restricted reader takes tensors and plain attributes, and our own network is built from
the constructor's arguments that the pickle keeps. Networks with the preconditioning of EDM, VP, VE and iDDPM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from ...diffusion.schedules import EDM, VE, VP
from ...errors import CheckpointError, UsageError
from ..base import Prior
from ..network import NetworkPrior, labels_or
from ..networks.edm import NETWORKS, EDMConfig, Labelled
from ..networks.edm2 import EDM2Config
from ..networks.edm2 import UNet as EDM2UNet
from .base import Noise, Reader, Request, explained, of_file
from .edm_tree import VOCABULARY, Node, node, plain
from .flags import Flags, Number
from .untrusted import reading as safe

# Noise levels that EDM's sampler uses where the network sets no limits (Karras et al. 2022, Table 1).
_SIGMA_MIN, _SIGMA_MAX = 0.002, 80.0
_MOST_DATA = 1000
_KEYS = ("ema", "G_ema", "net", "model")
# The first arguments of the published constructors, in their order.
_ORDER = (
    *("img_resolution", "in_channels", "out_channels", "label_dim", "augment_dim", "model_channels"),
    *("channel_mult", "channel_mult_emb", "num_blocks", "attn_resolutions"),
)
_ORDER_2 = ("img_resolution", "img_channels", "label_dim", "model_channels", "channel_mult")
# Class of a network -> its shape, how it is built, and that order.
_NETWORKS: dict[str, tuple[type[EDMConfig | EDM2Config], Callable[[Any], nn.Module], tuple[str, ...]]] = {
    **{name: (EDMConfig, make, _ORDER) for name, make in NETWORKS.items()},
    "UNet": (EDM2Config, EDM2UNet, _ORDER_2),
}
_IGNORED = ("dropout", "label_dropout")
_DEFAULTS: dict[str, dict[str, Any]] = {
    "DhariwalUNet": {
        "model_channels": 192,
        "channel_mult": (1, 2, 3, 4),
        "num_blocks": 3,
        "attn_resolutions": (32, 16, 8),
    },
}


class EDMFlags(Flags):
    """The noise levels of the schedule (EDM and VE), and ``key``: which network of the file, instead of ``ema``."""

    sigma_min: Number | None = None
    sigma_max: Number | None = None
    key: str | None = None


@of_file
def read(request: Request) -> Prior:
    """A prior from an EDM pickle; the moving average ``ema`` where there is one.

    Raises:
        CheckpointError: the file is damaged, unsafe, or holds another network.
        UsageError: a flag that is unknown or has no such value.
    """
    path = request.source
    flags = EDMFlags.of(request.flags, "an EDM pickle")
    top = _network(safe.load_pickle(path, VOCABULARY, "a pickle of an EDM network"), flags.key, path)
    if top.kind not in _PRECONDITIONINGS:
        raise _unknown(top.kind, _PRECONDITIONINGS, path)
    noise = _PRECONDITIONINGS[top.kind](top, flags)
    second = top.kind == "Precond"  # EDM2
    inner = top.child("unet" if second else "model")
    known = ("UNet",) if second else NETWORKS
    if inner.kind not in known:
        raise _unknown(inner.kind, known, path)
    config = _config(inner)
    _check_ends(top, config)
    state = inner.tensors()
    safe.check_count(2 * len(config.channel_mult) * config.num_blocks, state, path)
    make, dtype = _NETWORKS[inner.kind][1], torch.float32 if second else request.dtype
    network = safe.assemble(lambda: make(config), state, path, device=request.device, dtype=dtype)
    if isinstance(network, EDM2UNet):
        network.settle()
        for weight in network.parameters():
            weight.data = weight.data.to(request.dtype)
    classes, side = config.label_dim, config.img_resolution
    prior = NetworkPrior(
        Labelled(network, classes, -1.0 if noise.negate else 1.0),
        noise.schedule,
        (config.in_channels, side, side),
        prediction=noise.prediction,
        condition=noise.condition,
        sigma_data=noise.sigma_data,
        multiple=2 ** (len(config.channel_mult) - 1),
        dtype=request.dtype,
        name=path.stem,
        classes=classes,
        embed=labels_or(-1) if classes else None,  # a negative label is a state without a class
    )
    # A network that never saw an empty class in training answers nonsense there; EDM2 has no such dropout.
    dropout = inner.arguments(_NETWORKS[inner.kind][2]).get("label_dropout", 0)
    prior.info = replace(prior.info, null_state=not classes or bool(dropout))
    low, high = noise.schedule.nsr_range
    prior.facts = {
        "format": "edm",
        "architecture": "EDM2 UNet" if second else inner.kind,
        "preconditioning": top.kind,
        "image_size": side,
        "channels": config.in_channels,
        "prediction": noise.prediction,
        "schedule": type(noise.schedule).__name__.lower(),
        "sigma_min": low,
        "sigma_max": high,
        "classes": classes,
        "parameters": sum(weight.numel() for weight in network.parameters()),
    }
    return prior


def _network(content: Any, key: str | None, path: Path) -> Node:
    """The network that the pickle holds, alone or in a dictionary."""
    if not isinstance(content, Mapping):
        return node(content, path)
    if key is not None and content.get(key) is None:
        raise UsageError(f"{path} has no network {key!r}; it holds {', '.join(map(str, content)) or 'nothing'}.")
    chosen = key or next((name for name in _KEYS if content.get(name) is not None), None)
    if chosen is None:
        held = ", ".join(map(str, list(content)[:6])) or "nothing"
        raise CheckpointError(f"{path} does not hold a network: expected the entry 'ema' of EDM, found {held}.")
    return node(content[chosen], path)


def _unknown(kind: str, known: Iterable[str], path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} holds a network of the class {kind!r}, which priorpaint does not know: expected {', '.join(known)}; "
        "classes are never taken from the file itself."
    )


def _config(inner: Node) -> EDMConfig | EDM2Config:
    """The network's shape from its constructor's arguments, all checked."""
    kind, _, order = _NETWORKS[inner.kind]
    arguments = dict(_DEFAULTS.get(inner.kind, {}))
    for name, value in inner.arguments(order).items():
        if name not in _IGNORED:
            arguments[name] = [plain(part) for part in value] if isinstance(value, (list, tuple)) else plain(value)
    try:
        config = TypeAdapter(kind).validate_python({**arguments, "heads": _heads(inner)})
    except ValidationError as error:
        raise CheckpointError(f"{inner.path}: in {inner.kind}, {explained(error)}; download it again.") from None
    halvings = len(config.channel_mult) - 1
    if config.img_resolution % 2**halvings:
        raise CheckpointError(
            f"{inner.path}: {config.img_resolution} pixels cannot be halved {halvings} times; the arguments of the "
            "network are damaged."
        )
    taps = config.resample_filter
    if isinstance(config, EDM2Config) and (len(taps) % 2 or not sum(taps)):
        raise CheckpointError(f"{inner.path}: resample_filter is {taps}; expected an even number of values.")
    return config


def _heads(inner: Node) -> dict[str, int]:
    """Heads by block, as the blocks themselves say: the state decides, not the rule that made it."""
    heads_of: dict[str, int] = {}
    for side in ("enc", "dec"):
        for block in inner.child(side).children():
            if block.kind not in ("UNetBlock", "Block") or "num_heads" not in block.values:
                continue
            heads, channels = block.whole("num_heads"), block.whole("out_channels")
            if heads and channels % heads:
                raise CheckpointError(
                    f"{inner.path}: num_heads of {block.where} is {heads} for {channels} channels; it is damaged."
                )
            heads_of[".".join(block.where.split(".")[-2:])] = heads
    return heads_of


def _check_ends(top: Node, config: EDMConfig | EDM2Config) -> None:
    """That the wrapper and the network in it agree."""
    outputs = config.in_channels * (2 if top.kind == "iDDPMPrecond" else 1)  # with a variance, which is not used
    pairs = (
        ("img_resolution", config.img_resolution, top.whole("img_resolution", config.img_resolution)),
        ("img_channels", config.in_channels, top.whole("img_channels", config.in_channels)),
        ("label_dim", config.label_dim, top.whole("label_dim", config.label_dim)),
        ("number of outputs", config.out_channels, outputs),
    )
    for name, inside, outside in pairs:
        if inside != outside:
            raise CheckpointError(
                f"{top.path}: {name} is {inside} in the network and {outside} in its {top.kind}; expected the same."
            )


def _limits(top: Node, flags: EDMFlags, low: float, high: float) -> tuple[float, float]:
    """The user's noise levels, else these."""
    low, high = flags.sigma_min or low, flags.sigma_max or high
    if not 0 < low < high < math.inf:
        raise CheckpointError(f"{top.path}: noise levels from {low} to {high}; expected 0 < sigma_min < sigma_max.")
    return low, high


def _edm(top: Node, flags: EDMFlags) -> Noise:
    """c_skip x + c_out F(c_in x; ln(sigma) / 4)."""
    data = top.number("sigma_data", 0.5)
    if not 0 < data <= _MOST_DATA:
        raise CheckpointError(f"{top.path}: sigma_data is {data}; expected a positive number, at most {_MOST_DATA}.")
    low, high = max(top.number("sigma_min", 0.0), _SIGMA_MIN), min(top.number("sigma_max", math.inf), _SIGMA_MAX)
    return Noise(EDM(*_limits(top, flags, low, high)), "edm", sigma_data=data)


def _ve(top: Node, flags: EDMFlags) -> Noise:
    """D = x + sigma F(x; ln(sigma / 2))."""
    schedule = VE(*_limits(top, flags, top.number("sigma_min", 0.02), top.number("sigma_max", 100.0)))
    return Noise(schedule, "eps", lambda t: schedule.log_nsr(t) - math.log(2), negate=True)


def _vp(top: Node, flags: EDMFlags) -> Noise:
    """D = x - sigma F(x / sqrt(1 + sigma^2); (M - 1) t), with log(1 + sigma^2) = beta_d t^2 / 2 + beta_min t."""
    rise, start, count = top.number("beta_d", 19.9), top.number("beta_min", 0.1), top.whole("M", 1000)
    if not (0 < rise < 1000 and 0 < start < 1000 and 2 <= count <= 100_000):
        raise CheckpointError(f"{top.path}: beta_d {rise}, beta_min {start}, M {count}; expected positive numbers.")
    times = torch.arange(count + 1, dtype=torch.float64) / count
    schedule = VP(-torch.expm1(-(rise * times**2 / 2 + start * times).diff()))

    def condition(t: Tensor) -> Tensor:
        level = torch.log1p(torch.exp(2 * schedule.log_nsr(t)))
        return (count - 1) * 2 * level / ((start**2 + 2 * rise * level).sqrt() + start)

    return Noise(schedule, "eps", condition)


def _iddpm(top: Node, flags: EDMFlags) -> Noise:
    """As VP, on a table u of noise levels; the network is told the index of the nearest, counted from low noise."""
    table = top.tensors().get("u")
    if table is None or table.ndim != 1 or len(table) < 3:
        raise CheckpointError(f"{top.path}: iDDPMPrecond lacks its table u of noise levels; download it again.")
    levels = table.double()
    rising = levels[:-1].flip(0)
    if not bool(torch.isfinite(levels).all()) or not bool((rising.diff() > 0).all()) or float(rising[0]) <= 0:
        raise CheckpointError(f"{top.path}: the table u of iDDPMPrecond is not strictly falling; download it again.")
    abar = torch.cat([torch.ones(1, dtype=torch.float64), 1 / (1 + rising**2)])  # abar, from the clean picture on
    schedule = VP(1 - abar[1:] / abar[:-1])

    def condition(t: Tensor) -> Tensor:
        sigma = schedule.log_nsr(t).exp()
        nearest = (sigma[:, None] - levels.to(sigma.device)[None]).abs().argmin(dim=1)
        return len(levels) - 2 - nearest

    return Noise(schedule, "eps", condition)


_PRECONDITIONINGS: dict[str, Callable[[Node, EDMFlags], Noise]] = {
    "EDMPrecond": _edm,
    "Precond": _edm,
    "VPPrecond": _vp,
    "VEPrecond": _ve,
    "iDDPMPrecond": _iddpm,
}

READER = Reader("edm", "EDM or EDM2 (.pkl)", safe.is_plain_pickle, read)
