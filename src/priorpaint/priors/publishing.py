"""A prior of one's own as a model of the Hugging Face hub: weights, card with a licence, samples, report of a check."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from ..errors import PriorError, UsageError
from ..imaging import save_picture, write_text_atomic
from ..imaging.grids import picture_grid, to_pixels
from ..imaging.writing import check_results
from .base import Prior
from .hub import Place, library, unreachable
from .native.weights_file import TRAINED_FILE
from .readers.untrusted.reading import file_hash
from .verify import Check, check, conditioned

CARD, SAMPLES, REPORT = "README.md", "samples.png", "verify.json"
FILES = (TRAINED_FILE, CARD, SAMPLES, REPORT)
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_CELL = 64  # pixels of a sample, where the prior takes any size
_SHOWN_CELL = 96  # pixels that a small sample is enlarged to, about
_BATCH = 4
_LEFT_OUT = {"training", "autoencoder_training"}


def write_model(
    prior: Prior, folder: str | Path, *, title: str, licence: str, samples: int = 16, seed: int = 0,
    overwrite: bool = False,
) -> Check:  # fmt: skip
    """Write all that a model on the hub consists of into a folder, which `load_prior` reads.

    Args:
        prior: in priorpaint's own format.
        folder: made where it is missing.
        title: of the card: owner/name, or any other.
        licence: as the hub spells it, such as cc-by-4.0, apache-2.0 or other.
        samples: pictures on the sheet.
        seed: of the samples, and of the check.
        overwrite: whether files there may be replaced.

    Returns:
        What the check found.

    Raises:
        UsageError: a prior in another format, a licence of another form, or files that cannot be written.
        PriorError: the prior's answers are not finite.
    """
    folder = Path(folder)
    if not _LICENCE.fullmatch(licence):
        raise UsageError(
            f"{licence!r} is not a licence as the hub spells it; write one such as cc-by-4.0, apache-2.0, or other."
        )
    check_results(folder, [folder / name for name in FILES], overwrite=overwrite)
    weights = prior.save(folder, overwrite=overwrite)
    outcome = check(prior, seed)
    asked, (_, height, width) = conditioned(prior), prior.image_shape
    side = prior.image_multiple * math.ceil(_CELL / prior.image_multiple)
    size = (height or side, width or side)
    drawn = to_pixels(asked.sample(samples, seed=seed, size=size, batch_size=_BATCH))
    scale, columns = max(1, _SHOWN_CELL // max(size)), math.ceil(math.sqrt(samples))
    sheet = picture_grid(drawn, columns, gap=2 * scale, border=2 * scale, scale=scale)
    save_picture(sheet, folder / SAMPLES)
    report = {"sha256": file_hash(weights), "seed": seed, **outcome.figures(), "round_trip_db": outcome.round_trip}
    write_text_atomic(folder / REPORT, json.dumps(report, indent=1) + "\n")
    write_text_atomic(folder / CARD, _card(prior, title, licence, report, seed))
    return outcome


def push(folder: Path, spec: str, *, private: bool = False) -> str:
    """Upload what `write_model` wrote as a commit to a model of the hub, which is made where it is missing.

    Args:
        folder: of the files; others in it stay here.
        spec: hf:owner/name.
        private: for a model that is made.

    Returns:
        The address of the model.

    Raises:
        UsageError: ``spec`` has another form.
        PriorError: the hub cannot be reached or refuses.
        MissingExtra: huggingface_hub is not installed.
    """
    repo = target(spec)
    hub, errors = library()
    if (away := unreachable()) is not None:
        raise PriorError(f"{spec}: {away}; push again with a connection.")
    api = hub.HfApi()
    try:
        url = api.create_repo(repo, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=repo, folder_path=folder, allow_patterns=list(FILES), commit_message="Upload a prior of priorpaint"
        )
    except errors.HFValidationError as error:
        raise UsageError(f"{spec}: {error}") from None
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise PriorError(
                f"the hub does not let you write to {repo}; log in as its owner with a token that may write "
                "(hf auth login)."
            ) from None
        cause = error.__cause__ or error  # an upload of a large file hides it
        raise PriorError(f"{spec} cannot be uploaded ({type(cause).__name__}: {cause}); try again later.") from None
    return str(url)


def target(spec: str) -> str:
    """owner/name of a model that can be pushed to.

    Raises:
        UsageError: another form, a revision or a folder.
    """
    place = Place.parse(spec)
    if place.revision is not None or place.inside:
        raise UsageError(f"a prior is pushed to a model of its own, hf:{place.repo}, without a revision or folder.")
    return place.repo


def _card(prior: Prior, title: str, licence: str, report: dict[str, Any], seed: int) -> str:
    facts = prior.facts or {}
    channels, height, width = prior.image_shape
    pictures = f"{channels} channels, " + (f"{width} x {height} pixels" if height and width else "any size")
    table = {"pictures": pictures, **{key: value for key, value in facts.items() if key not in _LEFT_OUT}}
    rows = "\n".join(f"| {key} | {_plain(value)} |" for key, value in table.items())
    levels = "\n".join(f"| {nsr:g} | {correlation:.2f} | {size:.2f} |" for nsr, correlation, size in report["levels"])
    told = json.dumps({key: facts[key] for key in sorted(_LEFT_OUT & facts.keys())}, indent=1)
    use = title if "/" in title else "OWNER/NAME"
    verdict = "finds the noise at all levels" if report["denoises"] else "does not find the noise at all levels"
    return f"""---
license: {licence}
library_name: priorpaint
pipeline_tag: unconditional-image-generation
tags: [priorpaint, diffusion, inpainting, inverse-problems]
---

# {title}

A denoiser of pictures, trained with `priorpaint train`: a prior for inpainting and other inverse problems.

![Samples, seed {seed}]({SAMPLES})

```
pip install 'priorpaint[hub]'
priorpaint inpaint photo.jpg mask.png --prior hf:{use} -o out/
```

| | |
|---|---|
{rows}
| SHA-256 of {TRAINED_FILE} | `{report["sha256"]}` |

## Checked

By `priorpaint priors verify`: noise was added to a picture, and the denoiser {verdict} (correlation and size near 1).

| sigma / alpha | correlation | size |
|--:|--:|--:|
{levels}

## Training

```json
{told}
```
"""


def _plain(value: Any) -> str:
    """A fact in a cell of a table."""
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
