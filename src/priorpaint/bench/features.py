"""Features of pictures for the distances between sets: a network that the user gives, and what it says, stored by cell.

Frechet and kernel distance need the features of all pictures of a mask together. They are kept in files, so that the
report can go through them a few pictures at a time.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import PriorError, UsageError
from ..imaging import write_array_atomic
from ..imaging.writing import make_folder
from ..metrics import FeatureGaussian, frechet_distance, kid

FEATURES = "features"
_BLOCK = 128  # pictures whose kernel distance is taken at once


@dataclass(frozen=True)
class FeatureNetwork:
    """A map from pictures to features.

    Attributes:
        name: what reports call it.
        digest: of what it computes with; features of another digest are another network's.
        features: pictures (B, C, H, W) in [-1, 1] -> (B, F).
    """

    name: str
    digest: str
    features: Callable[[Tensor], Tensor]

    @staticmethod
    def read(path: str | Path) -> FeatureNetwork:
        """The network in a file of torch.export (.pt2) or TorchScript: a program, so read only what you trust.

        Raises:
            PriorError: there is no such file, or it is of another kind.
        """
        path = Path(path)
        if not path.is_file():
            raise PriorError(
                f"there is no file {path}; features are computed by a file of torch.export (.pt2) or TorchScript that "
                "maps pictures (B, C, H, W) in [-1, 1] to (B, F) (docs/metrics.md)."
            )
        kind = "a file of torch.export" if path.suffix == ".pt2" else "a TorchScript file (torch.export's end in .pt2)"
        if not zipfile.is_zipfile(path):  # what follows would write about it to the terminal
            raise PriorError(f"{path} is not {kind}.")
        try:
            return FeatureNetwork(path.name, digest_of_file(path), _program(path))
        except Exception as error:  # what the loaders raise is not documented
            raise PriorError(f"{path} is not {kind}: {_last_line(error)}") from None

    def __call__(self, x: Tensor) -> Tensor:
        """(B, F) float32 of pictures (B, C, H, W).

        Raises:
            UsageError: the network cannot be used on such pictures.
        """
        try:
            with torch.no_grad():
                found = self.features(x)
        except Exception as error:  # whatever a program of somebody else raises
            shape = tuple(x.shape[1:])
            raise UsageError(f"{self.name} has no features of pictures {shape}: {_last_line(error)}") from None
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(x):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UsageError(f"{self.name} must map pictures (B, C, H, W) to features (B, F), but it gives {what}.")
        return found.detach().cpu().float()


def _program(path: Path) -> Callable[[Tensor], Tensor]:
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that TorchScript gets no new parts
        module: torch.nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return module.eval()


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def digest_of_file(path: Path) -> str:
    """The first 12 digits of a file's SHA-256."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            total.update(block)
    return total.hexdigest()[:12]


def feature_file(folder: Path, digest: str, key: str) -> Path:
    """Where the features of a cell (n, F) or of a problem's truth (1, F) lie in a benchmark's folder."""
    return folder / FEATURES / digest / f"{key}.npy"


def write_features(path: Path, network: FeatureNetwork, x: Tensor) -> None:
    """Store the features of pictures (B, C, H, W), if they are not there."""
    if not path.is_file():
        make_folder(path.parent)
        write_array_atomic(path, network(x).numpy())


@dataclass(frozen=True)
class SetDistances:
    """Between the completions of some pictures and these pictures.

    Attributes:
        frechet: Frechet distance.
        kid, kid_error: kernel distance, and its standard error over blocks of pictures (None for a single block).
        pictures: how many.
    """

    frechet: float
    kid: float
    kid_error: float | None
    pictures: int


Files = Sequence[tuple[Path, Path]]
"""Feature files of cells (n, F) and of their truths (1, F)."""


def set_distances(pictures: Sequence[Files]) -> SetDistances | None:
    """From the feature files of a method's cells, those of a picture together; None for fewer than two pictures.

    All rows of a picture, completions and truth, depend on each other, so their pairs are left out of the kernel
    distance. The Frechet distance has no such remedy.
    """
    if len(pictures) < 2:
        return None
    gaussians = (FeatureGaussian.fit(_load(cell[side]) for cells in pictures for cell in cells) for side in (0, 1))
    frechet = frechet_distance(*gaussians)
    kids = [_block_kid(pictures[first:last]) for first, last in _bounds(len(pictures))]
    error = statistics.stdev(kids) / math.sqrt(len(kids)) if len(kids) > 1 else None
    return SetDistances(frechet, statistics.mean(kids), error, len(pictures))


def _bounds(count: int) -> Iterator[tuple[int, int]]:
    """Blocks of nearly equal size, none of fewer than two pictures."""
    blocks = -(-count // _BLOCK)
    return ((i * count // blocks, (i + 1) * count // blocks) for i in range(blocks))


def _block_kid(pictures: Sequence[Files]) -> float:
    sides = []
    for side in (0, 1):
        rows = [torch.cat([_load(cell[side]) for cell in cells]) for cells in pictures]
        sides.append((torch.cat(rows), torch.cat([torch.full((len(row),), i) for i, row in enumerate(rows)])))
    (completions, of_completions), (truths, of_truths) = sides
    return kid(completions, truths, of_completions, of_truths)


def _load(path: Path) -> Tensor:
    return torch.from_numpy(np.load(path, allow_pickle=False))
