"""Reading pictures: values, orientation, what survives, and one sentence for all that cannot be read."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.imaging import read_picture, save_picture

SIZE = (40, 30)


def picture_of(mode: str, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    shape = (SIZE[1], SIZE[0])
    if mode == "1":
        return Image.fromarray(rng.integers(0, 2, shape).astype(bool))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, shape).astype(np.uint16))
    if mode == "P":
        image = Image.frombytes("P", SIZE, rng.integers(0, 20, shape).astype(np.uint8).tobytes())
        image.putpalette(rng.integers(0, 256, 60).astype(np.uint8).tobytes())
        return image
    channels = len(mode)
    values = rng.integers(0, 256, (*shape, channels) if channels > 1 else shape)
    return Image.fromarray(values.astype(np.uint8))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(path: Path, width: int, height: int, depth: int, colour: int, row_bytes: int) -> Path:
    """A PNG made by hand, all black; Pillow itself cannot write 16-bit colours."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(bytes((1 + row_bytes) * height))
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [(mode, suffix) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") for suffix in (".png", ".tif")]
    + [(mode, ".bmp") for mode in ("1", "L", "P", "RGB")]
    + [("RGB", ".webp"), ("RGBA", ".webp")],
)
def test_every_mode_is_read_as_it_was_written(tmp_path: Path, mode: str, suffix: str) -> None:
    image = picture_of(mode)
    path = tmp_path / f"picture{suffix}"
    image.save(path, **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    picture = read_picture(path)
    assert (picture.mode, picture.size) == (mode, SIZE)
    np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(image))
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    tensor = picture.to_tensor()
    assert tensor.shape == (1, 3, SIZE[1], SIZE[0])
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    exact = np.asarray(image, dtype=np.float64)[..., None] / 65535 if mode == "I;16" else None
    if exact is None:
        exact = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    error = tensor[0].permute(1, 2, 0).double().numpy() - (2 * exact - 1)
    assert np.abs(error).max() <= 2**-23  # two float32 roundings of numbers up to 1


def test_jpeg_and_its_phone_cousin_mpo_are_read_as_jpeg(tmp_path: Path) -> None:
    picture_of("RGB").save(tmp_path / "a.jpg")
    picture_of("RGB").save(tmp_path / "b.jpg", format="MPO", save_all=True, append_images=[picture_of("RGB", 1)])
    for name in ("a.jpg", "b.jpg"):
        picture = read_picture(tmp_path / name)
        with Image.open(tmp_path / name) as first:
            np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(first))
        assert picture.format == "JPEG"


def test_big_endian_16_bit_tiff_keeps_its_values(tmp_path: Path) -> None:
    values = np.asarray(picture_of("I;16"))
    image = Image.frombytes("I;16B", SIZE, values.astype(">u2").tobytes())
    image.save(tmp_path / "big.tif")
    with Image.open(tmp_path / "big.tif") as stored:
        assert stored.mode == "I;16B"
    picture = read_picture(tmp_path / "big.tif")
    assert picture.mode == "I;16"
    np.testing.assert_array_equal(np.asarray(picture.image), values)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_orientation_is_applied_exactly_once(tmp_path: Path, orientation: int, suffix: str) -> None:
    # Four flat quarters survive JPEG: red, green / blue, white.
    values = np.zeros((32, 48, 3), dtype=np.uint8)
    values[:16, :24, 0] = values[:16, 24:, 1] = values[16:, :24, 2] = 255
    values[16:, 24:] = 255
    rot = {1: 0, 2: 0, 3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}[orientation]  # EXIF: 6 = turn 90 degrees clockwise to view
    expected = np.rot90(values, rot)
    if orientation in (2, 4, 5, 7):
        expected = expected[:, ::-1]
    exif = Image.Exif()
    exif[274] = orientation
    exif[271] = "a camera"
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(values).save(path, exif=exif.tobytes())
    for source in (path, Image.open(path)):
        picture = read_picture(source)
        assert picture.size == (expected.shape[1], expected.shape[0])
        corners = (np.asarray(picture.image)[4::24, 4::24] > 127)[[0, -1]][:, [0, -1]]
        np.testing.assert_array_equal(corners, (expected[4::24, 4::24] > 127)[[0, -1]][:, [0, -1]])
        assert picture.exif is not None
        kept = Image.Exif()
        kept.load(picture.exif)
        assert 274 not in kept
        assert kept[271] == "a camera"
        again = read_picture(picture.image)
        np.testing.assert_array_equal(np.asarray(again.image), np.asarray(picture.image))
        if isinstance(source, Image.Image):
            source.close()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_plain_tiffs_turn_in_every_mode(tmp_path: Path, mode: str) -> None:
    # Opened by its name, such a file is memory-mapped by Pillow with its sides swapped, and comes out scrambled.
    image = picture_of(mode)
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "turned.tif", exif=exif.tobytes())
    with Image.open(tmp_path / "turned.tif") as opened:
        for source in (tmp_path / "turned.tif", opened):
            np.testing.assert_array_equal(np.asarray(read_picture(source).image), np.rot90(np.asarray(image), -1))


def test_exif_of_a_tiff_travels_without_its_pixel_layout(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271] = "a camera"
    exif.get_ifd(34665)[0x9003] = "2020:01:02 03:04:05"
    picture_of("RGB").save(tmp_path / "a.tif", exif=exif.tobytes())
    block = read_picture(tmp_path / "a.tif").exif
    assert block is not None
    kept = Image.Exif()
    kept.load(block)
    assert set(kept) <= {271, 282, 283, 296, 34665}
    assert kept.get_ifd(34665)[0x9003] == "2020:01:02 03:04:05"


def test_icc_bytes_are_kept(tmp_path: Path) -> None:
    profile = bytes(range(256)) * 3
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        picture_of("RGB").save(tmp_path / f"a{suffix}", icc_profile=profile)
        assert read_picture(tmp_path / f"a{suffix}").icc == profile


def test_transparency_of_palette_and_single_colour_is_seen(tmp_path: Path) -> None:
    palette = picture_of("P")
    palette.save(tmp_path / "p.png", transparency=bytes([255, 0, 100]))
    alpha = read_picture(tmp_path / "p.png").alpha
    table = np.full(20, 255)
    table[1:3] = 0, 100
    np.testing.assert_array_equal(alpha, table[np.asarray(palette)])
    grey = picture_of("L")
    grey.save(tmp_path / "l.png", transparency=7)
    np.testing.assert_array_equal(read_picture(tmp_path / "l.png").alpha, np.where(np.asarray(grey) == 7, 0, 255))
    colour = picture_of("RGB")
    colour.putpixel((3, 4), (1, 2, 3))
    colour.save(tmp_path / "c.png", transparency=(1, 2, 3))
    alpha = read_picture(tmp_path / "c.png").alpha
    assert alpha is not None
    assert alpha[4, 3] == 0
    assert (alpha == 0).sum() == (np.asarray(colour) == (1, 2, 3)).all(axis=2).sum()


def test_one_channel_for_grey_pictures_only() -> None:
    grey = read_picture(picture_of("L"))
    assert grey.to_tensor(channels=1).shape == (1, 1, 30, 40)
    assert torch.equal(grey.to_tensor(), grey.to_tensor(channels=1).expand(1, 3, -1, -1))
    equal_channels = read_picture(picture_of("L").convert("RGB"))
    assert torch.equal(equal_channels.to_tensor(channels=1), grey.to_tensor(channels=1))
    with pytest.raises(UsageError, match="has colours, but one channel"):
        read_picture(picture_of("RGB")).to_tensor(channels=1)


def test_the_callers_image_is_left_alone() -> None:
    image = picture_of("RGB")
    picture = read_picture(image)
    image.paste((0, 0, 0), (0, 0, 40, 30))
    assert np.asarray(picture.image).any()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_truncated_files_are_one_sentence(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    picture_of("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UsageError, match=r"cut\.\w+ is (damaged or incomplete|not a picture)"):
        read_picture(path)


def test_what_is_no_usable_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    picture_of("RGB").save(tmp_path / "still.gif")
    (tmp_path / "drawing.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n")
    cases = {
        "missing.png": "does not exist; check the path",
        "text.png": "is not a picture that can be read",
        "empty.png": "is not a picture that can be read",
        "still.gif": "is a file of the format GIF; convert it",
        "drawing.png": "is a file of the format EPS; convert it",
        ".": "cannot be opened",
    }
    for name, sentence in cases.items():
        with pytest.raises(UsageError, match=sentence):
            read_picture(tmp_path / name)


def test_animations_and_pages_are_refused(tmp_path: Path) -> None:
    frames = [picture_of("RGB", seed) for seed in range(3)]
    for name in ("a.png", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(UsageError, match="has several frames or pages"):
            read_picture(tmp_path / name)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_other_modes_are_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    Image.new(mode, SIZE).save(path)
    # Pillow before 13 cannot read its own YCbCr TIFF.
    with pytest.raises(UsageError, match="which is not supported" + "|truncated" * (mode == "YCbCr")):
        read_picture(path)
    with pytest.raises(UsageError, match=f"is in mode {mode}, which is not supported"):
        read_picture(Image.new(mode, SIZE))


@pytest.mark.parametrize(("colour", "samples"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_is_never_halved(tmp_path: Path, colour: int, samples: int) -> None:
    path = png_file(tmp_path / "deep.png", 20, 20, 16, colour, 20 * samples * 2)
    opened = Image.open(path)
    loaded = Image.open(path)
    loaded.load()
    for source in (opened, loaded, *[path][: colour == 4]):
        with pytest.raises(UsageError, match="16 bits a channel, of which 8 would be read; give the path"):
            read_picture(source)
    if colour != 4:
        assert np.asarray(read_picture(path).image).dtype == np.uint16
    opened.close()


def test_sizes_from_16_pixels_to_40_megapixels(tmp_path: Path) -> None:
    assert read_picture(Image.new("RGB", (16, 16))).size == (16, 16)
    assert read_picture(Image.new("1", (8000, 5000))).size == (8000, 5000)
    with pytest.raises(UsageError, match="is 15x40; a picture needs at least 16 pixels"):
        read_picture(Image.new("RGB", (15, 40)))
    with pytest.raises(UsageError, match=r"is 8000x5001 \(40.0 megapixels\); make it at most 40 megapixels"):
        read_picture(Image.new("1", (8000, 5001)))
    # Above Pillow's own warning (89 megapixels) and its own error (179): the sentence is ours, without a warning.
    for side, sentence in ((10_000, r"is 10000x10000 \(100.0 megapixels\)"), (20_000, "more than 40 megapixels")):
        path = png_file(tmp_path / "huge.png", side, side, 1, 0, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UsageError, match=sentence):
                read_picture(path)


def test_broken_exif_is_said_and_does_not_stop_the_picture(tmp_path: Path) -> None:
    picture_of("RGB").save(tmp_path / "a.jpg", exif=b"Exif\0\0garbage, not a table")
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.exif is None
    assert picture.size == SIZE


@pytest.mark.parametrize("size", [(17, 16), (160, 116), (1600, 20)])
def test_a_size_with_16_in_it_is_not_taken_for_16_bits(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").size == size


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_whose_bytes_have_changed_is_not_taken_as_whole(tmp_path: Path, mode: str) -> None:
    """A flipped bit in the compressed pixels, or in the checksum alone, which Pillow does not look at."""
    path = tmp_path / "a.png"
    picture_of(mode).save(path)
    whole = path.read_bytes()
    begin = whole.index(b"IDAT") + 4
    length = int.from_bytes(whole[begin - 8 : begin - 4], "big")
    for at in (begin + length // 2, begin + length - 1, begin + length + 2):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UsageError, match=r"a.png is damaged .*; copy or export it again"):
            read_picture(path)
    path.write_bytes(whole)
    assert read_picture(path).mode == mode


def test_indices_of_a_palette_that_is_not_there(tmp_path: Path) -> None:
    picture_of("P").save(tmp_path / "p.png")
    parts = [(kind, body) for kind, body in chunks_of((tmp_path / "p.png").read_bytes()) if kind != b"PLTE"]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, body) for kind, body in parts)
    (tmp_path / "p.png").write_bytes(data)
    with pytest.raises(UsageError, match="p.png has the indices of a palette and no palette; export it again in RGB"):
        read_picture(tmp_path / "p.png")
    with pytest.raises(UsageError, match="The picture has the indices of a palette and no palette"):
        read_picture(Image.frombytes("P", SIZE, bytes(SIZE[0] * SIZE[1])))


def test_indices_beyond_a_palette_are_black_and_stay(tmp_path: Path) -> None:
    """Written as they are, such indices would be cut to the bits that the palette needs."""
    image = picture_of("P")
    image.save(tmp_path / "p.png", bits=8)
    parts = [(k, body[:6] if k == b"PLTE" else body) for k, body in chunks_of((tmp_path / "p.png").read_bytes())]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, body) for kind, body in parts)
    (tmp_path / "p.png").write_bytes(data)
    picture = read_picture(tmp_path / "p.png")
    np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(image))
    assert (picture.values()[np.asarray(image) >= 2] == 0).all()
    save_picture(picture.image, tmp_path / "out.png", picture)
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "out.png").image), np.asarray(image))


def test_libraries_print_nothing(tmp_path: Path) -> None:
    """A TIFF whose codes are wrong, read in a process of its own: libtiff prints past Python's stderr."""
    data = io.BytesIO()
    picture_of("RGB").save(data, "TIFF", compression="tiff_lzw")
    broken = bytearray(data.getvalue())
    for at in range(200, len(broken) - 400, 7):
        broken[at] ^= 0x5A
    (tmp_path / "broken.tif").write_bytes(bytes(broken))
    code = "import sys\nfrom priorpaint import UsageError\nfrom priorpaint.imaging import read_picture\n"
    code += "try:\n    read_picture(sys.argv[1])\nexcept UsageError as error:\n    print(error)\n"
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "broken.tif")], capture_output=True, text=True, check=True
    )
    assert "broken.tif is damaged or incomplete" in run.stdout
    assert run.stderr == ""
