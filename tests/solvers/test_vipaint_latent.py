"""VIPaint through a decoder: the pixel method where the decoder is a rotation, exact micro-batches, LPIPS, guidance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from priorpaint import DenoiserPrior, Inpainting, NetworkPrior, UsageError, solver
from priorpaint.diffusion.schedules import EDM, VP
from priorpaint.metrics import LPIPS
from priorpaint.operators import Downsampling, MatrixOperator
from priorpaint.priors.analytic import Gaussian
from priorpaint.priors.cfg import CFGPrior
from priorpaint.priors.latent import LatentPrior, LinearAutoencoder
from priorpaint.priors.recompute import RecomputePrior
from priorpaint.solvers.vipaint.solver import VIPaint
from tests.latent_toy import SHARED, Curved, Identity, orthonormal

FAST: dict[str, Any] = {"preset": "exact", "levels": 2, "iterations": 4, "mc_samples": 2, "refine_steps": 4}
LPIPS_FILE = SHARED / "data" / "lpips-weights" / "lpips_alex.safetensors"


def gaussian(schedule: Any = None) -> Gaussian:
    generator = torch.Generator().manual_seed(2)
    mix = torch.randn(8, 8, generator=generator, dtype=torch.float64) / 3
    return Gaussian(torch.zeros(8), mix @ mix.mT + 0.1 * torch.eye(8), (2, 2, 2), schedule)


@pytest.mark.parametrize("schedule", [VP("linear"), EDM()])
def test_an_orthonormal_decoder_is_a_rotation_of_the_pixel_method(schedule: Any) -> None:
    """All pixels of y = W z + n known: y outside the range of W says nothing, so fit and samples are those of W^T y."""
    law, sigma_y = gaussian(schedule), 0.3
    prior = LatentPrior(law, LinearAutoencoder(orthonormal(32, 8), (2, 2, 2), (2, 4, 4)))
    noise = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    y = prior.decode(law.sample(1, seed=1)) + sigma_y * noise
    run = VIPaint(**FAST, fill_steps=2)
    there = run.fit(prior, Inpainting(torch.ones(4, 4)), y, sigma_y=sigma_y, seed=[4])
    here = run.fit(law, Inpainting(torch.ones(2, 2)), prior.encode(y), sigma_y=sigma_y, seed=[4])
    for a, b in zip(there.parameters.tensors(), here.parameters.tensors(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    for name in ("hierarchy", "diffusion", "prior"):
        torch.testing.assert_close(getattr(there.losses, name), getattr(here.losses, name), rtol=1e-3, atol=1e-3)
    samples = there.sample(3, seed=[5])
    assert samples.shape == (1, 3, 2, 4, 4)
    torch.testing.assert_close(
        prior.encode(samples[0]), here.sample(3, seed=[5])[0], rtol=5e-3, atol=5e-3, msg="phase 2 differs"
    )


def test_an_error_of_the_latent_is_as_wide_in_the_image_as_the_decoder_makes_it() -> None:
    """With columns of length g, N(y; A W D, sigma_y^2 + (g r)^2): W / g and data of g times the width give the same."""
    g, law = 2.0, gaussian()
    prior = LatentPrior(law, LinearAutoencoder(g * orthonormal(32, 8), (2, 2, 2), (2, 4, 4)))
    y = prior.decode(law.sample(1, seed=1))
    operator = Inpainting(torch.ones(4, 4))
    t = torch.tensor(0.5, dtype=torch.float64)
    wide = VIPaint(preset="exact")._likelihood(prior, operator, y, 0.0, t)
    plain = VIPaint(preset="exact")._likelihood(law, Inpainting(torch.ones(2, 2)), prior.encode(y), 0.0, t)
    assert wide.std(t) == pytest.approx(g * plain.std(t), rel=1e-4)
    z = law.sample(1, seed=2)
    torch.testing.assert_close(wide.misfit(z, t), plain.misfit(z, t), rtol=1e-3, atol=1e-3)
    assert wide.pixels == 32 and plain.pixels == 8


def curved() -> tuple[LatentPrior, Inpainting, Tensor]:
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Conv2d(4, 4, 3, padding=1)
    for parameter in net.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    prior = LatentPrior(NetworkPrior(lambda x, c: torch.tanh(net(x)), VP(), (4, None, None)), Curved())
    operator = Inpainting((torch.arange(64).reshape(8, 8) % 16 < 11).float())
    return prior, operator, operator(prior.decode(torch.randn(2, 4, 4, 4, generator=generator)))


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"batch_size": 3}, {"checkpoint": True}, {"low": 1}])
def test_micro_batches_and_checkpointing_give_the_same_fit(change: dict[str, Any]) -> None:
    prior, operator, y = curved()
    whole = VIPaint(**FAST).fit(prior, operator, y)
    size, rows = change.pop("batch_size", None), change.pop("low", None)
    other = RecomputePrior(prior, rows=rows) if rows else prior
    parts = VIPaint(**FAST, **change).fit(other, operator, y, batch_size=size)
    for a, b in zip(whole.parameters.tensors(), parts.parameters.tensors(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("twist", ["auto", "dps"])
def test_correction_through_a_decoder(twist: str) -> None:
    """A fit that is far off and wide: its own samples show it, the corrected ones are those of the exact posterior."""
    law, sigma_y = gaussian(), 0.3
    autoencoder = LinearAutoencoder(orthonormal(32, 8), (2, 2, 2), (2, 4, 4))
    prior = LatentPrior(law, autoencoder)
    operator = Inpainting((torch.arange(16).reshape(4, 4) % 4 < 2).float())
    y = operator(prior.decode(law.sample(1, seed=1)))
    known = operator.known.expand(1, 2, 4, 4).flatten() > 0
    exact = law.posterior(MatrixOperator(autoencoder.matrix[known], (2, 2, 2)), y.flatten(1)[:, known], sigma_y)
    std = exact.cov.diagonal().sqrt()
    plain = VIPaint(preset="exact", levels=1, iterations=1, refine_steps=40 if twist == "dps" else 15)
    fitted = plain.fit(prior, operator, y, sigma_y=sigma_y)
    off = replace(fitted.parameters, mean=fitted.parameters.mean + 0.5)
    corrected = replace(plain, correct=True, particles=256, num_kept=64, twist=twist)
    wrong, right = (
        prior.encode(replace(fitted, solver=run, parameters=off).sample(512, seed=3)[0]).flatten(1).double()
        for run in (plain, corrected)
    )
    error, before = ((x.mean(0) - exact.mean.flatten()).abs() / std for x in (right, wrong))
    assert float(error.max()) < 0.25 < float(before.max())
    assert bool(((right.std(0) / std - 1).abs() < 0.2).all())


def test_correction_keeps_known_pixels_through_a_decoder_that_bends() -> None:
    prior, operator, y = curved()
    run = solver("vipaint", **FAST, correct=True, particles=4, num_kept=2, up_steps=2)
    out = run.sample(prior, operator, y, num_samples=3)
    assert out.isfinite().all() and torch.equal(operator(out[:, 2]), y)
    assert isinstance(run, VIPaint) and run.refinement(prior, (4, 4, 4)).twist == "mmps"
    assert run.refinement(prior, (4, 16, 16)).twist == "dps" != run.refinement(prior.inner, (4, 16, 16)).twist


def test_components_in_latent_space() -> None:
    prior, operator, y = curved()
    out = solver("vipaint", **FAST, components=2).sample(prior, operator, y, num_samples=2)
    assert out.isfinite().all() and torch.equal(operator(out[:, 0]), y)


# -- LPIPS -------------------------------------------------------------------------------------------------------------


def shrinking() -> DenoiserPrior:
    return DenoiserPrior(lambda x, t: 0.5 * x, VP(), (3, None, None), name="shrinking")


def test_official_on_l1_alone_says_so() -> None:
    prior, operator, y = curved()
    run: dict[str, Any] = {**FAST, "preset": "official-imagenet"}
    with pytest.warns(UserWarning, match="runs on L1 alone"):
        solver("vipaint", **run).sample(prior, operator, y)
    solver("vipaint", **run, perceptual_weight=0).sample(prior, operator, y)  # any warning is an error here
    solver("vipaint", **FAST).sample(prior, operator, y)
    small = LatentPrior(shrinking(), Identity(3))
    assert not shrinking().latent and small.latent


@pytest.mark.parametrize("channels", [1, 3])
def test_perceptual_loss_is_added_with_its_weight(channels: int) -> None:
    if not LPIPS_FILE.is_file():
        pytest.skip(f"{LPIPS_FILE} does not exist")
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(32, 32)
    mask[8:20, 8:20] = 0
    operator, t = Inpainting(mask), torch.tensor(0.5, dtype=torch.float64)
    y = operator(0.5 * torch.randn(2, channels, 32, 32, generator=generator))
    x = (0.5 * torch.randn(2, channels, 32, 32, generator=generator)).requires_grad_()
    plain = VIPaint(preset="exact", likelihood="laplace")._likelihood(shrinking(), operator, y, 0.0, t)
    both = VIPaint(preset="exact", likelihood="laplace", perceptual=str(LPIPS_FILE), perceptual_weight=0.3)
    loss = both._likelihood(shrinking(), operator, y, 0.0, t).misfit(x, t)
    distance = LPIPS(LPIPS_FILE)(*(images.expand(-1, 3, -1, -1) for images in (y, operator(x))))
    torch.testing.assert_close(loss, plain.misfit(x, t) + 0.3 * channels * 32 * 32 * distance)
    assert torch.autograd.grad(loss.sum(), x)[0].isfinite().all()
    with pytest.raises(UsageError, match="masks only"):
        both._likelihood(shrinking(), Downsampling(2), Downsampling(2)(x).detach(), 0.0, t)


# -- guidance ----------------------------------------------------------------------------------------------------------


class Classes(torch.nn.Module):
    def forward(self, x: Tensor, c: Tensor, labels: Tensor) -> Tensor:
        return 0.3 * (labels - 1)[:, None, None, None] + 0.5 * x


def classes() -> LatentPrior:
    def embed(labels: Tensor | None, prompt: str | None) -> dict[str, Tensor]:
        return {"labels": torch.tensor([3]) if labels is None else labels}

    net = NetworkPrior(Classes(), VP(), (4, None, None), prediction="x0", embed=embed, classes=3)
    return LatentPrior(net, Curved())


@pytest.mark.parametrize(("fit_cfg", "sample_cfg"), [(1.0, 3.0), (3.0, 1.0), (None, None)])
def test_guidance_of_fit_and_of_samples(fit_cfg: float | None, sample_cfg: float | None) -> None:
    """A scale other than 1 costs two evaluations a row; None keeps the prior's own scale."""
    _, operator, y = curved()
    prior = CFGPrior(classes(), label=2, scale=2.0)
    run = VIPaint(**FAST, fill_steps=0, fit_cfg=fit_cfg, sample_cfg=sample_cfg)
    posterior = run.fit(prior, operator, y[:1])
    fit = 4 * 2 * 3 * (1 if fit_cfg == 1 else 2)
    assert (prior.nfe.forward, prior.nfe.backward) == (0, fit)
    posterior.sample(1)
    more = 1 if sample_cfg == 1 else 2
    assert (prior.nfe.forward, prior.nfe.backward) == (more, fit + 4 * more)
    assert prior.scale == 2.0, "the caller's prior has changed"  # type: ignore[attr-defined]


def test_guidance_needs_a_condition() -> None:
    prior, operator, y = curved()
    for setting in ("fit_cfg", "sample_cfg"):
        with pytest.raises(UsageError, match="need a condition"):
            solver("vipaint", **FAST, **{setting: 2.0}).sample(prior, operator, y)


def test_official_guidance_is_one_then_three() -> None:
    rules = VIPaint(preset="official-imagenet").rules
    assert (rules.fit_cfg, rules.sample_cfg) == (1.0, 3.0)


def test_a_presets_guidance_needs_a_state_to_lead_away_from() -> None:
    """A class-conditional EDM network without dropout of labels runs official-imagenet at the plain condition."""
    inner = classes()
    guided = VIPaint(preset="official-imagenet").sampling_prior(CFGPrior(inner, label=2))
    assert isinstance(guided, CFGPrior) and guided.scale == 3
    inner.info = replace(inner.info, null_state=False)
    prior = CFGPrior(inner, label=2)
    assert VIPaint(preset="official-imagenet").sampling_prior(prior) is prior
    with pytest.raises(UsageError, match="needs a state without a class"):
        VIPaint(preset="official-imagenet", sample_cfg=2.0).sampling_prior(prior)
