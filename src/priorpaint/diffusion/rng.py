"""Random numbers that belong to a sample, not to the batch that it is computed in.

A *stream* is the private generator of one (image, sample) pair; its k-th draw depends only on the seed, the image and
the sample index. So sample i of image j is the same alone, in any batch, in any order and with any ``batch_size``.

An image is recognised by its measurement y, not by its position in the batch: different images get independent noise,
and copies of one image in a batch are told apart by counting them. A caller who wants other rules passes one seed an
image. Streams are CPU generators, so a seed means the same on every device; the global generators are never touched.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from ..errors import UsageError

Seed = int | Sequence[int]

_BLOCK = 512


def derive(*parts: int | bytes | str) -> int:
    """A 63-bit seed that is a hash of ``parts``; different parts give independent seeds."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        piece = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return int.from_bytes(digest.digest(), "little") >> 1


def image_seeds(seed: Seed, y: Tensor) -> list[int]:
    """One seed for each of the B images of y (B, ...).

    Args:
        seed: an int (image seeds follow from it and from the content of y), or B ints, one an image.
        y: measurements; for a mask, set to zero off the mask, so that hidden values have no influence.

    Raises:
        UsageError: the number of seeds is not the number of images.
    """
    if not isinstance(seed, (int, Integral)):
        if not hasattr(seed, "__len__"):
            raise UsageError(f"a seed is an int or a list with one int an image, not {seed!r}")
        if len(seed) != len(y):
            raise UsageError(f"{len(seed)} seeds were given for {len(y)} images; pass one int or one seed an image")
        return [derive("image", int(value)) for value in seed]
    copies: Counter[bytes] = Counter()
    seeds = []
    for image in (y.detach().to(device="cpu", dtype=torch.float32) + 0.0).numpy():  # + 0.0 turns -0 into 0
        content = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        seeds.append(derive("content", int(seed), content, copies[content]))
        copies[content] += 1
    return seeds


class Streams:
    """The streams of N rows of a batch, drawn from together.

    Args:
        seeds: N seeds, one a row; see :meth:`for_samples`.
    """

    def __init__(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> None:
        self.seeds = tuple(seeds)
        self.device = torch.device(device)
        self._generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        self._block = torch.empty(len(self.seeds), 0)

    @classmethod
    def for_samples(
        cls, image_seeds: Sequence[int], samples: Sequence[int], *, device: torch.device | str = "cpu"
    ) -> Streams:
        """Streams for rows (image, sample); both sequences have length N."""
        rows = zip(image_seeds, samples, strict=True)
        return cls([derive("sample", image, int(sample)) for image, sample in rows], device=device)

    def __len__(self) -> int:
        return len(self.seeds)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal (N, *shape), float32: the next draw of each stream."""
        size = math.prod(shape)
        if size >= _BLOCK:
            draw = self._draw(size)
        else:  # small draws are cut from a block: thousands of two-pixel rows would otherwise cost a call each
            if self._block.shape[1] < size:
                self._block = self._draw(_BLOCK)
            draw, self._block = self._block[:, :size], self._block[:, size:]
        return draw.reshape(len(self), *shape).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform on (0, 1) (N, *shape), float32: the next draw of each stream."""
        probability: Tensor = torch.special.ndtr(self.normal(*shape).double())
        return probability.float().clamp(2**-64, 1 - 2**-24)  # float32 would round the last 3e-8 of the mass up to 1

    def normal_like(self, x: Tensor) -> Tensor:
        """Standard normal in the shape, dtype and device of x (N, ...)."""
        return self.normal(*x.shape[1:]).to(x)

    def _draw(self, size: int) -> Tensor:
        return torch.stack([torch.randn(size, generator=generator) for generator in self._generators])
