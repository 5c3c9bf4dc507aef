"""The description that a package index shows: the README, with words where it leads into the repository.

An index has one page and no files beside it: a relative link would lead nowhere there, and a picture would be missing.
Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import re
from pathlib import Path

NOTE = "The pages and pictures that are named here by a path come with the source distribution of this package.\n"
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)\s]+)\)")
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


def for_an_index(readme: str) -> str:
    """``readme`` with its pictures and links into the repository in words; fenced blocks stay as they are."""
    parts = FENCED.split(readme)
    for i in range(0, len(parts), 2):
        parts[i] = LINK.sub(_words, PICTURE.sub(r"*Picture `\2`: \1.*\n", parts[i]))
    return f"{''.join(parts).rstrip()}\n\n{NOTE}"


def _words(link: re.Match[str]) -> str:
    """The text of a link and its target, once where they are the same; a name in a table says enough."""
    text, target = link[1], f"`{link[2]}`"
    return text if text.startswith("`") else target if text == link[2] else f"{text} ({target})"


if __name__ == "__main__":
    from setuptools import setup

    setup(
        long_description=for_an_index((Path(__file__).parent / "README.md").read_text(encoding="utf-8")),
        long_description_content_type="text/markdown",
    )
