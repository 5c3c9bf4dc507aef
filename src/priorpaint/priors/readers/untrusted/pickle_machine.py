"""A pickle machine that imports nothing: names stay names, and only listed names may build plain values.

Python's own unpickler turns a name in a file into whatever that name means in this process. Here a name is two strings
(`Name`); a call is looked up in a table of our own functions, and anything that is not in the table is refused by name.
How an instruction's argument is written is Python's own `pickletools`; every length in the file is checked against the
bytes that are there before anything of that length is made.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ....errors import CheckpointError

Build = Callable[..., Any]


class Incomplete(Exception):
    """The file ends in the middle of something."""


class Damaged(Exception):
    """The bytes are not a valid pickle of the kind that we read."""


@dataclass(frozen=True)
class Name:
    """A global that a file mentions: never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Opaque:
    """An object of a class that is not imported: its arguments and its state, as plain values."""

    name: Name
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


_MARK = object()
_KEYS = (str, int, float, bool, type(None), Name)


@dataclass(frozen=True)
class Vocabulary:
    """What a file may mention.

    Attributes:
        builders: name -> our own function that makes a plain value from the arguments in the file.
        constants: name -> plain value, for example a dtype.
        opaque: whether a class may stand in the file as an `Opaque`, which does nothing.
    """

    builders: Mapping[tuple[str, str], Build]
    constants: Mapping[tuple[str, str], Any]
    opaque: Callable[[Name], bool] = lambda name: False

    def resolve(self, module: str, name: str) -> Any:
        key = (module, name)
        if key in self.constants:
            return self.constants[key]
        asked = Name(module, name)
        if key in self.builders or (_plain(module, name) and self.opaque(asked)):
            return asked
        raise CheckpointError(
            f"asks for {asked}, which has no place in a file of weights; expected tensors and plain values only, so "
            "nothing of it was run: get the file from its publisher"
        )


def _plain(module: str, name: str) -> bool:
    # A dotted name ("os.system" in the module "torch.serialization") walks out of the module that it claims to be in.
    return name.isidentifier() and all(part.isidentifier() for part in module.split("."))


class Machine:
    """Runs one pickle.

    Args:
        data: the bytes; ``position`` is where the pickle starts, and after `run` where it ended.
        vocabulary: the names that may occur.
        storage: what a persistent id stands for; None refuses them.
    """

    def __init__(
        self,
        data: memoryview,
        vocabulary: Vocabulary,
        storage: Callable[[Any], Any] | None = None,
        position: int = 0,
    ) -> None:
        self.data, self.position = data, position
        self._vocabulary, self._storage = vocabulary, storage
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The object that the pickle describes.

        Raises:
            Incomplete, Damaged, ValueError: the bytes are not a whole pickle.
            CheckpointError: the pickle asks for a name that is not in the vocabulary.
        """
        while True:
            code = self.read(1)[0]
            if code == _STOP:
                return self._pop()
            if code not in _INSTRUCTIONS:
                raise Damaged(f"pickle instruction {code:#04x} at byte {self.position - 1}")
            argument, step = _INSTRUCTIONS[code]
            step(self, argument and argument(self))

    # Reading, as `pickletools` asks a file for it.

    def read(self, count: int) -> bytes:
        """The next bytes, all of them."""
        return bytes(self._view(count))

    def readline(self) -> bytes:
        """The bytes up to and with the next newline."""
        end = bytes(self.data[self.position : self.position + _LONGEST_LINE]).find(b"\n")
        if end < 0:
            raise Incomplete
        return self.read(end + 1)

    def _view(self, count: int) -> memoryview:
        """The next bytes where they are, without a copy."""
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise Incomplete
        return self.data[start : self.position]

    # The stack.

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise Damaged("a value is missing")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack:
            raise Damaged("a value is missing")
        return self._stack[-1]

    def _since_mark(self) -> list[Any]:
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is _MARK:
                values = self._stack[index + 1 :]
                del self._stack[index:]
                return values
        raise Damaged("a mark is missing")

    # Building.

    def _call(self) -> None:
        args, what = self._pop(), self._pop()
        if not isinstance(what, Name) or not isinstance(args, tuple):
            raise Damaged(f"a call of {type(what).__name__}")
        build = self._vocabulary.builders.get((what.module, what.name))
        self._push(Opaque(what, args) if build is None else build(*args))

    def _call_without_keywords(self) -> None:
        if self._pop():
            raise Damaged("an object with keyword arguments")
        self._call()

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Opaque):
            target.items.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise Damaged(f"items for {type(target).__name__}")

    def _set(self, values: list[Any]) -> None:
        target = self._top()
        if len(values) % 2:
            raise Damaged("a key without a value")
        if isinstance(target, Opaque):
            target.items.extend(zip(values[::2], values[1::2], strict=True))
            return
        if not isinstance(target, dict):
            raise Damaged(f"entries for {type(target).__name__}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_key(key)] = value

    def _dictionary(self) -> None:
        values = self._since_mark()
        self._push({})
        self._set(values)

    def _add(self, values: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, set):
            raise Damaged(f"members for {type(target).__name__}")
        target.update(map(_key, values))

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, Opaque):
            target.state = state
        elif hasattr(target, "restore"):  # our own holders (numpy arrays and types)
            target.restore(state)
        elif not isinstance(target, OrderedDict):  # whose state is the _metadata of a state_dict
            raise Damaged(f"a state for {type(target).__name__}")

    # Names, and what was said before.

    def _resolve(self, module: Any, name: Any) -> None:
        if not isinstance(name, str) or not isinstance(module, str):
            raise Damaged("a name that is not text")
        self._push(self._vocabulary.resolve(module, name))

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise Damaged("a value is missing")
        self._push(self._memo[index])

    def _memoise(self, index: int) -> None:
        self._memo[index] = self._top()

    def _refer(self) -> None:
        if self._storage is None:
            raise Damaged("a reference to data outside the pickle")
        self._push(self._storage(self._pop()))

    def _drop(self) -> None:
        self._top()
        self._stack.pop()


def _key(value: Any) -> Any:
    # A tuple of tuples of ... is hashed anew at every look: small files could keep the machine busy for years.
    if isinstance(value, _KEYS) or (isinstance(value, tuple) and all(isinstance(part, _KEYS) for part in value)):
        return value
    raise Damaged(f"a key of type {type(value).__name__}")


def _name_of(machine: Machine) -> tuple[str, str]:
    # Not as pickletools reads it, which takes backslashes for escapes.
    module, name = (machine.readline()[:-1].decode() for _ in range(2))
    return module, name


def _popped(count: int) -> Step:
    def step(machine: Machine, _: Any) -> None:
        parts = [machine._pop() for _ in range(count)]
        machine._push(tuple(reversed(parts)))

    return step


Step = Callable[[Machine, Any], object]
_STOP = ord(".")
_LONGEST_LINE = 65536
# What an instruction does with its argument, by its name (the protocols 0 to 5). Left out on purpose: INST, OBJ,
# STRING, EXT1-4, PERSID and buffers outside the file, which no checkpoint needs.
_STEPS: dict[str, Step] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, _: None),  # FRAME: a hint for readers of streams
    **dict.fromkeys(
        (
            *("INT", "LONG", "FLOAT", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
            *("SHORT_BINSTRING", "BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        ),
        Machine._push,
    ),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), lambda m, n: m._push(m._view(n))),
    "MARK": lambda m, _: m._push(_MARK),
    "POP": lambda m, _: m._drop(),
    "POP_MARK": lambda m, _: m._since_mark(),
    "DUP": lambda m, _: m._push(m._top()),
    "NONE": lambda m, _: m._push(None),
    "NEWTRUE": lambda m, _: m._push(True),
    "NEWFALSE": lambda m, _: m._push(False),
    "EMPTY_LIST": lambda m, _: m._push([]),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "EMPTY_TUPLE": lambda m, _: m._push(()),
    "EMPTY_SET": lambda m, _: m._push(set()),
    "LIST": lambda m, _: m._push(m._since_mark()),
    "DICT": lambda m, _: m._dictionary(),
    "TUPLE": lambda m, _: m._push(tuple(m._since_mark())),
    **{f"TUPLE{count}": _popped(count) for count in (1, 2, 3)},
    "FROZENSET": lambda m, _: m._push(frozenset(map(_key, m._since_mark()))),
    "APPEND": lambda m, _: m._extend([m._pop()]),
    "APPENDS": lambda m, _: m._extend(m._since_mark()),
    "SETITEM": lambda m, _: m._set([m._pop(), m._pop()][::-1]),
    "SETITEMS": lambda m, _: m._set(m._since_mark()),
    "ADDITEMS": lambda m, _: m._add(m._since_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine._memoise),
    "MEMOIZE": lambda m, _: m._memoise(len(m._memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine._recall),
    "GLOBAL": lambda m, names: m._resolve(*names),
    "STACK_GLOBAL": lambda m, _: m._resolve(*[m._pop(), m._pop()][::-1]),
    "REDUCE": lambda m, _: m._call(),
    "NEWOBJ": lambda m, _: m._call(),  # the class and its arguments
    "NEWOBJ_EX": lambda m, _: m._call_without_keywords(),
    "BUILD": lambda m, _: m._build(),
    "BINPERSID": lambda m, _: m._refer(),
}
# Arguments that are not read as pickletools does: of bytes the length alone, so that they stay where they are.
_ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "GLOBAL": _name_of,
    "SHORT_BINBYTES": pickletools.read_uint1,
    "BINBYTES": pickletools.read_uint4,
    "BINBYTES8": pickletools.read_uint8,
    "BYTEARRAY8": pickletools.read_uint8,
}
# Code -> how its argument is read, where it has one, and what it does.
_INSTRUCTIONS: dict[int, tuple[Callable[[Any], Any] | None, Step]] = {
    ord(known.code): (_ARGUMENTS.get(known.name, known.arg.reader if known.arg else None), _STEPS[known.name])
    for known in pickletools.opcodes
    if known.name in _STEPS
}
