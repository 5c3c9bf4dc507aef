"""Priors: counting, checks, casting and unconditional sampling of any denoiser."""

from __future__ import annotations

import threading

import pytest
import torch

from priorpaint import DenoiserPrior, UsageError
from priorpaint.diffusion.samplers import DDIM, DDPM
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow
from priorpaint.priors import NFE
from priorpaint.priors.info import RunNFE


def shrink(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    assert t.shape == (len(x_t),) and t.dtype == x_t.dtype
    return 0.5 * x_t


def make(**kwargs: object) -> DenoiserPrior:
    return DenoiserPrior(shrink, VP(), (2, 4, None), multiple=2, name="toy", **kwargs)  # type: ignore[arg-type]


def test_times_may_be_a_number_one_or_many() -> None:
    x = torch.ones(3, 2, 4, 6)
    for t in (0.5, torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)):
        assert torch.equal(make().denoise(x, t), 0.5 * x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_output_has_the_dtype_of_the_input(dtype: torch.dtype) -> None:
    prior = DenoiserPrior(lambda x, t: x.double(), VP(), (2, 4, 4))
    assert prior.denoise(torch.ones(1, 2, 4, 4, dtype=dtype), 0.5).dtype == dtype


def test_a_float32_network_takes_the_times_as_they_come() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Linear(1, 1)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            factor: torch.Tensor = self.scale(t[:, None])
            return x * factor[:, :, None, None]

    net = Net()
    prior = DenoiserPrior(lambda x, t: net(x, t), VP("linear"), (1, 4, 4))
    out = prior.denoise(torch.ones(2, 1, 4, 4), torch.tensor([0.2, 0.9]))
    expected = net.scale(torch.tensor([[0.2], [0.9]])).flatten()
    torch.testing.assert_close(out[:, 0, 0, 0], expected)
    assert prior.sample(1, seed=0, steps=2).shape == (1, 1, 4, 4)


def test_evaluations_are_counted_for_each_row() -> None:
    prior, x = make(), torch.ones(3, 2, 4, 4)
    prior.denoise(x, 0.5)
    start = prior.nfe.copy()
    prior.denoise(x[:2].requires_grad_(), 0.5)
    y = x.clone().requires_grad_() * 2
    prior.denoise(y, 0.5)  # the graph reaches x_t through y
    with torch.no_grad():
        prior.denoise(y, 0.5)
    assert prior.nfe == NFE(6, 5) and start == NFE(3, 0)
    assert prior.nfe - start == NFE(3, 5)


def test_each_run_has_its_share_of_the_counts() -> None:
    total = NFE()
    one, other = RunNFE(total), RunNFE(total)
    total.add(1, 1)
    one.add(backward=3)
    with one.listening(), one.listening(), RunNFE(one).listening():
        total.count(5, gradient=False)
        thread = threading.Thread(target=total.add, args=(100, 0))  # of somebody else
        thread.start()
        thread.join()
        with one.uncounted():
            total.add(7, 7)
            total_inside = total.copy()
    other.add(2)
    assert (one.forward, one.backward) == (5, 3) and (other.forward, other.backward) == (2, 0)
    assert total_inside == NFE(113, 11) and total == NFE(108, 4)


def test_what_is_uncounted_is_so_in_its_thread_alone() -> None:
    total = NFE(1, 2)
    with pytest.raises(ValueError, match="on the way"), total.uncounted():
        total.add(4, 4)
        thread = threading.Thread(target=total.add, args=(10, 20))
        thread.start()
        thread.join()
        raise ValueError("on the way")
    assert total == NFE(11, 22)


def test_denoise_is_differentiable() -> None:
    x = torch.ones(1, 2, 4, 4, requires_grad=True)
    make().denoise(x, 0.5).sum().backward()
    assert x.grad is not None and bool((x.grad == 0.5).all())


def test_sizes() -> None:
    prior = make()
    prior.check_size(4, 10)
    for height, width, message in ((6, 10, "height 4, not 6"), (4, 9, "multiple of 2, not 9")):
        with pytest.raises(UsageError, match=message):
            prior.check_size(height, width)


def test_first_noise_has_the_width_of_x_1() -> None:
    noise = torch.ones(1, 2, 4, 4)
    for schedule, expected in (
        (VP(), (4.0358e-5 * 9 + 1 - 4.0358e-5) ** 0.5),
        (EDM(), (9 + 6400) ** 0.5),
        (Flow(), 1.0),
    ):
        prior = DenoiserPrior(shrink, schedule, (2, 4, 4), data_std=3.0)
        assert prior.initial(noise)[0, 0, 0, 0].item() == pytest.approx(expected, rel=1e-6)


def test_samples_do_not_depend_on_num_or_batch_size() -> None:
    prior = make()
    sampler = DDPM(10)
    many = prior.sample(5, seed=0, sampler=sampler, size=(4, 6))
    assert many.shape == (5, 2, 4, 6) and many.dtype == torch.float32
    torch.testing.assert_close(prior.sample(5, seed=0, sampler=sampler, size=(4, 6), batch_size=2), many)
    torch.testing.assert_close(prior.sample(2, seed=0, sampler=sampler, size=(4, 6)), many[:2])
    assert not torch.equal(prior.sample(5, seed=1, sampler=sampler, size=(4, 6)), many)
    assert not torch.equal(many[0], many[1])


def test_sampling_touches_no_global_generator_and_builds_no_graph() -> None:
    weight = torch.full((), 0.5, requires_grad=True)
    prior = DenoiserPrior(lambda x, t: weight * x, VE(), (1, 2, 2))
    state = torch.get_rng_state()
    out = prior.sample(2, seed=0, sampler=DDIM(5))
    assert torch.equal(torch.get_rng_state(), state)
    assert not out.requires_grad and prior.nfe == NFE(12, 0)  # 5 steps, and where they begin


def test_default_sampler_takes_steps() -> None:
    prior = DenoiserPrior(shrink, VE(), (1, 2, 2))
    prior.sample(1, seed=0, steps=8)
    assert prior.nfe.forward == 1 + 2 * 8 - 1  # Heun, and where it begins


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num": 1}, "pass size="),
        ({"num": 0, "size": (4, 4)}, "at least 1"),
        ({"num": 2, "size": (4, 4), "batch_size": 0}, "at least 1"),
        ({"num": 2, "size": (4, 4), "batch_size": -1}, "at least 1"),
        ({"num": 2, "size": (4, 5)}, "multiple of 2"),
        ({"num": 2, "size": (4, 4), "steps": 0}, "steps = 0 is not valid"),
    ],
)
def test_bad_arguments(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make().sample(seed=0, **kwargs)  # type: ignore[arg-type]


def test_pixel_priors_encode_and_decode_nothing() -> None:
    x = torch.rand(1, 2, 4, 4)
    assert make().encode(x) is x and make().decode(x) is x and make().device.type == "cpu"
