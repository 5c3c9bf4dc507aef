"""Results that must not change when code is moved.

For each case the hash of its float32 numbers is compared first: equal means the same bit for bit. Where it differs, as
it may on a processor or with a torch whose kernels round otherwise, count, mean, standard deviation and eight fixed
entries must agree within 1e-5, relative or absolute. Which of the two it was, case by case, is printed by
``python -m tests.pinned.record --check``.
"""

from __future__ import annotations

import json

import pytest

from tests.pinned.cases import CASES, compute
from tests.pinned.record import FILE, TOLERANCE, fingerprint, numbers

PINNED = json.loads(FILE.read_text(encoding="utf-8"))


def test_every_case_is_pinned() -> None:
    assert set(CASES) == set(PINNED)


@pytest.mark.parametrize("name", CASES)
def test_unchanged(name: str) -> None:
    found, pinned = fingerprint(compute(name)), PINNED[name]
    if found["sha256"] == pinned["sha256"]:
        return
    assert found["count"] == pinned["count"]
    assert numbers(found) == pytest.approx(numbers(pinned), rel=TOLERANCE, abs=TOLERANCE)
