"""Holes said in every way, on values of every type, by every method; and the mask tools against plain arrays."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from priorpaint import SOLVERS, DenoiserPrior, UsageError, inpaint, schedules
from priorpaint.imaging import read_picture
from priorpaint.imaging.masks import feather, grow, mask_from_color, mask_from_difference
from priorpaint.imaging.writing import save_picture
from priorpaint.solvers import explain
from tests.inpainting.test_rowwise import FAST
from tests.robustness.masks import Asked, deep, holes, marked, masked, within
from tests.robustness.test_pictures import ALWAYS, PRIOR, scratch

# Methods with gradients need a network that has one.
SMOOTH = DenoiserPrior(lambda x_t, t: 0.3 * torch.tanh(x_t), schedules.EDM(), (3, None, None), data_std=0.5)


def check(asked: Asked, prior: DenoiserPrior = PRIOR, method: str = "replacement", **fast: Any) -> None:
    """What is repainted is what was asked for; type, size and known pixels stay, in a file too, and nothing is said."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        result = inpaint(asked.picture, asked.mask, prior, method, 1, **(fast or {"steps": 2}), **asked.options)
        out = Path(folder, "out.tif" if asked.hidden.sum() % 2 else "out.npy")
        save_picture(result.images[0], out, result.picture)
        np.testing.assert_array_equal(~result.known, asked.hidden)
        pixels = asked.pixels[..., 0] if asked.pixels.shape[2:] == (1,) else asked.pixels
        for image in (result.images[0], read_picture(out).image):
            values = np.asarray(image)
            values = values[..., 0] if values.shape[2:] == (1,) else values
            assert (values.dtype, values.shape) == (pixels.dtype, pixels.shape)
            np.testing.assert_array_equal(values[~asked.hidden], pixels[~asked.hidden])
            assert np.isfinite(values[asked.hidden]).all()
        if isinstance(asked.mask, str) and asked.mask == "alpha":
            assert (np.asarray(result.images[0])[asked.hidden, 3] == 255).all()


@given(masked())
@settings(ALWAYS, max_examples=250)
def test_a_mask_of_any_kind_says_what_is_repainted(asked: Asked) -> None:
    check(asked)


@given(marked())
@settings(ALWAYS, max_examples=150)
def test_a_picture_says_itself_what_is_repainted(asked: Asked) -> None:
    check(asked)


@given(deep())
@settings(ALWAYS, max_examples=200)
def test_values_of_any_type_stay_with_any_range(asked: Asked) -> None:
    pytest.importorskip("tifffile")
    check(asked)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_every_method_keeps_what_is_known(name: str) -> None:
    fast = FAST.get(name, {"steps": 2} if "steps" in explain(SOLVERS[name]) else {})

    @given(st.one_of(masked(), marked(), deep()))
    @settings(ALWAYS, max_examples=4)
    def run(asked: Asked) -> None:
        check(asked, SMOOTH, name, **fast)

    run()


@given(holes(), st.integers(1, 12))
@settings(ALWAYS, max_examples=100)
def test_holes_grow_and_shrink_by_disks(hidden: np.ndarray, radius: int) -> None:
    larger, smaller = within(hidden, radius), ~within(~hidden, radius)
    for pixels, expected in ((radius, larger), (-radius, smaller)):
        if expected.any() and not expected.all():
            np.testing.assert_array_equal(~grow(~hidden, pixels), expected)
        else:
            with pytest.raises(UsageError, match="it less"):
                grow(~hidden, pixels)


@given(holes(), st.integers(1, 12))
@settings(ALWAYS, max_examples=60)
def test_a_feather_is_0_on_known_pixels_and_rises_with_the_distance(hidden: np.ndarray, width: int) -> None:
    weight = feather(~hidden, width)
    assert (weight[~hidden] == 0).all() and (weight[hidden] > 0).all() and weight.max() <= 1
    for steps in range(1, width + 1):  # a pixel is below this weight where a known one is nearer
        near = within(~hidden, steps)
        assert (weight[near] <= np.float32(steps / (width + 1)) + 1e-6).all()
        assert (weight[~near] > np.float32(steps / (width + 1)) - 1e-6).all()


@given(st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(1, 40))
@settings(ALWAYS, max_examples=60)
def test_colours_and_differences_are_told_by_the_channel_that_is_furthest(seed: int, tolerance: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    one = rng.integers(0, 256, (16, 20, 3)).astype(np.uint8)
    two = (one.astype(int) + rng.integers(-most, most + 1, one.shape)).clip(0, 255).astype(np.uint8)
    colour = one[3, 4].tolist()
    like = np.abs(one.astype(int) - colour).max(axis=2) <= tolerance
    assume(not like.all())
    found = mask_from_color(read_picture(one), "#" + bytes(colour).hex(), tolerance)
    np.testing.assert_array_equal(~found.known, like)
    off = np.abs(one.astype(int) - two).max(axis=2) > tolerance
    if off.any() and not off.all():
        found = mask_from_difference(read_picture(one), read_picture(two), tolerance)
        np.testing.assert_array_equal(~found.known, off)
    else:
        with pytest.raises(UsageError, match="differ (nowhere|everywhere)"):
            mask_from_difference(read_picture(one), read_picture(two), tolerance)
