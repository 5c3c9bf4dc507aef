"""Small laws whose combinations can all be listed."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from priorpaint.lab.avatars import Avatars, Part, standard
from priorpaint.lab.avatars.drawing import Layer, Parts


def indices(law: Avatars, names: dict[str, str]) -> Parts:
    """The combination (P,) of words; the other way round from `Avatars.names`."""
    return np.array([part.options.index(names[part.name]) for part in law.parts], dtype=np.int64)


@cache
def small() -> Avatars:
    """768 of the avatars, with something to decide all over the picture."""
    return standard().only(
        {
            "left background": ("sky", "slate"),
            "right background": ("cream",),
            "skin": ("tan", "umber"),
            "hair": ("long18", "long19", "short02"),
            "hair colour": ("brown", "grey"),
            "hat": ("none", "03 red"),
            "eyes": ("07",),
            "eye colour": ("blue", "dark"),
            "glasses": ("none", "dark04 blue"),
            "left earring": ("01 gold",),
            "right earring": ("none",),
            "mouth": ("sad04", "sad06"),
            "mouth colour": ("pink",),
            "beard": ("none", "07"),
            "clothes": ("03",),
            "clothes colour": ("red",),
        }
    )


def random_law(seed: int, *, covers: int = 2) -> Avatars:
    """A law without any sense: layers overlap and hide one another at random, so that parts are often undecided."""
    rng = np.random.default_rng(seed)

    def part(name: str, count: int, colour: bool = False) -> Part:
        shares = tuple(rng.dirichlet(np.full(count, 5.0)).tolist())
        colours = tuple(tuple(map(int, rng.integers(0, 256, 3))) for _ in range(count)) if colour else None
        return Part(name, tuple(f"{name} {number}" for number in range(count)), shares, colours)

    def drawings(count: int, cover: bool) -> NDArray[np.float64]:
        inks = np.array([(1, 0, 0), (0, 1, 0), (0, 0.6, 0.3), (0, 0, 0.5), (0.7, 0, 0), (0.5, 0, 0.5)], float)
        shares = (0.7, 0.2, 0.1, 0, 0, 0) if cover else (0.6, 0.15, 0.1, 0.05, 0.05, 0.05)
        region = np.zeros((16, 16), bool)
        top, left = rng.integers(0, 10, 2)
        region[top : top + 6, left : left + 6] = True
        return np.where(region[..., None], inks[rng.choice(6, (count, 16, 16), p=shares)], inks[0])

    ground = np.zeros((1, 16, 16, 3))
    ground[..., 1] = 1
    parts = [part("ground", 2, True), part("skin", 2, True), part("paint", 3, True)]
    layers = [Layer(ground, colour="ground"), Layer(drawings(1, False), colour="skin")]
    for number, colour in enumerate((None, "skin", "paint", "ground")):
        name = f"lower {number}"
        parts.append(part(name, 2))
        own = rng.integers(0, 256, (2, 3)).astype(float) if colour is None else None
        layers.append(Layer(drawings(2, False), style=name, colour=colour, own=own))
    for number, colour in enumerate(("paint", None)[:covers]):
        name = f"cover {number}"
        parts.append(part(name, 2))
        own = rng.integers(0, 256, (2, 3)).astype(float) if colour is None else None
        layers.append(Layer(drawings(2, True), style=name, colour=colour, own=own, cover=True))
    return Avatars(tuple(parts), tuple(layers))


def every(avatars: Avatars) -> Parts:
    """All combinations (n, P)."""
    return np.array(list(itertools.product(*(range(len(part.options)) for part in avatars.parts))), np.int64)


@cache
def listed(avatars: Avatars) -> Tensor:
    """The pictures (n, 3, 32, 32) of all combinations, float64 in [-1, 1]."""
    return torch.from_numpy(avatars.compose(every(avatars))).permute(0, 3, 1, 2).double() / 127.5 - 1


def brute(avatars: Avatars, y: Tensor, known: Tensor, sigma_y: float) -> tuple[Parts, Tensor]:
    """All combinations, and ln p(combination, y) (n,) of one picture y (3, 32, 32) and mask (32, 32), by listing."""
    parts = every(avatars)
    error = (listed(avatars) - y.double())[:, :, known > 0].flatten(1)
    prior = torch.from_numpy(avatars.log_prob(parts))
    if sigma_y:
        spread = 2 * sigma_y**2
        return parts, prior - error.square().sum(1) / spread - error.shape[1] / 2 * np.log(np.pi * spread)
    return parts, torch.where(error.abs().amax(1) < 0.5 / 127.5, prior, -torch.inf)
