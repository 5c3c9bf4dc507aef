"""docs/trust.md: every promise names the tests that hold it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
PROMISES = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
NOT_PROMISED = "What is not promised"


def test_the_page_has_promises_and_what_is_not_promised() -> None:
    assert len(PROMISES) > 5 and NOT_PROMISED in PROMISES


@pytest.mark.parametrize("promise", sorted(PROMISES.keys() - {NOT_PROMISED}))
def test_the_tests_of_a_promise_exist(promise: str) -> None:
    files = re.findall(r"`(tests/[^`]+)`", PROMISES[promise].partition("Tested in")[2])
    assert files
    for file in files:
        assert "\ndef test_" in (text := (ROOT / file).read_text(encoding="utf-8")) or "    def test_" in text, file
