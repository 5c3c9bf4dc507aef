"""The cells of a measurement, in a file that a stopped or parted run goes on with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Cell = dict[str, Any]
# What must be the same for the cells of one table to be compared.
_SAME = ("prior_sha256", "crop", "samples", "seed", "device", "threads", "budget")


class Table:
    """Cells of one section of STEM.json, with STEM.md made from all sections.

    Args:
        stem: the two files, without suffix.
        section: its key in the file; other sections stay as they are.
        key: what names a cell: the picture, what the picture is asked, and who answers.
        setup: what a reader needs to judge or repeat the run.
        page: makes the text of STEM.md.
        resume: keep the cells that are in the file.

    Raises:
        SystemExit: the cells in the file were measured in another way.
    """

    def __init__(
        self,
        stem: Path,
        section: str,
        key: Sequence[str],
        setup: dict[str, Any],
        page: Callable[[dict[str, Any]], str],
        resume: bool,
    ) -> None:
        self.stem, self.section, self.key, self.page = stem, section, tuple(key), page
        self.setup = setup
        earlier = self._read().get(section) if resume else None
        self._cells: dict[tuple[Any, ...], Cell] = {}
        if earlier is None:
            return
        for name in _SAME:
            ours, theirs = setup.get(name), earlier["setup"].get(name)
            if ours != theirs and None not in (ours, theirs):
                raise SystemExit(
                    f"{stem.with_suffix('.json')} was measured with {name} {theirs}, not {ours}; give the same, or "
                    "leave out --resume to begin anew"
                )
        for name in ("prior", "prior_sha256"):
            setup[name] = setup[name] or earlier["setup"][name]
        setup["commands"] = list(dict.fromkeys([*earlier["setup"]["commands"], *setup["commands"]]))
        for cell in earlier["each"]:
            self.add(cell)

    def __contains__(self, place: Mapping[str, Any]) -> bool:
        return self._name(place) in self._cells

    def add(self, cell: Cell) -> None:
        """Add a cell, which holds its own key. It is rounded as in the file, of which rows are means."""
        rounded: Cell = _rounded(cell)
        self._cells[self._name(rounded)] = rounded

    def save(self) -> None:
        """Write both files, each at once."""
        results = self._read()
        cells = list(self._cells.values())
        results[self.section] = {"setup": self.setup, "rows": aggregated(cells, self.key[1:]), "each": cells}
        self.stem.parent.mkdir(parents=True, exist_ok=True)
        for suffix, text in ((".json", to_json(results)), (".md", self.page(results))):
            partial = self.stem.with_suffix(f"{suffix}.part")
            partial.write_text(text, encoding="utf-8")
            partial.replace(self.stem.with_suffix(suffix))

    def _name(self, cell: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(cell[part] for part in self.key)

    def _read(self) -> dict[str, Any]:
        path = self.stem.with_suffix(".json")
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def aggregated(cells: Iterable[Cell], by: Sequence[str]) -> list[Cell]:
    """Means over pictures, one row for each value of ``by``, in the order of the run.

    Rows with the same ``by[0]`` are compared, so that only the pictures that all of them have count.
    """
    groups: dict[tuple[Any, ...], dict[str, Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell[part] for part in by), {})[cell["picture"]] = cell
    rows = []
    for group, found in groups.items():
        common = set.intersection(*(set(other) for name, other in groups.items() if name[0] == group[0]))
        compared = [found[picture] for picture in found if picture in common]
        if not compared:
            continue
        row: Cell = dict(zip(by, group, strict=True)) | {"pictures": len(compared)}
        names = [name for name in compared[0] if name != "picture" and name not in by]
        rows.append(row | {name: np.mean([cell[name] for cell in compared], axis=0).tolist() for name in names})
    return rows


def to_json(results: dict[str, Any]) -> str:
    """Readable, and one line a row or cell."""
    sections = []
    for section, content in results.items():
        parts = []
        for name, value in content.items():
            if isinstance(value, list):
                lines = ",\n   ".join(json.dumps(_rounded(cell)) for cell in value)
                parts.append(f'  "{name}": [\n   {lines}\n  ]')
            else:
                parts.append(f'  "{name}": {json.dumps(value)}')
        sections.append(f' "{section}": {{\n' + ",\n".join(parts) + "\n }")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def _rounded(value: Any) -> Any:
    """Seven digits of each number: float32 has no more."""
    if isinstance(value, dict):
        return {name: item if name == "sigma" else _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value
