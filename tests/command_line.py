"""The command line, in this process and in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import priorpaint
from priorpaint.cli import main


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: object, program: Callable[[], object] = main) -> int:
    """Of ``priorpaint ARGUMENTS``, or of another program; what it prints goes to capsys."""
    monkeypatch.setattr(sys, "argv", ["priorpaint", *map(str, arguments)])
    threads = torch.get_num_threads()
    try:
        with pytest.raises(SystemExit) as caught:
            program()
    finally:
        torch.set_num_threads(threads)
    return int(caught.value.code or 0)


def start(
    *arguments: object, program: tuple[str, ...] = ("-m", "priorpaint"), stdin: int | None = None
) -> subprocess.Popen[str]:
    """``priorpaint ARGUMENTS``, or another program of Python, as a process; ``stdin`` as for `subprocess.Popen`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(priorpaint.__file__).parents[1]), "NO_COLOR": "1"}
    command = [sys.executable, *program, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=stdin, stdout=pipe, stderr=pipe, text=True, env=environment)


def finish(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process when it has ended."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err
