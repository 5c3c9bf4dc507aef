"""A plan decides everything before any work, and its keys are hashes of what the samples depend on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint.bench.grid import Grid
from priorpaint.bench.pictures import prepared
from priorpaint.bench.plan import Plan
from priorpaint.bench.planning import make_plan
from priorpaint.errors import UsageError
from priorpaint.priors.base import Prior
from priorpaint.solvers import solver
from priorpaint.solvers.budgets import at_budget, settings_of


def grid(**values: Any) -> Grid:
    return Grid(**{"masks": ["half"], "methods": ["ddnm:steps=3", "replacement"], "settings": "default", **values})


def keys(plan: Plan) -> list[str]:
    return [cell.key for cell in plan.cells()]


def test_a_picture_is_cut_to_the_middle_and_keeps_its_values_where_it_fits(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "fits.png")
    expected = torch.tensor(values / 127.5 - 1).float()
    torch.testing.assert_close(prepared(tmp_path / "fits.png", (1, 16, 16))[0], expected)
    wide = np.zeros((32, 64, 3), dtype=np.uint8)
    wide[:, 16:48] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    middle = prepared(tmp_path / "wide.png", (3, 16, 16))
    assert middle.shape == (3, 16, 16) and bool((middle == 1).all())


def test_the_plan_counts_its_cells_and_comes_back_from_its_file(prior: Prior, images: Path, tmp_path: Path) -> None:
    plan = make_plan(grid(masks=["half", "rotated"], operators=["downsampling:factor=2"], seeds=[0, 1]), prior, images)
    assert [picture.name for picture in plan.pictures] == ["a.png", "b.PNG", "more/c.jpg"]
    # 3 pictures, 2 seeds: ddnm under 2 masks and the operator, replacement under the masks alone.
    assert plan.num_cells == len(keys(plan)) == len(set(keys(plan))) == 3 * 2 * 5
    assert [(left.name, left.operator) for left in plan.skipped] == [("replacement", "downsampling:factor=2")]
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan and keys(Plan.read(tmp_path)) == keys(plan)


def test_keys_change_with_what_samples_depend_on_and_with_nothing_else(prior: Prior, images: Path) -> None:
    base = set(keys(make_plan(grid(), prior, images)))
    assert set(keys(make_plan(grid(methods=["replacement", "X = ddnm:steps=3"]), prior, images))) == base
    assert set(keys(make_plan(grid(pictures=2), prior, images))) < base
    for other in (
        grid(methods=["ddnm:steps=4", "replacement:steps=50"]),
        grid(masks=["left"]),
        grid(seeds=[1]),
        grid(samples=9),
        grid(sigma_y=0.1),
    ):
        assert not base & set(keys(make_plan(other, prior, images)))
    (images / "a.png").rename(images / "zzz.png")
    assert set(keys(make_plan(grid(), prior, images))) == base
    Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save(images / "zzz.png")
    assert len(base & set(keys(make_plan(grid(), prior, images)))) == 4
    prior.hash = "other files"
    assert not base & set(keys(make_plan(grid(), prior, images)))


def test_modes_decide_what_the_method_does_not(prior: Prior, images: Path) -> None:
    methods = ["dps", "repaint:resamplings=7", "vipaint", "smc"]
    prior.shape = (1, None, None)

    def settings_in(mode: str) -> dict[str, dict[str, Any]]:
        plan = make_plan(grid(methods=methods, settings=mode), prior, images, size=32)
        return {method.name: method.settings for method in plan.methods}

    planned = {mode: settings_in(mode) for mode in ("reference", "default", "budget=60")}
    for name, given in (("dps", {}), ("repaint", {"resamplings": 7}), ("vipaint", {}), ("smc", {})):
        default = solver(name, **given).settled(prior, (1, 32, 32), True)
        assert planned["default"][name] == settings_of(default)
        assert planned["reference"][name] == settings_of(solver(name, preset="reference", **given))
        assert planned["budget=60"][name] == settings_of(at_budget(default, 60, 10, fixed=given))
    assert planned["reference"]["dps"]["steps"] == 1000 and planned["budget=60"]["dps"]["steps"] == 60


def test_what_a_method_leaves_to_the_problem_is_decided_in_the_plan(prior: Prior, images: Path) -> None:
    prior.shape = (1, None, None)
    asked = grid(methods=["vipaint"], operators=["downsampling:factor=2"])
    plan = make_plan(asked, prior, images, size=32)
    settings = {cell.problem.condition.case: cell.method.settings["preset"] for cell in plan.cells()}
    known = {mask: solver("vipaint").settled(prior, (1, 32, 32), mask) for mask in (True, False)}
    assert settings == {"half": settings_of(known[True])["preset"], "downsampling:factor=2": "exact"}
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_one_method_under_two_labels_runs_once(prior: Prior, images: Path) -> None:
    plan = make_plan(grid(methods=["A = ddnm:steps=3", "B = ddnm:steps=03", "C = ddnm:steps=4"]), prior, images)
    assert [method.label for method in plan.methods] == ["A", "C"]
    assert [(left.name, left.error) for left in plan.skipped] == [("B", "here its settings are those of A.")]


def test_a_method_that_a_budget_does_not_allow_is_left_out(prior: Prior, images: Path) -> None:
    plan = make_plan(grid(methods=["ddnm", "vipaint:iterations=100"], settings="budget=50"), prior, images)
    assert [method.label for method in plan.methods] == ["ddnm"] and plan.num_cells == 3
    assert plan.skipped[0].name == "vipaint:iterations=100" and "more than the budget of 50." in plan.skipped[0].error


def test_what_cannot_be_read_or_is_there_twice_is_left_out_with_its_reason(prior: Prior, images: Path) -> None:
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:50])
    (images / "empty.jpg").write_bytes(b"")
    shutil.copy(images / "a.png", images / "twin.png")
    plan = make_plan(grid(), prior, images)
    assert [picture.name for picture in plan.pictures] == ["a.png", "b.PNG", "more/c.jpg"]
    reasons = {left.name: left.error for left in plan.left_out}
    assert set(reasons) == {"broken.png", "empty.jpg"} and "not a picture" in reasons["empty.jpg"]
    assert [left.error for left in plan.repeated] == ["twin.png is the same picture as a.png."]


def test_a_method_with_lpips_in_its_loss_takes_the_weights_of_the_run(
    prior: Prior, images: Path, tmp_path: Path
) -> None:
    asked = grid(methods=["ddnm", "With = vipaint:perceptual=<lpips>"])
    without = make_plan(asked, prior, images)
    assert [one.label for one in without.methods] == ["ddnm"] and "--lpips FILE" in without.skipped[0].error

    def keys_with(name: str, content: bytes) -> set[str]:
        (tmp_path / name).write_bytes(content)
        plan = make_plan(asked, prior, images, lpips=tmp_path / name)
        assert plan.methods[1].settings["perceptual"] == str(tmp_path / name)
        return set(keys(plan))

    assert keys_with("a", b"1") == keys_with("b", b"1") != keys_with("a", b"2")
    with pytest.raises(UsageError, match="no method can run; With: its loss needs"):
        make_plan(grid(methods=["With = vipaint:perceptual=<lpips>"]), prior, images)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"methods": ["nosuch"]}, "there is no method 'nosuch'; the methods are"),
        ({"methods": ["ddnm:stepz=3"]}, "ddnm has no setting 'stepz'"),
        ({"methods": ["ddnm:steps=-3"]}, "not valid"),
        ({"methods": ["dps:t_init=0.5"]}, "starts from noise"),
        ({"masks": ["nosuch"]}, "no kind of masks 'nosuch'; the kinds are"),
        ({"masks": [], "operators": ["nosuch"]}, "there is no operator 'nosuch'"),
        ({"masks": [], "operators": ["downsampling:factor=3"]}, "3"),
        ({"operators": ["grayscale"]}, "3 channels"),
        ({"operators": ["jpeg", "x = jpeg"], "methods": ["dps"]}, "two operators are the same under two labels"),
        ({"operators": ["half = downsampling:factor=2"]}, "'half' is the name of masks"),
        ({"operators": ["inpainting"]}, "name kinds of masks"),
        ({"methods": ["replacement"], "masks": [], "operators": ["downsampling:factor=2"]}, "no method can run"),
        ({"methods": ["vipaint"], "settings": "budget=1"}, "no method can run; vipaint: VIPaint"),
    ],
)
def test_nonsense_is_refused(prior: Prior, images: Path, values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_plan(grid(**values), prior, images)
    assert said in str(caught.value)


def test_folders_without_pictures_are_refused(prior: Prior, images: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for folder, said in (("none", "no picture in"), ("nosuch", "no folder")):
        with pytest.raises(UsageError, match=said):
            make_plan(grid(), prior, tmp_path / folder)
    (tmp_path / "none" / "a.png").write_bytes(b"x")
    with pytest.raises(UsageError, match="no picture in .* can be read; .*a.png"):
        make_plan(grid(), prior, tmp_path / "none")


def test_sizes_and_labels_that_the_prior_does_not_have_are_refused(prior: Prior, images: Path) -> None:
    with pytest.raises(UsageError, match="works on 16 x 16 pixels; leave --size out"):
        make_plan(grid(), prior, images, size=32)
    with pytest.raises(UsageError, match="knows no classes"):
        make_plan(grid(), prior, images, label=3)
    prior.shape = (1, None, None)
    with pytest.raises(UsageError, match="choose one with --size"):
        make_plan(grid(), prior, images)
    assert make_plan(grid(), prior, images, size=24).shape == (1, 24, 24)


def test_the_class_of_a_picture_is_that_of_its_folder(prior: Prior, images: Path, tmp_path: Path) -> None:
    def labels(*folders: str) -> list[int | None]:
        root = tmp_path / "-".join(folders)
        for folder, name in zip(folders, ("a.png", "b.PNG", "more/c.jpg"), strict=False):
            (root / folder).mkdir(parents=True)
            shutil.copy(images / name, root / folder)
        return [picture.label for picture in make_plan(grid(), prior, root, label="folder").pictures]

    prior.classes = 3
    assert labels("cat", "dog", "emu") == [0, 1, 2]
    assert labels("0", "2") == [0, 2]
    with pytest.raises(UsageError, match="3 classes.* has 2"):
        labels("cat", "dog")
    assert {picture.label for picture in make_plan(grid(), prior, images, label=2).pictures} == {2}
    with pytest.raises(UsageError):
        make_plan(grid(), prior, images, label=3)
