"""The README where its files are not: on a package index, as setup.py turns it there."""

from __future__ import annotations

import email
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import priorpaint

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def setup() -> Any:
    """setup.py, imported and not run."""
    spec = importlib.util.spec_from_file_location("priorpaint_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def local(text: str) -> list[str]:
    """Targets of links and pictures that are neither an address nor a place on the page, outside of fenced blocks."""
    plain = re.sub(r"^```.*?^```$|`[^`\n]*`(?!\])", "", text, flags=re.DOTALL | re.MULTILINE)
    return [target for target in re.findall(r"\]\(([^)]*)\)", plain) if not re.match(r"https?:|#", target)]


def test_an_index_gets_no_link_into_the_repository(setup: Any) -> None:
    assert len(local(README)) > 40  # where the repository is browsed they are there, and `test_pages` follows them
    shown = setup.for_an_index(README)
    assert local(shown) == [] and "![" not in shown
    named = {target for target in local(README) if not re.search(rf"\[`[^]]*`\]\({re.escape(target)}\)", README)}
    assert all(f"`{target}`" in shown for target in named)


def test_where_the_repository_has_an_address_the_links_lead_there(setup: Any) -> None:
    shown = setup.for_an_index(README, "https://git.example/o/n", "v1.2")
    assert local(shown) == [] and setup.NOTE not in shown
    assert "](https://git.example/o/n/raw/v1.2/docs/images/chelsea-sheet.jpg)" in shown
    assert "[changelog](https://git.example/o/n/blob/v1.2/CHANGELOG.md)" in shown
    assert setup.REPOSITORY.search('[project.urls]\nRepository = "https://git.example/o/n/"\n')[1].endswith("/o/n")


def test_everything_else_stays(setup: Any) -> None:
    shown = setup.for_an_index(README)
    fenced = re.findall(r"^```.*?^```$", README, re.DOTALL | re.MULTILINE)
    assert fenced and all(block in shown for block in fenced)
    assert re.findall(r"^#+ .*$", shown, re.MULTILINE) == re.findall(r"^#+ .*$", README, re.MULTILINE)
    words = "See [a page](https://example.org/x), [below](#more) and\n\n```\n[this](docs/x.md)\n```\n"
    assert setup.for_an_index(words) == f"{words}\n{setup.NOTE}"


def test_what_is_named_and_all_tests_come_with_the_source_distribution() -> None:
    """By MANIFEST.in, or because setuptools takes it along."""
    manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8")
    files = re.findall(r"\S+", " ".join(re.findall(r"^include (.*)$", manifest, re.MULTILINE)))
    endings = {
        folder: patterns.split() for folder, patterns in re.findall(r"^recursive-include (\S+) (.*)$", manifest, re.M)
    }
    folders = ("tests", "benchmarks", "tools", "docs", "examples")
    beside = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix not in ("", ".pyc")]
    assert len(beside) > 300
    for target in [*local(README), *(path.relative_to(ROOT).as_posix() for path in beside)]:
        folder = target.split("/")[0]
        patterns = endings.get(folder, ["*"] if target.startswith("src/priorpaint/") else [])
        assert target in {*files, "LICENSE"} or any(Path(target).match(pattern) for pattern in patterns), target


def test_the_metadata_of_the_package_have_it(setup: Any, tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    package = tmp_path / "src" / "priorpaint"
    package.mkdir(parents=True)
    shutil.copy(ROOT / "src" / "priorpaint" / "__init__.py", package)
    code = "from setuptools import build_meta; print(build_meta.prepare_metadata_for_build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [metadata] = tmp_path.glob("*.dist-info/METADATA")
    message = email.message_from_string(metadata.read_text(encoding="utf-8"))
    assert message["Version"] == priorpaint.__version__
    named = [extra for line in message.get_all("Requires-Dist") for extra in re.findall(r"^priorpaint\[(.*?)\]", line)]
    own = {"all", "dev", "docs"}
    assert set(message.get_all("Provides-Extra")) - own == {one for names in named for one in names.split(",")} - own
    assert message["Description-Content-Type"] == "text/markdown"
    assert message.get_payload() == setup.for_an_index(README)
