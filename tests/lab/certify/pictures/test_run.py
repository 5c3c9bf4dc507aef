"""The picture suite from the registry's methods to tables and sheets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from priorpaint import CancelToken, UsageError
from priorpaint.cli import app
from priorpaint.cli.certify_options import CertifyOptions
from priorpaint.cli.certify_pictures import run
from priorpaint.cli.progress import CellDisplay
from priorpaint.diffusion.schedules import EDM
from priorpaint.imaging.mask_kinds import MASK_KINDS
from priorpaint.lab.avatars.prior import ExactAvatars
from priorpaint.lab.certify.pictures.report import markdown, save
from priorpaint.lab.certify.pictures.run import PictureReport, certify_pictures
from priorpaint.lab.certify.pictures.sheet import sheet_file
from priorpaint.lab.certify.pictures.subject import KNOWN, TRUTH
from priorpaint.lab.certify.results import DONE, NOT_APPLICABLE
from priorpaint.metrics import LPIPS
from priorpaint.priors.base import DenoiserPrior


@pytest.fixture(scope="module")
def report() -> PictureReport:
    methods = ["ddnm", "replacement", "smc"]
    return certify_pictures(ExactAvatars(), methods, ["mouth"], budget=16, pictures=2, num_samples=4)


def test_cells_count_what_ran_and_what_cannot_run_says_why(report: PictureReport) -> None:
    ddnm, smc = report.cell("ddnm", "mouth"), report.cell("smc", "mouth")
    assert ddnm is not None and smc is not None
    assert ddnm.status == DONE and ddnm.forward == 16 and ddnm.backward == 0 and ddnm.settings["steps"] == 16
    assert ddnm.measures is not None and ddnm.measures.valid > 0.5 and ddnm.measures.visible == 0
    assert smc.status == NOT_APPLICABLE and "whole Jacobian" in smc.note


def _grey(side: int) -> DenoiserPrior:
    return DenoiserPrior(lambda x_t, t: torch.zeros_like(x_t), EDM(), (3, side, side))


def test_a_prior_of_larger_pictures_sees_the_same_problem() -> None:
    """Pictures and masks are enlarged for it and completions shrunk: what is known comes back, and only that."""
    for side in (32, 64):
        report = certify_pictures(_grey(side), ["ddnm"], ["mouth"], budget=4, pictures=2, num_samples=2)
        (cell,) = report.cells
        assert cell.status == DONE and cell.measures is not None, cell.note
        assert cell.measures.visible == 0
        samples, truth, known = (report.shown["mouth"][name] for name in ("ddnm", TRUTH, KNOWN))
        assert samples.shape == (2, 2, 3, 32, 32)
        hidden = known == 0
        torch.testing.assert_close(torch.where(hidden, 0, samples), torch.where(hidden, 0, truth).expand_as(samples))
        assert float(samples[hidden.expand_as(samples)].abs().mean()) < 0.1
    with pytest.raises(UsageError, match="32 x 32 or 64 x 64 pixels"):
        certify_pictures(_grey(96), ["ddnm"], ["left"], pictures=1, num_samples=2)


def test_reports_survive_json(report: PictureReport) -> None:
    again = PictureReport.from_json(report.to_json())
    assert again.to_json() == report.to_json() and again.masks == ["mouth"]
    ddnm, floor = again.cell("ddnm", "mouth"), again.floors["mouth"]
    assert ddnm is not None and ddnm.measures.tv_noise is None and floor.tv_noise > 0 and floor.score_noise > 0
    with pytest.raises(UsageError, match="not a report of pictures"):
        PictureReport.from_json("[]")


def test_runs_are_reproducible_and_merge(report: PictureReport) -> None:
    again = certify_pictures(ExactAvatars(), ["ddnm"], ["mouth"], budget=16, pictures=2, num_samples=4, batch_size=3)
    new, old = again.cell("ddnm", "mouth"), report.cell("ddnm", "mouth")
    assert new is not None and old is not None and new.measures == old.measures
    assert len(report.merged(again).cells) == 3
    more = certify_pictures(ExactAvatars(), ["ddnm"], ["mouth"], budget=2, pictures=1, num_samples=4)
    assert [cell.pictures for cell in report.merged(more).cells] == [1]  # the floor of two pictures is gone
    others = replace(report, cells=tuple(replace(cell, weights="a" * 64) for cell in report.cells))
    mixed = others.merged(again)
    assert [cell.weights for cell in mixed.cells] == [""]  # rows of other weights are gone
    assert "weights aaaaaaaaaaaa." in markdown(others) and ", weights" not in markdown(mixed)
    vgg, alex = (
        replace(report, cells=tuple(replace(cell, lpips=net) for cell in report.cells)) for net in ("VGG16", "AlexNet")
    )
    assert {cell.lpips for cell in vgg.merged(alex).cells} == {"AlexNet"}  # distances of two networks do not compare
    assert len(vgg.merged(again).cells) == 3
    assert "LPIPS with VGG16." in markdown(vgg) and "LPIPS with" not in markdown(report)
    eyes = replace(more, floors={"eyes": more.floors["mouth"]}, cells=(replace(more.cells[0], mask="eyes"),))
    both = report.merged(eyes)
    assert len(both.cells) == 4
    assert "2 pictures, 4 completions" in markdown(both) and "1 picture, 4 completions" in markdown(both)


@pytest.mark.parametrize(("convolutions", "network"), [(5, "AlexNet"), (13, "VGG16")])
def test_the_page_names_the_network_whose_weights_were_given(convolutions: int, network: str) -> None:
    """Two channels a layer, so that no file is needed."""
    weights = {f"conv{i}.bias": torch.zeros(2) for i in range(convolutions)}
    for i in range(convolutions):
        kernel = (11, 5, 3, 3, 3)[i] if network == "AlexNet" else 3
        weights[f"conv{i}.weight"] = torch.ones(2, 2 if i else 3, kernel, kernel) / kernel**2
    weights |= {f"lin{i}.weight": torch.ones(1, 2, 1, 1) for i in range(5)}
    size = {"budget": 2, "pictures": 1, "num_samples": 2}
    report = certify_pictures(ExactAvatars(), ["replacement"], ["mouth"], **size, lpips=LPIPS(weights))
    assert report.cells[0].lpips == network and report.cells[0].measures.lpips is not None
    page = markdown(report)
    assert f"LPIPS with {network}." in page and page.count("AlexNet") + page.count("VGG16") == 1


def test_page_and_sheets(report: PictureReport, tmp_path: Path) -> None:
    files = save(report, tmp_path, command="priorpaint certify --suite pictures")
    assert {path.name for path in files} == {"pictures-avatars.json", "pictures.md", sheet_file("avatars", "mouth")}
    page = markdown(report)
    assert "| exact samples | 1.000 |" in page and "| ddnm |" in page and "smc: not applicable" in page
    noisy = [line.startswith("| exact samples |") for line in page.splitlines() if " ± " in line and line[0] == "|"]
    assert noisy == [True]  # of a method there is one run only
    with Image.open(tmp_path / sheet_file("avatars", "mouth")) as picture:
        assert picture.width > 132 and picture.height > 4 * 64
        # The truth of the second picture stands over its four samples; nothing but paper is beside the first's.
        first, second, middle = 132 + 2 * 68 + 32, 132 + 4 * 68 + 8 + 32, 32
        assert picture.getpixel((first, middle)) == (255, 255, 255) != picture.getpixel((first, middle + 68 + 8))
        truth = report.shown["mouth"]["truth"][1, 0, :, 16, 16]
        hidden = picture.getpixel((132 + 68 + 32, 2 * 21))  # row 21 is in the mouth: grey
        assert hidden == (128, 128, 128) and picture.getpixel((132 + 68 + 32, 2)) != hidden
        assert picture.getpixel((second, middle)) == tuple(((truth + 1) * 127.5).round().int().tolist())


def test_an_update_keeps_the_strips_of_methods_that_do_not_run_again(report: PictureReport, tmp_path: Path) -> None:
    file = tmp_path / sheet_file("avatars", "mouth")

    def strip(name: str) -> bytes:
        with Image.open(file) as page:
            [(top, width, height)] = [place[1:] for place in json.loads(page.info["strips"]) if place[0] == name]
            return page.crop((132, top, 132 + width, top + height)).tobytes()

    save(report, tmp_path)
    before = strip("ddnm"), strip("replacement")
    again = certify_pictures(ExactAvatars(), ["repaint"], ["mouth"], budget=16, pictures=2, num_samples=4)
    save(report.merged(again), tmp_path)
    assert (strip("ddnm"), strip("replacement")) == before and strip("repaint") not in before
    save(again, tmp_path)  # nothing is kept
    with Image.open(file) as page:
        assert [name for name, *_ in json.loads(page.info["strips"])] == ["truth, known", "exact samples", "repaint"]
    file.write_text("no picture")
    with pytest.raises(UsageError, match="cannot be read as a picture"):
        save(report.merged(again), tmp_path)


def test_reports_of_several_priors_share_a_page(report: PictureReport, tmp_path: Path) -> None:
    other = replace(report, setup={**report.setup, "prior": "my/avatars 2"})
    assert report.name == "avatars" and other.name == "avatars-my-avatars-2"
    for each in (other, report):
        files = save(each, tmp_path)
    assert {path.name for path in files} == {"pictures-avatars.json", "pictures.md", sheet_file("avatars", "mouth")}
    assert (tmp_path / sheet_file(other.name, "mouth")).is_file()
    titles = [line for line in (tmp_path / "pictures.md").read_text("utf-8").splitlines() if line.startswith("## ")]
    assert titles == ["## Avatars", "## Avatars with the prior my/avatars 2"]


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1 picture"):
        certify_pictures(ExactAvatars(), ["ddnm"], ["left"], pictures=0)


def test_command_line(tmp_path: Path) -> None:
    arguments = "certify --suite pictures --mask eyes --pictures 1 --samples 2 --budget 4 --method ddnm --quiet".split()
    done = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "pictures-avatars.json").is_file() and "exact samples" in done.stdout
    assert CliRunner().invoke(app, ["certify", "--mask", "eyes"]).exit_code != 0
    assert CliRunner().invoke(app, ["certify", "--suite", "films"]).exit_code != 0


def _command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    arguments = ["certify", "--suite", "pictures", "--quiet", *words]
    monkeypatch.setattr("sys.argv", ["priorpaint", *arguments])
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output


def test_again_runs_what_the_files_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = ["--pictures", "1", "--samples", "2", "-o", str(tmp_path)]
    _command(monkeypatch, *size, "--mask", "eyes", "--budget", "4", "--method", "ddnm")
    words = ["--mask", "mouth", "--budget", "6", "--method", "ddnm", "--method", "repaint:resamplings=2", "--update"]
    _command(monkeypatch, *size, *words)
    before = json.loads((tmp_path / "pictures-avatars.json").read_text())
    sheets = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    _command(monkeypatch, "--again", "-o", str(tmp_path))
    after = json.loads((tmp_path / "pictures-avatars.json").read_text())
    assert [len(data["cells"]) for data in (before, after)] == [3, 3] and len(sheets) == 2
    for old, new in zip(before["cells"], after["cells"], strict=True):
        assert "--again" in new["command"] and "--again" not in old["command"]
        assert str(tmp_path) not in old["command"] and f"-o {tmp_path.name}" in old["command"]
        own = {"command", "seconds"}
        assert {name: new[name] for name in new if name not in own} == {k: old[k] for k in old if k not in own}
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.png")} == sheets


def test_again_needs_files_that_say_everything(report: PictureReport, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        done = CliRunner().invoke(app, ["certify", "--suite", "pictures", "--quiet", "--again", *words])
        assert isinstance(done.exception, UsageError)
        return str(done.exception)

    folder = ["-o", str(tmp_path)]
    assert "name the folder" in refused() and "leave methods" in refused(*folder, "--mask", "eyes")
    assert "there is no pictures-*.json" in refused(*folder)
    save(report, tmp_path)
    assert "does not say how its prior" in refused(*folder)
    measured = [replace(c, measures=replace(c.measures, lpips=0.1)) for c in report.cells if c.measures is not None]
    setup = {**report.setup, "asked_prior": "exact"}
    save(replace(report, cells=tuple(measured), setup=setup), tmp_path)
    assert "name its weights with --lpips" in refused(*folder)


def test_each_mask_is_saved_when_it_is_finished(tmp_path: Path) -> None:
    class Interrupted(CellDisplay):
        def advance(self, done: int, total: int, sentence: str) -> None:
            assert total == 2
            if done == 2:
                raise KeyboardInterrupt

    asked = {"method": ["ddnm"], "mask": ["eyes", "mouth"], "budget": [4], "pictures": 1, "samples": 2}
    options = CertifyOptions(**asked, suite="pictures", subject="avatars", out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(options, "", Interrupted(quiet=True), CancelToken())
    stored = PictureReport.from_json((tmp_path / "pictures-avatars.json").read_text())
    assert [cell.mask for cell in stored.cells] == ["eyes"]


def test_a_token_that_is_cancelled_keeps_the_cells_that_are_finished() -> None:
    cancel, prior = CancelToken(), ExactAvatars()

    def told(done: int, total: int, cell: object) -> None:
        assert (done, total) == (1, 4)
        cancel.cancel()

    kept = certify_pictures(
        prior, ["ddnm", "replacement"], ["mouth", "left"], budget=2, pictures=1, num_samples=2, report=told,
        cancel=cancel,
    )  # fmt: skip
    assert [(cell.method, cell.mask, cell.status) for cell in kept.cells] == [("ddnm", "mouth", DONE)]


def test_the_masks_are_listed() -> None:
    listed = CliRunner().invoke(app, ["certify", "--suite", "pictures", "--list"]).stdout.splitlines()
    assert len(listed) == len(MASK_KINDS) + 2
    assert listed[0].startswith("rotated") and listed[0].endswith("(avatars, fashion)")
    assert listed[-1].startswith("mouth") and listed[-1].endswith("(avatars)")


@pytest.mark.parametrize("words", [["--draws", "2"], ["--workers", "2"], ["--no-calibration"], ["--no-figures"]])
def test_options_of_the_standard_suite_are_refused(words: list[str]) -> None:
    done = CliRunner().invoke(app, ["certify", "--suite", "pictures", *words])
    assert isinstance(done.exception, UsageError) and "belong to the standard suite" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--subject", "films"], "subjects of the picture suite are avatars and fashion"),
        (["--subject", "all", "--prior", "exact"], "no prior knows all subjects"),
        (["--subject", "fashion", "--prior", "exact"], "only avatars have an exact denoiser"),
        (["--mask", "eyes", "--mask", "nose"], "avatars have no mask 'nose'; theirs are rotated"),
        (["--data", "somewhere"], "--data is the folder of Fashion-MNIST"),
    ],
)
def test_subjects_at_the_command_line(words: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["certify", "--suite", "pictures", "--quiet", *words])
    assert isinstance(done.exception, UsageError) and message in str(done.exception)
    elsewhere = CliRunner().invoke(app, ["certify", *words])
    assert isinstance(elsewhere.exception, UsageError) and "belong to --suite pictures" in str(elsewhere.exception)


def test_an_update_keeps_cells_and_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def certify(*words: str) -> str:
        arguments = ["certify", *"--suite pictures --mask mouth --pictures 1 --samples 2 --quiet -o".split()]
        arguments += [str(tmp_path), *words]
        monkeypatch.setattr("sys.argv", ["priorpaint", *arguments])
        assert CliRunner().invoke(app, arguments).exit_code == 0
        return (tmp_path / "pictures.md").read_text()

    certify("--budget", "4", "--method", "ddnm")
    page = certify("--budget", "4", "--method", "replacement", "--update")
    stored = json.loads((tmp_path / "pictures-avatars.json").read_text())
    assert [cell["method"] for cell in stored["cells"]] == ["ddnm", "replacement"]
    assert all(f"--method {cell['method']}" in cell["command"] for cell in stored["cells"])
    assert page.count("--method ddnm") == 1
    # Another budget makes another table; a command none of whose rows are left goes with them.
    page = certify("--budget", "8", "--method", "repaint", "--update")
    assert "--method ddnm" not in page and "8 network evaluations a completion. Made by `priorpaint certify" in page
