"""A pickle machine that imports nothing: names stay names, and only listed names may build plain values.

Python's own unpickler turns a name in a file into whatever that name means in this process. Here a name is two strings
(`Name`); a call is looked up in a table of our own functions, and anything that is not in the table is refused by name.
Every length in the file is checked against the bytes that are there before anything of that length is made.
"""

from __future__ import annotations

import struct
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


class _Mark:
    pass


_MARK = _Mark()
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

    def extended(
        self,
        builders: Mapping[tuple[str, str], Build],
        opaque: Callable[[Name], bool],
        constants: Mapping[tuple[str, str], Any] | None = None,
    ) -> Vocabulary:
        """With further builders and constants, and with ``opaque`` in the place of its own."""
        return Vocabulary({**self.builders, **builders}, {**self.constants, **(constants or {})}, opaque)

    def resolve(self, module: str, name: str) -> Any:
        key = (module, name)
        if key in self.constants:
            return self.constants[key]
        found = Name(module, name)
        if key in self.builders or (_plain(module, name) and self.opaque(found)):
            return found
        raise CheckpointError(
            f"asks for {found}, which has no place in a file of weights; expected tensors and plain values only, so "
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
            Incomplete, Damaged: the bytes are not a whole pickle.
            CheckpointError: the pickle asks for a name that is not in the vocabulary.
        """
        steps = _STEPS
        while True:
            code = self._take(1)[0]
            if code == 0x2E:  # STOP
                return self._pop()
            step = steps.get(code)
            if step is None:
                raise Damaged(f"pickle instruction {code:#04x} at byte {self.position - 1}")
            step(self)

    # Reading.

    def _take(self, count: int) -> memoryview:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise Incomplete
        view = self.data[self.position : end]
        self.position = end
        return view

    def _number(self, form: str, size: int) -> Any:
        return struct.unpack(form, self._take(size))[0]

    def _line(self) -> str:
        for end in range(self.position, min(self.position + 65536, len(self.data))):
            if self.data[end] == 0x0A:
                line = bytes(self._take(end - self.position)).decode()
                self.position += 1
                return line
        raise Incomplete

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

    def _call(self, what: Any, args: Any) -> Any:
        if not isinstance(what, Name) or not isinstance(args, tuple):
            raise Damaged(f"a call of {type(what).__name__}")
        build = self._vocabulary.builders.get((what.module, what.name))
        return Opaque(what, args) if build is None else build(*args)

    def _extend(self, target: Any, values: list[Any]) -> None:
        if isinstance(target, Opaque):
            target.items.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise Damaged(f"items for {type(target).__name__}")

    def _set(self, target: Any, values: list[Any]) -> None:
        if len(values) % 2:
            raise Damaged("a key without a value")
        if isinstance(target, Opaque):
            target.items.extend(zip(values[::2], values[1::2], strict=True))
            return
        if not isinstance(target, dict):
            raise Damaged(f"entries for {type(target).__name__}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_key(key)] = value

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, Opaque):
            target.state = state
        elif hasattr(target, "restore"):  # our own holders (numpy arrays and types)
            target.restore(state)
        elif not isinstance(target, OrderedDict):  # whose state is the _metadata of a state_dict
            raise Damaged(f"a state for {type(target).__name__}")


def _key(value: Any) -> Any:
    # A tuple of tuples of ... is hashed anew at every look: small files could keep the machine busy for years.
    if isinstance(value, _KEYS) or (isinstance(value, tuple) and all(isinstance(part, _KEYS) for part in value)):
        return value
    raise Damaged(f"a key of type {type(value).__name__}")


def _long(data: memoryview) -> int:
    return int.from_bytes(data, "little", signed=True)


def _text(data: memoryview) -> str:
    return str(data, "utf-8", "surrogatepass")


def _set_memo(machine: Machine, index: int) -> None:
    machine._memo[index] = machine._top()


def _get_memo(machine: Machine, index: int) -> None:
    if index not in machine._memo:
        raise Damaged("a value is missing")
    machine._push(machine._memo[index])


def _global(machine: Machine) -> None:
    module, name = machine._line(), machine._line()
    machine._push(machine._vocabulary.resolve(module, name))


def _stack_global(machine: Machine) -> None:
    name, module = machine._pop(), machine._pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise Damaged("a name that is not text")
    machine._push(machine._vocabulary.resolve(module, name))


def _reduce(machine: Machine) -> None:
    args, what = machine._pop(), machine._pop()
    machine._push(machine._call(what, args))


def _new_object_keywords(machine: Machine) -> None:
    keywords, args, what = machine._pop(), machine._pop(), machine._pop()
    if keywords:
        raise Damaged("an object with keyword arguments")
    machine._push(machine._call(what, args))


def _persistent(machine: Machine) -> None:
    if machine._storage is None:
        raise Damaged("a reference to data outside the pickle")
    machine._push(machine._storage(machine._pop()))


def _append(machine: Machine) -> None:
    value = machine._pop()
    machine._extend(machine._top(), [value])


def _appends(machine: Machine) -> None:
    values = machine._since_mark()
    machine._extend(machine._top(), values)


def _set_item(machine: Machine) -> None:
    value, key = machine._pop(), machine._pop()
    machine._set(machine._top(), [key, value])


def _set_items(machine: Machine) -> None:
    values = machine._since_mark()
    machine._set(machine._top(), values)


def _add_items(machine: Machine) -> None:
    values = machine._since_mark()
    target = machine._top()
    if not isinstance(target, set):
        raise Damaged(f"members for {type(target).__name__}")
    target.update(_key(value) for value in values)


def _build(machine: Machine) -> None:
    state = machine._pop()
    machine._build(machine._top(), state)


def _dictionary(machine: Machine) -> None:
    values = machine._since_mark()
    result: dict[Any, Any] = {}
    machine._set(result, values)
    machine._push(result)


def _tuple(count: int) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        parts = [machine._pop() for _ in range(count)]
        machine._push(tuple(reversed(parts)))

    return step


def _push_of(make: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine._push(make(machine))


def _constant(value: Any) -> Callable[[Machine], None]:
    return lambda machine: machine._push(value)


def _drop(machine: Machine) -> None:
    if not machine._stack:
        raise Damaged("a value is missing")
    machine._stack.pop()


def _drop_since_mark(machine: Machine) -> None:
    machine._since_mark()


def _decimal(machine: Machine) -> int | bool:
    line = machine._line()
    if line in ("00", "01"):  # how protocol 0 writes truth values
        return line == "01"
    return int(line.removesuffix("L"))


# One byte of a pickle (the protocols 0 to 5) and what it does. Left out on purpose: INST, OBJ, EXT1-4, PERSID and
# buffers outside the file, which no checkpoint needs.
_STEPS: dict[int, Callable[[Machine], None]] = {
    ord("("): _constant(_MARK),
    ord("0"): _drop,
    ord("1"): _drop_since_mark,
    ord("2"): _push_of(lambda m: m._top()),
    ord("N"): _constant(None),
    0x88: _constant(True),
    0x89: _constant(False),
    ord("I"): _push_of(_decimal),
    ord("L"): _push_of(_decimal),
    ord("F"): _push_of(lambda m: float(m._line())),
    ord("J"): _push_of(lambda m: m._number("<i", 4)),
    ord("K"): _push_of(lambda m: m._number("<B", 1)),
    ord("M"): _push_of(lambda m: m._number("<H", 2)),
    0x8A: _push_of(lambda m: _long(m._take(m._number("<B", 1)))),
    0x8B: _push_of(lambda m: _long(m._take(m._number("<i", 4)))),
    ord("G"): _push_of(lambda m: m._number(">d", 8)),
    ord("U"): _push_of(lambda m: str(m._take(m._number("<B", 1)), "latin-1")),
    ord("T"): _push_of(lambda m: str(m._take(m._number("<i", 4)), "latin-1")),
    ord("V"): _push_of(lambda m: m._line().encode().decode("raw-unicode-escape")),
    ord("X"): _push_of(lambda m: _text(m._take(m._number("<I", 4)))),
    0x8C: _push_of(lambda m: _text(m._take(m._number("<B", 1)))),
    0x8D: _push_of(lambda m: _text(m._take(m._number("<Q", 8)))),
    ord("B"): _push_of(lambda m: m._take(m._number("<I", 4))),
    ord("C"): _push_of(lambda m: m._take(m._number("<B", 1))),
    0x8E: _push_of(lambda m: m._take(m._number("<Q", 8))),
    0x96: _push_of(lambda m: m._take(m._number("<Q", 8))),
    ord("]"): _push_of(lambda m: []),
    ord("}"): _push_of(lambda m: {}),
    ord(")"): _constant(()),
    0x8F: _push_of(lambda m: set()),
    ord("l"): _push_of(lambda m: m._since_mark()),
    ord("d"): _dictionary,
    ord("t"): _push_of(lambda m: tuple(m._since_mark())),
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    0x91: _push_of(lambda m: frozenset(_key(value) for value in m._since_mark())),
    ord("a"): _append,
    ord("e"): _appends,
    ord("s"): _set_item,
    ord("u"): _set_items,
    0x90: _add_items,
    ord("p"): lambda m: _set_memo(m, int(m._line())),
    ord("q"): lambda m: _set_memo(m, m._number("<B", 1)),
    ord("r"): lambda m: _set_memo(m, m._number("<I", 4)),
    0x94: lambda m: _set_memo(m, len(m._memo)),
    ord("g"): lambda m: _get_memo(m, int(m._line())),
    ord("h"): lambda m: _get_memo(m, m._number("<B", 1)),
    ord("j"): lambda m: _get_memo(m, m._number("<I", 4)),
    ord("c"): _global,
    0x93: _stack_global,
    ord("R"): _reduce,
    0x81: _reduce,  # NEWOBJ: the class and its arguments
    0x92: _new_object_keywords,
    ord("b"): _build,
    ord("Q"): _persistent,
    0x80: lambda m: m._number("<B", 1) and None,
    0x95: lambda m: m._number("<Q", 8) and None,  # FRAME: a hint for readers of streams
}
