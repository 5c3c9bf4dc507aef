"""How good is a prior of avatars? Unconditional samples, read back into parts.

    python -m benchmarks.avatars --prior avatars --num 2000
    python -m benchmarks.avatars --prior my-prior/ --num 500 --steps 20 --write-docs
    python -m benchmarks.avatars --prior my-prior/ --num 400 --denoiser

A sample is valid where `lab.avatars.read` finds an avatar in it; the parts of the nearest avatars are counted and
held against the law that the training pictures were drawn from. With ``--label`` a prior with classes draws one
class. With ``--denoiser`` no samples are drawn: the network is held against the exact denoiser of the law.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that `python benchmarks/avatars.py` works as well as -m

from priorpaint import load_prior  # noqa: E402
from priorpaint.diffusion.rng import Streams, derive  # noqa: E402
from priorpaint.diffusion.samplers import (  # noqa: E402
    DDIM,
    DDPM,
    Heun,
    Sampler,
)
from priorpaint.errors import PriorpaintError, UsageError  # noqa: E402
from priorpaint.imaging.grids import picture_grid, to_pixels  # noqa: E402
from priorpaint.lab.avatars import (  # noqa: E402
    Avatars,
    as_tensor,
    read,
    standard,
)
from priorpaint.lab.avatars.prior import ExactAvatars  # noqa: E402
from priorpaint.priors.base import Prior  # noqa: E402
from priorpaint.priors.cfg import CFGPrior  # noqa: E402

SAMPLERS: dict[str, Callable[[int], Sampler]] = {"heun": Heun, "ddim": DDIM, "ddpm": DDPM}
_SHOWN, _COLUMNS, _ZOOM = 48, 12, 2
_SIGMAS = (0.5, 1, 2, 3, 4, 6, 8, 12, 20, 40)
_INTRO = """# The prior `{name}`, measured

Unconditional samples of the network, read back into their parts (`priorpaint.lab.avatars.read`: a sample is valid where
no cell is further than {threshold} from the nearest avatar, root mean square, pictures in [-1, 1]; pictures of 64 x 64
pixels are shrunk to 32 x 32 first). Shares are those of
the nearest avatars of all samples; the deviation is the largest difference from the
[law](../avatars.md#the-distribution), and "noise" what a share of as many exact draws deviates by, at the worst of the
part's options (two standard errors).
"""


def samples(prior: Prior, sampler: Sampler, num: int, seed: int, batch: int, labels: Tensor | None = None) -> Tensor:
    """Pictures (num, 3, 32, 32); sample i depends on the seed and i alone. Larger ones are shrunk by means.

    ``labels`` (num,) are the classes that the prior is told.
    """
    done, anything = [], prior
    for first in range(0, num, batch):
        noise = Streams([derive("avatars", seed, row) for row in range(first, min(first + batch, num))])
        if labels is not None:
            prior = CFGPrior(anything, label=labels[first : first + batch])
        with torch.no_grad():
            drawn = sampler(prior, prior.initial_about_mean(noise.normal(*prior.shape)), noise)
            drawn = prior.decode(drawn) if prior.latent else drawn
        done.append(F.adaptive_avg_pool2d(drawn.clamp(-1, 1), 32))
        print(f"\r{min(first + batch, num)} of {num}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return torch.cat(done)


def shares(law: Avatars, parts: NDArray[Any]) -> list[dict[str, Any]]:
    """For each part: the largest deviation of the shares of its options, and of which option."""
    rows = []
    for column, part in enumerate(law.parts):
        exact = np.asarray(part.shares)
        found = np.bincount(parts[:, column], minlength=len(exact)) / max(1, len(parts))
        worst = int(np.abs(found - exact).argmax())
        noise = 2 * float(np.sqrt(exact * (1 - exact) / max(1, len(parts))).max())
        rows.append(
            {
                "part": part.name,
                "options": len(exact),
                "deviation": float(abs(found - exact)[worst]),
                "option": part.options[worst],
                "found": float(found[worst]),
                "exact": float(exact[worst]),
                "noise": noise,
            }
        )
    return rows


def measure(prior: Prior, args: argparse.Namespace) -> tuple[dict[str, Any], Tensor]:
    """The table and the samples."""
    law = standard()
    begun = time.process_time()
    drawn = samples(prior, SAMPLERS[args.sampler](args.steps), args.num, args.seed, args.batch)
    seconds = time.process_time() - begun
    found = read(drawn)
    table = {
        "prior": prior.hash or prior.name,
        "num": args.num,
        "sampler": args.sampler,
        "steps": args.steps,
        "seed": args.seed,
        "valid": float(found.valid.double().mean()),
        "distance": float(found.distance.median()),
        "worst": float(found.worst.median()),
        "threads": torch.get_num_threads(),
        "seconds": seconds / args.num,
        "parts": shares(law, found.parts),
    }
    return table, drawn


def told(prior: Prior, args: argparse.Namespace) -> dict[str, float] | None:
    """Whether samples have the hair that the prior is told, each style in turn; None for a prior without classes."""
    law = standard()
    hair = law.parts[law.index["hair"]].options
    if prior.classes != len(hair):
        return None
    order = sorted(hair)  # classes are in the order of the folders' names
    labels = torch.arange(args.told) % len(order)
    found = read(samples(prior, SAMPLERS[args.sampler](args.steps), args.told, args.seed, args.batch, labels))
    wanted = np.array([hair.index(order[label]) for label in labels.tolist()])
    agree = found.parts[:, law.index["hair"]] == wanted
    return {"num": args.told, "agree": float(agree.mean()), "valid": float(found.valid.double().mean())}


def gaps(prior: Prior, num: int, seed: int) -> list[tuple[float, float, float]]:
    """(sigma, E|D - D*|^2, E|D* - x_0|^2) a pixel, for the exact denoiser D*: what the network adds to the least error.

    Raises:
        UsageError: the prior does not know pictures of 32 x 32 pixels.
    """
    if prior.latent or tuple(prior.image_shape) != (3, 32, 32):
        raise UsageError("only the denoiser of pictures of 32 x 32 pixels can be held against the exact one.")
    exact = ExactAvatars()
    x_0 = as_tensor(exact.avatars.compose(unseen(exact.avatars, num, seed)))
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for sigma in _SIGMAS:
        x_t = x_0 + sigma * torch.randn(x_0.shape, generator=generator)
        with torch.no_grad():
            best, found = (_denoised(each, x_t, sigma) for each in (exact, prior))
        rows.append((sigma, float((found - best).square().mean()), float((best - x_0).square().mean())))
    return rows


def unseen(law: Avatars, num: int, seed: int) -> NDArray[Any]:
    """Combinations (num, P) that ``python -m priorpaint.lab.avatars write --seed`` draws for no small seed.

    ``law.draw(num, 0)`` itself would be the first of the 500,000 that the network was trained on.
    """
    return law.draw(num, derive("unseen avatars", seed))


def _denoised(prior: Prior, x_t: Tensor, sigma: float) -> Tensor:
    """E[x_0 | x_0 + sigma eps = x_t], whatever the schedule of the prior makes of x_0."""
    t = prior.schedule.time_at(torch.tensor(sigma, dtype=torch.float64))
    return prior.denoise(x_t * prior.schedule.alpha(t), t)


def gap_table(rows: list[tuple[float, float, float]]) -> str:
    """The rows of `gaps`, times 10,000."""
    head = "| sigma | network from exact denoiser | error of the exact denoiser |\n|---|--:|--:|"
    return "\n".join([head, *(f"| {sigma:g} | {1e4 * gap:.1f} | {1e4 * least:.1f} |" for sigma, gap, least in rows)])


def markdown(table: dict[str, Any], name: str, command: str, picture: str) -> str:
    """The page of the prior ``name``."""
    from priorpaint.lab.avatars import THRESHOLD

    head = "| part | options | largest deviation | noise | of | found | law |\n|---|--:|--:|--:|---|--:|--:|"
    rows = [
        f"| {row['part']} | {row['options']} | {row['deviation']:.3f} | {row['noise']:.3f} | {row['option']} "
        f"| {row['found']:.3f} | {row['exact']:.3f} |"
        for row in table["parts"]
    ]
    worst = max(row["deviation"] for row in table["parts"])
    parts = [
        _INTRO.format(name=name, threshold=THRESHOLD),
        f"Run: `{command}` (weights {table['prior'][:12]}, {table['seconds']:.2f} CPU seconds a sample).\n",
        f"**Valid: {table['valid']:.1%}** of {table['num']} samples ({table['sampler']}, {table['steps']} steps). "
        f"**Largest deviation of a share: {worst:.3f}.** Median distance to the nearest avatar: "
        f"{table['distance']:.3f}; of the worst cell: {table['worst']:.3f}.\n",
        "\n".join([head, *rows]) + "\n",
        *_told_words(table["told"]),
        f"The first samples:\n\n![Samples]({picture})\n",
    ]
    return "\n".join(parts)


def _told_words(found: dict[str, float] | None) -> list[str]:
    if found is None:
        return []
    words = f"Told the hair, each style in turn: {found['agree']:.1%} of {found['num']} samples have it, "
    return [f"{words}{found['valid']:.1%} are valid.\n"]


def sheet(drawn: Tensor) -> Image.Image:
    """The first samples, enlarged."""
    return picture_grid(to_pixels(drawn[:_SHOWN]), _COLUMNS, scale=_ZOOM)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="avatars", help="name, file or folder (default: %(default)s)")
    parser.add_argument("--label", type=int, help="class to draw, for a prior with classes (default: any)")
    parser.add_argument("--num", type=int, default=2000, help="samples (default: %(default)s)")
    parser.add_argument("--sampler", choices=SAMPLERS, default="heun", help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="steps of the sampler (default: %(default)s)")
    parser.add_argument("--told", type=int, default=320, help="samples told their hair (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=100, help="samples computed at a time (default: %(default)s)")
    parser.add_argument("--denoiser", action="store_true", help="hold the network against the exact denoiser instead")
    parser.add_argument("--write-docs", action="store_true", help="write docs/results/avatars.* and its picture")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    prior = load_prior(args.prior)
    if tuple(prior.image_shape) not in ((3, 32, 32), (3, 64, 64)):
        raise UsageError(f"{args.prior} makes pictures of {prior.image_shape}; avatars are (3, 32, 32) or (3, 64, 64).")
    if args.denoiser:
        print(gap_table(gaps(prior, args.num, args.seed)))
        return
    anything = prior
    if args.label is not None:
        prior = CFGPrior(prior, label=args.label)
    table, drawn = measure(prior, args)
    table["told"] = told(anything, args) if args.label is None else None
    folder = ROOT / "docs" / "results" if args.write_docs else ROOT / "out" / "benchmarks"
    name = "avatars-latent" if prior.latent else "avatars"
    picture = (ROOT / "docs" / "images" if args.write_docs else folder) / f"{name}-samples.png"
    folder.mkdir(parents=True, exist_ok=True)
    sheet(drawn).save(picture)
    command = "python -m benchmarks.avatars " + " ".join(sys.argv[1:])
    page = markdown(table, name, command.strip(), Path(os.path.relpath(picture, folder)).as_posix())
    (folder / f"{name}.json").write_text(json.dumps({"command": command.strip(), **table}, indent=1) + "\n")
    (folder / f"{name}.md").write_text(page)
    print(page)


if __name__ == "__main__":
    try:
        main()
    except PriorpaintError as error:
        raise SystemExit(f"benchmarks.avatars: {error}") from None
