"""What the papers, or their released programs, run for filling in images, where that differs from our defaults.

`solver(name, preset="reference")` takes these settings, and "paper" says the same; any that is given beside it wins.
Where a paper has one setting a data set, the entry says which. The docs page of a method says what else its published
program does otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REFERENCE: Mapping[str, Mapping[str, Any]] = {
    "copaint": {"clip": True, "spacing": "respaced"},  # ImageNet
    "copaint_tt": {"clip": True, "spacing": "respaced"},  # ImageNet
    "daps": {"preset": "reference"},
    "ddnm": {},
    "ddrm": {"steps": 20},
    "diffpir": {"spacing": "quad", "clip": True, "lam": 0.25},  # its lambda 1 in our units; 100 steps as in its tables
    "dps": {"steps": 1000, "scale": 0.5, "clip": True},  # FFHQ, random and box masks
    "ilvr": {"free_steps": 1, "clip": True, "spacing": "respaced"},  # its README: free_steps 21 for N = 32
    "langevin": {"friction": 15.0},  # ImageNet, 5 inner steps
    "mcg": {"steps": 1000, "clip": True},  # inpainting; its step is that of the program
    "mmps": {"sampler": "ddim", "iterations": 1},
    "pigdm": {},
    "reddiff": {},
    "reddiff_v": {},
    "psld": {"preset": "reference"},
    "repaint": {"clip": True},
    "repaint_plus": {"gain": "reference"},
    "replacement": {"steps": 1000},  # ancestral; without the corrector steps of Song et al.
    "resample": {"preset": "reference"},
    "smc": {"twist": "dps", "kernel": "first", "full_share": 1.0},  # TDS: ancestral, moved by the twist's gradient
    "tmpd": {"shorten": False},
    "vipaint": {"preset": "official-imagenet"},
}


def with_preset(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """``params``, with the published settings below them where they hold ``preset="reference"``."""
    if params.get("preset") not in ("reference", "paper"):
        return dict(params)
    return {**REFERENCE.get(name, {}), **{key: value for key, value in params.items() if key != "preset"}}
