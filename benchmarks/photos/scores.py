"""What an answer is worth: proper scores, calibration, sharpness, distance and price."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.photos.answers import Answer
from benchmarks.photos.table import Cell
from priorpaint.imaging import mask_generators as masks
from priorpaint.metrics import LPIPS, calibration, fair_crps, fair_energy_score, psnr

# LPIPS looks at a wide hole with so many pixels around it.
AROUND = 32
# dB; a flat hole that is filled exactly would be infinitely good, and so would be the mean over all pictures.
BEST_PSNR = 60
_TEXTURE_SIGMA = 2.0


def score(answer: Answer, x: Tensor, known: masks.Mask, lpips: LPIPS, hole: int | None = None) -> Cell:
    """The numbers of one answer.

    Args:
        answer: samples of the picture.
        x: the truth (1, 3, H, W) in [-1, 1].
        known: (H, W).
        lpips: measures the distance of single samples.
        hole: side of the one hole in the middle, where there is just one; LPIPS then also looks at that alone.

    Returns:
        Values in units of [-1, 1] over the hidden ones, PSNR in dB, and the price of all samples. A single answer has
        no variance, ranks or coverage; its fair CRPS is its mean absolute error.
    """
    hidden = torch.from_numpy(~known)[None]
    truth = x.expand_as(answer.samples)
    cell: Cell = {"missing": float(1 - known.mean()), "samples": len(answer.samples)}
    # Twice the same sample is a law without spread: the score of a single answer.
    law = answer.samples if len(answer.samples) > 1 else answer.samples.expand(2, -1, -1, -1)
    cell["crps"] = float(fair_crps(law, x[0])[hidden.expand_as(x[0])].mean())
    cell["energy"] = float(fair_energy_score(law, x[0], hidden).mean())
    if len(answer.samples) > 1:
        found = calibration(answer.samples, x[0], hidden)
        count = float(found.ranks.sum())
        cell |= {"variance": found.variance / count, "squared_error": found.squared_error / count}
        cell |= {"cover50": found.coverage(0.5), "cover90": found.coverage(0.9)}
        cell["ranks"] = (found.ranks / count).tolist()
    with torch.no_grad():
        cell["lpips"] = float(lpips(answer.samples, truth).mean())
        if hole is not None:
            cell["lpips_around"] = float(lpips(*(around(part, hole) for part in (answer.samples, truth))).mean())
    cell["mean_psnr"] = float(psnr(answer.mean, x, hidden[None]).clamp(max=BEST_PSNR))
    cell["sample_psnr"] = float(psnr(answer.samples, truth, hidden[None]).clamp(max=BEST_PSNR).mean())
    cell |= {"texture": float(texture(answer.samples, hidden).mean()), "true_texture": float(texture(x, hidden))}
    cell |= {name: getattr(answer, name) for name in ("seconds", "cpu_seconds", "prepare_seconds")}
    return cell | {"nfe_forward": answer.forward, "nfe_backward": answer.backward, "work": answer.work / 1e6}


def around(x: Tensor, hole: int) -> Tensor:
    """The hole in the middle of x (B, C, H, W) and AROUND pixels on each side of it, as far as the picture goes."""
    height, width = x.shape[2:]
    top, left = (max((side - hole) // 2 - AROUND, 0) for side in (height, width))
    return x[:, :, top : height - top, left : width - left]


def texture(x: Tensor, region: Tensor, sigma: float = _TEXTURE_SIGMA) -> Tensor:
    """Standard deviation, over the values of a region, of what a Gaussian filter takes away: fine detail.

    Args:
        x: pictures (B, C, H, W), reflected beyond their border.
        region: (1, H, W), bool.
        sigma: of the filter, in pixels.

    Returns:
        (B,) float64, in units of the values.
    """
    radius = round(4 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    taps = (taps / taps.sum()).expand(x.shape[1], 1, 1, -1)
    smooth = F.pad(x.double(), (radius,) * 4, mode="reflect")
    smooth = F.conv2d(F.conv2d(smooth, taps, groups=x.shape[1]), taps.mT, groups=x.shape[1])
    detail = (x.double() - smooth)[:, region.expand(x.shape[1:])]
    return detail.std(1, correction=0)
