"""What a picture file says besides its pixels: read, made true of the upright picture, written where a format can."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

# What a file can say, as the fields of `Picture` and (the resolution) the info of its image; how messages call it.
NAMES = {
    "icc": "ICC profile",
    "exif": "EXIF block",
    "xmp": "XMP packet",
    "comment": "comment",
    "texts": "PNG texts",
    "dpi": "resolution",
}
TAGS = "tags"  # in `Image.info`: the tags of a TIFF that Pillow did not open
CICP = "cicp"  # in `Image.info`: a PNG has such a chunk, of which Pillow says nothing
COMMENT = "Comment"  # the keyword of a PNG text that is what JPEG calls its comment
_ORIENTATION, _EXIF_TABLE, _GPS_TABLE, _XMP_TAG = 274, 34665, 34853, 700
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _INCH, _CENTIMETRE = 282, 283, 296, 2, 3
_PIXEL_X, _PIXEL_Y = 40962, 40963
_IPTC, _IPTC_RESOURCE = "IPTC data", 0x0404
# Tags of a TIFF that no result has, by what they hold.
_LEFT_OUT = {
    _IPTC: (33723, 34377),
    "georeference (GeoTIFF)": (33550, 33922, 34264, 34735),
    "no-data value (GDAL)": (42113,),
    "metadata of GDAL": (42112,),
    "metadata of ImageJ": (50838, 50839),
}
_COLOURS = "description of the colours (gAMA, cHRM or cICP)"
_SRGB_GAMMA, _SRGB_CHROMATICITY = 1 / 2.2, (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
# The table of an EXIF block is that of a TIFF, where the same tags say how the pixels are laid out; phones write some
# of those too. Only tags of this list, the description, may travel: a TIFF would take the others for its own layout.
_DESCRIPTION = {269, 270, 271, 272, 282, 283, 285, 296, 305, 306, 315, 316, 18246, 18249, 33432, _EXIF_TABLE,
                _GPS_TABLE, *range(40091, 40096)}  # fmt: skip
INNER_TABLES = {_EXIF_TABLE, _GPS_TABLE}
_IMAGE_DESCRIPTION = 270
# What programs for microscopes write there about pages, channels and axes, of which a result has others; and tifffile
# about the shape, which every file says anyhow.
_LAYOUT_TEXT = re.compile(r"ImageJ=|.{0,2000}<(\w+:)?OME\b", re.DOTALL)
_SHAPE_TEXT = re.compile(r'\{"shape": ')
# Pillow's warning where a table ends without the place of the next one, for want of which no tag is lost.
_NO_NEXT_TABLE = re.compile("Corrupt EXIF data. +Expecting to read 4 bytes ")
# Other programs' EXIF and XMP in disguise, which would bring the old orientation back.
_RAW_PROFILE = "Raw profile type"
# Pillow, and with it this package, opens no PNG whose profile is larger.
_LARGEST_PNG_PROFILE = 2**20


def read(image: Image.Image, name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a loaded image says, as fields of `Picture`, without its orientation; and complaints, one sentence each."""
    exif, complaints = _exif_block(image, name)
    if "dpi" in image.info and resolution(image.info) is None:
        complaints += (f"The resolution of {name} is not a number and will not be in the results.",)
    complaints += tuple(f"The {words} of {name} will not be in the results." for words in _left_out(image))
    fields = {
        "icc": image.info.get("icc_profile") or None,
        "exif": exif,
        "xmp": _upright_xmp(image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")),
        "comment": _as_bytes(image.info.get("comment")) if image.format in ("JPEG", "MPO") else None,
        "texts": _texts(image),
    }
    return fields, complaints


def of_tiff(data: bytes, offset: int) -> dict[str, Any]:
    """What the page of a TIFF whose table of tags is at ``offset`` says, as Pillow gives it in the info of an image.

    Raises:
        Exception: of any kind, where it is damaged.
    """
    table = Image.Exif()
    table.endian = "<" if data.startswith(b"II") else ">"
    table.bigtiff = 43 in data[2:4]
    table.load_from_fp(io.BytesIO(data), offset)
    info: dict[str, Any] = {"xmp": table.get(_XMP_TAG), TAGS: frozenset(table)}
    per_inch = {_INCH: 1, _CENTIMETRE: 2.54}.get(table.get(_RESOLUTION_UNIT, _INCH))
    if per_inch and _X_RESOLUTION in table and _Y_RESOLUTION in table:
        info["dpi"] = tuple(table[tag] * per_inch for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    exif = Image.Exif()
    exif.update({tag: table.get_ifd(tag) if tag in INNER_TABLES else table[tag] for tag in _DESCRIPTION & set(table)})
    return info | ({"exif": exif.tobytes()} if len(exif) else {})


def unreadable(name: str, why: object, *, part: bool = False) -> str:
    """The sentence about an EXIF block that is broken, in part or as a whole."""
    return (
        f"{'Some of the' if part else 'The'} EXIF data of {name} cannot be read ({why}) and will not be in the results."
    )


def resolution(info: Mapping[Any, Any]) -> tuple[float, float] | None:
    """Dots per inch, along the width and the height; None where they are missing or mean nothing (0/0, 1/0)."""
    try:
        across, down = (float(value) for value in info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < math.inf and 0 < down < math.inf else None


def save_options(said: Mapping[str, Any], file_format: str, size: tuple[int, int]) -> dict[str, Any]:
    """Arguments of ``Image.save`` that put ``said`` (keys of `NAMES`) into a file of a picture of this size."""
    options: dict[str, Any] = {}
    if "icc" in said:
        options["icc_profile"] = said["icc"]
    if "dpi" in said and file_format != "WEBP":
        options["dpi"] = said["dpi"]
    xmp = _sized_xmp(said["xmp"], size) if "xmp" in said else None
    exif = Image.Exif()
    if "exif" in said:
        exif.load(said["exif"])
        inner = exif.get_ifd(_EXIF_TABLE) if _EXIF_TABLE in exif else {}  # a table that is asked for is there after it
        inner.update({tag: side for tag, side in zip((_PIXEL_X, _PIXEL_Y), size, strict=True) if tag in inner})
    if file_format == "TIFF" and xmp is not None:
        exif[_XMP_TAG] = xmp
    if file_format == "WEBP" and "dpi" in said and _X_RESOLUTION not in exif:
        exif[_X_RESOLUTION], exif[_Y_RESOLUTION] = said["dpi"]
        exif[_RESOLUTION_UNIT] = _INCH
    if len(exif):
        options["exif"] = exif.tobytes()
    if file_format == "TIFF" and not INNER_TABLES & set(exif):
        options["compression"] = "tiff_adobe_deflate"  # libtiff cannot write the sub-tables of an EXIF block
    if file_format in ("JPEG", "WEBP") and xmp is not None:
        options["xmp"] = xmp
    texts = dict(said.get("texts", {}))
    if file_format == "JPEG" and "comment" in said:
        options["comment"] = said["comment"]
    if file_format == "PNG":
        if "comment" in said:
            texts[COMMENT] = _decoded(said["comment"])
        options["pnginfo"] = _png_info(texts, xmp)
    return options


def lost_for_good(said: Mapping[str, Any], file_format: str, stored: Image.Image) -> set[str]:
    """The keys of ``said`` that a file of this format had better not hold, though it could."""
    lost = set()
    profile = said.get("icc", b"")
    if profile[16:20] == b"GRAY" and stored.mode not in (
        "1",
        "L",
        "LA",
        "I;16",
        "I",
        "F",
    ):  # its space, as ICC.1:2022, 7.2.6
        lost.add("icc")
    if file_format == "PNG" and len(profile) > _LARGEST_PNG_PROFILE:
        lost.add("icc")
    return lost


def survives(key: str, said: Any, back: Image.Image) -> bool:
    """Whether what was said under ``key`` of `NAMES` has come back in a file that was written with it alone."""
    if key == "dpi":
        found = resolution(back.info) or _exif_resolution(back)
        return found is not None and all(math.isclose(a, b, rel_tol=0.01) for a, b in zip(found, said, strict=True))
    fields, _ = read(back, "")
    if key == "texts":
        return bool(fields["texts"] == said)
    if key == "comment":
        return bool(said == fields["comment"] or _decoded(said) == fields["texts"].get(COMMENT))
    if key == "exif":
        return fields["exif"] is not None and _tables(said).items() <= _tables(fields["exif"]).items()
    if key == "xmp":
        return fields["xmp"] is not None and fields["xmp"] == _sized_xmp(said, back.size)
    return bool(fields[key] == said)


def _exif_block(image: Image.Image, name: str) -> tuple[bytes | None, tuple[str, ...]]:
    """The EXIF bytes without orientation, pixel layout, preview, and a resolution that means nothing."""
    try:
        cut = _cut_short(image.info.get("exif") or b"")
        found = image.getexif()
        complaints: tuple[str, ...] = ()
        if cut:
            complaints = (unreadable(name, "they are cut short", part=bool(found)),)
        if not found:
            return None, complaints
        found.bigtiff = False  # of what is written from here on
        exif = Image.Exif()
        exif.load(found.tobytes())
        for tag in set(exif) - _DESCRIPTION:
            del exif[tag]
        description = str(exif.get(_IMAGE_DESCRIPTION, ""))
        if _LAYOUT_TEXT.match(description) or _SHAPE_TEXT.match(description):
            del exif[_IMAGE_DESCRIPTION]
        if _LAYOUT_TEXT.match(description):
            complaints += (f"What {name} says of its pages and channels (ImageJ, OME) will not be in the results.",)
        axes = (_X_RESOLUTION, _Y_RESOLUTION)
        if resolution({"dpi": [exif.get(tag, 1) for tag in axes]}) is None:
            for tag in {*axes, _RESOLUTION_UNIT} & set(exif):
                del exif[tag]
        return (exif.tobytes() if len(exif) else None), complaints
    except Exception as error:  # a broken metadata block is no reason to refuse the picture
        return None, (unreadable(name, error),)


def _cut_short(block: bytes) -> bool:
    """Whether tags are missing at the end of an EXIF block, which Pillow leaves out with a warning."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        exif = Image.Exif()
        exif.load(block)
        for table in INNER_TABLES:
            exif.get_ifd(table)
    return not all(_NO_NEXT_TABLE.match(str(one.message)) for one in told)


def _exif_resolution(image: Image.Image) -> tuple[float, float] | None:
    exif = image.getexif()
    return resolution({"dpi": (exif.get(_X_RESOLUTION), exif.get(_Y_RESOLUTION))})


def _tables(block: bytes) -> dict[int, str]:
    """The description in an EXIF block: what each tag says, and each tag of its inner tables."""
    exif = Image.Exif()
    exif.load(block)
    tables = {tag: str(exif[tag]) for tag in exif if tag not in INNER_TABLES}
    for table in INNER_TABLES:
        inner = exif.get_ifd(table)
        tables |= {table << 16 | tag: str(inner[tag]) for tag in inner if tag not in (_PIXEL_X, _PIXEL_Y)}
    return tables


def _left_out(image: Image.Image) -> list[str]:
    """What a file says that no result does."""
    tags = getattr(image, "tag_v2", {})
    tags = image.info.get(TAGS, getattr(image, "tag_v2", {}))
    words = [words for words, those in _LEFT_OUT.items() if any(tag in tags for tag in those)]
    if _IPTC not in words and _IPTC_RESOURCE in image.info.get("photoshop", {}):
        words.append(_IPTC)
    return [*words, _COLOURS] if _other_colours(image) else words


def _other_colours(image: Image.Image) -> bool:
    """Whether a PNG says without an ICC profile that its colours are not those of sRGB."""
    info = image.info
    if image.format != "PNG" or info.get("icc_profile"):
        return False
    if CICP in info:
        return True
    if "srgb" in info:
        return False
    gamma, points = info.get("gamma", _SRGB_GAMMA), info.get("chromaticity", _SRGB_CHROMATICITY)
    off = [abs(a - b) for a, b in zip(points, _SRGB_CHROMATICITY, strict=True)]
    return bool(abs(gamma - _SRGB_GAMMA) > 0.01 or max(off) > 0.005)


def _texts(image: Image.Image) -> dict[str, str]:
    """Texts of a PNG, its XMP packet and raw profiles left out."""
    texts = getattr(image, "text", None) if image.format == "PNG" else None
    return {
        key: value
        for key, value in (texts or {}).items()
        if isinstance(value, str) and key != "XML:com.adobe.xmp" and not key.startswith(_RAW_PROFILE)
    }


def _png_info(texts: Mapping[str, str], xmp: bytes | None) -> PngInfo:
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    if xmp is not None:
        info.add_itxt("XML:com.adobe.xmp", xmp)
    return info


def _decoded(comment: bytes) -> str:
    """A comment of a JPEG, which does not say how it is encoded."""
    try:
        return comment.decode("utf-8")
    except UnicodeDecodeError:
        return comment.decode("latin-1")


def _as_bytes(value: Any) -> bytes | None:
    if isinstance(value, tuple) and len(value) == 1:  # as Pillow gives some tags of a TIFF
        value = value[0]
    if isinstance(value, str):
        value = value.encode()
    return bytes(value) or None if isinstance(value, bytes | bytearray) else None


def _upright_xmp(packet: Any) -> bytes | None:
    xmp = _as_bytes(packet)
    return None if xmp is None else _with_number(xmp, b"tiff:Orientation", 1)


def _sized_xmp(xmp: bytes, size: tuple[int, int]) -> bytes:
    """The packet with the size of the picture where it names one."""
    names = ((b"exif:PixelXDimension", b"tiff:ImageWidth"), (b"exif:PixelYDimension", b"tiff:ImageLength"))
    for side, pair in zip(size, names, strict=True):
        for name in pair:
            xmp = _with_number(xmp, name, side)
    return xmp


def _with_number(xmp: bytes, name: bytes, number: int) -> bytes:
    """The packet with another number as the property ``name``, which is an attribute or an element."""
    return re.sub(name + rb"(\s*=\s*[\"']|>)\s*\d+", lambda found: name + found[1] + b"%d" % number, xmp)
