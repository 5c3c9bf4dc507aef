"""Latent priors: the two spaces, their sizes, and what passes between them."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint import DenoiserPrior, UsageError
from priorpaint.diffusion.samplers import DDIM
from priorpaint.diffusion.schedules import VP
from priorpaint.priors.analytic import Gaussian
from priorpaint.priors.latent import (
    LatentPrior,
    LatentSpace,
    LinearAutoencoder,
    decoder_gain,
    encoder_noise,
    pool_known,
    smooth_fill,
)
from tests.latent_toy import Curved, orthonormal, photo, pictures, psnr, taef2, toy


def anysize(channels: int = 4, multiple: int = 2) -> DenoiserPrior:
    return DenoiserPrior(lambda x, t: 0.5 * x, VP(), (channels, None, None), multiple=multiple, name="half")


def test_the_two_spaces() -> None:
    prior = pictures()
    assert prior.latent and prior.shape == (3, 4, 4) and prior.image_shape == (2, 8, 8) and prior.multiple == 1
    assert prior.latent_shape(8, 8) == (3, 4, 4) and prior.name == "pictures"
    assert prior.schedule is prior.inner.schedule and prior.data_std == prior.inner.data_std
    free = LatentPrior(anysize(), Curved())
    assert free.image_shape == (3, None, None) and free.image_multiple == 4 and free.latent_shape(12, 20) == (4, 6, 10)


def test_sizes_are_those_of_images() -> None:
    prior, free = pictures(), LatentPrior(anysize(), Curved())
    prior.check_size(8, 8)
    with pytest.raises(UsageError, match="works on height 8, not 4"):
        prior.check_size(4, 4)
    with pytest.raises(UsageError, match="multiple of 4, not 10"):
        free.check_size(8, 10)
    with pytest.raises(UsageError, match="no size of its own"):
        free.sample(1, seed=0)
    assert free.sample(1, seed=0, steps=2, size=(8, 12)).shape == (1, 3, 8, 12)


def test_parts_that_do_not_belong_together() -> None:
    with pytest.raises(UsageError, match="5 channels"):
        LatentPrior(anysize(5), Curved())
    with pytest.raises(UsageError, match="a latent prior already"):
        LatentPrior(pictures(), Curved())


def test_samples_are_decoded_latents_and_evaluations_are_those_of_the_denoiser() -> None:
    prior = pictures()
    images = prior.sample(3, seed=1, sampler=DDIM(4), batch_size=2)
    latents = prior.inner.sample(3, seed=1, sampler=DDIM(4))
    torch.testing.assert_close(images, prior.decode(latents))
    assert prior.nfe is prior.inner.nfe and prior.nfe.forward == 2 * 3 * (1 + 4)


def test_weights_of_both_parts_are_found() -> None:
    assert len(list(LatentPrior(anysize(), Curved()).parameters())) == 4


def test_linear_codec() -> None:
    autoencoder = LinearAutoencoder(2 * orthonormal(16, 4), (1, 2, 2), (1, 4, 4))
    z = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(autoencoder.encode(autoencoder.decode(z)), z)
    torch.testing.assert_close(autoencoder.decode(z).norm(), 2 * z.norm())
    assert autoencoder.decode(z.double()).dtype == torch.float64
    for matrix, latent, image, message in (
        (torch.ones(3, 4), (1, 2, 2), (1, 4, 4), "shape"),
        (torch.ones(16, 4), (1, 2, 2), (1, 4, 4), "dependent"),
        (torch.eye(12, 4), (1, 2, 2), (1, 4, 3), "multiple"),
    ):
        with pytest.raises(UsageError, match=message):
            LinearAutoencoder(matrix, latent, image)


def test_patches_decode_each_cell_by_itself() -> None:
    patch = torch.randn(2, 3, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    autoencoder = LinearAutoencoder.patches(patch, 2, 3)
    assert (autoencoder.factor, autoencoder.channels, autoencoder.image_channels) == (3, 5, 2)
    z = torch.zeros(1, 5, 2, 3, dtype=torch.float64)
    z[0, 4, 1, 2] = 2.0
    image = torch.zeros(1, 2, 6, 9, dtype=torch.float64)
    image[0, :, 3:, 6:] = 2 * patch[..., 4]
    torch.testing.assert_close(autoencoder.decode(z), image)


def test_a_cell_is_known_where_all_its_pixels_are() -> None:
    known = torch.ones(1, 2, 4, 6)
    known[0, 1, 0, 1] = 0  # one channel of one pixel
    known[0, :, 3, 4:] = 0
    assert pool_known(known, 2, 3)[0, 0].tolist() == [[0, 1, 1], [1, 1, 0]]


def test_smooth_fill() -> None:
    generator = torch.Generator().manual_seed(0)
    known = (torch.rand(2, 1, 13, 10, generator=generator) > 0.8).float()
    image = torch.randn(2, 3, 13, 10, generator=generator)
    filled = smooth_fill(torch.where(known > 0, image, torch.nan), known)
    visible = known.expand_as(image) > 0
    assert torch.equal(filled[visible], image[visible]) and filled.isfinite().all()
    assert filled.amax() <= image[visible].amax() and filled.amin() >= image[visible].amin()
    torch.testing.assert_close(smooth_fill(torch.full_like(image, 0.3), known), torch.full_like(image, 0.3))
    assert torch.equal(smooth_fill(image, torch.zeros(1, 1, 13, 10)), torch.zeros_like(image))


def test_gain_is_the_rms_singular_value_for_a_linear_decoder() -> None:
    assert decoder_gain(pictures(), (3, 4, 4)) == pytest.approx(1.4, rel=1e-4)
    assert decoder_gain(Gaussian([0.0], [[1.0]]), (1, 1, 1)) == 1
    lengths = torch.linspace(1, 2, 400).double()
    wide = LatentPrior(anysize(100, 1), LinearAutoencoder(orthonormal(1600, 400) * lengths, (100, 2, 2), (1, 40, 40)))
    # One random direction: the mean of 400 squares with weights.
    assert decoder_gain(wide, (100, 2, 2)) == pytest.approx(math.sqrt(float(lengths.square().mean())), rel=0.05)


def test_noise_in_the_latent() -> None:
    # Enc = W^T / 1.4 for orthogonal columns of length 1.4.
    assert encoder_noise(pictures(), 0.3, 8, 8) == pytest.approx(0.3 / 1.4, rel=0.2)


def test_latents_taken_for_images() -> None:
    prior = pictures()
    space = LatentSpace(prior)
    z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert not space.latent and space.image_shape == (3, 4, 4) and space.latent_shape(4, 4) == (3, 4, 4)
    assert torch.equal(space.decode(z), z) and torch.equal(space.encode(z), z)
    assert torch.equal(space.denoise(z, 0.5), prior.denoise(z, 0.5)) and space.nfe is prior.nfe


def test_gradients_pass_through_both_directions() -> None:
    prior = LatentPrior(anysize(), Curved())
    z = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (gradient,) = torch.autograd.grad(prior.encode(prior.decode(prior.denoise(z, 0.5))).square().sum(), z)
    assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_the_toy_of_the_literature() -> None:
    """Gluing identity: Enc(A^T y + (I - A^T A) W z) - z = W^T A^T (y - A W z), for orthonormal W and a mask A."""
    prior = toy()
    z = torch.randn(5, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    y = mask * torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    image = prior.decode(z)
    glued = prior.encode(y + (1 - mask) * image) - z
    torch.testing.assert_close(glued, prior.encode(mask * (y - image)))


def test_a_real_codec_round_trip() -> None:
    """The bound of what any latent method can reach on known pixels; its authors report 29.6 to 31.6 dB."""
    prior, image = LatentPrior(anysize(32, 1), taef2()), photo(128)
    z = prior.encode(image)
    assert z.shape == (1, 32, 16, 16)
    assert 24 < psnr(prior.decode(z).clamp(-1, 1), image) < 40
