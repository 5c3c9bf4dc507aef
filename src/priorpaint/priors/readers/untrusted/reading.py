"""Reading files from strangers: nothing in them is run or imported, and sizes are checked before memory is taken.

Every failure is a `CheckpointError` of one sentence: the file, what was expected, what was found, what to do.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import CheckpointError, PriorpaintError, printable
from .containers import ZIP_START, is_container, read_container
from .pickle_machine import Damaged, Incomplete, Machine, Vocabulary
from .pickle_values import TENSORS

MAX_BYTES = 1 << 38
_HEADER = 100_000_000  # of safetensors, as its own library has it
_NAMES = 1 << 24  # bytes at the start of a file of torch.save, where the names of its tensors stand
_SHOWN = 4
_LONGEST = 900  # letters of a message
# Bytes that were changed on the way can look like anything; no list of cases is complete.
_CONFUSED = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    MemoryError,
    struct.error,
)
_AGAIN = "download it again"
_KINDS: tuple[tuple[str, tuple[bytes, ...]], ...] = (
    ("a git-lfs pointer, whose real file must be downloaded (git lfs pull)", (b"version https://git-lfs",)),
    ("a web page", (b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")),
    ("a JSON text", (b'{"', b"{\n", b"[{", b"{ ")),
    ("a gzip archive; unpack it first", (b"\x1f\x8b",)),
    ("a picture", (b"\x89png", b"\xff\xd8\xff", b"gif8")),
    ("a 7-zip archive; unpack it first", (b"7z\xbc\xaf",)),
    ("an HDF5 file", (b"\x89hdf",)),
    ("a program", (b"\x7felf", b"mz\x90", b"#!")),
)


def looks_like(path: Path) -> str:
    """``zip``, ``pickle``, ``safetensors``, or a few words that say what the file looks like instead.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check its permissions.") from None
    if not start:
        return "an empty file"
    if start.startswith(ZIP_START):
        return "zip"
    length = struct.unpack("<Q", start[:8])[0] if len(start) > 9 and start[8:9] == b"{" else None
    if length is not None and length <= _HEADER:  # asked first: a length may begin like a pickle, with 80 02
        return "safetensors"
    if start[0] == 0x80 and len(start) > 1 and start[1] <= 5:
        return "pickle"
    if length is not None and length < 1 << 62:
        return "safetensors"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for kind, beginnings in _KINDS:
        if text.startswith(beginnings):
            return kind
    if start[257:262] == b"ustar":
        return "a tar archive, as torch before 0.2 and other programs wrote; save it again with torch"
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start):
        return f"a text that begins {start[:24].decode()!r}"
    return f"an unknown kind of file that begins with the bytes {start[:8].hex(' ')}"


def container_start(path: Path) -> bytes:
    """The first bytes of a file of torch.save, with the names of its tensors; b"" for anything else. Never raises."""
    start = _start(path, 32)
    return _start(path, _NAMES) if is_container(start) else b""


def is_plain_pickle(path: Path) -> bool:
    """Whether a file is a pickle that torch.save did not write. Never raises."""
    start = _start(path, 32)
    return start[:1] == b"\x80" and not is_container(start) and looks_like(path) == "pickle"


def load_torch(path: str | Path, *, max_bytes: int = MAX_BYTES, vocabulary: Vocabulary = TENSORS) -> Any:
    """What ``torch.save`` wrote into ``path`` (.pt, .pth, .ckpt, .bin), in the zip or in the older container.

    The tensors are on the CPU and share a private memory map of the file; copy what you keep.

    Args:
        path: the file.
        max_bytes: the tensors together may have this many bytes.
        vocabulary: the names that the file may mention.

    Returns:
        Tensors and plain containers.

    Raises:
        CheckpointError: the file is damaged, incomplete or not a checkpoint, or asks for anything else, named.
    """
    path = Path(path)
    with _reading(path, ("zip", "pickle"), "a file of torch.save") as data:
        content = read_container(data, vocabulary)
    _check_total(content, max_bytes, path)
    return content


def load_state(path: Path, vocabulary: Vocabulary = TENSORS, key: str = "") -> dict[str, Tensor]:
    """Tensors by name, alone in a file of torch.save or, where it has one, in its entry ``key``.

    Raises:
        CheckpointError: as for `load_torch`, or it holds anything else.
    """
    content = load_torch(path, vocabulary=vocabulary)
    content = content.get(key, content) if isinstance(content, dict) else content
    what = type(content).__name__
    if isinstance(content, dict):
        odd = [name for name, value in content.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
        if not odd:
            return dict(content)
        what = "a dictionary of " + ", ".join(f"{name} ({type(content[name]).__name__})" for name in odd[:_SHOWN])
    raise CheckpointError(f"{path} does not hold a state_dict: expected tensors by name, found {_clean(what)}.")


def load_pickle(path: str | Path, vocabulary: Vocabulary, expected: str) -> Any:
    """A pickle alone: tensors, plain values, and `Opaque` objects in the place of classes.

    Args:
        path: the file.
        vocabulary: the names that it may mention.
        expected: what it should be, for messages.

    Raises:
        CheckpointError: as for `load_torch`.
    """
    with _reading(Path(path), ("pickle",), expected) as data:
        return Machine(data, vocabulary).run()


def load_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(the tensors of a safetensors file, on the CPU; its metadata).

    Raises:
        CheckpointError: the file is damaged, incomplete or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    _check_file(path, ("safetensors",), "a safetensors file")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is an incomplete or damaged safetensors file ({error}); {_AGAIN}.") from None


def check_fit(state: Mapping[str, Tensor], module: nn.Module, path: Path, what: str = "the network") -> None:
    """Raise CheckpointError unless ``state`` has exactly the tensors of ``module``, in their shapes.

    ``module`` may be on the meta device. The message names what is missing, unknown, or of which other shape.
    """
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    held = {key: tuple(value.shape) for key, value in state.items()}
    missing = [key for key in wanted if key not in held]
    unknown = [key for key in held if key not in wanted]
    wrong = [key for key in wanted if key in held and wanted[key] != held[key]]
    if not missing and not unknown and not wrong:
        return
    shapes = [f"{key} (expected {wanted[key]}, found {held[key]})" for key in wrong[:_SHOWN]]
    parts = [
        text
        for text, count in (
            (f"tensors of another shape: {_list(shapes, len(wrong))}", len(wrong)),
            (f"missing: {_list(missing, len(missing))}", len(missing)),
            (f"not part of it: {_list(unknown, len(unknown))}", len(unknown)),
        )
        if count
    ]
    raise CheckpointError(
        f"{path} does not hold {what} that it describes: {'; '.join(parts)}; check its flags or configuration, "
        f"or {_AGAIN}."
    )


def check_floating(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError where a tensor is not of floating point numbers, naming it."""
    for key, value in state.items():
        if not value.is_floating_point():
            raise CheckpointError(
                f"{path}: {key} holds numbers of {value.dtype}, not floating point weights; {_AGAIN}."
            )


def check_finite(state: Mapping[str, Tensor], path: Path | str, advice: str = _AGAIN) -> None:
    """Raise CheckpointError where a tensor holds NaN or infinity, naming it; ``path`` says of what."""
    for key, value in state.items():
        if not value.is_floating_point():
            continue
        wide = value if value.element_size() > 1 else value.float()  # torch asks 8-bit numbers nothing
        if not bool(torch.isfinite(wide).all()):
            raise CheckpointError(f"{path}: the tensor {key} holds values that are not finite; {advice}.")


def assemble(
    make: Callable[[], nn.Module],
    state: Mapping[str, Tensor],
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    what: str = "the network",
) -> nn.Module:
    """A network with the tensors of ``state``, copied; its own first weights are never drawn or stored.

    Args:
        make: builds the network; runs under torch's meta device.

    Raises:
        CheckpointError: the tensors do not fit, are not finite, or would not fit into this machine's memory.
    """
    with torch.device("meta"):
        network = make()
    check_fit(state, network, path, what)
    check_floating(state, path)
    size = sum(value.numel() for value in state.values()) * dtype.itemsize
    if size > machine_memory():
        raise CheckpointError(f"{path} needs {size / 1e9:.1f} GB for its weights, more memory than this machine has.")
    check_finite(state, path)
    tables = {name for name, _ in network.named_buffers()}  # of frequencies and filters: they stay exact
    weights = {
        key: value.to(device=device, dtype=torch.float32 if key in tables else dtype, copy=True).contiguous()
        for key, value in state.items()
    }
    network.load_state_dict(weights, assign=True)
    return network.requires_grad_(False).eval()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def interpreting(path: Path) -> Iterator[None]:
    """Whatever goes wrong while the contents of a file are understood becomes a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(_clean(error)) from None
    except PriorpaintError:
        raise
    except _CONFUSED as error:
        raise CheckpointError(f"{path} is damaged or of another kind ({named(error)}); {_AGAIN}.") from None


def check_count(blocks: int, state: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError where a file asks for more blocks than it has tensors, before they are built."""
    if blocks > len(state):
        raise CheckpointError(f"{path} asks for {blocks} blocks and has {len(state)} tensors; it is damaged.")


def _start(path: Path, size: int) -> bytes:
    try:
        if not path.is_file():
            return b""
        with open(path, "rb") as file:
            return file.read(size)
    except (OSError, ValueError):  # a name with a zero byte is a ValueError
        return b""


def _check_file(path: Path, kinds: tuple[str, ...], expected: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; check the path.")
    kind = looks_like(path)
    if kind in kinds:
        return
    plain = {"zip": "a zip archive", "pickle": "a pickle", "safetensors": "a safetensors file"}
    raise CheckpointError(f"{path} is not a checkpoint: expected {expected}, found {plain.get(kind, kind)}.")


@contextmanager
def _reading(path: Path, kinds: tuple[str, ...], expected: str) -> Iterator[memoryview]:
    """The bytes of a file; whatever goes wrong inside becomes a CheckpointError that names the file."""
    _check_file(path, kinds, expected)
    with open(path, "rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    try:
        yield data
    except Incomplete:
        raise CheckpointError(f"{path} is incomplete: it ends in the middle of its data; {_AGAIN}.") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path} {_clean(error)}.") from None
    except (Damaged, *_CONFUSED) as error:
        raise CheckpointError(f"{path} is damaged: expected {expected}, found {_clean(error)}; {_AGAIN}.") from None


def named(error: Exception) -> str:
    """The kind of an error of a library, and what it says, shortened."""
    return f"{type(error).__name__}: {_clean(error)[:200]}"


def _clean(error: Exception | str) -> str:
    """What an error says, in one line that a terminal can show: names in it may come from the file."""
    line = printable(" ".join(str(error).split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 120]} ... {line[-100:]}"


def _check_total(content: Any, max_bytes: int, path: Path) -> None:
    total, visited, waiting = 0, set(), [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            total += value.nbytes
        if not isinstance(value, (dict, list, tuple)) or id(value) in visited:
            continue
        visited.add(id(value))
        waiting.extend(value.values() if isinstance(value, dict) else value)
    if total > max_bytes:
        raise CheckpointError(f"{path} holds tensors of {total / 1e9:.0f} GB; at most {max_bytes / 1e9:.0f} are read.")


def machine_memory() -> int:
    """Bytes of memory of this machine, used or not; very many where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system
        return 1 << 42


def _list(names: list[str], count: int) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {count - _SHOWN} more" if count > _SHOWN else "")
