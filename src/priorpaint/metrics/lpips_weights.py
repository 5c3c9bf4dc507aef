"""The weights of LPIPS, from the two files in which they are published into the one that `LPIPS` reads.

    python -m priorpaint.metrics.lpips_weights alexnet-owt-7be5be79.pth alex.pth lpips_alex.safetensors
    python -m priorpaint.metrics.lpips_weights vgg16-397923af.pth vgg.pth lpips_vgg16.safetensors

The first file is torchvision's network, from https://download.pytorch.org/models/; the second holds the heads, version
0.1, from ``lpips/weights/v0.1/`` of https://github.com/richzhang/PerceptualSimilarity (or of the package lpips).
Neither torchvision nor lpips needs to be installed.
"""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated

import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from priorpaint.errors import PriorError, run_module

from .lpips import LPIPS

_CONVOLUTION = re.compile(r"features\.(\d+)\.(weight|bias)")
_HEAD = re.compile(r"lin(\d)\.model\.1\.weight")

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def convert(network: str | Path, heads: str | Path, out: str | Path) -> LPIPS:
    """Write the weights file and read it back.

    Args:
        network: state dictionary of torchvision's AlexNet or VGG16; ``features.*`` are taken, the classifier is not.
        heads: state dictionary of the package lpips, ``lin{i}.model.1.weight`` (1, C, 1, 1).
        out: the safetensors file; only weights that fit one of the backbones are written.

    Returns:
        The metric with these weights.

    Raises:
        PriorError: a file cannot be read or written, or the two are not of one backbone.
    """
    convolutions, weights = _state(network), dict[str, Tensor]()
    matches = [match for match in map(_CONVOLUTION.fullmatch, convolutions) if match]
    layers = sorted({int(match[1]) for match in matches})
    for match in matches:
        weights[f"conv{layers.index(int(match[1]))}.{match[2]}"] = convolutions[match[0]].float().contiguous()
    for name, head in _state(heads).items():
        if lin := _HEAD.fullmatch(name):
            weights[f"lin{lin[1]}.weight"] = head.float().contiguous()
    metric = LPIPS(weights, source=f"{network} with {heads}")
    try:
        save_file(metric.weights, out)
    except (OSError, SafetensorError) as error:
        raise PriorError(f"{out} cannot be written ({error})") from None
    return metric


def _state(path: str | Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise PriorError(f"{path} cannot be read as a file of torch.save ({str(error).splitlines()[0]})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise PriorError(f"{path} is not a state dictionary: it must hold names and tensors only")
    return state


@app.command()
def _convert(
    network: Annotated[
        Path, typer.Argument(help="torchvision's AlexNet or VGG16 (.pth), of https://download.pytorch.org/models/")
    ],
    heads: Annotated[
        Path,
        typer.Argument(
            help="The heads (.pth), of lpips/weights/v0.1 in https://github.com/richzhang/PerceptualSimilarity"
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
) -> None:
    """Write the weights of LPIPS, from the two files in which they are published."""
    typer.echo(f"{out}: LPIPS with {convert(network, heads, out).name}")


if __name__ == "__main__":
    run_module(app, "priorpaint.metrics.lpips_weights")
