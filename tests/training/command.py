"""`priorpaint train`, run inside the test's process."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from priorpaint.cli import main


@dataclass(frozen=True)
class Result:
    """What a command printed, and its exit code."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def run(*words: str | Path) -> Result:
    """``priorpaint train`` with these words."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["priorpaint", "train", *map(str, words)]),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as caught,
    ):
        main()
    return Result(int(caught.value.code or 0), out.getvalue(), err.getvalue())
