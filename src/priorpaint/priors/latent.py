"""Latent priors: a denoiser of latents, and the autoencoder whose decoder makes images of them.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models". x_0 is a latent everywhere in a
solver; operators measure the decoded image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from .base import Prior
from .wrapped import WrappedPrior

_PROBE_STEP = 0.1  # of data_std, for finite differences through the decoder


class Autoencoder(Protocol):
    """Encoder and decoder of a latent prior, differentiable, with frozen weights; float32 in and out.

    Attributes:
        factor: pixels along each side of a latent cell.
        channels: of a latent.
        image_channels: of an image.
    """

    factor: int
    channels: int
    image_channels: int

    def encode(self, image: Tensor) -> Tensor:
        """Image (N, image_channels, H, W) in [-1, 1] -> latent (N, channels, H / factor, W / factor).

        The mean where the encoder gives a distribution, the latent before quantisation where there is a codebook, in
        the scale that the denoiser was trained on. The same image always gives the same latent.
        """

    def decode(self, latent: Tensor) -> Tensor:
        """Latent -> image in about [-1, 1]; with a codebook, quantised first, the gradient passing straight through."""


class LatentPrior(WrappedPrior):
    """The prior of decoded latents. ``shape``, ``multiple``, ``schedule`` and ``data_std`` are those of the latents.

    Args:
        inner: the denoiser of latents, as a pixel prior of the latent space.
        autoencoder: encoder and decoder.
        name: the prior's name; None is that of ``inner``.

    Raises:
        UsageError: the two have different numbers of latent channels, or ``inner`` has a decoder of its own.
    """

    def __init__(self, inner: Prior, autoencoder: Autoencoder, name: str | None = None) -> None:
        if inner.latent:
            raise UsageError(f"the prior {inner.name} is a latent prior already; give the denoiser of its latents")
        if inner.shape[0] != autoencoder.channels:
            raise UsageError(
                f"the denoiser {inner.name} works on {inner.shape[0]} channels and the autoencoder makes latents of "
                f"{autoencoder.channels}; these two do not belong together"
            )
        channels = autoencoder.image_channels
        super().__init__(inner, latent=True, factor=autoencoder.factor, image_channels=channels)
        self.autoencoder, self.name = autoencoder, name or inner.name

    def encode(self, image: Tensor) -> Tensor:
        """Image (N, C, H, W) to latent (N, c, H / f, W / f), differentiable."""
        return self.autoencoder.encode(image).to(image.dtype)

    def decode(self, latent: Tensor) -> Tensor:
        """Latent (N, c, h, w) to image (N, C, f h, f w), differentiable."""
        return self.autoencoder.decode(latent).to(latent.dtype)

    def parameters(self) -> Iterator[Tensor]:
        """The weights of denoiser and autoencoder, where they have any."""
        own: Callable[[], Iterable[Tensor]] = getattr(self.autoencoder, "parameters", tuple)
        return itertools.chain(self.inner.parameters(), own())


class LatentSpace(WrappedPrior):
    """A latent prior with its latents taken for images: for methods that work on the elements of x_0 themselves."""

    def __init__(self, prior: Prior) -> None:
        super().__init__(prior, latent=False, factor=1, image_channels=None)

    def encode(self, image: Tensor) -> Tensor:
        return image

    def decode(self, latent: Tensor) -> Tensor:
        return latent


class LinearAutoencoder:
    """Dec(z) = W z on flattened latents and Enc = W^+: an autoencoder whose posteriors have closed forms.

    Args:
        matrix: W, (C H W, c h w), of full column rank, so that Enc(Dec(z)) = z.
        latent_shape: (c, h, w).
        image_shape: (C, H, W), with H / h = W / w whole.

    Raises:
        UsageError: shapes that do not fit, or linearly dependent columns.
    """

    def __init__(self, matrix: Tensor, latent_shape: tuple[int, int, int], image_shape: tuple[int, int, int]) -> None:
        self.matrix = torch.as_tensor(matrix, dtype=torch.float64)
        rows, columns = math.prod(image_shape), math.prod(latent_shape)
        if self.matrix.shape != (rows, columns):
            raise UsageError(
                f"the decoder's matrix has the shape {tuple(self.matrix.shape)}, but images {image_shape} and latents "
                f"{latent_shape} need {(rows, columns)}"
            )
        factor = image_shape[1] // latent_shape[1]
        if (latent_shape[1] * factor, latent_shape[2] * factor) != tuple(image_shape[1:]):
            raise UsageError(f"images {image_shape} are not a whole multiple of latents {latent_shape}")
        if int(torch.linalg.matrix_rank(self.matrix)) < columns:
            raise UsageError("the columns of the decoder's matrix are linearly dependent, so latents are not unique")
        self.factor, self.channels, self.image_channels = factor, latent_shape[0], image_shape[0]
        self.latent_shape, self.image_shape = latent_shape, image_shape
        self._inverse = torch.linalg.pinv(self.matrix)

    @classmethod
    def patches(cls, patch: Tensor, height: int, width: int) -> LinearAutoencoder:
        """Every latent cell becomes a patch of its own: patch (C, f, f, c) for latents of height x width cells."""
        image_channels, factor, _, channels = patch.shape
        image = image_channels, height * factor, width * factor
        latents = torch.eye(channels * height * width, dtype=patch.dtype)
        cells = latents.reshape(-1, channels, height, width)
        columns = torch.einsum("nchw,Cijc->nChiwj", cells, patch).reshape(len(latents), -1)
        return cls(columns.mT, (channels, height, width), image)

    def encode(self, image: Tensor) -> Tensor:
        return self._apply(self._inverse, image, self.latent_shape)

    def decode(self, latent: Tensor) -> Tensor:
        return self._apply(self.matrix, latent, self.image_shape)

    def _apply(self, matrix: Tensor, x: Tensor, shape: tuple[int, int, int]) -> Tensor:
        return (x.flatten(1) @ matrix.mT.to(x)).reshape(len(x), *shape)


# -- between the two spaces --------------------------------------------------------------------------------------------


def pool_known(known: Tensor, height: int, width: int) -> Tensor:
    """The mask of latent cells (B, 1, height, width): known where all pixels of all channels of the cell are.

    That is, the hole is max-pooled.

    Args:
        known: (B, C, H, W) in {0, 1}, 1 = known; H and W are multiples of height and width.
    """
    every = known.amin(1, keepdim=True)
    kernel = every.shape[2] // height, every.shape[3] // width
    return -F.max_pool2d(-every, kernel)


def smooth_fill(image: Tensor, known: Tensor) -> Tensor:
    """The image with its hidden pixels replaced by a smooth continuation of the known ones, for an encoder to look at.

    From the coarsest scale down: a pixel of a scale is the mean of the known pixels below it or, where there are none,
    what the next coarser scale says. Where nothing is known the fill is 0.

    Args:
        image: (B, C, H, W).
        known: (1|B, 1|C, H, W) in {0, 1}.
    """
    mask = known.to(image).expand_as(image)
    values = torch.where(mask > 0, image, 0)
    if max(image.shape[2:]) == 1:
        return values
    odd = (0, image.shape[3] % 2, 0, image.shape[2] % 2)
    share = F.avg_pool2d(F.pad(mask, odd), 2)
    mean = F.avg_pool2d(F.pad(values, odd), 2) / share.clamp(min=1e-6)
    coarse = smooth_fill(mean, (share > 0).to(image))
    guess = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    return torch.where(mask > 0, values, guess[:, :, : image.shape[2], : image.shape[3]])


@torch.no_grad()
def decoder_gain(prior: Prior, shape: tuple[int, int, int]) -> float:
    """Root mean square singular value of the decoder's Jacobian: an error of e in each latent element makes one of
    ``decoder_gain`` e along each direction that the decoder can reach; 1 for pixel priors.

    Measured at one fixed random latent, by a difference in one fixed random direction; two decoded rows.

    Args:
        prior: any prior.
        shape: (c, h, w) of the latents.
    """
    if not prior.latent:
        return 1.0
    generator = torch.Generator().manual_seed(0)
    centre, direction = torch.randn(2, 1, *shape, generator=generator).to(prior.device) * prior.data_std
    step = _PROBE_STEP * direction
    change = prior.decode(centre + step) - prior.decode(centre - step)
    return float(change.norm() / (2 * step.norm()))


@torch.no_grad()
def encoder_noise(prior: Prior, sigma: float, height: int, width: int) -> float:
    """Standard deviation of an element of Enc(image + sigma n), measured at the grey image of this size."""
    grey = torch.zeros(1, int(prior.image_shape[0]), height, width, device=prior.device)
    noise = torch.randn(grey.shape, generator=torch.Generator().manual_seed(0)).to(grey)
    change = prior.encode(grey + sigma * noise) - prior.encode(grey - sigma * noise)
    return float(change.square().mean().sqrt() / 2)
