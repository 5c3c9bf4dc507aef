"""The second pass of a benchmark: what the stored samples are worth, one cell at a time, one line a cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..batch.store import DONE, Record, Store, append, records
from ..errors import CancelToken
from ..metrics import LPIPS
from .cells import CELLS, PROBLEMS, SAMPLES
from .cells import Measured as Problem
from .features import FeatureNetwork, digest_of_file, feature_file, write_features
from .metrics import METRICS, Metric, Stored, Value, chosen
from .plan import Plan

MEASURES = "metrics.jsonl"


@dataclass(frozen=True)
class Passed:
    """What a pass did.

    Attributes:
        measured, kept: cells that were measured now, and that had all measures before.
        damaged: cells whose files cannot be read, by key, with a sentence.
        left_out: metrics that nobody asked for and that could not be measured, with the reason.
    """

    measured: int
    kept: int
    damaged: dict[str, str]
    left_out: dict[str, str]


@dataclass(frozen=True)
class _Tools:
    """What metrics need beside the samples, and its fingerprints: a metric made with others is measured again."""

    lpips: LPIPS | None
    features: FeatureNetwork | None
    digests: dict[str, str]

    def made_with(self, metric: Metric) -> str:
        return "" if metric.needs is None else self.digests[metric.needs]


def measure(
    folder: str | Path,
    *,
    metrics: Sequence[str] = (),
    lpips: str | Path | None = None,
    features: str | Path | FeatureNetwork | None = None,
    device: torch.device | str = "cpu",
    report: Callable[[int, int], None] = lambda done, total: None,
    cancel: CancelToken | None = None,
) -> Passed:
    """Measure the finished cells of a benchmark that are not measured yet, and add them to metrics.jsonl.

    Args:
        folder: of the benchmark.
        metrics: names of ``METRICS``; none is those of the plan, and without any there all that can be measured.
        lpips: file of the weights of LPIPS, as `metrics.lpips_weights` makes it.
        features: a file of torch.export or TorchScript that maps pictures (B, C, H, W) in [-1, 1] to features (B, F),
            or such a network.
        device: where LPIPS is computed.
        report: gets (cells done, cells).
        cancel: looked at before each cell; what was measured stays.

    Raises:
        UsageError: there is no benchmark in the folder, an unknown metric, one that lacks what it needs, or a file that
            cannot be written.
        PriorError: weights or features that are missing or damaged.
        Cancelled: it was stopped.
    """
    folder, cancel = Path(folder), cancel or CancelToken()
    plan = Plan.read(folder)
    names = metrics or plan.metrics
    tools, wanted = _prepared(plan, names, lpips, features, device)
    cells, known = finished(folder, plan), measured(folder)
    count, damaged = 0, dict[str, str]()
    for i, cell in enumerate(cells):
        cancel.check()
        report(i, len(cells))
        missing = [metric for metric in wanted if not _is_measured(metric, known.get(cell["key"]), tools)]
        if not missing:
            continue
        try:
            stored = read_cell(folder, cell)
        except (OSError, ValueError) as error:
            damaged[cell["key"]] = (
                f"{cell['method']} on {cell['picture']} cannot be read ({error}); without the line {cell['key']} of "
                f"{DONE} it is computed again."
            )
            continue
        append(folder / MEASURES, _measure(cell, stored, missing, tools, folder))
        count += 1
    report(len(cells), len(cells))
    left_out = {} if names else _left_out(plan, set(tools.digests))
    return Passed(count, len(cells) - count - len(damaged), damaged, left_out)


def check_metrics(
    plan: Plan, *, lpips: str | Path | None = None, features: str | Path | FeatureNetwork | None = None
) -> None:
    """Refuse, before the samples are computed, what `measure` would refuse of the plan's metrics after that.

    Raises:
        UsageError, PriorError: as for `measure`.
    """
    _prepared(plan, plan.metrics, lpips, features)


def finished(folder: Path, plan: Plan) -> list[Record]:
    """The lines of done.jsonl that belong to the plan, in its words; an older plan may have had others."""
    about = {case.key: case.about for case in plan.cells()}
    return [{**record, **about[record["key"]]} for record in Store(folder).done() if record["key"] in about]


def measured(folder: Path) -> dict[str, Record]:
    """What is known of each cell, by key: ``values`` by column, and ``made_with`` by metric."""
    known: dict[str, Record] = {}
    for line in records(folder / MEASURES):
        cell = known.setdefault(line["key"], {"values": {}, "made_with": {}})
        cell["values"].update(line["values"])
        cell["made_with"].update(line["made_with"])
    return known


def read_cell(folder: Path, cell: Record) -> Stored:
    """The samples of a finished cell, clipped to [-1, 1], with their truth.

    Raises:
        OSError, ValueError: a file is missing or damaged.
    """
    problem = Problem.read(folder / PROBLEMS / cell["problem"])
    samples = torch.from_numpy(np.load(folder / CELLS / cell["key"] / SAMPLES, allow_pickle=False))
    if samples.shape[1:] != problem.truth.shape:
        raise ValueError(f"samples {tuple(samples.shape)} of a picture {problem.truth.shape}")
    hidden = None if problem.known is None else ~torch.from_numpy(problem.known)[None]
    return Stored(samples.float().clamp(-1, 1), torch.from_numpy(problem.truth), hidden)


def _prepared(
    plan: Plan,
    names: Sequence[str],
    lpips: str | Path | None,
    features: str | Path | FeatureNetwork | None,
    device: torch.device | str = "cpu",
) -> tuple[_Tools, list[Metric]]:
    network = None if lpips is None else LPIPS(lpips, device=device)
    if isinstance(features, str | Path):
        features = FeatureNetwork.read(features)
    digests = {}
    if network is not None and lpips is not None:
        digests["lpips"] = f"{network.name} {digest_of_file(Path(lpips))}"
    if features is not None:
        for rows in (1, plan.samples):  # of a truth and of a cell; some exported networks take one number only
            features(torch.zeros(rows, *plan.shape))
        digests["features"] = f"{features.name} {features.digest}"
    wanted = chosen(names, plan.samples, plan.shape, set(digests))
    return _Tools(network, features, digests), wanted


def _is_measured(metric: Metric, known: dict[str, Any] | None, tools: _Tools) -> bool:
    return known is not None and known["made_with"].get(metric.name) == tools.made_with(metric)


@torch.no_grad()
def _measure(cell: Record, stored: Stored, metrics: list[Metric], tools: _Tools, folder: Path) -> Record:
    values: dict[str, Value | None] = {}
    if tools.features is not None and any(metric.needs == "features" for metric in metrics):
        for key, x in ((cell["key"], stored.pasted), (cell["problem"], stored.truth[None])):
            write_features(feature_file(folder, tools.features.digest, key), tools.features, x)
    for metric in metrics:
        if metric.measure is not None:
            values.update(metric.measure(stored, tools.lpips))
    finite = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
    made_with = {metric.name: tools.made_with(metric) for metric in metrics}
    return {"key": cell["key"], "values": finite, "made_with": made_with}


def _left_out(plan: Plan, given: set[str]) -> dict[str, str]:
    obstacles = {name: metric.obstacle(plan.samples, plan.shape, given) for name, metric in METRICS.items()}
    return {name: f"{name} {obstacle}." for name, obstacle in obstacles.items() if obstacle is not None}
