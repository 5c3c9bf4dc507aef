"""Inpainting: every method on every picture and mask."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.progress import track
from torch import Tensor

from benchmarks.baselines import CLASSICAL
from benchmarks.photos.answers import Answer, Method, answer_of, classical_answer, warm_up
from benchmarks.photos.pictures import MaskKind, Photo
from benchmarks.photos.scores import score
from benchmarks.photos.sheets import add_to_sheet, blind_names, write_key
from benchmarks.photos.table import Table
from priorpaint.diffusion.rng import derive
from priorpaint.errors import PriorpaintError, UsageError
from priorpaint.imaging import mask_generators as masks
from priorpaint.metrics import LPIPS
from priorpaint.priors.base import Prior

KEY = ("picture", "mask", "method")


def measure(
    photos: Sequence[Photo],
    kinds: Sequence[MaskKind],
    methods: Sequence[Method],
    prior: Prior | None,
    lpips: LPIPS,
    args: argparse.Namespace,
    table: Table,
) -> None:
    """Fill the table, which is saved after each cell; cells that it has are left as they are.

    Args:
        prior: None where there are no methods.
        args: crop, samples, seed, batch_size, resume, blind, and sheets, a folder or None.

    A method that fails is named on stderr and has no cell.

    Raises:
        SystemExit: a method cannot be used, or not with these settings; what was measured is kept.
    """
    warm_up(prior)
    for photo in track(photos, "inpainting", console=Console(stderr=True)):
        for kind in kinds:
            square = kind.cropped(photo, args.crop)
            known = kind.make(square.x.shape[2], derive("mask", args.seed, kind.name, photo.name))
            answers: dict[str, Answer] = {}
            asked = _asked(square.x, known, methods, prior, args)
            for label, ask in asked.items():
                place = {"picture": photo.name, "mask": kind.name, "method": label}
                if place in table:
                    continue
                try:
                    answers[label] = ask()
                except UsageError as error:  # as would come of every other picture
                    raise SystemExit(f"{label}: {error}") from None
                except PriorpaintError as error:
                    print(f"{label} on {photo.name}, {kind.name}: {error}", file=sys.stderr)
                    continue
                table.add(place | score(answers[label], square.x, known, lpips, kind.hole))
                table.save()
            if answers and args.sheets is not None:
                names, sheet = {label: label for label in asked}, f"{kind.name}/{photo.name}.png"
                if args.blind:
                    names = blind_names(list(asked), derive("blind", args.seed, sheet))
                    write_key(args.sheets / "key.json", sheet, names)
                shown = {names[label]: answer for label, answer in answers.items()}
                shown = dict(sorted(shown.items())) if args.blind else shown
                add_to_sheet(args.sheets / sheet, square.x, known, shown, below=args.resume)


def _asked(
    x: Tensor, known: masks.Mask, methods: Sequence[Method], prior: Prior | None, args: argparse.Namespace
) -> dict[str, Callable[[], Answer]]:
    """What gives each answer, by the name of the method."""
    asked: dict[str, Callable[[], Answer]] = {
        name: partial(classical_answer, name, x, known, args.samples, args.seed) for name in CLASSICAL
    }
    if prior is None:
        return asked
    how = args.samples, args.seed, args.batch_size
    return asked | {method.label: partial(answer_of, method, prior, x, known, *how) for method in methods}
