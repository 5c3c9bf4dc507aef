"""The colour map, the uncertainty picture and the contact sheet."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.imaging import contact_sheet, hole_overlay, uncertainty_picture
from priorpaint.imaging.sheets import _lightness, _round_up, colour_map


def square_hole(height: int = 60, width: int = 80) -> np.ndarray:
    known = np.ones((height, width), dtype=bool)
    known[20:40, 30:50] = False
    return known


def test_lightness_rises_evenly_with_the_value() -> None:
    values = np.linspace(0, 1, 101)
    lightness = _lightness(colour_map(values))
    assert (np.diff(lightness) > 0).all()
    line = lightness[0] + values * (lightness[-1] - lightness[0])
    assert np.abs(lightness - line).max() < 2.5  # of 100; mixing sRGB between anchors is not quite linear in L*
    assert lightness[0] < 5
    assert lightness[-1] > 90


def test_lightness_of_known_colours() -> None:
    colours = np.array([(0, 0, 0), (255, 255, 255), (119, 119, 119), (255, 0, 0)])
    np.testing.assert_allclose(_lightness(colours), [0, 100, 50.03, 53.24], atol=0.02)


def test_scales_end_at_short_numbers() -> None:
    assert [_round_up(value) for value in (0, 0.011, 0.1, 0.3001, 0.47, 0.95, 1.2)] == [
        0.01, 0.02, 0.1, 0.4, 0.5, 1.0, 2.0,
    ]  # fmt: skip


def small_pixels(picture: Image.Image, known: np.ndarray) -> np.ndarray:
    """The coloured pixels of a picture of uncertainty at their own size, without the scale below."""
    height, width = known.shape
    factor = max(1, math.ceil(160 / min(height, width))) if max(height, width) < 160 else 1
    left = (picture.width - width * factor) // 2
    return np.asarray(picture)[: height * factor : factor, left : left + width * factor : factor]


def test_uncertainty_is_coloured_in_the_hole_only() -> None:
    known = square_hole()
    std = np.zeros(known.shape)
    std[20:40, 30:50] = np.linspace(0, 0.4, 20)
    std[0, 0] = np.nan  # known pixels are not looked at
    picture = uncertainty_picture(std, known)
    assert picture.mode == "RGB"
    pixels = small_pixels(picture, known)
    np.testing.assert_array_equal(pixels[30, 30:50], colour_map(np.linspace(0, 1, 20)))
    assert (pixels[known] == pixels[0, 0]).all()
    background = Image.fromarray(np.tile(np.arange(80, dtype=np.uint8) * 3, (60, 1)))
    pixels = small_pixels(uncertainty_picture(std, known, background=background), known).astype(int)
    assert (pixels[known].max(axis=1) == pixels[known].min(axis=1)).all()
    assert (np.diff(pixels[0, :, 0]) >= 0).all()
    assert pixels[0, 79, 0] > pixels[0, 0, 0] + 50


@pytest.mark.parametrize("size", [(400_000, 16), (16, 300_000)])
def test_a_long_strip_does_not_grow_by_a_scale(size: tuple[int, int]) -> None:
    known = np.ones(size[::-1], dtype=bool)
    known[4:8, 4:8] = False
    assert uncertainty_picture(np.full(known.shape, 0.1), known).size == size


@pytest.mark.parametrize("size", [(16, 16), (400, 300), (1500, 300)])
def test_the_scale_is_added_below(size: tuple[int, int]) -> None:
    known = np.ones(size[::-1], dtype=bool)
    known[4:8, 4:8] = False
    full = uncertainty_picture(np.full(known.shape, 0.1), known)
    factor = 10 if size == (16, 16) else 1
    assert full.height > size[1] * factor
    left = (full.width - size[0] * factor) // 2
    shown = np.asarray(full.crop((left, 0, left + size[0] * factor, size[1] * factor)))
    np.testing.assert_array_equal(shown, small_pixels(full, known).repeat(factor, 0).repeat(factor, 1))
    assert (small_pixels(full, known)[~known] == colour_map(np.array(1.0))).all()
    strip = np.asarray(full)[size[1] * factor :]
    assert (np.abs(strip.astype(int) - colour_map(np.array(0.5)).astype(int)).sum(axis=2) < 12).any()
    assert (strip == (38, 38, 42)).all(axis=2).any()  # ink: the numbers


def test_uncertainty_that_makes_no_sense() -> None:
    known = square_hole()
    with pytest.raises(UsageError, match="must be equal"):
        uncertainty_picture(np.zeros((3, 3)), known)
    for value in (-0.1, np.nan, np.inf):
        with pytest.raises(UsageError, match="must be finite and at least 0"):
            uncertainty_picture(np.full(known.shape, value), known)
    with pytest.raises(UsageError, match="background is 10x10"):
        uncertainty_picture(np.zeros(known.shape), known, background=Image.new("L", (10, 10)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_the_overlay_tints_the_hole_only(mode: str) -> None:
    known = square_hole()
    pixels = np.asarray(hole_overlay(Image.new(mode, (80, 60)), known)).astype(int)
    assert pixels.shape == (60, 80, 3)
    tinted = pixels[..., 0] - pixels[..., 1] > 100
    np.testing.assert_array_equal(tinted, ~known)


@pytest.mark.parametrize(
    ("size", "shown"), [((1200, 800), (512, 341)), ((300, 200), (300, 200)), ((64, 40), (256, 160))]
)
def test_the_sheet_shows_every_picture_once(size: tuple[int, int], shown: tuple[int, int]) -> None:
    known = np.ones(size[::-1], dtype=bool)
    known[8:16, 8:16] = False
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    completions = [Image.new("RGB", size, colour) for colour in colours]
    sheet = contact_sheet(
        Image.new("RGB", size, (90, 90, 10)),
        known,
        completions,
        mean=Image.new("RGB", size, (80, 5, 90)),
        uncertainty=uncertainty_picture(np.zeros(known.shape), known),
    )
    assert sheet.width <= 2200
    pixels = np.asarray(sheet)
    for colour in [*colours, (80, 5, 90)]:
        rows, columns = np.nonzero((pixels == colour).all(axis=2))
        assert len(rows) == shown[0] * shown[1]
        assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == shown


def test_many_pictures_go_in_rows() -> None:
    known, picture = square_hole(), Image.new("RGB", (80, 60))
    few, many = (contact_sheet(picture, known, [picture] * n, mean=picture, uncertainty=picture) for n in (3, 30))
    assert few.height < 2 * 160 and few.width > 5 * 160
    assert many.height > 3 * 160 and many.width <= 2200


def test_the_sheet_of_one_sample_has_a_blank_for_the_uncertainty_and_that_of_many_shows_the_first() -> None:
    known, picture = square_hole(), Image.new("RGB", (80, 60), (9, 90, 9))
    one = np.asarray(contact_sheet(picture, known, [picture], mean=picture, uncertainty=None))
    scale = 160 // 60 + 1
    assert (one == 214).all(axis=2).sum() == 80 * 60 * scale**2
    sixty, many = (contact_sheet(picture, known, [picture] * n, mean=picture, uncertainty=picture) for n in (60, 500))
    assert many.width == sixty.width and many.height - sixty.height < 100  # for a second line in the label


def test_the_letters_below_a_strip_do_not_grow_with_its_length() -> None:
    known = np.ones((16, 40_000), dtype=bool)
    known[4:8, 4:8] = False
    assert uncertainty_picture(np.zeros(known.shape), known).height < 16 + 100
