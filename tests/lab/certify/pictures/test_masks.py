"""The masks of the picture problems."""

from __future__ import annotations

import pytest
import torch

from priorpaint import UsageError
from priorpaint.lab.avatars.standard import standard
from priorpaint.lab.certify.pictures.masks import MASKS, draw_masks


@pytest.mark.parametrize("name", sorted(MASKS))
def test_masks_are_binary_and_do_not_depend_on_their_number(name: str) -> None:
    few, many = draw_masks(name, 2, seed=3), draw_masks(name, 5, seed=3)
    assert few.shape == (2, 1, 32, 32) and few.dtype == torch.float32
    assert torch.equal(few, many[:2])
    assert set(many.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("name", "low", "high"), [("left", 0.5, 0.5), ("random", 0.4, 0.8), ("small", 0.02, 0.2)])
def test_missing_share(name: str, low: float, high: float) -> None:
    missing = 1 - draw_masks(name, 20, seed=0).mean((1, 2, 3))
    assert float(missing.min()) >= low - 1e-3 and float(missing.max()) <= high + 1e-3


@pytest.mark.parametrize(("name", "part"), [("eyes", "eyes"), ("mouth", "mouth")])
def test_a_feature_mask_hides_all_that_distinguishes_the_drawings_of_the_part(name: str, part: str) -> None:
    """Two avatars that differ in this part alone look the same through the mask."""
    law = standard()
    column = law.index[part]
    parts = law.draw(1, 0).repeat(len(law.parts[column].options), 0)
    parts[:, column] = range(len(parts))
    shown = law.compose(parts) * draw_masks(name, 1, seed=0)[0, 0].numpy()[None, :, :, None]
    assert (shown == shown[:1]).all()


def test_an_unknown_mask_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match="the masks are left"):
        draw_masks("third", 1, seed=0)
