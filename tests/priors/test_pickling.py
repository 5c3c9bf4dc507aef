"""A prior in another process: it travels as what it was loaded by, or whole where it is plain numbers."""

from __future__ import annotations

import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from priorpaint import AnySize, DenoiserPrior, NetworkPrior, Prior, PriorError
from priorpaint.diffusion.schedules import VP
from priorpaint.priors.analytic import Gaussian
from priorpaint.priors.latent import LatentPrior
from priorpaint.priors.loading import embedded_file, load_prior
from priorpaint.priors.recompute import LowMemory


def evaluated(prior: Prior) -> tuple[Tensor, Tensor, str | None, int]:
    """What a prior says of one fixed x_t; x_t, and what else came over."""
    x_t = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    return x_t, prior.denoise(x_t, 0.5), prior.info.provenance.hash, prior.nfe.forward


def test_a_loaded_prior_and_what_is_around_it_reach_another_process() -> None:
    inner = load_prior("avatars", device="cpu")
    prior = LowMemory(AnySize(inner).conditioned(label=1, scale=2.0))
    sent = pickle.dumps(prior)
    assert len(sent) < 20_000  # the name, not the weights
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        _, there, digest, calls = pool.apply(evaluated, (prior,))
    torch.testing.assert_close(there, evaluated(prior)[1], rtol=1e-5, atol=1e-5)
    assert digest == inner.hash and calls == 2
    back = pickle.loads(sent)
    assert back.nfe is back.inner.inner.inner.nfe and back.info.provenance == prior.info.provenance


def test_a_latent_prior_is_loaded_whole() -> None:
    prior = load_prior("avatars-latent", device="cpu", dtype=torch.bfloat16)
    sent = pickle.dumps(prior)
    assert len(sent) < 2000
    back = pickle.loads(sent)
    assert isinstance(back, LatentPrior) and back.info.provenance == prior.info.provenance
    assert back.info.provenance.dtype == torch.bfloat16


def test_other_weights_under_the_same_name_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(embedded_file("avatars").read_bytes())
    sent = pickle.dumps(load_prior(path, device="cpu"))
    path.write_bytes(embedded_file("fashion").read_bytes())
    with pytest.raises(PriorError, match="are not those of the prior that was pickled"):
        pickle.loads(sent)


def test_plain_numbers_travel_as_they_are() -> None:
    prior = AnySize(Gaussian(torch.zeros(4), torch.eye(4), (1, 2, 2)))
    back = pickle.loads(pickle.dumps(prior))
    x_t = torch.ones(1, 1, 3, 3)
    assert torch.equal(back.denoise(x_t, 0.3), prior.denoise(x_t, 0.3)) and back.nfe is back.inner.nfe


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_can_be_neither_loaded_nor_pickled_is_refused_by_name(wrapped: bool) -> None:
    prior: Prior = DenoiserPrior(lambda x, t: x, VP(), (1, 4, 4), name="toy")
    with pytest.raises(PriorError, match="the prior toy cannot be sent to another process"):
        pickle.dumps(AnySize(prior) if wrapped else prior)


def test_a_network_without_a_spec_is_pickled_whole() -> None:
    prior = NetworkPrior(torch.nn.Conv2d(1, 1, 1), VP(), (1, 4, 4))
    prior.info = replace(prior.info, data_std=0.3)
    assert pickle.loads(pickle.dumps(prior)).data_std == 0.3
