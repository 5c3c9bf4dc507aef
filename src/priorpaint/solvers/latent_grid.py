"""Methods that work on the elements of x_0 themselves, on the latents of a latent prior.

The mask is carried over to the latent grid, where a cell is known if all of its pixels are, and y is encoded, with its
holes filled smoothly so that what an encoder sees beside them is not an edge. The method then runs as on images; its
samples are decoded, and y is put back into the picture. Latent blended diffusion is this with `Replacement` (Avrahami
et al. 2023, "Blended Latent Diffusion"). Pixels of cells that are known in part tell the method nothing.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..errors import UsageError
from ..operators.inpainting import Inpainting
from ..priors.latent import LatentSpace, encoder_noise, pool_known, smooth_fill
from .problem import Job


@torch.no_grad()
def on_latent_grid(job: Job) -> Job:
    """The job on latents.

    Raises:
        UsageError: an image has known pixels, but no cell of the latent grid is known as a whole.
    """
    assert isinstance(job.operator, Inpainting)  # Solver._job has checked
    known, (_, height, width) = job.operator.known, job.shape
    cells = pool_known(known, height, width)
    if bool((known.flatten(1).any(1) & ~cells.flatten(1).any(1)).any()):
        side = known.shape[2] // height
        raise UsageError(
            f"no {side} x {side} cell of the latent grid is known as a whole, so this method would not see y; use one "
            "that goes through the decoder, such as dps, mmps, psld, resample or vipaint"
        )
    filled = torch.split(smooth_fill(job.y, job.operator.mask(job.y)), job.batch_size or len(job.y))
    operator = Inpainting(cells)
    y = operator(torch.cat([job.prior.encode(part).float() for part in filled]))
    noise = encoder_noise(job.prior, job.sigma_y, *job.y.shape[2:]) if job.sigma_y > 0 else 0.0
    return replace(job, prior=LatentSpace(job.prior), operator=operator, y=y, sigma_y=noise)


@torch.no_grad()
def composed(job: Job, latents: Tensor) -> Tensor:
    """Images (B, n, C, H, W) of latents (B, n, c, h, w); without noise in y, its known pixels are those of y."""
    count = latents.shape[1]
    rows = torch.arange(len(latents)).repeat_interleave(count)
    done = []
    for chunk in torch.split(torch.arange(len(rows)), job.batch_size or max(len(rows), 1)):
        image = job.prior.decode(latents.flatten(0, 1)[chunk.to(latents.device)]).float()
        if job.sigma_y == 0:
            y = job.y[rows[chunk].to(job.y.device)]
            image = job.operator.select(rows[chunk]).project(image, y)
        done.append(image)
    images = torch.cat(done)
    return images.reshape(-1, count, *images.shape[1:])
