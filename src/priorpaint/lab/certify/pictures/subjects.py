"""The subjects of the picture suite by name."""

from __future__ import annotations

from ....errors import UsageError
from .avatars import AVATARS
from .fashion import FASHION
from .subject import Subject

SUBJECTS: dict[str, Subject] = {each.name: each for each in (AVATARS, FASHION)}


def subject(name: str) -> Subject:
    """The subject of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in SUBJECTS:
        raise UsageError(f"the subjects of the picture suite are {' and '.join(SUBJECTS)}, not {name!r}.")
    return SUBJECTS[name]
