"""What the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights


@pytest.fixture(scope="session")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network with random weights."""
    network = UNet(UNetConfig((8, 8), (1, 1), 8), seed=0)
    with torch.no_grad():
        network.tail.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    save_weights(path, network, WeightsMetadata())
    return path
