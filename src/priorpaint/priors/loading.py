"""Find a prior by name or path and make it ready to denoise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, PriorError, UsageError
from ..imaging.reading import MAX_PIXELS
from .address_book import entries
from .base import Prior
from .flag_words import parse_flags
from .hub import Place, fetch
from .native.prior import trained_prior
from .native.weights_file import TRAINED_FILE, read_weights
from .readers import Request, readers
from .readers.untrusted.reading import looks_like

MODEL_INDEX = "model_index.json"  # of diffusers
_MOST_HEADER = 1 << 24


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class EmbeddedPrior:
    """A prior that comes with the package: what it is for, in one line, and its file inside the package."""

    description: str
    file: str


PRIORS: dict[str, EmbeddedPrior] = {
    "photos": EmbeddedPrior(
        "natural photographs of any size, in colour or grey", "priors/native/weights/photos.safetensors"
    ),
    "avatars": EmbeddedPrior("pixel-art faces, 32x32, with hair styles as classes", "lab/weights/avatars.safetensors"),
    "avatars-latent": EmbeddedPrior(
        "the same faces at 64x64, as latents of 8x8 cells", "lab/weights/avatars-latent.safetensors"
    ),
    "fashion": EmbeddedPrior("garments of Fashion-MNIST, 32x32 grey, with classes", "lab/weights/fashion.safetensors"),
}


def load_prior(
    spec: str | Path,
    *,
    flags: Mapping[str, Any] | str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    offline: bool = False,
) -> Prior:
    """A prior by name, from a file or folder, or from the Hugging Face hub.

    Args:
        spec: a key of ``PRIORS``, a name of ``priorpaint priors add``, ``hf:owner/name[@revision][/folder]``, a file or
            folder of ``priorpaint train``, or a checkpoint that one of ``priors.readers`` recognises.
        flags: what a format cannot say about itself, as a mapping or as the command line of the model's README
            (``"--image_size 64 --num_channels 128"``); with a name of ``priors add``, they go before the stored ones.
        device: where the network runs; None is the GPU where torch finds one, else the CPU.
        dtype: of the network's weights, float32 (None), bfloat16 or float16; images stay float32.
        offline: fetch nothing: hub models come from the cache.

    Returns:
        The prior, for images in [-1, 1], with ``source``, ``hash`` (SHA-256), ``facts`` (JSON values), ``spec`` and
        ``flags``, and ``parameters()``.

    Raises:
        UsageError: no such name or path, or arguments that do not fit.
        PriorError: the prior cannot be fetched; CheckpointError: it is damaged, unsafe or of a kind that is not read.
        MissingExtra: a library that reads this format is not installed.
    """
    if dtype is not None and dtype not in PRECISIONS.values():
        raise UsageError(f"a prior runs in float32, bfloat16 or float16, not {dtype}.")
    parsed, name = parse_flags(flags), str(spec)
    entry = None if name in PRIORS else entries().get(name)
    if entry is not None:
        prior = load_prior(entry.spec, flags={**entry.flags, **parsed}, device=device, dtype=dtype, offline=offline)
        if entry.sha256 is not None:
            advice = f"; if that is right, run `priorpaint priors add --overwrite {name} ...`."
            _check_hash(
                prior, entry.sha256, f"the files of {name} ({entry.spec}) are not those that were added", advice
            )
        prior.name = name
        return prior
    prior = _load(name, parsed, device, dtype or torch.float32, offline)
    _check_size(prior)
    told = replace(prior.info.provenance, spec=name, flags=parsed, dtype=dtype, load=_load_again)
    prior.info = replace(prior.info, provenance=told)
    return prior


def dtype_named(precision: str | None) -> torch.dtype | None:
    """The dtype of a key of ``PRECISIONS``; None is none.

    Raises:
        UsageError: another word.
    """
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"precision is {', '.join(PRECISIONS)}, not {precision!r}.")
    return None if precision is None else PRECISIONS[precision]


def precision_of(prior: Prior) -> str | None:
    """The key of ``PRECISIONS`` that a prior was loaded with; None for one that `load_prior` did not load."""
    told = prior.info.provenance
    return None if told.load is None else str(told.dtype or torch.float32).removeprefix("torch.")


def _check_size(prior: Prior) -> None:
    """That a picture of the prior's size can be held; a file can claim any size that its weights do not depend on."""
    _, height, width = prior.image_shape
    if (height or 1) * (width or 1) > MAX_PIXELS:
        raise CheckpointError(
            f"{prior.name} is said to be for pictures of {width}x{height}; at most {MAX_PIXELS // 10**6} megapixels "
            "are read; download or export it again."
        )


def _load_again(
    spec: str, flags: dict[str, Any] | None, digest: str | None, name: str, dtype: torch.dtype | None, device: str
) -> Prior:
    """A pickled prior, loaded again.

    Raises:
        PriorError: the files are not those that it was pickled with.
    """
    prior = load_prior(spec, flags=flags, dtype=dtype, device=device)
    _check_hash(prior, digest, f"the files of {spec} are not those of the prior that was pickled")
    prior.name = name
    return prior


def _load(
    name: str, flags: dict[str, Any], device: torch.device | str | None, dtype: torch.dtype, offline: bool
) -> Prior:
    if name.startswith("hf:"):
        source = fetch(name, variant=flags.get("variant"), offline=offline)
        if source.is_dir() and _is_own(source):
            source /= TRAINED_FILE
        prior = _read(source, flags, _device(device), dtype)
        prior.name = Place.parse(name).repo
        return prior
    if name in PRIORS or _is_own(Path(name)):
        source, title = _find(name)
        return _own(source, title, flags, _device(device), dtype)
    return _read(Path(name), flags, _device(device), dtype)


def _own(source: Path, name: str, flags: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Prior:
    """A prior in priorpaint's own format."""
    if flags:
        raise UsageError(f"{name} is in priorpaint's own format, which describes itself; leave the flags out.")
    return trained_prior(read_weights(source), source, name, device, dtype)


def _read(path: Path, flags: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Prior:
    """A published checkpoint, by the first reader that recognises it."""
    if not path.exists():
        own = entries()
        raise UsageError(
            f"there is no prior and no file {str(path)!r}; the embedded priors are {', '.join(PRIORS)}"
            + (f", yours are {', '.join(own)}" if own else "")
            + "; hf:owner/name is a model of the Hugging Face hub."
        )
    for reader in readers():
        if reader.recognises(path):
            return reader.read(Request(path, flags, device, dtype))
    formats = "; ".join(f"{reader.name}: {reader.title}" for reader in readers())
    if path.is_dir():
        raise UsageError(
            f"the folder {path} has no {TRAINED_FILE} of `priorpaint train` and no {MODEL_INDEX} of diffusers; "
            f"these formats are read: {formats}."
        )
    kind = looks_like(path)
    if kind == "safetensors":
        return _own(path, path.stem, flags, device, dtype)  # which says what is wrong with it
    raise CheckpointError(
        f"{path} is not a checkpoint in a format that priorpaint reads: it is {kind}; it reads {formats}."
    )


def _is_own(path: Path) -> bool:
    """Whether a path is priorpaint's own: a training folder, or a safetensors file that says so."""
    if path.is_dir():
        return (path / TRAINED_FILE).is_file()
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return length <= _MOST_HEADER and b'"priorpaint"' in file.read(length)
    except OSError:
        return False


def _check_hash(prior: Prior, expected: str | None, sentence: str, advice: str = "") -> None:
    """That a prior was read from the files that are meant."""
    if prior.hash != expected:
        hashes = f"expected SHA-256 {str(expected)[:12]}..., found {str(prior.hash)[:12]}..."
        raise PriorError(f"{sentence}: {hashes}{advice}")


def embedded_file(name: str) -> Path:
    """Where the weights of an embedded prior are (the file may be missing in a source tree without weights)."""
    return Path(str(resources.files("priorpaint"))) / PRIORS[name].file


def _find(name: str) -> tuple[Path, str]:
    """(weights file, name of the prior)."""
    if name in PRIORS:
        file = embedded_file(name)
        if not file.is_file():
            raise PriorError(f"the weights of {name} are missing from this installation ({file}); install it again.")
        return file, name
    path = Path(name)
    if path.is_dir():
        return path / TRAINED_FILE, path.resolve().name
    return path, path.stem


def _device(device: torch.device | str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # `meta` can make tensors, but no numbers
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        raise UsageError(f"torch cannot use the device {str(device)!r} here; use 'cpu'.") from None
    return chosen
