"""What priorpaint is measured against: FFDNet for denoising, classical programs for inpainting."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Picture = NDArray[np.uint8]


class FFDNet(nn.Module):
    """FFDNet for colour (Zhang, Zuo, Zhang 2018) in the layout of KAIR's published ``ffdnet_color.pth``.

    The picture is folded 2x2 into 12 channels, a constant plane with sigma is appended, and 12 convolutions give the
    clean picture itself, folded. Trained for sigma from 0 to 75/255.
    """

    def __init__(self, width: int = 96, depth: int = 12) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(13, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.Conv2d(width, 12, 3, padding=1))

    @classmethod
    def load(cls, path: Path) -> FFDNet:
        net = cls()
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return net.eval().requires_grad_(False)

    def forward(self, y: Tensor, sigma: float) -> Tensor:
        """Denoise y (N, 3, H, W) in [0, 1] with noise of standard deviation ``sigma`` in the same units."""
        height, width = y.shape[2:]
        padded = F.pad(y, (0, width % 2, 0, height % 2), mode="replicate")
        folded = F.pixel_unshuffle(padded, 2)
        plane = folded.new_full((len(y), 1, *folded.shape[2:]), sigma)
        return F.pixel_shuffle(self.model(torch.cat([folded, plane], dim=1)), 2)[:, :, :height, :width]


def telea(picture: Picture, known: NDArray[np.bool_], seed: int) -> Picture:
    """OpenCV's fast-marching inpainting (Telea 2004), radius 3."""
    import cv2

    return np.asarray(cv2.inpaint(picture, (~known).astype(np.uint8), 3, cv2.INPAINT_TELEA))


def navier_stokes(picture: Picture, known: NDArray[np.bool_], seed: int) -> Picture:
    """OpenCV's Navier-Stokes inpainting (Bertalmio, Bertozzi, Sapiro 2001), radius 3."""
    import cv2

    return np.asarray(cv2.inpaint(picture, (~known).astype(np.uint8), 3, cv2.INPAINT_NS))


def biharmonic(picture: Picture, known: NDArray[np.bool_], seed: int) -> Picture:
    """scikit-image's biharmonic inpainting (Damelin, Hoang 2018), one system for each connected hole."""
    from skimage.restoration import inpaint_biharmonic

    filled = inpaint_biharmonic(picture / 255.0, ~known, split_into_regions=True, channel_axis=-1)
    return np.asarray(np.round(np.clip(filled, 0, 1) * 255), dtype=np.uint8)


def patchmatch_cython(picture: Picture, known: NDArray[np.bool_], seed: int) -> Picture:
    """PatchMatch (Barnes, Shechtman, Finkelstein, Goldman 2009) on a pyramid, patches of 5x5, at its defaults."""
    from patchmatch_cython import inpaint_pyramid

    return np.asarray(inpaint_pyramid(picture, ~known, seed=seed))


def pypatchmatch(picture: Picture, known: NDArray[np.bool_], seed: int) -> Picture:
    """The PatchMatch of InvokeAI, patches of 7x7 as in its examples."""
    import patchmatch

    patchmatch.set_random_seed(seed)
    return np.asarray(patchmatch.inpaint(picture, ~known, patch_size=3))


@dataclass(frozen=True)
class Classical:
    """A program: ``fill`` (picture, known, seed); one that is not ``seeded`` does not listen to the seed."""

    fill: Callable[[Picture, NDArray[np.bool_], int], Picture]
    seeded: bool = False


CLASSICAL = {
    "opencv-telea": Classical(telea),
    "opencv-ns": Classical(navier_stokes),
    "skimage-biharmonic": Classical(biharmonic),
    "patchmatch-cython": Classical(patchmatch_cython, seeded=True),
}
if sys.version_info >= (3, 11):  # which it needs
    CLASSICAL["pypatchmatch"] = Classical(pypatchmatch, seeded=True)
