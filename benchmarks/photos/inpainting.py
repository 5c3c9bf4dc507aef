"""Inpainting: every method on every picture and mask."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import track

from benchmarks.baselines import CLASSICAL
from benchmarks.photos.answers import Answer, Method, answer_of, classical_answer, warm_up
from benchmarks.photos.pictures import MaskKind, Photo
from benchmarks.photos.scores import score
from benchmarks.photos.sheets import add_to_sheet
from benchmarks.photos.table import Table
from priorpaint.diffusion.rng import derive
from priorpaint.errors import PriorpaintError
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
    """Fill the table, and save it after each mask; cells that it has are left as they are.

    Args:
        args: crop, samples, seed, batch_size, resume, and sheets, a folder or None.

    A method that fails is named on stderr and has no cell.
    """
    warm_up(prior)
    for photo in track(photos, "inpainting", console=Console(stderr=True)):
        for kind in kinds:
            square = kind.cropped(photo, args.crop)
            known = kind.make(square.x.shape[2], derive("mask", args.seed, kind.name, photo.name))
            answers: dict[str, Answer] = {}
            for name in (*CLASSICAL, *methods):
                label = name if isinstance(name, str) else name.label
                place = {"picture": photo.name, "mask": kind.name, "method": label}
                if place in table:
                    continue
                try:
                    if isinstance(name, str):
                        answer = classical_answer(name, square.x, known, args.samples, args.seed)
                    else:
                        assert prior is not None  # the command line refuses methods without a prior
                        answer = answer_of(name, prior, square.x, known, args.samples, args.seed, args.batch_size)
                except PriorpaintError as error:
                    print(f"{label} on {photo.name}, {kind.name}: {error}", file=sys.stderr)
                    continue
                table.add(place | score(answer, square.x, known, lpips, kind.hole))
                answers[label] = answer
            if not answers:
                continue
            table.save()
            if args.sheets is not None:
                path = args.sheets / kind.name / f"{photo.name}.png"
                add_to_sheet(path, square.x, known, answers, beside=args.resume)
