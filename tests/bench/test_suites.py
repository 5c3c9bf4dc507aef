"""The suites: what the paper compares, with its numbers, and that each can be planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from priorpaint.bench.grid import PaperValue, read_grid, suites
from priorpaint.bench.planning import make_plan
from priorpaint.bench.summary import COLUMNS
from priorpaint.priors.base import Prior

NAMES = [
    *("vipaint-ablation", "vipaint-table1-imagenet256", "vipaint-table1-imagenet64", "vipaint-table1-lsun"),
    *("vipaint-table4", "vipaint-time"),
]


def test_the_suites_are_those_of_the_paper() -> None:
    assert suites() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_says_what_it_measures_and_needs(name: str) -> None:
    grid = read_grid(name)
    assert grid.title.startswith("VIPaint, ") and grid.downloads and grid.paper is not None
    assert grid.samples == 10 and grid.settings == "reference" and grid.paper.source.startswith("Agarwal et al. 2024")


@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_the_paper_stand_beside_something_that_is_measured(name: str) -> None:
    grid = read_grid(name)
    assert grid.paper is not None
    labels, cases = [method.label for method in grid.methods], [*grid.masks, *(one.label for one in grid.operators)]
    for value in grid.paper.values:
        assert value.method in labels and (value.mask or value.operator) in cases and value.metric in COLUMNS
    if name.startswith("vipaint-table1"):  # every cell of the printed table
        assert len(grid.paper.values) == len(set(grid.paper.values)) == len(labels) * len(cases)


def test_rows_of_table_1_as_printed() -> None:
    def row(suite: str, method: str) -> list[float]:
        paper = read_grid(suite).paper
        assert paper is not None
        values: list[PaperValue] = [value for value in paper.values if value.method == method]
        return [value.value for value in values]

    assert row("vipaint-table1-imagenet64", "VIPaint-2") == [0.300, 0.227]
    assert row("vipaint-table1-imagenet64", "RedDiff-V") == [0.407, 0.671]
    assert row("vipaint-table1-imagenet256", "VIPaint-4") == [0.358, 0.373, 0.292]
    assert row("vipaint-table1-lsun", "DPS") == [0.502, 0.490, 0.421]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["reference", "default", "budget=400"])
def test_a_suite_can_be_planned(prior: Prior, images: Path, tmp_path: Path, name: str, mode: str) -> None:
    weights = tmp_path / "lpips.safetensors"
    weights.write_bytes(b"")
    grid = read_grid(name).changed(settings=mode)
    prior.shape = (1, None, None)
    plan = make_plan(grid, prior, images, lpips=weights, size=64)
    labels = {method.label for method in plan.methods} | {left.name for left in plan.skipped}
    assert labels == {method.label for method in grid.methods} and len(plan.pictures) == 3
    if mode != "budget=400":  # which may make one method of two
        assert plan.skipped == ()
    keys = {cell.key for cell in plan.cells()}
    cells = len(plan.conditions) * len(grid.methods) - len(plan.skipped) * (len(plan.masks) or 1)
    assert len(keys) == plan.num_cells == 3 * cells
