"""Write down what every case gives, or compare with what was written down.

python -m tests.pinned.record            writes pinned.json
python -m tests.pinned.record --check    says for every case whether it is still the same
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.pinned.cases import CASES, compute

FILE = Path(__file__).with_name("pinned.json")
ENTRIES = 8
TOLERANCE = 1e-5
EQUAL, CLOSE, DIFFERENT = "bit for bit", f"within {TOLERANCE}", "DIFFERENT"


def fingerprint(values: NDArray[np.float32]) -> dict[str, Any]:
    """SHA-256 of all numbers; their count, mean and standard deviation, and a few of them, evenly spread."""
    assert np.isfinite(values).all()
    wide = values.astype(np.float64)
    places = np.linspace(0, len(values) - 1, ENTRIES).round().astype(int)
    return {
        "sha256": hashlib.sha256(values.astype("<f4").tobytes()).hexdigest(),
        "count": len(values),
        "mean": float(wide.mean()),
        "std": float(wide.std()),
        "entries": [float(value) for value in wide[places]],
    }


def numbers(print_: dict[str, Any]) -> list[float]:
    """What is compared where the hashes differ."""
    return [print_["mean"], print_["std"], *print_["entries"]]


def compare(found: dict[str, Any], pinned: dict[str, Any]) -> str:
    """``EQUAL``, ``CLOSE`` or ``DIFFERENT``."""
    if found["sha256"] == pinned["sha256"]:
        return EQUAL
    close = np.allclose(numbers(found), numbers(pinned), rtol=TOLERANCE, atol=TOLERANCE)
    return CLOSE if close and found["count"] == pinned["count"] else DIFFERENT


def main() -> int:
    if "--check" not in sys.argv[1:]:
        written = {name: fingerprint(compute(name)) for name in CASES}
        FILE.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        return 0
    pinned = json.loads(FILE.read_text(encoding="utf-8"))
    outcomes = {name: compare(fingerprint(compute(name)), pinned[name]) for name in CASES}
    for name, outcome in outcomes.items():
        print(f"{name:40} {outcome}")
    return int(DIFFERENT in outcomes.values())


if __name__ == "__main__":
    sys.exit(main())
