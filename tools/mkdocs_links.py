"""mkdocs hook: nothing is loaded from elsewhere, and links from a page of docs/ out of it become plain text.

They work where the repository is browsed. A file that does not exist fails the build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page's Markdown with such links replaced."""
    folder = (ROOT / "docs" / page.file.src_path).parent

    def plain(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return match[0]
        if not target.exists():
            raise FileNotFoundError(f"{page.file.src_path} links to {match[2]}, which does not exist")
        return f"{match[1]} (`{target.relative_to(ROOT)}`)"

    return LINK.sub(plain, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """The page as it is; one that would load anything from elsewhere fails the build."""
    foreign = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="(https?://[^"]+)', output)
    foreign += re.findall(r'<link[^>]*rel="(?:stylesheet|preconnect|icon)"[^>]*href="(https?://[^"]+)', output)
    if foreign:
        raise ValueError(f"{page.file.src_path} loads {foreign[0]}")
    return output
