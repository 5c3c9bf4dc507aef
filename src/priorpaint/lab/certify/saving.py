"""A certificate as files: its numbers, its page and its figures."""

from __future__ import annotations

import os
from pathlib import Path

from ...imaging.writing import make_folder, write_text_atomic
from .plots import draw
from .report import JSON_FILE, PAGE_FILE, markdown
from .results import Certificate


def save(
    certificate: Certificate,
    folder: str | Path,
    *,
    figures: bool = True,
    pictures: str | Path | None = None,
    command: str | None = None,
) -> list[Path]:
    """Write certification.json, certification.md and the figures into a folder, each atomically.

    Args:
        certificate: the run.
        folder: made where it is missing.
        figures: whether to draw; needs matplotlib.
        pictures: folder of the figures; None is the same folder.
        command: what was typed, for the page.

    Returns:
        The files.

    Raises:
        UsageError: the folder cannot be made or written to.
        MissingExtra: figures without matplotlib.
    """
    folder, pictures = Path(folder), Path(pictures or folder)
    for target in (folder, pictures):
        make_folder(target)
    drawn: list[Path] = []
    write_text_atomic(folder / JSON_FILE, certificate.to_json())
    if figures:
        drawn = draw(certificate, pictures)
    figure = Path(os.path.relpath(drawn[0], folder)).as_posix() if drawn else None
    write_text_atomic(folder / PAGE_FILE, markdown(certificate, figure=figure, command=command))
    return [folder / JSON_FILE, folder / PAGE_FILE, *drawn]
