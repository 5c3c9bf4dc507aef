"""The noise schedules under their public name, ``priorpaint.schedules``; they are defined in `diffusion.schedules`."""

from .diffusion.schedules import EDM, VE, VP, Flow, Schedule

__all__ = ["EDM", "VE", "VP", "Flow", "Schedule"]
