"""The benchmark measures what it says: FFDNet is wired right, known pixels stay, work is counted, runs go on."""

from __future__ import annotations

import argparse
import json
import operator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from benchmarks import baselines, methods
from benchmarks.photos import __main__ as program
from benchmarks.photos import answers, denoising, inpainting, pictures, report, sheets
from benchmarks.photos.table import Table, aggregated
from priorpaint.diffusion.schedules import VE, VP
from priorpaint.imaging import mask_generators as masks
from priorpaint.inpainting.api import plan
from priorpaint.metrics import psnr
from priorpaint.priors.base import DenoiserPrior, Prior
from priorpaint.priors.loading import load_prior
from priorpaint.solvers import solver

STRIPES = [("a", 3), ("b", 5), ("c", 8)]
PRICES = {"seconds", "cpu_seconds", "prepare_seconds"}


@pytest.fixture
def photo(shared: Path) -> pictures.Photo:
    return pictures.read_photos(shared / "data" / "photos-cid22" / "val", 1)[0].crop(128)


@pytest.fixture
def ffdnet(shared: Path) -> baselines.FFDNet:
    return baselines.FFDNet.load(shared / "data" / "diffusion-weights" / "ffdnet_color.pth")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three striped pictures of 64x64, an LPIPS with few random channels, and an FFDNet that knows nothing."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "photos-cid22" / "val").mkdir(parents=True)
    (folder / "lpips-weights").mkdir()
    (folder / "diffusion-weights").mkdir()
    torch.manual_seed(0)
    torch.save(baselines.FFDNet().state_dict(), folder / "diffusion-weights" / "ffdnet_color.pth")
    for name, width in STRIPES:
        rows, columns = np.indices((64, 64))
        picture = np.stack([(rows + columns) // width % 2 * 200, rows * 3, columns * 3], axis=-1).astype(np.uint8)
        Image.fromarray(picture).save(folder / "photos-cid22" / "val" / f"{name}.png")
    generator = torch.Generator().manual_seed(0)
    sizes = [(4, 3, 11), (4, 4, 5), (4, 4, 3), (4, 4, 3), (4, 4, 3)]
    weights = {}
    for i, (out, into, side) in enumerate(sizes):
        weights[f"conv{i}.weight"] = torch.randn(out, into, side, side, generator=generator) / (into * side)
        weights[f"conv{i}.bias"] = torch.zeros(out)
        weights[f"lin{i}.weight"] = torch.rand(1, out, 1, 1, generator=generator)
    save_file(weights, folder / "lpips-weights" / "lpips_alex.safetensors")
    return folder


def test_ffdnet_denoises_by_as_much_as_it_should(photo: pictures.Photo, ffdnet: baselines.FFDNet) -> None:
    """sigma = 25/255 is 20.17 dB; FFDNet's paper gives 31-32 dB, and a wrong fold or plane loses more than 10 dB."""
    noise = torch.randn(photo.x.shape, generator=torch.Generator().manual_seed(0))
    sigma = 25 / 127.5
    assert float(psnr(photo.x + sigma * noise, photo.x)) == pytest.approx(20 * np.log10(255 / 25), abs=0.15)
    assert denoising.clamped_psnr(denoising.ffdnet_denoise(ffdnet, photo.x, sigma, noise), photo.x) > 30
    told_wrong = 2 * ffdnet((photo.x + sigma * noise + 1) / 2, 5 / 255) - 1
    assert denoising.clamped_psnr(told_wrong, photo.x) < 25


def test_ffdnet_takes_odd_sizes(photo: pictures.Photo, ffdnet: baselines.FFDNet) -> None:
    odd = photo.x[:, :, :63, :61]
    even = torch.nn.functional.pad(odd, (0, 1, 0, 1), mode="replicate")
    assert torch.equal(ffdnet(odd, 0.1), ffdnet(even, 0.1)[:, :, :63, :61])


@pytest.mark.parametrize("schedule", [VE(sigma_min=0.01, sigma_max=10.0), VP("linear")])
def test_prior_denoise_scales_for_any_schedule(schedule: VE | VP) -> None:
    """For x_0 ~ N(0, s^2) the denoiser is known: s^2 / (s^2 + sigma^2) times (x_0 + sigma eps), whatever alpha is."""
    variance = 0.3**2

    def wiener(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (value.view(-1, 1, 1, 1) for value in (schedule.alpha(t), schedule.sigma(t)))
        return (alpha * variance / (alpha**2 * variance + sigma**2)).to(x_t) * x_t

    prior = DenoiserPrior(wiener, schedule, (3, None, None))
    generator = torch.Generator().manual_seed(0)
    x, noise = 0.3 * torch.randn(1, 3, 8, 8, generator=generator), torch.randn(1, 3, 8, 8, generator=generator)
    actual = denoising.prior_denoise(prior, x, 0.5, noise)
    assert torch.allclose(actual, variance / (variance + 0.25) * (x + 0.5 * noise), atol=1e-4)


@pytest.mark.parametrize("name", baselines.CLASSICAL)
def test_classical_methods_fill_a_flat_picture_and_keep_known_pixels(name: str) -> None:
    known = masks.holes(64, 0, side=(8, 16))
    flat = np.full((64, 64, 3), (200, 100, 50), dtype=np.uint8)
    filled = baselines.CLASSICAL[name].fill(np.where(known[..., None], flat, 0).astype(np.uint8), known, 0)
    assert np.abs(filled.astype(int) - flat).max() <= 4  # Telea adds up rounding errors from pixel to pixel
    assert np.array_equal(filled[known], flat[known])


@pytest.mark.parametrize("name", baselines.CLASSICAL)
def test_answers_of_classical_methods_follow_their_seeds_and_keep_known_pixels(name: str) -> None:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    known = masks.holes(64, 0, side=(8, 16))
    answer = answers.classical_answer(name, x, known, 3, 0)
    outside = torch.from_numpy(known)
    assert torch.equal(answer.samples[..., outside], x[..., outside].expand(len(answer.samples), -1, -1))
    assert len(answer.samples) == (3 if baselines.CLASSICAL[name].seeded else 1)
    assert torch.equal(answer.samples, answers.classical_answer(name, x, known, 3, 0).samples)
    if len(answer.samples) > 1:
        assert not torch.equal(answer.samples[0], answer.samples[1])


@pytest.mark.parametrize("name", baselines.CLASSICAL)
def test_classical_methods_never_look_at_hidden_pixels(name: str) -> None:
    known, picture = masks.box(48, 12), np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    black, white = (np.where(known[..., None], picture, value).astype(np.uint8) for value in (0, 255))
    fill = baselines.CLASSICAL[name].fill
    assert np.array_equal(fill(black, known, 0), fill(white, known, 0))


def test_bytes_and_tensors_are_inverse() -> None:
    picture = np.arange(256 * 3, dtype=np.uint16).reshape(16, 16, 3).astype(np.uint8)
    assert np.array_equal(pictures.to_bytes(pictures.to_tensor(picture)[0]), picture)


def test_wide_holes_are_cut_out_with_known_pixels_around_them() -> None:
    photo = pictures.Photo("p", torch.zeros(1, 3, 300, 400))
    kind = pictures.mask_kind("hole96")
    square = kind.cropped(photo, 64)  # which has its own size
    assert square.x.shape[2:] == (96 + 2 * 96, 96 + 2 * 96)
    known = kind.make(288, 0)
    assert (~known).sum() == 96**2 and not known[96:192, 96:192].any()
    assert pictures.mask_kind("hole160").cropped(photo, 64).x.shape[2:] == (300, 300)
    with pytest.raises(SystemExit, match="too small for hole300"):
        pictures.mask_kind("hole300").cropped(photo, 64)


@pytest.mark.parametrize("width", [6, 12])
def test_wide_strokes_are_about_as_wide_as_they_say(width: int) -> None:
    """A stroke that grew by a square of ``width - 2`` has room for it but at the border, and hardly for twice it."""
    hidden = torch.from_numpy(~pictures.wide_strokes(256, 0, width))[None].float()
    assert 0.02 < float(hidden.mean()) < 0.12

    def fits(side: int) -> float:
        """The share of hidden pixels that a square of this side reaches without leaving the hole."""
        inside = (torch.nn.functional.avg_pool2d(hidden, side, stride=1) > 1 - 1e-6).float()
        reached = torch.nn.functional.max_pool2d(torch.nn.functional.pad(inside, (side - 1,) * 4), side, stride=1)
        return float(reached.sum() / hidden.sum())

    assert fits(width - 2) > 0.97
    assert fits(2 * width) < 0.2


@pytest.mark.parametrize("name", ["hole", "hole2", "strokes1", "line8", "holes64"])
def test_other_masks_are_refused(name: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        pictures.mask_kind(name)


def test_methods_are_parsed() -> None:
    method = answers.Method.parse("vipaint:levels=2,preset=official-imagenet,t_end=0.5")
    assert method.name == "vipaint" and method.settings == {"levels": 2, "preset": "official-imagenet", "t_end": 0.5}
    assert answers.Method.parse("dps").settings == {}


@pytest.mark.parametrize(
    ("text", "forward", "backward"),
    [
        ("ddnm:steps=4", 4, 0),
        ("pigdm:steps=3", 0, 3),
        ("copaint:steps=3,inner_steps=1", 3, 3),
        ("mmps:steps=2,sampler=ddim,iterations=3", 0, 6),  # two passes more through the graph of each call
    ],
)
def test_work_is_evaluations_times_pixels(text: str, forward: int, backward: int) -> None:
    """At full scale each evaluation looks at the whole picture; one with a gradient counts as three."""
    x, known = torch.zeros(1, 3, 32, 24), masks.box((32, 24), 8)
    answer = answers.solver_answer(answers.Method.parse(text), _linear(), x, known, 2, 0, 1)
    assert (answer.forward, answer.backward) == (2 * forward, 2 * backward)
    assert answer.work == 2 * (forward + 3 * backward) * 32 * 24


def test_work_of_the_main_job_is_what_it_planned(tmp_path: Path) -> None:
    """Windows of several scales and sizes, which the job weighs before it runs and the meter counts after."""
    prior, x = load_prior("photos", device="cpu"), torch.zeros(1, 3, 128, 128)
    known = masks.box(128, 40)
    answer = answers.main_job_answer(answers.Method.parse("default:steps=3"), prior, x, known, 2, 0, None)
    ready = plan(pictures.to_bytes(x[0]), ~known, prior, None, 2, 0, steps=3)
    assert len({window["scale"] for window in ready.windows}) > 1
    assert answer.work == ready._job.work.pixels(2)
    assert answer.forward == ready.cost.forward


def _linear() -> Prior:
    """A denoiser with a gradient that any size will do for."""
    return DenoiserPrior(lambda x_t, t: 0.01 * x_t, VP("linear"), (3, None, None))


def test_aggregation_is_the_mean_over_the_pictures_that_all_have() -> None:
    cells = [{"picture": str(i), "mask": "box", "method": "a", "lpips": float(i), "ranks": [i, 1]} for i in range(4)]
    cells += [{"picture": str(i), "mask": "box", "method": "b", "lpips": 0.0, "ranks": [0, 0]} for i in (1, 2, 7)]
    cells += [{"picture": "9", "mask": "holes", "method": "a", "lpips": 5.0, "ranks": [0, 0]}]
    first, second, other = aggregated(cells, ("mask", "method"))
    assert first == {"mask": "box", "method": "a", "pictures": 2, "lpips": 1.5, "ranks": [1.5, 1.0]}
    assert second["pictures"] == 2 and other["lpips"] == 5


def test_other_methods_have_the_work_of_the_default() -> None:
    """Evaluations of the settings under equal_work, of four samples: 15 each, within two, gradients as three."""
    chosen = program.defaults()
    for text in chosen["equal_work"]:
        method = answers.Method.parse(text)
        cost = solver(method.name.partition("/")[2], **method.settings).cost(chosen["samples"])
        assert answers.weight(cost) / chosen["samples"] == pytest.approx(15, abs=2), text
    for text in (*chosen["grid"], *chosen["more_work"]):
        name = answers.Method.parse(text).name.partition("/")[2]
        solver(name or "ddnm", **answers.Method.parse(text).settings)


def _run(data: Path, stem: Path, *arguments: str) -> dict[str, list[dict[str, float]]]:
    command = ["inpaint", "--crop", "64", "--samples", "2", "--threads", "1", "--data", str(data), "--out", str(stem)]
    program.main([*command, *arguments])
    return dict(json.loads(stem.with_suffix(".json").read_text()))["inpainting"]


def test_a_run_end_to_end_in_parts(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parts give the table of the whole, cells are not measured twice, and rows are means of the cells."""
    what = ("--masks", "hole16", "--method", "default:steps=1", "--method", "ddnm:steps=1")
    whole = _run(data, tmp_path / "whole", *what)
    _run(data, tmp_path / "parts", *what, "--pictures", "2", "--start", "1")
    before = json.loads((tmp_path / "parts.json").read_text())["inpainting"]["each"]
    parts = _run(data, tmp_path / "parts", *what, "--resume", "--sheets", str(tmp_path / "sheets"))
    assert [cell for cell in parts["each"] if cell["picture"] != "a"] == before  # times and all
    assert _ordered(parts["each"]) == _ordered(whole["each"])
    for row in parts["rows"]:
        crps = [cell["crps"] for cell in parts["each"] if cell["method"] == row["method"]]
        assert row["pictures"] == 3 and row["crps"] == pytest.approx(np.mean(crps), rel=1e-6)
    assert {row["method"] for row in parts["rows"]} == {*baselines.CLASSICAL, "default:steps=1", "ddnm:steps=1"}
    written = sorted(path.relative_to(tmp_path / "sheets").as_posix() for path in (tmp_path / "sheets").rglob("*.png"))
    assert written == ["hole16/a.png"]  # of what this run measured
    page = (tmp_path / "parts.md").read_text()
    assert page == report.photos_page({"inpainting": parts})
    assert "### hole16: " in page and "| `default:steps=1` |" in page
    assert len(parts["setup"]["commands"]) == 1  # that of the whole
    (tmp_path / "parts.md").unlink()
    assert _run(data, tmp_path / "parts", *what, "--resume") == parts  # nothing is left to do,
    assert (tmp_path / "parts.md").read_text() == page  # and the page is written anew
    assert "3 pictures" in capsys.readouterr().out


def test_a_setting_that_does_not_exist_ends_the_run_and_keeps_what_was_measured(data: Path, tmp_path: Path) -> None:
    what = ("--masks", "holes", "--pictures", "1", "--method", "default:steps=1")
    with pytest.raises(SystemExit, match="default:stepz=1: .*stepz"):
        _run(data, tmp_path / "t", *what, "--method", "default:stepz=1")
    kept = json.loads((tmp_path / "t.json").read_text())["inpainting"]
    assert "default:steps=1" in {row["method"] for row in kept["rows"]}


def test_blind_sheets_hide_the_names_and_keep_the_key(data: Path, tmp_path: Path) -> None:
    _run(data, tmp_path / "t", "--masks", "holes", "--pictures", "2", "--sheets", str(tmp_path / "s"), "--blind")
    keys = json.loads((tmp_path / "s" / "key.json").read_text())
    assert sorted(keys) == ["holes/a.png", "holes/b.png"]
    for sheet, key in keys.items():
        assert (tmp_path / "s" / sheet).exists()
        assert sorted(key) == list("ABCDE"[: len(key)]) and sorted(key.values()) == sorted(baselines.CLASSICAL)
    assert list(sheets.blind_names(["x", "y", "z"], 3)) != list(sheets.blind_names(["x", "y", "z"], 4))


def _ordered(cells: list[dict[str, float]]) -> list[dict[str, float]]:
    """By name, without what depends on the machine."""
    kept = [{name: value for name, value in cell.items() if name not in PRICES} for cell in cells]
    return sorted(kept, key=operator.itemgetter(*inpainting.KEY))


def test_cells_that_were_measured_in_another_way_are_not_mixed(data: Path, tmp_path: Path) -> None:
    what = ("--masks", "holes", "--pictures", "1")
    _run(data, tmp_path / "t", *what)
    with pytest.raises(SystemExit, match="with seed 0, not 1; give the same, or leave out --resume"):
        _run(data, tmp_path / "t", *what, "--resume", "--seed", "1")


def test_rows_are_sorted_by_crps_and_single_answers_claim_no_spread(data: Path, tmp_path: Path) -> None:
    section = _run(data, tmp_path / "t", "--masks", "holes", "strokes", "--pictures", "2")
    (title, header, lines), *_, (last, masks_header, ratios) = report.all_tables({"inpainting": section})
    assert title.startswith("holes: ") and title.endswith("hidden, 2 pictures")
    scores = [float(line[1]) for line in lines]
    assert header[:2] == ["method", "CRPS"] and scores == sorted(scores)
    spread = header.index("var / error")
    assert {line[0] for line in lines if line[spread]} == {n for n, p in baselines.CLASSICAL.items() if p.seeded}
    assert masks_header == ["method", "holes", "strokes"] and len(ratios) == 2


def test_all_methods_run_end_to_end(data: Path, tmp_path: Path) -> None:
    command = ["--method", "ddnm", "pigdm", "--budget", "2", "--samples", "2", "--pictures", "1"]
    methods.main([*command, "--data", str(data), "--out", str(tmp_path / "m"), "--threads", "1"])
    page = (tmp_path / "m.md").read_text()
    assert page.startswith("# All methods on photos") and "### box: 25.0% hidden, 1 picture" in page
    results = json.loads((tmp_path / "m.json").read_text())
    assert page == methods.page(results)
    assert {r["nfe_forward"] + r["nfe_backward"] for r in results["inpainting"]["rows"]} == {0, 4}


def test_denoising_goes_on_where_it_was_stopped(data: Path, tmp_path: Path) -> None:
    command = ["denoise", "--threads", "1", "--data", str(data), "--out"]
    program.main([*command, str(tmp_path / "whole"), "--pictures", "2"])
    program.main([*command, str(tmp_path / "parts"), "--pictures", "1", "--baselines-only"])
    program.main([*command, str(tmp_path / "parts"), "--pictures", "2", "--resume"])
    whole, parts = (json.loads((tmp_path / f"{name}.json").read_text())["denoising"] for name in ("whole", "parts"))
    key = operator.itemgetter(*denoising.KEY)
    assert sorted(parts["each"], key=key) == sorted(whole["each"], key=key)
    assert {row["pictures"] for row in parts["rows"]} == {2}
    (title, _, lines), (_, _, others) = report.all_tables({"denoising": parts})
    assert title == "Denoising, PSNR in dB, 2 pictures"
    assert [line[0] for line in lines] == ["15", "25", "50", "75", "100"]
    assert [line[0] for line in others] == [f"{sigma:g}" for sigma in denoising.UNIT_SIGMAS]


@pytest.mark.parametrize(
    "arguments",
    [
        ["defaults", "--method", "dps"],
        ["inpaint", "--method", "dps", "--baselines-only"],
        ["inpaint", "--pictures", "0"],
        ["inpaint", "--masks", "hole2"],
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_read(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        program.main([*arguments, "--data", "nowhere"])
    assert "error: " in capsys.readouterr().err


def test_rows_are_means_of_what_the_file_holds(tmp_path: Path) -> None:
    """The same after a run that only went on, which reads rounded cells."""

    setup = {"commands": ["a"], "prior": "p", "prior_sha256": "0"}

    def saved(resume: bool, *cells: dict[str, object]) -> str:
        made = Table(tmp_path / "t", "inpainting", ("picture", "mask"), dict(setup), lambda _: "", resume)
        for cell in cells:
            made.add(dict(cell))
        made.save()
        return (tmp_path / "t.json").read_text()

    seconds = (0.10000004, 0.10000004, 0.10000009)  # of seven digits .1, .1 and .1000001
    cells = [{"picture": str(i), "mask": "box", "cpu_seconds": value} for i, value in enumerate(seconds)]
    assert saved(False, *cells) == saved(True)
