"""Shapes of masks with their parameters: what is known of a picture, drawn from a seed. `mask_kinds` names them.

Every generator returns a bool array (H, W) that is True where a pixel is KNOWN. ``size`` is (height, width), or one
number for a square; ``seed`` is an int, and the same seed always gives the same mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..errors import UsageError

Mask = NDArray[np.bool_]
Size = int | tuple[int, int]

_TRIES = 20_000
_ROTATION_MARGIN = 100
_RESTARTS = 8
_HOLE_GAP = 2
_BRUSH_SIDE = 256  # of the pictures for which the published widths of brush strokes are meant
_WORDS = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna "
    "aliqua enim ad minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea commodo consequat"
).split()


def height_and_width(size: Size) -> tuple[int, int]:
    """(height, width) of a size.

    Raises:
        UsageError: a side is below 1.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise UsageError(f"a size is (height, width) in pixels, both at least 1, not {size}")
    return height, width


def strokes(size: Size, seed: int, fraction: tuple[float, float] = (0.05, 0.10)) -> Mask:
    """Scratches and lines of writing: thin polylines and rows of glyph-like marks are missing.

    Lines are 1 px wide up to 150 px on the short side, 2-4 px at 256, and grow with the picture.

    Args:
        fraction: the missing fraction lies in this range.

    Raises:
        UsageError: the range is not inside (0, 1), or too narrow for one stroke of this size.
    """
    height, width = height_and_width(size)
    low, high = _range(fraction)
    rng = np.random.default_rng(seed)
    target = rng.uniform(low, low + 0.8 * (high - low))  # short of high, so that the last stroke has room
    missing = np.zeros((height, width), dtype=bool)
    for _ in range(_TRIES):
        if _fraction(missing) >= target:
            return ~missing
        draw = _scratch if rng.random() < 0.4 else _writing
        for piece in draw(height, width, rng):
            grown = missing | piece
            if _fraction(grown) <= high:
                missing = grown
            if _fraction(missing) >= target:
                break
    raise UsageError(f"no strokes fill {low:.1%} to {high:.1%} of {height} x {width} pixels; widen the fraction")


def holes(
    size: Size, seed: int, fraction: tuple[float, float] = (0.10, 0.20), side: tuple[int, int] = (16, 32)
) -> Mask:
    """Square holes that do not touch each other.

    Args:
        fraction: the missing fraction lies in this range.
        side: shortest and longest side in pixels, both included.

    Raises:
        UsageError: the holes do not fit, or a range is not one.
    """
    height, width = height_and_width(size)
    low, high = _range(fraction)
    shortest, longest = side[0], min(side[1], height, width)
    if not 1 <= shortest <= longest:
        raise UsageError(f"holes with sides {side[0]} to {side[1]} do not fit into {height} x {width} pixels")
    rng = np.random.default_rng(seed)
    target = rng.uniform(low, low + 0.8 * (high - low))
    for _ in range(_RESTARTS):
        missing = _scattered(height, width, target, high, (shortest, longest), rng)
        if _fraction(missing) >= low:
            return ~missing
    raise UsageError(
        f"holes with sides {shortest} to {longest} do not fill {low:.1%} to {high:.1%} of {height} x {width} pixels; "
        "use smaller holes or a wider fraction"
    )


def _scattered(
    height: int, width: int, target: float, most: float, side: tuple[int, int], rng: np.random.Generator
) -> Mask:
    """Squares thrown at random and kept where they fit, until ``target`` is hidden or luck runs out."""
    missing = np.zeros((height, width), dtype=bool)
    hidden = 0
    for _ in range(500 + 5 * round(most * missing.size / side[0] ** 2)):
        edge = int(rng.integers(side[0], side[1] + 1))
        top = int(rng.integers(0, height - edge + 1))
        left = int(rng.integers(0, width - edge + 1))
        rows = slice(max(top - _HOLE_GAP, 0), top + edge + _HOLE_GAP)
        columns = slice(max(left - _HOLE_GAP, 0), left + edge + _HOLE_GAP)
        if missing[rows, columns].any() or hidden + edge**2 > most * missing.size:
            continue
        missing[top : top + edge, left : left + edge] = True
        hidden += edge**2
        if hidden >= target * missing.size:
            break
    return missing


def box(size: Size, side: int | tuple[int, int] = 64, seed: int | None = None) -> Mask:
    """One rectangle is missing: in the middle, or at a random place inside where a seed is given.

    Args:
        side: (height, width) of the hole, or one number.
        seed: of the place; None is the middle.

    Raises:
        UsageError: the hole is larger than the picture.
    """
    height, width = height_and_width(size)
    tall, wide = height_and_width(side)
    if tall > height or wide > width:
        raise UsageError(f"a hole of {tall} x {wide} pixels does not fit into {height} x {width}")
    if seed is None:
        top, left = (height - tall) // 2, (width - wide) // 2
    else:
        rng = np.random.default_rng(seed)
        top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
    known = np.ones((height, width), dtype=bool)
    known[top : top + tall, left : left + wide] = False
    return known


def random_pixels(size: Size, seed: int, missing: float) -> Mask:
    """Exactly round(missing * H * W) pixels are missing, each set of them equally likely.

    Raises:
        UsageError: ``missing`` is not in [0, 1].
    """
    height, width = height_and_width(size)
    if not 0 <= missing <= 1:
        raise UsageError(f"missing is a fraction in [0, 1], not {missing}")
    known = np.ones(height * width, dtype=bool)
    known[np.random.default_rng(seed).permutation(known.size)[: round(missing * known.size)]] = False
    return known.reshape(height, width)


def half(size: Size, side: str = "left") -> Mask:
    """One half is missing.

    Args:
        side: the missing half: left, right, top or bottom; of an odd length the smaller part.

    Raises:
        UsageError: another ``side``.
    """
    height, width = height_and_width(size)
    known = np.ones((height, width), dtype=bool)
    everything = slice(None)
    regions: dict[str, tuple[slice, slice]] = {
        "left": (everything, slice(width // 2)),
        "right": (everything, slice(width - width // 2, None)),
        "top": (slice(height // 2), everything),
        "bottom": (slice(height - height // 2, None), everything),
    }
    if side not in regions:
        raise UsageError(f"side is one of {', '.join(regions)}, not {side!r}")
    known[regions[side]] = False
    return known


def rotated_window(size: Size, seed: int) -> Mask:
    """A half plane through the middle at a random whole angle is missing (VIPaint, "rotated window").

    A canvas 100 px larger than the picture, known above and missing below, is turned by U{0..359} degrees (nearest
    neighbour, missing outside) and its middle is cut out. Oblong sizes use a square canvas of the long side. Above
    241 px the corners of some angles lie outside the canvas and are missing too, as in the published masks.

    Source: Agarwal et al., "VIPaint: Image Inpainting with Pre-Trained Diffusion Models via Variational Inference"
    (2024), section 5.1 and its published generator.
    """
    height, width = height_and_width(size)
    canvas_side = max(height, width) + _ROTATION_MARGIN
    canvas = np.zeros((canvas_side, canvas_side), dtype=np.uint8)
    canvas[: canvas_side // 2] = 255
    angle = int(np.random.default_rng(seed).integers(0, 360))
    turned = np.asarray(Image.fromarray(canvas).rotate(angle, Image.Resampling.NEAREST, fillcolor=0))
    top, left = (canvas_side - height) // 2, (canvas_side - width) // 2
    return np.ascontiguousarray(turned[top : top + height, left : left + width] > 127)


def random_boxes(size: Size, seed: int, hole_range: tuple[float, float]) -> Mask:
    """A random number of random boxes is missing, some hanging over the border (Co-Mod-GAN without brush strokes).

    With c = min(a + b, 1): U{0..int(10c)-1} boxes with sides U{0..s/2-1}, then U{0..int(5c)-1} boxes with sides
    U{0..s-1}; redrawn until the missing fraction lies strictly inside (a, b). Published choices: (0.4, 0.8) for
    "random", (0.2, 0.21) for "small".

    Source: Zhao et al., "Large Scale Image Completion via Co-Modulated Generative Adversarial Networks" (2021), as
    used by Agarwal et al., "VIPaint" (2024).

    Raises:
        UsageError: the range is not inside [0, 1], or no draw falls into it.
    """
    return _redrawn("boxes", size, seed, hole_range, _hide_boxes)


def brush_strokes(size: Size, seed: int, hole_range: tuple[float, float]) -> Mask:
    """A random number of wide zigzag strokes is missing (Co-Mod-GAN without boxes).

    With c = min(a + b, 1): U{0..int(20c)-1} strokes of 4 to 17 legs, which are N(r, r/2) long, within [0, 2r],
    with r an eighth of the diagonal, and turn by 2 pi / 5 +- 2 pi / 15; each stroke is 12 to 47 pixels wide at a short
    side of 256, and in proportion at other sizes (the published program keeps its pixels at any size). Redrawn until
    the missing fraction lies strictly inside (a, b).

    Source: as for `random_boxes`.

    Raises:
        UsageError: the range is not inside [0, 1], or no draw falls into it.
    """
    return _redrawn("strokes", size, seed, hole_range, _hide_strokes)


def boxes_and_strokes(size: Size, seed: int, hole_range: tuple[float, float]) -> Mask:
    """`random_boxes` and `brush_strokes` together, redrawn until their union lies strictly inside (a, b).

    This is Co-Mod-GAN's mask, and that of VIPaint's experiments: (0.4, 0.8) for "random", (0.2, 0.21) for "small".

    Source: as for `random_boxes`.

    Raises:
        UsageError: the range is not inside [0, 1], or no draw falls into it.
    """
    return _redrawn("boxes and strokes", size, seed, hole_range, _hide_boxes, _hide_strokes)


def text(size: Size, seed: int) -> Mask:
    """Lines of printed words cover the picture, in the font that Pillow carries.

    Letters are between an eighth and a fifth of the short side tall, at least 8 pixels; words, height and where lines
    begin come from the seed.
    """
    height, width = height_and_width(size)
    rng = np.random.default_rng(seed)
    tall = max(8.0, float(rng.uniform(1 / 8, 1 / 5)) * min(height, width))
    font = ImageFont.load_default(size=tall)
    page = Image.new("1", (width, height))
    pen = ImageDraw.Draw(page)
    top = float(rng.uniform(-0.5, 0.1)) * tall
    while top < height:
        left = -float(rng.uniform(0, 2)) * tall
        while left < width:
            word = _WORDS[int(rng.integers(len(_WORDS)))]
            pen.text((left, top), word, fill=1, font=font, stroke_width=tall / 40)
            left += font.getlength(word + " ")
        top += 1.15 * tall
    return ~np.array(page, dtype=bool)


def _redrawn(
    what: str,
    size: Size,
    seed: int,
    hole_range: tuple[float, float],
    *hiders: Callable[[Mask, float, np.random.Generator], None],
) -> Mask:
    """What all hiders leave, drawn again until the missing fraction lies strictly inside ``hole_range`` = (a, b).

    Hiders get c = min(a + b, 1), by which Co-Mod-GAN decides how much to hide.
    """
    height, width = height_and_width(size)
    low, high = hole_range
    if not 0 <= low < high <= 1:
        raise UsageError(f"hole_range is (a, b) with 0 <= a < b <= 1, not {hole_range}")
    rng = np.random.default_rng(seed)
    for _ in range(_TRIES):
        known = np.ones((height, width), dtype=bool)
        for hide in hiders:
            hide(known, min(low + high, 1.0), rng)
            if _fraction(~known) >= high:  # the others hide only more
                break
        if low < _fraction(~known) < high:
            return known
    raise UsageError(f"no random {what} fill {low:.1%} to {high:.1%} of {height} x {width} pixels; widen hole_range")


def _hide_boxes(known: Mask, c: float, rng: np.random.Generator) -> None:
    """Co-Mod-GAN's boxes, up to half of each over the border: int(10c) - 1 of half the sides, int(5c) - 1 of all."""
    height, width = known.shape
    for most, divisor in ((int(10 * c), 2), (int(5 * c), 1)):
        for _ in range(int(rng.integers(most)) if most else 0):
            wide, tall = (int(rng.integers(max(side // divisor, 1))) for side in (width, height))
            left = int(rng.integers(-(wide // 2), width - wide + wide // 2))
            top = int(rng.integers(-(tall // 2), height - tall + tall // 2))
            known[max(top, 0) : max(top + tall, 0), max(left, 0) : max(left + wide, 0)] = False


def _hide_strokes(known: Mask, c: float, rng: np.random.Generator) -> None:
    """Co-Mod-GAN's brush, int(20c) - 1 strokes at most."""
    height, width = known.shape
    radius, scale = math.hypot(height, width) / 8, min(height, width) / _BRUSH_SIDE
    page = Image.new("1", (width, height))
    pen = ImageDraw.Draw(page)
    most = int(20 * c)
    for _ in range(int(rng.integers(most)) if most else 0):
        count = int(rng.integers(4, 18))
        spread = rng.uniform(0, 2 * math.pi / 15, 2)
        angles = rng.uniform(2 * math.pi / 5 - spread[0], 2 * math.pi / 5 + spread[1], count)
        angles[::2] *= -1  # legs go up and down in turn
        lengths = np.clip(rng.normal(radius, radius / 2, count), 0, 2 * radius)
        corner = rng.uniform((0, 0), (width, height))
        corners = [tuple(corner)]
        for length, angle in zip(lengths, angles, strict=True):
            corner = np.clip(corner + length * np.array((math.cos(angle), math.sin(angle))), 0, (width, height))
            corners.append(tuple(corner))
        thick = max(1, round(scale * int(rng.uniform(12, 48))))
        pen.line(corners, fill=1, width=thick)
        for x, y in corners:
            pen.ellipse((x - thick // 2, y - thick // 2, x + thick // 2, y + thick // 2), fill=1)
    flips = tuple(slice(None, None, int(step)) for step in rng.choice((-1, 1), 2))
    known &= ~np.array(page, dtype=bool)[flips]


def _line_width(height: int, width: int, rng: np.random.Generator) -> int:
    thickest = max(1, round(min(height, width) / 64))
    return int(rng.integers(max(1, thickest // 2), thickest + 1))


def _scratch(height: int, width: int, rng: np.random.Generator) -> list[Mask]:
    """One polyline that wanders across the picture, as the pieces between its corners."""
    thick = _line_width(height, width, rng)
    step = 0.15 * math.hypot(height, width)
    point = rng.uniform((0, 0), (width, height))
    angle = rng.uniform(0, 2 * math.pi)
    pieces = []
    for _ in range(int(rng.integers(3, 8))):
        angle += rng.normal(0, 0.5)
        end = point + rng.uniform(0.5, 1.0) * step * np.array((math.cos(angle), math.sin(angle)))
        pieces.append(_drawn(height, width, [(*point, *end)], thick))
        point = end
    return pieces


def _writing(height: int, width: int, rng: np.random.Generator) -> list[Mask]:
    """One line of up to 12 marks, each three or four joined strokes on a 3 x 4 grid, as one piece a mark."""
    thick = _line_width(height, width, rng)
    tall = rng.uniform(0.05, 0.09) * min(height, width)
    cell = tall / 3
    x, y = rng.uniform(0, 0.7 * width), rng.uniform(0, height - tall)
    pieces = []
    for _ in range(int(rng.integers(4, 13))):
        corners = rng.integers((0, 0), (3, 4), size=(int(rng.integers(4, 6)), 2)) * cell + (x, y)
        lines = [(*start, *end) for start, end in zip(corners[:-1], corners[1:], strict=True)]
        pieces.append(_drawn(height, width, lines, thick))
        x += 3 * cell
        if x > width:
            break
    return pieces


def _drawn(height: int, width: int, lines: list[tuple[float, ...]], thick: int) -> Mask:
    picture = Image.new("1", (width, height))
    pen = ImageDraw.Draw(picture)
    for line in lines:
        pen.line(line, fill=1, width=thick)
    return np.array(picture, dtype=bool)


def _fraction(missing: Mask) -> float:
    return np.count_nonzero(missing) / missing.size


def _range(fraction: tuple[float, float]) -> tuple[float, float]:
    low, high = fraction
    if not 0 < low < high < 1:
        raise UsageError(f"fraction is (low, high) with 0 < low < high < 1, not {fraction}")
    return low, high
