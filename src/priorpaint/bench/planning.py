"""Make a plan: read the pictures, settle every setting, and refuse what cannot run, before any work."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from .. import __version__
from ..batch.store import content_key
from ..errors import UsageError
from ..imaging.mask_kinds import draw_mask
from ..operators import Inpainting
from ..operators import operator as make_operator
from ..operators import settings_of as operator_settings
from ..priors.base import Prior
from ..solvers import solver as make_solver
from ..solvers.budgets import at_budget, settings_of
from .grid import Grid, MethodSpec
from .pictures import Shape, digest_of, picture_files, prepared
from .plan import Condition, LeftOut, PictureEntry, Plan, PriorEntry, solver_of

INPAINTING = "inpainting"
LPIPS_FILE = "<lpips>"


def make_plan(
    grid: Grid, prior: Prior, images: Path, *, label: int | str | None = None, guidance: float = 1.0,
    size: int | None = None, lpips: Path | None = None,
) -> Plan:  # fmt: skip
    """Decide everything, and refuse what cannot run, before any work.

    Args:
        grid: what is asked for.
        prior: the prior, under no condition. One that was read from no file is known by its name alone.
        images: a folder of pictures, which are read once here to see that they can be.
        label: class of every picture; "folder" is the class that its folder names or is, in their order.
        guidance: weight of the label (`CFGPrior`).
        size: side of the pictures, for a prior of any size.
        lpips: the weights of LPIPS, for methods that have them in their loss (`LPIPS_FILE`).

    Raises:
        UsageError: unknown names, settings or metrics, or choices that do not go together.
    """
    shape = _shape(prior, size)
    conditions = tuple(_conditions(grid, shape))
    _check_distinct(grid, conditions)
    masked, for_masks = _methods(grid, prior, shape, lpips, [INPAINTING] if grid.masks else [])
    unmasked, for_operators = _methods(grid, prior, shape, lpips, [one.label for one in grid.operators])
    methods = tuple({one.label: one for one in (*unmasked, *masked)}.values())
    order = [method.label for method in grid.methods]
    methods = tuple(sorted(methods, key=lambda method: order.index(method.label)))
    lacking = [*for_masks, *for_operators]
    skipped = (*lacking, *_unable(methods, conditions, shape, prior, {(one.name, one.operator) for one in lacking}))
    if len(skipped) == len(grid.methods) * len({one.operator for one in conditions}):
        raise UsageError(f"{grid.name}: no method can run; {skipped[0].name}: {skipped[0].error}")
    entries, left_out, repeated = _read_all(images, shape, grid.pictures, _labels(prior, images, label))
    return Plan(
        **grid.model_dump(include={"name", "title", "downloads", "paper", "masks", "operators"}),
        prior=PriorEntry(
            spec=prior.spec or prior.name,
            digest=prior.hash or content_key(prior.name),
            name=prior.name,
            flags=prior.flags or None,
            guidance=guidance,
        ),
        images=str(images),
        shape=shape,
        pictures=entries,
        left_out=left_out,
        repeated=repeated,
        conditions=conditions,
        methods=methods,
        unmasked=() if unmasked == methods else unmasked,
        skipped=skipped,
        files=_files((*methods, *unmasked)),
        **grid.model_dump(include={"seeds", "samples", "settings", "metrics"}),
        versions={"priorpaint": __version__, "torch": torch.__version__, "python": platform.python_version()},
    )


def _shape(prior: Prior, size: int | None) -> Shape:
    channels, height, width = prior.image_shape
    if channels not in (1, 3):
        raise UsageError(f"the prior {prior.name} has {channels} channels; a benchmark takes pictures with 1 or 3.")
    if height is None or width is None:
        if size is None:
            raise UsageError(f"the prior {prior.name} takes pictures of any size; choose one with --size 256.")
        height, width = height or size, width or size
    elif size is not None and (height, width) != (size, size):
        raise UsageError(f"the prior {prior.name} works on {height} x {width} pixels; leave --size out.")
    prior.check_size(height, width)
    return channels, height, width


def _conditions(grid: Grid, shape: Shape) -> Iterator[Condition]:
    for kind in grid.masks:
        draw_mask(kind, shape[1:])
        yield Condition(mask=kind, operator=INPAINTING, name=INPAINTING, settings={}, sigma_y=grid.sigma_y)
    for asked in grid.operators:
        if asked.name == INPAINTING:
            raise UsageError(f"{grid.name}: inpainting is measured under masks; name kinds of masks instead.")
        made = make_operator(asked.name, **asked.settings)
        y = made(torch.zeros(1, *shape))
        if made.image_shape(y) != shape:
            raise UsageError(f"{grid.name}: {asked.label} does not measure pictures of the shape {shape}.")
        sigma_y = grid.sigma_y if asked.sigma_y is None else asked.sigma_y
        settings = operator_settings(made)
        yield Condition(mask=None, operator=asked.label, name=asked.name, settings=settings, sigma_y=sigma_y)


def _check_distinct(grid: Grid, conditions: tuple[Condition, ...]) -> None:
    contents = [content_key(one.model_dump(exclude={"operator"})) for one in conditions]
    if len(set(contents)) < len(conditions):
        raise UsageError(f"{grid.name}: two operators are the same under two labels; leave one of them out.")
    for label in {one.label for one in grid.operators} & {*grid.masks, INPAINTING}:
        raise UsageError(f"{grid.name}: {label!r} is the name of masks; give the operator another label.")


def _without_twins(resolved: list[MethodSpec | LeftOut]) -> list[MethodSpec | LeftOut]:
    """The same, where only the first of several methods with the same settings is run."""
    labels: dict[str, str] = {}
    kept: list[MethodSpec | LeftOut] = []
    for one in resolved:
        if isinstance(one, MethodSpec):
            first = labels.setdefault(content_key(one.name, one.settings), one.label)
            if first != one.label:
                one = LeftOut(name=one.label, error=f"here its settings are those of {first}.")
        kept.append(one)
    return kept


def _files(methods: Iterable[MethodSpec]) -> dict[str, str]:
    """The hashes of files among settings."""
    values = {value for method in methods for value in method.settings.values() if isinstance(value, str)}
    return {value: hashlib.sha256(Path(value).read_bytes()).hexdigest() for value in values if Path(value).is_file()}


def _methods(
    grid: Grid, prior: Prior, shape: Shape, lpips: Path | None, operators: list[str]
) -> tuple[tuple[MethodSpec, ...], list[LeftOut]]:
    """The methods for these operators, all masks or none, with all their settings; and those that cannot run there."""
    if not operators:
        return (), []
    masked = operators == [INPAINTING]
    resolved = _without_twins([_resolved(grid, method, prior, shape, masked, lpips) for method in grid.methods])
    left_out = [one for one in resolved if isinstance(one, LeftOut)]
    each = [left.model_copy(update={"operator": operator}) for left in left_out for operator in operators]
    return tuple(one for one in resolved if isinstance(one, MethodSpec)), each


def _resolved(
    grid: Grid, method: MethodSpec, prior: Prior, shape: Shape, masked: bool, lpips: Path | None
) -> MethodSpec | LeftOut:
    """The method with all its settings, as mode, problem and budget decide them, or why it cannot run."""
    if lpips is None and LPIPS_FILE in method.settings.values():
        return LeftOut(name=method.label, error="its loss needs the weights of LPIPS; add --lpips FILE.")
    given = {name: str(lpips) if value == LPIPS_FILE else value for name, value in method.settings.items()}
    reference = grid.settings == "reference" and "preset" not in given
    solver = make_solver(method.name, **({"preset": "reference"} if reference else {}), **given)
    if solver.t_init < 1:
        raise UsageError(f"{method.label} would start from given images (t_init); a benchmark starts from noise.")
    solver = solver.settled(prior, prior.latent_shape(*shape[1:]), masked)
    if grid.budget is not None:
        try:
            solver = at_budget(solver, grid.budget, grid.samples, fixed=given)
        except UsageError as error:
            return LeftOut(name=method.label, error=f"{error}.")
    return method.model_copy(update={"settings": settings_of(solver)})


def _unable(
    methods: tuple[MethodSpec, ...],
    conditions: tuple[Condition, ...],
    shape: Shape,
    prior: Prior,
    known: set[tuple[str, str | None]],
) -> Iterator[LeftOut]:
    """The methods that do not take an operator with this prior, but for those that are ``known``."""
    for condition in {one.operator: one for one in conditions}.values():
        operator = Inpainting(torch.ones(shape[1:])) if condition.mask is not None else condition.made()
        for method in methods:
            if (method.label, condition.operator) in known:
                continue
            try:
                solver_of(method).check(operator, prior)
            except UsageError as error:
                yield LeftOut(name=method.label, operator=condition.operator, error=str(error))


def _read_all(
    images: Path, shape: Shape, most: int | None, label_of: Callable[[str], int | None]
) -> tuple[tuple[PictureEntry, ...], tuple[LeftOut, ...], tuple[LeftOut, ...]]:
    """The pictures of a folder, the files that cannot be read, and those that are the same as an earlier one."""
    entries: dict[str, PictureEntry] = {}
    left_out, repeated = [], []
    for name in picture_files(images):
        if most is not None and len(entries) >= most:
            break
        try:
            digest = digest_of(prepared(images / name, shape))
        except UsageError as error:
            left_out.append(LeftOut(name=name, error=str(error)))
            continue
        if digest in entries:
            repeated.append(LeftOut(name=name, error=f"{name} is the same picture as {entries[digest].name}."))
            continue
        entries[digest] = PictureEntry(name=name, digest=digest, label=label_of(name))
    if not entries:
        raise UsageError(f"no picture in {images} can be read; {left_out[0].error}")
    return tuple(entries.values()), tuple(left_out), tuple(repeated)


def _labels(prior: Prior, images: Path, label: int | str | None) -> Callable[[str], int | None]:
    """The class of a picture, by its name."""
    if label is None:
        return lambda name: None
    if not prior.classes:
        raise UsageError(f"the prior {prior.name} knows no classes; leave --label out.")
    if label != "folder":
        number = int(label)
        prior.condition(label=number)
        return lambda name: number
    folders = sorted({name.rpartition("/")[0] for name in picture_files(images)})
    if all(folder.isdecimal() and int(folder) < prior.classes for folder in folders):
        return lambda name: int(name.rpartition("/")[0])
    if len(folders) != prior.classes:
        raise UsageError(
            f"--label folder takes one folder a class, in the order of the {prior.classes} classes, or folders named "
            f"by their numbers; {images} has {len(folders)}."
        )
    return lambda name: folders.index(name.rpartition("/")[0])
