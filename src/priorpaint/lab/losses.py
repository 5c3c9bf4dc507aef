"""``python -m priorpaint.lab.losses``: why the variational bound is hard to train on, in the plane (docs/train.md).

The same small network learns eight spots on a circle, with the same data, noise, steps and optimiser, by three losses:
the bound of predicted means, the bound of predicted noise, and L_simple.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from ..diffusion import transitions
from ..diffusion.rng import Streams, derive
from ..diffusion.samplers import DDPM
from ..diffusion.schedules import VP
from ..diffusion.transitions import like, perturb
from ..errors import UsageError, run_module
from ..priors.analytic import GaussianMixture
from ..priors.base import DenoiserPrior
from ..priors.likelihood import bits_per_value, bound
from ..training.objectives import Network, Objective, SimpleObjective, VLBObjective
from .theory.figure import require_matplotlib

MODES, RADIUS, SPOT = 8, 0.7, 0.08
LEVELS = (0.03, 0.1, 0.3, 1.0)
_STEPS, _TESTED = 100, 1000

app = typer.Typer(add_completion=False, rich_markup_mode=None, help=__doc__)


class ResidualVLB(VLBObjective):
    """The bound, of a network whose output is the noise: mu = a x_t + b (x_t - sigma_t F) / alpha_t."""

    prediction = "eps"

    def denoise(self, network: Network, x: Tensor, sigma: Tensor) -> Tensor:
        return SimpleObjective.denoise(self, network, x, sigma)

    def _loss(self, out: Tensor, x_0: Tensor, x_t: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        t = (index + 1).double() / len(self.beta)
        a, b = transitions.backward_weights(self.schedule, t, self.schedule.entry_below(t))
        alpha, sigma, _ = self.schedule.level(t)
        guess = (x_t - like(sigma, x_t) * out) / like(alpha, x_t)
        return super()._loss(like(a, x_t) * x_t + like(b, x_t) * guess, x_0, x_t, noise, index)


LOSSES: dict[str, type[SimpleObjective]] = {
    "vlb, predicting the mean": VLBObjective,
    "vlb, predicting the noise": ResidualVLB,
    "simple, predicting the noise": SimpleObjective,
}


@dataclass(frozen=True)
class Outcome:
    """What a network is worth after its training.

    Attributes:
        bits: variational bound on -log2 p of a test point, a value, on all 1000 steps (of the density).
        errors: rms distance of the denoiser from the exact one, at each of ``LEVELS``.
        inside: share of samples (DDPM, 100 steps) within three standard deviations of a spot; 0.989 of the law itself.
    """

    bits: float
    errors: tuple[float, ...]
    inside: float


class Perceptron(nn.Module):
    """F(x, c_noise) for points (N, 1, 1, 2)."""

    def __init__(self, seed: int, width: int = 128) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        layers = [nn.Linear(*pair) for pair in pairwise((2 + 17, width, width, width, 2))]
        with torch.no_grad():
            for layer in layers:
                layer.weight.normal_(0, (2 / layer.in_features) ** 0.5, generator=generator)
                layer.bias.zero_()
            layers[-1].weight.zero_()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None] * 2.0 ** torch.arange(8)
        h = torch.cat([x.flatten(1), c_noise[:, None], angles.sin(), angles.cos()], dim=1)
        for layer in self.layers[:-1]:
            h = nn.functional.silu(layer(h))
        out: Tensor = self.layers[-1](h)
        return out.reshape(x.shape)


def spots() -> GaussianMixture:
    """Eight spots on a circle, on DDPM's linear table."""
    angles = 2 * math.pi * torch.arange(MODES) / MODES
    means = RADIUS * torch.stack([angles.cos(), angles.sin()], 1)
    return GaussianMixture([1.0] * MODES, means, SPOT**2 * torch.eye(2), schedule=VP())


def trained(objective: Objective, steps: int, *, seed: int, batch: int = 256, rate: float = 2e-3) -> Perceptron:
    """A network after ``steps`` steps of Adam, whose rate falls to 0 along a line."""
    net, law = Perceptron(seed), spots()
    x = law.sample(50_000, seed=derive("losses", seed))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        rows = torch.randint(len(x), (batch,), generator=generator)
        optimizer.zero_grad()
        objective.losses(net, x[rows], generator).weighed.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net.requires_grad_(False).eval()


def as_prior(objective: Objective, net: Perceptron) -> DenoiserPrior:
    """The network's denoiser on DDPM's linear table."""
    schedule = VP()

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma, _ = schedule.level(t.double())
        return objective.denoise(net, x_t / like(alpha, x_t), (sigma / alpha).to(x_t))

    return DenoiserPrior(denoise, schedule, (1, 1, 2), name="spots")


def judged(prior: DenoiserPrior | GaussianMixture, samples: Tensor) -> Outcome:
    """What a denoiser is worth, ``samples`` being drawn with it."""
    law, test = spots(), spots().sample(_TESTED, seed=derive("losses test"))
    bits = bits_per_value(bound(prior, test, steps=1000, spacing="respaced", decoder="gaussian").total, 2)
    errors = []
    for nsr in LEVELS:
        t = law.schedule.time_at(torch.tensor(nsr, dtype=torch.float64))
        noise = Streams([derive("losses noise", str(nsr))]).normal(_TESTED, 2).reshape(test.shape)
        x_t = perturb(law.schedule, test, t, noise)
        errors.append(float((prior.denoise(x_t, t) - law.denoise(x_t, t)).square().mean().sqrt()))
    nearest = torch.cdist(samples.double().flatten(1), law.means).amin(1)
    return Outcome(float(bits.mean()), tuple(errors), float((nearest < 3 * SPOT).double().mean()))


@app.command()
def main_command(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="PNG", help="The figure; its numbers go beside it.")],
    steps: Annotated[int, typer.Option(min=1, max=1_000_000, metavar="N", help="Training steps of 256 points.")] = 3000,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of everything that is random.")] = 0,
) -> None:
    """Train a small network on points in the plane by each loss, and show what it has learned."""
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out is a PNG file, not {out}.")
    figure = require_matplotlib()(figsize=(13, 3.7), layout="constrained")
    out.parent.mkdir(parents=True, exist_ok=True)
    law, walk = spots(), DDPM(_STEPS, "respaced")
    drawn = {"the law": law.sample(_TESTED, seed=1, sampler=walk)}
    outcomes = {"the law": judged(law, drawn["the law"])}
    for name, kind in LOSSES.items():
        objective = kind()
        prior = as_prior(objective, trained(objective, steps, seed=seed))
        drawn[name] = prior.sample(_TESTED, seed=1, sampler=walk)
        outcomes[name] = judged(prior, drawn[name])
        typer.echo(f"{name}: {_sentence(outcomes[name])}")
    for axes, (name, points) in zip(figure.subplots(1, len(drawn)), drawn.items(), strict=True):
        x, y = points.flatten(1).mT.numpy()
        axes.scatter(x, y, s=3, color="#0072B2", linewidths=0, alpha=0.6)
        axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal", title=name)
        axes.set_xlabel(f"{outcomes[name].bits:.2f} bits a value, {outcomes[name].inside:.1%} in a spot")
        axes.tick_params(labelsize=8)
    figure.savefig(out, dpi=130)
    numbers = {"steps": steps, "seed": seed, "levels": LEVELS, **{name: asdict(o) for name, o in outcomes.items()}}
    out.with_suffix(".json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"the law: {_sentence(outcomes['the law'])}\n{out}\n{out.with_suffix('.json')}")


def _sentence(outcome: Outcome) -> str:
    errors = ", ".join(f"{error:.4f} at {level:g}" for error, level in zip(outcome.errors, LEVELS, strict=True))
    inside = f"{outcome.inside:.1%} of the samples in a spot"
    return f"bound {outcome.bits:.3f} bits a value; {inside}; denoiser off by {errors}"


def main() -> None:
    """Run it; an error is one sentence."""
    run_module(app, "priorpaint.lab.losses")


if __name__ == "__main__":
    main()
