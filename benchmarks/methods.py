"""All methods on photos at equal cost: the prior ``photos``, crops of held-out pictures, three kinds of masks.

    python -m benchmarks.methods --budget 50 --pictures 10 --write-docs

Every method gets the settings that ``priorpaint certify`` would give it for the budget (network evaluations a sample,
counted once with or without a gradient), at full scale and with nothing else tuned. Masks, noise and seeds are fixed.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.photos import __main__ as photos
from benchmarks.photos import report
from benchmarks.photos.answers import Method
from benchmarks.photos.pictures import MaskKind
from priorpaint.errors import PriorpaintError
from priorpaint.imaging import mask_generators as masks
from priorpaint.solvers import SOLVERS
from priorpaint.solvers.budgets import settings_for

KINDS = [
    MaskKind("strokes", masks.strokes),
    MaskKind("holes", masks.holes),
    MaskKind("box", lambda size, seed: masks.box(size, size // 2)),
]
# The whole Jacobian that the problems of `certify` allow is out of reach for a picture.
AT_PICTURE_SIZE: dict[str, dict[str, Any]] = {"smc": {"twist": "pigdm", "kernel": "first"}}
_INTRO = """# All methods on photos, at equal cost

Centre crops of {crop}x{crop} of held-out CID22 photos with the prior `photos`, every method at full scale (no
coarse-to-fine) with the settings that `priorpaint certify` gives it for {budget} evaluations a sample (`smc` with the
twist of PiGDM); nothing is tuned for photos. Strokes hide 5-10 %, holes of 16-32 px hide 10-20 %, the box hides a
quarter.
"""


def page(results: dict[str, Any]) -> str:
    """docs/results/methods.md."""
    section = results["inpainting"]
    setup, tables = section["setup"], report.score_tables(section["rows"])
    parts = [_INTRO.format_map(setup), report.COLUMNS.format_map(setup), report.run_line(setup)]
    return "\n".join([*parts, *map(report.as_markdown, tables)])


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", nargs="+", choices=sorted(SOLVERS), default=sorted(SOLVERS), metavar="NAME")
    parser.add_argument("--budget", type=int, default=50, help="evaluations a sample (default: %(default)s)")
    parser.add_argument("--crop", type=int, default=64, help="side of the crop (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=4, help="samples a picture (default: %(default)s)")
    photos.add_run_options(parser, "methods.{md,json}")
    args = parser.parse_args(argv)
    args.name, args.what, args.masks, args.baselines_only = "methods", "inpaint", KINDS, False
    photos.check_run(parser, args)
    return args


def methods(args: argparse.Namespace) -> list[Method]:
    """Each method with the settings for the budget.

    Raises:
        UsageError: one has none.
    """
    return [
        Method(name, name, settings_for(name, args.budget, args.samples) | AT_PICTURE_SIZE.get(name, {}))
        for name in args.method
    ]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    args.method = methods(args)
    photos.run(args, "benchmarks.methods", page, {"budget": args.budget})


if __name__ == "__main__":
    try:
        main()
    except PriorpaintError as error:
        raise SystemExit(str(error)) from None
