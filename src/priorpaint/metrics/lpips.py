"""LPIPS: distance between deep features (Zhang, Isola, Efros, Shechtman, Wang 2018), heads v0.1.

The weights are read from a safetensors file that the caller names; none are shipped, and `lpips_weights` makes the file
from the published ones. Keys: ``conv{i}.weight`` and ``conv{i}.bias`` (five convolutions are AlexNet, thirteen are
VGG16) and ``lin{i}.weight`` (1, C, 1, 1), i = 0..4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import PriorError, UsageError

_MEAN = (-0.030, -0.088, -0.188)
_STD = (0.458, 0.448, 0.450)
_SEEN_WELL = 64  # pixels


@dataclass(frozen=True)
class _Backbone:
    """A chain of 3-channel-in convolutions with ReLU: where it is tapped, where it is pooled, and how it strides."""

    name: str
    taps: tuple[int, ...]  # features are compared after these convolutions
    pools: tuple[int, ...]  # max-pooling before these convolutions
    pool_size: int
    strides: tuple[int, ...]
    paddings: tuple[int, ...]


_ALEX = _Backbone("AlexNet", (0, 1, 2, 3, 4), (1, 2), 3, (4, 1, 1, 1, 1), (2, 2, 1, 1, 1))
_VGG = _Backbone("VGG16", (1, 3, 6, 9, 12), (2, 4, 7, 10), 2, (1,) * 13, (1,) * 13)


class LPIPS:
    """LPIPS with the AlexNet or VGG16 backbone, whichever the file holds.

    Args:
        weights: safetensors file with the keys of the module's docstring, or the tensors under these keys;
            half-precision weights are widened to float32.
        device: where the features are computed.
        source: where tensors come from, for errors.

    Raises:
        PriorError: the file is missing or is not safetensors, or the weights are of neither backbone.
    """

    def __init__(
        self, weights: str | Path | Mapping[str, Tensor], *, device: torch.device | str = "cpu", source: str = ""
    ) -> None:
        if not isinstance(weights, Mapping):
            weights, source = _read(Path(weights)), str(weights)
        count = sum(name.startswith("conv") and name.endswith(".weight") for name in weights)
        backbone = next((each for each in (_ALEX, _VGG) if len(each.strides) == count), None)
        if backbone is None or not _fits(backbone, weights):
            raise PriorError(f"{source} does not hold LPIPS weights: conv0..4 (AlexNet) or 0..12 (VGG16) and lin0..4")
        self._backbone = backbone
        self.weights = {name: tensor.to(device, torch.float32) for name, tensor in weights.items()}
        self.name = backbone.name
        self.device = torch.device(device)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """LPIPS(a, b), differentiable, 0 for equal pictures.

        Args:
            a: RGB pictures (B, 3, H, W) in [-1, 1].
            b: as many, or one for all of them, (1, 3, H, W).

        Returns:
            (B,) float32.

        Raises:
            UsageError: shapes differ, are not RGB, or are too small for the backbone.
        """
        if a.ndim != 4 or a.shape[1:] != b.shape[1:] or len(b) not in (1, len(a)) or a.shape[1] != 3:
            raise UsageError(f"LPIPS compares two RGB batches (B, 3, H, W), not {tuple(a.shape)} and {tuple(b.shape)}")
        return self._between(self._features(a), self._features(b))

    def pairwise(self, x: Tensor) -> Tensor:
        """LPIPS between all pairs of pictures, each looked at once; their mean is the *diversity* of a set of samples.

        Args:
            x: RGB pictures (B, 3, H, W) in [-1, 1], B >= 2.

        Returns:
            (B (B - 1) / 2,) float32.

        Raises:
            UsageError: fewer than two pictures, not RGB, or too small for the backbone.
        """
        if x.ndim != 4 or x.shape[1] != 3 or len(x) < 2:
            raise UsageError(f"pairs need at least two RGB pictures (B, 3, H, W), not {tuple(x.shape)}")
        features = self._features(x)
        pairs = ([f[i : i + 1] for f in features] for i in range(len(x) - 1))
        return torch.cat([self._between([f[i + 1 :] for f in features], one) for i, one in enumerate(pairs)])

    def _between(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """The distance of features, level by level."""
        distance = torch.zeros(len(a[0]), device=self.device)
        for level, (f, g) in enumerate(zip(a, b, strict=True)):
            difference = (_unit(f) - _unit(g)).square()
            distance = distance + F.conv2d(difference, self.weights[f"lin{level}.weight"]).mean(dim=(1, 2, 3))
        return distance

    def _features(self, x: Tensor) -> list[Tensor]:
        if min(x.shape[2:]) < 32:
            raise UsageError(f"LPIPS needs pictures of at least 32 x 32 pixels, not {x.shape[2]} x {x.shape[3]}")
        net, taps = self._backbone, []
        mean, std = (x.new_tensor(c, dtype=torch.float32, device=self.device).view(1, 3, 1, 1) for c in (_MEAN, _STD))
        h = (x.to(self.device, torch.float32) - mean) / std
        for i in range(len(net.strides)):
            if i in net.pools:
                h = F.max_pool2d(h, net.pool_size, stride=2)
            weight, bias = self.weights[f"conv{i}.weight"], self.weights[f"conv{i}.bias"]
            h = F.relu(F.conv2d(h, weight, bias, stride=net.strides[i], padding=net.paddings[i]))
            if i in net.taps:
                taps.append(h)
        return taps


def for_lpips(x: Tensor) -> Tensor:
    """Pictures (B, 1|3, H, W) as LPIPS sees them best: in colour, small ones enlarged to at least 64 pixels.

    The network halves five times, and 32 pixels are few for that; each pixel becomes a square of whole size.
    """
    times = -(-_SEEN_WELL // min(x.shape[2:]))
    return x.expand(-1, 3, -1, -1).repeat_interleave(times, -1).repeat_interleave(times, -2)


def _unit(f: Tensor) -> Tensor:
    norm = f.square().sum(dim=1, keepdim=True).clamp(min=1e-20).sqrt()  # the root of 0 has no gradient
    return f / (norm + 1e-10)


def _fits(net: _Backbone, weights: Mapping[str, Tensor]) -> bool:
    """Whether every tensor is there and each layer takes as many channels as the one before it gives."""
    convolutions = {f"conv{i}.{part}" for i in range(len(net.strides)) for part in ("weight", "bias")}
    if not convolutions | {f"lin{i}.weight" for i in range(len(net.taps))} <= weights.keys():
        return False
    shapes = [weights[f"conv{i}.weight"].shape for i in range(len(net.strides))]
    channels = [3, *(shape[0] for shape in shapes)]
    return (
        all(len(shape) == 4 and shape[1] == before for shape, before in zip(shapes, channels, strict=False))
        and all(weights[f"conv{i}.bias"].shape == shape[:1] for i, shape in enumerate(shapes))
        and all(weights[f"lin{i}.weight"].shape == (1, channels[tap + 1], 1, 1) for i, tap in enumerate(net.taps))
    )


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise PriorError(
            f"there is no file {path}; LPIPS needs a safetensors file with its weights, which "
            "python -m priorpaint.metrics.lpips_weights makes from the published ones"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise PriorError(f"{path} is not a safetensors file ({error}), which LPIPS needs") from error
