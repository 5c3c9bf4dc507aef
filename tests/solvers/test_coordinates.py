"""A method does not feel the scale of x_t: one prior in four coordinates gives the same samples."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from priorpaint import SOLVERS, Inpainting, solver
from priorpaint.diffusion.schedules import VP, Schedule
from priorpaint.priors.analytic import GaussianMixture
from tests.pinned.cases import FEW
from tests.preset_names import preset_names


class Rescaled(Schedule):
    """The levels of the linear table of 1000 betas, at its times, for x_t of another scale."""

    def __init__(self, kind: str) -> None:
        self.kind, self.table = kind, VP()

    @property
    def nsr_range(self) -> tuple[float, float]:
        return self.table.nsr_range

    def log_nsr(self, t: Tensor) -> Tensor:
        return self.table.log_nsr(t)

    def time_at(self, nsr: Tensor) -> Tensor:
        return self.table.time_at(nsr)

    def alpha(self, t: Tensor) -> Tensor:
        nsr = self.log_nsr(t).exp()
        scale = {"vp": torch.rsqrt(1 + nsr**2), "ve": torch.ones_like(nsr), "flow": 1 / (1 + nsr)}[self.kind]
        return scale.to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return (self.log_nsr(t).exp() * self.alpha(t.double())).to(t.dtype)


def prior(kind: str) -> GaussianMixture:
    """Pictures 1 x 4 x 4 of two modes with correlated noise, under one of four scales of x_t."""
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(16, 16, generator=generator, dtype=torch.float64) / 10
    means = 0.4 * torch.randn(2, 16, generator=generator, dtype=torch.float64)
    cov = mix @ mix.mT + 0.02 * torch.eye(16, dtype=torch.float64)
    return GaussianMixture([0.4, 0.6], means, cov, (1, 4, 4), VP() if kind == "table" else Rescaled(kind))


def cases() -> list[tuple[str, dict[str, Any]]]:
    """Every method with its defaults and with each of its presets."""
    out: list[tuple[str, dict[str, Any]]] = []
    for name in sorted(SOLVERS):
        out += [(name, {})] + [(name, {"preset": preset}) for preset in ("reference", *preset_names(name))]
    extras: dict[str, list[dict[str, Any]]] = {
        "dps": [{"guidance": "likelihood", "widen": True}, {"sampler": "heun"}, {"sampler": "euler_maruyama"}],
        "replacement": [{"variance": "large"}],
        "repaint": [{"variance": "large"}],
        "pigdm": [{"form": "strict"}, {"sampler": "heun"}],
        "ddnm": [{"form": "ddpm"}, {"sampler": "ddim"}],
        "langevin": [{"friction": 15.0}],
        "smc": [{"kernel": "scalar", "twist": "tmpd"}],
        "vipaint": [
            {"preset": None, "particles": 8, "num_kept": 2},
            {"correct": True, "particles": 8, "num_kept": 2},
            {"components": 2, "levels": 1},
        ],
    }
    return out + [(name, settings) for name, many in extras.items() for settings in many]


BY_INDEX = ("reference", "printed", "official-imagenet", "official-lsun")


@pytest.mark.filterwarnings("ignore:the published VIPaint adds LPIPS")
@pytest.mark.parametrize("sigma_y", [0.1, pytest.param(0.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "settings"), cases(), ids=lambda value: str(value).replace(" ", ""))
def test_the_scale_of_x_does_not_matter(name: str, settings: dict[str, Any], sigma_y: float) -> None:
    if name == "repaint_plus" and settings:
        pytest.skip("its reference gain runs away on data that are not of unit variance, and takes y for exact")
    operator = Inpainting((torch.arange(16).reshape(4, 4) % 3 > 0).float())
    y = operator(prior("table").sample(1, seed=5))
    run, kinds = solver(name, **{**FEW.get(name, {"steps": 20}), **settings}), ("table", "vp", "ve", "flow")
    out = {kind: run.sample(prior(kind), operator, y, sigma_y=sigma_y, num_samples=2, seed=7) for kind in kinds}
    assert math.isfinite(float(out["vp"].sum())) and float(out["vp"].std()) > 0
    by_index = name == "vipaint" and settings.get("preset", "") in BY_INDEX
    for kind in kinds[by_index:]:  # on a table of 1000 the levels of these are indices
        torch.testing.assert_close(out[kind], out["vp"], rtol=0, atol=1e-3, msg=lambda m, kind=kind: f"{kind}: {m}")
