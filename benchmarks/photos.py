"""How good is the prior ``photos``? Denoising against FFDNet, inpainting against three classical programs.

    python -m benchmarks.photos denoise
    python -m benchmarks.photos inpaint --method dps:steps=100 --method vipaint --sheets out/sheets
    python -m benchmarks.photos all --method vipaint --write-docs

Everything in one table comes from one run: same pictures, same masks, same noise, all seeds fixed. Pictures and
reference weights are read from ``../shared/data`` beside the project, or from ``--data``.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that `python benchmarks/photos.py` works as well as -m

from benchmarks import baselines, photos_report  # noqa: E402
from priorpaint.diffusion.rng import derive  # noqa: E402
from priorpaint.errors import PriorpaintError  # noqa: E402
from priorpaint.imaging import mask_generators as masks  # noqa: E402
from priorpaint.metrics import LPIPS, psnr  # noqa: E402
from priorpaint.operators import Inpainting  # noqa: E402
from priorpaint.priors.base import Prior  # noqa: E402

BYTE_SIGMAS = (15, 25, 50, 75, 100)
UNIT_SIGMAS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
MASKS: dict[str, Callable[[int, int], masks.Mask]] = {
    "strokes": lambda size, seed: masks.strokes(size, seed),
    "holes": lambda size, seed: masks.holes(size, seed),
    "box": lambda size, seed: masks.box(size, 64),
}


@dataclass(frozen=True)
class Photo:
    """One picture (1, 3, H, W) in [-1, 1]."""

    name: str
    x: Tensor

    def crop(self, side: int) -> Photo:
        """The square in the middle."""
        height, width = self.x.shape[2:]
        if min(height, width) < side:
            raise SystemExit(f"{self.name} is {width} x {height}; --crop {side} needs pictures of at least that size")
        top, left = (height - side) // 2, (width - side) // 2
        return Photo(self.name, self.x[:, :, top : top + side, left : left + side].contiguous())


def read_photos(folder: Path, count: int | None) -> list[Photo]:
    """The first ``count`` pictures of a folder, by name."""
    files = sorted(path for path in folder.glob("*") if path.suffix in {".png", ".webp", ".jpg"})[:count]
    if not files:
        raise SystemExit(f"there are no pictures in {folder}; name the folder that holds photos-cid22 with --data")
    opened = ((path.stem, Image.open(path, formats=["PNG", "WEBP", "JPEG"])) for path in files)
    return [Photo(name, to_tensor(np.asarray(image.convert("RGB")))) for name, image in opened]


def to_tensor(picture: baselines.Picture) -> Tensor:
    """(H, W, 3) bytes to (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_bytes(x: Tensor) -> baselines.Picture:
    """(3, H, W) in [-1, 1] to (H, W, 3) bytes, rounded."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()


# --- denoising ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def prior_denoise(prior: Prior, x: Tensor, sigma: float, noise: Tensor) -> Tensor:
    """E[x_0 | x + sigma noise] of the prior, for any schedule."""
    t = prior.schedule.time_at(torch.tensor([sigma], dtype=torch.float64))
    scale = prior.schedule.alpha(t).to(x).view(-1, 1, 1, 1)
    return prior.denoise((scale * (x + sigma * noise)).to(prior.device), t).cpu()


@torch.no_grad()
def ffdnet_denoise(net: baselines.FFDNet, x: Tensor, sigma: float, noise: Tensor) -> Tensor:
    """The same for FFDNet, which works on [0, 1]."""
    clean: Tensor = net((x + sigma * noise + 1) / 2, sigma / 2)
    return 2 * clean - 1


def measure_denoising(
    photos: list[Photo],
    prior: Prior | None,
    ffdnet: baselines.FFDNet,
    seed: int,
    save: Callable[[dict[str, Any]], None],
) -> None:
    """PSNR of each picture at each noise level, in dB; both networks see the same noisy picture.

    Results are clamped to the value range and not rounded. ``sigma`` is in units of [-1, 1]. ``save`` gets the table so
    far after each level.
    """
    names = [photo.name for photo in photos]
    levels: list[tuple[float, int | None]] = [(level / 127.5, level) for level in BYTE_SIGMAS]
    levels += [(sigma, None) for sigma in UNIT_SIGMAS] if prior is not None else []
    rows = []
    for sigma, level in track(levels, "denoising", console=Console(stderr=True)):
        row: dict[str, Any] = {"sigma": sigma, "sigma_255": level, "pictures": len(photos)}
        scores: dict[str, list[float]] = {"noisy": [], "ffdnet": [], "prior": []}
        for photo in photos:
            generator = torch.Generator().manual_seed(derive("denoise", seed, photo.name, round(1e6 * sigma)))
            noise = torch.randn(photo.x.shape, generator=generator)
            scores["noisy"].append(float(psnr(photo.x + sigma * noise, photo.x)))
            if level is not None:
                scores["ffdnet"].append(clamped_psnr(ffdnet_denoise(ffdnet, photo.x, sigma, noise), photo.x))
            if prior is not None:
                scores["prior"].append(clamped_psnr(prior_denoise(prior, photo.x, sigma, noise), photo.x))
        row |= {name: float(np.mean(values)) for name, values in scores.items() if values}
        row["each"] = {name: dict(zip(names, values, strict=True)) for name, values in scores.items() if values}
        rows.append(row)
        save({"rows": rows})


def clamped_psnr(estimate: Tensor, x: Tensor) -> float:
    return float(psnr(estimate.clamp(-1, 1), x))


# --- inpainting -----------------------------------------------------------------------------------------------------


# The method name that stands for the default of priorpaint.inpaint; "default/NAME" is the main job with another method.
MAIN_JOB = "default"


@dataclass(frozen=True)
class Method:
    """A solver with its settings, as the command line names it: ``name[:key=value,...]``."""

    label: str
    name: str
    settings: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> Method:
        name, _, rest = text.partition(":")
        settings = {}
        for part in filter(None, rest.split(",")):
            key, equals, value = part.partition("=")
            if not equals:
                raise argparse.ArgumentTypeError(f"{part!r} in {text!r} is not key=value")
            settings[key.strip()] = _literal(value.strip())
        return cls(text, name, settings)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@dataclass(frozen=True)
class Answer:
    """What one method made of one hole: single pictures (n, 3, H, W), their mean (1, 3, H, W), and the price."""

    samples: Tensor
    mean: Tensor
    seconds: float
    forward: int = 0
    backward: int = 0


def classical_answer(name: str, x: Tensor, known: masks.Mask) -> Answer:
    """One of the three classical programs; the hidden pixels are black in what it gets."""
    picture = np.where(known[..., None], to_bytes(x[0]), 0).astype(np.uint8)
    started = time.perf_counter()
    filled = baselines.CLASSICAL[name](picture, known)
    seconds = time.perf_counter() - started
    answer = composed(to_tensor(filled), x, known)
    return Answer(answer, answer, seconds)


def solver_answer(
    method: Method, prior: Prior, x: Tensor, known: masks.Mask, num: int, seed: int, batch_size: int | None
) -> Answer:
    """``num`` samples of a solver; singles are rounded to bytes as files are, their mean is not."""
    from priorpaint.solvers import solver

    operator = Inpainting(torch.from_numpy(known)[None, None]).to(prior.device)
    y = operator(x.to(prior.device))
    runner = solver(method.name, **method.settings)
    before = prior.nfe.copy()
    started = time.perf_counter()
    samples = runner.sample(prior, operator, y, num_samples=num, seed=seed, batch_size=batch_size)[0].cpu()
    seconds = time.perf_counter() - started
    used = prior.nfe - before
    mean = composed(samples.mean(dim=0, keepdim=True).clamp(-1, 1), x, known)
    rounded = torch.cat([to_tensor(to_bytes(sample)) for sample in samples])
    return Answer(composed(rounded, x, known), mean, seconds, used.forward, used.backward)


def main_job_answer(
    method: Method, prior: Prior, x: Tensor, known: masks.Mask, num: int, seed: int, batch_size: int | None
) -> Answer:
    """``num`` completions as ``priorpaint.inpaint`` makes them: windows, coarse to fine, bytes."""
    from priorpaint.inpainting.api import inpaint

    before = prior.nfe.copy()
    started = time.perf_counter()
    name = method.name.partition("/")[2] or None
    result = inpaint(to_bytes(x[0]), ~known, prior, name, num, seed, batch_size=batch_size, **method.settings)
    seconds = time.perf_counter() - started
    used = prior.nfe - before
    samples = torch.cat([to_tensor(np.asarray(image)) for image in result.images])
    return Answer(samples, samples.mean(dim=0, keepdim=True), seconds, used.forward, used.backward)


def composed(filled: Tensor, x: Tensor, known: masks.Mask) -> Tensor:
    """``filled`` in the hole, the true picture elsewhere."""
    return torch.where(torch.from_numpy(known), x, filled)


def score(answer: Answer, x: Tensor, known: masks.Mask, lpips: LPIPS) -> dict[str, float]:
    """PSNR inside the hole (dB), LPIPS of whole single pictures, price for one picture."""
    hidden = torch.from_numpy(~known)[None, None]
    truth = x.expand_as(answer.samples)
    with torch.no_grad():
        return {
            "mean_psnr": float(psnr(answer.mean, x, hidden)),
            "sample_psnr": float(psnr(answer.samples, truth, hidden).mean()),
            "lpips": float(lpips(answer.samples, truth).mean()),
            "seconds": answer.seconds,
            "nfe_forward": answer.forward,
            "nfe_backward": answer.backward,
        }


def measure_inpainting(
    photos: list[Photo],
    prior: Prior | None,
    lpips: LPIPS,
    args: argparse.Namespace,
    save: Callable[[dict[str, Any]], None],
) -> None:
    """All methods on all pictures and masks; ``save`` gets the table so far after each picture."""
    cells: list[dict[str, Any]] = []
    for photo in track(photos, "inpainting", console=Console(stderr=True)):
        small = photo.crop(args.crop)
        sheet_rows = []
        for kind in args.masks:
            known = MASKS[kind](args.crop, derive("mask", args.seed, kind, photo.name))
            answers = dict(_answers(small.x, known, prior, args))
            for label, answer in answers.items():
                cell = {"picture": photo.name, "mask": kind, "method": label, "missing": float(1 - known.mean())}
                cells.append(cell | score(answer, small.x, known, lpips))
            pictures = {label: (answer.samples, answer.mean) for label, answer in answers.items()}
            sheet_rows.append(photos_report.sheet_row(small.x, known, pictures))
        if args.sheets is not None:
            photos_report.save_sheet(args.sheets / f"{photo.name}.png", sheet_rows)
        save({"rows": aggregated(cells), "each": cells})


def _answers(
    x: Tensor, known: masks.Mask, prior: Prior | None, args: argparse.Namespace
) -> Iterator[tuple[str, Answer]]:
    for name in baselines.CLASSICAL:
        yield name, classical_answer(name, x, known)
    for method in args.method:
        assert prior is not None  # main() refuses methods without a prior
        answer = main_job_answer if method.name.partition("/")[0] == MAIN_JOB else solver_answer
        yield method.label, answer(method, prior, x, known, args.samples, args.seed, args.batch_size)


def aggregated(cells: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the pictures, one row a mask kind and method, in the order of the run."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["mask"], cell["method"]), []).append(cell)
    rows = []
    for (mask, method), group in groups.items():
        numbers = [key for key in group[0] if key not in {"picture", "mask", "method"}]
        means = {key: float(np.mean([cell[key] for cell in group])) for key in numbers}
        rows.append({"mask": mask, "method": method, "pictures": len(group)} | means)
    return rows


# --- command line ---------------------------------------------------------------------------------------------------


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["denoise", "inpaint", "all"])
    parser.add_argument("--weights", default="photos", help="name or file of the prior (default: %(default)s)")
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
    parser.add_argument("--masks", nargs="+", choices=list(MASKS), default=list(MASKS))
    parser.add_argument("--pictures", type=int, metavar="N", help="only the first N pictures")
    parser.add_argument("--crop", type=int, default=256, help="inpaint a square in the middle (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=8, help="samples a picture (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, metavar="N", help="samples computed at a time (default: all)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "benchmarks" / "photos", help="without suffix")
    parser.add_argument("--write-docs", action="store_true", help="write docs/results/photos.md and .json instead")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="save comparison pictures here")
    args = parser.parse_args(argv)
    if args.method and args.baselines_only:
        parser.error("--method needs a prior; leave out --baselines-only")
    return args


def setup(args: argparse.Namespace, prior: Prior | None, count: int) -> dict[str, Any]:
    """What a reader needs to judge or repeat the run; file names only, no folders."""
    return {
        "command": "python -m benchmarks.photos " + " ".join(_public(part) for part in sys.argv[1:]),
        "prior": None if prior is None else Path(args.weights).name,
        "prior_sha256": None if prior is None else prior.hash,
        "pictures": count,
        "crop": args.crop,
        "samples": args.samples,
        "seed": args.seed,
        "device": args.device if not args.device.startswith("cuda") else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _public(part: str) -> str:
    return Path(part).name if part.startswith("/") else part


def load_prior(args: argparse.Namespace) -> Prior:
    from priorpaint.priors.loading import load_prior as load

    return load(args.weights, device=args.device)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
        _opencv_threads(args.threads)
    wants_prior = not args.baselines_only and (args.what != "inpaint" or bool(args.method))
    prior = load_prior(args) if wants_prior else None
    photos = read_photos(args.data / "photos-cid22" / "val", args.pictures)
    stem = ROOT / "docs" / "results" / "photos" if args.write_docs else args.out
    about = setup(args, prior, len(photos))
    if args.what in ("denoise", "all"):
        ffdnet = baselines.FFDNet.load(args.data / "diffusion-weights" / "ffdnet_color.pth")
        measure_denoising(photos, prior, ffdnet, args.seed, partial(_save, stem, "denoising", about))
    if args.what in ("inpaint", "all"):
        lpips = LPIPS(args.data / "lpips-weights" / "lpips_alex.safetensors")
        measure_inpainting(photos, prior, lpips, args, partial(_save, stem, "inpainting", about))
    console = Console(width=None if sys.stdout.isatty() else 140)
    photos_report.show(json.loads(stem.with_suffix(".json").read_text()), console)
    print(f"written: {stem.with_suffix('.md')} and {stem.with_suffix('.json')}")


def _save(stem: Path, section: str, about: dict[str, Any], table: dict[str, Any]) -> None:
    photos_report.write(stem, section, {"setup": about} | table)


def _opencv_threads(threads: int) -> None:
    import cv2

    cv2.setNumThreads(threads)


if __name__ == "__main__":
    try:
        main()
    except PriorpaintError as error:
        raise SystemExit(str(error)) from None
