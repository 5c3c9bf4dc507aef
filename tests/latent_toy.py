"""Small latent priors with linear decoders, and TAEF2, a real autoencoder, read from files that the tests may find."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from priorpaint.diffusion.schedules import Schedule
from priorpaint.priors.analytic import Gaussian, GaussianMixture
from priorpaint.priors.latent import LatentPrior, LinearAutoencoder

SHARED = Path(__file__).parents[2] / "shared"


def orthonormal(rows: int, columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    axes: Tensor = torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64)).Q
    return axes


def toy(schedule: Schedule | None = None) -> LatentPrior:
    """The check of the literature: z ~ N(0, [[1, .6], [.6, 1]]), decoded to 2 x 2 pixels by orthonormal columns."""
    law = Gaussian([0.0, 0.0], [[1.0, 0.6], [0.6, 1.0]], (2, 1, 1), schedule)
    return LatentPrior(law, LinearAutoencoder(orthonormal(4, 2), (2, 1, 1), (1, 2, 2)))


def pictures(schedule: Schedule | None = None) -> LatentPrior:
    """Latents 3 x 4 x 4 of two modes, decoded to 2 x 8 x 8; columns are orthogonal and of length 1.4."""
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(48, 48, generator=generator, dtype=torch.float64) / 7
    means = 0.4 * torch.randn(2, 48, generator=generator, dtype=torch.float64)
    cov = mix @ mix.mT + 0.01 * torch.eye(48, dtype=torch.float64)
    law = GaussianMixture([0.4, 0.6], means, cov, (3, 4, 4), schedule)
    return LatentPrior(law, LinearAutoencoder(1.4 * orthonormal(128, 48), (3, 4, 4), (2, 8, 8)), "pictures")


class Identity:
    """A autoencoder that does nothing: with it, a latent prior is a pixel prior."""

    factor = 1

    def __init__(self, channels: int) -> None:
        self.channels = self.image_channels = channels

    def encode(self, image: Tensor) -> Tensor:
        return image

    def decode(self, latent: Tensor) -> Tensor:
        return latent


class Curved(nn.Module):
    """A small nonlinear autoencoder, f = 2: strided convolutions with a bend."""

    factor, channels, image_channels = 2, 4, 3

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.up = nn.ConvTranspose2d(4, 3, 4, 2, 1)
        self.down = nn.Conv2d(3, 4, 4, 2, 1)
        for parameter in self.parameters():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        self.requires_grad_(False)

    def encode(self, image: Tensor) -> Tensor:
        return torch.tanh(self.down(image))

    def decode(self, latent: Tensor) -> Tensor:
        return torch.tanh(self.up(latent))


class _Block(nn.Module):
    def __init__(self, channels: int, pool: bool) -> None:
        super().__init__()
        width = channels * 4

        def conv() -> nn.Conv2d:
            return nn.Conv2d(channels, channels, 3, padding=1)

        self.conv = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv())
        self.pool = None
        if pool:
            narrow, wide = nn.Conv2d(width, channels, 1, bias=False), nn.Conv2d(channels, width, 1, bias=False)
            self.pool = nn.Sequential(wide, nn.GroupNorm(4, width), nn.ReLU(), narrow)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.pool is None else x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class _Squash(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class Taef2(nn.Module):
    """The tiny autoencoder of FLUX.2's latents: 32 channels, f = 8, images in [0, 1] inside."""

    factor, channels, image_channels = 8, 32, 3

    def __init__(self) -> None:
        super().__init__()

        def plain() -> _Block:
            return _Block(64, False)

        def pooled() -> _Block:
            return _Block(64, True)

        def free(stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(64, 64, 3, stride, 1, bias=False)

        down = [free(2), plain(), plain(), plain()]
        down += [free(2), plain(), plain(), plain()]
        down += [free(2), pooled(), pooled(), pooled()]
        self.encoder = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1), plain(), *down, nn.Conv2d(64, 32, 3, 1, 1))
        first = [_Squash(), nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(), pooled(), pooled(), pooled()]
        middle = [nn.Upsample(scale_factor=2), free(), plain(), plain(), plain()]
        middle += [nn.Upsample(scale_factor=2), free(), plain(), plain(), plain()]
        self.decoder = nn.Sequential(
            *first, *middle, nn.Upsample(scale_factor=2), free(), plain(), nn.Conv2d(64, 3, 3, 1, 1)
        )

    def encode(self, image: Tensor) -> Tensor:
        latent: Tensor = self.encoder((image + 1) / 2)
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        image: Tensor = self.decoder(latent)
        return 2 * image - 1


def taef2() -> Taef2:
    folder = SHARED / "data" / "taef2-weights"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    autoencoder = Taef2()
    for part in ("encoder", "decoder"):
        state = torch.load(folder / f"taef2_{part}.pth", weights_only=True)
        getattr(autoencoder, part).load_state_dict({name: value.float() for name, value in state.items()})
    return autoencoder.requires_grad_(False).eval()


def photo(size: int = 128) -> Tensor:
    """A photo (1, 3, size, size) in [-1, 1]."""
    import numpy as np
    from PIL import Image

    folder = SHARED / "data" / "photos-cid22"
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if not found:
        pytest.skip(f"{folder} holds no photo")
    picture = Image.open(found[0]).convert("RGB")
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    values = np.asarray(picture.crop((left, top, left + size, top + size)), dtype=np.float32)
    return torch.from_numpy(values).permute(2, 0, 1)[None] / 127.5 - 1


def psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(4 / float((a - b).square().mean()))
