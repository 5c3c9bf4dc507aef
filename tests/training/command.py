"""`priorpaint train`, run inside the test's process."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.testing import CliRunner, Result

from priorpaint.cli.train import train


def run(*words: str | Path) -> Result:
    """What the command with these words printed, and its exit code."""
    app = typer.Typer()
    app.command()(train)
    return CliRunner().invoke(app, [str(word) for word in words])
