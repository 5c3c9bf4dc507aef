"""``python -m priorpaint.lab.fashion``: train the classifier of Fashion-MNIST, and check what it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from priorpaint.errors import run_module

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)

Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of the idx files; default: the Debian package's folder.")
]


@app.command("classifier")
def _classifier(
    out: Annotated[Path, typer.Option("-o", "--out", help="The safetensors file to write.")],
    data: Data = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the pictures.")] = 7,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is random.")] = 0,
) -> None:
    """Train a classifier on the train split."""
    from ...imaging.writing import write_bytes_atomic
    from .data import pictures
    from .training import Recipe, train

    x, labels = pictures(data, "train")
    out.parent.mkdir(parents=True, exist_ok=True)
    trained = train(x, labels, Recipe(epochs=epochs, seed=seed), say=lambda text: typer.echo(text, err=True))
    write_bytes_atomic(out, trained.to_bytes())
    typer.echo(f"{out}: confidence {trained.confidence:.3f}, reach {trained.reach:.2f}")


@app.command("check")
def _check(
    data: Data = None,
    weights: Annotated[Path | None, typer.Option(help="File of a classifier; default: the embedded one.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the corruptions.")] = 0,
) -> None:
    """Accuracy on t10k, and how many real and corrupted pictures are valid."""
    from .checking import check, markdown
    from .classifier import classifier, load_classifier

    judge = classifier() if weights is None else load_classifier(weights)
    typer.echo(markdown(check(judge, data, seed=seed)))


def main() -> None:
    """Run it; an error is one sentence."""
    run_module(app, "priorpaint.lab.fashion")


if __name__ == "__main__":
    main()
