"""The main job as a call: known pixels, modes, seeds, statistics against a closed form, cancelling, files."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from priorpaint import Cancelled, CancelToken, DenoiserPrior, PriorError, Result, Stopped, UsageError, inpaint
from priorpaint.diffusion.schedules import EDM
from priorpaint.imaging import read_picture
from priorpaint.inpainting import coarse_to_fine, job, levels
from priorpaint.inpainting import method as choosing
from priorpaint.inpainting.events import Completion, Event, Step
from priorpaint.inpainting.windows import Box, Window
from priorpaint.priors.base import Denoising
from priorpaint.priors.cfg import CFGPrior
from priorpaint.solvers import Cost, Solver, solver
from priorpaint.solvers.base import Task
from priorpaint.solvers.vipaint import VIPaint

MEAN, STD = 0.2, 0.1
SIZES = [(17, 16), (333, 257), (64, 48)]
MODES = ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"]
FAST: dict[str, Any] = {"method": "replacement", "steps": 4}


def white_prior(mean: float = MEAN, std: float = STD, channels: int = 3) -> DenoiserPrior:
    """Pixels are independent N(mean, std^2), so a completion does not depend on what is known."""
    schedule = EDM(sigma_min=0.01, sigma_max=8)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        variance = schedule.sigma(t).to(x_t).reshape(-1, 1, 1, 1) ** 2
        return (std**2 * x_t + variance * mean) / (std**2 + variance)

    return DenoiserPrior(denoise, schedule, (channels, None, None), multiple=16, data_std=std, name="white")


@dataclass(frozen=True)
class Recorder(Solver):
    """Fills the unknown with the mean of the known and remembers what it was given."""

    seen: list[tuple[Tensor, Tensor]]
    title: ClassVar[str] = "recorder"
    reference: ClassVar[str] = "-"
    needs: ClassVar[frozenset[str]] = frozenset()
    about: ClassVar[str] = "For tests."
    cost_formula: ClassVar[str] = "1"

    def cost(self, num_samples: int = 1) -> Cost:
        return Cost(num_samples, 0)

    def _steps(self) -> int:
        return 1

    def _run(self, task: Task) -> Tensor:
        known = task.operator(torch.ones_like(task.y))
        self.seen.append((task.y.clone(), known.clone()))
        mean = task.y.sum((1, 2, 3), keepdim=True) / known.sum((1, 2, 3), keepdim=True).clamp(min=1)
        task.report(1, task.y)
        return torch.where(known > 0, task.y, mean)


def ancestral_std(method: Solver, prior: DenoiserPrior, start_variance: float, std: float = STD) -> float:
    """Standard deviation of the ancestral sampler for N(., std^2): each step is linear, x_s = w x_t + (1 - w) D + noise
    with w = sigma_s^2 / sigma_t^2 and D = std^2 / (std^2 + sigma_t^2) x_t + constant."""
    sigmas = prior.schedule.sigma(prior.schedule.grid(method.steps, start=method.t_init)).tolist()  # type: ignore[attr-defined]
    variance = start_variance + sigmas[0] ** 2
    for sigma_t, sigma_s in zip(sigmas[:-1], sigmas[1:], strict=True):
        w = sigma_s**2 / sigma_t**2
        gain = w + (1 - w) * std**2 / (std**2 + sigma_t**2)
        variance = gain**2 * variance + sigma_s**2 * (1 - w)
    return float(np.sqrt(variance))


def picture(mode: str = "RGB", size: tuple[int, int] = (64, 48), seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    width, height = size
    if mode == "I;16":
        return Image.frombytes("I;16", size, rng.integers(0, 65536, (height, width), dtype=np.uint16).tobytes())
    colour = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
    if mode in ("RGBA", "LA"):
        colour.putalpha(200)
        return colour.convert(mode)
    return colour.convert("RGB").quantize(16) if mode == "P" else colour.convert("RGB").convert(mode)


def hole_in(size: tuple[int, int]) -> np.ndarray:
    width, height = size
    hole = np.zeros((height, width), dtype=bool)
    hole[height // 4 : height // 2, width // 3 : width // 2 + 2] = True
    hole[-3:, -4:] = True
    return hole


def raw(image: Image.Image) -> np.ndarray:
    return np.array(image)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_mode_and_size_stay_and_known_pixels_are_bit_identical(mode: str, size: tuple[int, int]) -> None:
    image, hole = picture(mode, size), hole_in(size)
    result = inpaint(image, hole, white_prior(), num_samples=2, **FAST)
    assert len(result.images) == 2
    for filled in (*result.images, result.mean):
        assert filled.mode == mode and filled.size == size
        assert np.array_equal(raw(filled)[~hole], raw(image)[~hole])
        assert not np.array_equal(raw(filled)[hole], raw(image)[hole])
    assert result.uncertainty is not None
    assert result.uncertainty.shape == hole.shape and result.uncertainty.dtype == np.float32
    assert (result.uncertainty[~hole] == 0).all()


def test_samples_mean_and_uncertainty_have_the_law_of_the_prior() -> None:
    hole = np.zeros((48, 64), dtype=bool)
    hole[4:44, 4:60] = True
    prior, method, count = white_prior(), solver("replacement", steps=40), 16
    result = inpaint(picture(), hole, prior, method, num_samples=count)
    values = np.stack([raw(image)[hole] for image in result.images]) / 127.5 - 1
    std = ancestral_std(method, prior, STD**2)
    assert 0.85 * STD < std < STD
    number = values[0].size
    # Rounding to 256 levels adds a variance of (2 / 255)^2 / 12 and moves no mean.
    variance = std**2 + (2 / 255) ** 2 / 12
    assert values.mean() == pytest.approx(MEAN, abs=5 * std / np.sqrt(count * number))
    spread = 5 * np.sqrt(2 / (count - 1) / number)
    assert values.var(axis=0, ddof=1).mean() == pytest.approx(variance, rel=spread)
    assert result.uncertainty is not None
    assert result.uncertainty[hole] == pytest.approx(values.std(axis=0, ddof=1).mean(axis=-1), abs=0.004)
    assert raw(result.mean)[hole] / 127.5 - 1 == pytest.approx(values.mean(axis=0), abs=2 / 255)


def test_one_sample_has_no_uncertainty(tmp_path: Path) -> None:
    """Not one of 0, which would call noise certain: no map, no files of one, and a sheet without its colours."""
    result = inpaint(picture(), hole_in((64, 48)), white_prior(), num_samples=1, **FAST)
    assert result.uncertainty is None
    names = ["a_0.png", "a_mean.png", "a_sheet.png", "run.json"]
    assert [file.name for file in result.save(tmp_path, "a")] == names
    assert sorted(file.name for file in tmp_path.iterdir()) == names


def test_replacing_a_run_leaves_none_of_its_files(tmp_path: Path) -> None:
    hole = hole_in((64, 48))
    inpaint(picture(), hole, white_prior(), num_samples=3, **FAST).save(tmp_path, "a")
    (tmp_path / "a_notes.txt").touch()
    files = inpaint(picture(), hole, white_prior(), num_samples=1, seed=1, **FAST).save(tmp_path, "a", overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["a_notes.txt", *(file.name for file in files)])


@pytest.mark.parametrize("option", ["mask", "mask_diff"])
def test_a_run_never_replaces_what_it_reads(tmp_path: Path, option: str) -> None:
    image, own = picture(), tmp_path / "a_1.png"
    image.save(tmp_path / "a.png")
    marked = image.copy()
    marked.paste("red", (8, 8, 20, 20))
    other = Image.fromarray(hole_in(image.size)) if option == "mask" else marked
    other.save(own)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a_mean.png").symlink_to(own)
    before = own.read_bytes()
    result = inpaint(tmp_path / "a.png", prior=white_prior(), num_samples=2, **{option: own}, **FAST)
    for folder in (tmp_path, tmp_path / "links"):
        with pytest.raises(UsageError, match="is an input of this run, which would replace it; choose another folder"):
            result.save(folder, overwrite=True)
    assert own.read_bytes() == before and len(list(tmp_path.iterdir())) == 3
    assert len(result.save(tmp_path, "b", overwrite=True)) == 7


def test_a_name_that_is_too_long_is_told_in_a_folder_with_results_too(tmp_path: Path) -> None:
    result = inpaint(picture(), hole_in((64, 48)), white_prior(), num_samples=1, **FAST)
    result.save(tmp_path, "a")
    with pytest.raises(UsageError, match=r"has 25\d bytes, and .* allows 255; give the picture"):
        result.save(tmp_path, "b" * 249)


def test_a_sample_depends_on_its_seed_and_not_on_its_company() -> None:
    hole = hole_in((64, 48))
    four = inpaint(picture(), hole, white_prior(), num_samples=4, seed=7, batch_size=4, **FAST)
    for batch_size in (1, 3):
        again = inpaint(picture(), hole, white_prior(), num_samples=4, seed=7, batch_size=batch_size, **FAST)
        assert all(np.array_equal(raw(a), raw(b)) for a, b in zip(four.images, again.images, strict=True))
    alone = inpaint(picture(), hole, white_prior(), num_samples=1, seed=[four.info["sample_seeds"][2]], **FAST)
    assert np.array_equal(raw(alone.images[0]), raw(four.images[2]))
    other = inpaint(picture(), hole, white_prior(), num_samples=4, seed=8, **FAST)
    pictures = [raw(image)[hole].tobytes() for image in (*four.images, *other.images)]
    assert len(set(pictures)) == 8


@pytest.fixture
def one_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holes of these tests are filled at full size only, so that steps can be counted."""
    monkeypatch.setattr(levels, "COARSE_ABOVE", 96)


@pytest.mark.usefixtures("one_scale")
def test_info_reproduces_the_run() -> None:
    hole = hole_in((64, 48))
    first = inpaint(picture(), hole, white_prior(), num_samples=3, seed=5, method="repaint", steps=6, jump_length=2)
    call = json.loads(json.dumps(first.info))["call"]
    assert call["method"] == "repaint" and call["steps"] == 6 and call["resamplings"] == 10  # defaults are written out
    again = inpaint(picture(), hole, white_prior(), **call)
    assert all(np.array_equal(raw(a), raw(b)) for a, b in zip(first.images, again.images, strict=True))
    assert first.info["nfe"] == {"forward": 3 * solver("repaint", steps=6, jump_length=2).cost().forward, "backward": 0}


@pytest.mark.parametrize("count", [1, 2])
def test_a_notebook_shows_sheet_seeds_and_warnings(count: int) -> None:
    result = replace(inpaint(picture(), hole_in((64, 48)), white_prior(), num_samples=count, **FAST), warnings=())
    line = f"Result({count} sample{'s' * (count > 1)} of 64 x 48 RGB, replacement on white, seed 0"
    assert repr(result) == f"{line})" and repr(replace(result, warnings=("a", "b"))) == f"{line}, 2 warnings)"
    html = replace(result, warnings=("a < b",))._repr_html_()
    assert "<li>a &lt; b</li>" in html and ", ".join(map(str, result.info["sample_seeds"])) in html
    sheet = Image.open(BytesIO(base64.b64decode(html.partition("base64,")[2].partition('"')[0])))
    assert sheet.width > (2 + count) * 64 and sheet.height > 48


def test_the_default_method_and_changes_to_it() -> None:
    name, narrow, wide = choosing.DEFAULT_METHOD, choosing.NARROW_SETTINGS, choosing.WIDE_SETTINGS
    assert choosing.choose_solver(None, {}) == solver(name, **narrow)
    assert choosing.choose_solver(None, {"steps": 3}) == solver(name, **{**narrow, "steps": 3})
    assert choosing.choose_solver("dps", {"steps": 3}) == solver("dps", steps=3)
    default = solver(name, **narrow)
    assert choosing.for_width(default, {}, choosing.WIDE) == default
    assert choosing.for_width(default, {}, choosing.WIDE + 1) == solver(name, **{**narrow, **wide})
    three = solver(name, **{**narrow, "steps": 3})
    assert choosing.for_width(three, {"steps": 3}, choosing.WIDE + 1) == solver(name, **{**narrow, **wide, "steps": 3})
    assert choosing.for_width(default, {"preset": "paper"}, choosing.WIDE + 1) == default


@pytest.mark.usefixtures("one_scale")
def test_the_widest_hole_decides_the_default_settings() -> None:
    for side, settings in ((20, choosing.NARROW_SETTINGS), (80, choosing.WIDE_SETTINGS)):
        hole = np.zeros((112, 112), dtype=bool)
        hole[8 : 8 + side, 8 : 8 + side] = True
        call = inpaint(picture(size=(112, 112)), hole, white_prior(), num_samples=1).info["call"]
        assert settings.items() <= call.items()


def test_settings_of_windows_that_start_near_their_answer() -> None:
    name, narrow, refine = choosing.DEFAULT_METHOD, choosing.NARROW_SETTINGS, choosing.REFINE_SETTINGS
    default = solver(name, **narrow)
    width = choosing.WIDE
    assert choosing.refiner_for(default, False, {}, width, None) == solver(name, **{**narrow, **refine})
    wide = choosing.refiner_for(default, False, {"steps": 9}, width + 1, {"bottom": 0.5})
    assert wide == solver(name, **{**narrow, **refine, **choosing.WIDE_REFINE_SETTINGS, "steps": 9, "bottom": 0.5})
    assert choosing.refiner_for(default, True, {}, width, None) is None
    assert choosing.refiner_for(default, False, {"preset": "reference"}, width, None) is None
    with pytest.raises(UsageError, match="VIPaint does not start from given images; refine is for copaint, "):
        choosing.refiner_for(solver("vipaint"), True, {}, width, {"steps": 3})


def test_thin_holes_start_from_a_smooth_fill_and_a_record_says_how() -> None:
    hole = np.zeros((96, 96), dtype=bool)
    hole[40:44, 20:76] = True
    image, prior = picture("RGB", (96, 96)), white_prior()
    result = inpaint(image, hole, prior, num_samples=2)
    assert [window["start"] for window in result.info["windows"]] == ["smooth"]
    refiner = solver(choosing.DEFAULT_METHOD, **{**choosing.NARROW_SETTINGS, **choosing.REFINE_SETTINGS})
    steps = refiner.started_at(prior.schedule, coarse_to_fine.REFINE_RATIO).steps
    assert steps < refiner.steps and result.info["nfe"]["forward"] == 2 * steps
    assert result.info["uncertainty"].startswith("standard deviation over the n samples")
    call = json.loads(json.dumps(result.info))["call"]
    again = inpaint(image, hole, prior, **call)
    assert all(np.array_equal(raw(a), raw(b)) for a, b in zip(result.images, again.images, strict=True))
    named = inpaint(image, hole, prior, choosing.DEFAULT_METHOD, num_samples=1, steps=5)
    assert [window["start"] for window in named.info["windows"]] == ["noise"] and named.info["nfe"]["forward"] == 5


def test_boxes_arrays_files_and_polarity_say_the_same(tmp_path: Path) -> None:
    hole = np.zeros((48, 64), dtype=bool)
    hole[10:20, 30:45] = True
    white = Image.fromarray(hole.astype(np.uint8) * 255)
    white.save(tmp_path / "mask.png")
    ways: list[dict[str, Any]] = [
        {"mask": hole},
        {"mask": hole.astype(np.uint8)},
        {"mask": hole.astype(np.uint8) * 255},
        {"mask": hole.astype(np.float64)},
        {"mask": white},
        {"mask": tmp_path / "mask.png"},
        {"mask": str(tmp_path / "mask.png")},
        {"mask": ~hole, "mask_means": "keep"},
        {"mask": None, "boxes": [(30, 10, 15, 10)]},
    ]
    results = [inpaint(picture(), prior=white_prior(), num_samples=1, **way, **FAST) for way in ways]
    for result in results:
        assert np.array_equal(result.known, ~hole)
        assert np.array_equal(raw(result.images[0]), raw(results[0].images[0]))


def test_a_mask_and_boxes_add_up() -> None:
    hole = hole_in((64, 48))
    result = inpaint(picture(), hole, white_prior(), boxes=[(0, 0, 5, 5)], num_samples=1, **FAST)
    hole[:5, :5] = True
    assert np.array_equal(result.known, ~hole)


def test_the_mask_from_alpha_fills_what_is_transparent_and_makes_it_opaque() -> None:
    image = picture("RGBA")
    alpha = np.full((48, 64), 255, dtype=np.uint8)
    alpha[5:15, 20:40] = 0
    image.putalpha(Image.fromarray(alpha))
    result = inpaint(image, "alpha", white_prior(), num_samples=1, **FAST)
    filled = raw(result.images[0])
    assert (filled[..., 3] == 255).all()
    assert np.array_equal(filled[alpha == 255], raw(image)[alpha == 255])


def test_the_colour_of_transparent_pixels_is_not_taken_for_known() -> None:
    image = picture("RGBA")
    alpha = np.full((48, 64), 255, dtype=np.uint8)
    alpha[:, 40:] = 0
    image.putalpha(Image.fromarray(alpha))
    hole = np.zeros((48, 64), dtype=bool)
    hole[10:20, 30:36] = True
    recorder = Recorder([])
    result = inpaint(image, hole, white_prior(), recorder, num_samples=1)
    known = recorder.seen[0][1][0, 0, :48, :64].numpy()
    assert np.array_equal(known, ~hole & (alpha == 255))
    assert np.array_equal(raw(result.images[0])[~hole], raw(image)[~hole])


def test_grey_pictures_take_the_average_of_the_channels() -> None:
    hole = np.zeros((48, 64), dtype=bool)
    hole[4:44, 4:60] = True
    prior, method, count = white_prior(), solver("replacement", steps=20), 16
    grey = inpaint(picture("L"), hole, prior, method, num_samples=count)
    # The average of three independent channels has a third of the variance.
    variance = ancestral_std(method, prior, STD**2) ** 2 / 3
    assert grey.uncertainty is not None
    measured = float((grey.uncertainty[hole].astype(np.float64) ** 2).mean())
    assert measured == pytest.approx(variance, rel=5 * np.sqrt(2 / (count - 1) / hole.sum()))


def test_a_grey_prior_takes_grey_pictures_only() -> None:
    hole = hole_in((64, 48))
    assert inpaint(picture("L"), hole, white_prior(channels=1), num_samples=1, **FAST).images[0].mode == "L"
    with pytest.raises(UsageError, match="knows grey pictures, and this one has colours"):
        inpaint(picture("RGB"), hole, white_prior(channels=1), num_samples=1, **FAST)


def test_the_solver_sees_the_picture_with_its_borders_reflected() -> None:
    size = (17, 16)
    image, recorder = picture("RGB", size), Recorder([])
    inpaint(image, hole_in(size), white_prior(), recorder, num_samples=1)
    y, known = recorder.seen[0]
    values = np.pad(raw(image) / 127.5 - 1, ((0, 0), (0, 15), (0, 0)), mode="reflect").transpose(2, 0, 1)
    mask = np.pad(~hole_in(size), ((0, 0), (0, 15)), mode="reflect")
    assert y.shape == (1, 3, 16, 32)
    assert np.array_equal(known[0, 0].numpy().astype(bool), mask)
    assert y[0].numpy() == pytest.approx(values * mask, abs=1e-6)


def test_later_windows_see_what_earlier_ones_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "MAX_AREA", 160 * 160)
    hole = np.zeros((320, 320), dtype=bool)
    hole[60:260, 60:260] = True
    recorder = Recorder([])
    result = inpaint(picture("RGB", (320, 320)), hole, white_prior(), recorder, num_samples=2, batch_size=2)
    windows = result.info["windows"]
    assert len(windows) == len(recorder.seen) > 1
    done = ~hole
    for window, (y, known) in zip(windows, recorder.seen, strict=True):
        left, top, width, height = window["box"]
        assert np.array_equal(known[0, 0].numpy().astype(bool), done[top : top + height, left : left + width])
        assert y.shape == (2, 3, height, width)
        left, top, width, height = window["core"]
        done[top : top + height, left : left + width] = True
    assert done.all()


def test_a_small_hole_in_a_large_picture_costs_only_its_surroundings() -> None:
    image = Image.new("RGB", (4000, 3000), (90, 120, 150))
    recorder = Recorder([])
    result = inpaint(image, None, white_prior(), recorder, num_samples=1, boxes=[(3000, 2000, 20, 20), (5, 5, 9, 9)])
    assert sum(y[0, 0].numel() for y, _ in recorder.seen) <= 2 * 128 * 128
    assert result.images[0].getpixel((3010, 2010)) == (120, 120, 120)  # the mean of all channels: 360 / 3
    assert result.images[0].getpixel((2990, 2010)) == (90, 120, 150)


def test_a_wide_hole_is_filled_from_coarse_to_fine() -> None:
    hole = np.zeros((400, 420), dtype=bool)
    hole[80:330, 90:340] = True
    prior, method = white_prior(), solver("replacement", steps=40)
    result = inpaint(picture("RGB", (420, 400)), hole, prior, method, num_samples=1)
    windows = result.info["windows"]
    assert [window["scale"] for window in windows] == [32, 16, 8, 4, 2, 1]
    assert [window["start"] for window in windows] == ["noise"] + 5 * ["coarse"]
    # 250 px at scale 32 are 8 px: there it starts from pure noise; finer scales start lower and take fewer steps.
    refiner = method.started_at(prior.schedule, coarse_to_fine.REFINE_RATIO)
    assert refiner.t_init < 1 and refiner.steps < 40
    assert result.info["nfe"]["forward"] == 40 + 5 * refiner.steps
    assert "uncertainty" not in result.info  # one sample has none
    values = raw(result.images[0])[hole] / 127.5 - 1
    std = ancestral_std(refiner, prior, STD**2)
    assert values.mean() == pytest.approx(MEAN, abs=0.003)
    assert values.std() == pytest.approx(std, rel=0.03)


def test_the_fine_pass_keeps_the_large_shape_of_the_coarse_one() -> None:
    """A prior of constant images: the coarse pass draws one value, and the fine pass must not draw another."""
    schedule = EDM(sigma_min=0.01, sigma_max=8)
    drawn: list[tuple[int, float]] = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        variance = float(schedule.sigma(t[:1])) ** 2 / x_t[0].numel()
        mean = x_t.mean((1, 2, 3), keepdim=True) / (1 + variance / 0.25)
        drawn.append((x_t.shape[-1], float(mean)))
        return mean.expand_as(x_t)

    prior = DenoiserPrior(denoise, schedule, (3, None, None), multiple=16, data_std=0.5, name="flat")
    hole = np.zeros((300, 300), dtype=bool)
    hole[20:280, 20:280] = True
    image = Image.new("RGB", (300, 300), (128, 128, 128))
    inpaint(image, hole, prior, num_samples=1, method="replacement", steps=20)
    coarse = [value for width, value in drawn if width < 100][-1]
    first_fine = next(value for width, value in drawn if width > 200)
    assert first_fine == pytest.approx(coarse, abs=0.02)


def test_halving_takes_the_mean_of_the_known_pixels_only() -> None:
    picture = torch.tensor([[[[1.0, 3.0, 5.0], [9.0, 7.0, 5.0], [2.0, 4.0, 8.0]]]])
    known = np.array([[1, 1, 0], [0, 1, 0], [1, 1, 1]], dtype=bool)
    halved = coarse_to_fine._halved(picture, known)
    # The odd last row and column are doubled: blocks {1, 3, 7}, {} , {2, 4}, {8}.
    assert halved.flatten().tolist() == pytest.approx([11 / 3, 0.0, 3.0, 8.0])
    assert levels.halved_known(known).tolist() == [[True, False], [True, True]]


def test_enlarging_meets_the_pixels_it_came_from() -> None:
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    ramp = (0.3 * rows - 0.2 * columns)[None, None]
    below = coarse_to_fine._halved(ramp, np.ones((40, 50), dtype=bool))
    window = Window(Box(8, 12, 32, 44), Box(9, 13, 10, 14), 0)
    part = coarse_to_fine._enlarged(below, window, (40, 50))
    assert torch.allclose(part, ramp[:, :, 8:32, 12:44], atol=0.05)  # bicubic waves by 3/32 of a slope; a shift is 0.2


def test_vipaint_fits_once_for_all_samples() -> None:
    method = VIPaint(preset="exact", levels=1, iterations=2, mc_samples=1, refine_steps=2, top_steps=4)
    hole = hole_in((64, 48))
    calls: list[float] = []
    result = inpaint(
        picture(),
        hole,
        white_prior(),
        method,
        num_samples=3,
        batch_size=1,
        on_event=lambda event: calls.append(event.done / event.total) if isinstance(event, Step) else None,
    )
    cost = method.cost(3)
    assert result.info["nfe"] == {"forward": cost.forward, "backward": cost.backward}
    assert calls == sorted(calls) and calls[-1] == 1.0
    seed = result.info["sample_seeds"][2]
    alone = inpaint(picture(), hole, white_prior(), method, num_samples=1, seed=[seed])
    assert np.array_equal(raw(alone.images[0]), raw(result.images[2]))


@pytest.mark.usefixtures("one_scale")
def test_progress_rises_to_its_total_and_samples_come_as_they_are_finished() -> None:
    steps: list[tuple[int, int]] = []
    events: list[str] = []
    finished: dict[int, Image.Image] = {}

    def on_event(event: Event) -> None:
        if isinstance(event, Step):
            steps.append((event.done, event.total))
            events.append("step")
        elif isinstance(event, Completion):
            finished[event.index] = event.image
            events.append("sample")

    result = inpaint(
        picture(), hole_in((64, 48)), white_prior(), num_samples=3, batch_size=1, on_event=on_event, **FAST
    )
    assert events == (["step"] * 4 + ["sample"]) * 3
    assert [step for step, _ in steps] == sorted(step for step, _ in steps)
    assert len({total for _, total in steps}) == 1 and steps[-1][0] == steps[-1][1]
    assert all(finished[k] is image for k, image in enumerate(result.images))


@pytest.mark.usefixtures("one_scale")
def test_cancelling_keeps_what_is_finished_and_does_no_further_step() -> None:
    hole = hole_in((64, 48))
    whole = inpaint(picture(), hole, white_prior(), num_samples=3, batch_size=1, **FAST)
    count, token = 0, CancelToken()

    def on_event(event: Event) -> None:
        nonlocal count
        count += isinstance(event, Step)
        if count == 6:  # the second step of the second sample
            token.cancel()

    with pytest.raises(Stopped) as caught:
        inpaint(picture(), hole, white_prior(), num_samples=3, batch_size=1, on_event=on_event, cancel=token, **FAST)
    result = caught.value.result
    assert count == 6 and isinstance(caught.value, Cancelled)
    assert result is not None and len(result.images) == 1
    assert np.array_equal(raw(result.images[0]), raw(whole.images[0]))
    assert result.info["finished_samples"] == 1 and result.info["call"]["num_samples"] == 3


def test_cancelling_before_the_first_sample_leaves_no_result() -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Stopped) as caught:
        inpaint(picture(), hole_in((64, 48)), white_prior(), num_samples=2, cancel=token, **FAST)
    assert caught.value.result is None


@pytest.mark.usefixtures("one_scale")
def test_an_error_in_a_later_sample_carries_what_is_finished() -> None:
    hole, calls = hole_in((64, 48)), 0
    whole = inpaint(picture(), hole, white_prior(), num_samples=3, batch_size=1, **FAST)
    sound = white_prior()

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return sound.denoise(x_t, t) * (float("nan") if calls > 6 else 1.0)  # four calls a sample

    with pytest.raises(PriorError, match="not numbers") as caught:
        failing = DenoiserPrior(denoise, sound.schedule, sound.image_shape, multiple=16, data_std=STD, name="failing")
        inpaint(picture(), hole, failing, num_samples=3, batch_size=1, **FAST)
    result = caught.value.result
    assert result is not None and result.info["finished_samples"] == 1
    assert np.array_equal(raw(result.images[0]), raw(whole.images[0]))


def test_two_pictures_share_a_folder(tmp_path: Path) -> None:
    result = inpaint(picture(), hole_in((64, 48)), white_prior(), num_samples=1, **FAST)
    names = {stem: [file.name for file in result.save(tmp_path, stem)] for stem in ("a", "a_b", "b")}
    assert [files[-1] for files in names.values()] == ["run.json", "a_b_run.json", "b_run.json"]
    for stem, files in names.items():
        assert json.loads((tmp_path / files[-1]).read_text())["outputs"] == files
        with pytest.raises(UsageError, match="exist already"):
            result.save(tmp_path, stem)
        assert [file.name for file in result.save(tmp_path, stem, overwrite=True)] == files
    (tmp_path / "run.json").unlink()
    assert result.save(tmp_path, "b", overwrite=True)[-1].name == "b_run.json"  # and no second one
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "run.json").write_text("[1]")
    with pytest.raises(UsageError, match=r"run\.json exists already"):
        result.save(tmp_path / "foreign", "c")


def test_values_that_are_not_numbers_are_an_error() -> None:
    broken = DenoiserPrior(lambda x_t, t: x_t * float("nan"), EDM(), (3, None, None), name="broken")
    with pytest.raises(PriorError, match="not numbers"):
        inpaint(picture(), hole_in((64, 48)), broken, num_samples=1, **FAST)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": None}, "nothing to repaint"),
        ({"mask": np.zeros((48, 64), dtype=bool)}, "nothing to repaint"),
        ({"mask": np.ones((48, 64), dtype=bool)}, "nothing is known"),
        ({"mask": np.ones((40, 64), dtype=bool)}, "64x40 but the picture is 64x48"),
        ({"mask": np.full((48, 64), 0.5)}, "threshold"),
        ({"mask": np.zeros((48, 64, 3), dtype=bool)}, "two axes"),
        ({"mask": "alpha"}, "no transparency"),
        ({"boxes": [(0, 0, 64, 49)]}, "outside"),
        ({"boxes": [(0, 0, 64, 40)], "mask": np.pad(np.ones((10, 64), dtype=bool), ((38, 0), (0, 0)))}, "together"),
        ({"num_samples": 0}, "num_samples"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": [1, 2, 3]}, "3 seeds"),
        ({"method": "nonsense"}, "there is no method 'nonsense'"),
        ({"steps": 0}, "steps"),
        ({"nonsense": 1}, "no setting 'nonsense'"),
        ({"mask_means": "white"}, "'repaint' or 'keep'"),
    ],
)
def test_wrong_arguments_are_one_clear_sentence(arguments: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"mask": hole_in((64, 48)), "num_samples": 1, **FAST}
    if "boxes" in arguments and "mask" not in arguments:
        usual["mask"] = None
    with pytest.raises(UsageError, match=message):
        inpaint(picture(), prior=white_prior(), **{**usual, **arguments})


def test_a_ready_solver_takes_no_settings() -> None:
    with pytest.raises(UsageError, match="ready solver"):
        inpaint(picture(), hole_in((64, 48)), white_prior(), solver("replacement", steps=2), steps=3)


class Fixed(DenoiserPrior):
    """Pixels are independent N(level(label), 0.1^2), on pictures of 32x32 and nothing else."""

    def __init__(self, classes: int = 0) -> None:
        white = white_prior()
        super().__init__(white._call, white.schedule, (3, 32, 32), data_std=STD, name="fixed")
        self.classes = classes

    def condition(self, *, label: Any = None, prompt: str | None = None) -> dict[str, Tensor]:
        labels = self._check_condition(label, prompt)
        return {} if not self.classes else {"labels": torch.tensor([1]) if labels is None else labels}

    def _denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        assert x_t.shape[1:] == (3, 32, 32)
        return super()._denoise(x_t, t)

    def _evaluate(self, x_t: Tensor, t: Tensor, given: Any) -> Denoising:
        if given is None:
            return super()._evaluate(x_t, t, None)
        variance = self.schedule.sigma(t).to(x_t).reshape(-1, 1, 1, 1) ** 2
        level = 0.4 * (given["labels"].to(x_t).reshape(-1, 1, 1, 1) - 1) if given else MEAN
        return Denoising(self._denoise(x_t, t) + variance / (STD**2 + variance) * (level - MEAN))


@pytest.mark.parametrize("fit", ["windows", "resize"])
@pytest.mark.parametrize("size", [(100, 90), (32, 32), (20, 45), (200, 64)])
def test_a_prior_of_a_fixed_size_fills_any_picture(size: tuple[int, int], fit: str) -> None:
    hole, image = hole_in(size), picture("RGB", size)
    result = inpaint(image, hole, Fixed(), num_samples=2, fit=fit, **FAST)
    assert np.array_equal(raw(result.images[0])[~hole], raw(image)[~hole])
    assert all(min(window["box"][2:]) >= 32 for window in result.info["windows"])
    assert result.info["call"]["fit"] == fit
    filled = np.asarray(result.mean)[hole] / 127.5 - 1
    assert filled.mean() == pytest.approx(MEAN, abs=0.1)


def test_a_wide_hole_is_filled_at_half_the_size_first_and_in_fused_windows() -> None:
    hole = np.zeros((160, 160), dtype=bool)
    hole[40:100, 40:100] = True
    result = inpaint(picture("RGB", (160, 160)), hole, Fixed(), num_samples=1, steps=4)
    scales = [window["scale"] for window in result.info["windows"]]
    assert scales == sorted(scales, reverse=True) and scales[0] >= 2 and scales[-1] == 1
    assert max(window["box"][2] for window in result.info["windows"]) > 32
    narrow = np.zeros((160, 160), dtype=bool)
    narrow[40:52, 40:52] = True
    result = inpaint(picture("RGB", (160, 160)), narrow, Fixed(), num_samples=1, steps=4)
    assert [window["box"][2:] for window in result.info["windows"]] == [[32, 32]]
    assert result.info["nfe"] == {"forward": 4, "backward": 0}


def test_labels_and_guidance_reach_the_prior_and_the_record() -> None:
    hole = hole_in((64, 48))
    means = []
    for label, scale in ((0, 1.0), (2, 1.0), (2, 1.5)):
        result = inpaint(picture(), hole, Fixed(classes=3), num_samples=2, label=label, guidance_scale=scale, **FAST)
        means.append((np.asarray(result.mean)[hole] / 127.5 - 1).mean())
        call = result.info["call"]
        assert (call["label"], call["guidance_scale"], call["prompt"]) == (label, scale, None)
        assert result.info["prior"]["condition"]["label"] == label
    assert means == pytest.approx([-0.4, 0.4, 0.6], abs=0.05)


def test_the_condition_of_a_ready_prior_is_in_the_record() -> None:
    ready = CFGPrior(Fixed(classes=3), label=2)
    info = inpaint(picture(), hole_in((64, 48)), ready, num_samples=1, **FAST).info
    assert info["prior"]["condition"]["label"] == 2


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"label": 1}, "knows no classes"),
        ({"label": [1, 2]}, "one whole number"),
        ({"prompt": "a dog"}, "takes no text"),
        ({"negative_prompt": "a dog"}, "takes no text"),
        ({"guidance_scale": 3.0}, "give a label or a prompt"),
        ({"fit": "resize"}, "pictures of any size"),
    ],
)
def test_wishes_that_a_prior_cannot_follow(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        inpaint(picture(), hole_in((64, 48)), white_prior(), num_samples=1, **wish, **FAST)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    path = tmp_path_factory.mktemp("in") / "beach.jpg"
    picture().save(path)
    return inpaint(path, hole_in((64, 48)), white_prior(), num_samples=2, **FAST)


def test_saving_writes_every_output(result: Result, tmp_path: Path) -> None:
    files = result.save(tmp_path / "new" / "folder")
    names = ["beach_0.png", "beach_1.png", "beach_mean.png", "beach_uncertainty.png", "beach_uncertainty.npy"]
    assert [file.name for file in files] == [*names, "beach_sheet.png", "run.json"]
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == sorted(file.name for file in files)
    for k, image in enumerate(result.images):
        assert np.array_equal(raw(Image.open(files[k])), raw(image))
    assert np.array_equal(np.load(files[4]), result.uncertainty)
    info = json.loads(files[-1].read_text())
    assert info["outputs"] == [file.name for file in files]
    assert {"versions", "prior", "sample_seeds", "nfe", "seconds", "image", "mask", "call", "machine"} <= info.keys()
    assert info["image"]["sha256"] and info["image"]["path"].endswith("beach.jpg")


def test_saving_never_replaces_files_unasked(result: Result, tmp_path: Path) -> None:
    (tmp_path / "beach_mean.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        result.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["beach_mean.png"]
    result.save(tmp_path, overwrite=True)
    assert (tmp_path / "beach_mean.png").read_bytes() != b"mine"


def test_saving_in_other_formats(result: Result, tmp_path: Path) -> None:
    files = result.save(tmp_path, "stem", format="same")
    assert files[0].name == "stem_0.jpg" and files[2].name == "stem_mean.jpg" and files[3].suffix == ".png"
    tiff = result.save(tmp_path / "tiff", format="tiff")[0]
    assert np.array_equal(raw(Image.open(tiff)), raw(result.images[0]))
    with pytest.raises(UsageError, match="png, jpg, webp, tiff, npy or same"):
        result.save(tmp_path, "other", format="gif")


@pytest.mark.parametrize("stem", ["../x", "/tmp/x", "a/b", "a\0"])
def test_a_stem_stays_in_its_folder(result: Result, tmp_path: Path, stem: str) -> None:
    with pytest.raises(UsageError, match="a stem is the start of a file's name and has no /, but this one is"):
        result.save(tmp_path / "o", stem)
    assert list(tmp_path.iterdir()) == []


def test_saving_says_what_a_format_cannot_keep(tmp_path: Path) -> None:
    picture().save(tmp_path / "in.jpg", comment="mine")
    made = inpaint(tmp_path / "in.jpg", hole_in((64, 48)), white_prior(), num_samples=1, **FAST)
    made.save(tmp_path / "same", format="same")
    assert read_picture(tmp_path / "same" / "in_0.jpg").comment == b"mine"
    with pytest.warns(UserWarning, match="TIFF cannot keep the comment of .*in.jpg; the results are without"):
        made.save(tmp_path / "tiff", format="tiff")


def test_a_folder_that_is_a_file(result: Result, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        result.save(tmp_path / "file" / "inside")


def test_a_picture_that_was_read_already_is_taken(result: Result, tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    again = inpaint(read_picture(tmp_path / "a.png"), hole_in((64, 48)), white_prior(), num_samples=1, **FAST)
    assert again.info["image"]["path"] == str(tmp_path / "a.png")
