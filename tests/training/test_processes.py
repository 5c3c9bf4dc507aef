"""Two real processes train one network: their gradients are averaged, and what one is told both do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.training.config import TrainConfig
from priorpaint.training.data import to_float
from priorpaint.training.loop import _Run
from priorpaint.training.optim import rate_factor

pytestmark = pytest.mark.slow

TINY = UNetConfig((8, 8), (1, 1), embedding=64)


def launch(pictures: Path, out: Path, crops: int) -> subprocess.CompletedProcess[str]:
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(source)}
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "priorpaint"]
    words += ["train", "--data", str(pictures), "--out", str(out), "--size", "16", "--channels", "8,8"]
    words += ["--blocks", "1,1", "--batch", "8", "--crops", str(crops), "--precision", "float32", "--no-balance"]
    return subprocess.run([*words, "--threads", "1"], env=environment, capture_output=True, text=True, timeout=300)


def test_a_step_of_two_processes_is_one_step_on_both_batches(pictures: Path, tmp_path: Path) -> None:
    finished = launch(pictures, tmp_path / "two", 16)
    assert finished.returncode == 0, finished.stderr
    state = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    assert state["crops"] == 16

    config = TrainConfig(
        (str(pictures),), str(tmp_path / "one"), network=TINY, size=16, batch=8, crops=16, precision="float32",
        balance=False,
    )  # fmt: skip
    run = _Run(config, lambda report: None)
    for index in range(2):
        x_0, labels = run.pictures.batch(index, 8, seed=0)
        (run.task.losses(run.network, to_float(x_0), labels, index).weighed.mean() / 2).backward()
    run.optimizers.step(rate_factor(0, 0.0, 0.4))

    before = UNet(TINY, seed=0).state_dict()
    moved = 0.0
    for name, wanted in run.network.state_dict().items():
        torch.testing.assert_close(state["network"][name] - before[name], wanted - before[name], rtol=1e-2, atol=1e-6)
        moved += float((wanted - before[name]).abs().sum())
    assert moved > 0.01


def test_two_processes_end_together_resume_and_speak_once(pictures: Path, tmp_path: Path) -> None:
    for crops in (160, 320):
        finished = launch(pictures, tmp_path / "out", crops)
        assert finished.returncode == 0, finished.stderr
        assert finished.stderr.count("Found 10 pictures.") == finished.stdout.count("Trained on") == 1
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["crops"] for line in lines] == sorted(line["crops"] for line in lines) and lines[-1]["crops"] == 320
