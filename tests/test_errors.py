"""The cancel token: the one way to stop a run from outside."""

from __future__ import annotations

import threading

import pytest

from priorpaint import Cancelled, CancelToken


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
