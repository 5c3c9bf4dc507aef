"""The exact posterior against listing all combinations, and what must hold for the full law."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from priorpaint.errors import UsageError
from priorpaint.lab.avatars import Avatars, as_tensor, posterior, standard

from .laws import brute, every, listed, random_law, small


def masks(seed: int) -> Tensor:
    """Halves, a window and random pixels, (6, 32, 32)."""
    known = torch.zeros(6, 32, 32)
    known[0, :, :16] = known[1, :, 16:] = known[2, :16] = known[3, 18:] = 1
    known[4, 9:22, 7:20] = 1
    known[5] = (torch.rand(32, 32, generator=torch.Generator().manual_seed(seed)) < 0.03).float()
    return known


def check(avatars: Avatars, y: Tensor, known: Tensor, sigma_y: float) -> None:
    """Everything that the posterior says, against the list."""
    exact = posterior(y, known[:, None], sigma_y, avatars=avatars)
    parts = every(avatars)
    pictures = listed(avatars)
    log_prob = exact.log_prob(np.broadcast_to(parts, (len(y), *parts.shape)))
    torch.testing.assert_close(log_prob.exp().sum(1), torch.ones(len(y)).double(), rtol=0, atol=1e-9)
    for row in range(len(y)):
        _, joint = brute(avatars, y[row], known[row], sigma_y)
        weights = torch.softmax(joint, 0)
        torch.testing.assert_close(exact.log_evidence[row], joint.logsumexp(0), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(log_prob[row].exp(), weights, rtol=1e-7, atol=1e-12)
        for column, part in enumerate(avatars.parts):
            truth = torch.zeros(len(part.options)).double().index_add(0, torch.from_numpy(parts[:, column]), weights)
            torch.testing.assert_close(exact.marginals[part.name][row], truth, rtol=0, atol=1e-9)
        mean = torch.einsum("n,nchw->chw", weights, pictures)
        square = torch.einsum("n,nchw->chw", weights, pictures.square())
        torch.testing.assert_close(exact.mean[row], mean, rtol=0, atol=1e-9)
        # The square root turns a rounding of 1e-12 where the colour is certain into 1e-6.
        torch.testing.assert_close(exact.std[row], (square - mean.square()).clamp(min=0).sqrt(), rtol=0, atol=1e-5)
        if exact.plausible is not None:
            assert round(float(exact.plausible[row]), 6) == int((joint > -torch.inf).sum())


@pytest.mark.parametrize("sigma_y", [0.0, 0.2, 2.0])
def test_small_law_against_the_list(sigma_y: float) -> None:
    avatars, known = small(), masks(0)
    y = as_tensor(avatars.pictures(len(known), 1))
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    check(avatars, y + sigma_y * noise, known, sigma_y)


@pytest.mark.parametrize("covers", [0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_random_laws_against_the_list(seed: int, covers: int) -> None:
    avatars, known = random_law(seed, covers=covers), masks(seed)
    y = as_tensor(avatars.pictures(len(known), seed))
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
    check(avatars, y, known, 0.0)
    check(avatars, y + 0.3 * noise, known, 0.3)


def test_hidden_pixels_are_not_read() -> None:
    y, known = as_tensor(small().pictures(6, 3)), masks(1)[:, None]
    other = torch.where(known > 0, y, torch.nan)
    for sigma_y in (0.0, 0.1):
        first, second = (posterior(values, known, sigma_y, avatars=small()) for values in (y, other))
        assert torch.equal(first.mean, second.mean)
        assert np.array_equal(first.sample(3, seed=0), second.sample(3, seed=0))


def test_samples_follow_the_marginals() -> None:
    num = 4000
    y, known = as_tensor(standard().pictures(4, 5)), masks(0)[:4]
    exact = posterior(y, known[:, None], 0.0)
    drawn = torch.from_numpy(exact.sample(num, seed=6))
    assert exact.log_prob(drawn.numpy()).min() > -100  # all of them agree with y
    tests = 0
    for column, part in enumerate(standard().parts):
        truth = exact.marginals[part.name]
        shares = torch.nn.functional.one_hot(drawn[..., column], len(part.options)).double().mean(1)
        tests += truth.numel()
        # Some 500 binomial shares: 4.5 standard errors are exceeded by chance in .3 % of such tests.
        error = (truth * (1 - truth)).clamp(min=0).div(num).sqrt()
        assert ((shares - truth).abs() <= 4.5 * error + 1e-9).all(), part.name
    assert tests < 500
    pictures = as_tensor(standard().compose(drawn[:, :1000].reshape(-1, drawn.shape[-1]).numpy()))
    mean = pictures.unflatten(0, (4, 1000)).double().mean(1)
    assert ((mean - exact.mean).abs() <= 5 * exact.std / math.sqrt(1000) + 1e-6).all()


def test_samples_know_what_goes_together() -> None:
    """Pairs of parts, which marginals do not show: hat and hair, which explain the same noisy pixels."""
    num, avatars = 4000, small()
    known = masks(0)[2:3]
    y = as_tensor(avatars.pictures(1, 9))
    exact = posterior(y, known[:, None], 7.0, avatars=avatars)
    parts, joint = brute(avatars, y[0], known[0], 7.0)
    pair = [avatars.index["hair"], avatars.index["hat"]]
    truth, shares = np.zeros((3, 2)), np.zeros((3, 2))
    np.add.at(truth, tuple(parts[:, pair].T), torch.softmax(joint, 0).numpy())
    np.add.at(shares, tuple(exact.sample(num, seed=1)[0][:, pair].T), 1 / num)
    assert (truth > 0.01).all()
    assert (np.abs(shares - truth) <= 4.5 * np.sqrt(truth * (1 - truth) / num)).all()


def test_a_sample_depends_on_its_picture_and_seed_only() -> None:
    y, known = as_tensor(standard().pictures(20, 7)), masks(0)[:1, None]
    together = posterior(y, known).sample(5, seed=1)
    alone = posterior(y[17:18], known).sample(3, seed=1)
    assert np.array_equal(together[17, :3], alone[0])
    assert not np.array_equal(together, posterior(y, known).sample(5, seed=2))


def test_nothing_and_everything_known() -> None:
    y = as_tensor(standard().pictures(8, 8))
    nothing = posterior(y, torch.zeros(1, 1, 32, 32))
    for part in standard().parts:
        torch.testing.assert_close(nothing.marginals[part.name], torch.tensor(part.shares).double().expand(8, -1))
    assert nothing.log_evidence.abs().max() < 1e-9
    combinations = math.prod(len(part.options) for part in standard().parts)
    torch.testing.assert_close(nothing.plausible, torch.full((8,), float(combinations)).double())
    everything = posterior(y, torch.ones(1, 1, 32, 32))
    assert everything.plausible is not None
    assert everything.plausible.round().eq(1).all()
    assert everything.std.max() < 1e-4
    torch.testing.assert_close(everything.mean.float(), y, rtol=0, atol=1e-5)


def test_a_conditional_law_gives_the_posterior_given_labels() -> None:
    avatars = small()
    y, known = as_tensor(avatars.pictures(1, 4)), masks(0)[3:4]
    parts, joint = brute(avatars, y[0], known[0], 0.5)
    given = torch.from_numpy(parts[:, avatars.index["hat"]] == 1)
    law = avatars.only({"hat": ("03 red",)})
    _, inside = brute(law, y[0], known[0], 0.5)
    torch.testing.assert_close(torch.softmax(joint[given], 0), torch.softmax(inside, 0))
    check(law, y, known, 0.5)


def test_refusals() -> None:
    y = as_tensor(standard().pictures(2, 0))
    everything = torch.ones(1, 1, 32, 32)
    with pytest.raises(UsageError, match="No avatar agrees with the known pixels of picture 1"):
        posterior(torch.stack([y[0], -y[1]]), everything)
    with pytest.raises(UsageError, match="the mask of 2 avatars is"):
        posterior(y, torch.ones(3, 1, 32, 32))
    with pytest.raises(UsageError, match=r"avatars are \(N, 3, 32, 32\)"):
        posterior(y[:, :1], everything)
    with pytest.raises(UsageError, match="sigma_y is a standard deviation"):
        posterior(y, everything, -0.1)
    with pytest.raises(UsageError, match="0 or at least 1e-05"):
        posterior(y, everything, 1e-7)
