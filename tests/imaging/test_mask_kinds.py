"""The registry of masks: every kind at every size, the shares that the papers say, and a kind of one's own."""

from __future__ import annotations

import numpy as np
import pytest

from priorpaint.errors import UsageError
from priorpaint.imaging.mask_generators import Mask, Size
from priorpaint.imaging.mask_kinds import MASK_KINDS, draw_mask, mask_kind

SIZES = [(16, 16), (32, 32), (50, 33), (96, 200)]
# Missing shares, with what rounding to whole pixels adds at 16 px.
SHARES = {
    "rotated": (0.45, 0.55), "random": (0.4, 0.8), "small": (0.2, 0.21), "half": (0.48, 0.52), "left": (0.48, 0.5),
    "right": (0.48, 0.5), "top": (0.5, 0.5), "bottom": (0.5, 0.5), "center": (0.24, 0.25), "box": (0.24, 0.25),
    "expand": (0.93, 0.95), "lines": (0.5, 0.5), "grid": (0.74, 0.76), "pixels": (0.91, 0.93), "cells": (0.38, 0.82),
    "boxes": (0.02, 0.2), "brush": (0.2, 0.5), "strokes": (0.05, 0.1), "holes": (0.1, 0.2), "text": (0.08, 0.4),
}  # fmt: skip


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_every_kind_fits_every_size_and_hides_its_share(kind: str, size: tuple[int, int]) -> None:
    low, high = SHARES[kind]
    for seed in range(3):
        known = draw_mask(kind, size, seed)
        assert known.shape == size and known.dtype == np.bool_
        assert low <= 1 - known.mean() <= high
        assert np.array_equal(known, draw_mask(kind, size, seed))


@pytest.mark.parametrize("kind", ["random", "small", "brush", "text", "rotated", "cells", "half"])
def test_seeds_differ(kind: str) -> None:
    assert len({draw_mask(kind, 64, seed).tobytes() for seed in range(8)}) > 2


def test_every_kind_says_what_is_missing() -> None:
    assert all(kind.about.endswith(("missing", "%")) for kind in MASK_KINDS.values())
    assert "VIPaint" in MASK_KINDS["rotated"].source and "Co-Mod-GAN" in MASK_KINDS["random"].source


def test_brush_strokes_are_as_wide_as_published() -> None:
    """12 to 47 pixels at 256: some hidden pixel is 5 away from every known one, and none is 100 away."""
    for seed in range(5):
        hidden = ~draw_mask("brush", 256, seed)
        for step in range(100):
            assert hidden.any() or step > 5
            padded = np.pad(hidden, 1, constant_values=True)
            hidden = np.all([padded[i : i + 256, j : j + 256] for i in range(3) for j in range(3)], axis=0)
        assert not hidden.any()


def test_random_has_boxes_and_strokes() -> None:
    """A box has four right angles: boxes alone have corners only where two straight edges meet; strokes have slopes."""

    def steps(known: Mask) -> int:
        """Places where the border goes one pixel on and one pixel down, as on a slope."""
        blocks = known[:-1, :-1] + 2 * known[1:, :-1] + 4 * known[:-1, 1:] + 8 * known[1:, 1:]
        return int(np.isin(blocks, (1, 2, 4, 7, 8, 11, 13, 14)).sum())

    boxes = max(steps(draw_mask("boxes", 128, seed)) for seed in range(20))
    assert boxes <= 4 * (2 + 5)  # at most five boxes, some over the border, each with four corners and few crossings
    assert sum(steps(draw_mask("random", 128, seed)) > 100 for seed in range(20)) >= 15


def test_text_can_be_read() -> None:
    """Rows of letters: between the lines of words stand rows without a hidden pixel."""
    rows = (~draw_mask("text", 256, 0)).any(1)
    assert 3 <= int((rows[1:] & ~rows[:-1]).sum()) <= 12


def test_what_is_left_out_is_refused() -> None:
    with pytest.raises(UsageError, match="the kinds are rotated, random"):
        draw_mask("spots", 32)
    with pytest.raises(UsageError, match="at least 0"):
        draw_mask("rotated", 32, -1)
    with pytest.raises(UsageError, match="hides nothing of 4 x 1"):
        draw_mask("left", (4, 1))
    with pytest.raises(UsageError, match="both at least 1"):
        draw_mask("grid", (0, 4))


def test_a_kind_of_ones_own_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("priorpaint.imaging.mask_kinds.MASK_KINDS", dict(MASK_KINDS))

    @mask_kind("corner", "this test")
    def corner(size: Size, seed: int) -> Mask:
        """The first pixel is missing."""
        known = np.ones((size, size) if isinstance(size, int) else size, dtype=bool)
        known[0, 0] = False
        return known

    assert not draw_mask("corner", 8)[0, 0] and draw_mask("corner", 8).sum() == 63
    with pytest.raises(UsageError, match="name of its own"):
        mask_kind("corner")(corner)
    with pytest.raises(UsageError, match="docstring"):
        mask_kind("nothing")(lambda size, seed: draw_mask("half", size, seed))
