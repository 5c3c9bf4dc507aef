"""Every Python block and every command of README and docs runs: each alone, as it is pasted, with cheap settings.

The files that the text speaks of (photo.jpg, mask.png, my-prior/, ...) lie in an empty folder made here. `CHEAP` makes
long runs short. Checkpoints and data from elsewhere are not there: those commands (`ELSEWHERE`) are parsed, every
option and its value, and not run.
"""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from priorpaint.cli import app
from priorpaint.lab.avatars.__main__ import app as avatars
from priorpaint.lab.fashion.__main__ import app as fashion
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights
from tests.command_line import exit_code

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
PAGES = [page for page in PAGES if page.is_file() and "results" not in page.parts]
PROGRAMS = {"priorpaint": app, "python -m priorpaint.lab.avatars": avatars, "python -m priorpaint.lab.fashion": fashion}

# Pattern -> what stands there instead, in Python blocks.
CHEAP = {
    r"result\.images\[0\]\.show\(\)": "result.images[0].load()",
    r'solver\("vipaint", levels=2\)': 'solver("vipaint", levels=2, iterations=2, refine_steps=2)',
    r'solver\("vipaint", components=8, levels=1, correct=True\)': 'solver("vipaint", components=2, levels=1, '
    "correct=True, iterations=2, refine_steps=2, particles=16, num_kept=4)",
    r'solver\("dps"(, steps=100)?\)': 'solver("dps", steps=3)',
    r"particles=5412, num_kept=1024": "particles=8, num_kept=4",
    r"num_samples=1024": "num_samples=4",
    r"steps=50,": "steps=5,",
    r"particles=256": "particles=8, steps=5",
    r"num_samples=16": "num_samples=2",
    r'method="psld"': 'method="psld", num_samples=1, steps=2',
    r'priorpaint\.inpaint\("photo\.png", "mask\.png", prior=prior\)': 'priorpaint.inpaint("photo.png", "mask.png", '
    "prior=prior, num_samples=1, steps=2)",
    r"prior, label=2, guidance_scale=2\.0\)": "prior, label=2, guidance_scale=2.0, num_samples=1, steps=2)",
    r"islice\(sweeps\(model, x_0, start\), 100\)": "islice(sweeps(model, x_0, start), 20)",
}
# What makes a command short, by its first words.
SHORT = {
    "priorpaint inpaint": "--samples 1 --threads 1 --overwrite",
    "priorpaint restore": "--samples 1 --threads 1 --set steps=2",
    "priorpaint certify": "-n 8 --seeds 1 --no-calibration --workers 1",
    "priorpaint train": "--crops 8 --batch 4 --threads 1",
}
# Commands that need a checkpoint or data set from elsewhere, or hours.
ELSEWHERE = re.compile(
    r"hf:|PRIOR\b|fashion|stable-diffusion|DiT-XL|my-ddpm|imagenet64|\.pkl|\.ckpt|faces-"
    r"|certify($| -o| --suite)|docs/images|accelerate|train|theory|write|my-fashion|--problem M3"
)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    out, text = [], page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        out.append(Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]))
    return out


def commands(block: Block) -> list[Block]:
    """The lines of a block that call a program of this project, comments cut off."""
    lines = block.text.replace("\\\n", " ").split("\n")
    return [
        Block(block.page, block.line, "command", re.sub(r"\s+# .*|\s+#$", "", line).strip())
        for line in lines
        if line.startswith(tuple(PROGRAMS))
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.kind == "python"]
COMMANDS = [command for block in BLOCKS if block.kind in ("", "sh", "bash") for command in commands(block)]


def tiny(path: Path, classes: int = 0) -> None:
    """A network of our own with random weights."""
    network = UNet(UNetConfig((8, 8), (1, 1), 8, classes=classes), seed=0)
    path.mkdir(parents=True)
    save_weights(path / "weights.safetensors", network, WeightsMetadata(size=(32, 32) if classes else None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the text takes for granted."""
    folder = tmp_path_factory.mktemp("docs")
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    for name in ("photo.jpg", "photo.png", "face.png", "rose.jpg", "cat.png", "dog.png"):
        picture.save(folder / name)
    picture.resize((256, 192)).save(folder / "large.jpg")
    hole = np.zeros((32, 32), dtype=np.uint8)
    hole[12:18, 12:18] = 255
    Image.fromarray(hole).save(folder / "mask.png")
    cutout = picture.convert("RGBA")
    cutout.putalpha(Image.fromarray(255 - hole))
    cutout.save(folder / "cutout.png")
    shutil.copytree(ROOT / "examples", folder / "examples")
    tiny(folder / "my-prior")
    tiny(folder / "animals-prior", classes=3)
    for i in range(8):
        (folder / "my-pictures").mkdir(exist_ok=True)
        picture.save(folder / "my-pictures" / f"{i}.png")
    (folder / "faces").mkdir()
    picture.resize((64, 64)).save(folder / "faces" / "000001.png")
    return folder


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    place = tmp_path / "docs"
    shutil.copytree(folder, place)
    monkeypatch.chdir(place)
    monkeypatch.setenv("PRIORPAINT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return place


def run_python(block: Block) -> dict[str, object]:
    code = block.text
    for pattern, replacement in CHEAP.items():
        code = re.sub(pattern, replacement, code)
    names: dict[str, object] = {"__name__": "example"}
    exec(compile("\n" * block.line + code, str(block.page), "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_every_python_block_runs_when_it_is_pasted_alone(block: Block, here: Path) -> None:
    if "fashion-mnist/" in block.text and not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("the pictures of Fashion-MNIST (Debian package dataset-fashion-mnist) are not here")
    if "fashion-mnist/" in block.text:
        (here / "fashion-mnist").symlink_to("/usr/share/datasets/fashion-mnist")
    threads = torch.get_num_threads()
    try:
        run_python(block)
    finally:
        torch.set_num_threads(threads)


def split(command: str) -> tuple[typer.Typer, list[str]]:
    name = max((name for name in PROGRAMS if command.startswith(name)), key=len)
    return PROGRAMS[name], shlex.split(command[len(name) :])


@pytest.mark.parametrize("command", [c.text for c in COMMANDS], ids=[f"{c}-{i}" for i, c in enumerate(COMMANDS)])
def test_every_command_is_one_that_the_program_knows(command: str) -> None:
    program, arguments = split(command)
    group = typer.main.get_command(program)
    with group.make_context("docs", [*arguments]) as context:
        while hasattr(group, "resolve_command"):
            rest = [*context._protected_args, *context.args]
            if not rest and group.invoke_without_command:
                break
            _, group, rest = group.resolve_command(context, rest)
            context = group.make_context(group.name, rest, parent=context)


RUN = [c for c in COMMANDS if c.text.startswith("priorpaint") and not ELSEWHERE.search(c.text)]


@pytest.mark.parametrize("command", [c.text for c in RUN], ids=[f"{c}-{i}" for i, c in enumerate(RUN)])
def test_every_command_that_needs_nothing_from_elsewhere_runs(
    command: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, *cheap(command)) == 0, capsys.readouterr().err


def cheap(command: str) -> list[str]:
    """The command's arguments with what makes it short behind them."""
    _, arguments = split(command)
    if command.startswith("priorpaint inpaint") and "-o" not in arguments:
        arguments += ["-o", "out"]
    for words, options in SHORT.items():
        if command.startswith(words):
            arguments += shlex.split(options)
    text = " ".join(arguments)
    if command.startswith("priorpaint inpaint"):
        arguments += ["--set", "steps=3"]
    if command.startswith("priorpaint certify") and "--list" not in arguments:
        arguments += ["--budget", "10"]
    arguments = ["B16-1" if argument == "B16" else argument for argument in arguments]
    if "--box 120,80,64,48" in text:
        arguments[1] = "large.jpg"
    return arguments


def test_the_commands_of_the_readme_run_one_after_the_other(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one folder, as a reader does it: none may find its output folder taken by another one's."""
    shown = [c.text for c in RUN if c.page == ROOT / "README.md" and " inpaint " in c.text]
    assert len(shown) >= 5
    for command in shown:
        arguments = [argument for argument in cheap(command) if argument != "--overwrite"]
        assert exit_code(monkeypatch, *arguments) == 0, (command, capsys.readouterr().err)


@pytest.mark.slow
def test_the_training_of_the_readme_runs_and_its_prior_inpaints(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(here / "my-prior")
    train = next(c.text for c in COMMANDS if c.text.startswith("priorpaint train") and c.page.name == "README.md")
    arguments = [*cheap(train), "--size", "32", "--channels", "8,8", "--blocks", "1,1", "--no-hold-out"]
    assert exit_code(monkeypatch, *arguments) == 0, capsys.readouterr().err
    paint = next(c.text for c in RUN if "my-prior" in c.text and c.page.name == "README.md")
    assert exit_code(monkeypatch, *cheap(paint)) == 0, capsys.readouterr().err
