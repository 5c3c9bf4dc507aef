"""Masks: polarity, transparency, boxes, and one sentence for every mask that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.imaging import mask_from_alpha, mask_from_boxes, parse_box, read_mask, read_picture
from priorpaint.imaging.masks import mask_from_color, mask_from_difference, mask_from_nan

SIZE = (40, 30)


def white_square() -> np.ndarray:
    values = np.zeros((30, 40), dtype=np.uint8)
    values[10:20, 5:15] = 255
    return values


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "P", "I;16", "CMYK"])
def test_white_means_repaint_or_keep(tmp_path: Path, mode: str) -> None:
    values = white_square()
    if mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(values).convert("RGB").convert(mode)
    path = tmp_path / ("mask.tif" if mode == "CMYK" else "mask.png")
    image.save(path)
    known = read_mask(path, SIZE).known
    assert known.dtype == np.bool_
    np.testing.assert_array_equal(known, values == 0)
    np.testing.assert_array_equal(read_mask(path, SIZE, means="keep").known, values == 255)
    with pytest.raises(UsageError, match="'repaint' or 'keep', not 'white'"):
        read_mask(path, SIZE, means="white")


def test_the_threshold_is_128() -> None:
    values = np.zeros((30, 40), dtype=np.uint8)
    values[0, :3] = 127, 128, 255
    known = read_mask(Image.fromarray(values), SIZE).known
    assert known[0, :3].tolist() == [True, False, False]


def test_opacity_counts_where_it_varies_else_luminance() -> None:
    painted = np.zeros((30, 40, 4), dtype=np.uint8)  # a painted layer: colour black, opacity says where
    painted[..., 3] = white_square()
    np.testing.assert_array_equal(read_mask(Image.fromarray(painted), SIZE).known, white_square() == 0)
    opaque = np.dstack([white_square()] * 3 + [np.full((30, 40), 255, dtype=np.uint8)])
    np.testing.assert_array_equal(read_mask(Image.fromarray(opaque), SIZE).known, white_square() == 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_turns_with_its_picture(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(white_square()).save(tmp_path / "mask.png", exif=exif.tobytes())
    Image.fromarray(white_square()).save(tmp_path / "picture.tif", exif=exif.tobytes())
    picture = read_picture(tmp_path / "picture.tif")
    known = read_mask(tmp_path / "mask.png", picture.size).known
    np.testing.assert_array_equal(known, np.asarray(picture.image) == 0)


def test_masks_that_cannot_be_used() -> None:
    with pytest.raises(UsageError, match="is 40x30 but the picture is 41x30; make the mask 41x30"):
        read_mask(Image.fromarray(white_square()), (41, 30))
    black, white = Image.new("L", SIZE, 0), Image.new("L", SIZE, 255)
    with pytest.raises(UsageError, match="black everywhere, so there is nothing to repaint; .* white"):
        read_mask(black, SIZE)
    with pytest.raises(UsageError, match="white everywhere, so nothing is known; .* black"):
        read_mask(white, SIZE)
    with pytest.raises(UsageError, match="white everywhere, so there is nothing to repaint; .* black"):
        read_mask(white, SIZE, means="keep")
    with pytest.raises(UsageError, match="black everywhere, so nothing is known; .* white"):
        read_mask(black, SIZE, means="keep")
    with pytest.raises(UsageError, match="does not exist"):
        read_mask("missing.png", SIZE)


def test_warnings_for_soft_and_for_inverted_masks() -> None:
    clean = white_square()
    assert read_mask(Image.fromarray(clean), SIZE).warnings == ()
    soft = clean.copy()
    soft[0, :13] = 100  # 13 of 1200 pixels: just above one per cent
    (sentence,) = read_mask(Image.fromarray(soft), SIZE).warnings
    assert "grey in 1% of its pixels" in sentence
    soft[0, 12] = 0
    assert read_mask(Image.fromarray(soft), SIZE).warnings == ()
    mask = read_mask(Image.fromarray(clean), SIZE, means="keep")
    assert mask.hole_share == pytest.approx(1100 / 1200)
    (sentence,) = mask.warnings
    assert sentence == "The mask has 92% of the picture repainted; is it inverted?"


def test_mask_from_transparency() -> None:
    rgba = np.full((30, 40, 4), 200, dtype=np.uint8)
    rgba[..., 3] = 255
    rgba[4:9, 6:20, 3] = 127
    rgba[0, 0, 3] = 128
    known = mask_from_alpha(read_picture(Image.fromarray(rgba))).known
    expected = np.ones((30, 40), dtype=bool)
    expected[4:9, 6:20] = False
    np.testing.assert_array_equal(known, expected)
    with pytest.raises(UsageError, match="has no transparency to take the mask from"):
        mask_from_alpha(read_picture(Image.new("RGB", SIZE)))
    with pytest.raises(UsageError, match="has no transparent pixel"):
        mask_from_alpha(read_picture(Image.new("RGBA", SIZE, (0, 0, 0, 255))))
    with pytest.raises(UsageError, match="is transparent everywhere"):
        mask_from_alpha(read_picture(Image.new("RGBA", SIZE, (0, 0, 0, 0))))


def test_mask_from_boxes() -> None:
    known = mask_from_boxes([(0, 0, 3, 2), (38, 29, 2, 1), parse_box("1, 1,4,5")], SIZE).known
    expected = np.ones((30, 40), dtype=bool)
    expected[0:2, 0:3] = expected[29, 38:] = expected[1:6, 1:5] = False
    np.testing.assert_array_equal(known, expected)


@pytest.mark.parametrize(
    ("boxes", "sentence"),
    [
        ([], "There is no box"),
        ([(0, 0, 0, 4)], "The box 0,0,0,4 is empty"),
        ([(-1, 0, 4, 4)], "The box -1,0,4,4 reaches outside the picture, which is 40x30"),
        ([(37, 0, 4, 4)], "reaches outside"),
        ([(0, 27, 4, 4)], "reaches outside"),
        ([(0, 0, 40, 30)], "cover the whole picture"),
        ([(1, 2, 3)], r"The box \(1, 2, 3\) is not \(x, y, width, height\) in whole pixels"),
        ([(1.5, 2, 3, 4)], "The box .* is not"),
    ],
)
def test_boxes_that_cannot_be_used(boxes: list[tuple[int, int, int, int]], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        mask_from_boxes(boxes, SIZE)


def test_masks_from_a_picture_take_one_that_was_read() -> None:
    image = Image.new("RGB", SIZE)
    for make in (mask_from_alpha, mask_from_nan, lambda one: mask_from_color(one, "red")):
        with pytest.raises(UsageError, match="a picture here is what `read_picture` gives, and Image was given"):
            make(image)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is what `read_picture` gives, and str was given"):
        mask_from_difference(read_picture(image), "a.png")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"orientation": 9}, "an EXIF orientation is a number from 1 to 8, not 9"),
        ({"orientation": 9, "turn": True}, "an EXIF orientation is a number from 1 to 8, not 9"),
        ({"orientation": "6", "turn": True}, "an EXIF orientation is a number from 1 to 8, not '6'"),
        ({"size": 5}, r"the size of a picture is \(width, height\) in pixels, not 5"),
        ({"size": (20.0, 20)}, "the size of a picture is"),
        ({"color": 5.5}, "'5.5' is not a colour"),
        ({"color": "white", "tolerance": "a"}, "a tolerance is at least 0, not 'a'"),
        ({"color": "white", "tolerance": float("nan")}, "a tolerance is at least 0, not nan"),
    ],
)
def test_other_things_than_a_mask_asks_for(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        read_mask(**{"source": np.eye(20, dtype=bool), "size": (20, 20), **change})


@pytest.mark.parametrize("boxes", [5, [5], [None]])
def test_what_is_no_box(boxes: Any) -> None:
    with pytest.raises(UsageError, match=r"is not \(x, y, width, height\) in whole pixels"):
        mask_from_boxes(boxes, (20, 20))


@pytest.mark.parametrize("text", [None, 5, "", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1.5,2,3,4"])
def test_boxes_that_cannot_be_parsed(text: Any) -> None:
    with pytest.raises(UsageError, match="is not x,y,width,height in whole pixels"):
        parse_box(text)


@pytest.mark.parametrize(
    ("name", "means", "missing"),
    [
        ("ddnm_mask.png", "keep", (0.25, 0.27)),
        ("ddnm_mask_mouth.png", "keep", (0.09, 0.11)),
        ("repaint_nn2.png", "keep", (0.75, 0.75)),
        ("iopaint_test_mask.png", "repaint", (0.01, 0.5)),
    ],
)
def test_both_polarities_of_other_projects(shared: Path, name: str, means: str, missing: tuple[float, float]) -> None:
    path = shared / "data" / "masks" / name
    mask = read_mask(path, (256, 256), means=means)
    assert missing[0] <= mask.hole_share <= missing[1]
    other = read_mask(path, (256, 256), means="repaint" if means == "keep" else "keep")
    np.testing.assert_array_equal(other.known, ~mask.known)


def test_a_mask_file_agrees_with_its_array(shared: Path) -> None:
    folder = shared / "data" / "masks"
    known = np.load(folder / "ddnm_mask_u8.npy") == 1
    np.testing.assert_array_equal(read_mask(folder / "ddnm_mask.png", (256, 256), means="keep").known, known)
