"""How good is a prior of Fashion-MNIST? Unconditional samples against a published network's, in one run.

    python -m benchmarks.fashion --prior fashion --num 2000
    python -m benchmarks.fashion --prior my-prior/ --num 500 --steps 20 --write-docs

Both sets of samples are compared with the test pictures 0 to 8999 in the features of priorpaint's own classifier
(`priorpaint.lab.fashion`; not FID). All pictures are 28 x 28 in a black border of two pixels: of samples with 32 x 32
pixels the middle is cut out, and every set gets the same border again, so that nobody gains or loses by it. Data and
weights are read from ``../shared/data`` beside the project, or from ``--data``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that `python benchmarks/fashion.py` works as well as -m

from benchmarks.fashion_network import TableUNet  # noqa: E402
from priorpaint.diffusion.rng import derive  # noqa: E402
from priorpaint.diffusion.samplers import DDIM, DDPM, Sampler  # noqa: E402
from priorpaint.diffusion.schedules import VP  # noqa: E402
from priorpaint.errors import PriorpaintError, UsageError  # noqa: E402
from priorpaint.lab.fashion import (  # noqa: E402
    CLASSES,
    SIZE,
    classifier,
    pictures,
)
from priorpaint.lab.fashion.checking import TEST  # noqa: E402
from priorpaint.lab.fashion.data import CONTENT  # noqa: E402
from priorpaint.metrics import FeatureGaussian, frechet_distance  # noqa: E402
from priorpaint.priors.base import DenoiserPrior, Prior  # noqa: E402
from priorpaint.priors.cfg import CFGPrior  # noqa: E402
from priorpaint.priors.network import NetworkPrior  # noqa: E402

WEIGHTS = "brianpulfer_ddpm_fashion.pt"
SCALES = (1.0, 2.0)
_SHOWN, _COLUMNS, _ZOOM = 40, 20, 2
_INTRO = """# The prior `fashion`, measured

Unconditional samples against the test pictures 0 to 8999 of [Fashion-MNIST](../fashion.md). The Frechet distance is
that of Gaussians fitted to 64 features of priorpaint's classifier; it is not an FID and not comparable with one. All
pictures are 28 x 28 in a black border of two pixels: of 32 x 32 samples the middle is cut out and gets the same border
again. "real" are as many train pictures: the floor. `ddpm_fashion` is the network of
BrianPulfer/PapersReimplementations (MIT), sampled with {walk}.
"""
_ANCESTRAL = "ddpm_fashion, ancestral"
_THEIRS = "{steps} deterministic steps (DDIM), estimates clipped to the value range"
_OWN_STEPS = "; ancestral: with its own 1000 steps, clipped, too (unclipped, most of these turn black or white)"


def published(path: Path) -> Prior:
    """The published network as a prior of 28 x 28 pictures; estimates of x_0 are kept in [-1, 1]."""
    schedule = VP("linear")
    network = NetworkPrior(
        TableUNet.load(path),
        schedule,
        (1, CONTENT, CONTENT),
        prediction="eps",
        condition=lambda t: 1000 * t - 1,
        name="ddpm_fashion",
    )
    return DenoiserPrior(lambda x_t, t: network.denoise(x_t, t).clamp(-1, 1), schedule, (1, CONTENT, CONTENT))


def bordered(x: Tensor) -> Tensor:
    """The middle 28 x 28 of pictures (N, 1, 28|32, 28|32), clamped, in a black border: (N, 1, 32, 32)."""
    off = (x.shape[-1] - CONTENT) // 2
    middle = x[..., off : off + CONTENT, off : off + CONTENT].clamp(-1, 1)
    return F.pad(middle, ((SIZE - CONTENT) // 2,) * 4, value=-1.0)


def measured(x: Tensor, test: FeatureGaussian) -> dict[str, Any]:
    """Frechet distance, validity and shares of the classes of pictures (N, 1, 32, 32)."""
    judged = classifier().judge(x)
    shares = torch.bincount(judged.classes, minlength=len(CLASSES)).double() / len(x)
    return {
        "num": len(x),
        "frechet": frechet_distance(judged.features, test),
        "valid": float(judged.valid.double().mean()),
        "classes": dict(zip(CLASSES, shares.tolist(), strict=True)),
    }


def sampled(prior: Prior, num: int, seed: int, steps: int, sampler: Sampler | None, batch: int) -> tuple[Tensor, float]:
    """``num`` bordered samples, and CPU seconds for each."""
    begun = time.process_time()
    with torch.no_grad():
        own = steps if sampler is None else None  # a sampler has steps of its own
        x = prior.sample(num, seed=seed, steps=own, sampler=sampler, batch_size=batch).cpu()
    return bordered(x), (time.process_time() - begun) / num


def told(prior: Prior, num: int, seed: int, steps: int) -> list[dict[str, float]]:
    """Whether samples are of the class that the prior is told, in turn each, at every guidance scale."""
    labels = torch.arange(num) % len(CLASSES)
    rows = []
    for scale in SCALES:
        x, seconds = sampled(CFGPrior(prior, label=labels, scale=scale), num, seed, steps, None, num)
        judged = classifier().judge(x)
        found = {
            "agree": float((judged.classes == labels).double().mean()),
            "valid": float(judged.valid.double().mean()),
        }
        rows.append({"scale": scale, "num": num, **found, "seconds": seconds})
    return rows


def compare(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, float]], dict[str, Tensor]]:
    """The numbers of every set, those of the own prior's classes where it has any, and the pictures."""
    folder = args.data / "fashion-mnist"
    test = FeatureGaussian.fit(classifier().features(pictures(folder, "t10k", TEST)[0]))
    generator = torch.Generator().manual_seed(derive("real fashion", args.seed))
    rows = torch.randperm(60_000, generator=generator)[: args.num].tolist()
    sets = {"real": (pictures(folder, "train", rows)[0], 0.0)}
    classes: list[dict[str, float]] = []
    if args.prior:
        from priorpaint.priors.loading import load_prior

        own = load_prior(args.prior)
        if own.image_shape[0] != 1:
            raise UsageError(f"the prior {args.prior} has {own.image_shape[0]} channels; Fashion-MNIST is grey.")
        sets[Path(args.prior).name] = sampled(own, args.num, args.seed, args.steps, None, args.batch_size)
        if own.classes:
            classes = told(own, args.told, args.seed, args.steps)
    theirs = published(args.data / "diffusion-weights" / WEIGHTS)
    walks: dict[str, Sampler] = {"ddpm_fashion": DDIM(steps=args.their_steps)}
    if args.ancestral:
        walks[_ANCESTRAL] = DDPM(steps=1000)
    for name, walk in walks.items():
        sets[name] = sampled(theirs, args.num, args.seed, walk.steps, walk, args.batch_size)
    numbers = {name: {**measured(x, test), "seconds": seconds} for name, (x, seconds) in sets.items()}
    if args.prior:
        numbers[Path(args.prior).name]["weights"] = own.hash or own.name
    return numbers, classes, {name: x for name, (x, _) in sets.items()}


def sheet(sets: dict[str, Tensor]) -> Image.Image:
    """The first pictures of each set, two rows each."""
    blocks = []
    for x in sets.values():
        shown = x[:_SHOWN]
        shown = F.pad(shown, (0, 0, 0, 0, 0, 0, 0, -len(shown) % _COLUMNS), value=-1.0)
        rows = shown[:, 0].unflatten(0, (-1, _COLUMNS)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
        blocks += [rows, torch.ones(4, rows.shape[1])]
    pixels = ((torch.cat(blocks[:-1]) + 1) * 127.5).round().byte().numpy()
    return Image.fromarray(pixels.repeat(_ZOOM, 0).repeat(_ZOOM, 1))


def markdown(results: dict[str, Any], picture: str) -> str:
    """The page."""
    setup, sets = results["setup"], results["sets"]
    weights = "".join(
        f", weights of {name} {found['weights'][:12]}" for name, found in sets.items() if "weights" in found
    )
    lines = [
        _INTRO.format(walk=setup["their_sampler"]),
        f"Run: `{setup['command']}` ({setup['threads']} threads, torch {setup['torch']}{weights}).\n",
    ]
    lines += ["| pictures | number | Frechet distance | valid | CPU s each |", "|---|--:|--:|--:|--:|"]
    for name, found in sets.items():
        numbers = f"{found['num']} | {found['frechet']:.2f} | {found['valid']:.3f} | {found['seconds']:.2f}"
        lines.append(f"| {name} | {numbers} |")
    lines += [
        "",
        "Shares of the classes:",
        "",
        "| class | " + " | ".join(sets) + " |",
        "|---" + "|--:" * len(sets) + "|",
    ]
    for label in CLASSES:
        lines.append(f"| {label} | " + " | ".join(f"{found['classes'][label]:.3f}" for found in sets.values()) + " |")
    if results["told"]:
        lines += ["", "Told the class, each in turn, with classifier-free guidance of some scale (1: none):", ""]
        lines += ["| scale | number | of that class | valid | CPU s each |", "|--:|--:|--:|--:|--:|"]
    for row in results["told"]:
        lines.append("| {scale:g} | {num} | {agree:.3f} | {valid:.3f} | {seconds:.2f} |".format(**row))
    order = ", ".join(sets)
    return "\n".join(lines) + f"\n\n![Samples]({picture})\n\nTwo rows each, not selected: {order}.\n"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="fashion", help="name or file; '' for none (default: %(default)s)")
    parser.add_argument("--num", type=int, default=2000, help="samples of each (default: %(default)s)")
    parser.add_argument("--told", type=int, default=200, help="samples that are told a class (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=25, help="Heun steps of the prior (default: %(default)s)")
    parser.add_argument("--their-steps", type=int, default=50, help="DDIM steps of theirs (default: %(default)s)")
    parser.add_argument("--ancestral", action="store_true", help="theirs with its own 1000 ancestral steps, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=250, metavar="N")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "benchmarks" / "fashion", help="without suffix")
    parser.add_argument(
        "--write-docs", action="store_true", help="write docs/results/fashion.* and its picture instead"
    )
    args = parser.parse_args(argv)
    if args.num < 65 or min(args.steps, args.their_steps, args.batch_size, args.told) < 1:
        parser.error("a distance of 64 features takes at least 65 samples; steps, batch size and --told are positive")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    numbers, classes, sets = compare(args)
    words = sys.argv[1:] if argv is None else argv
    results = {
        "setup": {
            "command": "python -m benchmarks.fashion " + " ".join(words),
            "seed": args.seed,
            "their_sampler": _THEIRS.format(steps=args.their_steps) + _OWN_STEPS * args.ancestral,
            "threads": torch.get_num_threads(),
            "cpu_cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "sets": numbers,
        "told": classes,
    }
    stem = ROOT / "docs" / "results" / "fashion" if args.write_docs else args.out
    picture = ROOT / "docs" / "images" / "fashion-samples.png" if args.write_docs else stem.with_suffix(".png")
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(results, os.path.relpath(picture, stem.parent)))
    sheet(sets).save(picture, optimize=True)
    for name, found in numbers.items():
        print(f"{name}: Frechet distance {found['frechet']:.2f}, valid {found['valid']:.3f} of {found['num']}")
    print(f"written: {stem.with_suffix('.md')}, {stem.with_suffix('.json')} and {picture}")


if __name__ == "__main__":
    try:
        main()
    except PriorpaintError as error:
        raise SystemExit(str(error)) from None
