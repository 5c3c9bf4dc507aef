"""Half hidden avatars, completed with the embedded network: VIPaint before the methods that it is compared with."""

from __future__ import annotations

import pytest

from priorpaint import load_prior
from priorpaint.lab.certify.pictures.avatars import score
from priorpaint.lab.certify.pictures.run import PictureReport, certify_pictures

pytestmark = pytest.mark.slow

VIPAINT = ("vipaint:preset=langevin,levels=2", "vipaint:preset=langevin,levels=4")
RIVALS = ("dps", "repaint", "reddiff")


@pytest.fixture(scope="module", params=["left", "rotated"])
def report(request: pytest.FixtureRequest) -> PictureReport:
    prior = load_prior("avatars", device="cpu")
    return certify_pictures(prior, [*VIPAINT, *RIVALS], [request.param], budget=100, pictures=24, num_samples=24)


def test_vipaint_is_valid_and_covers_more_than_its_rivals(report: PictureReport) -> None:
    scores = {cell.method: score(cell.measures) for cell in report.cells}
    assert min(scores[name] for name in VIPAINT) > max(scores[name] for name in RIVALS)
    assert all(cell.forward + cell.backward <= 100 for cell in report.cells)


def test_parts_come_as_often_as_they_should(report: PictureReport) -> None:
    """The bar on total variation: twice the floor and 0.05."""
    (floor,) = report.floors.values()
    assert min(cell.measures.tv for cell in report.cells if cell.method in VIPAINT) < 2 * floor.tv + 0.05
