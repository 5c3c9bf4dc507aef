"""What the framework itself costs a network call, with a network that costs nothing; beside azula 0.11.1.

    pip install azula==0.11.1 --no-deps && pip install einops   # optional; never lets pip choose another torch
    python benchmarks/overhead.py                               # batch of 4, 3 x 64 x 64, half of the pixels known
    python benchmarks/overhead.py --methods dps ddnm --repetitions 41

All rows are timed in turn within each repetition, so that a busy machine slows all of them alike. A row is the median
over repetitions of (time of a run) / (network calls of the run); the ratio is the median of the ratios of the same
repetition, and below 1 where we are faster. The network is x_t -> 0.5 x_t, which has a gradient. A call of azula's
makes the same moves: DPS (ancestral), PiGDM (DDIM) and RePaint (a step down and the way back up).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import priorpaint
from priorpaint.diffusion.schedules import VP

STEPS = 50
METHODS: dict[str, dict[str, Any]] = {
    "dps": {},
    "pigdm": {},
    "ddnm": {},
    "diffpir": {},
    "repaint": {"resamplings": 2},
    "replacement": {},
    "daps": {"n_mc": 1},
}
Run = Callable[[], int]


def main() -> None:
    """Print a table of Markdown."""
    options = _options()
    torch.set_num_threads(1)
    known = torch.rand(1, 1, options.size, options.size, generator=torch.Generator().manual_seed(0)) > 0.5
    image = torch.rand(options.batch, 3, options.size, options.size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    ours = {name: _ours(name, known, image) for name in options.methods}
    theirs = _azula(known[0], image)
    runs = {("priorpaint", name): run for name, run in ours.items()}
    runs |= {("azula", name): theirs[name] for name in options.methods if name in theirs}
    times = _times(runs, options.repetitions)
    print("| method | priorpaint, ms | azula 0.11.1, ms | ratio |\n|---|---|---|---|")
    for name in options.methods:
        mine, other = times["priorpaint", name], times.get(("azula", name))
        shown = f"{statistics.median(mine):.2f}"
        if other is None:
            print(f"| {name} | {shown} | - | - |")
            continue
        ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
        print(f"| {name} | {shown} | {statistics.median(other):.2f} | {ratio:.2f} |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    return parser.parse_args()


def _times(runs: dict[tuple[str, str], Run], repetitions: int) -> dict[tuple[str, str], list[float]]:
    """Milliseconds a network call, of each repetition; the first one of all warms up and does not count."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for repetition in range(repetitions + 1):
        for key, run in runs.items():
            begin = time.perf_counter()
            calls = run()
            if repetition:
                times[key].append((time.perf_counter() - begin) / calls * 1e3)
    return times


def _ours(name: str, known: Tensor, image: Tensor) -> Run:
    count = [0]

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        count[0] += 1
        return 0.5 * x_t

    prior = priorpaint.DenoiserPrior(network, VP("linear"), (3, None, None))
    operator = priorpaint.Inpainting(known)
    solver = priorpaint.solver(name, steps=STEPS, **METHODS[name])
    y = operator(image)

    def run() -> int:
        count[0] = 0
        solver.sample(prior, operator, y, sigma_y=0.05)
        return count[0]

    return run


def _azula(known: Tensor, image: Tensor) -> dict[str, Run]:
    """Runs of azula's samplers; none, with a message, where it is not installed."""
    try:
        import azula
        from azula.denoise import Denoiser, DiracPosterior
        from azula.guidance import DPSSampler, PGDMSampler, RePaintSampler
        from azula.noise import VPSchedule
    except ImportError as error:
        print(f"Without azula ({error}): pip install azula==0.11.1 --no-deps && pip install einops\n")
        return {}
    if azula.__version__ != "0.11.1":
        raise SystemExit(f"the comparison is with azula 0.11.1, not {azula.__version__}; pip install azula==0.11.1")

    class Network(Denoiser):  # type: ignore[misc]  # azula has no types
        schedule = VPSchedule()
        calls = 0

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
            self.calls += 1
            return DiracPosterior(mean=0.5 * x_t)

    network = Network()
    y = torch.where(known, image, 0)

    def measure(x: Tensor) -> Tensor:
        return torch.where(known, x, 0)

    samplers = {
        "dps": DPSSampler(network, y, measure, steps=STEPS, silent=True),
        "pigdm": PGDMSampler(network, y, measure, measure, steps=STEPS, silent=True),
        "repaint": RePaintSampler(network, y, known, iterations=2, steps=STEPS, silent=True),
    }

    def run(sampler: Any) -> int:
        network.calls = 0
        sampler(sampler.init(image.shape))
        return network.calls

    return {name: lambda sampler=sampler: run(sampler) for name, sampler in samplers.items()}  # type: ignore[misc]


if __name__ == "__main__":
    main()
