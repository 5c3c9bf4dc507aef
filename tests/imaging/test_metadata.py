"""What files say besides their pixels: kept where the format can, said where not, and never about other pixels."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from priorpaint.errors import PriorpaintError, UsageError
from priorpaint.imaging import check_output, read_picture, save_picture
from priorpaint.imaging.arrays import ArrayImage
from priorpaint.imaging.storing import what_differs

SIZE = (120, 80)
SUFFIXES = (".png", ".jpg", ".webp", ".tif", ".bmp")
EXIF_TABLE, PIXEL_X, PIXEL_Y = 34665, 40962, 40963
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" exif:PixelXDimension="120">'
    b"<exif:PixelYDimension>80</exif:PixelYDimension><dc:rights>mine</dc:rights></rdf:Description></x:xmpmeta>"
)


def photo(mode: str = "RGB", size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


def exif_of(path: Path) -> Image.Exif:
    exif = Image.Exif()
    block = read_picture(path).exif
    assert block is not None
    exif.load(block)
    return exif


def exif_with(tags: dict[int, object]) -> bytes:
    """An EXIF block as Android writes it, with tags that say how pixels are laid out."""
    exif = Image.Exif()
    exif[271] = "a camera"
    for tag, value in tags.items():
        exif[tag] = value
    return exif.tobytes()


LAYOUT: list[dict[int, object]] = [
    {256: 120, 257: 80, 274: 6},
    *({tag: value} for tag, value in (
        (256, 7), (257, 80), (258, 16), (259, 7), (262, 6), (273, 8), (277, 3), (278, 1), (284, 2), (317, 2),
        (320, [0] * 768), (322, 16), (324, 8), (325, 9), (330, 8), (338, 1), (339, 3), (347, b"tables"),
    )),
]  # fmt: skip


@pytest.mark.parametrize("source", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("tags", LAYOUT, ids=lambda tags: "-".join(map(str, tags)))
def test_pixel_layout_in_exif_changes_no_pixel(tmp_path: Path, tags: dict[int, object], source: str) -> None:
    photo().save(tmp_path / f"in{source}", exif=exif_with(tags), **({"lossless": True} if source == ".webp" else {}))
    picture = read_picture(tmp_path / f"in{source}")
    size = (80, 120) if 274 in tags else SIZE
    for suffix in (".tif", ".png", ".jpg", ".webp") if 274 in tags else (".tif",):
        out = tmp_path / f"out{suffix}"
        assert check_output(out, picture) == ()
        save_picture(picture.image, out, picture)
        again = read_picture(out)
        assert again.size == picture.size == size and again.mode == "RGB"
        if suffix != ".jpg":
            np.testing.assert_array_equal(np.asarray(again.image), np.asarray(picture.image))
        kept = exif_of(out)
        assert kept[271] == "a camera"
        assert not set(tags) & set(kept)


def described(path: Path, **more: object) -> Path:
    exif = Image.Exif()
    exif[274] = 6
    exif.get_ifd(EXIF_TABLE).update({PIXEL_X: 120, PIXEL_Y: 80})
    photo().save(path, exif=exif.tobytes(), xmp=XMP, dpi=(300, 200), **more)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_a_photo_says_is_kept_and_upright_or_named(tmp_path: Path, suffix: str) -> None:
    picture = read_picture(described(tmp_path / "in.jpg", comment="copy me"))
    assert picture.size == (80, 120)
    out = tmp_path / f"out{suffix}"
    lost = " ".join(check_output(out, picture))
    save_picture(picture.image, out, picture)
    again = read_picture(out)
    names = {".webp": "WebP cannot keep the comment of", ".tif": "TIFF cannot keep the comment of"}
    names[".bmp"] = "BMP cannot keep the EXIF block, XMP packet and comment of"
    assert lost.startswith(names.get(suffix, "")) and bool(lost) == (suffix in names)
    if suffix != ".webp":
        assert again.image.info["dpi"] == pytest.approx((300, 200), abs=0.02)
    if suffix == ".bmp":
        return
    inner = exif_of(out).get_ifd(EXIF_TABLE)
    assert (inner[PIXEL_X], inner[PIXEL_Y]) == (80, 120)
    assert again.xmp is not None
    assert b'tiff:Orientation="1" exif:PixelXDimension="80"><exif:PixelYDimension>120<' in again.xmp
    assert b"mine" in again.xmp
    if suffix == ".jpg":
        assert again.comment == b"copy me"
    if suffix == ".png":
        assert again.texts == {"Comment": "copy me"}


def test_xmp_alone_that_turns_a_picture_turns_it_once(tmp_path: Path) -> None:
    photo().save(tmp_path / "in.jpg", xmp=XMP)
    picture = read_picture(tmp_path / "in.jpg")
    assert picture.size == (80, 120)
    for suffix in (".jpg", ".png", ".webp", ".tif"):
        save_picture(picture.image, tmp_path / f"out{suffix}", picture)
        assert read_picture(tmp_path / f"out{suffix}").size == (80, 120)


def test_texts_of_a_png_are_kept_in_png_and_named_elsewhere(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20")
    info.add_text("Comment", "short")
    info.add_itxt("Title", "grün 猫", lang="de", tkey="Titel")
    info.add_text("Raw profile type exif", "\nexif\n      4\n00000000\n")
    info.add_text("Description", "long " * 1000, zip=True)
    photo().save(tmp_path / "in.png", pnginfo=info)
    picture = read_picture(tmp_path / "in.png")
    assert len(picture.warnings) == 1 and "The EXIF data of" in picture.warnings[0]  # in the raw profile
    assert check_output("out.png", picture) == ()
    save_picture(picture.image, tmp_path / "out.png", picture)
    with Image.open(tmp_path / "out.png") as image:
        image.load()
        assert image.text == {
            "parameters": "a cat\nSteps: 20", "Comment": "short", "Title": "grün 猫", "Description": "long " * 1000
        }  # fmt: skip
        assert (image.text["Title"].lang, image.text["Title"].tkey) == ("de", "Titel")
    for suffix in (".jpg", ".tif", ".webp"):
        (sentence,) = check_output(f"out{suffix}", picture)
        lost = "PNG texts" if suffix == ".jpg" else "comment and PNG texts"
        assert f"cannot keep the {lost} of" in sentence and "the results are without" in sentence


@pytest.mark.parametrize("comment", ["grün".encode(), "grün".encode("latin-1")])
def test_a_comment_goes_from_jpeg_to_png_and_back(tmp_path: Path, comment: bytes) -> None:
    photo().save(tmp_path / "in.jpg", comment=comment)
    picture = read_picture(tmp_path / "in.jpg")
    assert check_output("out.png", picture) == ()
    save_picture(picture.image, tmp_path / "out.png", picture)
    again = read_picture(tmp_path / "out.png")
    assert again.texts == {"Comment": "grün"}
    assert check_output("out.jpg", again) == ()
    save_picture(again.image, tmp_path / "out.jpg", again)
    assert read_picture(tmp_path / "out.jpg").comment == "grün".encode()


def test_what_is_too_long_for_a_format_is_named_and_not_an_error(tmp_path: Path) -> None:
    photo().save(tmp_path / "in.webp", lossless=True, xmp=XMP + b" " * 70_000, exif=exif_with({270: "x" * 70_000}))
    picture = read_picture(tmp_path / "in.webp")
    assert check_output("out.png", picture) == ()
    (sentence,) = check_output("out.jpg", picture)
    assert sentence.startswith("JPEG cannot keep the EXIF block and XMP packet of")
    save_picture(picture.image, tmp_path / "out.jpg", picture)
    again = read_picture(tmp_path / "out.jpg")
    assert again.exif is None and again.xmp is None


def test_a_profile_over_a_megabyte_makes_no_png_that_cannot_be_opened(tmp_path: Path) -> None:
    profile = np.random.default_rng(0).bytes(2**20 + 1)
    photo().save(tmp_path / "in.tif", icc_profile=profile)
    picture = read_picture(tmp_path / "in.tif")
    assert picture.icc == profile
    assert check_output("out.png", picture)[0].startswith("PNG cannot keep the ICC profile of")
    save_picture(picture.image, tmp_path / "out.png", picture)
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "out.png").image), np.asarray(picture.image))
    for suffix in (".jpg", ".tif", ".webp"):
        assert check_output(f"out{suffix}", picture) == ()
        save_picture(picture.image, tmp_path / f"out{suffix}", picture)
        assert read_picture(tmp_path / f"out{suffix}").icc == profile
    photo().save(tmp_path / "large.png", icc_profile=profile)
    with pytest.raises(UsageError, match="large.png has a colour profile or a text of more than 1 MB; save it without"):
        read_picture(tmp_path / "large.png")


def of_grey(profile: bytes) -> bytes:
    """The profile with a header that says it is of a grey device."""
    return profile[:16] + b"GRAY" + profile[20:]


GREY_PROFILE = of_grey(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_goes_into_grey_files_only(tmp_path: Path, mode: str) -> None:
    photo(mode).save(tmp_path / "in.png", icc_profile=GREY_PROFILE)
    picture = read_picture(tmp_path / "in.png")
    (sentence,) = check_output("out.webp", picture)
    assert sentence.startswith("WebP cannot keep the ICC profile of")
    save_picture(picture.image, tmp_path / "out.webp", picture)
    assert read_picture(tmp_path / "out.webp").icc is None
    for suffix in (".png", ".tif"):
        assert check_output(f"out{suffix}", picture) == ()
        save_picture(picture.image, tmp_path / f"out{suffix}", picture)
        assert read_picture(tmp_path / f"out{suffix}").icc == GREY_PROFILE


def tiff_with_resolution(path: Path, across: tuple[int, int], down: tuple[int, int]) -> Path:
    """A TIFF of one strip with resolutions of any numerators and denominators, which Pillow would not write."""
    width, height = 32, 24
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 200),
        (277, 3, 1, 1), (278, 3, 1, height), (279, 4, 1, width * height), (282, 5, 1, 180), (283, 5, 1, 188),
        (296, 3, 1, 2),
    ]  # fmt: skip
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    head = (b"II*\0" + struct.pack("<I", 8) + table).ljust(180, b"\0")
    path.write_bytes((head + struct.pack("<IIII", *across, *down)).ljust(200, b"\0") + bytes(width * height))
    return path


@pytest.mark.parametrize("resolution", [((0, 0), (0, 0)), ((1, 0), (1, 0)), ((0, 1), (0, 1)), ((72, 1), (0, 0))])
def test_a_resolution_that_is_not_a_number_is_left_out_and_said(
    tmp_path: Path, resolution: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    picture = read_picture(tiff_with_resolution(tmp_path / "in.tif", *resolution))
    assert "dpi" not in picture.image.info
    if resolution[0] == (0, 1):
        assert picture.warnings == ()  # zero is how a file says that it has none
        return
    (warning,) = picture.warnings
    assert "The resolution of" in warning and "is not a number and will not be in the results" in warning
    for suffix in SUFFIXES:
        assert check_output(f"out{suffix}", picture) == ()
        save_picture(picture.image, tmp_path / f"out{suffix}", picture)
        assert read_picture(tmp_path / f"out{suffix}").size == (32, 24)


@pytest.mark.parametrize("dpi", [(1e-9, 72), (1e12, 1e12)])
def test_a_resolution_out_of_a_formats_range_is_named(tmp_path: Path, dpi: tuple[float, float]) -> None:
    image = photo()
    image.info["dpi"] = dpi
    picture = read_picture(image)
    for suffix in (".png", ".jpg"):
        assert "cannot keep the resolution of" in check_output(f"out{suffix}", picture)[0]
        save_picture(picture.image, tmp_path / f"out{suffix}", picture)
        assert read_picture(tmp_path / f"out{suffix}").size == SIZE


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        (b"gAMA", struct.pack(">I", 100_000), True),
        (b"gAMA", struct.pack(">I", 45_455), False),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000), True),  # Display P3
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000), False),
        (b"cICP", bytes([9, 16, 0, 1]), True),  # BT.2100 PQ
        (b"sRGB", b"\0", False),
    ],
)
def test_colours_that_only_a_chunk_describes_are_said_to_be_left_out(
    tmp_path: Path, kind: bytes, data: bytes, told: bool
) -> None:
    path, info = tmp_path / "a.png", PngInfo()
    info.add(kind, data)
    photo().save(path, pnginfo=info)
    sentence = f"The description of the colours (gAMA, cHRM or cICP) of {path} will not be in the results."
    assert read_picture(path).warnings == ((sentence,) if told else ())
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo().save(path, pnginfo=info, icc_profile=profile)
    assert read_picture(path).warnings == ()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_a_georeference_is_said_to_be_left_out(tmp_path: Path, dtype: str) -> None:
    tifffile, path = pytest.importorskip("tifffile"), tmp_path / "a.tif"
    tags = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (34735, "H", 4, (1, 1, 0, 0), True), (42113, "s", 0, "-9999", True)]
    tifffile.imwrite(path, np.zeros((20, 30), dtype), extratags=tags, metadata=None)
    for words in ("georeference (GeoTIFF)", "no-data value (GDAL)"):
        assert f"The {words} of {path} will not be in the results." in read_picture(path).warnings


def test_iptc_is_said_to_be_left_out(tmp_path: Path) -> None:
    data = io.BytesIO()
    photo().save(data, "JPEG")
    iptc = b"\x1c\x02\x78\x00\x04text"
    resource = b"Photoshop 3.0\x008BIM" + struct.pack(">HHI", 0x0404, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    jpeg = data.getvalue()
    (tmp_path / "in.jpg").write_bytes(
        jpeg[:2] + b"\xff\xed" + struct.pack(">H", 2 + len(resource)) + resource + jpeg[2:]
    )
    assert read_picture(tmp_path / "in.jpg").warnings == (
        f"The IPTC data of {tmp_path / 'in.jpg'} will not be in the results.",
    )


def several_tags() -> Image.Exif:
    exif = Image.Exif()
    exif.update({271: "maker", 272: "the name of a model", 274: 6, 315: "an artist"})
    exif.get_ifd(EXIF_TABLE).update({36867: "2020:01:01 00:00:00", 37510: b"a comment of the user"})
    return exif


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_a_tag_that_is_cut_off_is_not_lost_without_a_word(file_format: str) -> None:
    block = several_tags().tobytes()
    read = []
    for length in [*range(7, len(block), 3), len(block)]:
        file = io.BytesIO()
        photo(size=(48, 32)).save(file, file_format, exif=block[:length])
        read.append(read_picture(file.getvalue()))
    for picture in read:
        assert (picture.warnings == ()) == (picture.exif == read[-1].exif), picture.warnings
    heard = {warning for picture in read for warning in picture.warnings}
    name = "the EXIF data of The picture cannot be read (they are cut short) and will not be in the results."
    assert {f"T{name[1:]}", f"Some of {name}"} <= heard


def test_a_table_without_the_place_of_the_next_one_loses_nothing() -> None:
    exif = Image.Exif()
    exif[271] = "abc"  # which needs no place behind the table
    block, file = exif.tobytes(), io.BytesIO()
    photo(size=(48, 32)).save(file, "PNG", exif=block[: 6 + 8 + 2 + 12])
    picture = read_picture(file.getvalue())
    assert picture.warnings == () and picture.exif == block


def test_a_big_tiff_says_what_a_tiff_does(tmp_path: Path) -> None:
    for big in (False, True):
        photo().save(tmp_path / f"{big}.tif", exif=several_tags().tobytes(), big_tiff=big, dpi=(72, 72))
    plain, big_one = (read_picture(tmp_path / f"{big}.tif") for big in (False, True))
    assert big_one.size == SIZE[::-1] and big_one.warnings == () and big_one.exif == plain.exif is not None
    save_picture(big_one.image, tmp_path / "out.jpg", big_one)
    assert exif_of(tmp_path / "out.jpg")[315] == "an artist"
    assert exif_of(tmp_path / "out.jpg").get_ifd(EXIF_TABLE)[36867] == "2020:01:01 00:00:00"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".webp", ".tif"])
def test_transparency_that_no_pixel_has_is_no_reason_to_refuse(tmp_path: Path, mode: str, suffix: str) -> None:
    """An alpha channel of 255, a palette whose entries are all opaque, a transparent colour that is not there."""
    image = photo("P" if mode == "P" else mode)
    if mode in ("L", "RGB"):
        image = image.point(lambda value: max(value, 1))
    keys = {"P": bytes([255] * 20), "L": 0, "RGB": (0, 0, 0)}
    image.save(tmp_path / "in.png", **({"transparency": keys[mode]} if mode in keys else {}))
    picture = read_picture(tmp_path / "in.png")
    assert picture.alpha is not None
    assert check_output(f"out{suffix}", picture) == ()
    save_picture(picture.image, tmp_path / f"out{suffix}", picture)
    again = read_picture(tmp_path / f"out{suffix}")
    difference = np.abs(
        np.asarray(again.image.convert("RGB"), dtype=float) - np.asarray(image.convert("RGB"), dtype=float)
    )
    assert difference.max() <= (40 if suffix == ".jpg" else 0)
    assert again.grey == (mode in ("L", "LA") and suffix != ".webp")


@pytest.mark.parametrize("fault", ["pixel", "size", "mode", "cut"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_reads_back_as_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, fault: str
) -> None:
    path = tmp_path / f"out{suffix}"
    save_picture(photo(), path)
    old, write = path.read_bytes(), Image.Image.save

    def other(self: Image.Image, file: io.BytesIO, **options: object) -> None:
        image = self.copy()
        if fault == "pixel":
            image = Image.eval(image, lambda value: 255 - value) if suffix == ".jpg" else image
            image.putpixel((119, 79), (1, 2, 3))
        image = image.convert("L") if fault == "mode" and suffix != ".webp" else image
        image = image.convert("RGBA") if fault == "mode" and suffix == ".webp" else image
        if fault == "mode" and suffix == ".webp":
            image.putalpha(7)
        image = image.crop((0, 0, 119, 80)) if fault == "size" else image
        write(image, file, **options)
        if fault == "cut":
            file.truncate(file.tell() // 2)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", other)
        with pytest.raises(PriorpaintError, match="was not written, because it read back as something else"):
            save_picture(photo(seed=1), path)
        assert path.read_bytes() == old
        save_picture(photo(seed=1), path, read_back=False)
        assert path.read_bytes() != old
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_tolerance_for_jpeg_is_above_its_worst_and_far_below_another_picture(mode: str) -> None:
    """White noise has the largest coefficients everywhere: its differences fill the bound of the quantisation."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (80, 120, 3), dtype=np.uint8)).convert(mode)
    for image in (noise, photo(mode), Image.new(mode, SIZE)):
        data = io.BytesIO()
        image.save(data, "JPEG", quality=95, subsampling=0)
        with Image.open(data) as back:
            back.load()
            assert what_differs(back, image) is None
            moved = image.transpose(Image.Transpose.ROTATE_180)
            if image is not noise and image.getextrema() != moved.getextrema():
                assert what_differs(back, moved) == "other pixels"
    data = io.BytesIO()
    photo(mode).save(data, "JPEG", quality=95, subsampling=0)
    with Image.open(data) as back:
        back.load()
        assert what_differs(back, photo(mode, seed=1)) == "other pixels"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "array"])
def test_one_other_value_in_a_channel_or_opacity_is_seen_wherever_it_is(mode: str) -> None:
    rng, size = np.random.default_rng(0), (33, 130)
    if mode == "array":
        values = rng.random((130, 33, 4))
        values[5, 5, 1] = np.nan
        images = [ArrayImage(values.copy()) for _ in range(2)]
    elif mode in ("I;16", "I", "F"):
        images = [photo("L", size).convert(mode) for _ in range(2)]
    else:
        images = [photo("RGBA", size).convert({"P": "RGB"}.get(mode, mode)).convert(mode) for _ in range(2)]
    one, other = images
    assert what_differs(one, other) is None
    for x, y in ((0, 0), (32, 63), (7, 64), (32, 129)):
        for band in range(4 if mode == "array" else len(one.getbands())):
            if isinstance(other, ArrayImage):
                changed: Image.Image = other.holding(other.values.copy())
                np.asarray(changed.values)[y, x, band] += 1e-9  # type: ignore[attr-defined]
            else:
                changed, pixel = other.copy(), other.getpixel((x, y))
                parts = list(pixel) if isinstance(pixel, tuple) else [pixel]
                parts[band] = 255 - parts[band] if mode == "1" else parts[band] + (1 if parts[band] < 255 else -1)
                changed.putpixel((x, y), tuple(parts) if isinstance(pixel, tuple) else parts[0])
            assert what_differs(changed, other) in ("other pixels", "other values"), (x, y, band)


def test_another_colour_or_opacity_of_a_palette_is_seen_where_it_is_in_use() -> None:
    image = Image.frombytes("P", (16, 16), bytes(range(200)).ljust(256, b"\7"))
    image.putpalette(bytes(range(256)) * 3)
    for entry, differs in ((0, True), (199, True), (200, False), (255, False)):
        other = image.copy()
        colours = bytearray(bytes(range(256)) * 3)
        colours[3 * entry + 1] ^= 1
        other.putpalette(bytes(colours))
        assert (what_differs(other, image) == "other pixels") == differs
        other = image.copy()
        other.info["transparency"] = bytes(255 - (k == entry) for k in range(256))
        assert (what_differs(other, image) == "other pixels") == differs
