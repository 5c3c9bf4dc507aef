"""What the processes of the tests do: a module that they can import."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

from priorpaint.batch.runner import Record, Save, Step, Work
from priorpaint.errors import PriorError, UsageError


def make(folder: Path, device: str) -> Work:
    """A worker whose tasks are words: what happens."""
    if device == "none":
        raise PriorError("there is no such device.")
    return partial(_work, folder, device)


def _work(folder: Path, device: str, task: str, step: Step) -> tuple[Record, Save]:
    step(0.5)
    if task == "dies" or (task == "dies once" and not (folder / "died").exists()):
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "raises":
        raise UsageError("the mask is empty.")
    while task == "lasts":
        time.sleep(0.01)
        step(0.6)

    def save() -> None:
        if task == "full":
            raise UsageError("the disk is full.")
        (folder / task).write_text(task)

    return {"device": device, "threads": os.environ["OMP_NUM_THREADS"]}, save
