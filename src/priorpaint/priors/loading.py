"""Find a prior by name or path and make it ready to denoise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PriorError, UsageError
from ..schedules import EDM
from .network import NetworkPrior
from .unet import UNet
from .weights_file import WeightsMetadata, load_weights

TRAINED_FILE = "weights.safetensors"


@dataclass(frozen=True)
class EmbeddedPrior:
    """A prior that comes with the package: what it is for, in one line, and its file in ``priors/weights``."""

    description: str
    file: str


PRIORS: dict[str, EmbeddedPrior] = {
    "photos": EmbeddedPrior("natural photographs of any size, in colour or grey", "photos.safetensors"),
}


class LoadedPrior(NetworkPrior):
    """A prior that was read from a weights file.

    Attributes:
        hash: SHA-256 of the file, in hexadecimal.
        source: the file.
        metadata: what the file says about itself.
    """

    def __init__(self, network: UNet, metadata: WeightsMetadata, source: Path, name: str, dtype: torch.dtype) -> None:
        super().__init__(
            network if dtype == torch.float32 else _LowPrecision(network, dtype),
            EDM(sigma_min=metadata.sigma_min, sigma_max=metadata.sigma_max),
            (network.config.in_channels, None, None),
            prediction="edm",
            sigma_data=metadata.sigma_data,
            multiple=network.multiple,
            name=name,
        )
        self.hash = hashlib.sha256(source.read_bytes()).hexdigest()
        self.source, self.metadata = source, metadata
        self._module: nn.Module = network

    def parameters(self) -> Iterator[Tensor]:
        """The network's weights."""
        return iter(self._module.parameters())


class _LowPrecision(nn.Module):
    """The network under autocast: float32 weights and images, convolutions in ``dtype``."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=self.dtype):
            out: Tensor = self.network(x, condition)
        return out.to(x.dtype)


def load_prior(
    name_or_path: str | Path,
    *,
    flags: Mapping[str, Any] | str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LoadedPrior:
    """A prior by name or from a file.

    Args:
        name_or_path: a key of ``PRIORS``, a weights file, or the folder that ``priorpaint train`` wrote it into.
        flags: what a format cannot say about itself; priorpaint's own files say everything and take none.
        device: where the network runs; None is the GPU where torch finds one, else the CPU.
        dtype: of the network's convolutions, float32 (None), bfloat16 or float16; images stay float32.

    Returns:
        The prior, for images (N, C, H, W) in [-1, 1] whose sides are multiples of ``prior.multiple``.

    Raises:
        UsageError: no such name or path, or arguments that do not fit.
        PriorError: the file is damaged or of another kind.
    """
    name = str(name_or_path)
    if name.startswith("hf:"):
        raise UsageError(
            f"this version reads its embedded priors ({', '.join(PRIORS)}) and files of `priorpaint train`, "
            f"not yet {name} from the Hugging Face hub; choose one of these."
        )
    if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise UsageError(f"a prior runs in float32, bfloat16 or float16, not {dtype}.")
    if flags:
        raise UsageError(f"{name} is in priorpaint's own format, which describes itself; leave the flags out.")
    source, name = _find(name)
    network, metadata = load_weights(source)
    network.to(device=_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return LoadedPrior(network, metadata, source, name, dtype or torch.float32)


def embedded_file(name: str) -> Path:
    """Where the weights of an embedded prior are (the file may be missing in a source tree without weights)."""
    return Path(str(resources.files("priorpaint.priors"))) / "weights" / PRIORS[name].file


def _find(name: str) -> tuple[Path, str]:
    """(weights file, name of the prior)."""
    if name in PRIORS:
        file = embedded_file(name)
        if not file.is_file():
            raise PriorError(f"the weights of {name} are missing from this installation ({file}); install it again.")
        return file, name
    path = Path(name)
    if path.is_dir():
        if not (path / TRAINED_FILE).is_file():
            raise UsageError(f"the folder {path} has no {TRAINED_FILE}; give a folder that `priorpaint train` wrote.")
        return path / TRAINED_FILE, path.resolve().name
    if path.is_file():
        return path, path.stem
    raise UsageError(
        f"there is no prior and no file {name!r}; the embedded priors are {', '.join(PRIORS)}, "
        f"and a path leads to a {TRAINED_FILE}."
    )


def _device(device: torch.device | str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UsageError(f"torch cannot use the device {str(device)!r} here; use 'cpu'.") from None
    return chosen
