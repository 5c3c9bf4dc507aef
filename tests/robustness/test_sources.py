"""What the sources must not contain, whatever a change brings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(file for folder in ("src", "benchmarks", "examples", "tools") for file in (ROOT / folder).rglob("*.py"))


def unlimited(source: str) -> Iterator[int]:
    """The lines where Pillow opens a file without being told of which formats it may be."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "PIL.Image":
            yield from (node.lineno for name in node.names if name.name in ("open", "*"))
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "open":
            continue
        owner = ast.unparse(node.func.value)
        if owner.split(".")[-1] == "Image" and "formats" not in {keyword.arg for keyword in node.keywords}:
            yield node.lineno


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("from PIL import Image\nImage.open(file)", [2]),
        ("import PIL.Image\nwith PIL.Image.open(file, 'r') as image: pass", [2]),
        ("from PIL.Image import open", [1]),
        ("Image.open(file, formats=['PNG'])\nopen(file)\ntarfile.open(file)", []),
    ],
)
def test_the_scan_finds_what_it_should(source: str, lines: list[int]) -> None:
    assert list(unlimited(source)) == lines


def test_pillow_is_always_told_which_formats_a_file_may_be_of() -> None:
    """Some of its decoders start other programs: EPS starts Ghostscript, whatever the file is called."""
    assert len(FILES) > 100
    found = [f"{file.relative_to(ROOT)}:{line}" for file in FILES for line in unlimited(file.read_text("utf-8"))]
    assert found == []
