"""Turn the parts of DiceBear's style "pixel-art" into ``lab/avatars/parts.json``; run once, without node.

    npm pack @dicebear/pixel-art@9.4.3
    python tools/extract_avatars.py dicebear-pixel-art-9.4.3.tgz src/priorpaint/lab/avatars/parts.json

The design files of the package are CC0 1.0; its code is MIT and nothing of it is taken: this script reads the drawings
(SVG paths on a grid of 16 x 16) out of the published files and writes each as 16 rows of 16 letters. A letter is an
*ink*: what the part leaves of the colour below, what it adds of its own colour, and what it adds of white; the rest to
1 is black.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

SIZE = 16
GROUPS = ("accessories", "beard", "clothing", "eyes", "glasses", "hair", "hat", "mouth")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
CLEAR = (1.0, 0.0, 0.0)
_PART = re.compile(r"^\s+(\w+): \(components, colors\) => `(.*)`,$", re.MULTILINE)
_COLOUR = re.compile(r"\$\{escape\.xml\(`\$\{colors\.(\w+)\}`\)\}")
_TOKEN = re.compile(r"[A-Za-z]|-?\d*\.?\d+")

Ink = tuple[float, float, float]
Point = tuple[float, float]


def outlines(path: str) -> list[list[Point]]:
    """The closed outlines of an SVG path made of M, H, V, L and Z, upper or lower case."""
    found: list[list[Point]] = []
    x = y = 0.0
    command, tokens = "", _TOKEN.findall(path)
    while tokens:
        if tokens[0].isalpha():
            command = tokens.pop(0)
        if command in "zZ":
            x, y = found[-1][0]
            continue
        here = (x, y) if command.islower() else (0.0, 0.0)
        kind = command.lower()
        if kind not in "mlhv":
            raise SystemExit(f"The path command {command} in {path} is not understood; extend outlines().")
        if kind in "mlh":
            x = here[0] + float(tokens.pop(0))
        if kind in "mlv":
            y = here[1] + float(tokens.pop(0))
        if kind == "m":
            found.append([(x, y)])
            command = "l" if command == "m" else "L"
        else:
            found[-1].append((x, y))
    return found


def covered(path: str, even_odd: bool) -> list[list[bool]]:
    """Which cells have their centre inside the path; fails where an outline does not run along the grid."""
    lines = []
    for outline in outlines(path):
        for (x, y), (u, v) in zip(outline, [*outline[1:], outline[0]], strict=True):
            if {x, y, u, v} != {round(x), round(y), round(u), round(v)} or (x != u and y != v):
                raise SystemExit(f"The path {path} does not run along the grid of {SIZE} x {SIZE}.")
            lines.append((x, y, v))
    return [[_inside(column + 0.5, row + 0.5, lines, even_odd) for column in range(SIZE)] for row in range(SIZE)]


def _inside(x: float, y: float, lines: list[tuple[float, float, float]], even_odd: bool) -> bool:
    crossings = [
        1 if top < bottom else -1 for at, top, bottom in lines if at > x and (top < y < bottom or bottom < y < top)
    ]
    return bool(len(crossings) % 2) if even_odd else sum(crossings) != 0


def over(below: Ink, colour: str, alpha: float) -> Ink:
    """The ink after painting with a colour: ``#fff``, ``#000`` or the part's own."""
    keep, paint, white = (value * (1 - alpha) for value in below)
    if colour == "#fff":
        white += alpha
    elif colour != "#000":
        paint += alpha
    return round(keep, 6), round(paint, 6), round(white, 6)


class Drawing:
    """One part: 16 x 16 inks."""

    def __init__(self, svg: str) -> None:
        self.inks = [[CLEAR] * SIZE for _ in range(SIZE)]
        self._masks: dict[str, list[list[bool]]] = {}
        for node in ElementTree.fromstring(f"<svg>{svg}</svg>"):
            self._paint(node, {}, None)

    def _paint(self, node: ElementTree.Element, above: dict[str, str], clip: list[list[bool]] | None) -> None:
        attributes = {**above, **node.attrib}
        if node.tag == "mask":
            # The export makes the beard as faint as its colour is dark (mask by luminance); it is drawn in full here.
            (shape,) = node
            self._masks[node.attrib["id"]] = covered(shape.attrib["d"], False)
        elif node.tag == "g":
            if "mask" in node.attrib:
                clip = self._masks[node.attrib["mask"].removeprefix("url(#").removesuffix(")")]
            for child in node:
                self._paint(child, attributes, clip)
        elif node.tag == "path":
            inside = covered(attributes["d"], attributes.get("fill-rule") == "evenodd")
            alpha = float(attributes.get("fill-opacity", 1))
            for row in range(SIZE):
                for column in range(SIZE):
                    if inside[row][column] and (clip is None or clip[row][column]):
                        self.inks[row][column] = over(self.inks[row][column], attributes["fill"], alpha)
        else:
            raise SystemExit(f"An element <{node.tag}> is not understood; extend Drawing.")


def drawings(files: dict[str, str]) -> dict[str, dict[str, Drawing]]:
    """All parts of the package, by group and name; ``head`` is the body that every avatar has."""
    found: dict[str, dict[str, Drawing]] = {}
    body = re.search(r"body: `((?:<path [^>]*/>)+)", files["lib/index.js"])
    if body is None:
        raise SystemExit("lib/index.js has no body; this script knows version 9.4.3.")
    found["head"] = {"plain": Drawing(_COLOUR.sub(r"\1", body.group(1)))}
    for group in GROUPS:
        parts = _PART.findall(files[f"lib/components/{group}.js"])
        found[group] = {name: Drawing(_COLOUR.sub(r"\1", svg)) for name, svg in sorted(parts)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="dicebear-pixel-art-9.4.3.tgz of npm pack")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    with tarfile.open(arguments.package) as tar:
        members = [member for member in tar.getmembers() if member.isfile()]
        files = {m.name.removeprefix("package/"): tar.extractfile(m).read().decode() for m in members}
    about = json.loads(files["package.json"])
    if "License: CC0 1.0" not in files["LICENSE"] or "name: 'CC0 1.0'" not in files["lib/index.js"]:
        raise SystemExit("The design of this version is not marked CC0 1.0; its parts may not be taken.")
    letters: dict[Ink, str] = {CLEAR: ".", (0.0, 1.0, 0.0): "#"}
    parts: dict[str, dict[str, list[str]]] = {}
    for group, named in drawings(files).items():
        parts[group] = {}
        for name, drawing in named.items():
            for ink in (ink for row in drawing.inks for ink in row if ink not in letters):
                letters[ink] = LETTERS[len(letters) - 2]
            parts[group][name] = ["".join(letters[ink] for ink in row) for row in drawing.inks]
    sheet = {
        "source": f"{about['name']} {about['version']}, https://www.figma.com/community/file/1198754108850888330",
        "licence": "CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/",
        "sha256": hashlib.sha256(arguments.package.read_bytes()).hexdigest(),
        "inks": {letter: ink for ink, letter in letters.items()},
        "parts": parts,
    }
    text = json.dumps(sheet, indent=1)
    text = re.sub(r"\[\s+([-\d.]+),\s+([-\d.]+),\s+([-\d.]+)\s+\]", r"[\1, \2, \3]", text)
    arguments.out.write_text(text + "\n")
    print(
        f"{sum(map(len, parts.values()))} parts, {len(letters)} inks, {arguments.out.stat().st_size} bytes",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
