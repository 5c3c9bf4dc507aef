"""The settings of the papers: each method has an entry, it is valid, and what the caller gives wins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from torch import Tensor

from priorpaint import SOLVERS, DenoiserPrior, UsageError, solver
from priorpaint.cli.methods import methods
from priorpaint.diffusion.schedules import VP
from priorpaint.inpainting.method import choose_solver
from priorpaint.solvers.reference import REFERENCE, REMAINS
from priorpaint.solvers.repaint import RePaint
from priorpaint.solvers.resample import ReSample
from tests.solvers.toy import KNOWN, Y, toy_g


def settings(name: str, **params: Any) -> dict[str, Any]:
    made: Any = solver(name, **params)
    return asdict(made)


def test_every_method_and_nothing_else_has_an_entry() -> None:
    assert set(REFERENCE) == set(SOLVERS)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_the_paper_preset_is_the_default_with_the_entry(name: str) -> None:
    default, paper = settings(name), settings(name, preset="reference")
    assert paper == default | dict(REFERENCE[name])
    assert {key for key in default if default[key] != paper[key]} == set(REFERENCE[name])


def test_paper_is_another_word_for_it() -> None:
    assert all(settings(name, preset="paper") == settings(name, preset="reference") for name in SOLVERS)


def test_given_settings_win() -> None:
    assert settings("ddrm", preset="reference", steps=7)["steps"] == 7
    assert settings("dps", preset="reference", steps="10")["scale"] == 0.5


def test_other_presets_stay_the_methods_own() -> None:
    assert settings("vipaint", preset="exact") != settings("vipaint", preset="official-lsun") != settings("vipaint")
    with pytest.raises(UsageError, match="no setting 'preset'"):
        solver("ddnm", preset="exact")


def test_the_default_method_with_the_paper_preset_is_not_tuned() -> None:
    assert choose_solver(None, {"preset": "reference"}) == solver("ddnm", preset="reference")
    assert choose_solver(None, {}) != solver("ddnm")


# -- what the published programs run -----------------------------------------------------------------------------------


def entries(name: str, **params: Any) -> list[int]:
    """Entries of the linear table of 1000 betas at which a reference run evaluates its prior, in order."""
    exact = toy_g()
    seen: list[int] = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(round(float(t[0]) * 1000) - 1)
        return exact.denoise(x_t, t.double())

    solver(name, preset="reference", **params).sample(DenoiserPrior(denoise, VP(), (1, 1, 2)), KNOWN, Y)
    return seen


def stride(first: int, step: int) -> list[int]:
    return list(range(first, -1, -step))


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("reddiff", stride(990, 10)),
        ("ddnm", stride(990, 10)),
        ("pigdm", stride(990, 10)),
        ("ddrm", stride(950, 50)),
    ],
)
def test_times_of_the_published_runs(name: str, times: list[int]) -> None:
    assert entries(name) == times


@pytest.mark.parametrize("name", ["dps", "psld", "replacement"])
def test_a_thousand_steps_are_the_whole_table(name: str) -> None:
    run: Any = solver(name, preset="reference")
    assert [round(float(t) * 1000) - 1 for t in VP().grid(run.steps, run.spacing)[:-1]] == stride(999, 1)


def test_repaint_walks_the_respaced_table() -> None:
    """T = 250 of 1000, at the entries round(k 999 / 249); j = 10, r = 10: 2410 calls."""
    assert entries("repaint", resamplings=1) == [round(k * 999 / 249) for k in range(249, -1, -1)]
    run = solver("repaint", preset="reference")
    assert isinstance(run, RePaint)
    assert (run.jump_length, run.resamplings, run.variance, run.cost().forward) == (10, 10, None, 2410)


def test_copaint_walks_the_respaced_table() -> None:
    visited = list(dict.fromkeys(entries("copaint", steps=50)))
    assert visited == [round(k * 999 / 49) for k in range(49, -1, -1)]


def test_resample_is_the_published_run() -> None:
    """S = 500, stages at 330 ... 10 steps to go, 2000 and 500 iterations, mean square below 1e-6, no pixel paste."""
    run = solver("resample", preset="reference")
    assert isinstance(run, ReSample)
    assert (run.steps, run.pixel_iterations, run.latent_iterations, run.tol, run.paste) == (500, 2000, 500, 1e-3, False)
    assert sorted(run.stages()) == list(range(10, 331, 10))
    # DDIM's times i j + 1 of the program, as entries of the table.
    assert [round(float(t) * 1000) - 1 for t in VP().grid(500)[:-1]] == list(range(999, 0, -2))


def test_runs_that_paste_nothing_leave_known_pixels_to_the_method() -> None:
    """The guidance of DPS meets y up to a limit cycle of about scale / 2, which pasting would hide."""
    out = solver("dps", preset="reference", steps=50).sample(toy_g(), KNOWN, Y / 2, num_samples=8)
    assert bool((out[..., 0] != 0.5).all())


def test_what_remains_is_said_of_every_method_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(REMAINS) | {"vipaint"} == set(SOLVERS)
    methods("repaint")
    shown = " ".join(capsys.readouterr().out.split())
    assert "--set preset=reference: clip=true, spacing=respaced" in shown and REMAINS["repaint"] in shown
