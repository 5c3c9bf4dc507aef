"""The whole loop: it learns, and a killed run goes on as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import torch

from priorpaint.errors import CancelToken, UsageError, printable
from priorpaint.priors.loading import load_prior
from priorpaint.priors.native.unet import UNetConfig
from priorpaint.priors.native.weights_file import read_weights
from priorpaint.priors.verify import check
from priorpaint.training.checkpoint import read_checkpoint
from priorpaint.training.config import TrainConfig
from priorpaint.training.data import centre_crops
from priorpaint.training.loop import Outcome, Report, _Run, train
from priorpaint.training.objectives import EDMObjective
from tests.training.command import run
from tests.training.conftest import draw_pictures

TINY = UNetConfig((8, 8), (1, 1), embedding=16)


def config(pictures: Path, out: Path, crops: int, **options: object) -> TrainConfig:
    return TrainConfig(
        (str(pictures),), str(out), network=TINY, size=16, batch=8, crops=crops, precision="float32",
        **options,  # type: ignore[arg-type]
    )  # fmt: skip


def state(folder: Path) -> dict[str, object]:
    loaded: dict[str, object] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return loaded


def assert_same_weights(one: Path, other: Path) -> None:
    for part in ("network", "ema"):
        torch.testing.assert_close(state(one)[part], state(other)[part], rtol=1e-4, atol=1e-6)


def test_a_hundred_steps_denoise_better_than_doing_nothing_and_than_no_training(pictures: Path, tmp_path: Path) -> None:
    reports: list[Report] = []
    outcome = train(config(pictures, tmp_path / "out", 960, val=(str(pictures),)), reports.append)
    assert (outcome.crops, outcome.cancelled) == (960, False)
    weights = read_weights(tmp_path / "out" / "weights.safetensors")
    network, metadata = weights.denoiser, weights.metadata
    clean = centre_crops([pictures], 40, 4, 3, [])
    sigma = torch.full((len(clean),), 0.4)
    noisy = clean + 0.4 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    wanted = EDMObjective(-1.2, 1.3, (0.01, 8.0), metadata.sigma_data, balance=True)
    with torch.no_grad():
        error = (wanted.denoise(network, noisy, sigma) - clean).square().mean()
    wiener = (noisy * (0.25 / (0.16 + 0.25)) - clean).square().mean()
    assert float(error) < 0.75 * float(wiener) < float((noisy - clean).square().mean())
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["crops"] == 960 and list(lines[-1]["psnr"]) == "15 25 50 75 100 200 400".split()
    assert (tmp_path / "out" / "samples.png").stat().st_size > 1000
    assert metadata.training["crops"] == 960 and str(tmp_path) not in json.dumps(dict(metadata.training))
    assert reports[-1].fraction == 1.0 and reports[-1].psnr is not None


def test_without_val_some_pictures_are_held_out_and_the_facts_say_so(tmp_path: Path) -> None:
    folder, reports = draw_pictures(tmp_path / "many", 200), list[Report]()
    train(config(folder, tmp_path / "out", 16), reports.append)
    facts = read_weights(tmp_path / "out" / "weights.safetensors").metadata.training
    held = facts["pictures_held_out"]
    assert held > 0 and facts["pictures"] == 200 - held and facts["held_out_psnr_db"]
    assert any(f"One picture in 50 ({held} in all) is held out" in note for note in reports[0].notes)
    train(config(folder, tmp_path / "all", 16, hold_out=False))
    facts = read_weights(tmp_path / "all" / "weights.safetensors").metadata.training
    assert facts["pictures"] == 200 and facts["held_out_psnr_db"] is None and facts["hold_out"] is False
    train(config(folder, tmp_path / "own", 16, val=(str(draw_pictures(tmp_path / "val")),)))
    facts = read_weights(tmp_path / "own" / "weights.safetensors").metadata.training
    assert facts["pictures"] == 200 and facts["held_out_psnr_db"] and "pictures_held_out" not in facts


@pytest.mark.parametrize("began_with", [True, False])
def test_a_run_that_goes_on_learns_what_it_began_with(tmp_path: Path, began_with: bool) -> None:
    folder, reports = draw_pictures(tmp_path / "many", 200), list[Report]()
    train(config(folder, tmp_path / "out", 16, hold_out=began_with))
    before = read_weights(tmp_path / "out" / "weights.safetensors").metadata.training["pictures"]
    for crops in (32, 48):
        train(config(folder, tmp_path / "out", crops, hold_out=not began_with), reports.append)
        assert read_weights(tmp_path / "out" / "weights.safetensors").metadata.training["pictures"] == before
    assert before == 200 or began_with
    assert sum("goes on with the pictures that it began with" in note for each in reports for note in each.notes) == 2


def test_a_finished_run_says_so_and_makes_up_no_figures(pictures: Path, tmp_path: Path) -> None:
    words = ("--data", pictures, "--out", tmp_path / "out", "--crops", "16", "--batch", "8", "--size", "16")
    words = (*words, "--channels", "8", "--blocks", "1", "--precision", "float32")
    first, again = run(*words), run(*words)
    for done in (first, again):
        assert done.exit_code == 0
        sentences = ("Saving the checkpoint.", "Drawing samples.png.", "riting the weights.", "100.0% 16 crops")
        places = [done.stderr.index(sentence) for sentence in sentences]
        assert places == sorted(places)  # what takes the time after the last step is said while it does
        assert done.stderr.count("100.0%") == 1
    assert "images/s" in first.stderr and "run is finished" not in first.stderr
    assert "This run is finished" in again.stderr and "more than 16 --crops" in again.stderr
    assert "loss" not in again.stderr and "images/s" not in again.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [set(line) & {"loss", "crops_per_second"} for line in lines] == [{"loss", "crops_per_second"}, set()]


def test_the_weights_say_whether_they_denoise(pictures: Path, tmp_path: Path) -> None:
    reports: list[Report] = []
    train(config(pictures, tmp_path / "out", 8), reports.append)
    prior = load_prior(tmp_path / "out")
    assert prior.facts is not None
    figures = prior.facts["training"]["verify"]
    crops = centre_crops([pictures], 16, 4, 3, [])
    assert figures["denoises"] is False is check(prior, pictures=crops).denoises
    assert [level[0] for level in figures["levels"]] == [0.1, 1.0, 8.0]
    assert "train it longer" in reports[-1].notes[0]


def test_names_that_are_no_text_and_a_file_in_place_of_the_folder(pictures: Path, tmp_path: Path) -> None:
    (pictures / os.fsdecode(b"bad\xff.png")).write_bytes(b"no picture")
    train(config(pictures, tmp_path / "out", 8))
    assert "bad\\udcff.png" in (tmp_path / "out" / "skipped.txt").read_text()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file, but a run"):
        train(config(pictures, tmp_path / "file", 8))


def start(pictures: Path, out: Path, crops: int) -> subprocess.Popen[str]:
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from priorpaint.training.config import TrainConfig\n"
        "from priorpaint.training.loop import train\n"
        "from priorpaint.priors.native.unet import UNetConfig\n"
        f"c = TrainConfig(({str(pictures)!r},), {str(out)!r}, network=UNetConfig((8, 8), (1, 1), embedding=16),"
        f" size=16, batch=8, crops={crops}, precision='float32', checkpoint_seconds=0.0)\n"
        "train(c)\n"
    )
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source + os.pathsep + os.environ.get("PYTHONPATH", "")}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, text=True)


def test_a_killed_process_resumes_as_if_uninterrupted(pictures: Path, tmp_path: Path) -> None:
    budget = 4000  # some seconds: the signal comes long before the end
    process = start(pictures, tmp_path / "killed", budget)
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed" / "checkpoint.pt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    done = state(tmp_path / "killed")["crops"]
    assert isinstance(done, int) and 0 < done < budget
    final = done + 80
    # The learning rate follows the budget; below 60 % of it, it is the same for both budgets.
    for name in ("killed", "whole"):
        cancel = CancelToken()
        train(config(pictures, tmp_path / name, final * 2, report_seconds=0.0), _CancelAt(final, cancel), cancel)
    assert_same_weights(tmp_path / "killed", tmp_path / "whole")


class _CancelAt:
    """Cancels once enough crops are seen."""

    def __init__(self, crops: int, cancel: CancelToken) -> None:
        self.crops, self.cancel = crops, cancel

    def __call__(self, report: Report) -> None:
        if report.crops >= self.crops:
            self.cancel.cancel()


def test_another_thread_cancels_within_a_step_and_the_checkpoint_is_kept(pictures: Path, tmp_path: Path) -> None:
    """Training in a thread, where Python has no signals, and stopped by the main one."""
    cancel, trained, crops_so_far = CancelToken(), threading.Event(), []
    outcomes: list[Outcome] = []

    def on_progress(report: Report) -> None:
        crops_so_far.append(report.crops)
        if report.crops >= 80:
            trained.set()
            while not cancel.cancelled:  # holds the run inside its step until it is cancelled
                time.sleep(0.001)

    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    asked = config(pictures, tmp_path / "out", 10**7, report_seconds=0.0)
    thread = threading.Thread(target=lambda: outcomes.append(train(asked, on_progress, cancel)), daemon=True)
    thread.start()
    assert trained.wait(60)
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == handlers
    cancel.cancel()
    thread.join(60)
    assert not thread.is_alive()
    assert outcomes[0].cancelled and outcomes[0].crops == crops_so_far[-1] == state(tmp_path / "out")["crops"] == 80
    assert (tmp_path / "out" / "weights.safetensors").exists()
    assert train(config(pictures, tmp_path / "out", 96)).crops == 96  # goes on from there


def test_a_run_that_was_cancelled_before_it_began_takes_no_step(pictures: Path, tmp_path: Path) -> None:
    cancel = CancelToken()
    cancel.cancel()
    assert train(config(pictures, tmp_path / "out", 80), cancel=cancel).crops == 0


@pytest.mark.parametrize("other", [False, True])
def test_a_process_stops_where_another_one_is_cancelled(pictures: Path, tmp_path: Path, other: bool) -> None:
    running, token = _Run(config(pictures, tmp_path / "out", 80), lambda report: None), CancelToken()
    running.before, running.began = 0.0, time.monotonic()
    running.accelerator = SimpleNamespace(  # type: ignore[assignment]
        num_processes=2, device="cpu", gather=lambda signs: torch.cat([signs, torch.tensor([0.0, float(other)])])
    )
    assert running._over(token) == running.cancelled == other
    assert not token.cancelled


def test_weights_start_a_new_run_and_another_network_is_refused(pictures: Path, tmp_path: Path) -> None:
    train(config(pictures, tmp_path / "first", 16))
    weights = str(tmp_path / "first" / "weights.safetensors")
    train(replace(config(pictures, tmp_path / "second", 8, init=weights), precision="bf16"))
    assert state(tmp_path / "second")["crops"] == 8
    other = UNetConfig((8, 12), (1, 1), embedding=16)
    for options in ({"init": weights}, {}):
        folder = tmp_path / ("third" if options else "first")
        wrong = TrainConfig((str(pictures),), str(folder), network=other, size=16, crops=8, **options)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="ask for the same"):
            train(wrong)


def test_a_damaged_checkpoint_is_one_sentence(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(UsageError, match="not a readable checkpoint"):
        train(config(pictures, tmp_path / "out", 8))
    assert train(config(pictures, tmp_path / "out", 8, resume=False)).crops == 8


def test_a_fuzzed_checkpoint_is_one_sentence_or_whole(tmp_path: Path) -> None:
    """Cut anywhere, or with bytes changed anywhere: the run never begins with other weights, and never fails oddly."""
    pictures, path, rng = draw_pictures(tmp_path / "small", side=16), tmp_path / "out" / "checkpoint.pt", Random(0)
    train(config(pictures, tmp_path / "out", 16))
    content, before, refused = path.read_bytes(), state(tmp_path / "out")["network"], 0
    for index in range(300):
        damaged = bytearray(content[: rng.randrange(len(content))] if index % 3 == 0 else content)
        for _ in range(0 if index % 3 == 0 else rng.choice((1, 4, 30))):
            damaged[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            held = read_checkpoint(path)
        except UsageError as error:
            refused += 1
            assert str(path) in str(error) and "--no-resume" in str(error) and printable(error) == str(error)
        else:  # what was changed is no part of the state
            torch.testing.assert_close(held["network"], before, rtol=0, atol=0)
    assert refused > 250


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", "many"),
        ("step", 10**30),
        ("seconds", float("nan")),
        ("network", {"a": 1}),
        ("network", [1]),
        ("ema", {}),
        ("optimizers", {"muon": 1}),
        ("balance", "x"),
        ("balance", torch.ones(3)),
        ("config", {"network": {"channels": [10**6] * 2, "blocks": [9, 9]}}),
        ("config", {"network": {"channels": [8, 8], "blocks": [1]}}),
        ("config", []),
        ("autoencoder", 3),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_checkpoint_of_another_content_is_one_sentence(tmp_path: Path, key: str, value: object) -> None:
    pictures, path = draw_pictures(tmp_path / "small", side=16), tmp_path / "out" / "checkpoint.pt"
    path.parent.mkdir()
    run_of = _Run(config(pictures, tmp_path / "out", 16), lambda report: None)
    run_of.began, run_of.before = time.monotonic(), 0.0
    run_of._save()
    torch.save({**torch.load(path, weights_only=True), key: value}, path)
    with pytest.raises(UsageError, match="checkpoint.pt is not a readable checkpoint"):
        _Run(config(pictures, tmp_path / "out", 16), lambda report: None)


def arguments(pictures: Path, out: Path, crops: int) -> list[str]:
    words = ["--data", str(pictures), "--out", str(out), "--size", "16", "--channels", "8,8", "--blocks", "1,1"]
    return [*words, "--crops", str(crops), "--precision", "float32"]


def test_ctrl_c_at_the_command_line_saves_and_exits_130(pictures: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-m", "priorpaint", "train", *arguments(pictures, tmp_path / "out", 10**7)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "images/s" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "continues from there" in rest and "Traceback" not in rest
    crops = state(tmp_path / "out")["crops"]
    assert isinstance(crops, int)
    assert load_prior(tmp_path / "out", device="cpu").image_shape[0] == 3  # usable before any validation
    result = run(*arguments(pictures, tmp_path / "out", crops + 64))
    assert result.exit_code == 0 and f"Trained on {crops + 64} crops" in " ".join(result.stdout.split())


def test_errors_at_the_command_line_are_one_sentence(pictures: Path, tmp_path: Path) -> None:
    cases = {
        "There is no folder": arguments(tmp_path / "no", tmp_path / "out", 8),
        "budget must be positive": arguments(pictures, tmp_path / "out", 0),
        "--channels must be whole numbers": [*arguments(pictures, tmp_path / "out", 8), "--channels", "8;8"],
        "use a smaller --batch or --size": [*arguments(pictures, tmp_path / "out", 8), "--batch", "1000000000000"],
        "use fewer or narrower --channels": [*arguments(pictures, tmp_path / "out", 8), "--channels", "1000000,8"],
        "hours must be a finite number": [*arguments(pictures, tmp_path / "out", 8), "--hours", "inf"],
        "lr must be a finite number": [*arguments(pictures, tmp_path / "out", 8), "--lr", "inf"],
        "budget is at most": arguments(pictures, tmp_path / "out", 10**30),
        "/proc/x cannot be made": arguments(pictures, Path("/proc/x"), 8),
        "There is no weights file": [*arguments(pictures, tmp_path / "out", 8), "--init", str(tmp_path / "no")],
    }
    for words, case in cases.items():
        result = run(*case)
        assert result.exit_code == (1 if "weights file" in words else 2)
        assert result.stderr.startswith("priorpaint: ") and words in result.stderr and result.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence_and_the_run_goes_on(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "log.jsonl").symlink_to("/dev/full")
    result = run(*arguments(pictures, out, 8))
    assert result.exit_code == 2 and "log.jsonl cannot be written (No space left on device)" in result.stderr
    assert state(out)["crops"] == 32  # a batch
    (out / "log.jsonl").unlink()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("priorpaint.imaging.writing.os.fsync", full)
        result = run(*arguments(pictures, out, 40))
    assert result.exit_code == 2 and "checkpoint.pt cannot be written (No space left on device)" in result.stderr
    assert state(out)["crops"] == 32 and sorted(file.suffix for file in out.iterdir()) == [
        ".png",
        ".pt",
        ".safetensors",
    ]
    assert run(*arguments(pictures, out, 40)).exit_code == 0 and state(out)["crops"] == 64


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: not enough memory")],
)
def test_too_little_memory_names_options_of_this_command(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(_Run, "_step", fail)
    result = run(*arguments(pictures, tmp_path / "out", 8))
    assert result.exit_code == 1 and "not enough memory" in result.stderr and "--batch or --size" in result.stderr
    assert "--batch-size" not in result.stderr and "Traceback" not in result.stderr


def test_many_files_that_cannot_be_used_are_listed_in_a_file(pictures: Path, tmp_path: Path) -> None:
    for index in range(7):
        (pictures / f"broken-{index}.png").write_text("no picture")
    notes: list[str] = []
    train(config(pictures, tmp_path / "out", 8), lambda report: notes.extend(report.notes))
    listed = (tmp_path / "out" / "skipped.txt").read_text().splitlines()
    assert len(listed) == 7 and notes[:5] == listed[:5]
    assert notes[5].startswith("... and 2 more files skipped;") and "skipped.txt" in notes[5]
    assert sum("Found" in note for note in notes) == 1


@pytest.mark.parametrize(("decay", "factor"), [(0.4, 0.02 + 0.98 * 0.02), (1.0, 0.02 + 0.98 * 0.008)])
def test_the_learning_rates_fall_over_the_share_of_the_budget_that_is_asked_for(
    pictures: Path, tmp_path: Path, decay: float, factor: float
) -> None:
    # Before the last of 125 steps, 0.8 % of the budget is left: 2 % of a fall over 0.4 of it.
    train(config(pictures, tmp_path, 8 * 125, lr=0.003, adam_lr=0.0004, decay=decay))
    optimizers = state(tmp_path)["optimizers"]
    assert isinstance(optimizers, dict)
    assert optimizers["muon"]["param_groups"][0]["lr"] == pytest.approx(0.003 * factor)
    assert optimizers["adam"]["param_groups"][0]["lr"] == pytest.approx(0.0004 * factor)


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_of_decay_outside_the_budget_is_refused(pictures: Path, tmp_path: Path, decay: float) -> None:
    with pytest.raises(UsageError, match="decay (is a share|must be a finite)"):
        config(pictures, tmp_path, 8, decay=decay)
