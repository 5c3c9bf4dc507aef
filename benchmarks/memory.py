"""Peak memory of latent methods against the number of samples and the size of the picture.

    python benchmarks/memory.py                          # a network and an autoencoder of realistic width, on the CPU
    python benchmarks/memory.py --sizes 256 512 --samples 1 4 8 --device cuda
    python benchmarks/memory.py --prior PATH_OR_NAME --limit 2GB

Every cell runs in a process of its own. On the CPU its peak is that of the process (resident set), less that before
the run; on a GPU that of torch's allocator. With random weights memory is the same as with trained ones. Columns: as it
is, with activations computed again (checkpoint), one row at a time, and both; with --limit also what max_memory picks.
The estimate is that of ``priorpaint.inpainting.memory``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

WAYS = ("plain", "checkpoint", "rows", "both")


def main() -> None:
    """Run all cells, or with --cell one of them."""
    options = _options()
    if options.cell:
        print(json.dumps(_cell(json.loads(options.cell))))
        return
    ways = (*options.ways, "limit") if options.limit else options.ways
    found = []
    print("| method | size | samples | way | peak MB | estimate MB | seconds |\n|---|---|---|---|---|---|---|")
    for method in options.methods:
        for size in options.sizes:
            for samples in options.samples:
                for way in ways:
                    asked = {"method": method, "size": size, "samples": samples, "way": way}
                    asked |= {"device": options.device, "prior": options.prior, "limit": options.limit}
                    cell = _in_its_own_process(asked)
                    found.append({**asked, **cell})
                    print(
                        f"| {method} | {size} | {samples} | {way} | {cell['peak'] / 1e6:.0f} | "
                        f"{cell['estimate'] / 1e6:.0f} | {cell['seconds']:.1f} |",
                        flush=True,
                    )
    if options.out:
        Path(options.out).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["dps", "psld", "vipaint"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 256])
    parser.add_argument("--samples", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--prior", default=None, help="name or path; default: a network with random weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", default=None, help="also run with this max_memory, such as 2GB")
    parser.add_argument("--out", default=None, help="JSON file")
    parser.add_argument("--cell", default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_its_own_process(asked: dict[str, Any]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--cell", json.dumps(asked)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{asked} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _cell(asked: dict[str, Any]) -> dict[str, float]:
    import torch
    import torch._dynamo  # which torch imports at the first recomputation or optimiser: not what a run takes

    from priorpaint import Inpainting, solver
    from priorpaint.inpainting.memory import measure, parse_bytes, plan_memory
    from priorpaint.priors.recompute import RecomputePrior

    prior = _random_prior(asked["device"]) if asked["prior"] is None else _loaded(asked)
    size, samples, way = asked["size"], asked["samples"], asked["way"]
    few = {"vipaint": {"iterations": 2, "mc_samples": samples, "refine_steps": 1, "fill_steps": 1}}
    run = solver(asked["method"], **few.get(asked["method"], {"steps": 2}))
    known = torch.ones(size, size)
    known[size // 4 : size // 2, size // 4 : size // 2] = 0
    room = measure(prior, size, size)
    rows, checkpoint, autoencoder_rows = samples, way in ("checkpoint", "both"), None
    if way in ("rows", "both"):
        rows, autoencoder_rows = 1, 1
    if way == "limit":
        plan = plan_memory(parse_bytes(asked["limit"]), room, rows=samples, graph=run.graph)
        rows, checkpoint, autoencoder_rows = plan.rows, plan.checkpoint, plan.autoencoder_rows
    estimate = room.needs(rows, run.graph, checkpoint=checkpoint, autoencoder_rows=autoencoder_rows)
    used = (
        RecomputePrior(prior, checkpoint=checkpoint, rows=autoencoder_rows) if checkpoint or autoencoder_rows else prior
    )
    operator = Inpainting(known)
    y = operator(torch.zeros(1, int(prior.image_shape[0]), size, size))
    operator = operator.to(prior.device)
    with _Peak(asked["device"]) as peak:
        begun = time.monotonic()
        run.sample(used, operator, y, num_samples=samples, batch_size=rows)
        seconds = time.monotonic() - begun
    return {"peak": peak.bytes, "estimate": estimate - room.weights, "seconds": seconds}


class _Peak:
    """Bytes above what was taken before, at most."""

    def __init__(self, device: str) -> None:
        self.device, self.bytes, self._ended = device, 0, threading.Event()

    def __enter__(self) -> _Peak:
        import torch

        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return self
        self._before, self._most = _resident(), 0
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def _look(self) -> None:
        while not self._ended.wait(0.002):
            self._most = max(self._most, _resident())

    def __exit__(self, *_: object) -> None:
        import torch

        if self.device != "cpu":
            self.bytes = torch.cuda.max_memory_allocated() - self._before
            return
        self._ended.set()
        self._watch.join()
        self.bytes = max(self._most - self._before, 0)


def _resident() -> int:
    """Bytes of this process in memory now; where the system does not say, its largest so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def _loaded(asked: dict[str, Any]) -> Any:
    from priorpaint import load_prior

    return load_prior(asked["prior"], device=asked["device"])


def _random_prior(device: str) -> Any:
    """A latent prior with random weights: f = 4, 64 channels at full size in the decoder, 128 in the latents' net."""
    import torch
    from torch import nn

    from priorpaint import NetworkPrior
    from priorpaint.diffusion.schedules import VP
    from priorpaint.priors.latent import LatentPrior

    def block(channels: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(8, channels), nn.SiLU()]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [layer for _ in range(8) for layer in block(128)]
            self.layers = nn.Sequential(nn.Conv2d(4, 128, 3, padding=1), *layers, nn.Conv2d(128, 4, 3, padding=1))

        def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
            return self.layers(x)  # type: ignore[no-any-return]

    class LoadedAutoencoder(nn.Module):
        factor, channels, image_channels = 4, 4, 3

        def __init__(self) -> None:
            super().__init__()
            up: list[nn.Module] = [nn.Conv2d(4, 64, 3, padding=1)]
            down: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1)]
            for _ in range(2):
                up += [*block(64), nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1), *block(64)]
                down += [*block(64), nn.Conv2d(64, 64, 3, 2, 1)]
            self.up = nn.Sequential(*up, nn.Conv2d(64, 3, 3, padding=1))
            self.down = nn.Sequential(*down, nn.Conv2d(64, 4, 3, padding=1))

        def encode(self, image: torch.Tensor) -> torch.Tensor:
            return self.down(image)  # type: ignore[no-any-return]

        def decode(self, latent: torch.Tensor) -> torch.Tensor:
            return self.up(latent)  # type: ignore[no-any-return]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, autoencoder = Net().to(device), LoadedAutoencoder().requires_grad_(False).eval().to(device)
    return LatentPrior(NetworkPrior(net, VP(), (4, None, None), name="random"), autoencoder)


if __name__ == "__main__":
    main()
