"""Growing, feathering and extending masks: distances against brute force, and a picture's own bytes where they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.imaging import read_picture
from priorpaint.imaging.mask_shapes import (
    connected,
    distance_to,
    extended_known,
    extended_picture,
    feather,
    grow,
    parse_sides,
)


def distances(mask: np.ndarray) -> np.ndarray:
    """To the nearest True pixel, of every pair."""
    places = np.argwhere(mask)
    return np.array(
        [[np.hypot(*(places - (i, j)).T).min() for j in range(mask.shape[1])] for i in range(mask.shape[0])]
    )


@pytest.mark.parametrize("limit", [0, 1, 4, 13, 100])
def test_distances_are_exact_up_to_the_limit(limit: int) -> None:
    mask = np.random.default_rng(limit).random((37, 45)) < 0.01
    expected = distances(mask)
    found = distance_to(mask, limit)
    near = expected <= limit
    np.testing.assert_allclose(found[near], expected[near], rtol=1e-6)
    assert (found[~near] == limit + 1).all()
    assert (distance_to(np.zeros((5, 4), dtype=bool), limit) == limit + 1).all()


def test_a_hole_grows_by_a_disk_and_shrinks_by_it() -> None:
    known = np.random.default_rng(0).random((40, 50)) > 0.01
    np.testing.assert_array_equal(grow(known, 3), distances(~known) > 3)
    hole = np.ones((40, 50), dtype=bool)
    hole[:12, :30] = hole[30:, 45:] = False
    known = ~hole
    np.testing.assert_array_equal(grow(known, -3), distances(known) <= 3)
    np.testing.assert_array_equal(grow(known, 0), known)


def test_growth_that_leaves_nothing_is_refused() -> None:
    known = np.ones((20, 30), dtype=bool)
    known[8:12, 10:20] = False
    with pytest.raises(UsageError, match="grown by 40 pixels covers the whole picture; grow it less"):
        grow(known, 40)
    with pytest.raises(UsageError, match="shrinks by 2 pixels is gone; shrink it less"):
        grow(known, -2)
    with pytest.raises(UsageError, match="at most 10000 pixels"):
        grow(known, -(10**12))
    with pytest.raises(UsageError, match="at most 10000 pixels"):
        feather(known, 10**12)
    with pytest.raises(UsageError, match="at least 0 pixels, not -1"):
        feather(known, -1)


def test_a_feather_rises_with_the_distance_inside_the_hole_only() -> None:
    known = np.ones((40, 50), dtype=bool)
    known[5:30, 10:45] = False
    weight = feather(known, 6)
    assert weight.dtype == np.float32
    np.testing.assert_allclose(weight, np.minimum(distances(known) / 7, 1), rtol=1e-6)
    assert (weight[known] == 0).all() and (weight[~known] > 0).all() and weight.max() == 1
    np.testing.assert_array_equal(feather(known, 0), ~known)


def test_a_feather_needs_something_to_blend_with() -> None:
    known = np.ones((40, 50), dtype=bool)
    known[:, 30:] = False
    own = np.ones((40, 50), dtype=bool)
    own[:, 33:] = False
    weight = feather(known, 5, own)
    np.testing.assert_allclose(weight[0, 29:35], [0, 1 / 6, 2 / 6, 3 / 6, 1, 1], rtol=1e-6)
    own[:, 30:] = False
    with pytest.raises(UsageError, match="nothing to blend with.*--grow 5"):
        feather(known, 5, own)


def test_what_is_connected_winds_through_any_path() -> None:
    inside = np.zeros((41, 41), dtype=bool)
    inside[::2] = True  # a meander: rows joined at alternating ends
    inside[1::4, -1] = inside[3::4, 0] = True
    seeds = np.zeros_like(inside)
    seeds[0, 0] = True
    np.testing.assert_array_equal(connected(seeds, inside), inside)
    inside[20, 20] = False
    reached = connected(seeds, inside)
    assert reached[:20].sum() == inside[:20].sum() and not reached[21:].any()
    seeds[:] = ~inside
    assert not connected(seeds, inside).any()


def pictures() -> list[Image.Image]:
    """One of every mode, with transparency in the last row and column where there is such a thing."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    values[..., 3] = 255
    values[-1, :, 3] = values[:, -1, 3] = 0
    rgba = Image.fromarray(values)
    rgb = rgba.convert("RGB")
    palette = rgb.quantize(16)
    clear = palette.copy()
    clear.info["transparency"] = int(np.asarray(clear)[-1, -1])
    keyed = rgb.copy()
    keyed.info["transparency"] = tuple(values[-1, -1, :3].tolist())
    wide = Image.fromarray(rng.integers(0, 65536, (20, 30), dtype=np.uint16))
    return [rgba, rgb, palette, clear, keyed, wide, rgb.convert("L"), rgb.convert("1"), rgba.convert("LA")]


@pytest.mark.parametrize("image", pictures(), ids=lambda image: image.mode)
def test_an_extended_picture_keeps_its_pixels_and_is_opaque_beyond(image: Image.Image) -> None:
    picture = read_picture(image)
    larger = extended_picture(picture, (3, 5, 0, 9))
    assert larger.size == (33, 34) and larger.mode == picture.mode and larger.image.getpalette() == image.getpalette()
    part = larger.image.crop((3, 5, 33, 25))
    assert part.tobytes() == picture.image.tobytes()
    new = ~extended_known(np.ones((20, 30), dtype=bool), (3, 5, 0, 9))
    assert new.sum() == 33 * 34 - 20 * 30 and not new[5:25, 3:].any()
    if picture.alpha is not None:
        assert larger.alpha is not None and (larger.alpha[new] == 255).all()
        np.testing.assert_array_equal(larger.alpha[5:25, 3:], picture.alpha)


@pytest.mark.parametrize("text", [None, "", "1,2,3", "1,2,3,4,5", "a,b,c,d", "0,0,0,0", "-1,0,0,4", "1.5,2,3,4"])
def test_sides_that_cannot_be_used(text: Any) -> None:
    with pytest.raises(UsageError, match="left,top,right,bottom"):
        parse_sides(text)


def test_a_picture_is_not_extended_beyond_the_limit() -> None:
    picture = read_picture(Image.new("L", (30, 20)))
    with pytest.raises(UsageError, match="would become 30x10000020, more than 40 megapixels; extend it less"):
        extended_picture(picture, (0, 0, 0, 10**7))


@pytest.mark.parametrize("step", [grow, feather])
@pytest.mark.parametrize("wrong", [None, [[True]], np.ones((20, 30), np.uint8), np.ones((2, 20, 30), bool)])
def test_what_is_no_mask_is_one_sentence(step: Callable[..., object], wrong: Any) -> None:
    with pytest.raises(UsageError, match="a mask here is an array .H, W. of bool, True where known"):
        step(wrong, 2)


@pytest.mark.parametrize("step", [grow, feather])
@pytest.mark.parametrize("pixels", ["2", 1.5, None])
def test_pixels_are_whole(step: Callable[..., object], pixels: Any) -> None:
    known = np.ones((20, 30), bool)
    known[3:9, 3:9] = False
    with pytest.raises(UsageError, match="takes a whole number of pixels, not"):
        step(known, pixels)
    np.testing.assert_array_equal(step(known, np.int64(2)), step(known, 2))
    with pytest.raises(UsageError, match="is extended by whole numbers of pixels, not by"):
        extended_known(known, [pixels, 0, 0, 0])
