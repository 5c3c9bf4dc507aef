"""How much memory a run takes, and the settings that keep it below a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ByteSize, TypeAdapter, ValidationError
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..errors import UsageError, show_bytes
from ..priors.base import Prior
from ..priors.recompute import RecomputePrior
from ..solvers.base import Solver
from ..solvers.problem import Graph

# What is alive beside the largest operation's inputs and outputs: skip connections, buffers of the operation.
_AROUND = 2
# Copies of x_0 and of the image that a solver keeps a row, besides graphs.
_COPIES = 12


@dataclass(frozen=True)
class CallBytes:
    """Bytes for one row of one call.

    Attributes:
        saved: what the graph keeps for the backward pass.
        peak: what is alive besides, at most, while the call runs.
    """

    saved: int = 0
    peak: int = 0


@dataclass(frozen=True)
class Footprint:
    """What a prior takes at one picture size, in bytes.

    Attributes:
        weights: of network and autoencoder, once.
        row: of the x_0 and the images that a solver holds, a row.
        network, decoder, encoder: of a call with one row; those of the autoencoder are 0 for pixel priors.
    """

    weights: int
    row: int
    network: CallBytes
    decoder: CallBytes = CallBytes()
    encoder: CallBytes = CallBytes()

    def needs(self, rows: int, graph: Graph | None, *, checkpoint: bool, autoencoder_rows: int | None = None) -> int:
        """Bytes of a run with ``rows`` rows at a time.

        Args:
            graph: calls that one gradient goes through; None is a method without gradients.
            checkpoint: whether activations are computed again.
            autoencoder_rows: rows encoded or decoded at a time; None is all.
        """
        at_once = min(autoencoder_rows or rows, rows)
        autoencoder_peak = at_once * max(self.decoder.peak, self.encoder.peak)
        base = self.weights + rows * self.row
        if graph is None:
            return base + max(rows * self.network.peak, autoencoder_peak)
        if checkpoint:
            part = max(bool(graph.decoder) * self.decoder.saved, bool(graph.encoder) * self.encoder.saved)
            return base + max(rows * (self.network.saved + self.network.peak), at_once * part + autoencoder_peak)
        saved = graph.network * self.network.saved
        saved += graph.decoder * self.decoder.saved + graph.encoder * self.encoder.saved
        return base + rows * saved + max(rows * self.network.peak, autoencoder_peak)


@dataclass(frozen=True)
class MemoryPlan:
    """Settings that keep a run below a limit.

    Attributes:
        rows: at a time, the ``batch_size`` of a solver.
        checkpoint: whether activations are computed again in the backward pass.
        autoencoder_rows: rows encoded or decoded at a time; None is all.
        expected: bytes that the run should take.
    """

    rows: int
    checkpoint: bool
    autoencoder_rows: int | None
    expected: int

    def applied(self, prior: Prior) -> Prior:
        """The prior with these settings."""
        if not self.checkpoint and self.autoencoder_rows is None:
            return prior
        return RecomputePrior(prior, checkpoint=self.checkpoint, rows=self.autoencoder_rows)


def plan_memory(limit: int, footprint: Footprint, *, rows: int, graph: Graph | None) -> MemoryPlan:
    """The fastest settings that stay below a limit.

    Fewer rows at a time cost no evaluation and come first: of the autoencoder, then of everything. Computing
    activations again costs a forward pass for each backward pass and comes last.

    Args:
        limit: bytes for weights and activations.
        footprint: of prior and picture size.
        rows: as many as there is work for.
        graph: calls that one gradient of the method goes through; None is a method without gradients.

    Raises:
        UsageError: one row at a time, computed again, takes more than the limit.
    """
    counts = sorted({max(1, rows >> shift) for shift in range(rows.bit_length())}, reverse=True)
    least = 0
    for checkpoint in (False, True) if graph is not None else (False,):
        for count in counts:
            for autoencoder_rows in (None, 1) if footprint.decoder.peak and (graph is None or checkpoint) else (None,):
                least = footprint.needs(count, graph, checkpoint=checkpoint, autoencoder_rows=autoencoder_rows)
                if least <= limit:
                    return MemoryPlan(count, checkpoint, autoencoder_rows, least)
    raise UsageError(
        f"this needs about {show_bytes(least)} even one sample at a time, more than {show_bytes(limit)}; allow more "
        "memory, take a method without gradients or mark a smaller hole"
    )


def plan_for(limit: int, prior: Prior, solver: Solver, *, height: int, width: int, rows: int) -> MemoryPlan:
    """`plan_memory` for a solver on pictures of a size; runs each part of the prior once to measure it.

    Raises:
        UsageError: as `plan_memory`, or a size that the prior does not work on.
    """
    graph = solver.graph if solver.cost().backward else None
    footprint = measure(prior, height, width, gradient=graph is not None)
    return plan_memory(limit, footprint, rows=rows, graph=graph)


def parse_bytes(text: str | int) -> int:
    """A number of bytes: an int, or a number with kB, MB, GB (powers of 1000), KiB, MiB or GiB.

    Raises:
        UsageError: something else, or nothing above 0.
    """
    try:
        value = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        value = 0
    if value <= 0:
        raise UsageError(f"an amount of memory is written like 4GB or 800MB, not {text!r}")
    return value


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure(prior: Prior, height: int, width: int, *, gradient: bool = True) -> Footprint:
    """The footprint of a prior at images of this size, from one row of each call; evaluations are not counted.

    Args:
        gradient: whether graphs are measured too; without, ``saved`` is 0.
    """
    shape, image_shape = prior.latent_shape(height, width), (prior.image_shape[0], height, width)
    weights = _storages(prior.parameters())
    with prior.nfe.uncounted():
        x_0 = torch.zeros(1, *shape, device=prior.device)
        calls = [_measured(lambda x: prior.denoise(x, 0.5), x_0, weights, gradient)]
        if prior.latent:
            calls.append(_measured(prior.decode, x_0, weights, gradient))
            image = torch.zeros(1, *image_shape, device=prior.device)
            calls.append(_measured(prior.encode, image, weights, gradient))
    row = _COPIES * 4 * (math.prod(shape) + math.prod(image_shape))
    return Footprint(sum(weights.values()), row, *calls)


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the bytes of the inputs and outputs of the largest operation, weights left out."""

    def __init__(self, weights: dict[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights, self.largest = weights, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler at the first operation, which takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        touched = _storages(leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor))
        self.largest = max(self.largest, sum(size for key, size in touched.items() if key not in self.weights))
        return out


def _measured(call: Callable[[Tensor], Tensor], x: Tensor, weights: dict[int, int], gradient: bool) -> CallBytes:
    with torch.no_grad(), _Largest(weights) as mode:
        call(x)
    saved: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no storage is counted under the address of one that is gone

    def pack(tensor: Tensor) -> Tensor:
        saved.update(_storages([tensor]))
        alive.append(tensor)
        return tensor

    if gradient:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            call(x.detach().requires_grad_())
    return CallBytes(sum(size for key, size in saved.items() if key not in weights), _AROUND * mode.largest)


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Address -> bytes of the distinct storages of tensors."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in storages}
