"""VIPaint's figures: what is in them, from files to files, with small settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from priorpaint.cli import app
from priorpaint.errors import PriorpaintError, UsageError
from priorpaint.imaging.mask_kinds import mask_for
from priorpaint.lab.avatars.standard import standard
from priorpaint.lab.figures import FIGURES, Examples, Request, read_examples
from priorpaint.lab.figures.base import Settings
from priorpaint.priors import DenoiserPrior
from priorpaint.schedules import VP

QUICK = Settings(samples=2, iterations=2, steps=2)
TILE, GAP = 128, 20


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two avatars as files, the second at twice the size."""
    folder = tmp_path_factory.mktemp("faces")
    pixels = standard().compose(standard().draw(2, 3))
    Image.fromarray(pixels[0]).save(folder / "a.png")
    Image.fromarray(pixels[1]).resize((64, 64), Image.Resampling.NEAREST).save(folder / "b.png")
    return [folder / "a.png", folder / "b.png"]


@pytest.fixture(scope="module")
def examples(faces: list[Path]) -> Examples:
    return read_examples([(faces[0], "rotated"), (faces[1], "random")], small_prior(), mask_seed=1)


def small_prior(classes: int = 0) -> DenoiserPrior:
    """E[x_0 | x_t] of white data with a table of 1000 betas, for 32 x 32 colour pictures."""
    schedule = VP("linear")

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return schedule.alpha(t)[:, None, None, None] * x_t

    prior = DenoiserPrior(denoise, schedule, (3, 32, 32), name="white")
    prior.classes = classes
    return prior


def tile(image: Image.Image, top: int, column: int) -> np.ndarray:
    """The 32 x 32 picture of a column, whose four-fold enlargement begins ``top`` pixels below the upper edge."""
    left = GAP + column * (TILE + GAP)
    return np.asarray(image)[top : top + TILE : 4, left : left + TILE : 4]


def bytes_of(x: torch.Tensor) -> np.ndarray:
    pixels: np.ndarray = ((x + 1) * 127.5).round().byte().movedim(0, -1).numpy()
    return pixels


def test_examples_are_in_the_priors_size_with_the_masks_of_their_names(faces: list[Path], examples: Examples) -> None:
    assert examples.x.shape == (2, 3, 32, 32) and examples.names == ("a", "b")
    pixels = standard().compose(standard().draw(2, 3))
    assert np.array_equal(bytes_of(examples.x[0]), pixels[0])
    for row, (name, kind) in enumerate((("a", "rotated"), ("b", "random"))):
        assert np.array_equal(examples.known[row, 0].numpy() > 0.5, mask_for(name, kind, 32, 1))
    wrong = examples.x[:, None] + 0.5 * torch.tensor([1.0, -1.0])[None, :, None, None, None]
    wrong = torch.where(examples.known[:, None] > 0.5, 7.0, wrong)  # known pixels are not looked at
    inside = (examples.x.abs() <= 0.5)[:, None]
    assert bool((examples.error(torch.where(inside, wrong, examples.x[:, None])) <= 0.5 + 1e-6).all())
    assert float(examples.error(examples.x[:, None]).max()) == 0


def test_levels_shows_the_path_to_the_first_inpainting(examples: Examples) -> None:
    prior = small_prior()
    settings = Settings(samples=2, iterations=2, steps=4, levels=(3,), seed=5)
    drawn = FIGURES["vipaint-levels"].draw(Request(prior, examples, settings))
    posterior = settings.vipaint().fit(prior, examples.operator, examples.y, seed=5)
    expected, samples = posterior.expectations(1, seed=5)[:, 0], posterior.sample(2, seed=5)
    assert drawn.image.size == (GAP + 8 * (TILE + GAP), drawn.image.height)
    top = GAP + 46  # labels of two lines
    assert np.array_equal(tile(drawn.image, top, 0), bytes_of(examples.x[0]))
    for level in range(3):
        assert np.array_equal(tile(drawn.image, top, 2 + level), bytes_of(expected[0, level].clamp(-1, 1)))
    for i in range(2):
        assert np.array_equal(tile(drawn.image, top, 6 + i), bytes_of(samples[0, i].clamp(-1, 1)))
    numbers = drawn.numbers
    ratios = [level["sigma_over_alpha"] for level in numbers["levels"]]
    assert ratios == sorted(ratios, reverse=True)
    assert np.allclose(numbers["error"], examples.error(samples).numpy(), rtol=1e-4)
    assert np.shape(numbers["error_at_levels"]) == (2, 3) and np.shape(numbers["objective"]) == (2, 2)


def test_levels_of_a_table_are_named_by_index(examples: Examples) -> None:
    settings = Settings(samples=1, iterations=1, steps=4, levels=(4,), method={"preset": "official-lsun"})
    numbers = FIGURES["vipaint-levels"].draw(Request(small_prior(), examples, settings)).numbers
    assert [level["index"] for level in numbers["levels"]] == [550, 500, 450, 400]  # Fig. 1


def test_progress_ends_with_what_the_method_samples(examples: Examples) -> None:
    settings = Settings(samples=1, iterations=4, steps=2, every=2)
    request = Request(small_prior(), examples, settings)
    drawn = FIGURES["vipaint-progress"].draw(request)
    assert drawn.numbers["iterations"] == [0, 2, 4] and np.shape(drawn.numbers["error"]) == (2, 1, 3)
    whole = settings.vipaint().sample(request.prior, examples.operator, examples.y, seed=0)
    assert np.allclose(np.array(drawn.numbers["error"])[:, :, -1], examples.error(whole), rtol=1e-4)
    assert np.array_equal(tile(drawn.image, GAP + 26, 4), bytes_of(whole[0, 0].clamp(-1, 1)))


def test_what_vipaint_chooses_by_itself_decides_how_often_a_fit_is_drawn(examples: Examples) -> None:
    """Without a preset, the prior decides how long a fit is."""
    settings = Settings(samples=1, steps=1, method={"preset": None, "refine_inner": 1})
    request = Request(small_prior(), examples, settings)
    iterations = request.vipaint().rules.iterations
    drawn = FIGURES["vipaint-progress"].draw(request)
    assert drawn.numbers["iterations"][-1] == iterations == len(drawn.numbers["objective"][0])


def test_convergence_has_a_curve_for_each_number_of_levels(examples: Examples) -> None:
    pytest.importorskip("matplotlib")
    said: list[str] = []
    settings = Settings(samples=1, iterations=3, steps=2, levels=(1, 2), every=3)
    request = Request(small_prior(), examples, settings, report=lambda done, total, sentence: said.append(sentence))
    drawn = FIGURES["vipaint-convergence"].draw(request)
    assert said == ["K = 1", "K = 2", "drawn"] and drawn.image.width > 500
    for count in (1, 2):
        curve = drawn.numbers["curves"][f"K={count}"]
        assert len(curve["bound"]) == 3 and curve["iterations"] == [0, 3] and len(curve["distance"]) == 2
        posterior = settings.vipaint(count).fit(request.prior, examples.operator, examples.y)
        assert np.allclose(curve["bound"], posterior.losses.total().mean(0), rtol=1e-4)


def test_reddiff_shows_three_methods_a_row(examples: Examples) -> None:
    drawn = FIGURES["reddiff"].draw(Request(small_prior(), examples, QUICK))
    assert set(drawn.numbers["error"]) == {"RED-diff-V", "RED-diff, T to 0", "VIPaint"}
    assert drawn.image.size == (GAP + 5 * (TILE + GAP), GAP + 4 * (26 + TILE + GAP))  # two pictures, two samples


def test_classes_needs_a_prior_that_knows_them(examples: Examples) -> None:
    with pytest.raises(UsageError, match="knows no classes"):
        FIGURES["classes"].draw(Request(small_prior(), examples, QUICK))
    with pytest.raises(UsageError, match="classes 0 to 2, not 5"):
        FIGURES["classes"].draw(Request(small_prior(3), examples, Settings(labels=(5,))))


def invoked(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["figure", *map(str, words)])


def refused(*words: str | Path) -> str:
    done = invoked(*words)
    assert isinstance(done.exception, PriorpaintError), done.output
    return str(done.exception)


def numbers_of(folder: Path, name: str) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return numbers


def test_command_line_draws_classes_of_the_embedded_prior(faces: list[Path], tmp_path: Path) -> None:
    words = ["--label", "3", "--label", "9", "-n", "1", "--iterations", "1", "--steps", "1", "--quiet", "-o", tmp_path]
    done = invoked("classes", faces[1], "--mask", "top", "--prior", "avatars", *words)
    assert done.exit_code == 0, done.output
    numbers = numbers_of(tmp_path, "classes")
    assert set(numbers["error"]) == {"3", "9"} and numbers["error"]["3"] != numbers["error"]["9"]
    assert numbers["hidden"] == [0.5] and numbers["source"] == "VIPaint, Fig. 24"
    assert numbers["nfe"]["forward"] > 0 and len(numbers["prior"]["sha256"]) == 64
    with Image.open(tmp_path / "classes.png") as image:
        assert image.size == (GAP + 3 * (TILE + GAP), GAP + 2 * (26 + TILE + GAP))
    assert "(--overwrite)" in refused("classes", faces[1], "--mask", "top", "--prior", "avatars", "-o", tmp_path)


def test_command_line_takes_mask_files_and_priors_of_any_size(faces: list[Path], tmp_path: Path) -> None:
    hidden = np.zeros((64, 64), dtype=np.uint8)
    hidden[16:48, 8:40] = 255
    Image.fromarray(hidden).save(tmp_path / "hole.png")
    words = ["--iterations", "1", "--steps", "1", "--quiet", "--size", "32", "-o", tmp_path / "out"]
    done = invoked("reddiff", faces[1], "--mask", tmp_path / "hole.png", "--prior", "photos", *words)
    assert done.exit_code == 0, done.output
    numbers = numbers_of(tmp_path / "out", "reddiff")
    assert numbers["size"] == [32, 32] and numbers["hidden"] == [0.25]
    assert numbers["pictures"] == [{"name": "b.png", "mask": "hole.png"}]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["paint"], "is not a figure; the figures are"),
        (["reddiff"], "as many masks as pictures"),
        (["reddiff", "nowhere.png"], "nowhere.png does not exist"),
        (["reddiff", "A", "--mask", "spots"], "neither a mask file nor a kind"),
        (["reddiff", "A", "B", "B", "--mask", "top", "--mask", "left"], "as many masks as pictures"),
        (["reddiff", "A", "--every", "2"], "has no choice of every"),
        (["reddiff", "A", "--label", "2"], "has no choice of labels"),
        (["reddiff", "A", "--lpips", "weights"], "measures no LPIPS"),
        (["vipaint-levels", "A", "--levels", "2", "--levels", "4"], "shows one number of levels"),
        (["vipaint-progress", "A", "--every", "500"], "cannot be drawn every 500"),
        (["vipaint-levels", "A", "--set", "spots=3"], "spots"),
        (["vipaint-levels", "A", "--iterations", "3", "--set", "iterations=4"], "give it once"),
        (["vipaint-levels", "A", "--prior", "avatars", "--size", "64"], "leave --size out"),
        (["vipaint-convergence", "A", "--lpips", "nowhere.safetensors"], "nowhere.safetensors"),
        (["classes", "A", "--prior", "photos", "--size", "32"], "knows no classes"),
    ],
)
def test_nonsense_is_refused_before_any_work(
    words: list[str], sentence: str, faces: list[Path], tmp_path: Path
) -> None:
    named = {"A": faces[0], "B": faces[1]}
    out = tmp_path / "out"
    assert sentence in refused(*(named.get(word, word) for word in words), "-o", out, "--quiet")
    assert not list(out.glob("*"))


def test_figures_are_listed() -> None:
    listed = invoked("--list").output.splitlines()
    assert [line.split()[0] for line in listed] == list(FIGURES) and "Fig. 10" in invoked("--list").output
