"""The modules inside an EDM pickle: their classes' names, plain attributes and tensors, without any class or code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import CheckpointError
from .base import short
from .training_words import TRAINING
from .untrusted.containers import nested
from .untrusted.pickle_machine import Damaged, Name, Opaque, Vocabulary
from .untrusted.pickle_values import TENSORS, NumpyArray

_DEEPEST = 32
_MOST = 10**12  # of a whole number
_PERSISTENT = Name("torch_utils.persistence", "_reconstruct_persistent_obj")


def _easy(*args: Any) -> dict[Any, Any]:
    if args:
        raise Damaged("settings")
    return {}


# An object of a persistent class is an `Opaque` of the name _PERSISTENT, whose one argument is its description, a
# dictionary; the Python source in it is a text that nobody runs.
_BUILDERS = {("torch.storage", "_load_from_bytes"): nested(TENSORS), ("dnnlib.util", "EasyDict"): _easy}
VOCABULARY = Vocabulary(
    {**TRAINING.builders, **_BUILDERS},
    TRAINING.constants,
    lambda name: name == _PERSISTENT or name.module.startswith("torch.nn.modules."),
)


@dataclass(frozen=True)
class Node:
    """One module.

    Attributes:
        kind: name of its class.
        where: its own name from the top, for messages.
        values: its attributes.
        path: the file.
    """

    kind: str
    where: str
    values: Mapping[str, Any]
    path: Path

    def child(self, name: str) -> Node:
        """A module that must be there."""
        child = self._table("_modules").get(name)
        if child is None:
            raise CheckpointError(f"{self.path}: {self.kind} lacks its module {name}; the file is of another network.")
        return node(child, self.path, f"{self.where}.{name}".lstrip("."))

    def children(self) -> Iterator[Node]:
        """All modules, in their order."""
        for name in self._table("_modules"):
            if self._table("_modules")[name] is not None:
                yield self.child(name)

    def arguments(self, order: tuple[str, ...]) -> dict[str, Any]:
        """What the published constructor was called with; ``order``: names of its first arguments."""
        positional, named = self.values.get("_init_args", ()), self.values.get("_init_kwargs", {})
        if not isinstance(positional, (tuple, list)) or not isinstance(named, Mapping) or len(positional) > len(order):
            raise CheckpointError(f"{self.path}: the arguments of {self.kind} are damaged; download it again.")
        return {**dict(zip(order, positional, strict=False)), **named}

    def number(self, name: str, default: float | None = None) -> float:
        """A finite or infinite attribute that is a number."""
        value = plain(self.values.get(name, default))
        plausible = isinstance(value, float) or (isinstance(value, int) and abs(value) < _MOST)
        if isinstance(value, bool) or not plausible or math.isnan(value):
            raise CheckpointError(f"{self.path}: {self.kind}.{name} is {short(value)}; expected a number.")
        return float(value)

    def whole(self, name: str, default: int | None = None) -> int:
        """An attribute that is a whole number, not negative."""
        value = self.number(name, default)
        if value < 0 or value != int(min(value, 1e9)):
            raise CheckpointError(f"{self.path}: {self.kind}.{name} is {value}; expected a whole number.")
        return int(value)

    def tensors(self, depth: int = 0) -> dict[str, Tensor]:
        """Parameters and buffers of this module and those inside, by name."""
        if depth > _DEEPEST:
            raise CheckpointError(f"{self.path} nests modules more than {_DEEPEST} deep; expected an EDM network.")
        tensors: dict[str, Tensor] = {}
        left_out = self.values.get("_non_persistent_buffers_set") or ()
        for table in ("_parameters", "_buffers"):
            for name, value in self._table(table).items():
                if value is None or (table == "_buffers" and name in left_out):
                    continue
                if not isinstance(value, Tensor):
                    raise CheckpointError(f"{self.path}: {self.where}.{name} is {type(value).__name__}, not a tensor.")
                tensors[str(name)] = value
        for child in self.children():
            inner = child.tensors(depth + 1)
            tensors.update({f"{child.where.rsplit('.', 1)[-1]}.{name}": value for name, value in inner.items()})
        return tensors

    def _table(self, name: str) -> Mapping[str, Any]:
        table = self.values.get(name)
        if not isinstance(table, Mapping):
            raise CheckpointError(f"{self.path}: {self.kind} has no table {name}; expected a module of torch.")
        return table


def node(value: Any, path: Path, where: str = "") -> Node:
    """The module that an object of the pickle is.

    Raises:
        CheckpointError: it is none.
    """
    if isinstance(value, Opaque) and value.name == _PERSISTENT:
        about = value.args[0] if len(value.args) == 1 else None
        if isinstance(about, Mapping) and isinstance(about.get("class_name"), str):
            state = about.get("state")
            if isinstance(state, Mapping):
                return Node(about["class_name"], where, state, path)
    elif isinstance(value, Opaque) and isinstance(value.state, Mapping):
        return Node(value.name.name, where, value.state, path)
    held = str(value.name) if isinstance(value, Opaque) else type(value).__name__
    raise CheckpointError(f"{path} holds {held} as {where or 'its network'}; expected a module with its state.")


def plain(value: Any) -> Any:
    """Numbers of torch and numpy as Python's own."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, NumpyArray):
        return value.value.item() if value.value.size == 1 else value.value.tolist()
    return value
