"""Models of the Hugging Face hub: ``hf:owner/name``, fetched file by file, only what a reader asks for.

The cache, the endpoint, the login and being offline are huggingface_hub's own matter (HF_HOME, HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE). Configurations, tokenisers and safetensors are fetched; Python files and pickled weights are not, but
for a file that the specification itself names, which then goes through the reader of its format.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import MissingExtra, PriorError, UsageError
from .native.weights_file import TRAINED_FILE
from .readers.diffusers_folder import MODEL_INDEX, WEIGHTS, Folder, shards, weight_names

_PATIENCE = 4.0  # seconds
_FORM = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>refs/(pr|convert)/[\w.-]+|[^/@\s]+))?(/(?P<inside>[^@\s]+?))?/?"
)
_TOKENIZER = (
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
)


@dataclass(frozen=True)
class Place:
    """A model on the hub.

    Attributes:
        repo: owner/name.
        revision: branch, tag or commit; None is the main branch.
        inside: a folder, or a file, within it; "" is the top.
    """

    repo: str
    revision: str | None = None
    inside: str = ""

    @classmethod
    def parse(cls, spec: str) -> Place:
        """From ``hf:owner/name[@revision][/folder]``.

        Raises:
            UsageError: another form.
        """
        match = _FORM.fullmatch(spec)
        inside = (match["inside"] or "") if match else ""
        if match is None or ".." in PurePosixPath(inside).parts or inside.startswith("/"):
            raise UsageError(
                f"{spec!r} is not a model of the hub; write hf:owner/name, hf:owner/name@revision or "
                "hf:owner/name/folder."
            )
        return cls(match["repo"], match["revision"], inside)


def fetch(spec: str, *, variant: str | None = None, offline: bool = False) -> Path:
    """A folder or file on this machine with all that the reader of ``spec`` needs.

    Args:
        spec: ``hf:owner/name[@revision][/folder or file]``.
        variant: of the weights, such as ``fp16``.
        offline: use what was fetched before, and no network.

    Raises:
        UsageError: ``spec`` has another form.
        PriorError: it is not on the hub, not in the cache, or without weights that are read.
        MissingExtra: huggingface_hub is not installed.
    """
    place, away = Place.parse(spec), "you asked to stay offline" if offline else unreachable()
    shelf = _Shelf(spec, place, away)
    if place.inside and (file := _single_file(spec, place, away)) is not None:
        return file
    if shelf.get(MODEL_INDEX) is None and shelf.get("config.json") is None or shelf.folder is None:
        if shelf.get(TRAINED_FILE) is not None and shelf.folder is not None:
            return shelf.folder
        raise shelf.missing(
            f"{spec} is not a file, and has no {MODEL_INDEX} of diffusers; name a file of the model, such as "
            f"hf:{place.repo}/model.safetensors, where it is in another format."
        )
    folder = Folder(shelf.folder, variant)
    for part in folder.index:
        _fetch_part(shelf, folder, part)
    return shelf.folder


class _Shelf:
    """Files of one model: fetched or found in the cache, all from the same commit.

    Args:
        away: why only the cache is looked at; None where the hub can be asked.

    Attributes:
        folder: where they are; None before the first one.
    """

    def __init__(self, spec: str, place: Place, away: str | None) -> None:
        self.spec, self.place, self.away = spec, place, away
        self.folder: Path | None = None
        self._revision = place.revision
        self._trouble: Exception | None = None

    def get(self, name: str) -> Path | None:
        """The file ``name`` (below ``inside``); None where the model, or the cache without a connection, has none.

        Raises:
            PriorError: the model cannot be fetched.
        """
        hub, errors = library()
        inside = PurePosixPath(self.place.inside, name)
        try:
            path = Path(
                hub.hf_hub_download(
                    self.place.repo, str(inside), revision=self._revision, local_files_only=self.away is not None
                )
            )
        except errors.LocalEntryNotFoundError as error:
            self._trouble = error
            return None
        except errors.EntryNotFoundError:
            return None
        except Exception as error:
            raise self._explained(error, errors) from None
        if not path.is_file():  # a folder in the cache
            return None
        self.folder = path.parents[len(PurePosixPath(name).parts) - 1]
        self._revision = path.parents[len(inside.parts) - 1].name  # the commit: what follows is of the same one
        return path

    def missing(self, otherwise: str) -> PriorError:
        """Why nothing of the model was found: no connection, or ``otherwise``."""
        if self._trouble is None:
            return PriorError(otherwise)
        why = self.away or f"the hub cannot be reached ({type(self._trouble.__cause__ or self._trouble).__name__})"
        return PriorError(f"{self.spec} is not in the cache and {why}; run once with a connection to fetch it.")

    def _explained(self, error: Exception, errors: Any) -> Exception:
        repo = self.place.repo
        if isinstance(error, errors.GatedRepoError):
            return PriorError(
                f"{self.spec} is gated: accept its licence at https://huggingface.co/{repo} and log in (hf auth login)."
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return PriorError(f"{self.spec} is not on the hub, or private; check the name, or log in (hf auth login).")
        if isinstance(error, errors.RevisionNotFoundError):
            return PriorError(f"{self.spec}: there is no revision {self.place.revision!r}; check its name.")
        if isinstance(error, errors.HFValidationError):
            return UsageError(f"{self.spec}: {error}")
        return PriorError(f"{self.spec} cannot be fetched ({type(error).__name__}: {error}); try again later.")


def _fetch_part(shelf: _Shelf, folder: Folder, part: str) -> None:
    """The files of one part, from its own folder or, in old models with one network, from the top."""
    if part.startswith("tokenizer"):
        files = [shelf.get(f"{part}/{name}") for name in _TOKENIZER]
        if not any(files):
            raise PriorError(f"{shelf.spec} has no files of its {part}; it is incomplete on the hub or in the cache.")
        return
    settings = "scheduler_config.json" if part == "scheduler" else "config.json"
    where = next((where for where in (f"{part}/", "") if shelf.get(where + settings)), None)
    if where is None:
        raise PriorError(f"{shelf.spec} has no {part}/{settings}; it is incomplete on the hub or in the cache.")
    if part == "scheduler":
        return
    stem = WEIGHTS["transformers" if part.startswith("text_encoder") else "diffusers"]
    for name in weight_names(stem, folder.variant):
        file = shelf.get(where + name)
        if file is None:
            continue
        for shard in sorted(set(shards(file, folder.json(file)).values())) if name.endswith(".json") else ():
            if shelf.get(where + shard) is None:
                raise PriorError(f"{shelf.spec} lacks {where}{shard}, a part of its weights.")
        return
    raise PriorError(
        f"{shelf.spec} has no safetensors weights of its {part} (older .bin files are not fetched); look for a "
        "revision or variant with safetensors, or download the model and give its folder."
    )


def _single_file(spec: str, place: Place, away: str | None) -> Path | None:
    """One file, with the YAML of its name where there is one; None where ``inside`` is not a file."""
    inside = PurePosixPath(place.inside)
    parent = "" if str(inside.parent) == "." else str(inside.parent)
    shelf = _Shelf(spec, Place(place.repo, place.revision, parent), away)
    file = shelf.get(inside.name)
    if file is not None:
        shelf.get(f"{inside.stem}.yaml")
    return file


def hub_cache() -> Path | None:
    """The folder of what was fetched, which may not exist; None where huggingface_hub is not installed."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return None
    return Path(constants.HF_HUB_CACHE)


def unreachable() -> str | None:
    """Why the hub does not answer, in a few words, after `_PATIENCE` seconds at most; None where it does.

    huggingface_hub itself tries each file again and again, for most of a minute.
    """
    hub, _ = library()
    trouble: list[str] = ["TimeoutError"]

    def ask() -> None:
        try:
            hub.get_session().head(hub.HfApi().endpoint, timeout=_PATIENCE)  # any answer will do
            trouble.clear()
        except Exception as error:
            trouble[:] = [type(error).__name__]

    thread = threading.Thread(target=ask, daemon=True)  # for names are looked up without a timeout
    thread.start()
    thread.join(_PATIENCE)
    return f"the hub cannot be reached ({trouble[0]})" if trouble else None


def library() -> tuple[Any, Any]:
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise MissingExtra("models of the hub need huggingface_hub; run: pip install 'priorpaint[hub]'") from None
    return huggingface_hub, errors
