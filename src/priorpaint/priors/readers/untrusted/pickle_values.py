"""The plain values that pickles of torch and numpy are made of, built by our own functions.

Each builder takes what the file gives as arguments and checks it: types, signs, and that a tensor lies inside its
storage, before anything is allocated.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....errors import CheckpointError
from .pickle_machine import Build, Damaged, Name, Vocabulary

_LARGEST = 2**48  # elements: far more than any checkpoint has, far less than overflows
_DIMENSIONS = 16

STORAGE_TYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_NUMPY_TYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_NUMPY_MODULES = ("numpy.core", "numpy._core")  # before and from numpy 2


@dataclass(eq=False)
class Storage:
    """A run of numbers of one type; ``data`` is None while a file is only measured."""

    dtype: torch.dtype
    count: int
    data: memoryview | None

    def flat(self) -> Tensor:
        """The numbers (count,); shares memory with the file where its alignment allows."""
        if self.data is None or not self.count:
            return torch.empty(0, dtype=self.dtype)
        if len(self.data) < self.count * self.dtype.itemsize:
            raise Damaged("a storage that is shorter than it says")
        address = np.frombuffer(self.data, dtype=np.uint8).ctypes.data
        shared = not self.data.readonly and address % self.dtype.itemsize == 0
        return torch.frombuffer(
            self.data if shared else bytearray(self.data[: self.count * self.dtype.itemsize]),
            dtype=self.dtype,
            count=self.count,
        )


class NumpyType:
    """numpy.dtype of a plain number."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in _NUMPY_TYPES:
            raise CheckpointError(f"holds numpy values of type {code!r}; expected plain numbers")
        self.dtype = np.dtype("<" + code)

    def restore(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|", "=", ">"):
            raise Damaged("a numpy type")
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class NumpyArray:
    """numpy.ndarray of plain numbers; ``value`` is set by the state that follows."""

    def __init__(self, *_: Any) -> None:
        self.value: np.ndarray[Any, Any] = np.empty(0)

    def restore(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if not isinstance(kind, NumpyType) or not isinstance(data, (bytes, memoryview)):
            raise Damaged("a numpy array")
        count = _size(shape)
        if count * kind.dtype.itemsize != len(data):
            raise Damaged("a numpy array that is not as long as it says")
        flat = np.frombuffer(data, dtype=kind.dtype, count=count) if count else np.empty(0, dtype=kind.dtype)
        self.value = flat.reshape(shape, order="F" if fortran else "C").copy()


def _size(shape: Any) -> int:
    """Number of elements of a shape, checked."""
    if not isinstance(shape, tuple) or len(shape) > _DIMENSIONS:
        raise Damaged("a shape")
    count = 1
    for side in shape:
        if type(side) is not int or not 0 <= side <= _LARGEST:
            raise Damaged("a shape")
        count *= side
        if count > _LARGEST:
            raise CheckpointError(f"holds a tensor of shape {shape}, larger than any network's")
    return count


def rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    """A window of a storage, which may be shared with other tensors."""
    if not isinstance(storage, Storage) or type(offset) is not int or not isinstance(stride, tuple):
        raise Damaged("a tensor")
    count = _size(shape)
    if len(stride) != len(shape) or any(type(s) is not int or not 0 <= s <= _LARGEST for s in stride):
        raise Damaged("the strides of a tensor")
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) if count else offset
    if not 0 <= offset <= storage.count or (count and last >= storage.count) or count > storage.count:
        raise CheckpointError(
            f"holds a tensor of shape {shape} with strides {stride}, {count} numbers, on a storage of only "
            f"{storage.count}; expected each tensor inside its storage"
        )
    if storage.data is None:
        return torch.empty(0)
    return storage.flat().as_strided(shape, stride, offset) if count else torch.empty(shape, dtype=storage.dtype)


def _parameter(tensor: Any, *_: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise Damaged("a parameter")
    return tensor


def _tensor_of_type(how: Any, _kind: Any, args: Any, _state: Any) -> Tensor:
    if how != Name("torch._utils", "_rebuild_tensor_v2") or not isinstance(args, tuple):
        raise CheckpointError(f"holds a tensor made by {how}; expected plain dense tensors")
    return rebuild_tensor(*args)


def _ordered(*args: Any) -> OrderedDict[Any, Any]:
    if not args:
        return OrderedDict()
    if len(args) == 1 and isinstance(args[0], list) and all(len(p) == 2 and isinstance(p[0], str) for p in args[0]):
        return OrderedDict((key, value) for key, value in args[0])
    raise Damaged("a dictionary")


def _dict(*args: Any) -> dict[Any, Any]:
    return dict(_ordered(*args))


def _members(make: Callable[[list[Any]], Any]) -> Build:
    def build(*args: Any) -> Any:
        values = args[0] if args else []
        if len(args) > 1 or not isinstance(values, list):
            raise Damaged("a set or list")
        if any(not isinstance(value, (str, int, float, type(None))) for value in values):
            raise Damaged("a set or list of other than plain values")
        return make(values)

    return build


def _latin(text: Any, coding: Any) -> memoryview:
    # How protocol 2 writes bytes.
    if not isinstance(text, str) or coding != "latin1":
        raise Damaged("bytes")
    return memoryview(text.encode("latin1"))


def _scalar(kind: Any, data: Any = None) -> Any:
    if not isinstance(kind, NumpyType) or not isinstance(data, (bytes, memoryview)):
        raise Damaged("a number of numpy")
    if len(data) != kind.dtype.itemsize:
        raise Damaged("a number of numpy")
    return np.frombuffer(data, dtype=kind.dtype)[0].item()


def _shape(*args: Any) -> tuple[int, ...]:
    shape = args[0] if args else ()
    _size(shape)
    return tuple(shape)


def _device(*args: Any) -> str:
    return ":".join(str(part) for part in args if isinstance(part, (str, int)))


_PLAIN: dict[tuple[str, str], Build] = {
    ("collections", "OrderedDict"): _ordered,
    ("_codecs", "encode"): _latin,
    ("torch", "Size"): _shape,
    ("torch", "device"): _device,
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _tensor_of_type,
    ("numpy", "dtype"): NumpyType,
    ("numpy", "ndarray"): _parameter,  # only ever an argument of _reconstruct
    ("torch", "Tensor"): _parameter,  # only ever an argument of _rebuild_from_type_v2
    ("torch.nn.parameter", "Parameter"): _parameter,
    **{(f"{module}.multiarray", "scalar"): _scalar for module in _NUMPY_MODULES},
    **{(f"{module}.multiarray", "_reconstruct"): NumpyArray for module in _NUMPY_MODULES},
    **{
        (module, name): build
        for module in ("builtins", "__builtin__")
        for name, build in (
            ("set", _members(set)),
            ("frozenset", _members(frozenset)),
            ("list", _members(list)),
            ("dict", _dict),
        )
    },
}
_CONSTANTS: dict[tuple[str, str], Any] = {
    **{("torch", name): getattr(torch, name) for name in _DTYPES},
    **{("torch", name): dtype for name, dtype in STORAGE_TYPES.items()},
    **{("torch.cuda", name): dtype for name, dtype in STORAGE_TYPES.items()},
    ("torch.storage", "UntypedStorage"): torch.uint8,
}

TENSORS = Vocabulary(_PLAIN, _CONSTANTS)
