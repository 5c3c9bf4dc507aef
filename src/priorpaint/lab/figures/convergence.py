"""How fast VIPaint's fit converges with few and with more levels (Agarwal et al., Fig. 10)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...solvers.vipaint.posterior import Posterior
from ..theory.figure import require_matplotlib
from .base import COLOURS, Drawn, Request, figure, rounded

_LEVELS = (2, 4)
_SMALLEST = 64  # side of pictures that LPIPS tells apart; smaller ones are enlarged


@figure("vipaint-convergence", "VIPaint, Fig. 10", "iterations", "steps", "levels", "every", "method", plots=True)
def convergence(request: Request) -> Drawn:
    """The bound and the distance of samples to the truth against the iterations of the fit, for several K"""
    chosen = request.settings.levels or _LEVELS
    curves = {}
    for done, count in enumerate(chosen):
        request.report(done, len(chosen), f"K = {count}")
        curves[count] = _curves(request, count)
    request.report(len(chosen), len(chosen), "drawn")
    return Drawn(_plot(request, curves), {"curves": {f"K={count}": curve for count, curve in curves.items()}})


def _curves(request: Request, count: int) -> dict[str, Any]:
    """Of one number of levels: the bound at every iteration, and distances of samples at some."""
    examples, settings = request.examples, request.settings
    method = request.vipaint(count)
    stops, kept = settings.stops(method.rules.iterations), list[Posterior]()

    def watch(iteration: int, posterior: Posterior) -> None:
        if iteration in stops:
            kept.append(posterior)

    posterior = method.fit(request.prior, examples.operator, examples.y, seed=settings.seed, watch=watch)
    distances = [_distance(request, state.sample(settings.samples or 4, seed=settings.seed)) for state in kept]
    means = torch.stack(distances).mean(2)  # (stops, B)
    noise = means.std(1) / len(examples.x) ** 0.5 if len(examples.x) > 1 else torch.zeros(len(means))
    return {
        "bound": rounded(posterior.losses.total().mean(0)),
        "iterations": stops,
        "distance": rounded(means.mean(1)),
        "standard_error": rounded(noise),
    }


def _distance(request: Request, samples: Tensor) -> Tensor:
    """LPIPS to the truth where its weights were given, else the root mean square error in the hole, (B, n)."""
    x, lpips = request.examples.x, request.lpips
    if lpips is None:
        return request.examples.error(samples)
    factor = max(1, -(-_SMALLEST // min(x.shape[-2:])))
    pairs = samples.flatten(0, 1), x[:, None].expand_as(samples).flatten(0, 1)
    a, b = (F.interpolate(each.expand(-1, 3, -1, -1).clamp(-1, 1), scale_factor=factor) for each in pairs)
    return lpips(a, b).reshape(samples.shape[:2])


def _running_mean(values: list[float]) -> NDArray[np.float64]:
    """The mean of the last tenth of all values, or of those there are so far."""
    width = max(1, len(values) // 10)
    total = np.concatenate([[0.0], np.cumsum(values)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - width, 0)
    mean: NDArray[np.float64] = (total[last] - total[first]) / (last - first)
    return mean


def _plot(request: Request, curves: dict[int, dict[str, Any]]) -> Image.Image:
    figure = require_matplotlib()(figsize=(9.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    late = []
    for colour, (count, curve) in zip(COLOURS * len(curves), curves.items(), strict=False):
        bound = curve["bound"]
        done = np.arange(1, len(bound) + 1)
        left.plot(done, bound, color=colour, lw=0.8, alpha=0.35)
        left.plot(done, _running_mean(bound), color=colour, lw=1.8, label=f"K = {count}")
        late += bound[len(bound) // 20 :]
        values, errors = np.array(curve["distance"]), np.array(curve["standard_error"])
        right.plot(curve["iterations"], values, color=colour, lw=1.5, marker="o", ms=4, label=f"K = {count}")
        right.fill_between(curve["iterations"], values - errors, values + errors, color=colour, alpha=0.15, lw=0)
    # The first steps are far above the rest and would flatten it.
    low, high = min(late), float(np.quantile(late, 0.98))
    left.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))
    left.set_ylabel("bound on -log p(y), nats a picture")
    network = "" if request.lpips is None else f"LPIPS ({request.lpips.name})"
    right.set_ylabel(f"{network or 'error in the hole'} of samples")
    for axes in (left, right):
        axes.set_xlabel("iterations of the fit")
        axes.grid(color="0.92")
        axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white")
    return Image.open(buffer, formats=["PNG"]).convert("RGB")
