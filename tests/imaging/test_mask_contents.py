"""Masks as people bring them: what is neither black nor white is told, with what to type, and that works."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from priorpaint.errors import UsageError
from priorpaint.imaging import mask_from_alpha, read_mask, read_picture
from priorpaint.imaging.masks import mask_from_color, mask_from_difference

SIZE = (40, 30)
HOLE = np.zeros((30, 40), dtype=bool)
HOLE[10:20, 5:15] = True


def two(black: int | tuple[int, ...], white: int | tuple[int, ...], dtype: type = np.uint8) -> Image.Image:
    """A mask of two values or colours, the second in the hole."""
    deep = HOLE[..., None] if isinstance(white, tuple) else HOLE
    return Image.fromarray(np.where(deep, white, black).astype(dtype))


def palette(white: int, colours: dict[int, tuple[int, int, int]]) -> Image.Image:
    image = two(0, white).convert("P")
    image.frombytes(two(0, white).tobytes())
    table = np.zeros((256, 3), dtype=np.uint8)
    for i, colour in colours.items():
        table[i] = colour
    image.putpalette(table.ravel().tolist())
    return image


def soft(peak: int) -> Image.Image:
    """A brush with a soft edge that covers no more than a part."""
    rows, columns = np.indices((30, 40))
    values = peak * np.clip(1.5 - np.hypot(rows - 15, columns - 20) / 10, 0, 1)
    return Image.fromarray(values.round().astype(np.uint8))


DARK = {
    "values 0 and 1": (two(0, 1), "the values 0 (1100 pixels) and 1 (100 pixels) of 255"),
    "16 bits, 0 and 255": (two(0, 255, np.uint16), "the values 0 (1100 pixels) and 255 (100 pixels) of 65535"),
    "16 bits, 0 and 1": (two(0, 1, np.uint16), "and 1 (100 pixels) of 65535"),
    "red on black": (two((0, 0, 0), (255, 0, 0)), "the colours #000000 (1100 pixels) and #ff0000 (100 pixels)"),
    "0 and 1 in colours": (two((0, 0, 0), (1, 1, 1)), "and #010101 (100 pixels)"),
    "VOC": (palette(15, {15: (192, 128, 128)}), None),
    "VOC, aeroplane": (palette(1, {1: (128, 0, 0)}), "0 = #000000 (1100 pixels) and 1 = #800000 (100 pixels)"),
}


@pytest.mark.parametrize("name", DARK)
def test_a_mask_without_white_says_what_it_has_and_what_to_type(name: str) -> None:
    image, found = DARK[name]
    if found is None:  # light enough to count as white
        assert not read_mask(image, SIZE).known[HOLE].any()
        return
    with pytest.raises(UsageError) as caught:
        read_mask(image, SIZE)
    sentence = str(caught.value)
    assert found in sentence and "all dark enough to count as black" in sentence and "everywhere" not in sentence
    np.testing.assert_array_equal(as_advised(image, sentence).known, ~HOLE)
    np.testing.assert_array_equal(as_advised(image, sentence, means="keep").known, HOLE)


def as_advised(image: Image.Image, sentence: str, means: str = "repaint") -> object:
    """The mask, read with the options that the sentence says."""
    color, tolerance = re.findall(r'add --mask-color "?([#\w]+)"?(?: --tolerance (\d+))?\.$', sentence)[0]
    return read_mask(image, SIZE, means=means, color=color, tolerance=int(tolerance) if tolerance else None)


def test_a_faint_brush_says_how_faint_and_its_strong_half_is_taken_as_advised() -> None:
    image = soft(102)
    with pytest.raises(
        UsageError, match=r"values from 0 to 102 of 255, all dark .* add --mask-color 102 --tolerance 51"
    ):
        read_mask(image, SIZE)
    known = read_mask(image, SIZE, color=102, tolerance=51).known
    np.testing.assert_array_equal(known, np.asarray(image) < 51)


def test_a_mask_without_black_says_so() -> None:
    with pytest.raises(UsageError, match=r"200 \(1100 pixels\) and 255 \(100 pixels\) of 255, all light enough"):
        read_mask(two(200, 255), SIZE)
    with pytest.raises(UsageError, match="is 200 everywhere; paint what to fill white and the rest black"):
        read_mask(two(200, 200), SIZE)


def test_a_layer_painted_with_a_faint_brush_says_so() -> None:
    layer = two((0, 0, 0, 0), (0, 0, 0, 102))
    with pytest.raises(UsageError, match="opacity reaches 102 of 255, and white starts at 128.*full opacity"):
        read_mask(layer, SIZE)


@pytest.mark.parametrize("alpha", [254, 128, 127, 1, 0])
def test_a_stray_opacity_does_not_turn_the_meaning(alpha: int) -> None:
    values = np.array(two((0, 0, 0, 255), (255, 255, 255, 255)))
    values[0, 0, 3] = values[12, 7, 3] = alpha
    mask = read_mask(Image.fromarray(values), SIZE)
    np.testing.assert_array_equal(mask.known, ~HOLE)
    assert len(mask.warnings) == (alpha < 128)


def test_opacity_counts_in_a_painted_layer_and_a_cut_out_photo() -> None:
    rng = np.random.default_rng(0)
    for colour in (0, 255, rng.integers(0, 256, (30, 40, 3))):
        values = np.empty((30, 40, 4), dtype=np.uint8)
        values[..., :3], values[..., 3] = colour, np.where(HOLE, 255, 0)
        mask = read_mask(Image.fromarray(values), SIZE)
        np.testing.assert_array_equal(mask.known, ~HOLE)
        assert mask.warnings == ()


def test_black_and_white_that_is_transparent_in_part_is_told() -> None:
    values = np.array(two((0, 0, 0, 255), (255, 255, 255, 255)))
    values[:, 30:, 3] = 0
    image = Image.fromarray(values)
    (sentence,) = read_mask(image, SIZE).warnings
    assert "is transparent in 25% of its pixels; what is opaque counts as white" in sentence
    np.testing.assert_array_equal(read_mask(image, SIZE, color="#ffffff").known, ~HOLE)


def drawn_as_jpeg(strength: int, quality: int) -> Image.Image:
    strokes, file = Image.new("L", (160, 120)), io.BytesIO()
    for k in range(12):
        ImageDraw.Draw(strokes).line((10 + 10 * k, 10, 20 + 5 * k, 110), fill=strength, width=5)
    ImageDraw.Draw(strokes).ellipse((120, 60, 150, 110), fill=255)
    strokes.save(file, "JPEG", quality=quality)
    return Image.open(file)


@pytest.mark.parametrize("quality", [95, 98, 100])
def test_the_rings_of_a_clean_jpeg_are_not_worth_a_word(quality: int) -> None:
    image = drawn_as_jpeg(255, quality)
    counts = np.asarray(image.histogram())
    assert counts[1:-1].sum() > 0.01 * counts.sum(), "there are rings"
    for same in (image, Image.fromarray(np.asarray(image))):
        assert read_mask(same, image.size).warnings == ()
    (sentence,) = read_mask(drawn_as_jpeg(140, quality), image.size).warnings
    assert "is grey in" in sentence


@pytest.mark.parametrize("label", [1, 7, 248, 254])
def test_a_label_beside_an_end_is_told(label: int) -> None:
    values = np.where(HOLE, 255, 0).astype(np.uint8)
    values[25:, :20] = label
    (sentence,) = read_mask(Image.fromarray(values), SIZE).warnings
    assert f" {label} (100 pixels)" in sentence


def test_labels_beside_black_and_white_are_told() -> None:
    values = np.where(HOLE, 255, 0).astype(np.uint8)
    values[25:, :20] = 7
    (sentence,) = read_mask(Image.fromarray(values), SIZE).warnings
    assert "has the values 0 (1000 pixels), 7 (100 pixels) and 255 (100 pixels)" in sentence
    coloured = np.array(two((0, 0, 0), (0, 255, 0)))
    coloured[25:, :20] = 255, 0, 0
    (sentence,) = read_mask(Image.fromarray(coloured), SIZE).warnings
    assert "#ff0000 (100 pixels)" in sentence and "the light ones count as white" in sentence


def test_colours_of_a_picture(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 100, (30, 40, 3), dtype=np.uint8)
    values[HOLE] = 250, 255, 0
    values[0, 0] = 219, 255, 36
    picture = read_picture(Image.fromarray(values))
    expected = ~HOLE
    for name in ("#ffff00", "ffff00", "yellow", "#FF0", "rgb(255, 255, 0)"):
        np.testing.assert_array_equal(mask_from_color(picture, name).known, expected)
    wider = mask_from_color(picture, "#ffff00", 36).known
    assert not wider[0, 0] and wider.sum() == expected.sum() - 1
    both = mask_from_color(picture, ["#ffff00", "#dbff24"], 5).known
    np.testing.assert_array_equal(both, wider)


@pytest.mark.parametrize(
    ("color", "tolerance", "sentence"),
    [
        ("#0000ff", None, r"no pixel .* has the colour #0000ff \(tolerance 20\); the nearest is #\w{6}, off by \d+"),
        ("#000000", 255, "every pixel .* has the colour"),
        ("nonsense", None, "'nonsense' is not a colour"),
        ("#ffff0080", None, "'#ffff0080' is not a colour"),
        ("15", None, "has colours and not single values"),
        ("#ffff00", -1, "at least 0, not -1"),
        ([], None, "at least one colour"),
    ],
)
def test_colours_that_cannot_be_used(color: str, tolerance: int | None, sentence: str) -> None:
    values = np.random.default_rng(0).integers(0, 100, (30, 40, 3), dtype=np.uint8)
    values[HOLE] = 250, 255, 0
    with pytest.raises(UsageError, match=sentence):
        mask_from_color(read_picture(Image.fromarray(values)), color, tolerance)


def test_the_numbers_of_a_palette_have_no_tolerance() -> None:
    image = palette(1, {1: (128, 0, 0)})
    with pytest.raises(UsageError, match="has the number 15 of its palette; there are 0 = #000000"):
        read_mask(image, SIZE, color="15")
    with pytest.raises(UsageError, match="numbers of a palette have no tolerance"):
        read_mask(image, SIZE, color="1", tolerance=3)
    np.testing.assert_array_equal(read_mask(image, SIZE, color="#800000").known, ~HOLE)


def test_transparent_pixels_have_no_colour() -> None:
    values = np.zeros((30, 40, 4), dtype=np.uint8)
    values[..., 3], values[HOLE] = 255, (255, 255, 0, 255)
    values[25:] = 255, 255, 0, 0
    np.testing.assert_array_equal(mask_from_color(read_picture(Image.fromarray(values)), "yellow").known, ~HOLE)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16", "RGBA"])
def test_a_difference_is_repainted(mode: str) -> None:
    grey = np.random.default_rng(0).integers(0, 200, (30, 40), dtype=np.uint8)
    marked = np.where(HOLE, grey + 50, grey).astype(np.uint8)
    marked[0, :3] += np.array([20, 21, 1], dtype=np.uint8)

    def image(values: np.ndarray) -> Image.Image:
        if mode == "I;16":
            return Image.fromarray(values.astype(np.uint16) * 257)
        return Image.fromarray(values).convert(mode)

    expected = ~HOLE
    expected[0, 1] = False
    mask = mask_from_difference(read_picture(image(marked)), read_picture(image(grey)))
    np.testing.assert_array_equal(mask.known, expected)
    assert mask.warnings == (
        "2 pixels differ from The picture by 1 to 20 and stay (--tolerance 0 repaints them, too).",
    )
    expected[0, :3] = False
    exact = mask_from_difference(read_picture(image(marked)), read_picture(image(grey)), 0)
    np.testing.assert_array_equal(exact.known, expected)
    assert exact.warnings == ()


def test_differences_in_opacity_count_and_colours_below_it_do_not() -> None:
    first = np.full((30, 40, 4), 255, dtype=np.uint8)
    second = first.copy()
    second[HOLE, 3] = 0
    first[25:, :, 3] = second[25:, :, 3] = 0
    second[25:, :, 0] = 7
    known = mask_from_difference(read_picture(Image.fromarray(first)), read_picture(Image.fromarray(second))).known
    np.testing.assert_array_equal(known, ~HOLE)


def test_differences_that_cannot_be_used() -> None:
    picture = read_picture(Image.new("RGB", SIZE, (9, 9, 9)))
    for other, sentence in (
        (Image.new("RGB", (41, 30)), "is 41x30 but The picture is 40x30; a difference needs"),
        (Image.new("RGB", SIZE, (9, 9, 9)), "differ nowhere at all"),
        (Image.new("RGB", SIZE, (9, 9, 21)), "differ nowhere by more than 12; add --tolerance 11"),
        (Image.new("RGB", SIZE, (99, 9, 9)), "differ everywhere by more than 20; raise --tolerance"),
    ):
        with pytest.raises(UsageError, match=sentence):
            mask_from_difference(picture, read_picture(other))


def eraser(usual: int = 255) -> np.ndarray:
    """The opacity of a picture after a soft eraser: clear in the middle, a rim, opaque elsewhere."""
    rows, columns = np.indices((60, 80))
    distance = np.hypot(rows - 30, columns - 40)
    return (usual * np.clip((distance - 6) / 12, 0, 1)).round().astype(np.uint8)


@pytest.mark.parametrize("usual", [255, 254, 200])
def test_a_soft_eraser_leaves_no_rim(usual: int) -> None:
    alpha = eraser(usual)
    image = Image.new("RGB", (80, 60), "red")
    image.putalpha(Image.fromarray(alpha))
    mask = mask_from_alpha(read_picture(image))
    np.testing.assert_array_equal(mask.known, alpha == usual)
    assert mask.warnings == ()


def test_what_is_half_transparent_elsewhere_stays_and_is_told() -> None:
    alpha = eraser()
    alpha[0, ::2] = 254  # the noise of a lossy format
    alpha[-5:, :10] = 180  # glass
    image = Image.new("RGB", (80, 60), "red")
    image.putalpha(Image.fromarray(alpha))
    mask = mask_from_alpha(read_picture(image))
    np.testing.assert_array_equal(mask.known, eraser() == 255)
    assert mask.warnings == (
        "The picture is half transparent in 90 pixels apart from what is erased, and they stay so.",
    )


def test_a_faint_eraser_says_how_faint() -> None:
    alpha = np.full((30, 40), 255, dtype=np.uint8)
    alpha[HOLE] = 180
    image = Image.new("RGB", SIZE, "red")
    image.putalpha(Image.fromarray(alpha))
    with pytest.raises(UsageError, match=r"has no transparent pixel \(its opacity is 180 of 255 or more\)"):
        mask_from_alpha(read_picture(image))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_mask_beside_a_turned_picture_is_told_and_can_be_turned(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.random.default_rng(0).integers(0, 2, (40, 40), dtype=np.uint8) * 255
    image = Image.fromarray(stored)
    image.info["exif"] = exif.tobytes()
    picture = read_picture(image)
    assert picture.orientation == orientation
    mask = Image.fromarray(stored)
    plain = read_mask(mask, picture.size, orientation=orientation)
    np.testing.assert_array_equal(plain.known, stored == 0)
    (sentence,) = plain.warnings
    assert f"EXIF orientation ({orientation}) and The mask is not" in sentence and "--turn-mask" in sentence
    turned = read_mask(mask, picture.size, orientation=orientation, turn=True)
    np.testing.assert_array_equal(turned.known, np.asarray(picture.image) == 0)
    assert turned.warnings == ()


def test_a_mask_of_the_stored_size_says_how_it_can_be_turned() -> None:
    mask = two(0, 255)
    with pytest.raises(UsageError, match="is 40x30 but the picture is 30x40 upright.*add --turn-mask"):
        read_mask(mask, (30, 40), orientation=6)
    assert read_mask(mask, (30, 40), orientation=6, turn=True).known.shape == (40, 30)
    with pytest.raises(UsageError, match="not turned by an EXIF orientation; leave --turn-mask out"):
        read_mask(mask, SIZE, turn=True)
