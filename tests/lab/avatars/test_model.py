"""The law: drawings, distribution, composition."""

from __future__ import annotations

import json
import math
from importlib.resources import files

import numpy as np
import pytest
import torch

from priorpaint.errors import UsageError
from priorpaint.lab.avatars import Avatars, Part, standard
from priorpaint.lab.avatars.drawing import Layer
from priorpaint.lab.avatars.sheet import _sheet, drawing

from .laws import indices, small


def test_the_sheet_says_where_it_is_from() -> None:
    file = files("priorpaint.lab.avatars") / "parts.json"
    stored = json.loads(file.read_text())
    assert stored["licence"].startswith("CC0 1.0")
    assert stored["source"].startswith("@dicebear/pixel-art 9.4.3")
    assert stored["sha256"] in (files("priorpaint.lab.avatars") / "parts.md").read_text()
    assert len(file.read_bytes()) < 100_000


def test_drawings_are_shares() -> None:
    for group, names in _sheet().items():
        for name in names:
            inks = drawing(group, name)
            assert inks.shape == (16, 16, 3)
            assert inks.min() >= 0
            assert inks.sum(-1).max() <= 1 + 1e-9
            assert (inks[..., 0] < 1).any()
    assert (drawing("hair", "none") == (1, 0, 0)).all()
    with pytest.raises(UsageError, match="no drawing 'long99' in 'hair'"):
        drawing("hair", "long99")


def test_there_are_many_and_all_options_are_common() -> None:
    assert math.prod(len(part.options) for part in standard().parts) > 1e13
    assert min(min(part.shares) for part in standard().parts) >= 0.03
    assert len(standard().parts) == 16


def test_draws_follow_the_shares() -> None:
    num = 20_000
    parts = standard().draw(num, 0)
    for column, part in enumerate(standard().parts):
        shares = np.array(part.shares)
        found = np.bincount(parts[:, column], minlength=len(shares)) / num
        # 119 binomial shares within 4.5 standard errors.
        assert (np.abs(found - shares) <= 4.5 * np.sqrt(shares * (1 - shares) / num)).all(), part.name
    table = np.zeros((16, 13))
    np.add.at(table, (parts[:, standard().index["hair"]], parts[:, standard().index["hat"]]), 1)
    expected = num * np.outer(standard().parts[3].shares, standard().parts[5].shares)
    # chi^2 with 207 degrees of freedom would be exceeded by 5 standard deviations in less than one case in 10^5.
    assert ((table - expected) ** 2 / expected).sum() < 207 + 5 * np.sqrt(2 * 207)


def test_draws_are_prefixes_and_seeds_matter() -> None:
    assert np.array_equal(standard().draw(10, 3), standard().draw(1000, 3)[:10])
    assert not np.array_equal(standard().draw(10, 3), standard().draw(10, 4))


def test_log_prob_sums_to_one() -> None:
    parts = np.stack(np.meshgrid(*(np.arange(len(p.options)) for p in small().parts), indexing="ij"), -1)
    assert np.exp(small().log_prob(parts)).sum() == pytest.approx(1, abs=1e-12)


def test_pictures_are_doubled_cells() -> None:
    pictures = standard().pictures(50, 1)
    assert pictures.shape == (50, 32, 32, 3)
    assert pictures.dtype == np.uint8
    assert np.array_equal(pictures, pictures[:, ::2, ::2].repeat(2, 1).repeat(2, 2))


def test_a_face_by_hand() -> None:
    names = {
        "left background": "sky", "right background": "slate", "skin": "brown", "hair": "short02",
        "hair colour": "ginger", "hat": "06 blue", "eyes": "06", "eye colour": "green", "glasses": "light04 red",
        "left earring": "04 gold", "right earring": "none", "mouth": "sad06", "mouth colour": "pink", "beard": "07",
        "clothes": "03", "clothes colour": "navy",
    }  # fmt: skip
    parts = indices(standard(), names)
    assert standard().names(parts) == names
    cells = standard().compose(parts[None])[0, ::2, ::2].tolist()
    assert cells[0][0] == [182, 227, 244]
    assert cells[0][15] == [72, 84, 110]
    assert cells[8][8] == [round(0.9 * value + 25.5) for value in (154, 103, 57)]  # the head is lighter than the neck
    assert cells[12][8] == [154, 103, 57]
    assert cells[1][8] == [38, 99, 163]  # the hat
    assert cells[1][11] == [round(0.7 * value + 76.5) for value in (38, 99, 163)]  # its band
    assert cells[4][3] == [204, 84, 10]  # hair from under it
    assert cells[6][5] == [round(0.7 * value + 76.5) for value in (46, 138, 70)]  # a green eye behind a lens
    assert cells[5][5] == [255, 255, 255]
    assert cells[5][7] == [176, 44, 70]
    assert cells[7][2] == [255, 200, 0]
    assert cells[9][7] == [236, 84, 136]
    assert cells[10][7] == [204, 84, 10]  # the beard has the colour of the hair
    assert cells[15][8] == [3, 57, 108]


def test_only_is_the_conditional_law() -> None:
    law = standard().only({"beard": ("07", "none"), "skin": ("tan",)})
    beard = law.parts[law.index["beard"]]
    assert beard.options == ("07", "none")
    assert beard.shares == pytest.approx((0.15 / 0.7, 0.55 / 0.7))
    names = standard().names(standard().draw(1, 0)[0]) | {"beard": "07", "skin": "tan"}
    assert np.array_equal(law.compose(indices(law, names)[None]), standard().compose(indices(standard(), names)[None]))
    with pytest.raises(UsageError, match="there is no hat fez"):
        standard().only({"hat": ("fez",)})
    with pytest.raises(UsageError, match="there is no moustache"):
        standard().only({"moustache": ("none",)})


def test_laws_without_a_closed_form_are_refused() -> None:
    colour = (Part("a", ("x",), (1.0,), ((1, 2, 3),)),)
    ink = np.zeros((1, 16, 16, 3))
    opaque, glaze, mixed = ink + (0, 1, 0), ink + (0.5, 0, 0), ink + (0.5, 0.5, 0)
    with pytest.raises(UsageError, match="each cell may show one part only"):
        Avatars(colour, (Layer(mixed, colour="a"),))
    with pytest.raises(UsageError, match="covers must be the last"):
        Avatars(colour, (Layer(opaque, colour="a", cover=True), Layer(opaque, colour="a")))
    with pytest.raises(UsageError, match="a cover must be opaque"):
        Avatars(colour, (Layer(opaque, colour="a"), Layer(glaze, colour="a", cover=True)))
    with pytest.raises(UsageError, match="sum to 1"):
        Part("a", ("x", "y"), (0.5, 0.4))
    with pytest.raises(UsageError, match="one colour an option"):
        Part("a", ("x", "y"), (0.5, 0.5), ((0, 0, 0),))


def test_the_global_generators_are_left_alone() -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    standard().pictures(3, 0)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
