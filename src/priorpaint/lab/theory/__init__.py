"""RePaint+'s linear theory as code: closed forms, rates, bounds, and the experiment that shows them (docs/theory.md).

``model``: the linear model and its rate. ``two_state``: Theorem 3, RePaint's law, sweeps. ``acceleration``: Chebyshev
and CG. ``appendix_b``: the experiment; ``figure``: its picture. The other theorems are in tests/lab/theory.
"""

from .model import LinearModel

__all__ = ["LinearModel"]
