"""How good is the prior ``photos``? Denoising against FFDNet, inpainting against classical programs.

    python -m benchmarks.photos denoise --write-docs
    python -m benchmarks.photos inpaint --method default --method default/vipaint --sheets out/sheets --write-docs
    python -m benchmarks.photos defaults --write-docs

Everything in one table has the same pictures, masks, noise and seeds. A long measurement can be done in parts, with
``--start`` and ``--pictures``, and goes on with ``--resume`` where it was stopped. Pictures and reference weights are
read from ``../shared/data`` beside the project, or from ``--data``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks import baselines
from benchmarks.photos import denoising, inpainting, report
from benchmarks.photos.answers import MAIN_JOB, Method
from benchmarks.photos.pictures import Photo, mask_kind, read_photos
from benchmarks.photos.table import Table
from priorpaint.errors import PriorpaintError
from priorpaint.metrics import LPIPS
from priorpaint.priors.base import Prior

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = Path(__file__).with_name("defaults.toml")
_MASKS = ["strokes", "holes", "box"]
# Options that a page does not repeat, with the number of their values: which part of the measurement was run, and where
# its files are.
_NOT_TOLD = {"--resume": 0, "--start": 1, "--pictures": 1, "--blind": 0, "--out": 1, "--sheets": 1, "--data": 1}


def defaults() -> dict[str, Any]:
    """What stands in defaults.toml."""
    return tomllib.loads(DEFAULTS.read_text(encoding="utf-8"))


def add_run_options(parser: argparse.ArgumentParser, page: str) -> None:
    """The options that every measurement has."""
    parser.add_argument("--weights", default="photos", help="name or file of the prior (default: %(default)s)")
    parser.add_argument("--pictures", type=int, metavar="N", help="only N pictures")
    parser.add_argument("--start", type=int, default=0, metavar="K", help="leave out the first K pictures")
    parser.add_argument("--resume", action="store_true", help="keep what is in the json, and measure what is missing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, metavar="N", help="samples computed at a time (default: all)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of the network")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--out", type=Path, metavar="STEM", help="write STEM.json and STEM.md (default: in out/benchmarks)"
    )
    parser.add_argument("--write-docs", action="store_true", help=f"write docs/results/{page} instead")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="save pictures to look at here")
    parser.add_argument(
        "--blind", action="store_true", help="letters in place of names on the sheets; DIR/key.json says whose they are"
    )


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.photos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["denoise", "inpaint", "all", "defaults"])
    parser.add_argument("--baselines-only", action="store_true", help="measure only the programs of others")
    parser.add_argument(
        "--method",
        action="append",
        type=Method.parse,
        default=[],
        metavar="NAME[:KEY=VALUE,...]",
        help=f"a solver at full scale, or {MAIN_JOB!r}: what priorpaint.inpaint does by default, also with settings of "
        "its method (default:eta=0.7) or with another method (default/repaint:steps=10); repeatable",
    )
    parser.add_argument(
        "--masks",
        nargs="+",
        type=mask_kind,
        metavar="KIND",
        help="strokes, holes, box, strokesN (N px wide), holeN (N x N in the middle of the picture at native scale); "
        f"default: {' '.join(_MASKS)}",
    )
    parser.add_argument("--crop", type=int, help="inpaint a square in the middle (default: 256; holeN has its own)")
    parser.add_argument("--samples", type=int, help="samples a picture (default: 8)")
    add_run_options(parser, "{photos|defaults}.{md,json}")
    args = parser.parse_args(argv)
    args.name = "defaults" if args.what == "defaults" else "photos"
    plan: dict[str, Any] = {"masks": _MASKS, "crop": 256, "samples": 8}
    if args.what == "defaults":
        if args.method or args.baselines_only:
            parser.error("the settings of `defaults` stand in benchmarks/photos/defaults.toml; leave out --method")
        plan = defaults()
        args.method = [Method.parse(text) for part in ("grid", "equal_work", "more_work") for text in plan[part]]
    if args.method and args.baselines_only:
        parser.error("--method needs a prior; leave out --baselines-only")
    args.masks = args.masks or [mask_kind(name) for name in plan["masks"]]
    args.crop, args.samples = args.crop or plan["crop"], args.samples or plan["samples"]
    check_run(parser, args)
    return args


def check_run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse numbers that no run can have, before anything is loaded."""
    if min(args.samples, args.crop, 1 if args.pictures is None else args.pictures) < 1 or args.start < 0:
        parser.error("--samples, --crop and --pictures are at least 1, and --start at least 0")


def setup(module: str, args: argparse.Namespace, prior: Prior | None) -> dict[str, Any]:
    """What a reader needs to judge or repeat the run; file names only, no folders."""
    return {
        "commands": [f"python -m {module} " + " ".join(_told(sys.argv[1:]))],
        "prior": None if prior is None else Path(args.weights).name,
        "prior_sha256": None if prior is None else prior.hash,
        "crop": args.crop,
        "samples": args.samples,
        "seed": args.seed,
        "precision": args.precision,
        "device": args.device if not args.device.startswith("cuda") else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _told(argv: Sequence[str]) -> list[str]:
    """The arguments that decide what stands in the table, without folders."""
    kept, skip = [], 0
    for part in argv:
        name, equals, _ = part.partition("=")
        if skip:
            skip -= 1
        elif name in _NOT_TOLD:
            skip = 0 if equals else _NOT_TOLD[name]
        else:
            kept.append(Path(part).name if part.startswith("/") else part)
    return kept


def load(args: argparse.Namespace) -> tuple[list[Photo], Prior | None]:
    """The pictures, and the prior where there is something to measure with it; sets the number of threads."""
    if args.threads is not None:
        import cv2

        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    photos = read_photos(args.data / "photos-cid22" / "val", args.pictures, args.start)
    if not args.method and (args.what == "inpaint" or args.baselines_only):
        return photos, None
    from priorpaint.priors.loading import load_prior

    dtype = torch.bfloat16 if args.precision == "bfloat16" else torch.float32
    return photos, load_prior(args.weights, device=args.device, dtype=dtype)


def stem_of(args: argparse.Namespace) -> Path:
    """The two files of a table, without suffix."""
    if args.write_docs:
        return ROOT / "docs" / "results" / str(args.name)
    return Path(args.out or ROOT / "out" / "benchmarks" / args.name)


def run(
    args: argparse.Namespace, module: str, page: Callable[[dict[str, Any]], str], more: dict[str, Any] | None = None
) -> None:
    """Measure what was asked for, save it as a page, and print its tables.

    Args:
        module: what to type after ``python -m``.
        more: what else must be known of the run.
    """
    stem = stem_of(args)
    photos, prior = load(args)
    about = setup(module, args, prior) | (more or {})
    if args.what in ("denoise", "all"):
        ffdnet = baselines.FFDNet.load(args.data / "diffusion-weights" / "ffdnet_color.pth")
        table = Table(stem, "denoising", denoising.KEY, dict(about), page, args.resume)
        denoising.measure(photos, prior, ffdnet, args.seed, table)
        table.save()  # also where nothing was left to measure: the page may have new words
    if args.what != "denoise":
        lpips = LPIPS(args.data / "lpips-weights" / "lpips_alex.safetensors")
        table = Table(stem, "inpainting", inpainting.KEY, dict(about), page, args.resume)
        inpainting.measure(photos, args.masks, args.method, prior, lpips, args, table)
        table.save()
    console = Console(width=None if sys.stdout.isatty() else 180)
    report.show(report.all_tables(json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))), console)
    print(f"written: {stem.with_suffix('.md')} and {stem.with_suffix('.json')}")


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    run(args, "benchmarks.photos", report.defaults_page if args.what == "defaults" else report.photos_page)


if __name__ == "__main__":
    try:
        main()
    except PriorpaintError as error:
        raise SystemExit(str(error)) from None
