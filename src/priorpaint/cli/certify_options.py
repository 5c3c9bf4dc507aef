"""Options of ``priorpaint certify``, for both of its suites."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from priorpaint.errors import UsageError

_PAGE, _PAGE_IMAGES = Path("docs/results"), Path("docs/images")


@dataclass(frozen=True)
class CertifyOptions:
    """What was asked for; None is the default of the suite.

    Raises:
        UsageError: some that do not go together.
    """

    method: Annotated[list[str] | None, Option(metavar="NAME[:KEY=VALUE,...]", help="Repeatable; default: all.")] = None
    problem: Annotated[
        list[str] | None,
        Option(metavar="NAME|FAMILY|all", help="Problem, family (M25) or all; repeatable; default: the standard set."),
    ] = None
    budget: Annotated[
        list[int] | None, Option(min=1, metavar="NFE", help="Network evaluations per sample; default: 50, 200, 1000.")
    ] = None
    draws: Annotated[
        int | None, Option(min=1, metavar="N", help="Draws per problem; default: 3, and 1 for budgets above 200.")
    ] = None
    draw_seed: Annotated[
        int | None,
        Option(metavar="SEED", help="Draws that no table shows: fresh priors, masks, truths and noise of each kind."),
    ] = None
    samples: Annotated[
        int | None, Option("-n", "--samples", min=2, metavar="N", help="Samples per draw; default: 512 (pictures: 32).")
    ] = None
    calibration: Annotated[bool, Option(help="Run the rank test at a budget of 200.")] = True
    workers: Annotated[int | None, Option(min=1, metavar="N", help="Processes; default: one per core, at most 8.")] = (
        None
    )
    out: Annotated[
        Path | None, Option("-o", "--out", metavar="FOLDER", help="Folder for the JSON file, page and figures.")
    ] = None
    figures: Annotated[bool, Option(help="Draw figures (needs matplotlib).")] = True
    write_docs: Annotated[
        bool, Option("--write-docs", help="Write tables and figures into docs/ of this checkout.")
    ] = False
    update: Annotated[
        bool, Option("--update", help="Keep the cells of an earlier run that this one does not replace.")
    ] = False
    again: Annotated[
        bool, Option("--again", help="Pictures: repeat every run recorded in the folder's JSON files.")
    ] = False
    suite: Annotated[
        str,
        Option(metavar="standard|pictures", help="`standard`: small exact problems; `pictures`: half-hidden pictures."),
    ] = "standard"
    subject: Annotated[
        str | None, Option(metavar="avatars|fashion|all", help="Pictures: what they show; default: avatars.")
    ] = None
    mask: Annotated[
        list[str] | None,
        Option(metavar="KIND|all", help="Pictures: a kind of mask, or all; repeatable; default: halves."),
    ] = None
    pictures: Annotated[
        int | None, Option(min=1, metavar="N", help="Pictures: test pictures per mask; default: 64.")
    ] = None
    prior: Annotated[
        str | None,
        Option(
            metavar="NAME|PATH|exact",
            help="Pictures: a prior trained on the subject; default for avatars: `exact`, the denoiser without a "
            "network, and for fashion: `fashion`.",
        ),
    ] = None
    data: Annotated[
        Path | None, Option(metavar="FOLDER", help="Pictures: folder of Fashion-MNIST; default: the Debian package's.")
    ] = None
    lpips: Annotated[
        Path | None, Option(metavar="WEIGHTS", help="Pictures: file of LPIPS weights, to measure LPIPS as well.")
    ] = None
    listing: Annotated[bool, Option("--list", help="List the problems (pictures: the masks) and exit.")] = False
    quiet: Annotated[bool, Option("--quiet", help="Show no progress.")] = False
    as_json: Annotated[bool, Option("--json", help="Print the certificate as JSON instead of tables.")] = False

    def __post_init__(self) -> None:
        if self.suite not in ("standard", "pictures"):
            raise UsageError(f"the suites are standard and pictures, not {self.suite!r}.")
        if self.listing:
            return
        if self.write_docs and not _PAGE.parent.is_dir():
            raise UsageError("--write-docs writes into docs/; run it in a checkout of priorpaint, or use -o FOLDER.")
        if self.suite == "pictures":
            if self.problem or (self.budget and len(self.budget) > 1):
                raise UsageError("the suite of pictures has masks in place of problems, and one budget a run.")
            fresh = self.draws is not None or self.draw_seed is not None
            if fresh or self.workers or not self.calibration or not self.figures:
                raise UsageError(
                    "--draws, --draw-seed, --workers, --no-calibration and --no-figures belong to the standard suite."
                )
        elif any((self.mask, self.pictures, self.lpips, self.subject, self.data, self.prior, self.again)):
            raise UsageError(
                "--subject, --mask, --pictures, --prior, --data, --lpips and --again belong to --suite pictures."
            )

    @property
    def folders(self) -> list[tuple[Path, Path]]:
        """Where results are written: tables, and their pictures."""
        asked = (self.out, _PAGE if self.write_docs else None)
        return [(folder, _PAGE_IMAGES if folder == _PAGE else folder) for folder in asked if folder is not None]
