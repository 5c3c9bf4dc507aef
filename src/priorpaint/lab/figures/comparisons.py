"""RED-diff beside VIPaint (Agarwal et al., Fig. 2), and one picture under several classes (their Fig. 24)."""

from __future__ import annotations

from ...errors import UsageError
from ...imaging.sheets import labelled_rows
from ...priors import CFGPrior
from ...solvers import solver
from .base import Drawn, Request, cells, figure, given, rounded


@figure("reddiff", "VIPaint, Fig. 2", "iterations", "steps", "levels", "method")
def reddiff(request: Request) -> Drawn:
    """RED-diff with its times in random order (RED-diff-V) and descending, and VIPaint"""
    examples, settings = request.examples, request.settings
    steps = {} if settings.steps is None else {"steps": settings.steps}
    methods = {
        "RED-diff-V": solver("reddiff_v", **steps),
        "RED-diff, T to 0": solver("reddiff", **steps),
        "VIPaint": request.vipaint(),
    }
    count, drawn = settings.samples or 1, {}
    for done, (name, method) in enumerate(methods.items()):
        request.report(done, len(methods), name)
        drawn[name] = method.sample(request.prior, examples.operator, examples.y, num_samples=count, seed=settings.seed)
    request.report(len(methods), len(methods), "drawn")
    rows = [
        given(examples, row) + [cell for name in methods for cell in cells([name], drawn[name][row, i, None])]
        for row in range(len(examples.x))
        for i in range(count)
    ]
    return Drawn(labelled_rows(rows), {"error": {name: rounded(examples.error(each)) for name, each in drawn.items()}})


@figure("classes", "VIPaint, Fig. 24", "iterations", "steps", "levels", "labels", "guidance", "method")
def classes(request: Request) -> Drawn:
    """Inpaintings of one picture by VIPaint under several classes, a row each"""
    examples, settings, prior = request.examples, request.settings, request.prior
    known = prior.classes
    if not known:
        raise UsageError(f"the prior {prior.name} knows no classes; take one that does.")
    labels = settings.labels or tuple(range(0, known, -(-known // 4)))
    for label in labels:
        if not 0 <= label < known:
            raise UsageError(f"the prior {prior.name} knows the classes 0 to {known - 1}, not {label}.")
    method, count = request.vipaint(), settings.samples or 4
    drawn = {}
    for done, label in enumerate(labels):
        request.report(done, len(labels), f"class {label}")
        told = CFGPrior(prior, label=label, scale=settings.guidance)
        drawn[label] = method.sample(told, examples.operator, examples.y, num_samples=count, seed=settings.seed)
    request.report(len(labels), len(labels), "drawn")
    rows = [
        given(examples, row) + cells([f"class {label}"] + [""] * (count - 1), drawn[label][row])
        for row in range(len(examples.x))
        for label in labels
    ]
    return Drawn(
        labelled_rows(rows), {"error": {str(label): rounded(examples.error(each)) for label, each in drawn.items()}}
    )
