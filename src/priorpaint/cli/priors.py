"""``priorpaint priors``: embedded priors and names of the user's own; what a checkpoint is, and whether it works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option
from typer.core import TyperGroup

from .terminal import echo, echo_files

if TYPE_CHECKING:
    from priorpaint.priors import Prior
    from priorpaint.priors.address_book import Entry

_FLAGS = Option(
    "--flags",
    metavar="FLAGS",
    help="What the file format does not record, as in the model's README: '--image_size 64 ...'.",
)
_OFFLINE = Option("--offline", help="Download nothing; take models of the hub from the cache.")
_WIDTH = len("architecture")  # of the first column
_DEVICE = Option(metavar="cpu|cuda", help="cpu or cuda; default: the GPU where there is one.")


class _Group(TyperGroup):
    """Commands, and ``priorpaint priors NAME`` as a short form of ``priorpaint priors info NAME``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["info", *args]
        return super().resolve_command(ctx, args)


priors = typer.Typer(
    cls=_Group,
    invoke_without_command=True,
    rich_markup_mode=None,
    help="List, name, describe and check priors: embedded ones, files, folders, hf:owner/name.",
)


@priors.callback()
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        show_list()


@priors.command("list")
def show_list() -> None:
    """List the embedded priors and your own names."""
    from priorpaint.priors.address_book import entries
    from priorpaint.priors.loading import PRIORS, embedded_file

    own = entries()
    width = max(map(len, [*PRIORS, *own]))
    for key, embedded in PRIORS.items():
        missing = "" if embedded_file(key).is_file() else " (its weights are missing from this installation)"
        echo(f"{key:<{width}}  {embedded.description}{missing}")
    for key, entry in own.items():
        echo(f"{key:<{width}}  {entry.spec}{_words(entry)}")
    echo(
        "A checkpoint works as well: --prior PATH, or --prior hf:owner/name; `priorpaint priors add` names it.",
        err=True,
    )


@priors.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name to give it.")],
    spec: Annotated[
        str,
        typer.Argument(
            metavar="PATH|hf:OWNER/NAME", help="A checkpoint file or folder, or hf:owner/name[@revision][/folder]."
        ),
    ],
    flags: Annotated[str | None, _FLAGS] = None,
    offline: Annotated[bool, _OFFLINE] = False,
    check: Annotated[bool, Option(help="Read it first, and record its SHA-256.")] = True,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace a name that you gave before.")] = False,
) -> None:
    """Give a checkpoint a name, with its flags, for --prior NAME."""
    from priorpaint.priors.address_book import Entry
    from priorpaint.priors.address_book import add as add_entry
    from priorpaint.priors.flag_words import parse_flags
    from priorpaint.priors.loading import PRIORS, load_prior

    lasting = spec if spec.startswith("hf:") or spec in PRIORS else str(Path(spec).expanduser().absolute())
    own_flags = parse_flags(flags)
    if isinstance(own_flags.get("config"), str):  # a path, which shall mean the same in every folder
        own_flags["config"] = str(Path(own_flags["config"]).expanduser().absolute())
    prior = load_prior(lasting, flags=own_flags, device="cpu", offline=offline) if check else None
    digest = prior.hash if prior else None
    add_entry(name, Entry(lasting, own_flags, digest), taken=tuple(PRIORS), overwrite=overwrite)
    echo(f"{name} is {lasting}{_words(Entry(lasting, own_flags))}")


@priors.command()
def remove(name: Annotated[str, typer.Argument(metavar="NAME", help="A name that you gave.")]) -> None:
    """Forget a name; the model's files stay where they are."""
    from priorpaint.priors.address_book import home
    from priorpaint.priors.address_book import remove as remove_entry

    remove_entry(name)
    echo(f"{name} is forgotten (in {home()}); its files were not touched.")


@priors.command()
def info(
    name: Annotated[str, typer.Argument(metavar="PRIOR", help="A prior: name, file, folder, or hf:owner/name.")],
    flags: Annotated[str | None, _FLAGS] = None,
    offline: Annotated[bool, _OFFLINE] = False,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what is known about a prior."""
    from priorpaint.priors.loading import PRIORS, load_prior

    prior = load_prior(name, flags=flags, device="cpu", offline=offline)
    facts = {
        "name": prior.name,
        "file": str(prior.source or ""),
        "sha256": prior.hash,
        "pictures": _pictures(prior),
        **(prior.facts or {}),
    }
    if as_json:
        echo(json.dumps(facts, indent=1))
        return
    described = PRIORS[name].description if name in PRIORS else facts.get("format", "a prior")
    echo(f"{prior.name}: {described}")
    _show({key: value for key, value in facts.items() if key != "name"})


@priors.command()
def verify(
    name: Annotated[str, typer.Argument(metavar="PRIOR", help="A prior: name, file, folder, or hf:owner/name.")],
    flags: Annotated[str | None, _FLAGS] = None,
    offline: Annotated[bool, _OFFLINE] = False,
    device: Annotated[str | None, _DEVICE] = None,
    seed: Annotated[int, Option(metavar="N", help="Seed of the picture and the noise.")] = 0,
) -> None:
    """Read a prior and let it denoise a small random picture, or a sample of its own, to see that it works."""
    from priorpaint.priors.loading import load_prior
    from priorpaint.priors.verify import check as run_check

    prior = load_prior(name, flags=flags, device=device, offline=offline)
    outcome = run_check(prior, seed)
    facts = prior.facts or {}
    shape = " x ".join(map(str, outcome.shape))
    echo(f"{prior.name}: it can be read, and denoises {shape} to finite values")
    _show({"sha256": prior.hash, "pictures": _pictures(prior)})
    _show(
        {key: facts[key] for key in ("format", "architecture", "schedule", "prediction", "parameters") if key in facts}
    )
    for level in outcome.levels:
        measured = f"correlation {level.correlation:.2f}, size {level.size:.2f}"
        echo(f"  {'noise':<{_WIDTH}} sigma/alpha {level.nsr:<7.4g} found with {measured}")
    if outcome.round_trip is not None:
        echo(f"  {'autoencoder':<{_WIDTH}} a smooth picture comes back with PSNR {outcome.round_trip:.1f} dB")
    if outcome.own:
        echo("  The noise was on a sample of its own, because it is not a prior of any smooth picture.")
    if outcome.denoises:
        echo("  It finds the noise at all levels, as a trained denoiser does.")
        return
    levels = " (check the flags, such as noise_schedule)" if facts.get("format") == "adm" else ""
    echo(
        "Warning: it does not find the noise at all levels; its weights are untrained, or its noise levels are wrong"
        f"{levels}.",
        err=True,
    )


@priors.command()
def push(
    name: Annotated[str, typer.Argument(metavar="PRIOR", help="A prior of `priorpaint train`: name, file or folder.")],
    to: Annotated[
        str,
        typer.Argument(metavar="hf:OWNER/NAME|FOLDER", help="A model of the hub, or a folder to look at it first."),
    ],
    licence: Annotated[
        str, Option("--license", metavar="NAME", help="For others, as the hub spells it: cc-by-4.0, apache-2.0, ...")
    ],
    samples: Annotated[int, Option(metavar="N", min=1, max=100, help="Pictures on the sheet of samples.")] = 16,
    seed: Annotated[int, Option(metavar="N", help="Seed of the samples.")] = 0,
    private: Annotated[bool, Option("--private", help="Make a model that only you see.")] = False,
    device: Annotated[str | None, _DEVICE] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace files in the folder.")] = False,
) -> None:
    """Publish a prior on the Hugging Face hub: weights, card, licence, samples and what `verify` says."""
    from tempfile import TemporaryDirectory

    from priorpaint.priors import publishing
    from priorpaint.priors.loading import load_prior

    on_the_hub = to.startswith("hf:")
    title = publishing.target(to) if on_the_hub else Path(to).absolute().name
    prior = load_prior(name, device=device)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary if on_the_hub else to)
        outcome = publishing.write_model(
            prior, folder, title=title, licence=licence, samples=samples, seed=seed, overwrite=overwrite or on_the_hub
        )
        if not outcome.denoises:
            echo("Warning: it does not find the noise at all levels, and its card says so.", err=True)
        if on_the_hub:
            echo(publishing.push(folder, to, private=private))
        else:
            echo_files(folder / file for file in publishing.FILES)


def _show(facts: dict[str, Any]) -> None:
    """One line a fact; what is absent or zero is left out."""
    width = max([_WIDTH, *map(len, facts)])
    for key, value in facts.items():
        if isinstance(value, dict):
            for part, inner in value.items():
                echo(f"  {key:<{width}} {part}: {inner}")
        elif value or isinstance(value, float):
            echo(f"  {key:<{width}} {_shown(key, value)}")


def _shown(key: str, value: Any) -> str:
    if "parameters" in key:
        return f"{value / 1e6:.2f} million"
    if isinstance(value, bool):
        return "yes"  # False is left out
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown("", one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _pictures(prior: Prior) -> str:
    channels, height, width = prior.image_shape
    size = "any size" if height is None or width is None else f"{width} x {height} pixels (others in windows)"
    return f"{channels} channels, {size}"


def _words(entry: Entry) -> str:
    return "".join(f" --{key} {value}" for key, value in entry.flags.items())
