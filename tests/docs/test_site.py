"""The site builds strictly, and its API reference shows what a user can call."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_site_builds_and_lists_nothing_internal(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings_handlers.python")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "api.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert "priorpaint.inpainting.api.inpaint(" in text and "num_samples" in text
    assert set(re.findall(r"\b__\w+__\b", text)) == {"__call__"}
    # Of a table for arguments that are described together; all of them have defaults.
    assert not re.search(r"^\s*required\s*$", text, re.MULTILINE)
