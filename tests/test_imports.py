"""What may be imported when: nothing heavy by `import priorpaint` and by the command line before it runs something."""

from __future__ import annotations

import importlib
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
MOST_NEW_MODULES = 147
# Of the standard library, typer and priorpaint itself.
MOST_OF_THE_COMMAND_LINE = 250


def modules_after(statement: str, before: str = "import torch") -> tuple[set[str], set[str]]:
    """The modules that ``before`` loads, and those that the statement adds to them, in a fresh process."""
    code = f"{before}\nimport sys, json; a = [*sys.modules]\n{statement}\n"
    code += "print(json.dumps([a, [*sys.modules]]), file=sys.__stderr__)"
    environment = {**os.environ, "PYTHONPATH": str(Path(priorpaint.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    loaded, now = json.loads(done.stderr.splitlines()[-1])
    return set(loaded), set(now) - set(loaded)


def heavy(modules: set[str], *more: str) -> set[str]:
    return {name.split(".")[0] for name in modules} & {*HEAVY, *more}


def test_the_package_alone_loads_nothing_but_itself() -> None:
    _, added = modules_after("import priorpaint", before="import threading, typing")
    assert {name for name in added if name.startswith("priorpaint")} == {"priorpaint", "priorpaint.errors"}
    assert heavy(added, "torch", "numpy", "pydantic") == set()


def test_solvers_operators_and_priors_add_few_modules_to_torch() -> None:
    names = "DenoiserPrior, Inpainting, Prior, SOLVERS, analytic, schedules, solver"
    before, added = modules_after(f"from priorpaint import {names}")
    assert "torch" in before and "priorpaint.solvers" in added
    assert heavy(added) == set()
    assert len(added) <= MOST_NEW_MODULES


COMMANDS = (
    "batch",
    "certify",
    "inpaint",
    "methods",
    "priors",
    "priors add",
    "priors info",
    "priors verify",
    "theory",
    "train",
)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--version", 0),
        ("--help", 0),
        ("", 2),  # the help
        *((f"{command} --help", 0) for command in COMMANDS),
        ("nonsense", 2),
        ("inpaint", 2),  # an argument is missing
        ("inpaint picture.png --nonsense", 2),
        ("inpaint picture.png --samples many", 2),
        ("train --data pictures", 2),
        ("certify --budget 0", 2),
        ("priors add name", 2),
    ],
)
def test_help_version_and_wrong_use_wait_for_nothing_heavy(words: str, code: int) -> None:
    statement = (
        f"sys.argv = ['priorpaint', *{words.split()!r}]\n"
        "from priorpaint.cli import main\n"
        "try:\n    main()\n"
        f"except SystemExit as end:\n    assert (end.code or 0) == {code}, end.code\n"
        "else:\n    raise AssertionError('main() ends the process')"
    )
    _, added = modules_after(statement, before="")
    assert "priorpaint.cli.train" in added
    # typer itself reads options with pydantic, but needs it neither for the version nor for the list of commands.
    assert heavy(added, "torch", "numpy") == {"typer"}
    own = {name for name in added if name.startswith("priorpaint")}
    others = {name for name in own if not name.startswith("priorpaint.cli")}
    constants = {"priorpaint.training", "priorpaint.training.defaults"}
    assert others == {"priorpaint", "priorpaint.errors"} | constants
    if words in ("", "--help", "--version"):
        assert heavy(added, "pydantic") == {"typer"}
    assert len(added) <= MOST_OF_THE_COMMAND_LINE, len(added)


def test_the_shell_completes_without_torch() -> None:
    statement = (
        "import os, sys\nos.environ.update(_PRIORPAINT_COMPLETE='complete_bash', COMP_CWORD='2',"
        " COMP_WORDS='priorpaint inpaint --feat')\nsys.argv = ['priorpaint']\n"
        "import io\nsys.stdout = io.StringIO()\n"
        "from priorpaint.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    assert sys.stdout.getvalue().split() == ['--feather']\n"
        "else:\n    raise AssertionError('main() ends the process')"
    )
    _, added = modules_after(statement, before="")
    assert heavy(added, "torch", "numpy") == {"typer"}


def test_the_main_job_loads_pillow_and_nothing_else_that_is_heavy() -> None:
    _, added = modules_after("import priorpaint; priorpaint.inpaint, priorpaint.load_prior, priorpaint.Result")
    assert heavy(added) == {"PIL"}


def test_an_adapter_names_the_library_that_it_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepinv", None)
    monkeypatch.delitem(sys.modules, "priorpaint.adapters.deepinv", raising=False)
    with pytest.raises(priorpaint.MissingExtra, match="pip install deepinv"):
        importlib.import_module("priorpaint.adapters.deepinv")


@pytest.mark.parametrize("name", priorpaint.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(priorpaint, name) is not None
    assert name in vars(priorpaint)  # looked for once


def test_the_public_face() -> None:
    assert dir(priorpaint) == sorted(priorpaint.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        priorpaint.nonsense  # noqa: B018


def test_public_names_are_not_shadowed_by_modules_of_like_names() -> None:
    code = (
        "import priorpaint.inpainting.api, priorpaint.solvers, priorpaint.diffusion.schedules\n"
        "from priorpaint import analytic, inpaint, schedules, solver\n"
        "assert callable(inpaint) and callable(solver) and schedules.VP and analytic.Gaussian"
    )
    modules_after(code)
