"""What the papers, or their released programs, run for filling in images, where that differs from our defaults.

`solver(name, preset="reference")` takes these settings, and "paper" says the same; any that is given beside it wins.
Where a paper has one setting a data set, the entry says which. Programs that do not put the measured pixels back at the
end have paste=False. What a published run does otherwise, and settings cannot say, stands in `REMAINS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COPAINT = {"clip": True, "spacing": "respaced", "retries": None, "paste": False}  # ImageNet

REFERENCE: Mapping[str, Mapping[str, Any]] = {
    "copaint": _COPAINT,
    "copaint_tt": _COPAINT,
    "daps": {"preset": "reference", "paste": False},  # box inpainting
    "ddnm": {"spacing": "leading"},
    "ddrm": {"steps": 20, "spacing": "leading"},
    "diffpir": {"spacing": "quad", "clip": True, "lam": 0.25, "paste": False},  # 100 steps; its lambda 1 in our units
    "dps": {"steps": 1000, "scale": 0.5, "clip": True, "paste": False},  # FFHQ, random and box masks
    "ilvr": {"free_steps": 1, "clip": True, "spacing": "respaced", "paste": False},
    "langevin": {"friction": 15.0},  # ImageNet, 5 inner steps
    "mcg": {"steps": 1000, "clip": True},  # masks
    "mmps": {"sampler": "ddim", "iterations": 1},
    "pigdm": {"spacing": "leading"},
    "psld": {"preset": "reference", "steps": 1000},  # FFHQ, f = 4
    "reddiff": {"spacing": "leading", "paste": False},
    "reddiff_v": {"spacing": "leading", "paste": False},
    "repaint": {"clip": True, "spacing": "respaced"},
    "repaint_plus": {"gain": "reference"},
    "replacement": {"steps": 1000},
    "resample": {
        "preset": "reference",
        "steps": 500,
        "pixel_iterations": 2000,
        "latent_iterations": 500,
        "paste": False,
    },
    "smc": {"twist": "dps", "kernel": "first", "full_share": 1.0},  # TDS: ancestral, moved by the twist's gradient
    "tmpd": {"shorten": False},
    "vipaint": {"preset": "official-imagenet"},
}

_COPAINT_ENDS = (
    "It ends at the last noisy level, where one more search and step lead to the clean picture here; its loss, rate "
    "and line search are those of a batch, here of each sample."
)
REMAINS: Mapping[str, str] = {
    "copaint": _COPAINT_ENDS,
    "copaint_tt": _COPAINT_ENDS,
    "daps": "This is its setting for boxes; for random masks it takes h=1e-4. A step that would diverge, as with a "
    "steep decoder, is shortened here.",
    "ddnm": "Its option 'simplified', which scales the noise twice, is not offered.",
    "ddrm": "Its last step puts the network's estimate into known pixels; here they are those of y.",
    "diffpir": "It ends one level above the clean picture, and subtracts the noise of y from that of the first level.",
    "dps": "Its norm is that of the batch, of one picture a run, here of each sample. It takes scale=0.3 for "
    "super-resolution and deblurring.",
    "ilvr": "Its README adds N = 32 and range_t = 20, here factor=32 and free_steps=21, which depend on the picture; "
    "it noises the reference to the level that a step leaves, here to that at which it arrives.",
    "langevin": "Its benchmark noises the known pixels along one path through the levels; here they keep one noise.",
    "mcg": "It noises y to the level that a step leaves, here to the one that it arrives at; its norm is that of the "
    "batch, here of each sample.",
    "mmps": "Steps and time grid are the default's.",
    "pigdm": "The authors' program starts masks from the noised y and puts y into every estimate; here the rule of the "
    "paper acts alone.",
    "psld": "It ends at the first level of the table and pastes known pixels of the clean original, here those of y.",
    "reddiff": "It returns the picture before its last Adam step, here the one after it.",
    "reddiff_v": "No run is published: these are the settings of RED-diff, at its times in random order.",
    "repaint": "It leaves known pixels as the network gives them, here they are those of y; and a classifier of a "
    "random class guides its runs on ImageNet.",
    "repaint_plus": "Numbers of levels and rounds are the default's, as the paper's are not known.",
    "replacement": "It corrects each level by a Langevin step (signal-to-noise ratio 0.16), here by none.",
    "resample": "Its levels lag one step behind during the lookahead, it ends at the first level of the table, and "
    "loss and threshold are those of a batch, here of each sample.",
    "smc": "Particles, steps and time grid are the default's.",
    "tmpd": "Steps and time grid are the default's.",
}
"""What the published run of a method does otherwise than ``preset="reference"``, in sentences about that run."""


def with_preset(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """``params``, with the published settings below them where they hold ``preset="reference"``."""
    if params.get("preset") not in ("reference", "paper"):
        return dict(params)
    return {**REFERENCE.get(name, {}), **{key: value for key, value in params.items() if key != "preset"}}
