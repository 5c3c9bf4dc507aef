"""Pictures that are no garments any more: what the classifier learns to doubt, and what it is checked with."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

# Classes that look alike in halves: tops and dresses, trousers, shoes, bags.
_KINDS = torch.tensor([0, 1, 0, 0, 0, 2, 0, 2, 3, 2])
_LEAST_CHANGE = 0.12
_TRIES = 6

Corrupt = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def noise(x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """White noise instead of the picture, uniform on [-1, 1]."""
    return torch.rand(x.shape, generator=generator) * 2 - 1


def noisy(x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """The picture under normal noise of standard deviation 0.3 to 1."""
    level = 0.3 + 0.7 * torch.rand(len(x), 1, 1, 1, generator=generator)
    return (x + level * torch.randn(x.shape, generator=generator)).clamp(-1, 1)


def black_half(x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """A half plane through the garment is black."""
    return torch.where(_halves(x, generator), x, -torch.ones_like(x))


def grey_half(x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """A half plane through the garment is of one grey."""
    grey = torch.rand(len(x), 1, 1, 1, generator=generator) * 1.6 - 0.8
    return torch.where(_halves(x, generator), x, grey.expand_as(x))


def mixed_halves(x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """A half plane is of a garment of another kind: a trouser leg and half a shoe, but not a shirt and a coat."""
    return torch.where(_halves(x, generator), x, _others(x, _KINDS[labels], generator))


def mixed_classes(x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """A half plane is of any other class, which may look well: a shirt and a coat."""
    return torch.where(_halves(x, generator), x, _others(x, labels, generator))


def blended(x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """The mean of two garments of different kinds."""
    return (x + _others(x, _KINDS[labels], generator)) / 2


def upside_down(x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Turned by 180 degrees."""
    return x.flip(-1, -2)


def quarters(x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """The four quarters in another order: each moves one place on."""
    upper, lower = x.chunk(2, -2)
    (a, b), (c, d) = upper.chunk(2, -1), lower.chunk(2, -1)
    return torch.cat([torch.cat([c, a], -1), torch.cat([d, b], -1)], -2)


# What the classifier is trained to doubt; the others are for checks only.
TRAINED: dict[str, Corrupt] = {
    "noise": noise,
    "noisy": noisy,
    "black half": black_half,
    "grey half": grey_half,
    "mixed halves": mixed_halves,
    "blended": blended,
}
UNSEEN: dict[str, Corrupt] = {
    "halves of any two classes": mixed_classes,
    "quarters in another order": quarters,
    "upside down": upside_down,
}


def doubtful(x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture of (N, 1, 32, 32) corrupted in one of the trained ways; what hardly changed becomes noisy."""
    which = torch.randint(len(TRAINED), (len(x),), generator=generator)
    out = x.clone()
    for i, corrupt in enumerate(TRAINED.values()):
        rows = which == i
        if bool(rows.any()):
            out[rows] = corrupt(x[rows], labels[rows], generator)
    same = (out - x).abs().mean((1, 2, 3)) < _LEAST_CHANGE
    if bool(same.any()):
        out[same] = noisy(x[same], labels[same], generator)
    return out


def _halves(x: Tensor, generator: torch.Generator) -> Tensor:
    """(N, 1, 32, 32) bool: half planes whose edge, at a random angle, passes within 4 pixels of the middle."""
    angle = 2 * math.pi * torch.rand(len(x), 1, 1, generator=generator)
    offset = 8 * torch.rand(len(x), 1, 1, generator=generator) - 4
    rows = torch.arange(x.shape[-2])[:, None] - (x.shape[-2] - 1) / 2
    columns = torch.arange(x.shape[-1])[None, :] - (x.shape[-1] - 1) / 2
    return (columns * angle.cos() + rows * angle.sin() > offset)[:, None]


def _others(x: Tensor, kinds: Tensor, generator: torch.Generator) -> Tensor:
    """For each picture another of the same batch, of a different kind where a few tries find one, else black."""
    partner = torch.randint(len(x), (len(x),), generator=generator)
    for _ in range(_TRIES):
        same = kinds[partner] == kinds
        partner = torch.where(same, torch.randint(len(x), (len(x),), generator=generator), partner)
    same = (kinds[partner] == kinds)[:, None, None, None]
    return torch.where(same, -torch.ones_like(x), x[partner])
