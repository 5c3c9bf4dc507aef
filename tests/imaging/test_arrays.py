"""Values that Pillow has no mode for: arrays, .npy, deep TIFF; read, held, filled in and written to the bit."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from priorpaint import PriorpaintError, UsageError
from priorpaint.errors import MissingExtra
from priorpaint.imaging import check_output, compose, read_mask, read_picture, save_picture, storing, writing
from priorpaint.imaging.arrays import ArrayImage
from priorpaint.imaging.picture import Picture
from priorpaint.imaging.ranges import ValueRange

tifffile = pytest.importorskip("tifffile")
cv2 = pytest.importorskip("cv2")

DTYPES = ["uint8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"]
SHAPES = [(30, 40), (30, 40, 3), (30, 40, 4)]


def values(dtype: str, shape: tuple[int, ...] = (30, 40)) -> np.ndarray:
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.uniform(-2, 3, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["array", ".npy", ".tif"])
def test_every_type_comes_in_and_goes_out_to_the_bit(
    tmp_path: Path, kind: str, dtype: str, shape: tuple[int, ...]
) -> None:
    before, source = values(dtype, shape), tmp_path / f"in{kind}"
    if kind == ".npy":
        np.save(source, before)
    elif kind == ".tif":
        extra = {"extrasamples": ["unassalpha"]} if shape[-1] == 4 else {}
        tifffile.imwrite(source, before, photometric="rgb" if len(shape) == 3 else "minisblack", **extra)
    picture = read_picture(before if kind == "array" else source)
    assert picture.size == (40, 30) and picture.grey == (len(shape) == 2)
    assert np.asarray(picture.image).dtype == before.dtype
    np.testing.assert_array_equal(np.asarray(picture.image), before)
    np.testing.assert_array_equal(picture.values(), before[..., None] if len(shape) == 2 else before[..., :3])
    assert (picture.alpha is not None) == (shape[-1] == 4)
    for suffix in (".npy", ".tif"):
        save_picture(picture.image, tmp_path / f"out{suffix}", picture)
        again = read_picture(tmp_path / f"out{suffix}")
        assert np.asarray(again.image).dtype == before.dtype
        np.testing.assert_array_equal(np.asarray(again.image), before)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
def test_a_completion_is_written_in_the_units_of_the_picture(dtype: str, shape: tuple[int, ...]) -> None:
    before = values(dtype, shape)
    picture = read_picture(before).ranged(ValueRange(0, 2))
    known = np.random.default_rng(1).random((30, 40)) < 0.6
    filled = np.asarray(compose(picture, torch.full((3, 30, 40), 0.5), known))
    assert filled.dtype == before.dtype
    np.testing.assert_array_equal(filled[known], before[known])
    colours = filled if len(shape) == 2 else filled[..., :3]
    expected = 1.5 if before.dtype.kind == "f" else 2  # halves go up
    np.testing.assert_allclose(colours[~known], expected, atol=1e-6)
    if shape[-1] == 4:
        np.testing.assert_array_equal(filled[..., 3], before[..., 3])
        opaque = np.asarray(compose(picture, torch.full((3, 30, 40), 0.5), known, opaque_holes=True))
        full = 1 if before.dtype.kind == "f" else np.iinfo(dtype).max
        assert (opaque[..., 3][~known] == full).all()


def test_pillow_sees_a_view_in_the_range_and_a_copy_of_values_stays_exact() -> None:
    before = np.linspace(100, 700, 1200).reshape(30, 40)
    image = read_picture(before).ranged(ValueRange(100, 700)).image
    assert isinstance(image, ArrayImage) and image.mode == "L"
    view = np.asarray(image.convert("RGB"))
    assert view[0, 0].tolist() == [0, 0, 0] and view[-1, -1].tolist() == [255, 255, 255]
    array = np.array(image)
    array[:] = 0
    np.testing.assert_array_equal(np.asarray(image), before)
    np.testing.assert_array_equal(np.asarray(read_picture(image).image), before)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((30, 40), bool), "is an array of bool; an array is"),
        (np.zeros((30, 40), complex), "is an array of complex128; an array is"),
        (np.array([["a"] * 20] * 20), "is an array of <U1; an array is"),
        (np.zeros(40), r"is an array of the shape \(40,\), and an array is"),
        (np.zeros((30, 40, 2)), r"is an array of the shape \(30, 40, 2\), and"),
        (np.zeros((3, 30, 40)), r"put the channels last with array.transpose\(1, 2, 0\)"),
        (np.zeros((8, 40)), "is 40x8; a picture needs at least 16 pixels"),
    ],
)
def test_arrays_that_are_no_pictures(array: np.ndarray, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        read_picture(array)
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UsageError, match=sentence):
        read_picture(tmp_path / "a.npy")


def test_npy_files_are_never_unpickled_and_damaged_ones_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}] * 400, dtype=object).reshape(20, 20), allow_pickle=True)
    np.save(tmp_path / "cut.npy", np.zeros((30, 40)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:500])
    for name in ("objects.npy", "cut.npy"):
        with pytest.raises(UsageError, match=f"{name} is not an array of numbers that can be read"):
            read_picture(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_tiff_is_turned_as_pillow_turns_a_shallow_one(tmp_path: Path, orientation: int) -> None:
    before = values("uint8", (30, 40, 3))
    for name, array in (("shallow", before), ("deep", before.astype(np.uint16) * 257)):
        tag = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(tmp_path / f"{name}.tif", array, photometric="rgb", extratags=tag, metadata=None)
    shallow, deep = (np.asarray(read_picture(tmp_path / f"{name}.tif").image) for name in ("shallow", "deep"))
    np.testing.assert_array_equal(deep, shallow.astype(np.uint16) * 257)


@pytest.mark.parametrize(
    "options", [{"compression": "zlib"}, {"planarconfig": "separate"}, {"byteorder": ">"}, {"tile": (16, 16)}]
)
def test_layouts_of_a_deep_tiff(tmp_path: Path, options: dict[str, Any]) -> None:
    before = values("uint16", (30, 40, 3))
    stored = np.moveaxis(before, -1, 0) if "planarconfig" in options else before
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "a.tif").image), before)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_page_of_several(tmp_path: Path, dtype: str) -> None:
    pages = values(dtype, (3, 30, 40))
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="minisblack")
    for k in range(3):
        np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "stack.tif", page=k + 1).image), pages[k])
    with pytest.raises(UsageError, match="has several frames or pages; choose one with --page N"):
        read_picture(tmp_path / "stack.tif")
    for wrong in (0, 4, -1):
        with pytest.raises(UsageError, match=f"has 3 pages, counted from 1, and no page {wrong}"):
            read_picture(tmp_path / "stack.tif", page=wrong)
    np.save(tmp_path / "a.npy", pages[0])
    for source in (pages[0], Image.new("RGB", (20, 20)), tmp_path / "a.npy"):
        with pytest.raises(UsageError, match="page is for a TIFF file|only a TIFF has pages"):
            read_picture(source, page=1)
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="is no TIFF, and only a TIFF has pages"):
        read_picture(tmp_path / "a.png", page=1)


def test_a_tiff_that_pillow_takes_for_something_else_is_read_right_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    below = np.linspace(-100, 100, 1200).astype(np.int8).reshape(30, 40)
    tifffile.imwrite(path, below)
    assert np.asarray(read_picture(path).image).dtype == np.int8
    np.testing.assert_array_equal(np.asarray(read_picture(path).image), below)
    with pytest.raises(UsageError, match="has values below 0; save it as grey"):
        read_mask(path, (40, 30))
    white = np.full((30, 40), 65535, np.uint16)
    white[5:9, 5:9] = 0
    tifffile.imwrite(path, white, photometric="miniswhite")  # the square is white
    with pytest.raises(UsageError, match="channels of the kind MINISWHITE.*; save it as grey"):
        read_picture(path)
    with pytest.raises(
        UsageError, match="has 16 bits with white as 0; save it as grey of 8 or 16 bits with black as 0"
    ):
        read_mask(path, (40, 30))


def test_several_pages_of_a_mask_have_no_option(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "masks.tif", values("uint8", (3, 30, 40)), photometric="minisblack")
    with pytest.raises(UsageError, match="has several frames or pages; save the one that you want by itself"):
        read_mask(tmp_path / "masks.tif", (40, 30))


def test_deep_tiffs_of_other_kinds_and_damaged_ones(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "five.tif", values("uint16", (5, 30, 40)), planarconfig="separate", photometric="minisblack"
    )
    tifffile.imwrite(tmp_path / "ink.tif", values("uint16", (30, 40, 4)), photometric="separated")
    for name in ("five.tif", "ink.tif"):
        with pytest.raises(UsageError, match="save it as grey, RGB, or RGBA with unassociated alpha|not a pict"):
            read_picture(tmp_path / name)
    tifffile.imwrite(tmp_path / "cut.tif", values("uint16", (30, 40, 3)), photometric="rgb")
    whole = (tmp_path / "cut.tif").read_bytes()
    for end in range(0, len(whole) - 1, 97):
        (tmp_path / "cut.tif").write_bytes(whole[:end])
        with pytest.raises(UsageError, match="is damaged or incomplete|is not a picture|no bytes left"):
            read_picture(tmp_path / "cut.tif")


def test_without_tifffile_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "deep.tif", values("uint16", (30, 40, 3)), photometric="rgb")
    image = read_picture(tmp_path / "deep.tif").image
    monkeypatch.setitem(sys.modules, "tifffile", None)
    for attempt in (lambda: read_picture(tmp_path / "deep.tif"), lambda: save_picture(image, tmp_path / "out.tif")):
        with pytest.raises(MissingExtra, match=r"needs tifffile; run: pip install 'priorpaint\[sci\]'"):
            attempt()
    assert not (tmp_path / "out.tif").exists()
    Image.fromarray(values("float32")).save(tmp_path / "grey.tif")  # Pillow alone reads and writes these
    grey = read_picture(tmp_path / "grey.tif")
    save_picture(grey.image, tmp_path / "grey_out.tif", grey)
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "grey_out.tif").image), values("float32"))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
@pytest.mark.parametrize("shape", SHAPES)
def test_formats_that_cannot_hold_the_values(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="cannot keep values of float32; write TIFF or .npy instead"):
        save_picture(read_picture(values("float32", shape)).image, tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_png_is_named_where_it_holds_the_values(tmp_path: Path, suffix: str) -> None:
    deep = read_picture(values("uint16", (30, 40, 3))).image
    with pytest.raises(UsageError, match="cannot keep values of uint16; write PNG, TIFF or .npy instead"):
        save_picture(deep, tmp_path / f"a{suffix}")
    save_picture(deep, tmp_path / "a.png")


def test_bytes_and_open_files_are_read_as_their_file_is(tmp_path: Path) -> None:
    Image.fromarray(values("uint8", (30, 40, 3))).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", values("float64"))
    hole = np.zeros((30, 40), np.uint8)
    hole[5:9] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    for name in ("a.png", "a.npy"):
        data, there = (tmp_path / name).read_bytes(), read_picture(tmp_path / name)
        with open(tmp_path / name, "rb") as opened:
            for source in (data, bytearray(data), io.BytesIO(data), opened):
                picture = read_picture(source)  # type: ignore[arg-type]
                np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(there.image))
                assert picture.sha256 == there.sha256 and picture.path is None and picture.format == there.format
    data = (tmp_path / "mask.png").read_bytes()
    np.save(tmp_path / "mask.npy", hole > 0)
    for source in (data, io.BytesIO(data), hole, hole > 0, tmp_path / "mask.npy"):
        np.testing.assert_array_equal(read_mask(source, (40, 30)).known, hole == 0)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (torch.zeros(3, 30, 40), r"and Tensor was given; convert it: tensor.permute\(1, 2, 0\).numpy\(\)"),
        ([[0, 1], [1, 0]], "and list was given; convert it"),
        (None, "and NoneType was given"),
        (3, "and int was given"),
        (io.StringIO("text"), "and text was given"),
        (io.BytesIO(b""), "has no bytes left to read; rewind the file with seek"),
        (b"", "has no bytes left to read"),
        (b"no picture", "is not a picture that can be read"),
    ],
)
def test_other_things_are_told_in_one_sentence_that_does_not_print_them(source: Any, sentence: str) -> None:
    for read, label in ((read_picture, "The picture"), (lambda mask: read_mask(mask, (40, 30)), "The mask")):
        with pytest.raises(UsageError, match=sentence) as error:
            read(source)
        assert str(error.value).startswith(label) and len(str(error.value)) < 200


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_picture_of_any_mode_as_npy_is_its_values_or_colours(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(values("uint8"))
    image = Image.fromarray(values("uint16")) if mode == "I;16" else grey.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(np.tile(np.arange(40, dtype=np.uint8), (30, 1))))
    picture = read_picture(image)
    assert check_output("a.npy", picture) == ()
    save_picture(picture.image, tmp_path / "a.npy", picture)
    back = read_picture(tmp_path / "a.npy").image
    assert back.mode == {"1": "L", "LA": "RGBA", "P": "RGB"}.get(mode, mode)
    np.testing.assert_array_equal(np.asarray(back), np.asarray(image.convert(back.mode)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_values_that_read_back_as_something_else_are_not_kept(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, path = read_picture(values("float64", shape)).image, tmp_path / f"a{suffix}"
    save_picture(image, path)
    old = path.read_bytes()
    write = storing.encoded

    def other(image: Any, *rest: Any) -> bytes:
        return write(image.holding(np.nextafter(image.values, 9)), *rest)

    monkeypatch.setattr(writing, "encoded", other)
    with pytest.raises(PriorpaintError, match="read back as something else .other values"):
        save_picture(image, path)
    assert path.read_bytes() == old and [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("shape", [(300, 40, 3), (30, 40, 4)])
def test_16_bit_colours_in_a_png_to_the_bit_and_with_all_that_they_say(tmp_path: Path, shape: tuple[int, ...]) -> None:
    before, path = values("uint16", shape), tmp_path / "a.png"
    exif = Image.Exif()
    exif[271] = "a camera"
    picture = Picture(ArrayImage(before), "PNG", texts={"Title": "the yard"}, exif=exif.tobytes(), xmp=b"<xmp/>")
    assert check_output(path, picture) == ()
    save_picture(picture.image, path, picture)
    other = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # another program reads what was written
    order = [2, 1, 0, 3][: shape[2]]
    np.testing.assert_array_equal(other[..., order], before)
    cv2.imwrite(str(tmp_path / "b.png"), other)  # and writes what is read
    for file in (path, tmp_path / "b.png"):
        np.testing.assert_array_equal(np.asarray(read_picture(file).image), before)
    again = read_picture(path)
    assert again.warnings == () and again.format == "PNG" and again.grey is False and again.deep
    assert again.texts == {"Title": "the yard"} and again.xmp == b"<xmp/>" and b"a camera" in (again.exif or b"")
    known = np.random.default_rng(1).random(shape[:2]) < 0.6
    filled = compose(again, torch.full((3, *shape[:2]), 0.5), known)
    save_picture(filled, tmp_path / "c.png", again)
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "c.png").image)[known], before[known])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_png_with_16_bit_colours_is_turned_as_one_of_8(tmp_path: Path, orientation: int) -> None:
    before, exif = values("uint8", (30, 40, 3)), Image.Exif()
    exif[274] = orientation
    Image.fromarray(before).save(tmp_path / "shallow.png", exif=exif)
    with open(tmp_path / "deep.png", "w+b") as file:
        storing.encoded(ArrayImage(before.astype(np.uint16) * 257), "PNG", {"exif": exif.tobytes()}, file)
    shallow, deep = (read_picture(tmp_path / f"{name}.png") for name in ("shallow", "deep"))
    assert deep.orientation == shallow.orientation == orientation
    np.testing.assert_array_equal(np.asarray(deep.image), np.asarray(shallow.image).astype(np.uint16) * 257)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3), (30, 40, 4)])
def test_what_a_deep_tiff_says_is_kept(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    """All at once, EXIF with its inner tables included, in a file that other programs read."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    before = values(dtype, shape)
    said = Image.Exif()
    said[270], said[271], said[33432] = "the yard", "a camera", "mine"
    said[34665] = {33434: 0.5, 36867: "2026:11:30 12:00:00", 40962: 40}
    said[34853] = {1: "N", 2: (52.0, 30.0, 1.5)}
    said[700] = b"<xmp/>"
    image = ArrayImage(before)
    with open(tmp_path / "a.tif", "w+b") as file:
        options = {"exif": said.tobytes(), "dpi": (300, 150)} | ({"icc_profile": profile} if len(shape) == 3 else {})
        storing.encoded(image, "TIFF", options, file)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), before)
    picture = read_picture(tmp_path / "a.tif")
    assert picture.warnings == () and check_output(tmp_path / "b.tif", picture) == ()
    save_picture(picture.image, tmp_path / "b.tif", picture)
    again = read_picture(tmp_path / "b.tif")
    np.testing.assert_array_equal(np.asarray(again.image), before)
    assert again.warnings == () and again.icc == picture.icc == (profile if len(shape) == 3 else None)
    assert again.xmp == b"<xmp/>" and again.image.info["dpi"] == pytest.approx((300, 150))
    exif = Image.Exif()
    assert again.exif is not None
    exif.load(again.exif)
    assert (exif[270], exif[271], exif[33432]) == ("the yard", "a camera", "mine")
    inner, place = exif.get_ifd(34665), exif.get_ifd(34853)
    assert inner[33434] == 0.5 and inner[36867] == "2026:11:30 12:00:00" and inner[40962] == 40
    assert place[1] == "N" and place[2] == (52.0, 30.0, 1.5)
    (lost,) = check_output(tmp_path / "b.npy", picture)
    assert all(word in lost for word in ("EXIF block", "XMP packet", "resolution"))


@pytest.mark.parametrize("options", [{"byteorder": ">"}, {"bigtiff": True}, {"resolutionunit": "CENTIMETER"}])
def test_what_a_page_of_a_deep_stack_says(tmp_path: Path, options: dict[str, Any]) -> None:
    file_options = {key: options[key] for key in ("byteorder", "bigtiff") if key in options}
    page_options: dict[str, Any] = {"resolutionunit": options.get("resolutionunit", "INCH"), "resolution": (118, 59)}
    with tifffile.TiffWriter(tmp_path / "a.tif", **file_options) as file:
        for k in range(3):
            tags = [(315, "s", 0, f"artist {k}", True), (33723, "B", 4, b"iptc", True)]
            file.write(
                values("uint16", (30, 40, 3)) + k, photometric="rgb", metadata=None, extratags=tags, **page_options
            )
    picture = read_picture(tmp_path / "a.tif", page=2)
    assert picture.warnings == (f"The IPTC data of {tmp_path / 'a.tif'} will not be in the results.",)
    exif = Image.Exif()
    exif.load(picture.exif or b"")
    factor = 2.54 if "resolutionunit" in options else 1
    assert exif[315] == "artist 1" and picture.image.info["dpi"] == pytest.approx((118 * factor, 59 * factor))


def test_a_resolution_that_is_no_number_does_not_take_the_rest_along(tmp_path: Path) -> None:
    tags = [(315, "s", 0, "an artist", True)]
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None, "extratags": tags, "resolution": (300, 300)}
    tifffile.imwrite(tmp_path / "a.tif", values("uint16", (30, 40, 3)), **options)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for tag, value in ((282, (0, 0)), (283, (1, 0))):
            file.pages[0].tags[tag].overwrite(value)
    picture = read_picture(tmp_path / "a.tif")
    assert any("The resolution of" in warning for warning in picture.warnings) and "dpi" not in picture.image.info
    assert picture.exif is not None and b"an artist" in picture.exif


def test_descriptions_of_pages_and_channels_do_not_travel(tmp_path: Path) -> None:
    """A result has one page, and other programs believe what is said about more."""
    stack = values("uint16", (3, 30, 40))
    tifffile.imwrite(tmp_path / "j.tif", stack, imagej=True)
    tifffile.imwrite(tmp_path / "o.ome.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="minisblack")
    for name, count in (("j.tif", 1), ("o.ome.tif", 1), ("s.tif", 0)):
        picture = read_picture(tmp_path / name, page=1)
        told = [warning for warning in picture.warnings if "of its pages and channels" in warning]
        assert len(told) == count == len(picture.warnings), name
        save_picture(picture.image, tmp_path / "out.tif", picture)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), stack[0])


@pytest.mark.parametrize("page", [None, 2])
@pytest.mark.parametrize("shape", [(16, 16, 3), (16, 16)])
def test_pages_behind_the_one_that_is_needed_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int | None, shape: tuple[int, ...]
) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(300):
            file.write(values("uint16", shape), metadata=None, photometric="rgb" if len(shape) == 3 else "minisblack")
    data, seeks = (tmp_path / "a.tif").read_bytes(), 0

    class Counted(io.BytesIO):
        def seek(self, *where: int) -> int:
            nonlocal seeks
            seeks += 1
            return super().seek(*where)

    monkeypatch.setattr(io, "BytesIO", Counted)
    if page is None:
        with pytest.raises(UsageError, match="has several frames or pages; choose one with --page N"):
            read_picture(data)
    else:
        assert np.asarray(read_picture(data, page=page).image).shape == shape
    assert 0 < seeks < 150, "half of the pages"


def test_a_page_of_8_bits_keeps_what_it_says(tmp_path: Path) -> None:
    first, second = (Image.fromarray(values("uint8", (30, 40, 3))) for _ in range(2))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second], dpi=(300, 300))
    picture = read_picture(tmp_path / "a.tif", page=1)
    assert picture.image.mode == "RGB" and picture.image.info["dpi"] == (300, 300)
    save_picture(picture.image, tmp_path / "b.png", picture)
    assert read_picture(tmp_path / "b.png").image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
