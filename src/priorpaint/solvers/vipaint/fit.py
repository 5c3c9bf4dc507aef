"""Phase 1 of VIPaint: a start, stochastic gradients of the bound, Adam. Images do not feel each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.rng import Streams
from ..base import Callback
from .bound import Bound
from .likelihood import Likelihood
from .presets import Rules
from .variables import Draws, Mixture, Parts, Variational, section

CANDIDATES = 4  # rough samples for each of several components, of which the most different ones start
WEIGHING = 64  # times ``mc_samples`` draws of each component decide its weight in the end, forward only


def other_calls(rules: Rules, components: int, levels: int) -> int:
    """Forward passes of an image before and after the optimiser."""
    if components == 1:
        return rules.fill_steps
    return components * (rules.fill_steps * CANDIDATES + WEIGHING * rules.mc_samples * (levels + 1))


@dataclass(frozen=True)
class Fitted:
    """Result of phase 1: parameters, parts of the bound and objective, each (N, iterations)."""

    parameters: Mixture
    losses: Parts
    objective: Tensor


def fit(
    family: Bound,
    likelihood: Likelihood,
    components: int,
    noise: Streams,
    batch_size: int | None,
    callback: Callback | None,
    watch: Callable[[int, Fitted], None] | None = None,
) -> Fitted:
    """Minimise the bound of the N images of ``likelihood``; ``noise`` has one stream an image.

    Args:
        components: M.
        batch_size: rows (image, component, Monte-Carlo sample) at a time; the gradient is the same for any.
        callback: called as callback(iteration, iterations, D(z_Ts) of all rows).
        watch: called as watch(iterations done, what is fitted so far), before the first one and after each.
    """
    rules = family.rules
    with torch.no_grad():
        lam = start(family, likelihood, components, noise, batch_size)
    optimiser = Adam(rules, lam)
    parts: list[Parts] = []
    objectives: list[Tensor] = []
    for iteration in range(rules.iterations):
        if watch is not None:
            watch(iteration, _so_far(lam, parts, objectives))
        draws = fresh_draws(family, components, lam.mean.shape[3:], noise)
        step = gradient_step(family, lam, likelihood, draws, batch_size)
        parts.append(step.parts)
        objectives.append(step.objective)
        optimiser.step(step.gradient)
        if callback is not None:
            callback(iteration + 1, rules.iterations, step.x_0)
    if components > 1:
        lam = weighed(family, lam, likelihood, noise, batch_size)
    fitted = _so_far(lam, parts, objectives)
    if watch is not None:
        watch(rules.iterations, fitted)
    return fitted


def _so_far(lam: Mixture, parts: list[Parts], objectives: list[Tensor]) -> Fitted:
    """A copy of the parameters, with the losses on the way to them."""
    none = lam.logits.new_zeros(len(lam.logits), 0)
    columns = zip(*parts, strict=True) if parts else [[]] * len(Parts._fields)
    losses = Parts(*(torch.stack(list(column), 1) if column else none for column in columns))
    objective = torch.stack(objectives, 1) if objectives else none
    return Fitted(Mixture(*(value.detach().clone() for value in lam.tensors())), losses, objective)


def start(family: Bound, likelihood: Likelihood, components: int, noise: Streams, batch_size: int | None) -> Mixture:
    """Where the optimiser starts: A^+ y with its holes filled by rough samples, different ones for each component."""
    prior, count = family.prior, len(family.ladder.levels)
    candidates = 1 if components == 1 else CANDIDATES * components
    near = likelihood.rows(torch.arange(len(likelihood.y)).repeat_interleave(candidates))
    blank = torch.zeros_like(near.operator.adjoint(near.y))
    filled = prior.encode(near.explained(blank, family.ladder.levels[0]))
    shape = filled.shape[1:]
    for t in _filling_times(family, components):
        filled = fill(near, filled, noise.normal(candidates, *shape).flatten(0, 1).to(filled), t, batch_size)
    filled = _far_apart(filled.reshape(-1, candidates, *shape), components).flatten(0, 1)
    lam = family.start(filled, noise.normal(components, 2 * count, *shape).flatten(0, 1).to(filled))
    mean, log_var, gate = (value.reshape(-1, components, *value.shape[1:]) for value in lam.tensors())
    return Mixture(mean, log_var, gate, torch.zeros(len(likelihood.y), components).to(mean))


def _far_apart(images: Tensor, count: int) -> Tensor:
    """``count`` of the n images of each row (N, n, C, H, W): the first, then always the farthest from those chosen."""
    flat, chosen = images.flatten(2), [torch.zeros(len(images), dtype=torch.long, device=images.device)]
    row = torch.arange(len(images), device=images.device)
    nearest = torch.full(images.shape[:2], float("inf")).to(images)
    for _ in range(count - 1):
        distance = (flat - flat[row, chosen[-1]][:, None]).square().sum(2)
        nearest = torch.minimum(nearest, distance)
        chosen.append(nearest.argmax(1))
    return images[row[:, None], torch.stack(chosen, 1)]


def _filling_times(family: Bound, components: int) -> Tensor:
    """T_e for each round; with several components down from far above the data to T_s, so that they part."""
    levels, steps = family.ladder.levels, family.rules.fill_steps
    if components == 1 or steps == 0:
        return levels[:1].expand(steps)
    schedule = family.schedule
    wide = schedule.time_at(torch.tensor(4 * family.prior.data_std, dtype=torch.float64))
    return section(schedule, max(float(wide), float(levels[0])), float(levels[-1]), steps)[1:]


def fill(likelihood: Likelihood, x_0: Tensor, noise: Tensor, t: Tensor, batch_size: int | None) -> Tensor:
    """One round: D(x_0 noised to t), made to explain y; x_0 and noise (R, C, H, W)."""
    prior, done = likelihood.prior, []
    for row in torch.split(torch.arange(len(x_0)), batch_size or len(x_0)):
        near = likelihood.rows(row)
        image = prior.decode(prior.denoise(transitions.perturb(prior.schedule, x_0[row], t, noise[row]), t))
        done.append(prior.encode(near.explained(image, t)))
    return torch.cat(done)


@torch.no_grad()
def weighed(family: Bound, lam: Mixture, likelihood: Likelihood, noise: Streams, batch_size: int | None) -> Mixture:
    """With the weights pi that minimise the bound for these chains, as estimated from draws of each.

    The bound is convex in pi. At its minimum sum of parts + log q - log q_m has the same mean under every q_m; the
    multiplicative update pi_m <- pi_m exp(-mean), normalised, gets there (for chains apart, in one step).
    """
    images, rules = len(lam.logits), family.rules
    count = WEIGHING * rules.mc_samples
    draws = fresh_draws(family, lam.count, lam.mean.shape[3:], noise, count)
    losses, densities = [], []
    for row in torch.split(torch.arange(len(draws.top)), batch_size or len(draws.top)):
        image, component = row // (count * lam.count), row // count % lam.count
        part, path, _ = family.parts(lam.rows(image, component), likelihood.rows(image), draws.rows(row))
        losses.append(part.reconstruction / rules.beta + part.kl())
        densities.append(family.log_mixture(replace(lam, logits=torch.zeros_like(lam.logits)), image, path))
    shape = images, lam.count, count
    loss, log_q = torch.cat(losses).reshape(shape), torch.cat(densities).reshape(*shape, lam.count)
    own = log_q.diagonal(dim1=1, dim2=3).mT
    logits = lam.log_weights
    for _ in range(100):
        mixed = torch.logsumexp(logits[:, None, None] + log_q, 3)
        logits = torch.log_softmax(logits - (loss + mixed - own).mean(2), 1)
    return replace(lam, logits=logits.clamp(min=-50))  # a useless chain would go to -infinity


def fresh_draws(family: Bound, components: int, shape: torch.Size, noise: Streams, samples: int | None = None) -> Draws:
    """Noise of each row (image, component, Monte-Carlo sample); the pairs of one component are stratified."""
    count, levels, pairs = samples or family.rules.mc_samples, len(family.ladder.levels), len(family.ladder.pairs)
    normal = noise.normal(components * count, levels + 1, *shape).flatten(0, 1)
    offsets = torch.arange(count, dtype=torch.float64) / count
    u = (noise.uniform(components, 1).double().cpu() + offsets) % 1
    pair = (u * pairs).long().clamp(max=pairs - 1)
    return Draws(normal[:, :levels], normal[:, levels], pair.flatten())


@dataclass(frozen=True)
class Step:
    """One estimate of the loss: parts and objective (N,), gradient of each parameter, D(z_Ts) of all rows."""

    parts: Parts
    objective: Tensor
    gradient: list[Tensor]
    x_0: Tensor


def gradient_step(family: Bound, lam: Mixture, likelihood: Likelihood, draws: Draws, batch_size: int | None) -> Step:
    """The bound summed over images, sum_m pi_m times the mean over m's Monte-Carlo samples, some rows at a time."""
    images, rows = len(lam.logits), len(draws.top)
    count = rows // (images * lam.count)
    gradient = [torch.zeros_like(value) for value in lam.tensors()]
    parts, objectives, estimates = [], [], []
    for row in torch.split(torch.arange(rows), batch_size or rows):
        image, component = row // (count * lam.count), row // count % lam.count
        with torch.enable_grad():
            part, x_0 = _row_parts(family, lam, likelihood.rows(image), draws.rows(row), image, component)
            w_rec, w_kl = family.rules.weights(likelihood.pixels, x_0[0].numel())
            objective = w_rec * part.reconstruction + family.rules.beta * w_kl * part.kl()
            weight = lam.log_weights.exp()[image, component]
            loss = (weight * objective).sum() / count
            new = torch.autograd.grad(loss, lam.tensors(), allow_unused=True)
        for total, value in zip(gradient, new, strict=True):
            total += 0 if value is None else value  # the gate of a single level is unused
        parts.append([value.detach() for value in part])
        objectives.append(objective.detach())
        estimates.append(x_0.detach())
    weights = lam.log_weights.detach().exp()

    def over_components(values: Tensor) -> Tensor:
        return (weights * values.reshape(images, lam.count, count).mean(2)).sum(1)

    whole = Parts(*(over_components(torch.cat(column)) for column in zip(*parts, strict=True)))
    return Step(whole, over_components(torch.cat(objectives)), gradient, torch.cat(estimates))


def _row_parts(
    family: Bound, lam: Mixture, likelihood: Likelihood, draws: Draws, image: Tensor, component: Tensor
) -> tuple[Parts, Tensor]:
    """The parts of rows (R,) of ``image`` and ``component``, and D(z_Ts)."""
    part, path, x_0 = family.parts(lam.rows(image, component), likelihood, draws)
    if lam.count == 1:
        return part, x_0
    weighted = family.log_mixture(lam, image, path)
    own = component[:, None].to(weighted.device)
    log_q = (weighted - lam.log_weights[image]).gather(1, own)[:, 0]
    return part._replace(mixing=torch.logsumexp(weighted, 1) - log_q), x_0


class Adam:
    """Adam on lambda with the rates of the preset; elementwise, so images do not feel each other."""

    def __init__(self, rules: Rules, lam: Mixture | Variational) -> None:
        rates = (rules.lr, rules.lr * rules.lr_log_var, rules.lr * rules.lr_gate, rules.lr)
        self._parameters = [value.requires_grad_() for value in lam.tensors()]
        groups = [{"params": [value], "lr": rate} for value, rate in zip(self._parameters, rates, strict=False)]
        self._adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self._rate = torch.optim.lr_scheduler.LambdaLR(self._adam, rules.rate)

    def step(self, gradient: list[Tensor]) -> None:
        """One update."""
        for value, slope in zip(self._parameters, gradient, strict=True):
            value.grad = slope
        self._adam.step()
        self._rate.step()
