"""What training programs leave beside the weights: classes of callbacks as keys, settings as objects, plain values.

Nothing of it is imported or called; it stays an `Opaque` that nobody looks at.
"""

from __future__ import annotations

from typing import Any

from .untrusted.pickle_machine import Build, Damaged, Name, Opaque, Vocabulary
from .untrusted.pickle_values import TENSORS

_PROGRAMS = (
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "omegaconf",
    "argparse",
    "pathlib",
    "datetime",
    "typing",
)
_BASES = ("object", "int", "float", "str", "bool", "tuple", "list", "dict")


def _of_trainers(name: Name) -> bool:
    """Whether a class may stand in a training program's file as an object that does nothing."""
    return name.module.split(".")[0] in _PROGRAMS


def _new_object(what: Any, base: Any, state: Any) -> Any:
    # copyreg._reconstructor of the protocols 0 and 1.
    if not isinstance(what, Name) or state is not None:
        raise Damaged("an object")
    return Opaque(what)


_BUILDERS: dict[tuple[str, str], Build] = {
    ("collections", "defaultdict"): lambda *_: {},
    ("copyreg", "_reconstructor"): _new_object,
    ("copy_reg", "_reconstructor"): _new_object,
}
_NAMES = {
    (module, name): Name(module, name)
    for module in ("builtins", "__builtin__")
    for name in _BASES
    if (module, name) not in TENSORS.builders
}

TRAINING = Vocabulary({**TENSORS.builders, **_BUILDERS}, {**_NAMES, **TENSORS.constants}, _of_trainers)
