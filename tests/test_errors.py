"""The cancel token: the one way to stop a run from outside."""

from __future__ import annotations

import threading

import pytest

from priorpaint import Cancelled, CancelToken
from priorpaint.errors import printable


def test_a_token_lets_a_run_go_on_until_it_is_cancelled() -> None:
    token = CancelToken()
    assert not token.cancelled
    token.check()
    token.cancel()
    token.cancel()
    assert token.cancelled
    for _ in range(2):
        with pytest.raises(Cancelled, match="cancelled"):
            token.check()


def test_a_token_that_another_thread_cancels_stops_a_loop() -> None:
    token, turning, ended = CancelToken(), threading.Event(), threading.Event()

    def loop() -> None:
        try:
            while True:
                token.check()
                turning.set()
        except Cancelled:
            ended.set()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    assert turning.wait(10) and not ended.is_set()
    token.cancel()
    assert ended.wait(10)
    thread.join()


def test_tokens_are_independent() -> None:
    first, second = CancelToken(), CancelToken()
    first.cancel()
    second.check()
    assert not second.cancelled


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("caf\u00e9 \u65e5\u672c \U0001f642 a\u3000b", "caf\u00e9 \u65e5\u672c \U0001f642 a\u3000b"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b2Jgone\x07", "\\x9b2Jgone\\x07"),  # the one-byte form of an escape sequence
        ("two\nlines\r\u2028", "two\\nlines\\r\\u2028"),
        ("latin\udce9.png", "latin\\udce9.png"),  # what Python makes of a name that is not UTF-8
        ("gnp.\u202etxt", "gnp.\\u202etxt"),
    ],
)
def test_what_strangers_named_cannot_steer_a_terminal(raw: str, shown: str) -> None:
    assert printable(raw) == shown
    assert printable(shown) == shown
    shown.encode("utf-8")
