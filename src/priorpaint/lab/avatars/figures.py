"""The pictures of docs/avatars.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...imaging.grids import PAPER, picture_grid, to_pixels
from ...imaging.sheets import colour_map
from ...operators import Inpainting
from .drawing import Pixels
from .model import SIZE
from .pixels import as_tensor
from .posterior import Posterior, posterior
from .standard import standard

if TYPE_CHECKING:
    from ...priors.base import Prior
    from ...solvers import Solver

_SCALE = 3
_GAP = 6
_LINE = 28
_HIDDEN = (210, 210, 216)
_BRIGHTEST = 0.6


def sheet(num: int, seed: int, *, columns: int = 12) -> Image.Image:
    """``num`` random avatars."""
    return _grid(standard().pictures(num, seed), columns)


def posterior_sheet(seed: int, *, samples: int = 6) -> Image.Image:
    """One row for each of six masks: truth, what is seen, exact samples, and the exact mean and standard deviation."""
    truth, visible, exact = _six(seed)
    completions = _completions(exact, samples, seed)
    width = exact.std.square().mean(1).sqrt().numpy()
    std = colour_map(np.clip(width / _BRIGHTEST, 0, 1))
    rows = [truth[:, None], visible[:, None], completions, to_pixels(exact.mean)[:, None], std[:, None]]
    cells = np.concatenate(rows, 1)
    return _grid(cells.reshape(-1, SIZE, SIZE, 3), cells.shape[1])


def comparison_sheet(seed: int, prior: Prior, method: Solver, *, name: str, samples: int = 5) -> Image.Image:
    """One row for each of six masks: truth, what is seen, exact samples, and samples of a method with a prior.

    Args:
        seed: of avatars and samples.
        prior: for pictures (3, 32, 32), such as ``load_prior("avatars")``.
        method: the solver.
        name: of the method, for the heading.
        samples: of each kind.
    """
    truth, visible, exact = _six(seed)
    operator = Inpainting(_masks()[:, None].to(prior.device))
    completions = method.sample(
        prior, operator, operator(as_tensor(truth).to(prior.device)), num_samples=samples, seed=seed, batch_size=32
    )
    own = to_pixels(completions.flatten(0, 1).cpu()).reshape(len(truth), samples, SIZE, SIZE, 3)
    blocks = {
        "truth": truth[:, None],
        "known": visible[:, None],
        "samples of the exact posterior": _completions(exact, samples, seed),
        f"samples of {name}": own,
    }
    return _headed({text: _grid(cells.reshape(-1, SIZE, SIZE, 3), cells.shape[1]) for text, cells in blocks.items()})


def _six(seed: int) -> tuple[Pixels, Pixels, Posterior]:
    """Six avatars, what each of six masks lets be seen of them, and their exact posteriors."""
    masks = _masks()
    truth = standard().pictures(len(masks), seed)
    visible = np.where(masks.numpy()[..., None] > 0, truth, np.array(_HIDDEN, np.uint8))
    return truth, visible, posterior(as_tensor(truth), masks[:, None])


def _completions(exact: Posterior, samples: int, seed: int) -> Pixels:
    drawn = exact.sample(samples, seed=seed)
    return standard().compose(drawn.reshape(-1, drawn.shape[-1])).reshape(len(drawn), samples, SIZE, SIZE, 3)


def _headed(blocks: Mapping[str, Image.Image]) -> Image.Image:
    """Pictures of one height side by side, each under its heading."""
    width, height = sum(block.width + _LINE // 2 for block in blocks.values()), max(b.height for b in blocks.values())
    paper = Image.new("RGB", (width, height + _LINE), (PAPER,) * 3)
    pen, font, left = ImageDraw.Draw(paper), ImageFont.load_default(_LINE * 0.6), 0
    for text, block in blocks.items():
        pen.text((left + _GAP, _LINE // 4), text, fill=(34, 34, 34), font=font)
        paper.paste(block, (left, _LINE))
        left += block.width + _LINE // 2
    return paper


def _masks() -> Tensor:
    """Hidden: right half, left half, bottom half, top half, the eyes, the mouth; (6, 32, 32), 1 = known."""
    masks = torch.ones(6, SIZE, SIZE)
    masks[0, :, 16:] = masks[1, :, :16] = masks[2, 16:] = masks[3, :16] = 0
    masks[4, 8:18, 4:28] = masks[5, 18:24, 10:22] = 0
    return masks


def _grid(pictures: Pixels, columns: int) -> Image.Image:
    return picture_grid(pictures, columns, gap=_GAP, border=_GAP, scale=_SCALE)
