"""What a grid may say: names, labels, modes; and what is refused with the place where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from priorpaint.bench.grid import Grid, MethodSpec, read_grid
from priorpaint.errors import UsageError


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_says_a_grid(tmp_path: Path) -> None:
    text = """
    title = "two methods"
    masks = ["rotated", "half"]
    methods = ["ddnm:steps=5", "Slow = dps:steps=50", {label = "L", name = "repaint", settings = {steps = 10}}]
    operators = [{label = "x2", name = "downsampling", settings = {factor = 2}, sigma_y = 0.1}, "grayscale"]
    seeds = [0, 1]
    samples = 4
    settings = "budget=200"
    """
    grid = read_grid(written(tmp_path, text))
    assert grid.name == "mine" and grid.samples == 4 and grid.seeds == (0, 1) and grid.budget == 200
    assert [(method.label, method.name, method.settings) for method in grid.methods] == [
        ("ddnm:steps=5", "ddnm", {"steps": "5"}),
        ("Slow", "dps", {"steps": "50"}),
        ("L", "repaint", {"steps": 10}),
    ]
    assert [(one.label, one.name, one.sigma_y) for one in grid.operators] == [
        ("x2", "downsampling", 0.1),
        ("grayscale", "grayscale", None),
    ]


def test_defaults_are_those_of_the_papers() -> None:
    grid = Grid(masks=("half",), methods=("ddnm",))  # type: ignore[arg-type]
    assert (grid.samples, grid.settings, grid.seeds, grid.sigma_y) == (10, "reference", (0,), 0.0)
    assert grid.changed(settings="paper").settings == "reference" and grid.budget is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('masks = ["half"]', "methods: Field required"),
        ('methods = ["ddnm"]', "nothing to measure; give masks or operators"),
        ('methods = []\nmasks = ["half"]', "methods"),
        ('methods = "ddnm"\nmasks = ["half"]', "methods: it must be a list"),
        ('methods = ["ddnm", "ddnm"]\nmasks = ["half"]', "'ddnm' stands there twice"),
        ('methods = ["ddnm"]\nmasks = ["half", "half"]', "'half' stands there twice"),
        ('methods = ["ddnm"]\nmasks = ["half"]\nseeds = [1, 1]', "1 stands there twice"),
        ('methods = ["ddnm:steps"]\nmasks = ["half"]', "NAME:key=value"),
        ('methods = ["ddnm"]\nmasks = ["half"]\nsettings = "fast"', "'fast' is not one of reference, paper, default"),
        ('methods = ["ddnm"]\nmasks = ["half"]\nsettings = "budget=0"', "budget=N"),
        ('methods = ["ddnm"]\nmasks = ["half"]\nsamples = 0', "samples"),
        ('methods = ["ddnm"]\nmasks = ["half"]\nsigma_y = nan', "sigma_y"),
        ('methods = ["ddnm"]\nmasks = ["half"]\nmask = "x"', "mask: it is not a field of a grid; the fields are name,"),
        ('methods = ["ddnm"\n', "not valid TOML"),
    ],
)
def test_nonsense_is_refused_where_it_stands(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match="mine") as caught:
        read_grid(written(tmp_path, text))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_suites_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no suite 'nosuch'; the suites are .*\.toml"):
        read_grid("nosuch")
    with pytest.raises(UsageError, match="cannot be read"):
        read_grid(str(tmp_path / "no.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not text in UTF-8"):
        read_grid(str(tmp_path / "binary.toml"))


def test_a_change_is_checked_like_the_file() -> None:
    grid = Grid(masks=("half",), methods=("ddnm",))  # type: ignore[arg-type]
    assert grid.changed(methods=["dps", "X = ddnm:steps=3"]).methods[1] == MethodSpec.of("X = ddnm:steps=3")
    with pytest.raises(UsageError, match="samples"):
        grid.changed(samples=-1)
