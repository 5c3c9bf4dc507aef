"""The pictures of a batch as items: a key by content, what a worker does with one, what is said of it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import PriorpaintError, UsageError
from ..imaging.bounds import read_file
from ..imaging.writing import make_folder, write_bytes_atomic
from ..inpainting import api
from ..inpainting.events import Event as JobEvent
from ..inpainting.events import Step as JobStep
from ..inpainting.method import choose_solver, method_name
from ..inpainting.plans import Plan
from ..inpainting.record import RUN_FILE, interrupted, read_record
from ..inpainting.result import Output, Result, suffix_for
from ..priors import Prior
from ..priors.loading import dtype_named, load_prior, precision_of
from ..solvers.base import Cost
from .entries import Entry
from .runner import Item, Save, Step, Work, sentence_of
from .store import DONE, FAILED, Record, Store, content_key

ABOUT, SUMMARY = "batch.json", "summary.csv"
# Arguments of a plan that change how samples are computed, but no sample.
_FREE = ("batch_size", "max_memory")
_OF_PRIOR = ("prior", "prior_flags", "device", "offline", "precision")
_COLUMNS = (
    *("picture", "out", "state", "samples", "hole_share", "nfe_forward", "nfe_backward", "seconds"),
    *("warnings", "error"),
)


@dataclass(frozen=True)
class Request:
    """What all pictures of a batch share; it is pickled for other processes.

    Attributes:
        out: the folder of the results.
        arguments: of `inpainting.api.plan`, but for picture and prior; ``mask`` is "alpha", "nan" or None, and an entry
            may have its own mask, label, prompt and seed.
        settings: of the method.
        prior: arguments of `load_prior`: ``spec``, ``flags``, ``offline``, ``dtype``.
        format, read_back: as for `Result.save`.
    """

    out: Path
    arguments: dict[str, Any]
    settings: dict[str, Any]
    prior: dict[str, Any]
    format: str | None = None
    read_back: bool = True

    @staticmethod
    def of(
        out: Path, arguments: Mapping[str, Any], settings: dict[str, Any], format: str | None, read_back: bool
    ) -> Request:
        """A request, with the arguments of the prior among the others, named as for ``plan``.

        Raises:
            UsageError: an unknown method, setting or format.
        """
        choose_solver(arguments.get("method"), settings)
        suffix_for(format if (format or "").lower() != "same" else None)
        rest = {name: value for name, value in arguments.items() if name not in _OF_PRIOR}
        prior = {
            "spec": arguments["prior"],
            "flags": arguments["prior_flags"],
            "offline": arguments["offline"],
            "dtype": dtype_named(arguments.get("precision")),
        }
        return Request(out, rest, settings, prior, format, read_back)

    def loaded(self, device: str | None) -> Prior:
        """The prior on a device.

        Raises:
            PriorError, UsageError: it cannot be read.
        """
        return load_prior(**self.prior, device=device)

    def work(self, device: str) -> Work:
        """What a process on this device does with every item (`Processes.make`)."""
        return Painter(self, self.loaded(device))

    def checked(self, prior: Prior, entries: Sequence[Entry]) -> None:
        """Say before any work what is wrong with the condition that the pictures share.

        Raises:
            UsageError: the prior takes no such label or prompt, or needs one.
        """
        if all(entry.label is not None or entry.prompt is not None for entry in entries):
            return
        options, _ = api.Options.split({k: v for k, v in self.arguments.items() if k in api.Options.__annotations__})
        api.conditioned(prior, options.checked()).condition()

    def items(self, prior: Prior, entries: Sequence[Entry], store: Store) -> Iterator[Item]:
        """Every picture as an item, made when its turn comes. Where something of it has changed since it was finished,
        or files of its results are gone, it says so: ``again`` is the key that it had."""
        failures: dict[str, set[str]] = {}
        for key, record in store.failed().items():
            failures.setdefault(record.get("out", ""), set()).add(key)
        shared = self._key(prior)
        digest = lru_cache(maxsize=64)(_digest)  # one mask may be that of every picture
        for entry in entries:
            contents = [_digest(entry.picture), None if entry.mask is None else digest(entry.mask), entry.problem]
            key = content_key(shared, entry.out, contents, [entry.label, entry.prompt, entry.seed])
            about = {"picture": str(entry.picture), "out": entry.out}
            before = store.at(entry.out)
            if key in store:
                if failures.get(entry.out, set()) - {key}:  # of contents that it had meanwhile
                    store.settle(key, entry.out)
                if not self._whole(entry):
                    store.forget(key, entry.out)
                    about["again"] = key
            yield Item(key, about if before in (None, key) else {**about, "again": before}, entry)

    def _whole(self, entry: Entry) -> bool:
        """Whether all files that the record of an entry's run names are in place, and the run came to its end."""
        place = PurePosixPath(entry.out)
        folder = self.out.joinpath(*place.parent.parts)
        record = read_record(folder / f"{place.name}_{RUN_FILE}")
        if record is None or interrupted(record):
            return False
        return all((folder / str(name)).exists() for name in record["outputs"])

    def _key(self, prior: Prior) -> list[Any]:
        """What the results depend on beside the entry, in JSON values, files by their contents."""
        solver = choose_solver(self.arguments.get("method"), self.settings)
        arguments = {
            name: _digest(value) if isinstance(value, Path) else value
            for name, value in self.arguments.items()
            if name not in (*_FREE, "method")
        }
        settings = asdict(solver) if is_dataclass(solver) else self.settings
        method = [method_name(solver), self.arguments.get("method") is None, settings]
        known = [prior.hash, prior.spec, prior.flags, precision_of(prior)]
        parts = [arguments, method, sorted(self.settings), known, self.format]
        return list(json.loads(json.dumps(parts, default=str)))


@dataclass
class Painter:
    """The `Work` of a batch: one picture from its file to the files of its results."""

    request: Request
    prior: Prior

    def plan(self, entry: Entry, step: Step = lambda share: None) -> Plan:
        """The plan of an entry.

        Raises:
            PriorpaintError: the entry cannot be done.
        """
        if entry.problem:
            raise UsageError(entry.problem)
        own = {"mask": entry.mask, "label": entry.label, "prompt": entry.prompt, "seed": entry.seed}
        arguments = self.request.arguments | {name: value for name, value in own.items() if value is not None}

        def hear(event: JobEvent) -> None:
            step(0.0)

        return api.plan(entry.picture, **arguments, **self.request.settings, prior=self.prior, on_event=hear)

    def output(self, entry: Entry, plan: Plan) -> Output:
        """Where the results go."""
        place = PurePosixPath(entry.out)
        suffix = suffix_for(self.request.format, plan.picture)
        folder = self.request.out.joinpath(*place.parent.parts)
        return Output(folder, place.name, suffix, self.request.read_back, own_record=True)

    def __call__(self, entry: Entry, step: Step) -> tuple[Record, Save]:
        """Draw the completions of an entry."""
        plan = self.plan(entry, step)
        output, samples = self.output(entry, plan), len(plan.seeds)
        output.spare_inputs(samples, plan.info)
        lost = output.check(samples, overwrite=True, picture=plan.looks)

        def hear(event: JobEvent) -> None:
            if isinstance(event, JobStep):
                step(event.done / event.total)

        result = plan.run(hear)
        record = {
            "samples": samples,
            "hole_share": round(float((~result.known).mean()), 6),
            "nfe": result.info["nfe"],
            "seconds": result.info["seconds"]["total"],
            "warnings": [*result.warnings, *lost],
        }
        return record, lambda: _write(output, result, plan)


def _write(output: Output, result: Result, plan: Plan) -> None:
    make_folder(Path(output.folder))
    with output.reserved(len(result.images), result.info, overwrite=True, picture=plan.looks) as record:
        for index, image in enumerate(result.images):
            output.write_completion(index, image, result.picture)
        output.write_summary(result, record)


def _digest(path: Path) -> str:
    """A hash of the bytes of a file, or why they cannot be read, which its worker will say."""
    try:
        return hashlib.sha256(read_file(str(path))).hexdigest()
    except UsageError as error:
        return str(error)


def open_store(out: Path, about: Mapping[str, Any], *, resume: bool, overwrite: bool = False) -> Store:
    """The store of a batch in a folder, where batch.json says since when it is one.

    Args:
        about: for batch.json, where the batch begins.
        resume: whether one that is there is gone on with; where there is none, it begins.
        overwrite: whether it begins anew whatever the folder holds, and may replace files there.

    Raises:
        UsageError: the folder holds a batch already, or other files; or it cannot be used.
    """
    marker = out / ABOUT
    if not resume and not overwrite and marker.exists():
        raise UsageError(f"{out} holds a batch already; go on with it by --resume, or choose another folder.")
    if out.is_dir() and not overwrite and any(not one.startswith(".") for one in os.listdir(out)):
        if not marker.exists():  # asked last: another shard may have begun the batch meanwhile
            raise UsageError(f"{out} holds other files; choose an empty folder, or allow replacing (--overwrite).")
    if overwrite:
        for name in (DONE, FAILED, SUMMARY):
            (out / name).unlink(missing_ok=True)
    store = Store(out)
    if not marker.exists() or overwrite:
        write_bytes_atomic(marker, json.dumps(about, indent=1).encode() + b"\n")
    return store


@dataclass
class Estimate:
    """What the pictures of a batch would take, one after another; the prior is timed once.

    Attributes:
        painter: with the prior.
    """

    painter: Painter
    _second: float | None = field(default=None, init=False)

    def of(self, entry: Entry) -> tuple[float, Cost, float] | str:
        """(share to repaint, calls of the prior, seconds), or why the entry cannot be done."""
        try:
            plan = self.painter.plan(entry)
            self.painter.output(entry, plan).check(len(plan.seeds), overwrite=True, picture=plan.looks)
            cost = plan.cost
            if self._second is None:
                self._second = plan.seconds() / plan.load
            return float((~plan.known).mean()), cost, plan.load * self._second
        except PriorpaintError as error:
            return sentence_of(error)


def write_summary(store: Store) -> Path:
    """Write summary.csv, a line a picture of all runs and shards so far, and return it.

    Raises:
        UsageError: it cannot be written.
    """
    path, size = store.folder / SUMMARY, -1
    while size != (size := _size(store)):  # another shard may have added to the logs meanwhile
        store.read()
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        rows = {record["out"]: _row(record) for record in store.done()}
        for record in store.failed().values():  # but those of a place that is finished since
            if store.at(record["out"]) in (None, record.get("again")):
                rows[record["out"]] = _row(record)
        writer.writerows(rows[out] for out in sorted(rows))
        write_bytes_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))
    return path


def _size(store: Store) -> int:
    return sum(path.stat().st_size for name in (DONE, FAILED) if (path := store.folder / name).exists())


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    nfe = record.get("nfe", {})
    return {
        "picture": record["picture"],
        "out": record["out"],
        "state": "failed" if "error" in record else "done",
        "samples": record.get("samples"),
        "hole_share": record.get("hole_share"),
        "nfe_forward": nfe.get("forward"),
        "nfe_backward": nfe.get("backward"),
        "seconds": record.get("seconds"),
        "warnings": " ".join(record.get("warnings", ())),
        "error": record.get("error", ""),
    }
