"""EDM2 checkpoints (.pkl): the network of Karras et al. 2024, in pickles of the same kind as EDM's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from ..networks.edm2 import EDM2Config, UNet
from .base import Request
from .edm_tree import Node, plain
from .untrusted import reading as safe

_ORDER = ("img_resolution", "img_channels", "label_dim", "model_channels", "channel_mult")
_WHOLES = (*_ORDER[:4], "channel_mult_noise", "channel_mult_emb", "num_blocks", "channels_per_head")
_WHOLE_LISTS = ("channel_mult", "attn_resolutions")
_SHARES = ("label_balance", "concat_balance", "res_balance", "attn_balance")
_ABSENT = ("channel_mult_noise", "channel_mult_emb")  # None: chosen by the program
_IGNORED = ("dropout",)


def edm2_network(top: Node, request: Request) -> tuple[nn.Module, EDM2Config]:
    """The network inside a Precond of EDM2, which is ``top``, and its shape."""
    inner = top.child("unet")
    if inner.kind != "UNet":
        raise CheckpointError(f"{top.path}: the network in Precond is of the class {inner.kind!r}; expected UNet.")
    config = edm2_config(inner)
    for name in ("img_resolution", "img_channels", "label_dim"):
        if top.whole(name, getattr(config, name)) != getattr(config, name):
            raise CheckpointError(f"{top.path}: {name} of the network and of its Precond differ; download it again.")
    state = inner.tensors()
    safe.check_count(2 * len(config.channel_mult) * config.num_blocks, state, top.path)
    return _assembled(config, state, request), config


def _assembled(config: EDM2Config, state: dict[str, Tensor], request: Request) -> nn.Module:
    path = request.source
    network = safe.assemble(lambda: UNet(config), state, path, device=request.device, dtype=torch.float32)
    assert isinstance(network, UNet)
    network.settle()
    for weight in network.parameters():
        weight.data = weight.data.to(request.dtype)
    return network


def edm2_config(inner: Node) -> EDM2Config:
    """The network's shape from its constructor's arguments, all checked."""
    values: dict[str, Any] = {}
    for name, given in inner.arguments(_ORDER).items():
        value = plain(given)
        if name in _IGNORED or (value is None and name in _ABSENT):
            continue
        if name in _WHOLES:
            values[name] = _whole(inner, name, value)
        elif name in _WHOLE_LISTS:
            values[name] = tuple(_whole(inner, name, part) for part in _list(inner, name, value))
        elif name in _SHARES:
            values[name] = _share(inner, name, value)
        elif name == "resample_filter":
            values[name] = tuple(float(part) for part in _list(inner, name, value))
        elif name == "clip_act":
            values[name] = None if value is None else float(value)
        else:
            raise CheckpointError(f"{inner.path}: UNet has an argument {name!r} that priorpaint does not know.")
    try:
        config = EDM2Config(**values, heads=_heads(inner))
    except TypeError:
        raise CheckpointError(f"{inner.path}: UNet lacks one of its arguments {', '.join(_ORDER[:3])}.") from None
    levels = len(config.channel_mult)
    if not levels or not config.img_channels or not config.model_channels or config.img_resolution % 2 ** (levels - 1):
        raise CheckpointError(f"{inner.path}: {config.img_resolution} pixels cannot be halved {levels - 1} times.")
    if not config.channels_per_head:
        raise CheckpointError(f"{inner.path}: channels_per_head is 0; expected a positive number.")
    if len(config.resample_filter) % 2 or not sum(config.resample_filter):
        raise CheckpointError(f"{inner.path}: resample_filter is {config.resample_filter}; expected an even number.")
    return config


def _heads(inner: Node) -> dict[str, int]:
    found: dict[str, int] = {}
    for side in ("enc", "dec"):
        for block in inner.child(side).children():
            if block.kind != "Block" or "num_heads" not in block.values:
                continue
            heads, channels = block.whole("num_heads"), block.whole("out_channels")
            if heads and channels % heads:
                raise CheckpointError(f"{inner.path}: {block.where} has {heads} heads for {channels} channels.")
            found[".".join(block.where.split(".")[-2:])] = heads
    return found


def _whole(inner: Node, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65536:
        raise CheckpointError(f"{inner.path}: {name} of UNet is {value!r}; expected a whole number.")
    return value


def _share(inner: Node, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise CheckpointError(f"{inner.path}: {name} of UNet is {value!r}; expected a number in [0, 1].")
    return float(value)


def _list(inner: Node, name: str, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= 64:
        raise CheckpointError(f"{inner.path}: {name} of UNet is {value!r}; expected a list.")
    numbers = [plain(part) for part in value]
    if not all(isinstance(part, (int, float)) for part in numbers):
        raise CheckpointError(f"{inner.path}: {name} of UNet is {value!r}; expected a list of numbers.")
    return numbers
