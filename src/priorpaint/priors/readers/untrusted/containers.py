"""The two containers of torch.save: a zip archive of uncompressed records, and the older run of pickles and numbers.

Both are read from a private memory map: tensors share the map until they are copied into a network, so that optimiser
states that nobody reads cost no memory, and nothing is allocated because a file claims a size.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import torch

from ....errors import CheckpointError
from .pickle_machine import Damaged, Incomplete, Machine, Name, Vocabulary
from .pickle_values import Storage

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_LOCAL_HEADER = 30
_RECORDS = 1_000_000

ZIP_START = b"PK\x03\x04"
_LEGACY_START = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # `_LEGACY_MAGIC` as every binary protocol of pickle has it


def is_container(start: bytes) -> bool:
    """Whether a file that begins like this is one of torch.save, in either container."""
    return start.startswith(ZIP_START) or (start[:1] == b"\x80" and _LEGACY_START in start[:32])


def read_container(data: memoryview, vocabulary: Vocabulary) -> Any:
    """What torch.save wrote, in either container.

    Args:
        data: the whole file.
        vocabulary: the names that the file may mention.

    Raises:
        Incomplete, Damaged: the bytes are not all there, or not what they should be.
        CheckpointError: the file asks for more than tensors and plain values.
    """
    if bytes(data[:4]) == ZIP_START:
        return _read_zip(data, vocabulary)
    return _read_legacy(data, vocabulary)


def _read_zip(data: memoryview, vocabulary: Vocabulary) -> Any:
    records = _records(data)
    top = {name.split("/")[0] for name in records}
    folder = next(iter(top), "")
    if len(top) != 1 or f"{folder}/data.pkl" not in records:
        raise CheckpointError(f"is a zip archive without the record data.pkl of torch.save; found {_some(records)}")
    if f"{folder}/constants.pkl" in records:
        raise CheckpointError("is a TorchScript program; expected the weights alone (a state_dict)")
    order = bytes(records.get(f"{folder}/byteorder", b"little"))
    if order != b"little":
        raise CheckpointError(
            f"holds numbers of byte order {order!r}; expected little: save it again on such a machine"
        )
    storages: dict[str, Storage] = {}

    def storage(reference: Any) -> Storage:
        dtype, key, count = _reference(reference, 5)
        if key not in storages:
            record = records.get(f"{folder}/data/{key}")
            if record is None:
                raise Incomplete
            if len(record) < count * dtype.itemsize:
                raise Damaged(f"the record data/{key} of {len(record)} bytes for {count} numbers")
            storages[key] = Storage(dtype, count, record)
        stored = storages[key]
        return stored if stored.dtype == dtype else Storage(dtype, count, stored.data)

    return Machine(records[f"{folder}/data.pkl"], vocabulary, storage).run()


def _records(data: memoryview) -> dict[str, memoryview]:
    """Name -> bytes of each record; none compressed, none overlapping another, checksums right."""
    whole = isinstance(data.obj, mmap.mmap) and len(data) == len(data.obj)
    file: Any = data.obj if whole else io.BytesIO(data)  # a file inside another one is small
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        if bytes(data[:4]) == ZIP_START and b"PK\x05\x06" not in bytes(data[-66_000:]):
            raise Incomplete from None
        raise Damaged(f"a zip archive ({error})") from None
    if len(entries) > _RECORDS:
        raise CheckpointError(f"is a zip archive of {len(entries)} records; expected at most {_RECORDS}")
    records: dict[str, memoryview] = {}
    end = 0
    # torch writes no checksums after torch.serialization.set_crc32_options(False).
    summed = any(entry.CRC for entry in entries)
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise CheckpointError(
                f"holds a compressed record, {entry.filename} ({entry.compress_size} bytes that unpack to "
                f"{entry.file_size}); torch.save never compresses, so the file is not a checkpoint of torch"
            )
        start = _start(data, entry)
        if entry.header_offset < end:
            raise CheckpointError(f"is a zip archive whose record {entry.filename} overlaps another; torch writes none")
        end = start + entry.file_size
        if end > len(data):
            raise Incomplete
        if entry.filename in records or entry.flag_bits & 1:
            raise Damaged(f"the record {entry.filename}")
        records[entry.filename] = data[start:end]
        if summed and zlib.crc32(records[entry.filename]) != entry.CRC:
            raise Damaged(f"the record {entry.filename}, whose checksum is wrong")
    return records


def _start(data: memoryview, entry: zipfile.ZipInfo) -> int:
    header = data[entry.header_offset : entry.header_offset + _LOCAL_HEADER]
    if len(header) < _LOCAL_HEADER:
        raise Incomplete
    if bytes(header[:4]) != ZIP_START:
        raise Damaged(f"the record {entry.filename}")
    name, extra = struct.unpack("<HH", header[26:30])
    return int(entry.header_offset) + _LOCAL_HEADER + int(name) + int(extra)


def _read_legacy(data: memoryview, vocabulary: Vocabulary) -> Any:
    start = _legacy_header(data, vocabulary)
    known: dict[str, tuple[torch.dtype, int]] = {}

    def measure(reference: Any) -> Storage:
        dtype, key, count = _reference(reference, 6)
        if known.setdefault(key, (dtype, count)) != (dtype, count):
            raise Damaged(f"the storage {key}")
        return Storage(dtype, count, None)

    first = Machine(data, vocabulary, measure, start)
    first.run()
    keys, position = _run(data, vocabulary, first.position)
    if not isinstance(keys, list) or any(not isinstance(k, str) for k in keys) or set(keys) != known.keys():
        raise Damaged("the list of storages")
    storages: dict[str, Storage] = {}
    for key in keys:
        dtype, count = known[key]
        if position + 8 > len(data):
            raise Incomplete
        written = struct.unpack("<q", data[position : position + 8])[0]
        if written != count:
            raise Damaged(f"the storage {key}, of {count} numbers in one place and {written} in another")
        position += 8
        end = position + count * dtype.itemsize
        if end > len(data):
            raise Incomplete
        storages[key] = Storage(dtype, count, data[position:end])
        position = end
    return Machine(data, vocabulary, lambda reference: storages[_reference(reference, 6)[1]], start).run()


def _legacy_header(data: memoryview, vocabulary: Vocabulary) -> int:
    """Where the main pickle starts."""
    magic, position = _run(data, vocabulary, 0)
    if magic != _LEGACY_MAGIC:
        raise CheckpointError(
            f"is a pickle of {type(magic).__name__} and not a file of torch.save; expected a state_dict that it wrote"
        )
    version, position = _run(data, vocabulary, position)
    if version != _LEGACY_VERSION:
        raise CheckpointError(f"is of version {version!r} of torch's old container; expected {_LEGACY_VERSION}")
    system, position = _run(data, vocabulary, position)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise CheckpointError("holds numbers of byte order big; expected little: save it again on such a machine")
    return position


def _run(data: memoryview, vocabulary: Vocabulary, position: int) -> tuple[Any, int]:
    """(what the pickle at a position holds, where it ends)."""
    machine = Machine(data, vocabulary, None, position)
    return machine.run(), machine.position


def _reference(reference: Any, length: int) -> tuple[torch.dtype, str, int]:
    """(type, key, count) of a persistent id: ("storage", type, key, device, count[, view])."""
    if isinstance(reference, tuple) and reference and reference[0] == "module":
        raise CheckpointError("holds a whole model with its source code; expected the weights alone (a state_dict)")
    if not isinstance(reference, tuple) or len(reference) not in (5, length) or reference[0] != "storage":
        raise Damaged("a reference to a storage")
    _, dtype, key, _, count = reference[:5]
    if len(reference) == 6 and reference[5] is not None:
        raise CheckpointError("holds storages that are views of others, as torch before 0.4 wrote; save it again")
    if isinstance(dtype, Name):
        raise CheckpointError(f"holds numbers of type {dtype}; expected dense tensors of plain numbers")
    if not isinstance(dtype, torch.dtype) or type(key) not in (str, int) or type(count) is not int or count < 0:
        raise Damaged("a reference to a storage")
    return dtype, str(key), count


def _some(names: Any, most: int = 3) -> str:
    names = list(names)
    return ", ".join(repr(name) for name in names[:most]) + (" ..." if len(names) > most else "")


def nested(vocabulary: Vocabulary) -> Callable[[Any], Any]:
    """A builder for ``torch.storage._load_from_bytes``: the storage inside bytes, read with the same care."""

    def build(*args: Any) -> Storage:
        if len(args) != 1 or not isinstance(args[0], (bytes, memoryview)):
            raise Damaged("a storage")
        content = read_container(memoryview(args[0]), vocabulary)
        if not isinstance(content, Storage):
            raise CheckpointError(f"holds {type(content).__name__} where a run of numbers was expected")
        return content

    return build
