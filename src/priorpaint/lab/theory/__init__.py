"""RePaint+'s linear theory as code: closed forms, rates, bounds, and the experiment that shows them (docs/theory.md).

``model``: the linear model and its rate. ``two_state``: Theorems 3, 4 and 6. ``multi_state``: Theorems 8, 11 and 12 and
Algorithm 3. ``acceleration``: Chebyshev and CG. ``appendix_b``: the experiment; ``figure``: its picture.
"""

from .model import LinearModel

__all__ = ["LinearModel"]
