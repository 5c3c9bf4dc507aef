"""What a call of the prior for photos takes in float32 and in bfloat16, on one thread.

    python benchmarks/precision.py

Both are timed in turn, so that a busy machine slows both alike; of ten calls each, the shortest. The difference is that
of the two estimates of x_0 at sigma = 1, root mean square, in levels of 255.
"""

from __future__ import annotations

import time

import torch

from priorpaint import Prior, load_prior
from priorpaint.priors.loading import PRECISIONS

SIZES = ((64, 64), (128, 128), (256, 256), (304, 464))
CALLS = 10


@torch.no_grad()
def timed(prior: Prior, x_t: torch.Tensor, t: float) -> tuple[float, torch.Tensor]:
    """Seconds of a call, and what it gives."""
    begun = time.perf_counter()
    out = prior.denoise(x_t, t)
    return time.perf_counter() - begun, out


def main() -> None:
    torch.set_num_threads(1)
    priors = [load_prior("photos", device="cpu", dtype=PRECISIONS[name]) for name in ("float32", "bfloat16")]
    t = float(priors[0].schedule.time_at(torch.tensor(1.0, dtype=torch.float64)))
    print("| pixels | float32 | bfloat16 | ratio | difference |\n|---|--:|--:|--:|--:|")
    for height, width in SIZES:
        x_t = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        rounds = [[timed(prior, x_t, t) for prior in priors] for _ in range(CALLS + 1)][1:]
        full, half = (min(each[index][0] for each in rounds) for index in range(2))
        away = 127.5 * float((rounds[0][0][1] - rounds[0][1][1]).square().mean().sqrt())
        print(
            f"| {height}x{width} | {1e3 * full:.0f} ms | {1e3 * half:.0f} ms | {full / half:.1f} | {away:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
