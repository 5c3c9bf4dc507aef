"""The command line in this process, for tests that need no process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

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
