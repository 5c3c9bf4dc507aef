"""What a picture problem is: pictures under masks, measures of completions, and the columns that show them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....errors import UsageError
from ....imaging.mask_kinds import MASK_KINDS

Distance = Callable[[Tensor, Tensor], Tensor]
TRUTH, KNOWN = "truth", "known"


def enlarged(pictures: Tensor, scale: int) -> Tensor:
    """Pictures or masks (B, C, H, W), each pixel as ``scale`` x ``scale`` of its value."""
    return pictures.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def shrunk(samples: Tensor, scale: int) -> Tensor:
    """Means of the squares of `enlarged` completions: (B, n, C, scale H, scale W) -> (B, n, C, H, W)."""
    small = F.avg_pool2d(samples.flatten(0, 1), scale)
    return small.reshape(*samples.shape[:2], *small.shape[1:])


@dataclass(frozen=True)
class Case(ABC):
    """Some pictures under one kind of mask.

    Attributes:
        mask: its name (`masks.draw_masks`).
        x: the pictures (B, C, 32, 32) in [-1, 1].
        known: (B, 1, 32, 32), 1 where known.
    """

    mask: str
    x: Tensor
    known: Tensor

    @abstractmethod
    def measure(self, samples: Tensor, lpips: Distance | None = None) -> Any:
        """The measures (a dataclass of numbers) of completions (B, n, C, 32, 32), with LPIPS where it is given."""

    @abstractmethod
    def floor(self, num: int, lpips: Distance | None = None) -> Any:
        """The same of ``num`` completions of each picture that cannot be better."""

    def references(self, num: int) -> dict[str, Tensor]:
        """What contact sheets show beside the methods, by name, each (B, columns, C, 32, 32)."""
        known = torch.where(self.known > 0.5, self.x, torch.zeros_like(self.x))
        return {TRUTH: self.x[:, None], KNOWN: known[:, None]}


@dataclass(frozen=True)
class Column:
    """A column of the tables.

    Attributes:
        title: above it.
        meaning: one line for the page.
        value: of the measures; None is shown as a dash.
        perfect: what the reference row shows, in words.
        noise: by how much the value would differ in another run (one standard deviation); None where that is unknown.
        digits: behind the point.
    """

    title: str
    meaning: str
    value: Callable[[Any], float | None]
    perfect: str = ""
    noise: Callable[[Any], float | None] = lambda measures: None
    digits: int = 3


VISIBLE = Column("visible", "root mean square change of known pixels", lambda m: m.visible, "0")
LPIPS = Column("LPIPS", "distance to the truth, with the network that stands above the table", lambda m: m.lpips)


@dataclass(frozen=True)
class Subject:
    """A kind of pictures.

    Attributes:
        name: on the command line.
        about: Markdown for the page: what the problem is.
        draw: (mask, count, seed, folder of the data or None) -> case.
        measures: the dataclass of the measures; its field ``lpips`` may be None.
        features: names of its own masks, beside all kinds of `MASK_KINDS`.
        reference: name of the row that cannot be better.
        columns: of the tables.
        order: of the measures; the best method has the smallest.
        channels: of the pictures.
        scales: sides of a prior's pictures over 32; a larger picture shows each pixel as a square of one colour.
        prior: name of the default prior, as it is asked for; ``prior_name`` is what it calls itself.
    """

    name: str
    about: str
    draw: Callable[[str, int, int, Path | None], Case]
    measures: type[Any]
    features: tuple[str, ...]
    reference: str
    columns: tuple[Column, ...]
    order: Callable[[Any], float]
    channels: int
    prior: str
    prior_name: str
    scales: tuple[int, ...] = (1,)

    @property
    def masks(self) -> tuple[str, ...]:
        """Names of the masks that it takes."""
        return (*MASK_KINDS, *self.features)

    def check_masks(self, names: list[str]) -> None:
        """Raise UsageError for a mask that this subject does not have."""
        for name in names:
            if name not in self.masks:
                raise UsageError(f"{self.name} have no mask {name!r}; theirs are {', '.join(self.masks)}.")
