"""What the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights
from tests.command_line import exit_code
from tests.e2e.several import command, completions, picture


@pytest.fixture(scope="session")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network with random weights."""
    network = UNet(UNetConfig((8, 8), (1, 1), 8), seed=0)
    with torch.no_grad():
        network.tail.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    save_weights(path, network, WeightsMetadata())
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return picture(tmp_path)


@pytest.fixture
def run(photo: Path, prior: Path, tmp_path: Path) -> list[object]:
    return command(photo, prior, tmp_path / "out")


@pytest.fixture(scope="session")
def undisturbed(prior: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        assert exit_code(patch, *command(picture(folder), prior, folder / "out"), "--quiet") == 0
    return folder / "out"


@pytest.fixture
def whole(undisturbed: Path) -> dict[str, bytes]:
    """Its completions."""
    return {file.name: file.read_bytes() for file in completions(undisturbed)}
