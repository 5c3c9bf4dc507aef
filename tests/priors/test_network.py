"""Networks: the x_0 of every prediction, what reaches the network, and what comes back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from priorpaint import NetworkPrior, UsageError
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.priors.network import PREDICTIONS

SCHEDULES = {"vp": VP(), "cosine": VP("cosine"), "ve": VE(), "edm": EDM(), "flow": Flow()}
T = torch.tensor([0.03, 0.3, 0.7, 0.95], dtype=torch.float64)


def noisy(schedule: Schedule) -> tuple[Tensor, Tensor, Tensor]:
    """x_0, eps and x_t, float64, one row a time in T."""
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64, generator=generator)
    alpha, sigma = (f(T)[:, None, None, None] for f in (schedule.alpha, schedule.sigma))
    return x_0, eps, alpha * x_0 + sigma * eps


def target(prediction: str, schedule: Schedule, x_0: Tensor, eps: Tensor, sigma_data: float) -> Tensor:
    """What a perfect network says, from each paper's definition."""
    alpha, sigma = (f(T)[:, None, None, None] for f in (schedule.alpha, schedule.sigma))
    if prediction == "edm":
        # Karras et al. 2022, Eq. 8: (x_0 - c_skip z) / c_out, with the constants of their Table 1.
        noise = sigma / alpha
        z = x_0 + noise * eps
        c_skip = sigma_data**2 / (noise**2 + sigma_data**2)
        c_out = noise * sigma_data / (noise**2 + sigma_data**2).sqrt()
        return (x_0 - c_skip * z) / c_out
    if prediction == "mean":  # Ho et al. 2020, Eq. 7, at the entries 30, 300, 700 and 950 of the table
        assert isinstance(schedule, VP)
        index, abar = (1000 * T).round().long() - 1, (1 - schedule.betas).cumprod(0)
        levels = schedule.betas[index], abar[index], abar[index - 1]
        beta, now, before = (values[:, None, None, None] for values in levels)
        to_x_0, to_x_t = before.sqrt() * beta / (1 - now), (1 - beta).sqrt() * (1 - before) / (1 - now)
        return to_x_0 * x_0 + to_x_t * (alpha * x_0 + sigma * eps)
    return {"eps": eps, "x0": x_0, "v": alpha * eps - sigma * x_0, "flow": eps - x_0}[prediction]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("family", SCHEDULES)
def test_a_perfect_network_gives_x_0_back(prediction: str, family: str) -> None:
    schedule = SCHEDULES[family]
    if family == "flow" and prediction in ("eps", "edm"):
        with pytest.raises(UsageError, match="alpha"):
            NetworkPrior(lambda x, c: x, schedule, (3, 2, 2), prediction=prediction)
        return
    if prediction == "mean" and not isinstance(schedule, VP):
        with pytest.raises(UsageError, match="table of betas"):
            NetworkPrior(lambda x, c: x, schedule, (3, 2, 2), prediction=prediction)
        return
    x_0, eps, x_t = noisy(schedule)
    answer = target(prediction, schedule, x_0, eps, 0.7)
    prior = NetworkPrior(
        lambda x, c: answer, schedule, (3, 2, 2), prediction=prediction, sigma_data=0.7, dtype=torch.float64
    )
    # eps is known to 1e-16, and dividing by alpha (down to 0.008 at these times) is all that can amplify it.
    # A mean is divided by the weight of x_0 in it, down to 0.0002.
    torch.testing.assert_close(prior.denoise(x_t, T), x_0, rtol=0, atol=1e-9 if prediction == "mean" else 1e-11)


def test_edm_input_and_condition() -> None:
    """c_in = 1 / sqrt(sigma^2 + sigma_data^2) on z = x / alpha, and c_noise = ln(sigma) / 4."""
    for schedule in (EDM(), VP()):
        calls: list[tuple[Tensor, Tensor]] = []

        def network(x: Tensor, condition: Tensor, calls: list[tuple[Tensor, Tensor]] = calls) -> Tensor:
            calls.append((x, condition))
            return x

        prior = NetworkPrior(network, schedule, (3, 2, 2), prediction="edm", sigma_data=0.5)
        assert prior.data_std == 0.5
        _, _, x_t = noisy(schedule)
        prior.denoise(x_t.float(), T)
        noise = schedule.sigma(T) / schedule.alpha(T)
        z = x_t / schedule.alpha(T)[:, None, None, None]
        torch.testing.assert_close(calls[0][0], (z / (noise**2 + 0.25).sqrt()[:, None, None, None]).float())
        torch.testing.assert_close(calls[0][1], (noise.log() / 4).float())


def test_condition_of_an_index_conditioned_network() -> None:
    calls: list[Tensor] = []

    def network(x: Tensor, condition: Tensor) -> Tensor:
        calls.append(condition)
        return x

    x = torch.ones(2, 3, 2, 2)
    NetworkPrior(network, VP(), (3, 2, 2), condition=lambda t: 1000 * t - 1).denoise(x, torch.tensor([1e-3, 1.0]))
    torch.testing.assert_close(calls[0], torch.tensor([0.0, 999.0]), rtol=0, atol=1e-4)
    NetworkPrior(network, VP(), (3, 2, 2)).denoise(x, torch.tensor([0.25, 1.0]))
    assert calls[1].tolist() == [0.25, 1.0] and calls[1].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_images_are_cast_for_the_network_only(dtype: torch.dtype) -> None:
    calls: list[torch.dtype] = []

    def network(x: Tensor, condition: Tensor) -> Tensor:
        calls.append(x.dtype)
        return 0 * x

    prior = NetworkPrior(network, VP(), (3, 2, 2), prediction="v", dtype=dtype)
    x = torch.rand(2, 3, 2, 2)
    out = prior.denoise(x, 0.5)
    assert calls == [dtype] and out.dtype == torch.float32
    # A silent network predicts x_0 = alpha x_t, in full precision: x_t itself is never rounded.
    torch.testing.assert_close(out, VP().alpha(torch.tensor(0.5)) * x, rtol=1e-6, atol=0)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "edm"])
def test_extra_channels_are_cut(prediction: str) -> None:
    x = torch.rand(2, 3, 2, 2)
    plain = NetworkPrior(lambda x, c: 0.3 * x, VP(), (3, 2, 2), prediction=prediction).denoise(x, 0.5)
    wide = NetworkPrior(lambda x, c: torch.cat([0.3 * x, 99 + x], 1), VP(), (3, 2, 2), prediction=prediction)
    assert torch.equal(wide.denoise(x, 0.5), plain)


def test_counts_gradients_and_frozen_weights() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.9))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network

        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            out: Tensor = self.body(x)
            return out

    prior = NetworkPrior(Net(), VP(), (3, 2, 2))
    x = torch.rand(2, 3, 2, 2, requires_grad=True)
    prior.denoise(x, 0.5).sum().backward()
    prior.denoise(x.detach(), 0.5)
    assert (prior.nfe.forward, prior.nfe.backward) == (2, 2)
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(prior.denoise(x.detach(), 0.5), prior.denoise(x.detach(), 0.5)), "dropout is off"
    assert prior.device.type == "cpu"


def test_unknown_prediction() -> None:
    with pytest.raises(UsageError, match="eps, v, x0, edm, flow"):
        NetworkPrior(lambda x, c: x, VP(), (3, 2, 2), prediction="noise")
