"""The classifier's network: four convolutions, 64 features, 10 classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .data import CLASSES

FEATURES = 64
_CHANNELS = (16, 32, 64, 96)
_LAST_SIDE = 4


class Network(nn.Module):
    """Pictures (N, 1, 32, 32) in [-1, 1] to features (N, 64), and those to logits (N, 10).

    The features are what the last but one layer says before its nonlinearity, so that they can be negative and are
    nearer to Gaussian than after it.

    Args:
        seed: of the initial weights; torch's global generator is neither read nor moved.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        first, second, third, fourth = _CHANNELS
        with torch.device("meta"):  # torch would draw weights from its global generator
            self.convolutions = nn.Sequential(
                *_block(1, first, 5, stride=2),  # 16 x 16
                *_block(first, second, 3),
                nn.MaxPool2d(2),  # 8 x 8
                *_block(second, third, 3),
                nn.MaxPool2d(2),  # 4 x 4
                *_block(third, fourth, 3),
            )
            self.reduce = nn.Linear(fourth * _LAST_SIDE**2, FEATURES)
            self.classify = nn.Linear(FEATURES, len(CLASSES))
        self.to_empty(device="cpu")
        self._initialise(torch.Generator().manual_seed(seed))

    def features(self, x: Tensor) -> Tensor:
        """(N, 64)."""
        out: Tensor = self.reduce(self.convolutions(x).flatten(1))
        return out

    def logits(self, features: Tensor) -> Tensor:
        """(N, 10) from features (N, 64)."""
        out: Tensor = self.classify(torch.relu(features))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10)."""
        return self.logits(self.features(x))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                deviation = (2 / module.weight[0].numel()) ** 0.5
                module.weight.normal_(0, deviation, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
                module.reset_running_stats()


def _block(channels: int, out: int, side: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, out, side, stride, padding=side // 2, bias=False)
    return convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True)
