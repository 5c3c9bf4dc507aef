"""The command line in this process, for tests that need no process of its own."""

from __future__ import annotations

import sys

import pytest
import torch

from priorpaint.cli import main


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Of ``priorpaint ARGUMENTS``; what it prints goes to capsys."""
    monkeypatch.setattr(sys, "argv", ["priorpaint", *map(str, arguments)])
    threads = torch.get_num_threads()
    try:
        with pytest.raises(SystemExit) as caught:
            main()
    finally:
        torch.set_num_threads(threads)
    return int(caught.value.code or 0)
