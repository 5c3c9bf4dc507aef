"""Classifiers of guided-diffusion, 64x64_classifier.pt and the like: a state_dict of torch.save.

The tensors and the size of the pictures, which is that of the prior, show the whole architecture; heads of 64 channels
and attention pooling are the program's for all that it offers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...diffusion.schedules import VP, Schedule
from ...diffusion.transitions import like
from ...errors import CheckpointError, UsageError
from ..base import Prior
from ..networks.adm import ADMConfig, Heads
from ..networks.adm_classifier import ADMClassifier
from .adm_shapes import Shapes, check_layers
from .untrusted import reading as safe

_HEAD = 64
_POOL = "out.2.positional_embedding"


@dataclass(frozen=True)
class NoisyClassifier:
    """log p(label | x_t) of a prior's x_t at its times, a `LogProb`.

    Attributes:
        network: x (N, C, H, W) in variance-preserving coordinates and an index (N,) -> logits (N, K).
        schedule: of the prior, whose x_t and t it is called with.
        table: that the network was trained with; at x_t it is told the index of the same sigma / alpha in it.
        label: in 0 ... K - 1.
        facts: path, SHA-256, label and number of classes, for run.json.
    """

    network: ADMClassifier
    schedule: Schedule
    table: VP
    label: int
    facts: Mapping[str, Any]

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma, log_nsr = self.schedule.level(t.double())
        index = len(self.table.betas) * self.table.time_at(log_nsr.exp().clamp(*self.table.nsr_range)) - 1
        logits = self.network(x_t / like(torch.hypot(alpha, sigma), x_t), index.to(x_t))
        return torch.log_softmax(logits, dim=1)[:, self.label]


def load_classifier(path: str | Path, prior: Prior, label: int, noise_schedule: str | None = None) -> NoisyClassifier:
    """A published classifier for the pictures of a prior.

    Args:
        path: the file.
        prior: of pixels, of the size and channels that the classifier was trained on.
        label: the class that it shall see.
        noise_schedule: "linear" or "cosine", of the 1000 noise levels that it was trained with; None is the table of
            the prior, as in the program, which guides only the network that was trained with the same one.

    Raises:
        CheckpointError: the file is damaged, unsafe, or of another network or size.
        UsageError: a prior that cannot be guided by it, a label that it does not know, or no word about its noise.
    """
    path = Path(path)
    channels, height, width = prior.shape
    if prior.latent or height is None or height != width:
        raise UsageError(
            f"a classifier of pictures guides a prior of square pictures of one size, and {prior.name} is none; choose "
            "a prior of pixels, of the classifier's size"
        )
    if noise_schedule not in (None, "linear", "cosine"):
        raise UsageError(f"a classifier's noise schedule is 'linear' or 'cosine', not {noise_schedule!r}")
    table = prior.schedule if noise_schedule is None else VP(noise_schedule)
    if not isinstance(table, VP):
        raise UsageError(
            f"the prior {prior.name} has no table of noise levels that the classifier could share; say which one it "
            "was trained with, classifier_noise='linear' or 'cosine' (--classifier-noise)"
        )
    with safe.interpreting(path):
        state = safe.load_state(path)
        config = _config(state, path, height)
        if config.in_channels != channels:
            raise CheckpointError(
                f"{path} sees pictures of {config.in_channels} channels, and the prior {prior.name} draws {channels}; "
                "choose the classifier that belongs to the prior."
            )
        network = safe.assemble(
            lambda: ADMClassifier(config, height), state, path, device=prior.device, dtype=torch.float32
        )
    assert isinstance(network, ADMClassifier)
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < config.out_channels:
        raise UsageError(f"the classifier {path.name} knows the classes 0 to {config.out_channels - 1}, not {label!r}")
    facts = {"source": str(path), "sha256": safe.file_hash(path), "label": label, "classes": config.out_channels}
    return NoisyClassifier(network, prior.schedule, table, label, facts)


def _config(state: Mapping[str, Tensor], path: Path, side: int) -> ADMConfig:
    """The encoder that the tensors show, for pictures of ``side`` pixels.

    Raises:
        CheckpointError: the tensors are of no such network.
    """
    if _POOL not in state or "output_blocks.0.0.in_layers.0.weight" in state:
        raise CheckpointError(
            f"{path} is not a classifier of guided-diffusion with attention pooling: it lacks {_POOL}, or has a "
            "decoder; choose a file such as 64x64_classifier.pt."
        )
    shapes = Shapes(state, path)
    safe.check_count(shapes.blocks("input"), state, path)
    per_level, count = _layout(shapes, side)
    first, in_channels = shapes.of("input_blocks.0.0.weight", 4)[:2]
    levels = tuple(
        shapes.of(f"input_blocks.{level * per_level + 1}.0.in_layers.2.weight", 4)[0] for level in range(count)
    )
    if first != levels[0]:
        raise CheckpointError(
            f"{path} begins with {first} channels, but its first level has {levels[0]}; it is damaged."
        )
    changes = f"input_blocks.{per_level}.0"
    resampling = "block" if f"{changes}.in_layers.2.weight" in shapes else "pool"
    config = ADMConfig(
        in_channels=in_channels,
        out_channels=shapes.of("out.2.c_proj.weight", 3)[0],
        model_channels=shapes.of("time_embed.0.weight", 2)[1],
        levels=levels,
        blocks=per_level - 1,
        attention=frozenset(k for k in range(count) if shapes.has("input", k * per_level + 1, r"1\.qkv\.")),
        resampling="conv" if f"{changes}.op.weight" in shapes else resampling,
        scale_shift=shapes.of("input_blocks.1.0.emb_layers.1.weight", 2)[0] == 2 * levels[0],
        heads=Heads(width=_HEAD),
    )
    check_layers(config, path)
    return config


def _layout(shapes: Shapes, side: int) -> tuple[int, int]:
    """(blocks of a level with its change of resolution, number of levels)."""
    pixels, blocks = shapes.of(_POOL, 2)[1] - 1, shapes.blocks("input")
    small = math.isqrt(max(pixels, 0))
    count = (side // max(small, 1)).bit_length()
    if not small or not count or small**2 != pixels or small << (count - 1) != side:
        raise CheckpointError(
            f"{shapes.path} pools {pixels} places, which pictures of {side} x {side} do not have at any level; choose "
            "the classifier of the prior's size."
        )
    if blocks % count or blocks < 2 * count:
        raise CheckpointError(
            f"{shapes.path} has {blocks} blocks, which {count} levels cannot share; choose the classifier of the "
            f"prior's size, {side} x {side}."
        )
    return blocks // count, count
