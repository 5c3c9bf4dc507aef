"""The pages docs/results/photos.md and defaults.md, and the same tables on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from benchmarks.baselines import CLASSICAL
from benchmarks.photos.pictures import CONTEXT
from benchmarks.photos.scores import AROUND, BEST_PSNR
from benchmarks.photos.table import Cell

Results = dict[str, Any]
Rows = list[list[str]]
# CPU seconds of preparation that are worth a column: reading a picture and planning its windows takes less.
_LONG = 2.0
# Title, header and lines.
TextTable = tuple[str, list[str], Rows]

_PHOTOS = """# The prior `photos`, measured

Pictures: the 41 held-out photos of CID22 (Cloudinary Image Dataset '22, CC BY-SA 4.0), or as many as a table says.
"""
_DEFAULTS = """# The default for `photos`, and why

`priorpaint.inpaint` (`default`) with other settings of its method, or with another method (`default/NAME`), from the
list in `benchmarks/photos/defaults.toml`. The best row by CRPS comes first; LPIPS decides between rows that are close.
The first other methods take the work of 15 evaluations a sample at full scale, where one with a gradient counts as
three; below full scale and in windows each takes what the column *work* says. `default/ddnm:steps=40,eta=0.95` was the
default before, with its finer scales from sigma = 0.5 on.
"""
_DENOISING = """## Denoising

Mean PSNR in dB over whole pictures, results clamped to the value range. Both networks get the same noisy picture.
FFDNet is the published colour model (KAIR), trained for sigma up to 75/255.
"""
SQUARES = f"""**Pictures and masks.** A square of {{crop}}x{{crop}} pixels in the middle of each photo at native scale;
all masks and seeds are fixed. *strokes* are scratches and writing, 2-4 px wide at 256, that hide 5-10 %; *strokesN* are
about N px wide, and wider where they touch; *holes* are squares of 16-32 px that hide 10-20 %; *box* is one hole of
64x64. *holeN* is one of NxN in the middle of the photo, in a square with {CONTEXT} px around it.
"""
COLUMNS = f"""**Columns.** Values run from -1 to 1; all scores but LPIPS are taken in the hole, from {{samples}} samples
a picture, rounded as files are. Rows of a table are means over the same pictures.

- *CRPS*: the fair continuous ranked probability score of each value. It is lowest for samples of the true law, so that
  neither a blur nor a method that is too sure of itself can win. For a program with one answer it is the mean absolute
  error.
- *energy*: the same for patches of 8x8 pixels (fair energy score), which also sees how pixels belong together.
- *var / error*: variance of the samples over squared error of their mean. 1 is right; below 1 the samples are too sure.
- *50 %, 90 %*: how often the central interval of so many percent holds the truth. Few samples say little of the tails:
  where an end falls between two of them, the truths there count in proportion. The rank histograms are in the json.
- *LPIPS* (AlexNet, lower is better): distance of single samples to the photo; *around*: of a hole with {AROUND} px
  around it.
- *PSNR* in dB: of the mean of the samples, and of single samples; more than {BEST_PSNR} counts as {BEST_PSNR}.
- *texture*: how much fine detail a sample has, as a share of the photo's: the standard deviation in the hole of what a
  Gaussian filter of 2 px takes away.
- *CPU s, NFE, work*, a sample: CPU seconds; network evaluations, without + with a gradient; millions of pixels that
  they look at, where an evaluation with a gradient counts as three. What samples share is divided by their number.
- *prepare*: CPU seconds before the first sample, once a picture, where a prior first learns the picture; what another
  row has learned is not learned again.

The two PatchMatch programs draw their answers from seeds; the other classical programs have one answer.
"""


def photos_page(results: Results) -> str:
    """docs/results/photos.md."""
    parts = [_PHOTOS]
    if "denoising" in results:
        tables = _denoising(results["denoising"]["rows"])
        parts += [_DENOISING, run_line(results["denoising"]["setup"]), *map(as_markdown, tables)]
    if "inpainting" in results:
        parts += ["## Inpainting\n", *inpainting_parts(results["inpainting"])]
    return "\n".join(parts)


def defaults_page(results: Results) -> str:
    """docs/results/defaults.md."""
    return "\n".join([_DEFAULTS, *inpainting_parts(results["inpainting"])])


def inpainting_parts(section: Results) -> list[str]:
    """How it was measured, a table for each mask, and calibration by mask."""
    setup, rows = section["setup"], section["rows"]
    tables = [*score_tables(rows), *calibration_tables(rows)]
    return [SQUARES.format_map(setup), COLUMNS.format_map(setup), run_line(setup), *map(as_markdown, tables)]


def show(tables: Iterable[TextTable], console: Console) -> None:
    """Print tables."""
    for title, header, rows in tables:
        grid = Grid(title=title)
        for number, column in enumerate(header):
            grid.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
        for row in rows:
            grid.add_row(*row)
        console.print(grid)


def all_tables(results: Results) -> list[TextTable]:
    """Every table of a file."""
    tables = _denoising(results["denoising"]["rows"]) if "denoising" in results else []
    if "inpainting" in results:
        rows = results["inpainting"]["rows"]
        tables += [*score_tables(rows), *calibration_tables(rows)]
    return tables


def as_markdown(table: TextTable) -> str:
    """A section with a table."""
    title, header, rows = table
    lines = [f"| {' | '.join(line)} |" for line in (header, *rows)]
    lines.insert(1, "|---" + "|--:" * (len(header) - 1) + "|")
    return f"### {title}\n\n" + "\n".join(lines) + "\n"


def run_line(setup: Results) -> str:
    """What to type, and where it was measured."""
    digest = f" (sha256 {setup['prior_sha256'][:12]})" if setup["prior_sha256"] else ""
    facts = [f"prior {setup['prior']}{digest}"] if setup["prior"] else ["no prior measured"]
    facts += [f"seed {setup['seed']}", f"{setup['device']}, {setup['threads']} threads", f"torch {setup['torch']}"]
    wrap = textwrap.TextWrapper(100, break_long_words=False, break_on_hyphens=False).wrap
    commands = "\n".join("    " + " \\\n        ".join(wrap(command)) for command in setup["commands"])
    parts = "for fewer pictures with `--pictures`, in parts with `--start` and `--resume`"
    return f"Command ({parts}):\n\n{commands}\n\nMeasured with {'; '.join(facts)}.\n"


def score_tables(rows: list[Cell]) -> list[TextTable]:
    """A table for each mask, the best CRPS first."""
    tables = []
    for mask, group in _by_mask(rows).items():
        group = sorted(group, key=lambda row: float(row["crps"]))
        columns = [(title, text) for title, text in _COLUMNS if any(map(text, group))]
        title = f"{mask}: {group[0]['missing']:.1%} hidden, {_pictures(group)}"
        lines = [[_name(row), *(text(row) for _, text in columns)] for row in group]
        tables.append((title, ["method", *(title for title, _ in columns)], lines))
    return tables


def calibration_tables(rows: list[Cell]) -> list[TextTable]:
    """Variance over error of each method on each mask, from thin to wide, where there is more than one mask."""
    masks = _by_mask([row for row in rows if "variance" in row])
    if len(masks) < 2:
        return []
    found = {(row["mask"], row["method"]): row for row in rows}
    methods = dict.fromkeys(row["method"] for group in masks.values() for row in group)
    lines = []
    for method in methods:
        ratios = [_ratio(found.get((mask, method), {}), "variance", "squared_error") for mask in masks]
        lines.append([_name({"method": method}), *ratios])
    return [("Variance over error by the width of the hole", ["method", *masks], lines)]


def _by_mask(rows: list[Cell]) -> dict[str, list[Cell]]:
    """The rows of each mask."""
    groups: dict[str, list[Cell]] = {}
    for row in rows:
        groups.setdefault(row["mask"], []).append(row)
    return groups


def _name(row: Cell) -> str:
    return row["method"] if row["method"] in CLASSICAL else f"`{row['method']}`"


def _pictures(rows: list[Cell]) -> str:
    count = rows[0]["pictures"]
    return f"{count} picture{'s' * (count != 1)}"


def _number(key: str, form: str) -> Callable[[Cell], str]:
    return lambda row: format(row[key], form) if key in row else ""


def _ratio(row: Cell, above: str, below: str) -> str:
    """Of means over pictures, so that pictures where nothing can be told do not decide."""
    return f"{row[above] / row[below]:.2f}" if row.get(below) else ""


def _nfe(row: Cell) -> str:
    if row["method"] in CLASSICAL:
        return ""
    return f"{row['nfe_forward'] / row['samples']:.0f} + {row['nfe_backward'] / row['samples']:.0f}"


# Title and text; a column is shown where one row has something to say.
_COLUMNS: list[tuple[str, Callable[[Cell], str]]] = [
    ("CRPS", _number("crps", ".4f")),
    ("energy", _number("energy", ".4f")),
    ("var / error", lambda row: _ratio(row, "variance", "squared_error")),
    ("50 %", _number("cover50", ".0%")),
    ("90 %", _number("cover90", ".0%")),
    ("LPIPS", _number("lpips", ".4f")),
    ("around", _number("lpips_around", ".4f")),
    ("PSNR mean", _number("mean_psnr", ".2f")),
    ("PSNR single", _number("sample_psnr", ".2f")),
    ("texture", lambda row: _ratio(row, "texture", "true_texture")),
    ("CPU s", lambda row: f"{row['cpu_seconds'] / row['samples']:.2f}"),
    ("prepare", lambda row: f"{row['prepare_seconds']:.0f}" if row["prepare_seconds"] >= _LONG else ""),
    ("NFE", _nfe),
    ("work", lambda row: f"{row['work'] / row['samples']:.2f}" if row["work"] else ""),
]


def _denoising(rows: list[Cell]) -> list[TextTable]:
    """One table for the levels that FFDNet knows, and one for the others."""
    levels: dict[float, Cell] = {}
    for row in rows:
        levels.setdefault(row["sigma"], {"pictures": row["pictures"]})[row["method"]] = row["psnr"]
    known = {sigma: level for sigma, level in levels.items() if "ffdnet" in level}
    lines = []
    for sigma, level in known.items():
        gain = f"{level['prior'] - level['ffdnet']:+.2f}" if "prior" in level else ""
        lines.append([f"{127.5 * sigma:.0f}", *_decibels(level, "noisy", "ffdnet", "prior"), gain])
    header = ["sigma (of 255)", "noisy", "FFDNet", "photos", "photos - FFDNet"]
    tables = [(f"Denoising, PSNR in dB, {_pictures(list(known.values()))}", header, lines)]
    others = {sigma: level for sigma, level in levels.items() if sigma not in known}
    if others:
        lines = [[f"{sigma:g}", *_decibels(level, "noisy", "prior")] for sigma, level in others.items()]
        tables.append(("Denoising, sigma in units of [-1, 1], PSNR in dB", ["sigma", "noisy", "photos"], lines))
    return tables


def _decibels(level: Cell, *methods: str) -> list[str]:
    return [_number(method, ".2f")(level) for method in methods]
