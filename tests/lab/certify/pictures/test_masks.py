"""The masks of the picture problems."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorpaint import UsageError
from priorpaint.diffusion.rng import derive
from priorpaint.imaging.mask_generators import random_boxes, random_pixels, rotated_window
from priorpaint.imaging.mask_kinds import MASK_KINDS
from priorpaint.lab.avatars.pixels import as_tensor
from priorpaint.lab.avatars.posterior import posterior
from priorpaint.lab.avatars.standard import standard
from priorpaint.lab.certify.pictures.masks import FEATURES, draw_masks


@pytest.mark.parametrize("name", [*MASK_KINDS, *FEATURES])
def test_masks_are_binary_and_do_not_depend_on_their_number(name: str) -> None:
    few, many = draw_masks(name, 2, seed=3), draw_masks(name, 5, seed=3)
    assert few.shape == (2, 1, 32, 32) and few.dtype == torch.float32
    assert torch.equal(few, many[:2])
    assert set(many.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("name", "low", "high"), [("left", 0.5, 0.5), ("random", 0.4, 0.8), ("small", 0.2, 0.21)])
def test_missing_share(name: str, low: float, high: float) -> None:
    missing = 1 - draw_masks(name, 20, seed=0).mean((1, 2, 3))
    assert float(missing.min()) >= low - 1e-3 and float(missing.max()) <= high + 1e-3


def test_renamed_masks_are_those_of_the_stored_tables() -> None:
    """docs/results was measured when these three had other names, which the seeds came from."""
    seeds = {old: derive("picture mask", old, 0, 1) for old in ("window", "random", "small")}
    share = 0.4 + 0.4 * float(np.random.default_rng(seeds["random"]).random())
    cells = random_pixels(16, seeds["random"], share)
    stored = {
        "rotated": rotated_window(32, seeds["window"]),
        "cells": cells.repeat(2, 0).repeat(2, 1),
        "boxes": random_boxes(32, seeds["small"], (0.02, 0.2)),
    }
    for name, known in stored.items():
        assert np.array_equal(draw_masks(name, 2, seed=0)[1, 0].numpy() > 0.5, known)


def test_the_posterior_of_avatars_takes_masks_that_cut_cells() -> None:
    """One visible pixel of a cell says all of it, so a finer mask leaves no more combinations than a coarser one."""
    parts = standard().draw(4, 0)
    x = as_tensor(standard().compose(parts))
    known = draw_masks("random", 4, seed=0)
    coarse = torch.nn.functional.max_pool2d(known, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert not torch.equal(coarse, known)
    fine, whole = (posterior(x * mask, mask).plausible for mask in (known, coarse))
    assert fine is not None and whole is not None
    assert torch.equal(fine.round(), whole.round()) and bool((fine >= 1).all())


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
    with pytest.raises(UsageError, match="the masks are rotated"):
        draw_masks("third", 1, seed=0)
