"""A benchmark's folder as a run leaves it, with samples whose law is known: truth + error + scale * noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from priorpaint.batch.store import Store
from priorpaint.bench.cells import CELLS, PROBLEMS, SAMPLES
from priorpaint.bench.cells import Measured as Problem
from priorpaint.bench.grid import MethodSpec, OperatorSpec
from priorpaint.bench.pictures import digest_of
from priorpaint.bench.plan import CellCase, Condition, Paper, PictureEntry, Plan, PriorEntry
from priorpaint.imaging import write_array_atomic

# Scale of the samples; the truth is that of scale NOISE around a centre, so that "right" is calibrated.
METHODS = {"right": 1.0, "sure": 0.25, "wide": 2.0}
NOISE = 0.05
BLUR = {"kernel_size": 3}


def picture(i: int, shape: tuple[int, int, int]) -> Tensor:
    """The centre of the law of picture i: two smooth waves, well inside [-1, 1]."""
    rows, columns = torch.meshgrid(torch.linspace(0, 3, shape[1]), torch.linspace(0, 3, shape[2]), indexing="ij")
    waves = [0.4 * torch.sin(rows * (i + 1) + c) + 0.3 * torch.cos(columns * (c + 1)) for c in range(shape[0])]
    return torch.stack(waves)


def noise(seed: int, *shape: int) -> Tensor:
    return NOISE * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(
    folder: Path,
    *,
    pictures: int = 3,
    samples: int = 6,
    shape: tuple[int, int, int] = (3, 32, 32),
    seeds: tuple[int, ...] = (0,),
    paper: Paper | None = None,
    operators: bool = False,
    metrics: tuple[str, ...] = (),
) -> Plan:
    """Write a finished benchmark."""
    truths = {f"{i:03}.png": (picture(i, shape) + noise(i, *shape)).clamp(-1, 1) for i in range(pictures)}
    asked = (OperatorSpec(label="smaller", name="downsampling", settings={"factor": 2}),) if operators else ()
    plan = Plan(
        name="toy", title="Samples of a known law.", downloads=(), paper=paper,
        prior=PriorEntry(spec="toy", digest="0" * 32, name="toy"), images="pictures", shape=shape,
        pictures=tuple(PictureEntry(name=name, digest=digest_of(x)) for name, x in truths.items()),
        masks=("half",), operators=asked,
        conditions=(
            Condition(mask="half", operator="inpainting", name="inpainting", settings={}, sigma_y=0.0),
            *(Condition(mask=None, operator=o.label, name=o.name, settings=o.settings, sigma_y=0.0) for o in asked),
        ),
        methods=tuple(MethodSpec(label=label, name="ddnm", settings={"eta": eta}) for label, eta in METHODS.items()),
        seeds=seeds, samples=samples, settings="default", metrics=metrics, versions={"priorpaint": "0"},
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    plan.write(folder)
    store = Store(folder)
    for i, case in enumerate(plan.cells()):
        problem = folder / PROBLEMS / case.problem.key
        if not problem.exists():
            Problem.of(case.problem, truths[case.problem.picture.name]).write(problem, case.problem)
        finish(folder, store, case, samples, 1000 + i)
    return plan


def finish(folder: Path, store: Store, case: CellCase, samples: int, seed: int) -> None:
    name = case.problem.picture.name
    truth = Problem.read(folder / PROBLEMS / case.problem.key).truth
    centre = picture(int(name[:3]), truth.shape)
    drawn = centre + METHODS[case.method.label] * noise(seed, samples, *truth.shape)
    (folder / CELLS / case.key).mkdir(parents=True)
    write_array_atomic(folder / CELLS / case.key / SAMPLES, drawn.numpy())
    part = {"seconds": 2.0, "nfe_forward": 10 * samples, "nfe_backward": 0}
    spent = {"num_samples": samples, "fit": {**part, "nfe_backward": 5}, "sampling": part, "peak_bytes": 2_000_000}
    store.finish(case.key, {**case.about, **spent})


def line_of(plan: Plan, lines: Mapping[str, dict], method: str, i: int = 0, mask: str | None = "half") -> dict:  # type: ignore[type-arg]
    """What was measured of a method on picture i."""
    cases = [c for c in plan.cells() if c.method.label == method and c.problem.condition.mask == mask]
    return lines[cases[i].key]["values"]  # type: ignore[no-any-return]


def lpips_file(path: Path) -> Path:
    """Weights of AlexNet's layout with random numbers."""
    generator = torch.Generator().manual_seed(0)
    channels, kernels, weights = (3, 64, 192, 384, 256, 256), (11, 5, 3, 3, 3), {}
    for i, kernel in enumerate(kernels):
        size = (channels[i + 1], channels[i], kernel, kernel)
        weights[f"conv{i}.weight"] = torch.randn(size, generator=generator) * (channels[i] * kernel**2) ** -0.5
        weights[f"conv{i}.bias"] = torch.zeros(channels[i + 1])
        weights[f"lin{i}.weight"] = torch.rand(1, channels[i + 1], 1, 1, generator=generator)
    save_file(weights, path)
    return path


def samples_of(folder: Path, case: CellCase) -> Tensor:
    return torch.from_numpy(np.load(folder / CELLS / case.key / SAMPLES))
