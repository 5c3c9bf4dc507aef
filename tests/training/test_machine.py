"""Several processes that train together."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import distributed

from priorpaint.training.machine import leave_processes


@pytest.mark.skipif(not distributed.is_available(), reason="this build of torch knows no process groups")
def test_a_process_group_is_left_once_and_none_is_fine(tmp_path: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    assert distributed.is_initialized()
    leave_processes()
    assert not distributed.is_initialized()
    leave_processes()
