"""The same methods in other libraries, on problems like M16 and G16, for comparison.

The numbers were measured with azula and deepinv on another draw of the same kind of problem (16 dimensions, 6
coordinates seen, sigma_y = 0.1, exact denoisers, 200 steps, 1024 samples, one seed; mixtures of 4 components and of 1).
Distances of different draws cannot be compared as they are; what can is the share of the way from the prior to the
posterior that is left: the method's sliced Wasserstein-2 distance over that of samples which ignore y.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from .results import DONE, Certificate

PROBLEMS = ("M16", "G16")
_PRIOR = (0.349, 0.054)


@dataclass(frozen=True)
class Elsewhere:
    """One method of another library.

    Attributes:
        name: of the library and the method there.
        ours: the same method in the registry.
        distances: sliced Wasserstein-2 on the mixture and on the Gaussian.
    """

    name: str
    ours: str
    distances: tuple[float, float]

    @property
    def left(self) -> tuple[float, float]:
        """Share of the prior's distance that is left on the mixture and on the Gaussian."""
        mixture, gaussian = (distance / prior for distance, prior in zip(self.distances, _PRIOR, strict=True))
        return mixture, gaussian


# Where a library was run with several settings, its best on the mixture. DPS with a batch of one sample, as its paper
# has it: in a batch of many, its guidance there feels the other samples.
ELSEWHERE = (
    Elsewhere("azula TDS, 1024 particles", "smc", (0.061, 0.016)),
    Elsewhere("azula MMPS, 3 iterations of GMRES", "mmps", (0.178, 0.011)),
    Elsewhere("deepinv moment matching, 3 iterations of CG", "mmps", (0.188, 0.013)),
    Elsewhere("azula DPS, batch of 1", "dps", (0.201, 0.087)),
    Elsewhere("azula PGDM", "pigdm", (0.238, 0.052)),
    Elsewhere("deepinv PiGDM", "pigdm", (0.305, 0.019)),
    Elsewhere("azula RePaint, 5 iterations", "repaint", (0.253, 0.049)),
    Elsewhere("azula TMPD", "tmpd", (0.289, 0.013)),
    Elsewhere("azula DiffPIR", "diffpir", (0.308, 0.032)),
    Elsewhere("deepinv DiffPIR", "diffpir", (0.250, 0.288)),
    Elsewhere("deepinv DDRM", "ddrm", (0.259, 0.044)),
    Elsewhere("deepinv annealed Langevin", "langevin", (0.313, 0.022)),
)


def left(certificate: Certificate, method: str, problem: str, budget: int | None) -> float | None:
    """Share of the prior's distance that a certified method leaves; None where the cell is not there or not done."""
    cell = certificate.cell(method, problem, budget)
    if cell is None or cell.status != DONE:
        return None
    return statistics.fmean(measures.sliced for measures in cell.measures) / statistics.fmean(
        prior.sliced for prior in cell.priors
    )
