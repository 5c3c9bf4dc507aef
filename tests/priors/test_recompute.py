"""Less memory, same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from priorpaint import DenoiserPrior, NetworkPrior
from priorpaint.diffusion.schedules import VP
from priorpaint.priors.latent import LatentPrior
from priorpaint.priors.recompute import RecomputePrior
from tests.latent_toy import Curved


def network() -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    layers = [torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 3, padding=1)]
    for layer in layers:
        for parameter in layer.parameters():
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return torch.nn.Sequential(*layers)


def prior() -> LatentPrior:
    net = network()
    return LatentPrior(NetworkPrior(lambda x, c: net(x), VP(), (4, None, None)), Curved())


def kept_bytes(call: object, z: Tensor) -> int:
    """Bytes that the graph of a call holds."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call(z)  # type: ignore[operator]
    return sum(storages.values())


def loss_of(some: object, z: Tensor) -> Tensor:
    image = some.decode(some.denoise(z, 0.5))  # type: ignore[attr-defined]
    return (image.square().sum() + some.encode(image).sum()).reshape(())  # type: ignore[attr-defined]


@pytest.mark.parametrize("rows", [None, 1, 2])
def test_values_and_gradients_are_the_same(rows: int | None) -> None:
    plain = prior()
    z = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    wanted = torch.autograd.grad(loss_of(plain, z), z)[0]
    for checkpoint in (True, False):
        some = RecomputePrior(plain, checkpoint=checkpoint, rows=rows)
        torch.testing.assert_close(loss_of(some, z), loss_of(plain, z))
        torch.testing.assert_close(torch.autograd.grad(loss_of(some, z), z)[0], wanted)


def test_a_second_run_is_counted_as_forward() -> None:
    some = RecomputePrior(prior())
    z = torch.randn(3, 4, 6, 6, requires_grad=True, generator=torch.Generator().manual_seed(1))
    torch.autograd.grad(some.denoise(z, 0.5).sum(), z)
    assert (some.nfe.forward, some.nfe.backward) == (3, 3)
    with torch.no_grad():
        some.denoise(z, 0.5)
    assert (some.nfe.forward, some.nfe.backward) == (6, 3)


def test_only_inputs_are_kept() -> None:
    plain, z = prior(), torch.randn(2, 4, 32, 32, requires_grad=True, generator=torch.Generator().manual_seed(1))
    full = kept_bytes(lambda x: plain.decode(plain.denoise(x, 0.5)), z)
    small = kept_bytes(lambda x: (low := RecomputePrior(plain)).decode(low.denoise(x, 0.5)), z)
    assert small < full / 2


def test_rows_are_decoded_one_after_another() -> None:
    plain = prior()
    sizes: list[int] = []
    decode = plain.autoencoder.decode
    plain.autoencoder.decode = lambda z: sizes.append(len(z)) or decode(z)  # type: ignore[method-assign, func-returns-value]
    some = RecomputePrior(plain, rows=2)
    assert some.decode(torch.zeros(5, 4, 4, 4)).shape == (5, 3, 8, 8)
    assert sizes == [2, 2, 1]


def test_a_pixel_prior_passes_through() -> None:
    some = RecomputePrior(DenoiserPrior(lambda x, t: 0.5 * x, VP(), (1, None, None)))
    x = torch.ones(2, 1, 4, 4)
    assert some.decode(x) is x and some.encode(x) is x and not some.latent
