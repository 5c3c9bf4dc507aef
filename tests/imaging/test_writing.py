"""Back to pictures and files: known pixels bit-identical in every mode and lossless format; files whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint.errors import PriorError, UsageError
from priorpaint.imaging import (
    check_output,
    compose,
    lossy,
    mask_from_alpha,
    read_picture,
    save_picture,
    write_array_atomic,
    write_bytes_atomic,
    write_text_atomic,
)

WIDTH, HEIGHT = 40, 30
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def picture_of(mode: str, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    shape = (HEIGHT, WIDTH)
    if mode == "1":
        return Image.fromarray(rng.integers(0, 2, shape).astype(bool))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, shape).astype(np.uint16))
    if mode == "P":
        image = Image.frombytes("P", (WIDTH, HEIGHT), rng.integers(0, 20, shape).astype(np.uint8).tobytes())
        image.putpalette(rng.integers(0, 256, 60).astype(np.uint8).tobytes())
        return image
    values = rng.integers(0, 256, (*shape, len(mode)) if len(mode) > 1 else shape)
    return Image.fromarray(values.astype(np.uint8))


def some_known() -> np.ndarray:
    return np.random.default_rng(7).random((HEIGHT, WIDTH)) > 0.3


def some_completion(channels: int = 3) -> torch.Tensor:
    values = np.random.default_rng(8).uniform(-1.2, 1.2, (channels, HEIGHT, WIDTH))
    return torch.from_numpy(values.astype(np.float32))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_known_pixels_are_bit_identical_and_the_hole_is_filled(mode: str, channels: int) -> None:
    picture = read_picture(picture_of(mode))
    known, completion = some_known(), some_completion(channels)
    before = np.asarray(picture.image).copy()
    filled = compose(picture, completion, known)
    assert (filled.mode, filled.size) == (mode, (WIDTH, HEIGHT))
    after = np.asarray(filled)
    np.testing.assert_array_equal(after[known], before[known])
    np.testing.assert_array_equal(np.asarray(picture.image), before)

    exact = (completion.double().clamp(-1.2, 1.2).permute(1, 2, 0).numpy()[~known] + 1) / 2
    if mode in ("1", "L", "LA", "I;16"):
        grey = exact[:, 0] if channels == 1 else exact @ (0.299, 0.587, 0.114)
        levels = {"1": 1, "I;16": 65535}.get(mode, 255)
        wanted = np.clip(grey, 0, 1) * levels
        got = (after[..., 0] if mode == "LA" else after)[~known].astype(float)
        assert np.abs(got - wanted).max() <= 0.5 + 1e-9
    elif mode in ("RGB", "RGBA"):
        wanted = np.clip(np.broadcast_to(exact, (len(exact), 3)), 0, 1) * 255
        assert np.abs(after[..., :3][~known] - wanted).max() <= 0.5 + 1e-9
    if mode in ("LA", "RGBA"):
        np.testing.assert_array_equal(after[..., -1], before[..., -1])


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "P"])
def test_a_picture_as_its_own_completion_comes_back_unchanged(mode: str) -> None:
    image = picture_of(mode)
    if mode == "I;16":
        image = Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256))
    picture = read_picture(image)
    nothing = np.zeros((image.height, image.width), dtype=bool)
    filled = compose(picture, picture.to_tensor()[0], nothing)
    np.testing.assert_array_equal(np.asarray(filled), np.asarray(image))


def test_palette_pictures_take_the_nearest_colour_and_keep_other_indices() -> None:
    image = picture_of("P")
    picture, known, completion = read_picture(image), some_known(), some_completion()
    filled = compose(picture, completion, known)
    table = np.array(image.getpalette()).reshape(-1, 3).astype(float)
    assert filled.getpalette() == image.getpalette()
    colours = np.rint((completion.clamp(-1, 1).permute(1, 2, 0).double().numpy()[~known] + 1) * 127.5)
    distance = ((colours[:, None] - table) ** 2).sum(axis=2)
    chosen = np.asarray(filled)[~known]
    np.testing.assert_array_equal(distance[np.arange(len(chosen)), chosen], distance.min(axis=1))


def test_palette_transparency_is_not_hit_by_chance() -> None:
    image = picture_of("P")
    image.info["transparency"] = bytes([0, 90]) + bytes([255] * 18)
    picture, known = read_picture(image), some_known()
    before = np.asarray(image)
    kept = np.asarray(compose(picture, some_completion(), known))
    clear = before < 2
    np.testing.assert_array_equal(kept[clear], before[clear])
    assert (kept[~clear & ~known] >= 2).all()
    opaque = np.asarray(compose(picture, some_completion(), known, opaque_holes=True))
    assert (opaque[~known] >= 2).all()
    np.testing.assert_array_equal(opaque[known], before[known])


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "I;16"])
def test_a_transparent_colour_is_not_hit_by_chance(tmp_path: Path, mode: str) -> None:
    key = {"1": 0, "RGB": (255, 255, 255), "I;16": 65535}.get(mode, 255)
    image = picture_of(mode)
    for x in range(8):
        image.putpixel((x, 3), key)
    image.save(tmp_path / "a.png", transparency=key)
    picture = read_picture(tmp_path / "a.png")
    assert picture.alpha is not None
    known = some_known()
    extreme = torch.full((3, HEIGHT, WIDTH), -1.0 if mode == "1" else 1.0)
    filled = compose(picture, extreme, known)
    save_picture(filled, tmp_path / "b.png", picture)
    np.testing.assert_array_equal(read_picture(tmp_path / "b.png").alpha, picture.alpha)
    np.testing.assert_array_equal(np.asarray(filled)[known], np.asarray(picture.image)[known])
    opaque = compose(picture, extreme, known, opaque_holes=True)
    save_picture(opaque, tmp_path / "c.png", picture)
    alpha = read_picture(tmp_path / "c.png").alpha
    assert alpha is not None
    np.testing.assert_array_equal(alpha, np.where(known, picture.alpha, 255))


def test_holes_from_transparency_become_opaque() -> None:
    rgba = np.array(picture_of("RGBA"))
    rgba[..., 3] = np.where(some_known(), 200, 0)
    picture = read_picture(Image.fromarray(rgba))
    known = mask_from_alpha(picture).known
    after = np.asarray(compose(picture, some_completion(), known, opaque_holes=True))
    np.testing.assert_array_equal(after[..., 3], np.where(known, 200, 255))
    np.testing.assert_array_equal(after[known], rgba[known])


def test_completions_that_do_not_fit() -> None:
    picture = read_picture(picture_of("RGB"))
    with pytest.raises(UsageError, match=r"must be \(1 or 3, 30, 40\), but it is \(3, 40, 30\)"):
        compose(picture, torch.zeros(3, 40, 30), some_known())
    with pytest.raises(UsageError, match=r"The mask must be \(30, 40\)"):
        compose(picture, some_completion(), some_known().T)
    broken = some_completion()
    broken[:, ~torch.from_numpy(some_known())] = torch.nan
    with pytest.raises(PriorError, match="not numbers"):
        compose(picture, broken, some_known())
    unread = some_completion()
    unread[:, torch.from_numpy(some_known())] = torch.nan
    compose(picture, unread, some_known())


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [(mode, suffix) for mode in MODES for suffix in (".png", ".tiff")]
    + [(mode, ".webp") for mode in MODES if mode != "I;16"]
    + [(mode, ".bmp") for mode in ("1", "L", "P", "RGB")],
)
def test_lossless_files_bring_known_pixels_back_bit_identical(tmp_path: Path, mode: str, suffix: str) -> None:
    picture_of(mode).save(tmp_path / "in.png")
    picture, known = read_picture(tmp_path / "in.png"), some_known()
    filled = compose(picture, some_completion(), known)
    path = tmp_path / f"out{suffix}"
    assert not lossy(path)
    save_picture(filled, path, picture)
    with Image.open(path) as back:
        back.load()
    if suffix != ".webp":
        assert back.mode == mode
        np.testing.assert_array_equal(np.asarray(back), np.asarray(filled))
        np.testing.assert_array_equal(np.asarray(back)[known], np.asarray(picture.image)[known])
        return
    np.testing.assert_array_equal(np.asarray(back), np.asarray(filled.convert(back.mode)))
    original = np.asarray(picture.image.convert(back.mode))
    np.testing.assert_array_equal(np.asarray(back)[known], original[known])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_icc_and_exif_are_kept_without_the_orientation(tmp_path: Path, suffix: str) -> None:
    profile = bytes(range(256))
    exif = Image.Exif()
    exif[274] = 6
    exif[271] = "a camera"
    exif.get_ifd(34665)[0x9003] = "2020:01:02 03:04:05"
    picture_of("RGB").save(tmp_path / "in.jpg", exif=exif.tobytes(), icc_profile=profile, dpi=(300, 300))
    picture = read_picture(tmp_path / "in.jpg")
    path = tmp_path / f"out{suffix}"
    save_picture(picture.image, path, picture)
    again = read_picture(path)
    assert again.size == (HEIGHT, WIDTH)
    assert again.icc == profile
    assert again.exif is not None
    kept = Image.Exif()
    kept.load(again.exif)
    assert 274 not in kept
    assert kept[271] == "a camera"
    assert kept.get_ifd(34665)[0x9003] == "2020:01:02 03:04:05"
    if suffix != ".webp":
        assert again.image.info["dpi"] == pytest.approx((300, 300), abs=0.01)


@pytest.mark.parametrize("suffix", [".tif", ".webp"])
def test_palette_transparency_survives_formats_without_it(tmp_path: Path, suffix: str) -> None:
    picture_of("P").save(tmp_path / "in.png", transparency=bytes([0, 90]))
    picture = read_picture(tmp_path / "in.png")
    save_picture(picture.image, tmp_path / f"out{suffix}", picture)
    again = read_picture(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(np.asarray(again.image), np.asarray(picture.image.convert("RGBA")))


def test_jpeg_is_lossy_and_has_full_colour_resolution(tmp_path: Path) -> None:
    for suffix in (".jpg", ".JPEG"):
        assert lossy(f"a{suffix}")
        save_picture(picture_of("RGB"), tmp_path / f"a{suffix}")
        with Image.open(tmp_path / f"a{suffix}") as image:
            assert {layer[1:3] for layer in image.layer} == {(1, 1)}
    save_picture(picture_of("P"), tmp_path / "p.jpg")


@pytest.mark.parametrize(
    ("name", "mode", "sentence"),
    [
        ("a.gif", "RGB", "has no picture suffix; use one of .png, .jpg"),
        ("a", "RGB", "has no picture suffix"),
        ("a.jpg", "RGBA", "cannot keep the picture's transparency"),
        ("a.bmp", "LA", "cannot keep the picture's transparency"),
        ("a.jpg", "I;16", "cannot keep the picture's 16 bits"),
        ("a.webp", "I;16", "cannot keep the picture's 16 bits"),
    ],
)
def test_formats_that_cannot_hold_the_picture(tmp_path: Path, name: str, mode: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_output(tmp_path / name, read_picture(picture_of(mode)))
    with pytest.raises(UsageError, match=sentence):
        save_picture(picture_of(mode), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_sides_that_webp_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sides of more than 16383 pixels"):
        save_picture(Image.new("RGB", (16384, 16)), tmp_path / "a.webp")


def test_texts_bytes_and_arrays(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "a.txt", "grün\n")
    assert (tmp_path / "a.txt").read_bytes() == "grün\n".encode()
    write_bytes_atomic(tmp_path / "a.txt", b"new")
    assert (tmp_path / "a.txt").read_bytes() == b"new"
    array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    write_array_atomic(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "a.txt"]


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    write_bytes_atomic(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    save_picture(picture_of("RGB"), path)
    old = path.read_bytes()

    def interrupted(self: Image.Image, file: object, **options: object) -> None:
        file.write(b"half a picture")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_picture(picture_of("RGB", 1), path)
    assert path.read_bytes() == old

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UsageError, match="cannot be written .No space left on device."):
            save_picture(picture_of("RGB", 1), path)
    assert path.read_bytes() == old
    with pytest.raises(ValueError, match="pickle"):
        write_array_atomic(path, np.array([object()]))
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a.txt cannot be written .No such file or directory.; check the folder"):
        write_text_atomic(tmp_path / "missing" / "a.txt", "")
