"""The small network of BrianPulfer/PapersReimplementations (MIT), rebuilt from the shapes of its weights.

A U-Net of 28, 14, 7 and 3 pixels a side, three blocks a level, where each block normalises over channels and pixels,
convolves twice and has no shortcut. Every level adds a projection of a row of a table of 1000 sinusoids, one a step.
The very last block does not normalise: the weights for it are in the file, but no training moved them from 1 and 0.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from priorpaint.errors import CheckpointError

_STEPS, _TIME = 1000, 100


class TableUNet(nn.Module):
    """(N, 1, 28, 28) and step numbers (N,) in 0..999 to the noise, (N, 1, 28, 28)."""

    def __init__(self) -> None:
        super().__init__()
        self.time_embed = nn.Embedding(_STEPS, _TIME)
        self.te1, self.b1 = _project(1), _blocks(28, (1, 10, 10, 10))
        self.down1 = nn.Conv2d(10, 10, 4, 2, 1)
        self.te2, self.b2 = _project(10), _blocks(14, (10, 20, 20, 20))
        self.down2 = nn.Conv2d(20, 20, 4, 2, 1)
        self.te3, self.b3 = _project(20), _blocks(7, (20, 40, 40, 40))
        self.down3 = nn.Sequential(nn.Conv2d(40, 40, 2, 1), nn.SiLU(), nn.Conv2d(40, 40, 4, 2, 1))
        self.te_mid, self.b_mid = _project(40), _blocks(3, (40, 20, 20, 40))
        self.up1 = nn.Sequential(nn.ConvTranspose2d(40, 40, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(40, 40, 2, 1))
        self.te4, self.b4 = _project(80), _blocks(7, (80, 40, 20, 20))
        self.up2 = nn.ConvTranspose2d(20, 20, 4, 2, 1)
        self.te5, self.b5 = _project(40), _blocks(14, (40, 20, 10, 10))
        self.up3 = nn.ConvTranspose2d(10, 10, 4, 2, 1)
        self.te_out, self.b_out = _project(20), _blocks(28, (20, 10, 10, 10), last_normalises=False)
        self.conv_out = nn.Conv2d(10, 1, 3, padding=1)

    @classmethod
    def load(cls, path: Path) -> TableUNet:
        """The network with the weights of a file.

        Raises:
            CheckpointError: the file is missing, damaged or of another network.
        """
        if not path.is_file():
            raise CheckpointError(f"there is no file {path}; name the folder that holds diffusion-weights with --data.")
        try:
            with torch.device("meta"):
                network = cls()
            state = torch.load(path, map_location="cpu", weights_only=True)
            network.load_state_dict({key.removeprefix("network."): value for key, value in state.items()}, assign=True)
        except (RuntimeError, AttributeError, OSError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0].rstrip(".:")
            raise CheckpointError(f"{path} does not hold the expected network ({reason}).") from None
        return network.eval().requires_grad_(False)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """The noise in x (N, 1, 28, 28) at steps (N,); they are rounded to the table's."""
        time = self.time_embed(step.round().long().clamp(0, _STEPS - 1))

        def plus(h: Tensor, projection: nn.Module) -> Tensor:
            return h + projection(time)[:, :, None, None]

        high = self.b1(plus(x, self.te1))
        middle = self.b2(plus(self.down1(high), self.te2))
        low = self.b3(plus(self.down2(middle), self.te3))
        h = self.b_mid(plus(self.down3(low), self.te_mid))
        h = self.b4(plus(torch.cat([low, self.up1(h)], 1), self.te4))
        h = self.b5(plus(torch.cat([middle, self.up2(h)], 1), self.te5))
        h = self.b_out(plus(torch.cat([high, self.up3(h)], 1), self.te_out))
        out: Tensor = self.conv_out(h)
        return out


class _Block(nn.Module):
    def __init__(self, channels: int, out: int, side: int, normalises: bool) -> None:
        super().__init__()
        self.normalises = normalises
        self.ln = nn.LayerNorm((channels, side, side))
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.nn.functional.silu(self.conv1(self.ln(x) if self.normalises else x))
        return torch.nn.functional.silu(self.conv2(h))


def _blocks(side: int, channels: tuple[int, ...], *, last_normalises: bool = True) -> nn.Sequential:
    count = len(channels) - 1
    normalises = [True] * (count - 1) + [last_normalises]
    return nn.Sequential(*(_Block(channels[i], channels[i + 1], side, normalises[i]) for i in range(count)))


def _project(out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(_TIME, out), nn.SiLU(), nn.Linear(out, out))
