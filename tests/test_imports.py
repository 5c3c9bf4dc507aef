"""What `import priorpaint` may load: torch, numpy and pydantic, but nothing that only some commands need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import priorpaint

HEAVY = (
    *("PIL", "accelerate", "cv2", "diffusers", "lpips", "matplotlib", "rich", "scipy", "skimage", "torchvision"),
    "typer",
)
# Modules of pydantic and priorpaint itself; each costs time, so a jump in their number deserves a look.
MOST_NEW_MODULES = 125


def modules_after(statement: str) -> tuple[set[str], set[str]]:
    """The modules that torch alone loads, and those that the statement adds to them, in a fresh process."""
    code = f"import torch, sys, json; a = [*sys.modules]\n{statement}\nprint(json.dumps([a, [*sys.modules]]))"
    environment = {**os.environ, "PYTHONPATH": str(Path(priorpaint.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    before, after = json.loads(done.stdout)
    return set(before), set(after) - set(before)


@pytest.fixture(scope="module")
def added() -> set[str]:
    before, new = modules_after("import priorpaint")
    loaded = {name.split(".")[0] for name in before}
    assert "torch" in loaded
    return new


def test_nothing_heavy(added: set[str]) -> None:
    assert "priorpaint.solvers" in added
    assert {name.split(".")[0] for name in added} & set(HEAVY) == set()


def test_few_modules(added: set[str]) -> None:
    assert len(added) <= MOST_NEW_MODULES


def test_the_main_job_loads_pillow_and_nothing_else_that_is_heavy() -> None:
    _, added = modules_after("import priorpaint; priorpaint.inpaint, priorpaint.load_prior, priorpaint.Result")
    assert {name.split(".")[0] for name in added} & set(HEAVY) == {"PIL"}


def test_every_public_name_is_there() -> None:
    assert all(getattr(priorpaint, name) is not None for name in priorpaint.__all__)
    assert dir(priorpaint) == sorted(priorpaint.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        priorpaint.nonsense  # noqa: B018
