"""Problem F32: what truth and garbage score, and the suite from a weights file to tables."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from priorpaint.cli import app
from priorpaint.diffusion.schedules import EDM
from priorpaint.errors import UsageError
from priorpaint.lab.certify.pictures.fashion import FASHION, FashionCase, FashionMeasures
from priorpaint.lab.certify.pictures.report import json_file, save
from priorpaint.lab.certify.pictures.run import PictureReport, certify_pictures
from priorpaint.lab.certify.pictures.sheet import sheet_file
from priorpaint.lab.certify.results import DONE
from priorpaint.priors.base import DenoiserPrior
from priorpaint.priors.loading import load_prior
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "data" / "fashion-mnist"


@pytest.fixture(scope="module")
def case(folder: Path) -> FashionCase:
    return FashionCase.draw("left", 48, folder=folder)


def test_pictures_and_masks_do_not_depend_on_their_number(case: FashionCase, folder: Path) -> None:
    few = FashionCase.draw("left", 5, folder=folder)
    assert torch.equal(few.x, case.x[:5]) and torch.equal(few.labels, case.labels[:5])
    assert len({tuple(row.tolist()) for row in case.x.flatten(1)}) == 48
    assert not torch.equal(FashionCase.draw("left", 5, seed=1, folder=folder).x, few.x)


def test_the_truth_is_valid_and_of_its_class(case: FashionCase) -> None:
    """96 % of real pictures are valid and 91 % get their class: 48 stay above these less four standard errors."""
    floor = case.floor(3)
    assert floor.valid >= 0.84 and floor.agree >= 0.74
    assert floor.entropy == 0 and floor.diversity == 0 and floor.visible == 0 and floor.lpips is None


def test_garbage_in_the_hidden_part_is_not_valid_and_far_away(case: FashionCase) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(48, 3, 1, 32, 32, generator=generator) * 2 - 1
    samples = torch.where(case.known[:, None] > 0.5, case.x[:, None], noise)
    found, floor = case.measure(samples), case.floor(3)
    assert found.valid < 0.1 and found.frechet > 3 * floor.frechet and found.visible == 0
    # uniform on [-1, 1] has the standard deviation 3^-1/2; that of three draws is 0.54 on average
    assert found.diversity == pytest.approx(0.54, abs=0.02)


def test_measures_are_those_of_composites(case: FashionCase) -> None:
    """What a method does to known pixels shows in ``visible`` alone."""
    right = case.x[:, None].expand(-1, 2, -1, -1, -1)
    wrong = torch.where(case.known[:, None] > 0.5, (right * 0).add(-0.5), right)
    found = case.measure(wrong)
    assert replace(found, visible=0.0) == case.floor(2) and found.visible > 0.3


def test_entropy_counts_classes(folder: Path) -> None:
    """With nothing known, two completions of two classes are one bit, whatever the picture."""
    case = FashionCase.draw("left", 1, folder=folder)
    case = replace(case, known=torch.zeros_like(case.known))
    pool = FashionCase.draw("left", 60, seed=9, folder=folder)
    kinds = [pool.x[int((pool.labels == label).nonzero()[0])] for label in (1, 7)]  # a trouser and a sneaker
    assert case.measure(torch.stack([kinds[0], kinds[1]])[None]).entropy == pytest.approx(1)
    assert case.measure(torch.stack([kinds[0], kinds[0]])[None]).entropy == 0


def test_lpips_sees_colour_twice_enlarged(case: FashionCase) -> None:
    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        assert a.shape[1:] == b.shape[1:] == (3, 64, 64)
        return (a - b).abs().mean((1, 2, 3))

    shifted = torch.where(case.known > 0.5, case.x, (case.x + 0.25).clamp(max=1))[:, None]
    expected = float((shifted[:, 0] - case.x).abs().mean())
    assert case.measure(shifted.expand(-1, 2, -1, -1, -1), distance).lpips == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_drawn(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fashion have no mask 'eyes'"):
        FashionCase.draw("eyes", 1, folder=folder)
    with pytest.raises(UsageError, match="at most as many"):
        FashionCase.draw("left", 9001, folder=folder)
    with pytest.raises(UsageError, match="dataset-fashion-mnist"):
        FashionCase.draw("left", 1, folder=tmp_path)


def black() -> DenoiserPrior:
    return DenoiserPrior(lambda x_t, t: torch.full_like(x_t, -1.0), EDM(), (1, 32, 32), name="black")


@pytest.fixture(scope="module")
def report(folder: Path) -> PictureReport:
    methods, masks = ["ddnm", "replacement"], ["left", "small"]
    return certify_pictures(
        black(), methods, masks, subject="fashion", data=folder, budget=4, pictures=3, num_samples=2
    )


def test_reports_survive_json(report: PictureReport) -> None:
    again = PictureReport.from_json(report.to_json())
    assert again.to_json() == report.to_json() and again.masks == ["left", "small"]
    assert again.subject is FASHION and again.setup["subject"] == "fashion"
    cell = again.cell("ddnm", "left")
    assert cell is not None and cell.status == DONE and isinstance(cell.measures, FashionMeasures)
    assert cell.measures.diversity < 1e-3 and isinstance(again.floors["left"], FashionMeasures)


def test_subjects_share_a_page(report: PictureReport, tmp_path: Path) -> None:
    from priorpaint.lab.avatars.prior import ExactAvatars

    avatars = certify_pictures(ExactAvatars(), ["ddnm"], ["mouth"], budget=4, pictures=1, num_samples=2)
    save(avatars, tmp_path)
    save(report, tmp_path)
    page = (tmp_path / "pictures.md").read_text()
    assert page.index("## Avatars") < page.index("## Fashion") and "| truth |" in page and "Frechet" in page
    assert (avatars.name, report.name) == ("avatars", "fashion-black")
    names = [json_file("avatars"), json_file("fashion-black")]
    names += [sheet_file("avatars", "mouth"), sheet_file("fashion-black", "left")]
    assert all((tmp_path / name).is_file() for name in names)


def test_priors_of_another_shape_are_refused(folder: Path) -> None:
    colour = DenoiserPrior(lambda x_t, t: x_t, EDM(), (3, 32, 32), name="colour")
    with pytest.raises(UsageError, match="1 channel for 32 x 32 pixels"):
        certify_pictures(colour, ["ddnm"], ["left"], subject="fashion", data=folder, pictures=1, num_samples=2)


def test_command_line_with_a_network_of_classes(folder: Path, tmp_path: Path) -> None:
    weights = tmp_path / "tiny.safetensors"
    network = UNet(UNetConfig((8, 8), (1, 1), 8, in_channels=1, classes=10), seed=0)
    save_weights(weights, network, WeightsMetadata(size=(32, 32), class_names=tuple("0123456789")))
    assert load_prior(weights, device="cpu").image_shape == (1, 32, 32)
    words = "certify --suite pictures --subject fashion --mask top --pictures 2 --samples 2 --budget 4"
    arguments = [
        *words.split(),
        "--method",
        "ddnm",
        "--quiet",
        "--data",
        str(folder),
        "--prior",
        str(weights),
        "-o",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "truth" in done.stdout and "Frechet" in done.stdout
    found = PictureReport.from_json((tmp_path / "out" / "pictures-fashion-tiny.json").read_text())
    cell = found.cell("ddnm", "top")
    assert cell is not None and cell.status == DONE and cell.forward == 4 and cell.measures.visible < 1e-5
    assert cell.weights == hashlib.sha256(weights.read_bytes()).hexdigest()
