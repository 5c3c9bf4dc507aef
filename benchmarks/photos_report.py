"""Tables and comparison pictures of benchmarks/photos.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.baselines import CLASSICAL, Picture

Rows = list[list[str]]
_LABEL = 22
_SINGLES = 2

_INTRO = """# The prior `photos`, measured

Pictures: the 41 held-out photos of CID22 (Cloudinary Image Dataset '22, CC BY-SA 4.0), or the first
N where a table says so.
"""
_DENOISING = """## Denoising

Mean PSNR in dB over the pictures, whole pictures, results clamped to the value range. Both networks get the same noisy
picture. FFDNet is the published colour model (KAIR), trained for sigma up to 75/255.
"""
_INPAINTING = """## Inpainting

A square of {crop}x{crop} pixels in the middle of each picture, {samples} samples;
strokes hide 5-10 %, holes of 16-32 px hide 10-20 %, the box is one 64x64 hole.
PSNR in dB inside the hole: of the mean of the samples, and the average of single samples (rounded to bytes). LPIPS
(AlexNet, lower is better) of whole single pictures. "gain" is the mean's PSNR minus the best classical PSNR; "LPIPS
change" is against the best classical LPIPS. Seconds and network evaluations (forward + forward-and-backward) are for
all samples of one picture.
"""


def write(stem: Path, section: str, table: dict[str, Any]) -> None:
    """Put one section into STEM.json and rewrite STEM.md; the other section stays as it was."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    path = stem.with_suffix(".json")
    results = json.loads(path.read_text()) if path.exists() else {}
    results[section] = table
    partial = path.with_suffix(".json.part")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(path)
    stem.with_suffix(".md").write_text(markdown(results))


def show(results: dict[str, Any], console: Console) -> None:
    """Print what there is as tables."""
    for title, header, rows in _tables(results):
        table = Table(title=title)
        for number, column in enumerate(header):
            table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
        for row in rows:
            table.add_row(*row)
        console.print(table)


def markdown(results: dict[str, Any]) -> str:
    """The same as a page."""
    parts, last = [_INTRO], ""
    for title, header, rows in _tables(results):
        section = "denoising" if title.startswith("denoising") else "inpainting"
        if section != last:
            about = results[section]["setup"]
            parts.append(_DENOISING if section == "denoising" else _INPAINTING.format_map(about))
            parts.append(_setup_line(about))
            last = section
        parts.append(f"### {title}\n")
        parts.append("| " + " | ".join(header) + " |\n" + "|---" + "|--:" * (len(header) - 1) + "|")
        parts.append("\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n")
    return "\n".join(parts)


def _setup_line(setup: dict[str, Any]) -> str:
    digest = f" (sha256 {setup['prior_sha256'][:12]})" if setup["prior_sha256"] else ""
    facts = [f"prior {setup['prior']}{digest}"] if setup["prior"] else ["no prior measured"]
    facts += [f"{setup['pictures']} pictures", f"seed {setup['seed']}"]
    facts += [f"{setup['device']}, {setup['threads']} threads", f"torch {setup['torch']}"]
    return f"Run: `{setup['command']}` ({'; '.join(facts)}).\n"


def _tables(results: dict[str, Any]) -> list[tuple[str, list[str], Rows]]:
    tables = []
    if "denoising" in results:
        rows = results["denoising"]["rows"]
        tables.append(_denoising_255([row for row in rows if row["sigma_255"] is not None]))
        if any(row["sigma_255"] is None for row in rows):
            tables.append(_denoising_unit([row for row in rows if row["sigma_255"] is None]))
    if "inpainting" in results:
        rows = results["inpainting"]["rows"]
        for mask in dict.fromkeys(row["mask"] for row in rows):
            tables.append(_inpainting(mask, [row for row in rows if row["mask"] == mask]))
    return tables


def _denoising_255(rows: list[dict[str, Any]]) -> tuple[str, list[str], Rows]:
    header = ["sigma (of 255)", "noisy", "FFDNet", "photos", "photos - FFDNet"]
    lines = []
    for row in rows:
        ours = row.get("prior")
        difference = "" if ours is None else f"{ours - row['ffdnet']:+.2f}"
        lines.append([str(row["sigma_255"]), _db(row["noisy"]), _db(row["ffdnet"]), _db(ours), difference])
    return f"denoising, PSNR in dB, {rows[0]['pictures']} pictures", header, lines


def _denoising_unit(rows: list[dict[str, Any]]) -> tuple[str, list[str], Rows]:
    lines = [[f"{row['sigma']:g}", _db(row["noisy"]), _db(row.get("prior"))] for row in rows]
    return "denoising, sigma in units of [-1, 1], PSNR in dB", ["sigma", "noisy", "photos"], lines


def _inpainting(mask: str, rows: list[dict[str, Any]]) -> tuple[str, list[str], Rows]:
    classical = [row for row in rows if row["method"] in CLASSICAL]
    best_psnr = max(row["mean_psnr"] for row in classical)
    best_lpips = min(row["lpips"] for row in classical)
    header = ["method", "PSNR mean", "gain", "PSNR single", "LPIPS", "LPIPS change", "seconds", "NFE"]
    lines = []
    for row in rows:
        nfe = f"{row['nfe_forward']:.0f} + {row['nfe_backward']:.0f}" if row["method"] not in CLASSICAL else ""
        gain, change = f"{row['mean_psnr'] - best_psnr:+.2f}", f"{row['lpips'] / best_lpips - 1:+.1%}"
        lines.append(
            [row["method"], _db(row["mean_psnr"]), gain, _db(row["sample_psnr"]), f"{row['lpips']:.4f}", change,
             f"{row['seconds']:.2f}", nfe]
        )  # fmt: skip
    title = f"inpainting, {mask}: {rows[0]['missing']:.1%} missing, {rows[0]['pictures']} pictures"
    return title, header, lines


def _db(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def sheet_row(
    x: Tensor, known: np.ndarray[Any, np.dtype[np.bool_]], answers: dict[str, tuple[Tensor, Tensor]]
) -> list[tuple[str, Picture]]:
    """Labelled pictures: the truth, the question, each answer (two samples and the mean where there are several)."""
    cells = [("original", x[0]), ("given", torch.where(torch.from_numpy(known), x[0], 0))]
    for label, (samples, mean) in answers.items():
        if len(samples) == 1:
            cells.append((label, samples[0]))
            continue
        cells += [(f"{label} #{i}", sample) for i, sample in enumerate(samples[:_SINGLES])]
        cells.append((f"{label} mean", mean[0]))
    return [(label, ((p.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()) for label, p in cells]


def save_sheet(path: Path, rows: Sequence[Sequence[tuple[str, Picture]]], gap: int = 4) -> None:
    """All rows below each other, as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = rows[0][0][1].shape[:2]
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * (width + gap), len(rows) * (height + gap + _LABEL)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for i, row in enumerate(rows):
        for j, (label, picture) in enumerate(row):
            left, top = j * (width + gap), i * (height + gap + _LABEL)
            pen.text((left + 2, top + 3), label, fill="black", font=font)
            sheet.paste(Image.fromarray(picture), (left, top + _LABEL))
    sheet.save(path)
