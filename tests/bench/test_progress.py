"""What a user sees of a benchmark where there is no terminal: a line a minute, and every failure."""

from __future__ import annotations

from typing import Any

import pytest

from priorpaint.batch import Event, Item
from priorpaint.cli import progress


def item(method: str) -> Item:
    def run(step: Any) -> Any:
        raise AssertionError("nothing is run here")

    return Item(method, {"method": method, "operator": "inpainting", "mask": "half", "picture": "a.png"}, run)


@pytest.mark.parametrize("quiet", [False, True])
def test_a_line_a_minute_with_the_time_left(monkeypatch: pytest.MonkeyPatch, capsys: Any, quiet: bool) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    work = {("a", "inpainting"): 10.0, ("b", "inpainting"): 30.0}
    with progress.GridDisplay(4, work, 70.0, quiet=quiet) as display:  # one of the cells b was finished before
        display(Event("kept", item("b")))
        for seconds, event in (
            (30, Event("step", item("a"), share=0.5)),  # too early for a line
            (70, Event("done", item("a"), share=1.0)),  # 10 of 70 in 70 s: 420 s are left
            (100, Event("step", item("b"), share=0.5)),
            (140, Event("failed", item("b"), error="it is broken.")),  # 40 of 70 in 140 s: 105 s are left
        ):
            now[0] = seconds
            display(event)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "Failed" in line] == ["Failed: b on a.png, half: it is broken."]
    told = ["14%  2 of 4 cells  0:07:00 left", "57%  2 of 4 cells, 1 failed  0:01:45 left"]
    assert [line.strip() for line in lines if "left" in line] == ([] if quiet else told)
