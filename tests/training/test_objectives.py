"""Each loss leads a small network to a denoiser that is known in closed form; the learned variance to the true one.

Pictures of 2x2 grey pixels and a small perceptron on their 4 values: what is tested is the loss, not the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from priorpaint.diffusion.schedules import EDM, VP
from priorpaint.diffusion.transitions import backward_weights, like
from priorpaint.errors import UsageError
from priorpaint.priors.analytic import GaussianMixture
from priorpaint.priors.likelihood import bits_per_value, bound
from priorpaint.priors.network import NetworkPrior
from priorpaint.training.objectives import EDMObjective, HybridObjective, Objective, SimpleObjective, VLBObjective

MIX = torch.randn(4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64) / 4
COV = MIX @ MIX.mT + 0.02 * torch.eye(4, dtype=torch.float64)
GAUSSIAN = GaussianMixture([1.0], [[0.1, -0.2, 0.0, 0.3]], COV.tolist(), (1, 2, 2))
SPOT = (0.1**2 * torch.eye(4, dtype=torch.float64)).tolist()
MIXTURE = GaussianMixture([0.3, 0.7], [[0.6, 0.6, -0.2, 0.4], [-0.5, -0.3, 0.2, -0.6]], SPOT, (1, 2, 2))
LEVELS = (0.1, 0.3, 0.6, 1.0, 3.0)


class Perceptron(nn.Module):
    """F(x, c_noise, labels) for x (N, 1, 2, 2)."""

    def __init__(self, outputs: int = 1, classes: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.classes, self.outputs = classes, outputs
        widths = (4 + 9 + classes + 1, 96, 96, 4 * outputs)
        layers = [nn.Linear(before, after) for before, after in pairwise(widths)]
        with torch.no_grad():
            for layer in layers:
                layer.weight.normal_(0, (2 / layer.in_features) ** 0.5, generator=generator)
                layer.bias.zero_()
            layers[-1].weight.zero_()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is None:
            labels = torch.full((len(x),), self.classes)
        angles = c_noise[:, None] * torch.tensor([1.0, 2.0, 4.0, 8.0])
        told = nn.functional.one_hot(labels[: len(x)], self.classes + 1).to(x)
        h = torch.cat([x.flatten(1), c_noise[:, None], angles.sin(), angles.cos(), told], dim=1)
        for layer in self.layers[:-1]:
            h = nn.functional.silu(layer(h))
        out: Tensor = self.layers[-1](h)
        return out.reshape(-1, self.outputs, 2, 2)


def network(learned_variance: bool = False, classes: int = 0) -> Perceptron:
    return Perceptron(2 if learned_variance else 1, classes)


def draw(target: GaussianMixture, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x_0 (N, 1, 2, 2) and its component (N,)."""
    which = torch.multinomial(target.weights, count, replacement=True, generator=generator)
    factors = torch.linalg.cholesky(target.covs)
    noise = torch.randn(count, target.dim, generator=generator, dtype=torch.float64)
    x = target.means[which] + torch.einsum("nij,nj->ni", factors[which], noise)
    return x.float().reshape(-1, *target.shape), which


def fit(
    net: Perceptron,
    target: GaussianMixture,
    objective: Objective,
    steps: int = 600,
    dropout: float = 0.0,
    batch: int = 256,
) -> None:
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, 2 * (1 - step / steps) + 0.01)
        x_0, labels = draw(target, batch, generator)
        told: Callable[..., Tensor] = net
        if net.classes:
            hidden = torch.rand(batch, generator=generator) < dropout
            told = partial(net, labels=torch.where(hidden, net.classes, labels))
        optimizer.zero_grad()
        objective.losses(told, x_0, generator).weighed.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@torch.no_grad()
def errors(denoise: Callable[[Tensor, Tensor], Tensor], target: GaussianMixture) -> list[float]:
    """Root mean square distance of the denoiser from the exact one at each level of LEVELS, for x from the target."""
    generator, schedule = torch.Generator().manual_seed(3), EDM(sigma_min=1e-3, sigma_max=80)
    exact = GaussianMixture(target.weights, target.means, target.covs, target.shape, schedule)
    distances = []
    for sigma in LEVELS:
        x_0, _ = draw(target, 4000, generator)
        x = x_0 + sigma * torch.randn(x_0.shape, generator=generator)
        right = exact.denoise(x, schedule.time_at(torch.tensor(sigma, dtype=torch.float64)))
        distances.append(float((denoise(x, torch.full((len(x),), sigma)) - right).square().mean().sqrt()))
    return distances


def objective(name: str) -> Objective:
    if name == "edm":
        return EDMObjective(-1.0, 1.2, (0.02, 10.0), 0.5, balance=True)
    return {"simple": SimpleObjective, "hybrid": HybridObjective}[name]("linear")


@pytest.mark.parametrize("target", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("name", ["edm", "simple", "hybrid"])
def test_a_known_denoiser_is_recovered(name: str, target: GaussianMixture) -> None:
    net, wanted = network(name == "hybrid"), objective(name)
    before = errors(partial(wanted.denoise, net), target)
    fit(net, target, wanted)
    after = errors(partial(wanted.denoise, net), target)
    # Pictures have a standard deviation of 0.3 to 0.6; what is predicted as noise is off by sigma times its error.
    assert all(error < 0.05 + 0.03 * sigma for error, sigma in zip(after, LEVELS, strict=True)), after
    assert max(after) < 0.25 * max(before)


def test_labels_and_the_null_class_are_learned_in_one_network() -> None:
    net, wanted = network(classes=2), objective("edm")
    fit(net, MIXTURE, wanted, dropout=0.3)
    assert max(errors(partial(wanted.denoise, net), MIXTURE)) < 0.08
    for label in (0, 1):
        alone = GaussianMixture([1.0], MIXTURE.means[label : label + 1].tolist(), SPOT, (1, 2, 2))
        told = partial(net, labels=torch.full((4000,), label))
        assert max(errors(partial(wanted.denoise, told), alone)) < 0.06


def test_the_learned_variance_is_that_of_the_reverse_step() -> None:
    # x_0 ~ N(0, s^2): the true reverse variance is beta~ + (coefficient of x_0)^2 Var[x_0 | x_t].
    spread = 0.5
    target = GaussianMixture([1.0], [[0.0] * 4], (spread**2 * torch.eye(4)).tolist(), (1, 2, 2))
    wanted = HybridObjective("linear")
    net = network(learned_variance=True)
    fit(net, target, wanted)
    beta, abar = wanted.beta, wanted.log_abar.exp()
    for index in (20, 60, 200, 500):
        before = abar[index - 1]
        to_x_0 = before.sqrt() * beta[index] / (1 - abar[index])
        left = spread**2 * (1 - abar[index]) / (abar[index] * spread**2 + 1 - abar[index])
        true = float(beta[index] * (1 - before) / (1 - abar[index]) + to_x_0**2 * left)
        x_t = torch.randn(500, 1, 2, 2, generator=torch.Generator().manual_seed(4))
        x_t = x_t * float((abar[index] * spread**2 + 1 - abar[index]).sqrt())
        c_noise = (0.5 * ((1 - abar[index]) / abar[index]).log() / 4).float().expand(500)
        with torch.no_grad():
            learned = wanted.variance(net(x_t, c_noise), torch.full((500,), index)).exp().mean()
        small = float(wanted.log_small[index].exp())
        assert abs(math.log(float(learned) / true)) < 0.5 * abs(math.log(float(beta[index]) / small)) + 0.01


def test_simple_is_the_mean_square_error_of_the_noise_at_uniform_steps() -> None:
    wanted, calls = SimpleObjective(), []

    def zero(x: Tensor, c_noise: Tensor) -> Tensor:
        calls.append((x, c_noise))
        return torch.zeros_like(x)

    x_0 = 0.3 * torch.ones(20000, 1, 2, 2)
    losses = wanted.losses(zero, x_0, torch.Generator().manual_seed(0))
    assert losses.plain is losses.weighed
    assert losses.plain.mean().item() == pytest.approx(1, abs=0.02)  # E eps^2; standard error 0.005
    (x_t, c_noise), schedule = calls[0], VP()
    times = schedule.time_at((4 * c_noise.double()).exp())
    steps = (1000 * times).round()
    torch.testing.assert_close(1000 * times, steps, atol=2e-3, rtol=0)
    assert (int(steps.min()), int(steps.max())) == (1, 1000)
    assert steps.mean().item() == pytest.approx(500.5, abs=10)  # standard error 2
    alpha, sigma = schedule.alpha(times)[:, None, None, None], schedule.sigma(times)[:, None, None, None]
    residual = (x_t - alpha * x_0) / sigma
    assert residual.mean().item() == pytest.approx(0, abs=0.02) and residual.std().item() == pytest.approx(1, abs=0.02)


def test_the_bound_of_the_exact_reverse_step_is_that_of_the_paper() -> None:
    # A network that knows eps and says v = 0 (beta~) has KL 0 at every step but the first.
    wanted = HybridObjective()
    x_0 = torch.full((8000, 1, 2, 2), 0.2)
    noise: list[Tensor] = []

    def knows(x: Tensor, c_noise: Tensor) -> Tensor:
        nsr = (4 * c_noise.double()).exp()[:, None, None, None]
        alpha = (1 + nsr**2).rsqrt()
        noise.append(((x - alpha * x_0) / (alpha * nsr)).float())
        return torch.cat([noise[-1], -torch.ones_like(x)], dim=1)

    plain = wanted.losses(knows, x_0, torch.Generator().manual_seed(0)).plain
    # In about 8 of 8000 rows t = 1; beta~_2 = 5e-5 is a width of 0.007, and the pixel's 1/127.5 bin holds 0.73 or less.
    assert float(plain.median()) < 1e-4
    assert 0.2 < float(plain.max()) < 4


def test_denoisers_of_zero_networks() -> None:
    x, sigma = torch.ones(2, 1, 2, 2), torch.tensor([0.5, 2.0])
    zero = lambda x, c: torch.zeros_like(x)  # noqa: E731
    torch.testing.assert_close(SimpleObjective().denoise(zero, x, sigma), x)
    assert SimpleObjective().levels == VP().nsr_range and objective("edm").levels == (0.02, 10.0)


def exact_mean(x: Tensor, c_noise: Tensor) -> Tensor:
    """E[x_{t-1} | x_t] of GAUSSIAN at the entries of the linear table: what `VLBObjective` asks a network for."""
    schedule = VP()
    t = (1000 * schedule.time_at((4 * c_noise.double()).exp())).round() / 1000
    a, b = backward_weights(schedule, t, schedule.entry_below(t))
    return like(a, x) * x + like(b, x) * GAUSSIAN.denoise(x, t)


def test_the_loss_vlb_is_the_bound() -> None:
    """In bits a value: its mean over the steps is the sum of all terms but L_T, for a network that is exact."""
    x_0 = (draw(GAUSSIAN, 40, torch.Generator().manual_seed(3))[0].clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1
    wanted, index, generator = VLBObjective(), torch.arange(1000), torch.Generator().manual_seed(0)
    found = []
    for x in x_0:
        noise = torch.randn(1000, 1, 2, 2, generator=generator)
        alpha, sigma = (values.float()[:, None, None, None] for values in (wanted.alpha, wanted.sigma))
        x_t = alpha * x + sigma * noise
        out = exact_mean(x_t, (sigma / alpha).log().flatten() / 4)
        found.append(wanted._loss(out, x.expand(1000, 1, 2, 2), x_t, noise, index).mean())
    terms = bound(GAUSSIAN, x_0, steps=1000, spacing="respaced")
    apart = torch.stack(found).double() - bits_per_value(terms.total - terms.prior, 4)
    assert float(apart.mean()) == pytest.approx(0, abs=4 * float(apart.std()) / math.sqrt(40))
    assert float(apart.std()) / math.sqrt(40) < 0.5


def test_a_mean_becomes_a_denoiser_at_and_between_the_entries_of_the_table() -> None:
    """D = (F - a x_t) / b, by the objective and by `NetworkPrior`, whose network's float32 b enlarges by up to 1e4."""
    wanted, schedule = VLBObjective(), VP()
    prior = NetworkPrior(
        exact_mean, schedule, (1, 2, 2), prediction="mean", condition=lambda t: schedule.log_nsr(t) / 4
    )
    x = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = torch.tensor([1.0, 0.5, 0.1, 0.002, 0.001], dtype=torch.float64)
    torch.testing.assert_close(prior.denoise(x, t), GAUSSIAN.denoise(x, t), rtol=0, atol=1e-3)
    alpha, sigma, _ = schedule.level(t)
    other = wanted.denoise(exact_mean, x / like(alpha, x), sigma / alpha)
    torch.testing.assert_close(other, GAUSSIAN.denoise(x, t), rtol=1e-5, atol=1e-5)

    def means(x_t: Tensor, c_noise: Tensor) -> Tensor:  # of a denoiser that always says 0.3, at any time
        t = schedule.time_at((4 * c_noise.double()).exp())
        a, b = backward_weights(schedule, t, schedule.entry_below(t))
        return like(a, x_t) * x_t + like(b, x_t) * 0.3

    between = torch.tensor([0.99951, 0.5005, 0.0013, 0.0004, 0.7], dtype=torch.float64)
    always = NetworkPrior(means, schedule, (1, 2, 2), prediction="mean", condition=lambda t: schedule.log_nsr(t) / 4)
    found = always.denoise(x, between)
    torch.testing.assert_close(found, torch.full_like(found, 0.3), rtol=0, atol=1e-3)
    with pytest.raises(UsageError, match="table of betas"):
        NetworkPrior(means, EDM(), (1, 2, 2), prediction="mean")


def test_the_bound_is_harder_to_train_on_than_the_simple_loss() -> None:
    """The lecture's problem: the same network and updates, from the same start, but for the loss."""
    after = {}
    for kind in (SimpleObjective, VLBObjective):
        net, wanted = network(), kind()
        fit(net, MIXTURE, wanted, steps=300)
        after[kind] = errors(partial(wanted.denoise, net), MIXTURE)
    assert all(bad > 2 * good for bad, good in zip(after[VLBObjective][2:], after[SimpleObjective][2:], strict=True))
