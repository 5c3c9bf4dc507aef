"""All methods on photos at equal cost: the prior ``photos``, crops of held-out pictures, three kinds of masks.

    python -m benchmarks.methods --budget 100 --pictures 10 --write-docs

Every method gets the settings that ``priorpaint certify`` would give it for the budget (network evaluations a sample,
counted once with or without a gradient), at full scale and with nothing else tuned. Masks, noise and seeds are fixed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from benchmarks.baselines import CLASSICAL
from benchmarks.photos import (
    ROOT,
    Answer,
    Method,
    Photo,
    aggregated,
    classical_answer,
    load_prior,
    read_photos,
    score,
    setup,
    solver_answer,
)
from benchmarks.photos_report import save_sheet, sheet_row
from priorpaint.diffusion.rng import derive
from priorpaint.errors import PriorpaintError
from priorpaint.imaging import mask_generators as masks
from priorpaint.metrics import LPIPS
from priorpaint.priors.base import Prior
from priorpaint.solvers import SOLVERS
from priorpaint.solvers.budgets import settings_for

MASKS: dict[str, Callable[[int, int], masks.Mask]] = {
    "strokes": lambda size, seed: masks.strokes(size, seed),
    "holes": lambda size, seed: masks.holes(size, seed),
    "box": lambda size, seed: masks.box(size, size // 2),
}
# The whole Jacobian that the problems of `certify` allow is out of reach for a picture.
AT_PICTURE_SIZE: dict[str, dict[str, Any]] = {"smc": {"twist": "pigdm", "kernel": "first"}}
_INTRO = """# All methods on photos, at equal cost

Centre crops of {crop}x{crop} of held-out CID22 photos with the prior `photos`, every method at full scale (no
coarse-to-fine) with the settings that `priorpaint certify` gives it for the budget (`smc` with the twist of PiGDM);
nothing is tuned for photos. Strokes hide 5-10 %, holes of 16-32 px hide 10-20 %, the box hides a quarter. PSNR in dB
in the hole, of the mean of the samples and of single ones; LPIPS (AlexNet, lower is better) of whole single pictures;
diversity is the standard deviation over the samples in the hole, in units of [-1, 1]; seconds and network evaluations
(forward + with gradient) a sample. What the samples of a picture share (the fit of `vipaint`) is divided by their
number.
"""


def diversity(samples: Tensor, known: masks.Mask) -> float:
    """Root mean square over the hidden values of the standard deviation over the samples (n, C, H, W)."""
    if len(samples) < 2:
        return 0.0
    hidden = torch.from_numpy(~known).expand(samples.shape[1:])
    return float(samples.var(0)[hidden].mean().sqrt())


def answers(
    photo: Photo, known: masks.Mask, prior: Prior, methods: list[Method], args: argparse.Namespace
) -> Iterator[tuple[str, Answer]]:
    """Each classical program's and each method's answer; a method that fails is named on stderr and left out."""
    for name in CLASSICAL:
        yield name, classical_answer(name, photo.x, known)
    for method in methods:
        try:
            yield method.name, solver_answer(method, prior, photo.x, known, args.samples, args.seed, args.batch_size)
        except PriorpaintError as error:
            print(f"{method.name} on {photo.name}: {error}", file=sys.stderr)


def measure(photos: list[Photo], prior: Prior, lpips: LPIPS, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each picture, mask and method."""
    methods = [
        Method(name, name, settings_for(name, args.budget, args.samples) | AT_PICTURE_SIZE.get(name, {}))
        for name in args.method
    ]
    cells = []
    for photo in track(photos, "methods", console=Console(stderr=True)):
        small, rows = photo.crop(args.crop), []
        for kind, make in MASKS.items():
            known = make(args.crop, derive("mask", args.seed, kind, photo.name))
            found = dict(answers(small, known, prior, methods, args))
            for name, answer in found.items():
                cell = {"picture": photo.name, "mask": kind, "method": name, "missing": float(1 - known.mean())}
                scores = score(answer, small.x, known, lpips) | {"diversity": diversity(answer.samples, known)}
                cells.append(cell | scores)
            rows.append(sheet_row(small.x, known, {name: (a.samples, a.mean) for name, a in found.items()}))
        if args.sheets is not None:
            save_sheet(args.sheets / f"{photo.name}.png", rows)
    return cells


def markdown(table: dict[str, Any]) -> str:
    """The page."""
    about = table["setup"]
    run = f"Run: `{about['command']}` ({about['pictures']} pictures, {about['samples']} samples each; prior "
    run += f"{about['prior_sha256'][:12]}; {about['threads']} threads; torch {about['torch']}).\n"
    parts = [_INTRO.format_map(about), run]
    for kind in MASKS:
        rows = sorted((row for row in table["rows"] if row["mask"] == kind), key=lambda row: float(row["lpips"]))
        if not rows:
            continue
        parts.append(f"## {kind}: {rows[0]['missing']:.1%} missing\n")
        head = "| method | PSNR mean | PSNR single | LPIPS | diversity | seconds | NFE |"
        parts.append(head + "\n|---" + 6 * "|--:" + "|")
        parts.append("\n".join(_line(row, about["samples"]) for row in rows) + "\n")
    return "\n".join(parts)


def _line(row: dict[str, Any], samples: int) -> str:
    forward, backward = row["nfe_forward"] / samples, row["nfe_backward"] / samples
    classical = row["method"] in CLASSICAL
    nfe = "" if classical else f"{forward:.0f} + {backward:.0f}"
    seconds = row["seconds"] / (1 if classical else samples)
    spread = "" if classical else f"{row['diversity']:.3f}"
    name = row["method"] if classical else f"`{row['method']}`"
    numbers = f"{row['mean_psnr']:.2f} | {row['sample_psnr']:.2f} | {row['lpips']:.4f} | {spread}"
    return f"| {name} | {numbers} | {seconds:.2f} | {nfe} |"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", choices=sorted(SOLVERS), default=sorted(SOLVERS), metavar="NAME")
    parser.add_argument("--budget", type=int, default=100, help="evaluations a sample (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=10, metavar="N", help="the first N (default: %(default)s)")
    parser.add_argument("--crop", type=int, default=64, help="side of the crop (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=4, help="samples a picture (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, metavar="N", help="samples computed at a time (default: all)")
    parser.add_argument("--weights", default="photos", help="name or file of the prior (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "benchmarks" / "methods", help="without suffix")
    parser.add_argument("--write-docs", action="store_true", help="write docs/results/methods.md and .json instead")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="save comparison pictures here")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    prior = load_prior(args)
    photos = read_photos(args.data / "photos-cid22" / "val", args.pictures)
    lpips = LPIPS(args.data / "lpips-weights" / "lpips_alex.safetensors")
    cells = measure(photos, prior, lpips, args)
    about = setup(args, prior, len(photos))
    about["command"] = about["command"].replace("benchmarks.photos", "benchmarks.methods")
    about["settings"] = {name: settings_for(name, args.budget, args.samples) for name in args.method}
    table = {"setup": about, "rows": aggregated(cells), "each": cells}
    stem: Path = ROOT / "docs" / "results" / "methods" if args.write_docs else args.out
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(table))
    print(markdown(table))


if __name__ == "__main__":
    try:
        main()
    except PriorpaintError as error:
        raise SystemExit(str(error)) from None
