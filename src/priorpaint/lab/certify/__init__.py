"""Every method against exact posteriors: problems, distances, budgets, and the run that makes the tables."""

from ...solvers.budgets import BUDGETS, at_budget, settings_for
from .base import Problem
from .calibration import Calibration, calibrate
from .cells import Method
from .measures import Measures, Ruler
from .problems import PROBLEMS, STANDARD, problem
from .report import show
from .results import Cell, Certificate
from .run import certify
from .saving import save

__all__ = [
    "BUDGETS",
    "PROBLEMS",
    "STANDARD",
    "Calibration",
    "Cell",
    "Certificate",
    "Measures",
    "Method",
    "Problem",
    "Ruler",
    "at_budget",
    "calibrate",
    "certify",
    "problem",
    "save",
    "settings_for",
    "show",
]
