"""Plan, then run: what is known before any work, what a run tells, and how it is stopped."""

from __future__ import annotations

import builtins
import hashlib
import inspect
import io
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import priorpaint
from priorpaint import CancelToken, Completion, DenoiserPrior, Loading, Solver, Step, Stopped, UsageError
from priorpaint.diffusion.schedules import EDM, VP
from priorpaint.errors import NotEnoughMemory, out_of_memory
from priorpaint.imaging import save_picture
from priorpaint.inpainting import api, levels
from priorpaint.inpainting.result import SUFFIXES, Output
from priorpaint.priors.latent import LatentPrior
from priorpaint.solvers import Cost
from priorpaint.solvers.base import Task
from priorpaint.solvers.vipaint import VIPaint
from tests.latent_toy import Curved

FAST: dict[str, Any] = {"method": "replacement", "steps": 4}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def hole(height: int = 48, width: int = 64, side: int = 10) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[8 : 8 + side, 8 : 8 + side] = True
    return mask


def half(shape: tuple[int, int | None, int | None] = (3, None, None), calls: list[int] | None = None) -> DenoiserPrior:
    """D(x_t, t) = x_t / 2, which notes the rows of each call."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        if calls is not None:
            calls.append(len(x_t))
        return 0.5 * x_t

    return DenoiserPrior(denoise, EDM(sigma_min=0.01, sigma_max=8), shape, multiple=4, name="half")


@pytest.fixture
def one_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holes are filled at full size only."""
    monkeypatch.setattr(levels, "COARSE_ABOVE", 96)


def test_a_plan_knows_windows_cost_and_warnings_before_any_work() -> None:
    calls: list[int] = []
    ready = priorpaint.plan(PICTURE, ~hole(), half(calls=calls), num_samples=3, **FAST)
    assert calls == []
    assert any("repaint" in warning or "%" in warning for warning in ready.warnings)  # most of the picture is a hole
    assert len(ready.windows) >= 1
    result = ready.run()
    assert (result.info["nfe"]["forward"], result.info["nfe"]["backward"]) == (ready.cost.forward, ready.cost.backward)
    assert sum(calls) == ready.cost.forward
    assert result.warnings == ready.warnings
    before = len(calls)
    assert ready.seconds() > 0 and len(calls) == before + 4  # its largest and smallest windows differ much


def test_a_plan_can_be_run_again() -> None:
    ready = priorpaint.plan(PICTURE, hole(), half(), num_samples=2, **FAST)
    first, second = ready.run(), ready.run()
    assert len(second.images) == 2
    assert all(np.array_equal(a, b) for a, b in zip(first.images, second.images, strict=True))


def test_files_are_opened_and_the_solver_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "picture.png", tmp_path / "mask.png"]
    PICTURE.save(files[0])
    Image.fromarray(hole().astype(np.uint8) * 255).save(files[1])
    opened, builds = [], []
    really_open, build = open, api.choose_solver
    for module in (builtins, io):
        monkeypatch.setattr(
            module, "open", lambda name, *a, **k: opened.append(str(name)) or really_open(name, *a, **k)
        )
    monkeypatch.setattr(api, "choose_solver", lambda *a: builds.append(a) or build(*a))
    info = priorpaint.inpaint(*files, half(), num_samples=2, **FAST).info
    monkeypatch.undo()
    assert [opened.count(str(file)) for file in files] == [1, 1] and len(builds) == 1
    for about, file in zip((info["image"], info["mask"]), files, strict=True):
        assert (about["path"], about["sha256"]) == (str(file), hashlib.sha256(file.read_bytes()).hexdigest())


def test_a_wrong_setting_is_told_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match="its settings are"):
        priorpaint.plan("gone.png", "gone.png", "gone", "ddnm", speed=3)


@pytest.mark.usefixtures("one_scale")
def test_events_say_where_which_samples_and_show_a_picture() -> None:
    events: list[Any] = []
    previews: list[Image.Image] = []

    def on_event(event: Any) -> None:
        events.append(event)
        if isinstance(event, Step):
            previews.append(event.preview())

    mask = hole()
    result = priorpaint.inpaint(PICTURE, mask, half(), num_samples=3, batch_size=2, on_event=on_event, **FAST)
    assert isinstance(events[0], Loading)
    steps = [event for event in events if isinstance(event, Step)]
    assert {step.samples for step in steps} == {(0, 1), (2,)}
    assert {step.scale for step in steps} == {1} and steps[-1].done == steps[-1].total
    x, y, width, height = steps[0].window
    assert x <= 8 and y <= 8 and x + width >= 18 and y + height >= 18
    for preview in previews:
        assert preview.size == PICTURE.size and preview.mode == PICTURE.mode
        assert np.array_equal(np.asarray(preview)[~mask], np.asarray(PICTURE)[~mask])
    assert not np.array_equal(np.asarray(previews[0])[mask], np.asarray(PICTURE)[mask])
    # The last estimate of sample 2 is the completion, up to the rounding of its last step.
    difference = np.abs(np.asarray(previews[-1], dtype=float) - np.asarray(result.images[2], dtype=float))
    assert difference.max() <= 1
    assert [event.index for event in events if isinstance(event, Completion)] == [0, 1, 2]


def test_a_latent_prior_shows_pictures_too() -> None:
    autoencoder = Curved()
    prior = LatentPrior(
        DenoiserPrior(lambda x, t: 0.5 * x, VP(), (autoencoder.channels, None, None)), autoencoder, "half"
    )
    shown: list[Image.Image] = []
    priorpaint.inpaint(
        PICTURE,
        hole(),
        prior,
        "ddnm",
        num_samples=1,
        steps=2,
        on_event=lambda event: shown.append(event.preview()) if isinstance(event, Step) else None,
    )
    assert shown and all(image.size == PICTURE.size and image.mode == "RGB" for image in shown)


def test_a_coarse_step_is_shown_where_it_belongs() -> None:
    mask = np.zeros((160, 160), dtype=bool)
    mask[40:120, 40:120] = True
    image = Image.new("RGB", (160, 160), (90, 120, 150))
    seen: list[tuple[int, tuple[int, int, int, int], Image.Image]] = []

    def on_event(event: Any) -> None:
        if isinstance(event, Step):
            seen.append((event.scale, event.window, event.preview()))

    priorpaint.inpaint(image, mask, half(), num_samples=1, on_event=on_event, **FAST)
    assert max(scale for scale, _, _ in seen) > 1
    for _, (x, y, width, height), preview in seen:
        assert x <= 40 and y <= 40 and x + width >= 120 and y + height >= 120
        assert np.array_equal(np.asarray(preview)[~mask], np.asarray(image)[~mask])


@pytest.mark.usefixtures("one_scale")
def test_cancelling_from_another_thread_ends_within_one_call_and_keeps_what_is_finished() -> None:
    token, entered, go_on = CancelToken(), threading.Event(), threading.Event()
    calls: list[int] = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x_t))
        if len(calls) == 6:  # in the second sample
            entered.set()
            assert go_on.wait(10)
        return 0.5 * x_t

    prior = DenoiserPrior(denoise, EDM(sigma_min=0.01, sigma_max=8), (3, None, None), multiple=4, name="slow")
    caught: list[Stopped] = []

    def work() -> None:
        try:
            priorpaint.inpaint(PICTURE, hole(), prior, num_samples=3, batch_size=1, cancel=token, **FAST)
        except Stopped as stopped:
            caught.append(stopped)

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(10)
    token.cancel()
    go_on.set()
    thread.join(10)
    assert not thread.is_alive()
    assert len(calls) == 6
    assert caught[0].result is not None and len(caught[0].result.images) == 1


@dataclass(frozen=True)
class Own(Solver):
    """A solver that a user wrote, which is not registered."""

    title: ClassVar[str] = "own"
    about: ClassVar[str] = "For tests."
    reference: ClassVar[str] = "-"
    needs: ClassVar[frozenset[str]] = frozenset()
    cost_formula: ClassVar[str] = "1"

    def cost(self, num_samples: int = 1) -> Cost:
        return Cost(num_samples, 0)

    def _steps(self) -> int:
        return 1

    def _run(self, task: Task) -> Tensor:
        x = task.prior.denoise(task.start(torch.ones((), dtype=torch.float64)), 1.0)
        task.report(1, x)
        return x


@dataclass(frozen=True)
class OwnWithStart(Own):
    """The same with a setting of this name."""

    t_init: float = 1.0


@dataclass(frozen=True)
class Silent(Own):
    """Many calls of the prior in its one step."""

    def _run(self, task: Task) -> Tensor:
        x = task.start(torch.ones((), dtype=torch.float64))
        for _ in range(9):
            x = task.prior.denoise(x, 1.0)
        return x


def test_cancelling_is_seen_at_the_next_call_of_the_prior_even_inside_a_step() -> None:
    token = CancelToken()
    calls: list[int] = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x_t))
        if len(calls) == 3:
            token.cancel()
        return 0.5 * x_t

    prior = DenoiserPrior(denoise, EDM(), (3, None, None), multiple=4, name="watched")
    with pytest.raises(Stopped):
        priorpaint.inpaint(PICTURE, hole(), prior, Silent(), num_samples=1, cancel=token)
    assert len(calls) == 3


@pytest.mark.parametrize("solver", [Own(), OwnWithStart()])
@pytest.mark.parametrize("side", [6, 70])
def test_a_solver_of_the_users_own_works_on_thin_and_wide_holes(solver: Solver, side: int) -> None:
    image = Image.new("RGB", (96, 96), (90, 120, 150))
    mask = hole(96, 96, side)
    result = priorpaint.inpaint(image, mask, half(), solver, num_samples=2)
    assert np.array_equal(np.asarray(result.images[0])[~mask], np.asarray(image)[~mask])
    assert result.info["call"]["method"] == type(solver).__name__


def test_vipaint_draws_all_samples_of_a_chunk_in_calls_of_as_many_rows() -> None:
    calls: list[int] = []
    method = VIPaint(preset="exact", levels=1, iterations=2, mc_samples=1, refine_steps=2, top_steps=4)
    priorpaint.inpaint(PICTURE, hole(), half(calls=calls), method, num_samples=4, batch_size=4)
    drawing = method.cost(4).forward + method.cost(4).backward - method.cost(0).forward - method.cost(0).backward
    assert drawing > 0 and calls.count(4) == drawing / 4


def test_the_main_job_names_no_solver() -> None:
    folder = Path(inspect.getfile(api)).parent
    named = [file.name for file in folder.glob("*.py") if "vipaint" in file.read_text(encoding="utf-8").lower()]
    assert named == []


def test_wrong_arguments_are_told_by_plan() -> None:
    with pytest.raises(UsageError, match="nothing to repaint"):
        priorpaint.plan(PICTURE, None, half(), **FAST)


def test_evaluations_of_a_run_are_its_own_where_threads_share_a_prior() -> None:
    """Twice as many as a run costs are counted by the prior, and not by either run."""
    together = threading.Barrier(2, timeout=20)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        together.wait()  # so that each call of one run falls between two of the other
        return 0.5 * x_t

    shared = DenoiserPrior(denoise, EDM(sigma_min=0.01, sigma_max=8), (3, None, None), multiple=4)
    plans = [priorpaint.plan(PICTURE, hole(), shared, num_samples=3, seed=seed, **FAST) for seed in (0, 1)]
    results: list[Any] = []
    threads = [threading.Thread(target=lambda ready=ready: results.append(ready.run())) for ready in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.info["nfe"]["forward"] for result in results] == [plans[0].cost.forward] * 2
    assert shared.nfe.forward == 2 * plans[0].cost.forward


def test_finished_completions_are_not_drawn_again() -> None:
    calls: list[int] = []
    ready = priorpaint.plan(PICTURE, hole(), half(calls=calls), num_samples=4, batch_size=1, **FAST)
    whole = ready.run()
    calls.clear()
    events: list[object] = []
    again = ready.run(events.append, finished=whole.images[:3])
    assert sum(calls) * 4 == ready.cost.forward and again.info["resumed_after"] == 3
    assert [event.index for event in events if isinstance(event, Completion)] == [3]
    steps = [event for event in events if isinstance(event, Step)]
    assert all(step.samples == (3,) for step in steps) and steps[-1].done == steps[-1].total
    for old, new in zip(whole.images, again.images, strict=True):
        assert old.tobytes() == new.tobytes()
    # Three of the four were rounded to 1/255, half a step off at most.
    assert whole.uncertainty is not None and again.uncertainty is not None
    assert np.abs(whole.uncertainty - again.uncertainty).max() <= 1 / 255
    with pytest.raises(UsageError, match="finished is a list of images, at most as many as"):
        ready.run(finished=[PICTURE] * 5)


def test_the_plan_knows_what_memory_and_disk_it_takes() -> None:
    """More samples take more of both; the estimates hold the completions at least."""
    few, many = (priorpaint.plan(PICTURE, hole(), half(), num_samples=n, batch_size=1, **FAST) for n in (1, 100))
    size = 48 * 64 * 3
    assert few.disk() >= 2 * size and many.disk() >= 101 * size
    assert many.memory() - few.memory() == 99 * size
    assert few.info["sample_seeds"] == many.info["sample_seeds"][:1]


def test_a_slip_of_the_finger_is_no_number_of_samples() -> None:
    with pytest.raises(UsageError, match="from 1 to 100000"):
        priorpaint.plan(PICTURE, hole(), half(), num_samples=999_999_999_999, **FAST)


@pytest.mark.usefixtures("one_scale")
def test_too_little_memory_is_a_sentence_and_keeps_what_is_finished() -> None:
    calls = 0

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return 0.5 * x_t if calls < 7 else torch.empty(2**50)  # four calls a sample

    greedy = DenoiserPrior(denoise, EDM(sigma_min=0.01, sigma_max=8), (3, None, None), multiple=4)
    with pytest.raises(NotEnoughMemory, match="--batch-size 1.*--max-memory") as caught:
        priorpaint.inpaint(PICTURE, hole(), greedy, num_samples=3, batch_size=1, **FAST)
    assert caught.value.result.info["finished_samples"] == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_tells_a_lack_of_memory(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) is expected


def test_going_on_in_other_versions_is_told(tmp_path: Path) -> None:
    ready = priorpaint.plan(PICTURE, hole(), half(), num_samples=2, **FAST)
    ready.run().save(tmp_path, "a")
    path = tmp_path / "run.json"
    record = json.loads(path.read_text())
    record |= {"finished_samples": 1, "versions": {**record["versions"], "torch": "1.0"}}
    del record["nfe"]
    path.write_text(json.dumps(record))
    with Output(tmp_path, "a").resumed(2, ready.info, ready.looks, ready.known) as (going_on, finished):
        assert len(finished) == going_on.finished == 1
        now = ready.info["versions"]["torch"]
        told = f"{path} was begun with torch 1.0 (now {now}); the samples that it has may be others than these versions"
        assert going_on.told == (f"{told} draw.",)
    with Output(tmp_path, "a").resumed(2, ready.info, ready.looks, ready.known) as (going_on, _):
        assert going_on.told == ()


@pytest.mark.parametrize(
    ("mode", "format"),
    [(mode, format) for mode in ("RGB", "L", "P") for format in ("png", "webp", "tiff", "jpg")]
    + [(mode, format) for mode in ("RGBA", "I;16") for format in ("png", "tiff")]
    + [("RGBA", "webp")],
)
def test_a_completion_that_was_replaced_is_drawn_again(mode: str, format: str, tmp_path: Path) -> None:
    grey = PICTURE.convert("L")
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else PICTURE.convert(mode)
    if mode == "RGBA":
        image.putalpha(grey)
    ready = priorpaint.plan(image, hole(), half(), num_samples=3, **FAST)
    ready.run().save(tmp_path, "a", format=format)
    path = tmp_path / "run.json"
    record = json.loads(path.read_text())
    del record["nfe"]
    path.write_text(json.dumps(record))
    output = Output(tmp_path, "a", SUFFIXES[format])
    with output.resumed(3, ready.info, ready.looks, ready.known) as (_, finished):
        assert len(finished) == 3
    if format != "jpg":  # which keeps no pixels to compare
        save_picture(ready.looks.image.transpose(Image.Transpose.ROTATE_180), output.completion(1))
        with output.resumed(3, ready.info, ready.looks, ready.known) as (_, finished):
            assert len(finished) == 1
