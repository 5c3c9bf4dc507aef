"""How one of several training processes ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch import distributed


@pytest.mark.skipif(not distributed.is_available(), reason="this build of torch knows no process groups")
@pytest.mark.parametrize(("together", "code"), [(True, 7), (False, 0)])
def test_a_process_of_a_group_ends_at_once_and_one_alone_goes_on(tmp_path: Path, together: bool, code: int) -> None:
    script = (
        "from torch import distributed\n"
        "from priorpaint.training.machine import end_process\n"
        f"if {together}:\n"
        f"    distributed.init_process_group('gloo', init_method='file://{tmp_path / 'store'}', rank=0, world_size=1)\n"
        "print('said', end='')\n"
        "end_process(7)\n"
        "print(' more', end='')\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert finished.returncode == code, finished.stderr
    assert finished.stdout == ("said" if together else "said more")
