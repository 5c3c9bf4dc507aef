"""Every Python block and every command of README and docs runs: block by block, as it is pasted, with cheap settings.

What the text speaks of (photo.jpg, my-prior/, checkpoints, ...) is made small in `tests.docs.stage`; how long runs are
made short stands in `tests.docs.cheap`, command by command. Not run is `make`, which would install and run the tests.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from priorpaint.cli import app, main
from priorpaint.lab import losses
from priorpaint.lab.avatars import __main__ as avatars
from priorpaint.lab.fashion import __main__ as fashion
from tests.command_line import exit_code
from tests.docs import cheap
from tests.docs.stage import set_up

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples/README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "results"),
]
PROGRAMS = {
    "priorpaint": (app, main),
    "python -m priorpaint.lab.avatars": (avatars.app, avatars.main),
    "python -m priorpaint.lab.fashion": (fashion.app, fashion.main),
    "python -m priorpaint.lab.losses": (losses.app, losses.main),
}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: where it stands.
        line: of its fence, from 1.
        kind: the word behind the fence.
        text: what stands in it.
    """

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its lines that call a program of this project, without comments."""
        lines = self.text.replace("\\\n", " ").split("\n") if self.kind in ("", "sh", "bash") else []
        return [re.sub(r"\s+#( .*)?$", "", line).strip() for line in lines if line.startswith(tuple(PROGRAMS))]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in found]


BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.kind == "python"]
SHELL = [block for block in BLOCKS if block.commands]
COMMANDS = sorted({command for block in SHELL for command in block.commands})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a hub's cache beside it."""
    folder = tmp_path / "docs"
    (folder / "docs" / "images").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PRIORPAINT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PRIORPAINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_every_python_block_runs_when_it_is_pasted_alone(block: Block, here: Path) -> None:
    if "import deepinv" in block.text:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries that it imports
            pytest.importorskip("deepinv")
    set_up(here, here.parent / "hub", block.text)
    code = block.text
    for pattern, replacement in cheap.PYTHON.items():
        code = re.sub(pattern, replacement, code)
    threads = torch.get_num_threads()
    try:
        exec(compile("\n" * block.line + code, str(block.page), "exec", dont_inherit=True), {"__name__": "example"})
    finally:
        torch.set_num_threads(threads)


@lru_cache
def commands_of(program: typer.Typer) -> Any:
    return typer.main.get_command(program)


def split(command: str) -> tuple[typer.Typer, Any, list[str]]:
    """The program, what runs it, and the arguments."""
    name = max((name for name in PROGRAMS if command.startswith(name)), key=len)
    return *PROGRAMS[name], shlex.split(command[len(name) :])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_the_program_knows(command: str) -> None:
    """As it stands, before it is made cheap."""
    resolve(command)


def resolve(command: str) -> None:
    """Fail where the program has no such command, or the command no such option."""
    program, _, arguments = split(command)
    group = commands_of(program)
    with group.make_context("docs", [*arguments]) as context:
        while hasattr(group, "resolve_command"):
            rest = [*context._protected_args, *context.args]
            if not rest and group.invoke_without_command:
                break
            _, group, rest = group.resolve_command(context, rest)
            context = group.make_context(group.name, rest, parent=context)


def run(monkeypatch: pytest.MonkeyPatch, command: str) -> int:
    """The exit code of a command, made cheap."""
    _, program, arguments = split(command)
    return exit_code(monkeypatch, *cheap.rule(command).arguments(arguments), program=program)


def marked(block: Block) -> Any:
    slow = any(cheap.rule(command).slow for command in block.commands)
    return pytest.param(block, id=str(block), marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("block", [marked(block) for block in SHELL])
def test_every_command_runs(
    block: Block, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of a block one after the other in one folder, as a reader types them: none may find its output taken."""
    set_up(here, here.parent / "hub", block.text)
    for command in block.commands:
        assert run(monkeypatch, command) == 0, (command, capsys.readouterr().err)


MAKE = sorted({found for block in BLOCKS for found in re.findall(r"^make (\w+)", block.text, re.MULTILINE)})


@pytest.mark.parametrize("target", MAKE)
def test_make_knows_what_it_is_asked_for(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_rule_is_needed_and_says_how() -> None:
    used = [cheap.rule(command) for command in COMMANDS]
    assert all(rule in used and rule.how for rule in cheap.RULES)


def test_options_take_the_place_of_the_commands_own() -> None:
    rule = cheap.Rule("", "", "--budget 4 --set steps=3", {"^B16$": "B16-1"})
    words = ["B16", "--budget", "50", "--budget", "200", "--set", "eta=1", "-o", "out/"]
    assert rule.arguments(words) == ["B16-1", "--set", "eta=1", "-o", "out/", "--budget", "4", "--set", "steps=3"]
