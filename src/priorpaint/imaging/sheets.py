"""Pictures for the eye: the uncertainty as colours, the hole as a tint, and a labelled sheet of everything."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from priorpaint.errors import UsageError
from priorpaint.imaging.arrays import DEEP, eight_bits, range_of

# Dark blue over purple and orange to pale yellow. The anchors sit at positions in proportion to their lightness, so
# that equal steps of the value look like equal steps of brightness, on grey prints and to colour-blind eyes too.
_ANCHORS = np.array(
    [
        (6, 8, 36),
        (38, 22, 88),
        (88, 28, 122),
        (142, 40, 124),
        (198, 60, 104),
        (240, 104, 78),
        (252, 168, 92),
        (255, 242, 190),
    ]
)
_TINT = np.array((255, 45, 110))
_PAPER = (250, 250, 248)
_INK = (38, 38, 42)
_MARGIN = 20
_LABEL = 26
_LINE = 20
_LETTERS = 16
_SMALLEST_CELL = 160
_LARGEST_CELL = 512
_WIDEST = 2200
_MOST = 60
_MOST_SCALE = 4_000_000  # pixels that a scale may add to a picture that has fewer
_BLANK = (214, 214, 214)
_NO_UNCERTAINTY = "no uncertainty: one sample\nhas nothing to differ from;\ntake 2 samples or more"


def colour_map(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours (..., 3) for values in [0, 1]; lightness (CIE L*) rises evenly with the value."""
    lightness = _lightness(_ANCHORS)
    positions = (lightness - lightness[0]) / (lightness[-1] - lightness[0])
    channels = [np.interp(values, positions, _ANCHORS[:, channel]) for channel in range(3)]
    colours: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def uncertainty_picture(
    std: NDArray[np.floating],
    known: NDArray[np.bool_],
    *,
    background: Image.Image | None = None,
) -> Image.Image:
    """The standard deviation between completions as colours in the hole, with a scale below.

    The brightest colour is a round number at or above the 99.5th percentile in the hole. Where the picture is small, it
    is enlarged by a whole factor. A long strip has no scale, which would make it many times as large.

    Args:
        std: (H, W), in units of pixel values on the scale [-1, 1], at least 0.
        known: (H, W), bool; known pixels show the background, dimmed, or plain grey.
        background: the input, of the same size.

    Raises:
        UsageError: the shapes differ, or values in the hole are negative or not finite.
    """
    if std.shape != known.shape:
        raise UsageError(f"The uncertainty is {std.shape} but the mask is {known.shape}; they must be equal.")
    inside = std[~known]
    if not np.isfinite(inside).all() or (inside < 0).any():
        raise UsageError("A standard deviation must be finite and at least 0; this one is not.")
    top = _round_up(float(np.percentile(inside, 99.5)) if inside.size else 0.0)
    pixels = _dimmed(background, known.shape)
    pixels[~known] = colour_map(np.clip(inside / top, 0, 1))
    return _with_legend(Image.fromarray(pixels), top)


def hole_overlay(
    image: Image.Image, known: NDArray[np.bool_], weight: NDArray[np.float32] | None = None
) -> Image.Image:
    """The picture as RGB with its hole (known is False) tinted, so that the mask and what it hides both show.

    Where there is a weight (H, W) from 0 to 1, the tint is as strong as that.
    """
    pixels = np.array(shown(image))
    share = 0.7 if weight is None else 0.7 * weight[~known][:, None]
    pixels[~known] = np.rint((1 - share) * pixels[~known] + share * _TINT).astype(np.uint8)
    return Image.fromarray(pixels)


def shown(image: Image.Image) -> Image.Image:
    """The picture as 8-bit RGB, with what is transparent over a checkerboard."""
    if image.mode in DEEP:
        return Image.fromarray(eight_bits(np.asarray(image), range_of(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rows, columns = np.indices((image.height, image.width), dtype=np.int32) // 8
    board = np.where((rows + columns) % 2 == 0, 235, 205).astype(np.uint8)
    paper = Image.fromarray(board).convert("RGBA")
    return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")


def contact_sheet(
    original: Image.Image,
    known: NDArray[np.bool_],
    completions: Sequence[Image.Image],
    *,
    mean: Image.Image,
    uncertainty: Image.Image | None,
) -> Image.Image:
    """A labelled grid: the input with its hole tinted, the completions (the first 60), the mean and the uncertainty.

    No picture is shown larger than 512 pixels, and small ones are enlarged by a whole factor; the sheet is at most 2200
    pixels wide, or one picture.

    Args:
        original: the input.
        known: (H, W), bool, False in the hole.
        completions: pictures of the input's size.
        mean: the mean of the completions.
        uncertainty: from `uncertainty_picture`; None for one completion, which says nothing about it.
    """
    pictures = [("input" if known.all() else "input, hole tinted", hole_overlay(original, known))]
    pictures += [(f"sample {k + 1}", image) for k, image in enumerate(completions[:_MOST])]
    if len(completions) > _MOST:
        name, last = pictures[-1]
        pictures[-1] = (f"{name}\n(and {len(completions) - _MOST} more)", last)
    blank = (_NO_UNCERTAINTY, Image.new("RGB", original.size, _BLANK))
    pictures += [("mean", mean), blank if uncertainty is None else ("uncertainty", uncertainty)]
    scale = _cell_scale(original.size)
    return labelled_grid([(name, _fit(image, original.width, scale)) for name, image in pictures])


def thumbnail(image: Image.Image, longest: int) -> Image.Image:
    """The picture as RGB with a long side of at most ``longest`` pixels; small ones are enlarged by a whole factor."""
    longer = max(image.size)
    return _fit(image, image.width, longest / longer if longer > longest else float(longest // longer))


def labelled_grid(cells: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures in rows of equal columns, each with its label above, the rows as even as they get.

    At most 2200 pixels wide, or one picture.
    """
    font = ImageFont.load_default(size=_LETTERS)
    column = max(max(image.width, *_line_widths(name, font)) for name, image in cells)
    most = max(1, (_WIDEST - _MARGIN) // (column + _MARGIN))
    columns = math.ceil(len(cells) / math.ceil(len(cells) / most))
    return labelled_rows([cells[start : start + columns] for start in range(0, len(cells), columns)])


def labelled_rows(rows: Sequence[Sequence[tuple[str, Image.Image]]]) -> Image.Image:
    """Rows of RGB pictures in equal columns, each with its label, of one line or several, above it."""
    font = ImageFont.load_default(size=_LETTERS)
    column = max(max(image.width, *_line_widths(name, font)) for row in rows for name, image in row)
    tops = [_LABEL + _LINE * max(name.count("\n") for name, _ in row) for row in rows]
    heights = [top + max(image.height for _, image in row) for top, row in zip(tops, rows, strict=True)]
    size = (_MARGIN + max(map(len, rows)) * (column + _MARGIN), _MARGIN + sum(heights) + len(rows) * _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    draw, upper = ImageDraw.Draw(sheet), _MARGIN
    for row, top, height in zip(rows, tops, heights, strict=True):
        for index, (name, image) in enumerate(row):
            left = _MARGIN + index * (column + _MARGIN)
            draw.multiline_text((left, upper), name, fill=_INK, font=font, spacing=_LINE - _LETTERS)
            sheet.paste(image, (left, upper + top))
        upper += height + _MARGIN
    return sheet


def _line_widths(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[int]:
    return [math.ceil(font.getlength(line)) for line in label.split("\n")]


def _lightness(rgb: NDArray[np.integer]) -> NDArray[np.float64]:
    """CIE L* (0 to 100) of sRGB colours (..., 3) from 0 to 255."""
    value = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    dark = luminance <= 216 / 24389
    lightness: NDArray[np.float64] = np.where(dark, luminance * 24389 / 27, 116 * np.cbrt(luminance) - 16)
    return lightness


def _round_up(value: float) -> float:
    """The next of 1, 2, 3, 4, 5, 6, 8, 10 times a power of ten, so that the scale has short numbers."""
    if value <= 0:
        return 0.01
    unit = 10.0 ** math.floor(math.log10(value))
    step = next(step for step in (1, 2, 3, 4, 5, 6, 8, 10, 20) if step * unit >= value * (1 - 1e-9))
    return float(f"{step * unit:.6g}")


def _dimmed(background: Image.Image | None, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A pale grey version (H, W, 3) of the background: its dark tones lifted, to stand apart from the colours."""
    if background is None:
        return np.full((*shape, 3), _BLANK, dtype=np.uint8)
    if (background.height, background.width) != shape:
        raise UsageError(f"The background is {background.width}x{background.height}, unlike the uncertainty {shape}.")
    table = np.rint(165 + 0.32 * np.arange(256)).astype(np.uint8)
    return np.array(shown(background).convert("L").point(table.tolist()).convert("RGB"))


def _with_legend(picture: Image.Image, top: float) -> Image.Image:
    """The picture with a scale below, whose letters grow with the picture so that they survive a reduction.

    Alone where that would add more than `_MOST_SCALE` pixels, and more than it has.
    """
    factor = max(1, round(_cell_scale(picture.size)))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    unit = max(1.0, min(picture.width, 8 * picture.height) / 420)  # not with the length of a strip
    font = ImageFont.load_default(size=13 * unit)
    pad, bar = round(8 * unit), round(12 * unit)
    caption = "standard deviation (values from -1 to 1)"
    text_height = round(18 * unit)
    width = max(picture.width, math.ceil(font.getlength(caption)) + 2 * pad)
    height = picture.height + 3 * pad + bar + 2 * text_height
    own = picture.width * picture.height
    if width * height - own > max(own, _MOST_SCALE):
        return picture
    canvas = Image.new("RGB", (width, height), _PAPER)
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    length = min(width - 2 * pad, round(400 * unit))
    left, upper = (width - length) // 2, picture.height + pad
    ramp = colour_map(np.linspace(0, 1, length))
    canvas.paste(Image.fromarray(np.repeat(ramp[None], bar, axis=0)), (left, upper))
    draw = ImageDraw.Draw(canvas)
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        where = (left + share * length, upper + bar + pad // 2)
        draw.text(where, f"{share * top:.3g}", fill=_INK, font=font, anchor=anchor)
    draw.text((width / 2, upper + bar + pad // 2 + text_height), caption, fill=_INK, font=font, anchor="ma")
    return canvas


def _cell_scale(size: tuple[int, int]) -> float:
    longest = max(size)
    if longest > _LARGEST_CELL:
        return _LARGEST_CELL / longest
    return float(max(1, min(_LARGEST_CELL // longest, math.ceil(_SMALLEST_CELL / min(size)))))


def _fit(image: Image.Image, width: int, scale: float) -> Image.Image:
    """The picture at `scale`; an uncertainty picture that was enlarged for its legend already stays as it is."""
    rgb = shown(image)
    if scale == 1 or (scale > 1 and rgb.width > width):
        return rgb
    size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
    if scale > 1:
        return rgb.resize(size, Image.Resampling.NEAREST)
    return rgb.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)  # by boxes first: far faster on large pictures
