"""The embedded prior `avatars`: are its samples avatars, with parts as often as the law of their pictures says?"""

from __future__ import annotations

import pytest

from benchmarks.avatars import shares
from priorpaint import load_prior
from priorpaint.lab.avatars import read, standard

pytestmark = pytest.mark.slow


def test_samples_are_avatars_and_parts_come_as_often_as_they_should() -> None:
    """Valid: 90 %; shares within 3 points. In 6000 draws the standard error of a share is at most 0.65 points."""
    found = read(load_prior("avatars", device="cpu").sample(6000, seed=0, batch_size=500).clamp(-1, 1))
    assert float(found.valid.double().mean()) > 0.9
    assert max(part["deviation"] for part in shares(standard(), found.parts)) < 0.03
