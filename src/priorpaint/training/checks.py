"""What a user should know about the pictures before hours of training go into them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from priorpaint.imaging.idx import Pixels
from priorpaint.priors.native.mlp import MLPConfig
from priorpaint.training.config import TrainConfig
from priorpaint.training.data import HOLD_OUT_EVERY, HOLD_OUT_FROM, MIN_PICTURES, Pictures

# Fewer pictures than this are learned by heart.
FEW = 500
_LOOKED_AT = 256
_SHOWN = 6
_GREY = 2
_DIM = 32  # of 255; a camera of 12 bits uses 16 of them in a file of 16


def remarks(config: TrainConfig, pictures: Pictures) -> tuple[str, ...]:
    """Sentences about the data of a run: what was found, and what looks wrong."""
    return (*_counts(pictures), *_held_out(config, pictures), *_doubts(config, pictures))


def _counts(pictures: Pictures) -> Iterator[str]:
    names, total = pictures.class_names, len(pictures.names) + pictures.num_held_out
    if not names:
        yield f"Found {total} pictures."
        return
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    yield (
        f"Found {total} pictures in {len(names)} classes ({shown}), which the network will be told; "
        "--classes none trains without."
    )
    for name, count in zip(names, pictures.counts, strict=True):
        if count < MIN_PICTURES:
            yield f"The class {name} has only {count} pictures; it will hardly be learned."


def _held_out(config: TrainConfig, pictures: Pictures) -> Iterator[str]:
    if pictures.num_held_out:
        yield (
            f"One picture in {HOLD_OUT_EVERY} ({pictures.num_held_out} in all) is held out; --val names others, and "
            "--no-hold-out learns all."
        )
    elif config.hold_out and not config.val:
        yield (
            f"No picture is held out (some are where there are {HOLD_OUT_FROM} or more, {HOLD_OUT_EVERY} of a class); "
            "name some with --val."
        )


def _doubts(config: TrainConfig, pictures: Pictures) -> Iterator[str]:
    total = len(pictures.names) + pictures.num_held_out + len(pictures.skipped)
    if len(pictures.skipped) > total / 2:
        yield f"Most files were skipped ({len(pictures.skipped)} of {total}); see the reasons above."
    if len(pictures.names) < FEW:
        yield f"{len(pictures.names)} pictures are few: below some {FEW}, a prior tends to repeat them."
    same = {str(Path(s).resolve()) for s in config.val} & {str(Path(s).resolve()) for s in config.data}
    if same:
        yield f"{', '.join(sorted(same))} is both trained on and held out, so its PSNR will not show overfitting."
    looked = pictures.some(_LOOKED_AT)
    spans = [int(p.max()) - int(p.min()) for p in looked]
    flat, dim = sum(span < _GREY for span in spans), sum(_GREY <= span < _DIM for span in spans)
    if flat > len(looked) / 10:
        yield f"{flat} of {len(looked)} pictures that were looked at have one colour only; check the files."
    if dim > len(looked) / 10:
        yield (
            f"{dim} of {len(looked)} pictures that were looked at use less than an eighth of the way from black to "
            "white (12 bits in files of 16?); stretch them, or the prior learns to paint the like."
        )
    if pictures.channels == 3 and config.latent is None and all(_grey(p) for p in looked):
        yield "The pictures are grey; --grey trains a network for grey pictures, which is better at them."
    cell = config.network.cell if isinstance(config.network, MLPConfig) and config.latent is None else 1
    mixed = sum(_mixed(p, cell) for p in looked)
    if mixed:
        yield (
            f"{mixed} of {len(looked)} pictures that were looked at have several colours in a cell of {cell}x{cell} "
            "pixels, which the network cannot draw; leave --cell out."
        )
    copies = len(looked) - len({hashlib.blake2b(p.tobytes()).digest() for p in looked})
    if copies > len(looked) / 10:
        yield f"{copies} of {len(looked)} pictures that were looked at are copies of others; each is learned more."


def _grey(pixels: Pixels) -> bool:
    values = pixels.astype(np.int16)
    return bool((values.max(axis=2) - values.min(axis=2)).max() <= _GREY)


def _mixed(pixels: Pixels, cell: int) -> bool:
    """Whether some cell has several colours; what does not fill a cell at the right and lower edge is not looked at."""
    height, width = (side // cell * cell for side in pixels.shape[:2])
    first = pixels[:height:cell, :width:cell].repeat(cell, 0).repeat(cell, 1)
    return not np.array_equal(first, pixels[:height, :width])
