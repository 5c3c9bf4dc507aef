"""A method registers itself where its class is defined, and is then wherever methods are listed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from priorpaint import SOLVERS, MatrixOperator, UsageError, solver
from priorpaint.cli import methods
from priorpaint.solvers import parse_method
from tests.solvers.toy import KNOWN, Y, toy_g

run = importlib.import_module("priorpaint.lab.certify.run")

_MODULE = '''
from typing import ClassVar

from priorpaint.solvers.base import STRICT, Cost, Field, Solver, settings


@settings(frozen=True, config=STRICT)
class Fill({base}):
    """Grey."""

    title: ClassVar[str] = "Grey"
    about: ClassVar[str] = "Paints all of it grey."
    reference: ClassVar[str] = "none"
    needs: ClassVar[frozenset[str]] = frozenset()
    cost_formula: ClassVar[str] = "0"

    steps: int = Field(3, ge=1, description="steps")

    def cost(self, num_samples=1):
        return Cost(0, 0)

    def _steps(self):
        return 0

    def _run(self, task):
        return task.noise.normal(*task.shape) * 0
'''


def define(folder: Path, base: str, needs: str = "frozenset()") -> type:
    """The class of a module that is written, imported and forgotten."""
    path = folder / "grey_module.py"
    path.write_text(_MODULE.format(base=base).replace("frozenset()", needs), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("grey_module", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["grey_module"] = module
    spec.loader.exec_module(module)
    return module.Fill  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    before = dict(SOLVERS)
    yield
    SOLVERS.clear()
    SOLVERS.update(before)
    sys.modules.pop("grey_module", None)


def test_a_named_class_is_found_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = define(tmp_path, 'Solver, name="grey"')
    assert SOLVERS["grey"] is cls and isinstance(solver("grey", steps="2"), cls)
    methods()
    assert "Paints all of it grey." in capsys.readouterr().out
    methods("grey")
    assert "    steps = 3" in capsys.readouterr().out
    labels: list[str] = []
    monkeypatch.setattr(
        run, "_in_this_process", lambda jobs, stop: labels.extend(job.method.label for job in jobs) or iter(())
    )
    run.certify(budgets=[10])
    assert "grey" in labels and "dps" in labels


def test_a_class_without_a_name_is_not_registered_but_runs(tmp_path: Path) -> None:
    before = dict(SOLVERS)
    cls = define(tmp_path, "Solver")
    assert before == SOLVERS
    assert torch.equal(cls().sample(toy_g(), KNOWN, Y), torch.zeros(len(Y), 1, *Y.shape[1:]))


def test_a_method_without_warm_start_refuses_initial_images(tmp_path: Path) -> None:
    cls = define(tmp_path, "Solver")
    with pytest.raises(UsageError, match="t_init"):
        cls().sample(toy_g(), KNOWN, Y, initial=Y[:, None])


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_declared_capabilities_are_true(name: str) -> None:
    cls = SOLVERS[name]
    assert cls.warm_start == ("t_init" in {field.name for field in fields(cls)})  # type: ignore[arg-type]
    assert cls.mask_only == ("mask" in cls.needs)


def test_a_method_that_needs_a_mask_takes_no_other_operator(tmp_path: Path) -> None:
    cls = define(tmp_path, "Solver", "frozenset({'mask'})")
    assert cls.mask_only
    with pytest.raises(UsageError, match="fills in the hidden pixels of a mask"):
        cls().sample(toy_g(), MatrixOperator(torch.ones(1, Y[0].numel())), torch.ones(1, 1))


def test_a_method_in_one_word_with_its_settings() -> None:
    assert parse_method("dps") == ("dps", {})
    assert parse_method("dps:scale=0.3, spacing=None") == ("dps", {"scale": "0.3", "spacing": None})
    with pytest.raises(UsageError, match="NAME:key=value"):
        parse_method("dps:scale")
