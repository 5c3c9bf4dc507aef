"""Fixed-size priors on any size: identity, overlap, exactness where windows cannot err, gradients, conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import priorpaint
from priorpaint import DenoiserPrior, NetworkPrior, TiledPrior, UsageError
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.operators import Inpainting
from priorpaint.priors import NFE
from priorpaint.priors.cfg import CFGPrior
from priorpaint.priors.recompute import RecomputePrior
from priorpaint.priors.tiled import averages, starts

SIDE = 8


def shrink(schedule: Schedule, mean: float = 0.0, variance: float = 0.25) -> DenoiserPrior:
    """Independent pixels N(mean, variance): the denoiser of any part is the part of the denoiser."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        assert x_t.shape[2:] == (SIDE, SIDE) and len(t) == len(x_t)
        alpha, sigma = schedule.alpha(t)[:, None, None, None], schedule.sigma(t)[:, None, None, None]
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return (mean + gain * (x_t - alpha * mean)).to(x_t.dtype)

    return DenoiserPrior(denoise, schedule, (1, SIDE, SIDE), data_std=variance**0.5, name="white")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_own_size_is_the_prior_itself() -> None:
    prior = shrink(VP())
    x = noise(3, 1, SIDE, SIDE)
    for fit in ("windows", "resize"):
        before = prior.nfe.copy()
        assert torch.equal(TiledPrior(prior, fit).denoise(x, 0.4), prior.denoise(x, 0.4))
        assert prior.nfe - before == NFE(6, 0)


@pytest.mark.parametrize("schedule", [VP(), VE(), EDM(), Flow()])
@pytest.mark.parametrize("size", [(8, 9), (16, 8), (21, 30), (5, 8), (3, 20), (1, 1)])
def test_windows_are_exact_where_pixels_are_independent(schedule: Schedule, size: tuple[int, int]) -> None:
    prior, x = shrink(schedule, 0.3), noise(2, 1, *size)
    t = torch.tensor([0.3, 0.8], dtype=torch.float64)
    alpha, sigma = schedule.alpha(t)[:, None, None, None], schedule.sigma(t)[:, None, None, None]
    expected = 0.3 + alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (x - alpha * 0.3)
    torch.testing.assert_close(TiledPrior(prior).denoise(x, t), expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize(("length", "side"), [(8, 8), (9, 8), (12, 8), (13, 8), (100, 8), (257, 256), (1000, 64)])
def test_windows_cover_and_overlap(length: int, side: int, overlap: float) -> None:
    firsts = starts(length, side, overlap)
    assert firsts[0] == 0 and firsts[-1] == length - side and firsts == sorted(set(firsts))
    gaps = [b - a for a, b in zip(firsts[:-1], firsts[1:], strict=True)]
    assert all(gap <= side * (1 - overlap) + 1 - 1e-9 for gap in gaps)
    if overlap == 0.5:
        assert all(gap <= side // 2 for gap in gaps)


def test_neighbours_are_blended_without_a_seam() -> None:
    # Every window answers with its own mean: a step in the picture becomes a ramp, and no pixel jumps.
    prior = DenoiserPrior(lambda x, t: x.mean((1, 2, 3), keepdim=True).expand_as(x), VP(), (1, 16, 16))
    x = torch.zeros(1, 1, 16, 64)
    x[..., 32:] = 1
    out = TiledPrior(prior).denoise(x, 0.5)[0, 0]
    assert float(out[:, 0].max()) == 0 and float(out[:, -1].min()) == 1
    steps = out[0].diff()
    assert float(steps.min()) >= -1e-6 and float(steps.max()) < 0.15


def test_no_row_feels_another_and_chunks_change_nothing() -> None:
    prior = DenoiserPrior(lambda x, t: x * x.mean((1, 2, 3), keepdim=True), VP(), (1, SIDE, SIDE))
    x, t = noise(3, 1, 13, 20), torch.tensor([0.2, 0.5, 0.9])
    whole = TiledPrior(prior).denoise(x, t)
    torch.testing.assert_close(TiledPrior(prior, rows=1).denoise(x, t), whole)
    for row in range(3):
        torch.testing.assert_close(TiledPrior(prior, rows=5).denoise(x[row : row + 1], t[row]), whole[row : row + 1])


def test_evaluations_and_gradients() -> None:
    prior = shrink(VP())
    anysize = TiledPrior(prior)
    x = noise(2, 1, 12, 16).requires_grad_()  # 2 x 3 windows
    anysize.denoise(x, 0.5).sum().backward()  # type: ignore[no-untyped-call]
    assert anysize.nfe == prior.nfe == NFE(0, 12)
    alpha, sigma = VP().alpha(torch.tensor(0.5)), VP().sigma(torch.tensor(0.5))
    gain = float(alpha * 0.25 / (alpha**2 * 0.25 + sigma**2))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.full_like(x, gain))


@pytest.mark.parametrize("schedule", [VP(), EDM(), Flow()])
def test_resize_denoises_the_small_picture_at_its_own_noise(schedule: Schedule) -> None:
    prior = shrink(schedule)
    t = torch.tensor([0.2, 0.6], dtype=torch.float64)
    alpha, sigma = schedule.alpha(t)[:, None, None, None], schedule.sigma(t)[:, None, None, None]
    # Blocks of 4x4 equal pixels: averaging leaves the picture and a quarter of the noise.
    blocks = torch.kron(0.5 * noise(2, 1, SIDE, SIDE), torch.ones(4, 4)).double()
    x_t = alpha * blocks + sigma * noise(2, 1, 32, 32, seed=1)
    small = torch.nn.functional.avg_pool2d(x_t / alpha, 4)
    nsr = sigma / alpha / 4
    expected = 0.25 / (0.25 + nsr**2) * small
    out = TiledPrior(prior, "resize", detail=1e-9).denoise(x_t, t)
    up = torch.nn.functional.interpolate(expected, size=(32, 32), mode="bicubic")
    torch.testing.assert_close(out, up, rtol=1e-5, atol=1e-6)


def test_resize_keeps_a_clean_picture_and_reaches_pure_noise() -> None:
    x = noise(1, 1, 24, 40)
    out = TiledPrior(shrink(EDM()), "resize").denoise(x, 1e-5)
    torch.testing.assert_close(out, x, rtol=1e-3, atol=1e-3)
    assert bool(torch.isfinite(TiledPrior(shrink(Flow()), "resize").denoise(x, 1.0)).all())


def test_resize_lays_windows_along_the_longer_side() -> None:
    prior = shrink(VP())
    TiledPrior(prior, "resize").denoise(noise(1, 1, 32, 64), 0.5)  # 8 x 16: three windows
    assert prior.nfe.forward == 3
    TiledPrior(prior, "resize").denoise(noise(1, 1, 6, 8), 0.5)  # smaller: reflected, not enlarged
    assert prior.nfe.forward == 4


@pytest.mark.parametrize(("length", "small"), [(8, 8), (12, 4), (13, 5), (100, 7)])
def test_averages_keep_constants_and_mass(length: int, small: int) -> None:
    matrix = averages(length, small)
    torch.testing.assert_close(matrix.sum(1), torch.ones(small, dtype=torch.float64))
    torch.testing.assert_close(matrix.sum(0), torch.full((length,), small / length, dtype=torch.float64))


class Level(nn.Module):
    """x_0 of class k is k / 4 everywhere; the null class is the last."""

    def forward(self, x: Tensor, c: Tensor, labels: Tensor) -> Tensor:
        assert x.shape[2:] == (SIDE, SIDE)
        return (labels / 4)[:, None, None, None].to(x).expand_as(x)


def labelled() -> NetworkPrior:
    def embed(labels: Tensor | None, prompt: str | None) -> Mapping[str, Tensor]:
        return {"labels": torch.tensor([3]) if labels is None else labels}

    return NetworkPrior(Level(), VP(), (1, SIDE, SIDE), prediction="x0", embed=embed, classes=3)


def test_conditions_inside_and_outside() -> None:
    x = noise(2, 1, 12, 20)
    one_a_row = CFGPrior(TiledPrior(labelled()), label=[0, 2], scale=2.0).denoise(x, 0.5)
    torch.testing.assert_close(one_a_row.mean((1, 2, 3)), torch.tensor([0.75 - 1.5, 0.75 - 0.5]))
    torch.testing.assert_close(TiledPrior(CFGPrior(labelled(), label=1)).denoise(x, 0.5), torch.full_like(x, 0.25))
    torch.testing.assert_close(TiledPrior(labelled()).denoise(x, 0.5), torch.full_like(x, 0.75))
    with pytest.raises(UsageError, match="one label a row"):
        TiledPrior(CFGPrior(labelled(), label=[0, 2]))
    with pytest.raises(UsageError, match="one label a row"):
        TiledPrior(RecomputePrior(CFGPrior(labelled(), label=[0, 2])))


def test_a_solver_fills_a_picture_of_another_size_as_the_exact_posterior() -> None:
    # Independent pixels of mean 0.3 and std 0.5: the hole is N(0.3, 0.25), whatever is around it.
    known = torch.ones(1, 1, 12, 21)
    known[..., 3:9, 4:16] = 0
    y = known * noise(1, 1, 12, 21)
    out = priorpaint.solver("ddnm", steps=60, eta=0.0).sample(
        TiledPrior(shrink(VP(), 0.3)), Inpainting(known), y, num_samples=20, seed=0
    )
    hole = out[0, :, 0, 3:9, 4:16]
    # 1440 independent values: standard errors 0.013 and 0.009
    assert hole.mean().item() == pytest.approx(0.3, abs=0.05)
    assert hole.std().item() == pytest.approx(0.5, abs=0.04)


def test_shapes_names_and_samples() -> None:
    prior: Any = TiledPrior(shrink(EDM()))
    assert (prior.shape, prior.multiple, prior.name, prior.window) == ((1, None, None), 1, "white", (SIDE, SIDE))
    assert prior.data_std == 0.5 and prior.schedule is prior.inner.schedule
    assert prior.sample(2, seed=0, size=(11, 19), steps=3).shape == (2, 1, 11, 19)


@pytest.mark.parametrize("options", [{"fit": "crop"}, {"overlap": 1.0}, {"overlap": -0.1}, {"rows": 0}, {"detail": 0}])
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TiledPrior(shrink(VP()), **options)


def test_latents_of_any_size() -> None:
    from priorpaint.priors.latent import LatentPrior, LinearAutoencoder

    patch = torch.ones(1, 2, 2, 1, dtype=torch.float64)
    latent = LatentPrior(shrink(VP()), LinearAutoencoder.patches(patch, SIDE, SIDE))
    prior = TiledPrior(latent)
    assert (prior.latent, prior.image_shape, prior.image_multiple) == (True, (1, None, None), 2)
    assert prior.latent_shape(24, 40) == (1, 12, 20)
    with pytest.raises(UsageError, match="multiple of 2"):
        prior.check_size(24, 41)
    assert prior.denoise(noise(1, 1, 12, 20), 0.5).shape == (1, 1, 12, 20)
