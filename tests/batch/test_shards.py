"""Shards that write into one folder at once, by the very script that the page gives for SLURM."""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import priorpaint
from priorpaint.batch import Store

PAGE = Path(__file__).parents[2] / "docs/batch.md"
PROGRAM = (
    f"{shlex.quote(sys.executable)} -m priorpaint batch --prior avatars -n 1 --set steps=2 --threads 1 --workers 1"
)


@pytest.mark.slow
def test_the_tasks_of_an_array_share_a_folder_and_do_every_picture_once(tmp_path: Path) -> None:
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        hole = np.zeros((32, 32), dtype=np.uint8)
        hole[8:16, 8:16] = 255
        for folder, name, image in (("damaged", f"{i}.png", pixels), ("damaged-masks", f"{i}_mask.png", hole)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / folder / name)
    found = re.search(r"^#!/bin/bash\n#SBATCH.*?(?=^```)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    script = found[0].replace("/100", "/3").replace("srun priorpaint batch", PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(priorpaint.__file__).parents[1])}
    tasks = [
        subprocess.Popen(
            ["bash", "-ec", script],
            cwd=tmp_path,
            env={**environment, "SLURM_ARRAY_TASK_ID": str(task)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in (1, 2, 3)
    ]
    for task in tasks:
        _, err = task.communicate(timeout=300)
        assert task.returncode == 0, err
    lines = (tmp_path / "out/done.jsonl").read_text().splitlines()
    assert len(lines) == len(Store(tmp_path / "out")) == 24
    assert len(list((tmp_path / "out").glob("*_0.png"))) == 24
    with open(tmp_path / "out/summary.csv", newline="", encoding="utf-8") as file:
        assert sorted(int(row["out"]) for row in csv.DictReader(file)) == list(range(24))
