"""The main job on values of any type and range, and callers' numbers of any library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint import DenoiserPrior, PriorError, UsageError, inpaint, plan
from priorpaint.diffusion.schedules import VP
from priorpaint.inpainting.restoration import plan_restoration, restore
from priorpaint.operators import operator
from tests.command_line import exit_code

FAST: dict[str, Any] = {"method": "replacement", "steps": 3, "num_samples": 2}
HOLE = np.zeros((30, 40), dtype=bool)
HOLE[8:20, 10:25] = True


def flat_prior(value: float = 0.5, classes: int = 0) -> DenoiserPrior:
    """Every picture has this one value."""
    prior = DenoiserPrior(lambda x, t: torch.full_like(x, value), VP(), (3, None, None), multiple=8, data_std=0.5)
    prior.classes = classes
    return prior


def smooth(low: float, high: float, dtype: str, channels: int = 0) -> np.ndarray:
    rows, columns = np.indices(HOLE.shape)
    plane = low + (high - low) * (rows / 29 + columns / 39) / 2
    return (np.stack([plane] * channels, axis=-1) if channels else plane).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("uint16", 100, 700), ("float32", 290, 310), ("float64", -1e-6, 2e-6), ("int16", -30, 40), ("float32", 0.4, 0.5)],
)
@pytest.mark.parametrize("channels", [0, 3, 4])
def test_auto_shows_the_prior_the_span_and_fills_in_units_of_the_picture(
    dtype: str, low: float, high: float, channels: int
) -> None:
    values = smooth(low, high, dtype, channels)
    if channels == 4:
        values[..., 3] = 1 if dtype.startswith("f") else np.iinfo(dtype).max
    result = inpaint(values, HOLE, flat_prior(0.5), **FAST)
    bottom, top = result.info["image"]["range"]
    assert low - 1 <= bottom < top <= high + 1 and top - bottom > 0.9 * (high - low)
    assert result.info["call"]["value_range"] == "auto" and result.info["image"]["dtype"] == dtype
    assert len(result.warnings) == 1 and "which the prior sees as black to white" in result.warnings[0]
    for image in (*result.images, result.mean):
        filled = np.asarray(image)
        assert filled.dtype == values.dtype and filled.shape == values.shape
        np.testing.assert_array_equal(filled[~HOLE], values[~HOLE])
        colours = filled[..., :3] if channels else filled
        assert abs(colours[HOLE] - (bottom + 0.75 * (top - bottom))).max() <= (
            0.51 if dtype[0] != "f" else 1e-5 * abs(high)
        )
    json.dumps(result.info)


def test_the_prior_sees_the_span_as_minus_1_to_1_and_a_hot_pixel_as_white() -> None:
    values = smooth(100, 700, "uint16")
    values[0, 0] = 65535
    ready = plan(values, HOLE, flat_prior(0), value_range=(100, 700), **FAST)
    y = ready._job._frame_values()[0]  # type: ignore[attr-defined]
    unit = np.clip((values - 100.0) / 300 - 1, -1, 1)
    frame = y.shape[1:] == HOLE.shape
    assert frame and y.shape[0] == 3
    np.testing.assert_allclose(y.numpy(), np.stack([unit] * 3), atol=1e-6)
    filled = np.asarray(ready.run().images[0])
    assert filled[0, 0] == 65535 and abs(filled[HOLE] - 400.0).max() <= 1
    full = inpaint(values, HOLE, flat_prior(0), value_range="full", **FAST)
    assert full.info["image"]["range"] == [0, 65535] and full.warnings == ()
    assert abs(np.asarray(full.images[0])[HOLE] - 32768.0).max() <= 1


def test_a_dim_micrograph_is_filled_with_its_own_values_and_not_with_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command on a 16-bit file: far away where the prior sees the lowest hundredth of its values."""
    rows, columns = np.indices((48, 64))
    values = (400 + 250 * np.sin(rows / 11) * np.cos(columns / 13)).astype(np.uint16)
    hole = np.zeros((48, 64), np.uint8)
    hole[20:28, 28:36] = 255
    Image.fromarray(values).save(tmp_path / "cells.png")
    Image.fromarray(hole).save(tmp_path / "mask.png")
    out = tmp_path / "out"
    command = ["inpaint", str(tmp_path / "cells.png"), str(tmp_path / "mask.png"), "-o", str(out), "-n", "1"]
    errors: list[float] = []
    for options in ((), ("--range", "full", "--overwrite")):
        assert exit_code(monkeypatch, *command, "--set", "steps=10", "--quiet", *options) == 0
        filled = np.asarray(Image.open(out / "cells_0.png"))
        assert filled.dtype == np.uint16
        np.testing.assert_array_equal(filled[hole == 0], values[hole == 0])
        errors.append(float(np.sqrt(np.mean((filled[hole > 0] - values[hole > 0].astype(float)) ** 2))))
    assert errors[0] < 60 < 100 < errors[1], errors
    assert json.loads((out / "run.json").read_text())["image"]["range"] == [0, 65535]
    sheet = np.asarray(Image.open(out / "cells_sheet.png"))
    assert sheet.shape[2] == 3


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_nan_says_where_the_hole_is_at_the_command_line(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = smooth(290, 310, "float32")
    values[HOLE] = np.nan
    source, out = tmp_path / f"warm{suffix}", tmp_path / "out"
    np.save(source, values) if suffix == ".npy" else Image.fromarray(values).save(source)
    command = ["inpaint", str(source), "-o", str(out), "-n", "2", "--set", "steps=2", "--quiet"]
    assert exit_code(monkeypatch, *command, "--box", "0,0,4,4") == 2
    assert (
        "has 180 pixels outside the mask that are not numbers; repaint them with --mask-from nan"
        in capsys.readouterr().err
    )
    assert exit_code(monkeypatch, *command, "--mask-from", "nan") == 0
    assert "uses the values 290" in capsys.readouterr().err
    for k in range(2):
        path = out / f"warm_{k}{suffix}"
        filled = np.load(path) if suffix == ".npy" else np.asarray(Image.open(path))
        np.testing.assert_array_equal(filled[~HOLE], values[~HOLE])
        assert filled.dtype == np.float32 and (289 < filled).all() and (filled < 311).all()
    run = json.loads((out / "run.json").read_text())
    assert run["mask"]["nan"] is True and run["image"]["range"][0] > 289 and run["outputs"][0] == f"warm_0{suffix}"
    assert exit_code(monkeypatch, *command, "--mask-from", "nan", "--format", "png", "--overwrite") == 2
    assert "write TIFF or .npy instead" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--mask-from", "alpha", "--box", "0,0,4,4"], "--mask-from takes nan, not 'alpha'"),
        (["MASK", "--mask-from", "nan"], "--mask-from nan takes the place of a mask file"),
        (["--mask-from", "nan", "--mask-from-alpha"], "choose one"),
        (["--mask-from", "nan"], "has no value that is NaN, so nothing to repaint"),
        (["--box", "0,0,4,4", "--range", "9"], "a value range is auto, full or min,max"),
        (["--box", "0,0,4,4", "--page", "2"], "is no TIFF, and only a TIFF has pages"),
    ],
)
def test_wrong_use(
    tmp_path: Path,
    options: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.fromarray(smooth(0, 255, "uint8", 3)).save(tmp_path / "a.png")
    assert exit_code(monkeypatch, "inpaint", tmp_path / "a.png", *options, "-o", tmp_path / "out") == 2
    assert sentence in capsys.readouterr().err


def test_results_of_arrays_are_written_by_save_where_nothing_is_said(tmp_path: Path) -> None:
    values = smooth(0, 1000, "uint16", 3)
    result = inpaint(values, HOLE, flat_prior(), **FAST)
    files = result.save(tmp_path)
    assert [file.name for file in files[:2]] == ["picture_0.npy", "picture_1.npy"]
    np.testing.assert_array_equal(np.load(files[0]), np.asarray(result.images[0]))
    inpaint(values[..., 0], HOLE, flat_prior(), **FAST).save(tmp_path / "grey")
    assert (tmp_path / "grey" / "picture_0.png").exists(), "PNG holds 16-bit grey"


@pytest.mark.parametrize("asked", ["full", "auto", (0, 1000)])
def test_restoring_takes_a_range_too(asked: Any) -> None:
    y = (210 + 100 * np.sin(np.indices((16, 20)).sum(0) / 9)).astype(np.uint16)
    result = restore(y, "downsampling", flat_prior(), "diffpir", 1, value_range=asked, steps=2)
    out = np.asarray(result.images[0])
    assert out.dtype == np.uint16 and out.shape == (64, 80)
    assert result.info["call"]["value_range"] == (asked if isinstance(asked, str) else list(asked))
    again = operator("downsampling")(torch.from_numpy(out.astype(np.float64))[None, None]).numpy()
    np.testing.assert_allclose(again[0, 0], y, atol=3)  # clipping a corner apart, exact; in the own units
    floating = restore(y / 65535, "downsampling", flat_prior(), "diffpir", 1, steps=2)
    assert np.asarray(floating.images[0]).dtype == np.float64
    with pytest.raises(UsageError, match="a tensor has its values on"):
        plan_restoration(torch.zeros(1, 3, 16, 20), "downsampling", flat_prior(), value_range="auto")


@pytest.mark.parametrize("channels", [0, 3, 4])
@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
def test_extended_and_feathered_pictures_of_any_type_keep_their_values(dtype: str, channels: int) -> None:
    values = smooth(100, 700, dtype, channels)
    if channels == 4:
        values[..., 3] = 1 if dtype.startswith("f") else 65535
    result = inpaint(values, HOLE, flat_prior(0.5), extend=np.array([4, 0, 6, 2]), grow=1, feather=2, **FAST)
    out = np.asarray(result.images[0])
    assert out.dtype == values.dtype and out.shape[:2] == (32, 50) and result.known.shape == (32, 50)
    wide = np.zeros_like(out)
    wide[:30, 4:44] = values
    np.testing.assert_array_equal(out[result.known], wide[result.known])
    assert 100 <= out[..., :3].min() and out[..., :3].max() <= 700
    if channels == 4:
        assert (out[..., 3] == values[0, 0, 3]).all()


def test_a_seam_does_not_blend_with_what_is_no_number() -> None:
    values = smooth(290, 310, "float32")
    values[HOLE] = np.nan
    with pytest.raises(UsageError, match="there is nothing to blend with"):
        plan(values, "nan", flat_prior(), feather=2, **FAST)
    ready = plan(values, "nan", flat_prior(), grow=3, feather=2, **FAST)
    assert ready.weight is not None and (ready.weight[HOLE] == 1).all()
    assert np.isfinite(np.asarray(ready.run().images[0])).all()
    assert ready.preview().mode == "RGB"


@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize(
    ("dtype", "low", "high", "mark"),
    [
        ("uint16", 9000, 40000, 65535),
        ("float32", 0.1, 0.6, 1.0),
        ("float64", 290.0, 310.0, 900.0),
        ("int16", -9, 9, 32767),
    ],
)
def test_a_colour_and_a_difference_are_found_in_deep_values(
    dtype: str, low: float, high: float, mark: float, channels: int
) -> None:
    """The marks are white: the highest value of the type, or of floating values above 1 the highest there is."""
    clean = smooth(low, high, dtype, channels)
    marked = clean.copy()
    marked[HOLE] = mark
    for other in ({"mask_color": "#ffffff"}, {"mask_diff": clean}):
        ready = plan(marked, None, flat_prior(), **other, **FAST)
        np.testing.assert_array_equal(ready.known, ~HOLE)
        np.testing.assert_array_equal(np.asarray(ready.run().images[0])[~HOLE], marked[~HOLE])
    if not channels:
        text = str(mark).removesuffix(".0")
        np.testing.assert_array_equal(plan(marked, None, flat_prior(), mask_color=text, **FAST).known, ~HOLE)
    with pytest.raises(UsageError, match="no pixel of The picture has the colour #ff0000"):
        plan(marked, None, flat_prior(), mask_color="#ff0000", **FAST)
    with pytest.raises(UsageError, match="differ nowhere at all"):
        plan(marked, None, flat_prior(), mask_diff=marked, **FAST)


def test_a_coloured_mark_is_found_in_16_bit_colours() -> None:
    image = smooth(9000, 40000, "uint16", 3)
    image[HOLE] = (65535, 65535 - 257 * 10, 257 * 20)
    np.testing.assert_array_equal(plan(image, None, flat_prior(), mask_color="#ffff00", **FAST).known, ~HOLE)
    with pytest.raises(UsageError, match="the nearest is #fff514, off by 20"):
        plan(image, None, flat_prior(), mask_color="#ffff00", tolerance=19, **FAST)
    with pytest.raises(UsageError, match="has colours and not single values"):
        plan(image, None, flat_prior(), mask_color="15", **FAST)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_least_difference_of_deep_values_counts_without_a_tolerance(dtype: str) -> None:
    clean = smooth(0.1, 0.6, "float32") if dtype == "float32" else smooth(9000, 40000, "uint16")
    changed = clean.copy()
    changed[HOLE] = np.nextafter(clean[HOLE], 2) if dtype == "float32" else clean[HOLE] + 1
    np.testing.assert_array_equal(plan(changed, None, flat_prior(), mask_diff=clean, tolerance=0, **FAST).known, ~HOLE)
    with pytest.raises(UsageError, match="differ nowhere by more than 1; add --tolerance 0"):
        plan(changed, None, flat_prior(), mask_diff=clean, **FAST)


def test_nan_is_no_colour_and_equals_nan() -> None:
    clean = smooth(0.0, 1.0, "float32")
    clean[0, 0] = clean[1, 1] = np.nan
    other = clean.copy()
    other[1, 1], other[2, 2] = 0.5, np.nan
    with pytest.raises(UsageError, match="1 pixels outside the mask that are not numbers"):  # 0, 0 differs nowhere
        plan(clean, None, flat_prior(), mask_diff=other, **FAST)
    known = plan(clean, "nan", flat_prior(), mask_color="#808080", **FAST).known
    assert not known[0, 0] and not known[1, 1] and known[29, 39] and not known[15, 20]


# -- callers' numbers --------------------------------------------------------------------------------------------------


def test_numbers_of_numpy_are_numbers() -> None:
    image, prior = smooth(0, 255, "uint8", 3), flat_prior(classes=10)
    plain = inpaint(image, None, prior, boxes=[(2, 3, 8, 9)], seed=5, label=3, batch_size=1, **FAST)
    same = inpaint(
        image,
        None,
        prior,
        boxes=np.array([[2, 3, 8, 9]]),
        seed=np.int64(5),
        label=np.int32(3),
        batch_size=np.int64(1),
        guidance_scale=np.float32(1),
        **FAST | {"num_samples": np.int64(2)},
    )
    assert same.info["call"] == plain.info["call"] == json.loads(json.dumps(same.info["call"]))
    for a, b in zip(plain.images, same.images, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    marked = plan(image, HOLE.astype(np.uint8) * 7, prior, mask_color=np.int64(7), extend=np.ones(4, int), **FAST)
    assert (marked.info["call"]["mask_color"], marked.info["call"]["extend"]) == ([7], [1, 1, 1, 1])
    seeds = plain.info["sample_seeds"]
    for given in (seeds, tuple(seeds), np.array(seeds)):
        again = inpaint(image, None, prior, boxes=[(2, 3, 8, 9)], seed=given, **FAST)
        assert again.info["sample_seeds"] == seeds == again.info["call"]["seed"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": None}, "a seed is a whole number, or a list with one for each sample, not None"),
        ({"seed": 1.5}, "a seed is a whole number"),
        ({"seed": "12"}, "a seed is a whole number"),
        ({"seed": np.float64(3)}, "a seed is a whole number"),
        ({"seed": np.array(3.0)}, "a seed is a whole number"),
        ({"seed": [1, None]}, "each seed is one whole number, not None"),
        ({"seed": [1, 2, 3]}, "3 seeds were given for 2 samples"),
        ({"boxes": np.array([1, 2, 3, 4])}, r"boxes is a list of \(x, y, width, height\) in whole pixels, not array"),
        ({"boxes": (1, 2, 3, 4)}, "boxes is a list of"),
        ({"boxes": [(1, 2, 3)]}, "boxes is a list of"),
        ({"boxes": [(1, 2, 3, 4.5)]}, "boxes is a list of"),
        ({"boxes": np.zeros((1, 4))}, "boxes is a list of"),
        ({"boxes": ["1,2,3,4"]}, "boxes is a list of"),
        ({"boxes": 7}, "boxes is a list of"),
        ({"label": 10**20}, "knows the classes 0 to 9, not 100000000000000000000"),
        ({"label": -1}, "knows the classes 0 to 9, not -1"),
        ({"label": 2.0}, "label is one whole number, not 2.0"),
        ({"label": True}, "label is one whole number, not True"),
        ({"num_samples": 2.0}, "num_samples is one whole number"),
        ({"num_samples": None}, "num_samples is one whole number"),
        ({"batch_size": "2"}, "batch_size is one whole number"),
        ({"guidance_scale": "2"}, "guidance_scale is a number"),
        ({"guidance_scale": None}, "guidance_scale is a number"),
        ({"page": "1"}, "page is one whole number"),
        ({"image": torch.zeros(3, 30, 40)}, "and Tensor was given; convert it"),
        ({"image": [[1, 2], [3, 4]]}, "and list was given"),
        ({"mask": torch.zeros(30, 40)}, "The mask is a path, bytes, .* and Tensor was given"),
        ({"mask": [[True]]}, "The mask is a path, bytes, .* and list was given"),
        ({"mask": torch.zeros(30, 40)}, r"convert it: tensor.numpy\(\)\.$"),
        ({"image": np.ma.masked_less(smooth(0, 255, "float32"), 9)}, r"The picture is a masked array; give array.data"),
        ({"mask": np.ma.masked_array(HOLE, mask=HOLE)}, r"The mask is a masked array; give array.data"),
        ({"method": ["ddnm"]}, r"there is no method \['ddnm'\]; the methods are"),
        ({"mask_color": 5.5}, 'mask_color is a colour such as "#ffff00", a stored value, or several, not 5.5'),
        ({"mask_color": b"red"}, "mask_color is a colour"),
        ({"mask_color": [(255, 0, 0)]}, "mask_color is a colour"),
        ({"mask_color": ["red", None]}, "mask_color is a colour"),
        ({"extend": 5}, r"extend is \(left, top, right, bottom\) in whole pixels, not 5"),
        ({"extend": "1,2,3,4"}, "extend is"),
        ({"invert": "no"}, "invert is True or False, not 'no'"),
        ({"turn_mask": None}, "turn_mask is True or False, not None"),
        ({"prior_flags": 5}, "flags are a mapping of names to values, or text such as"),
        ({"device": "cuda"}, "the prior is on cpu, not on cuda; load it there, or name neither"),
        ({"prior_flags": {"a": 1}}, "prior_flags and offline are for a prior by name or path"),
        ({"offline": "no"}, "offline is True or False, not 'no'"),
        ({"prior": "photos", "device": 5.5}, "torch cannot use the device '5.5' here"),
        ({"on_event": 5}, "on_event is a function of one event, not 5"),
        ({"prompt": 5}, "prompt is text, not 5"),
        ({"negative_prompt": [b"x"]}, "negative_prompt is text, not"),
        ({"classifier": 5, "label": 1}, "classifier is a path, not 5"),
        ({"format": 5}, "replacement has no setting 'format'"),
    ],
)
def test_other_things_are_one_sentence(change: dict[str, Any], sentence: str) -> None:
    arguments = {"image": smooth(0, 255, "uint8", 3), "mask": HOLE, "prior": flat_prior(classes=10), **FAST, **change}
    with pytest.raises(UsageError, match=sentence) as error:
        plan(**arguments)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"on_event": 5}, "on_event is a function of one event, not 5"),
        ({"cancel": 5}, "cancel is a CancelToken, not 5"),
        ({"finished": 5}, "finished is a list of images"),
        ({"finished": None}, "finished is a list of images"),
        ({"finished": [5]}, "finished is a list of images"),
        ({"finished": [Image.new("RGB", (9, 9))]}, "finished is a list of images"),
        ({"finished": [Image.new("RGB", (40, 30))] * 3}, "finished is a list of images"),
    ],
)
def test_what_runs_take_is_one_sentence(change: dict[str, Any], sentence: str) -> None:
    ready = plan(smooth(0, 255, "uint8", 3), HOLE, flat_prior(), **FAST)
    with pytest.raises(UsageError, match=sentence):
        ready.run(**change)
    if "finished" not in change:
        calls: list[int] = []
        prior = DenoiserPrior(lambda x, t: calls.append(1) or x, VP(), (3, None, None), multiple=8)
        with pytest.raises(UsageError, match=sentence):
            inpaint(smooth(0, 255, "uint8", 3), HOLE, prior, **FAST, **change)
        with pytest.raises(UsageError, match=sentence):
            restore(smooth(0, 255, "uint8", 3), "downsampling", prior, "diffpir", 1, **change)
        assert not calls


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"folder": 5}, "folder is a path, not 5"),
        ({"folder": None}, "folder is a path, not None"),
        ({"stem": 5}, "stem is text, not 5"),
        ({"format": 5}, "format is text, not 5"),
        ({"overwrite": "no"}, "overwrite is True or False, not 'no'"),
        ({"read_back": 2}, "read_back is True or False, not 2"),
    ],
)
def test_what_saving_takes_is_one_sentence(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    result = inpaint(smooth(0, 255, "uint8", 3), HOLE, flat_prior(), **FAST)
    with pytest.raises(UsageError, match=sentence):
        result.save(**{"folder": tmp_path / "out", **change})
    assert not (tmp_path / "out").exists()


def test_a_prior_that_fails_is_still_told(tmp_path: Path) -> None:
    with pytest.raises(PriorError):
        inpaint(smooth(290, 310, "float32"), HOLE, flat_prior(float("nan")), **FAST)
