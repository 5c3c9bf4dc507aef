"""What a mask file holds: how white its pixels are, which colours it has, and what to type where none is white."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageColor

from priorpaint.errors import UsageError
from priorpaint.imaging.arrays import eight_bits, is_deep, value_type
from priorpaint.imaging.picture import OPAQUE, Picture, opacity_of
from priorpaint.imaging.ranges import view_range

Bools = NDArray[np.bool_]

THRESHOLD = 128
TOLERANCE = 20  # of colours, when none is given: the noise of a JPEG, and nobody's second colour
_BLACK_END, _WHITE_END = 16, 239
_NOTABLE = 0.01  # the part of the pixels from which something is worth a word
_FEW = 16  # a file with more values than this was painted or compressed, not labelled
_LISTED = 6
_CHROMA = 48  # between the channels of a colour that JPEG did not make of grey
_WHITE_16 = 65535


@dataclass(frozen=True, eq=False)
class Whiteness:
    """How white the pixels of a mask are.

    Attributes:
        values: (H, W), uint8, of 255; those from 128 on are white.
        warnings: what the user should hear about, one sentence each.
        opacity: whether the values are its opacity and not its luminance.
    """

    values: NDArray[np.uint8]
    warnings: tuple[str, ...] = ()
    opacity: bool = False


def whiteness(name: str, image: Image.Image) -> Whiteness:
    """Luminance, or opacity (opaque = white, as painting programs export a painted layer) where that says more.

    Opacity counts where it is opaque here and transparent there, and either the opaque pixels have no black and white
    of their own, or at least a hundredth of all pixels is transparent. So a few stray pixels turn nothing round.
    """
    light = _luminance(image)
    alpha = _opacity(image)
    if alpha is None or alpha.min() == alpha.max():
        return Whiteness(light, _coloured(name, image, light))
    solid = alpha >= OPAQUE
    if solid.all():
        return Whiteness(light, _coloured(name, image, light))
    if not solid.any():
        return Whiteness(alpha, opacity=True)
    painted = light[solid]
    if (painted >= THRESHOLD).all() or (painted < THRESHOLD).all():
        return Whiteness(alpha, opacity=True)
    clear = 1 - solid.mean()
    if clear < _NOTABLE:
        stray = f"{name} has black and white, and {np.count_nonzero(~solid)} transparent pixels, which count by colour."
        return Whiteness(light, (stray,))
    if _grey_share(painted) > 0.1:  # a cut-out photo: its colours are no black and white
        return Whiteness(alpha, opacity=True)
    both = (
        f"{name} has black and white and is transparent in {clear:.0%} of its pixels; what is opaque counts as white "
        '(--mask-color "#ffffff" takes the white).'
    )
    return Whiteness(alpha, (both,), opacity=True)


def in_between(name: str, values: NDArray[np.uint8]) -> tuple[str, ...]:
    """What is to be said of values (H, W) that are neither black nor white."""
    grey = _grey_share(values)
    if grey > _NOTABLE:
        soft = f"{name} is grey in {grey:.0%} of its pixels (a soft brush or JPEG?); values from {THRESHOLD} count as"
        return (f"{soft} white.",)
    counts = np.asarray(Image.fromarray(values).histogram())
    levels = np.flatnonzero(counts)
    if len(levels) > _FEW or counts[1:-1].sum() <= _NOTABLE * values.size:
        return ()
    if counts[[1, 254]].all():  # the rings of a clean JPEG are at both ends; labels are somewhere
        return ()
    found = _listed([(str(level), int(counts[level])) for level in levels])
    return (f"{name} has the values {found}; those from {THRESHOLD} count as white (--mask-color takes others).",)


def one_sided(name: str, image: Image.Image, found: Whiteness, *, repaint_white: bool) -> str:
    """The sentence for a mask that is white everywhere or nowhere, with what it holds and what to type."""
    white = bool(found.values.all() and found.values.min() >= THRESHOLD)
    colour, other = ("white", "black") if white else ("black", "white")
    if found.opacity:
        top = int(found.values.max())
        return (
            f"{name} is transparent everywhere (its opacity reaches {top} of 255, and white starts at {THRESHOLD}); "
            "paint with full opacity."
        )
    if found.values.min() == found.values.max() and _pure(image, white):
        if white == repaint_white:
            return f"{name} is {colour} everywhere, so nothing is known; leave what to keep {other}."
        return f"{name} is {colour} everywhere, so there is nothing to repaint; paint what to fill {other}."
    values, counts = stored_values(image)
    named = _labels(image, values)
    kind = "colours" if values.shape[1] == 3 or image.mode == "P" else "values"
    if len(values) == 1:
        verb = "fill" if repaint_white else "keep"
        return f"{name} is {named[0]} everywhere; paint what to {verb} white and the rest black."
    some = f"the {kind} {_listed(list(zip(named, counts.tolist(), strict=True)))}{_scale(image)}"
    if len(values) > _FEW:
        some = f"{len(values)} {kind} from {named[0]} to {named[-1]}{_scale(image)}"
    target, tolerance = _suggestion(image, values, counts)
    option = f'--mask-color "{target}"' if target.startswith("#") else f"--mask-color {target}"
    verb = "repaint" if repaint_white else "keep"
    only = f"all {'light' if white else 'dark'} enough to count as {colour}"
    return f"{name} has {some}, {only}; to {verb} {target}, for example, add {option}{tolerance}."


def stored_values(image: Image.Image) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct values (N, 1 or 3) of an image, in rising order, and how many pixels have each, (N,).

    One channel as it is stored (grey of 8 or 16 bits, an index of a palette), else red, green and blue.
    """
    if image.mode in ("1", "L", "LA", "P") or image.mode.startswith("I;16"):
        values, counts = np.unique(_stored(image), return_counts=True)
        return values[:, None].astype(np.int64), counts.astype(np.int64)
    red, green, blue = (np.asarray(plane, dtype=np.int32) for plane in _rgb(image).split())
    packed, counts = np.unique((red << 16 | green << 8 | blue).ravel(), return_counts=True)
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1).astype(np.int64), counts.astype(np.int64)


def matching(name: str, image: Image.Image, colour: str | int, tolerance: int | None) -> Bools:
    """Where (H, W) an image has a colour, no channel off by more than the tolerance; transparent pixels have none.

    Args:
        name: how messages call it.
        image: upright and loaded.
        colour: "#ffff00" or another name of a colour, or a stored value (of grey or of a palette), such as 15. Colours
            are of 255, and values of more than 8 bits are compared with them as `view_range` says.
        tolerance: in values of 255, or for a stored value in its own; None is 20, or 0 for a stored value.

    Raises:
        UsageError: there is no such colour, or no pixel has it, or every pixel.
    """
    check_tolerance(tolerance)
    text = str(colour).strip()
    number = _number(text, value_type(image).kind)
    planes, wanted = _planes(name, image, text, number, tolerance)
    width = tolerance if tolerance is not None else 0 if number is not None else TOLERANCE
    out: Bools = np.ones((image.height, image.width), dtype=np.bool_)
    for plane, value in zip(planes, wanted, strict=True):
        out &= (plane >= value - width) & (plane <= value + width)
    alpha = _opacity(image)
    if alpha is not None:
        out &= alpha >= OPAQUE
    if value_type(image).kind == "f":
        out &= np.isfinite(np.asarray(image)).reshape(*out.shape, -1).all(axis=2)
    if not out.any():
        raise UsageError(_absent(name, image, text, planes, wanted, width))
    if out.all():
        raise UsageError(f"every pixel of {name} has the colour {text} (tolerance {width}); lower --tolerance.")
    return out


def difference(picture: Picture, other: Picture) -> NDArray[np.uint8]:
    """By how much (H, W) two pictures of one size differ, in the channel or opacity where it is most, of 255.

    Of values with more than 8 bits, which are compared as `view_range` says, a part of 1 is 1; NaN equals NaN alone.
    Where both are transparent, they are the same whatever their colours.
    """
    shape = picture.size[::-1]
    images = picture.image, other.image
    if any(map(is_deep, images)):
        off = _deep_difference(picture, other)
    else:
        off = np.zeros(shape, dtype=np.uint8)
        for one, two in zip(_rgb(picture.image).split(), _rgb(other.image).split(), strict=True):
            np.maximum(off, np.asarray(ImageChops.difference(one, two)), out=off)
    if picture.alpha is None and other.alpha is None:
        return off
    opaque = np.full(shape, 255, dtype=np.int16)
    first, second = (opaque if alpha is None else alpha.astype(np.int16) for alpha in (picture.alpha, other.alpha))
    off[(first == 0) & (second == 0)] = 0
    return np.maximum(off, np.abs(first - second)).astype(np.uint8)


def _deep_difference(picture: Picture, other: Picture) -> NDArray[np.uint8]:
    values = [one.values() for one in (picture, other)]
    alike = values[0].dtype == values[1].dtype
    shown = [view_range(*values)] * 2 if alike else [view_range(one) for one in values]
    first, second = (
        (one.astype(np.float64) - span.low) * (255 / (span.high - span.low))
        for one, span in zip(values, shown, strict=True)
    )
    with np.errstate(invalid="ignore"):  # of infinities
        off = np.abs(first - second)
    off[(first == second) | (np.isnan(first) & np.isnan(second))] = 0
    off[np.isnan(off)] = 255
    out: NDArray[np.uint8] = np.ceil(np.minimum(off.max(axis=2), 255)).astype(np.uint8)
    return out


def _absent(
    name: str, image: Image.Image, text: str, planes: list[NDArray[Any]], wanted: list[float], tolerance: int
) -> str:
    """The sentence for a colour that no pixel has."""
    if image.mode == "P" and len(planes) == 1:
        values, counts = stored_values(image)
        found = _listed(list(zip(_labels(image, values), counts.tolist(), strict=True)))
        return f"no pixel of {name} has the number {text} of its palette; there are {found}."
    pairs = zip(planes, wanted, strict=True)
    off = np.max([np.abs(np.nan_to_num(plane.astype(np.float64)) - value) for plane, value in pairs], axis=0)
    i = np.unravel_index(off.argmin(), off.shape)
    nearest = _name(np.array([plane[i] for plane in planes]))
    return (
        f"no pixel of {name} has the colour {text} (tolerance {tolerance}); the nearest is {nearest}, off by "
        f"{off[i]:.6g}: name that one, or raise --tolerance."
    )


def _number(text: str, kind: str) -> float | None:
    """The stored value that a text names; ``kind`` as NumPy calls that of the values."""
    if text.isdigit() and len(text) < 6:
        return int(text)
    pattern = {"i": r"-\d{1,5}", "f": r"-?\d{1,5}(\.\d*)?"}.get(kind)
    return float(text) if pattern and re.fullmatch(pattern, text) else None


def _planes(
    name: str, image: Image.Image, text: str, number: float | None, tolerance: int | None
) -> tuple[list[NDArray[Any]], list[float]]:
    """Arrays (H, W) to compare, and the value that each is to have."""
    if number is not None:
        if not (image.mode in ("1", "L", "LA", "P") or is_deep(image)) or len(image.getbands()) > 2:
            raise UsageError(f'{name} has colours and not single values; give one such as --mask-color "#ffff00".')
        if image.mode == "P" and tolerance:
            raise UsageError("numbers of a palette have no tolerance; leave it out, or give the colour as #rrggbb.")
        return [_stored(image)], [number]
    code = f"#{text}" if len(text) == 6 and not set(text.lower()) - set("0123456789abcdef") else text
    try:
        red, green, blue, *opacity = ImageColor.getrgb(code)
        if opacity not in ([], [255]):
            raise ValueError("pixels are compared by colour alone")
    except ValueError:
        raise UsageError(
            f'{text!r} is not a colour; give one such as "#ffff00" or yellow, or a stored value such as 15.'
        ) from None
    return [np.asarray(plane) for plane in _rgb(image).split()], [red, green, blue]


def _stored(image: Image.Image) -> NDArray[Any]:
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * 255
    return np.asarray(image.getchannel("L") if image.mode == "LA" else image).reshape(image.height, image.width)


def _rgb(image: Image.Image) -> Image.Image:
    """In 8 bits a channel, the colours of transparent pixels as they are stored."""
    if is_deep(image):
        values = np.asarray(image)
        planes = values.reshape(*values.shape[:2], -1)[..., :3]
        levels = eight_bits(planes, view_range(planes))
        return Image.fromarray(levels[..., 0] if planes.shape[2] == 1 else levels).convert("RGB")
    return (image.convert("RGBA") if image.has_transparency_data else image).convert("RGB")


def _luminance(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
    check_depth(image)
    return np.asarray(_rgb(image).convert("L")).astype(np.uint8)


def _opacity(image: Image.Image) -> NDArray[np.uint8] | None:
    return opacity_of(image.convert("RGBA") if image.mode == "PA" else image)


def check_tolerance(tolerance: Any) -> None:
    if tolerance is not None and not (isinstance(tolerance, Real) and float(tolerance) >= 0):
        raise UsageError(f"a tolerance is at least 0, not {tolerance!r}.")


def check_depth(image: Image.Image) -> None:
    if image.mode in ("I", "F"):
        raise UsageError(f"The mask is in mode {image.mode}; save it as an 8-bit black and white picture.")


def _grey_share(values: NDArray[np.uint8]) -> float:
    return float(np.count_nonzero((values >= _BLACK_END) & (values <= _WHITE_END)) / values.size)


def _coloured(name: str, image: Image.Image, light: NDArray[np.uint8]) -> tuple[str, ...]:
    """What is to be said of a mask of several colours, some of which count as white and some as black."""
    if image.mode in ("1", "L", "LA") or image.mode.startswith("I;16"):
        return ()
    white = light >= THRESHOLD
    if white.all() or not white.any():  # which is refused, with all that is there
        return ()
    red, green, blue = (np.asarray(plane) for plane in _rgb(image).split())
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    share = float((high - low > _CHROMA).mean())
    if share <= _NOTABLE:
        return ()
    values, counts = stored_values(image)
    lot = list(zip(_labels(image, values), counts.tolist(), strict=True))
    some = f"has the colours {_listed(lot)}" if len(values) <= _FEW else f"is coloured in {share:.0%} of its pixels"
    return (f"{name} {some}; the light ones count as white (--mask-color takes the one that you name).",)


def _pure(image: Image.Image, white: bool) -> bool:
    values, _ = stored_values(image)
    if image.mode == "P":
        values = np.asarray(_rgb(image).getpixel((0, 0)))[None]
    top = _WHITE_16 if image.mode.startswith("I;16") else 255
    return bool((values == (top if white else 0)).all())


def _name(value: NDArray[Any]) -> str:
    """As `matching` takes it: a stored value, or #rrggbb."""
    if len(value) == 3:
        return "#" + "".join(f"{int(part):02x}" for part in value)
    return f"{value[0]:.6g}" if value.dtype.kind == "f" else str(int(value[0]))


def _labels(image: Image.Image, values: NDArray[np.int64]) -> list[str]:
    """The values, as messages list them: numbers of a palette with their colours."""
    if image.mode != "P":
        return [_name(value) for value in values]
    strip = image.crop((0, 0, len(values), 1))
    strip.frombytes(values.astype(np.uint8).tobytes())
    colours = np.asarray(_rgb(strip))[0]
    return [f"{value[0]} = {_name(colour)}" for value, colour in zip(values, colours, strict=True)]


def _scale(image: Image.Image) -> str:
    return " of 65535" if image.mode.startswith("I;16") else " of 255" if image.mode in ("1", "L", "LA") else ""


def _listed(named: list[tuple[str, int]]) -> str:
    """The commonest first, each with how many pixels have it."""
    ordered = sorted(named, key=lambda one: -one[1])
    parts = [f"{text} ({count} pixel{'s' * (count != 1)})" for text, count in ordered[:_LISTED]]
    if len(ordered) > _LISTED:
        parts.append(f"{len(ordered) - _LISTED} more")
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def _suggestion(image: Image.Image, values: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[str, str]:
    """The value that differs most from the commonest one, as the option names it, and the option for its tolerance."""
    off = np.abs(values - values[counts.argmax()]).max(axis=1)
    if image.mode == "P":  # numbers say nothing about likeness; the rarest was painted
        off = -counts
    i = int(off.argmax())
    target = _name(values[i])
    if image.mode == "P":
        return target, ""
    others = np.abs(np.delete(values, i, axis=0) - values[i]).max(axis=1).min()
    if len(values) <= _FEW:
        return target, " --tolerance 0" if target.startswith("#") and others <= TOLERANCE else ""
    return target, f" --tolerance {off[i] // 2}"
