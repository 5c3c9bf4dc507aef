"""What the mask options do to a run: which pixels may change and to what; and that a run repeats from its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from priorpaint import UsageError, inpaint, plan
from priorpaint.imaging.mask_shapes import feather, grow
from tests.inpainting.test_api import FAST, MODES, hole_in, picture, raw, white_prior

HOLE = hole_in((64, 48))


def run(image: Image.Image, mask: Any = None, **options: Any) -> Any:
    return inpaint(image, mask, white_prior(), num_samples=1, **FAST, **options)


@pytest.mark.parametrize("mode", MODES)
def test_outside_of_a_grown_and_feathered_hole_every_bit_stays(mode: str) -> None:
    image = picture(mode)
    result = run(image, HOLE, grow=3, feather=4)
    known = grow(~HOLE, 3)
    np.testing.assert_array_equal(result.known, known)
    for out in (*result.images, result.mean):
        assert out.mode == mode and np.array_equal(raw(out)[known], raw(image)[known])
    assert not np.array_equal(raw(result.images[0]), raw(image))


def test_a_feathered_completion_is_the_weighted_mean_of_it_and_the_picture() -> None:
    image = picture("RGB")
    hard, soft = (run(image, HOLE, feather=pixels).images[0] for pixels in (0, 5))
    weight = feather(~HOLE, 5)[..., None]
    expected = weight * raw(hard) + (1 - weight) * raw(image)
    assert np.abs(raw(soft) - expected).max() <= 1  # each was rounded once
    assert ((weight > 0) & (weight < 1)).sum() > 50


def test_uncertainty_is_that_of_the_blended_completions() -> None:
    prior = white_prior()
    results = [inpaint(picture(), HOLE, prior, num_samples=3, feather=pixels, **FAST) for pixels in (0, 5)]
    expected = results[0].uncertainty * feather(~HOLE, 5)
    np.testing.assert_allclose(results[1].uncertainty, expected, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_an_extended_picture_has_the_old_one_in_it_bit_by_bit(mode: str) -> None:
    image = picture(mode)
    result = run(image, extend=(16, 0, 5, 9))
    (out,) = result.images
    assert out.mode == mode and out.size == (85, 57)
    assert np.array_equal(raw(out)[:48, 16:80], raw(image))
    assert result.known.sum() == 64 * 48
    if mode in ("RGBA", "LA"):
        assert (raw(out)[..., -1][~result.known] == 255).all()


def test_extending_joins_a_mask_and_growing_reaches_into_the_picture() -> None:
    result = run(picture(), HOLE, extend=(0, 0, 16, 0), grow=2)
    hole = np.pad(HOLE, ((0, 0), (0, 16)), constant_values=True)
    np.testing.assert_array_equal(result.known, grow(~hole, 2))


def test_a_seam_beyond_the_border_has_nothing_to_blend_with() -> None:
    with pytest.raises(UsageError, match="nothing to blend with"):
        run(picture(), extend=(0, 0, 16, 0), feather=4)
    hard, soft = (run(picture(), extend=(0, 0, 16, 0), grow=4, feather=pixels) for pixels in (0, 4))
    assert np.array_equal(raw(soft.images[0])[:, 64:], raw(hard.images[0])[:, 64:])
    assert not np.array_equal(raw(soft.images[0]), raw(hard.images[0]))


def test_inverting_keeps_what_was_to_be_repainted() -> None:
    result = run(picture(), HOLE, invert=True)
    np.testing.assert_array_equal(result.known, HOLE)
    assert not any("inverted?" in warning for warning in run(picture(), ~HOLE, invert=True).warnings)


def test_a_soft_eraser_is_filled_without_a_rim() -> None:
    rows, columns = np.indices((48, 64))
    alpha = (255 * np.clip((np.hypot(rows - 24, columns - 30) - 5) / 9, 0, 1)).astype(np.uint8)
    image = picture("RGB")
    image.putalpha(Image.fromarray(alpha))
    filled = raw(run(image, "alpha").images[0])
    assert (filled[..., 3] == 255).all()
    assert np.array_equal(filled[alpha == 255], raw(image)[alpha == 255])


def test_colours_and_differences_name_the_hole() -> None:
    image = picture()
    marked = raw(image).copy()
    marked[HOLE] = 255, 0, 255
    ways = [{"mask_color": "#ff00ff", "tolerance": 0}, {"mask_diff": image, "tolerance": 0}]
    for way in ways:
        result = run(Image.fromarray(marked), **way)
        changed = (marked != raw(image)).any(axis=2)
        np.testing.assert_array_equal(result.known, ~changed)


def test_a_run_repeats_from_its_record(tmp_path: Path) -> None:
    image = picture()
    image.save(tmp_path / "clean.png")
    marked = raw(image).copy()
    marked[HOLE] = 255, 255, 0
    Image.fromarray(marked).save(tmp_path / "marked.png")
    options = {"mask_diff": tmp_path / "clean.png", "tolerance": 3, "extend": (0, 0, 8, 0), "grow": 2, "feather": 2}
    first = inpaint(
        tmp_path / "marked.png", None, white_prior(), num_samples=1, boxes=[(1, 1, 4, 4)], **options, **FAST
    )
    info = json.loads(json.dumps(first.info))
    again = inpaint(info["image"]["path"], None, white_prior(), **info["call"])
    assert np.array_equal(raw(again.images[0]), raw(first.images[0]))
    np.testing.assert_array_equal(again.known, first.known)


def test_a_preview_shows_hole_and_windows_and_draws_nothing() -> None:
    ready = plan(picture(), HOLE, white_prior(), grow=2, feather=3, num_samples=2, **FAST)
    preview = ready.preview()
    assert 512 <= max(preview.size) < 1024 and ready.prior.nfe.forward == 0
    hidden = int((~grow(~HOLE, 2)).sum())
    assert ready.about_hole() == (
        f"64x48, {hidden / HOLE.size:.1%} to repaint ({hidden} pixels), 2 windows, 2 samples, 14 calls of the prior"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"tolerance": 3, "mask": HOLE}, "a tolerance is for mask_color or mask_diff"),
        ({"turn_mask": True, "mask_color": "#ffffff"}, "turn_mask is for a mask file"),
        ({"turn_mask": True, "mask": HOLE}, "not turned by an EXIF orientation"),
        ({"invert": True, "extend": (0, 0, 8, 0)}, "no mask to invert"),
        ({"mask": HOLE, "extend": (0, 0, 0)}, "left,top,right,bottom"),
        ({"mask": HOLE, "extend": (0, 0, -8, 0)}, "left,top,right,bottom"),
        ({"mask": HOLE, "grow": 500}, "covers the whole picture"),
        ({"mask": HOLE, "grow": -50}, "is gone"),
        ({"mask": HOLE, "feather": -1}, "at least 0"),
        ({}, "nothing to repaint"),
    ],
)
def test_options_without_meaning_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        run(picture(), **arguments)
