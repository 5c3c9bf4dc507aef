"""Memory: what is measured, and what is made of a limit."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint import NetworkPrior, UsageError, inpaint, solver
from priorpaint.diffusion.schedules import VP
from priorpaint.errors import show_bytes
from priorpaint.inpainting.memory import CallBytes, Footprint, measure, parse_bytes, plan_for, plan_memory
from priorpaint.priors.latent import LatentPrior
from priorpaint.priors.recompute import RecomputePrior
from priorpaint.solvers.base import Graph
from tests.latent_toy import Curved

ROOM = Footprint(1000, 1, CallBytes(100, 20), CallBytes(50, 40), CallBytes(30, 10))


class Net(torch.nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(channels, 16, 3, padding=1)
        self.second = torch.nn.Conv2d(16, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.second(torch.nn.functional.silu(self.first(x)))  # type: ignore[no-any-return]


class Pixels(NetworkPrior):
    def parameters(self):  # type: ignore[no-untyped-def]
        return self.network.parameters()  # type: ignore[union-attr]


def pixels() -> Pixels:
    return Pixels(Net(3), VP(), (3, None, None), name="net")


def test_needs() -> None:
    assert ROOM.needs(4, None, checkpoint=False) == 1000 + 4 + 4 * 40
    assert ROOM.needs(4, None, checkpoint=False, autoencoder_rows=1) == 1000 + 4 + max(4 * 20, 40)
    graph = Graph(3, 1, 1)
    assert ROOM.needs(4, graph, checkpoint=False) == 1000 + 4 + 4 * (3 * 100 + 50 + 30) + 4 * 40
    assert ROOM.needs(4, graph, checkpoint=True) == 1000 + 4 + 4 * 120
    assert ROOM.needs(4, graph, checkpoint=True, autoencoder_rows=1) == 1000 + 4 + 4 * 120


def test_the_fastest_settings_below_the_limit() -> None:
    graph = Graph(3, 1)
    plans = [plan_memory(limit, ROOM, rows=4, graph=graph) for limit in (10**6, 2300, 1700, 1300, 1150)]
    assert [(plan.rows, plan.checkpoint, plan.autoencoder_rows) for plan in plans] == [
        (4, False, None),
        (2, False, None),
        (1, False, None),
        (2, True, None),
        (1, True, None),
    ]
    assert all(plan.expected <= limit for plan, limit in zip(plans, (10**6, 2300, 1700, 1300, 1150), strict=True))
    with pytest.raises(UsageError, match="even one sample at a time"):
        plan_memory(1100, ROOM, rows=4, graph=graph)


def test_without_gradients_there_is_nothing_to_compute_again() -> None:
    plan = plan_memory(1100, ROOM, rows=4, graph=None)
    assert (plan.rows, plan.checkpoint, plan.autoencoder_rows) == (4, False, 1)
    assert plan_memory(10**6, ROOM, rows=4, graph=None).autoencoder_rows is None
    with pytest.raises(UsageError):
        plan_memory(1010, ROOM, rows=4, graph=None)


@pytest.mark.parametrize("limit", range(1150, 4000, 95))
def test_a_larger_limit_never_slows_down(limit: int) -> None:
    """Rows and graphs only grow with the limit, within each way of working."""
    before, after = (plan_memory(some, ROOM, rows=8, graph=Graph(2, 1, 1)) for some in (limit, limit + 500))
    assert before.checkpoint or not after.checkpoint
    assert after.rows >= before.rows or before.checkpoint


def test_plans_change_the_prior_only_where_they_must() -> None:
    prior = pixels()
    assert plan_memory(10**6, ROOM, rows=2, graph=Graph(1)).applied(prior) is prior
    low = plan_memory(1150, ROOM, rows=2, graph=Graph(3, 1)).applied(prior)
    assert isinstance(low, RecomputePrior) and low.checkpoint


def test_measured_bytes() -> None:
    """The graph of two convolutions and a SiLU: two inputs, and what the SiLU saw; 4 bytes a number."""
    prior = pixels()
    room = measure(prior, 16, 16)
    weights = 4 * sum(p.numel() for p in prior.network.parameters())  # type: ignore[union-attr]
    assert room.weights == weights
    assert room.network.saved == pytest.approx(4 * 256 * (3 + 16 + 16), rel=0.25)
    assert room.network.peak >= 4 * 256 * (16 + 16)
    assert measure(prior, 32, 32).network.saved == pytest.approx(4 * room.network.saved, rel=0.1)
    assert measure(prior, 16, 16, gradient=False).network.saved == 0
    assert room.decoder == room.encoder == CallBytes() and prior.nfe.forward == prior.nfe.backward == 0


def test_measured_bytes_of_a_codec() -> None:
    prior = LatentPrior(NetworkPrior(Net(4), VP(), (4, None, None)), Curved())
    room = measure(prior, 16, 16)
    assert room.decoder.saved > 0 and room.encoder.saved > 0 and room.decoder.peak >= 4 * 3 * 256
    plan = plan_for(parse_bytes("1GB"), prior, solver("psld"), height=16, width=16, rows=8)
    assert (plan.rows, plan.checkpoint) == (8, False)
    assert solver("psld").graph == Graph(1, 1, 1) and solver("psld", gamma=0).graph == Graph(1, 1, 0)
    assert solver("vipaint", levels=4).graph == Graph(5, 1) and solver("mmps").graph == Graph(1, 1)
    assert solver("pigdm").graph == Graph(1, 0)


def test_amounts() -> None:
    assert parse_bytes("4GB") == 4 * 10**9 and parse_bytes("1.5 MiB") == 1572864 and parse_bytes(77) == 77
    assert show_bytes(2_340_000_000) == "2.3 GB" and show_bytes(5_100_000) == "5 MB"
    assert show_bytes(1000) == "1 kB"
    for text in ("", "4 apples", "-1GB", "0", "GB"):
        with pytest.raises(UsageError, match="4GB or 800MB"):
            parse_bytes(text)


def test_a_limit_changes_no_completion() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    mask = np.zeros((32, 32), bool)
    mask[10:20, 10:20] = True
    prior = pixels()
    free = inpaint(image, mask, prior, "dps", num_samples=3, steps=3)
    room = measure(prior, *prior_window(free))
    limit = room.weights + room.row + room.network.saved // 2 + room.network.saved + room.network.peak
    tight = inpaint(image, mask, prior, "dps", num_samples=3, steps=3, max_memory=limit)
    assert tight.info["call"]["batch_size"] == 1 and tight.info["call"]["max_memory"] == limit
    for a, b in zip(free.images, tight.images, strict=True):
        assert np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max() <= 1
    with pytest.raises(UsageError, match="even one sample at a time"):
        inpaint(image, mask, prior, "dps", num_samples=3, steps=3, max_memory="2kB")


def prior_window(result: object) -> tuple[int, int]:
    _, _, width, height = result.info["windows"][0]["box"]  # type: ignore[attr-defined]
    return height, width


def test_measuring_does_not_import_torchs_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take longer than most runs."""
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    assert measure(pixels(), 16, 16).network.peak > 0
