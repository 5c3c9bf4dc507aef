"""What it costs to read every written picture back, as a share of the main job.

    python benchmarks/read_back.py                         # 256x256, 1024x1024 and 8000x5000 pixels, PNG
    python benchmarks/read_back.py --sizes 8000x5000 --format tiff

Each run fills a box of a smooth picture with noise in it (so that it compresses like a photo) and writes all that the
command line writes. Times are those of the processor, which a busy machine changes little; reading back is timed inside
the same run, and its share is that of the whole run without loading the prior. The box is a quarter of the sides, but
64 pixels at most: a larger one would only make the share smaller.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from priorpaint import inpaint, load_prior
from priorpaint.imaging import writing
from priorpaint.priors import Prior


def main() -> None:
    """Print a table of Markdown."""
    options = _options()
    torch.set_num_threads(1)
    prior = load_prior("photos", device="cpu")
    print(f"| picture | run with {options.format}, s | reading back, s | share |\n|---|---|---|---|")
    for size in options.sizes:
        width, height = map(int, size.split("x"))
        total, back = _run(prior, (width, height), options)
        print(f"| {size} | {total:.2f} | {back:.3f} | {back / total:.1%} |", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["256x256", "1024x1024", "8000x5000"], metavar="WxH")
    parser.add_argument("--format", default="png", help="of the results: png, jpg, webp or tiff")
    parser.add_argument("--samples", type=int, default=4)
    return parser.parse_args()


def _run(prior: Prior, size: tuple[int, int], options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of a run with all its files, and those of them that reading back takes."""
    spent, check = [0.0], writing.how_it_reads_back

    def timed(*arguments: Any) -> str | None:
        begun = time.process_time()
        try:
            return check(*arguments)
        finally:
            spent[0] += time.process_time() - begun

    width, height = size
    box = (width // 3, height // 3, min(64, width // 4), min(64, height // 4))
    with tempfile.TemporaryDirectory() as folder:
        _photo(size).save(Path(folder) / "a.png", compress_level=1)
        writing.how_it_reads_back = timed
        begun = time.process_time()
        try:
            result = inpaint(Path(folder) / "a.png", None, prior, num_samples=options.samples, boxes=[box])
            result.save(Path(folder) / "out", format=options.format)
        finally:
            writing.how_it_reads_back = check
        return time.process_time() - begun, spent[0]


def _photo(size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (size[1] // 16, size[0] // 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))
    noise = rng.integers(0, 9, smooth.shape, dtype=np.uint8)
    return Image.fromarray(np.clip(smooth, 0, 247) + noise)


if __name__ == "__main__":
    main()
