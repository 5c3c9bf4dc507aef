"""The description that a package index shows: the README, whose links into the repository lead to its address there.

An index has one page and no files beside it: a relative link would lead nowhere. Where pyproject.toml names no
``Repository``, words stand in place of links and pictures. Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import re
from pathlib import Path

NOTE = "The pages and pictures that are named here by a path come with the source distribution of this package.\n"
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)\s]+)\)")
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")
REPOSITORY = re.compile(r'^Repository = "(https://[^"]+?)/?"$', re.MULTILINE)
VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)


def for_an_index(readme: str, repository: str | None = None, tag: str = "HEAD") -> str:
    """``readme`` for a page without files beside it; fenced blocks stay as they are.

    Args:
        readme: Markdown, with links and pictures that are relative to the repository.
        repository: its address, laid out as GitHub does; without one, links and pictures become words.
        tag: of this release.
    """
    picture, link, note = r"*Picture `\2`: \1.*\n", _words, f"\n\n{NOTE}"
    if repository is not None:
        picture, link, note = rf"![\1]({repository}/raw/{tag}/\2)", rf"[\1]({repository}/blob/{tag}/\2)", "\n"
    parts = FENCED.split(readme)
    for i in range(0, len(parts), 2):
        parts[i] = LINK.sub(link, PICTURE.sub(picture, parts[i]))
    return f"{''.join(parts).rstrip()}{note}"


def _words(link: re.Match[str]) -> str:
    """The text of a link and its target, once where they are the same; a name in a table says enough."""
    text, target = link[1], f"`{link[2]}`"
    return text if text.startswith("`") else target if text == link[2] else f"{text} ({target})"


def _description(folder: Path) -> str:
    readme, project, package = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("README.md", "pyproject.toml", "src/priorpaint/__init__.py")
    )
    home, version = REPOSITORY.search(project), VERSION.search(package)
    return for_an_index(readme, home[1] if home else None, f"v{version[1]}" if version else "HEAD")


if __name__ == "__main__":
    from setuptools import setup

    setup(long_description=_description(Path(__file__).parent), long_description_content_type="text/markdown")
