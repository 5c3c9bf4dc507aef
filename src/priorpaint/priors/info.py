"""What is known about a prior besides its denoiser, and how often that was called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from ..diffusion.schedules import Schedule

Shape = tuple[int, int | None, int | None]
Label = int | Sequence[int] | Tensor

_ONE_AT_A_TIME = Lock()


@dataclass
class NFE:
    """Network evaluations so far, one for each row of a batch.

    ``forward`` counts calls without a gradient; ``backward`` counts calls whose graph reaches x_t, which cost a forward
    and a backward pass. A method that sends more than one backward pass through such a graph adds one for each further
    pass, though it costs no second forward pass.

    Threads may share a prior; `RunNFE` counts what one run adds.
    """

    forward: int = 0
    backward: int = 0

    def count(self, rows: int, *, gradient: bool) -> None:
        """Add a call with so many rows."""
        self.add(0, rows) if gradient else self.add(rows)

    def add(self, forward: int = 0, backward: int = 0) -> None:
        """Add evaluations here, and to the runs that are listening in this thread."""
        with _ONE_AT_A_TIME:
            self.forward += forward
            self.backward += backward
        for run in _LISTENING.get():
            if run.total is self:
                NFE.add(run, forward, backward)

    def __sub__(self, earlier: NFE) -> NFE:
        return NFE(self.forward - earlier.forward, self.backward - earlier.backward)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Calls inside, in this thread, leave the counts as they were."""
        spent = RunNFE(self)
        try:
            with spent.listening():
                yield
        finally:
            self.add(-spent.forward, -spent.backward)

    def copy(self) -> NFE:
        """The counts now."""
        return NFE(self.forward, self.backward)


class RunNFE(NFE):
    """The share of one run in the counts of a prior, which others may use meanwhile in other threads.

    Args:
        total: of the prior; what is added to this share is added there.
    """

    def __init__(self, total: NFE) -> None:
        super().__init__()
        self.total = total

    def add(self, forward: int = 0, backward: int = 0) -> None:
        """Add evaluations to the total, of which this is a share."""
        with self.listening():
            self.total.add(forward, backward)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """What is added to the total inside, in this thread, is added here, once."""
        others = _LISTENING.get()
        if any(other is self for other in others):
            yield
            return
        token = _LISTENING.set((*others, self))
        try:
            yield
        finally:
            _LISTENING.reset(token)


_LISTENING: ContextVar[tuple[RunNFE, ...]] = ContextVar("listening", default=())  # empty in a new thread


@dataclass(frozen=True)
class Provenance:
    """Where a prior comes from.

    Attributes:
        name: what messages call it.
        source: the file or folder that it was read from; None for a prior without one, as for the others.
        hash: SHA-256 of what was read, in hexadecimal.
        facts: what is known about it, as JSON values.
        spec: what `load_prior` was asked for.
        flags: the flags that `load_prior` was given.
        dtype: the dtype that `load_prior` was asked for.
        load: loads it again from these and a device, in another process.
    """

    name: str = "prior"
    source: Path | None = None
    hash: str | None = None
    facts: dict[str, Any] | None = None
    spec: str | None = None
    flags: dict[str, Any] | None = None
    dtype: torch.dtype | None = None
    load: Callable[..., Any] | None = None


@dataclass(frozen=True)
class PriorInfo:
    """All that others need to know about a prior, besides its denoiser.

    Attributes:
        schedule: how x_t is made from x_0.
        shape: (C, H, W) of the space where it denoises; None means any size.
        multiple: height and width of x_0 must be a multiple of this.
        data_std: standard deviation of x_0 per element, for the width of the first noise at t = 1.
        classes: number of classes that it can be asked for; 0 where it knows none.
        takes_text: whether it can be asked for what a text describes.
        latent: whether x_0 is a latent, and ``decode`` makes the image of it; see `LatentPrior`.
        factor: pixels of an image to one of x_0, along each side.
        image_channels: of an image; None is those of x_0.
        window: (height, width) in pixels of the windows that a picture is cut into, None along a side that is not
            cut; see `TiledPrior`.
        fit: how a picture of another size is fitted to the windows.
        learned_variance: whether the network learned the variance of an ancestral step; see `Denoising`.
        null_state: whether it was trained without a condition, too, so that guidance can lead away from that state.
        provenance: where it comes from.
    """

    schedule: Schedule
    shape: Shape
    multiple: int = 1
    data_std: float = 1.0
    classes: int = 0
    takes_text: bool = False
    latent: bool = False
    factor: int = 1
    image_channels: int | None = None
    window: tuple[int | None, int | None] = (None, None)
    fit: str = "windows"
    learned_variance: bool = False
    null_state: bool = True
    provenance: Provenance = Provenance()
