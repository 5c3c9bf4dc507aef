"""A diffusers folder as data: its components by an allow-list, configurations, weights, and what was read for the hash.

Only JSON and tensors are read. Which class a component becomes is decided by the lists here and never by the folder:
no Python file of the folder is imported, no name is looked up that is not on a list.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError, MissingExtra
from .base import short
from .untrusted import reading as safe

MODEL_INDEX = "model_index.json"
WEIGHTS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
# What each part of a pipeline may be: the library, and the classes of it that this version builds.
ALLOWED: dict[str, tuple[str, tuple[str, ...]]] = {
    "unet": ("diffusers", ("UNet2DModel", "UNet2DConditionModel")),
    "transformer": (
        "diffusers",
        ("SD3Transformer2DModel", "FluxTransformer2DModel", "DiTTransformer2DModel", "Transformer2DModel"),
    ),
    "vae": ("diffusers", ("AutoencoderKL", "AutoencoderTiny", "VQModel")),
    "vqvae": ("diffusers", ("AutoencoderKL", "AutoencoderTiny", "VQModel")),
    "text_encoder": ("transformers", ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")),
    "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")),
}
# Parts that a prior has no use for; they are never read.
UNUSED = ("safety_checker", "feature_extractor", "image_encoder", "watermark", "image_processor")
# Settings that could make a library fetch or run something; a network does not need them.
_STRIPPED = ("auto_map", "custom_pipelines", "_name_or_path", "_attn_implementation", "attn_implementation")
_VARIANTS = ("fp16", "bf16", "fp32")
_MOST_JSON = 32 * 2**20


class Folder:
    """The files of one model, and which of them were read.

    Args:
        root: a folder with ``model_index.json``, or the folder of one network with ``config.json``.
        variant: of the weights (``fp16``); None prefers the files without one.

    Attributes:
        source: the root; None for a model that is in memory.
        index: part of the pipeline -> its class, from the lists here.
        settings: of the pipeline.
    """

    def __init__(self, root: Path, variant: str | None = None) -> None:
        self.root, self.variant = root, variant
        self.source: Path | None = root
        self._read: list[Path] = []
        self.settings: dict[str, Any] = {}
        self.index = self._components()

    def ready(self, name: str) -> Any:
        """A part that is in memory already; None where it is made from the folder's files."""
        return None

    def path(self, name: str) -> Path:
        """Where a part lies: its own folder, or, in old models with one network, the top folder."""
        own = self.root / name
        return own if own.is_dir() else self.root

    def says(self, key: str, usual: bool) -> bool:
        """A setting of the pipeline that is true or false."""
        value = self.settings.get(key, usual)
        if value is not None and not isinstance(value, bool):
            path = self.root / MODEL_INDEX
            raise CheckpointError(f"{path}: {key} is {short(value)}; expected true or false.")
        return bool(value)

    def config(self, name: str, file: str = "config.json") -> dict[str, Any]:
        """The configuration of a part, without the settings that could fetch or run something."""
        path = self.path(name) / file
        config = self.json(path)
        if config.get("quantization_config"):
            raise CheckpointError(f"{path} asks for quantised weights, which are not read; use the unquantised model.")
        return {key: value for key, value in config.items() if key not in _STRIPPED}

    def json(self, path: Path) -> dict[str, Any]:
        """A JSON object.

        Raises:
            CheckpointError: the file is missing, not JSON, not an object, or unreasonably large.
        """
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; download the whole model again.")
        self.note(path)
        if path.stat().st_size > _MOST_JSON:
            raise CheckpointError(f"{path} is larger than any configuration ({path.stat().st_size} bytes).")
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            if path.read_bytes().startswith(b"version https://git-lfs"):
                raise CheckpointError(f"{path} is a git-lfs pointer; download the real file (git lfs pull).") from None
            raise CheckpointError(f"{path} is not JSON ({error}); download it again.") from None
        if not isinstance(value, dict):
            raise CheckpointError(f"{path} should hold a JSON object and holds a {type(value).__name__}.")
        return value

    def weights(self, name: str, library: str = "diffusers") -> dict[str, Tensor]:
        """The tensors of a part, all finite.

        Raises:
            CheckpointError: they are missing, damaged, unsafe or not finite.
        """
        where, stem = self.path(name), WEIGHTS[library]
        file = self._weights_file(where, stem)
        if file.name.endswith(".json"):
            state = self._shards(file)
        elif file.suffix == ".safetensors":
            state, _ = safe.load_safetensors(self.note(file))
        else:
            state = {name: value.clone() for name, value in safe.load_state(self.note(file)).items()}
        safe.check_finite(state, file)
        return state

    def note(self, path: Path) -> Path:
        """Remember a file that was read."""
        if path not in self._read:
            self._read.append(path)
        return path

    def hash(self) -> str | None:
        """SHA-256 over the names and contents of all files that were read, in the order of their names."""
        total = hashlib.sha256()
        for path in sorted(self._read, key=lambda read: read.relative_to(self.root).as_posix()):
            total.update(f"{path.relative_to(self.root).as_posix()} {safe.file_hash(path)}\n".encode())
        return total.hexdigest()

    def _components(self) -> dict[str, str]:
        """Part -> class name, checked against the lists."""
        path = self.root / MODEL_INDEX
        if not path.is_file():
            return self._single()
        index, parts = self.json(path), {}
        self.settings = {key: value for key, value in index.items() if not isinstance(value, list)}
        for name, value in index.items():
            if isinstance(value, list) and not name.startswith("_") and name not in UNUSED and value != [None, None]:
                parts[name] = _allowed(name, value, path)
        if isinstance(index.get("_class_name"), list):
            raise CheckpointError(f"{path} names a pipeline in a Python file of its own, which is never run.")
        return parts

    def _single(self) -> dict[str, str]:
        path = self.root / "config.json"
        if not path.is_file():
            raise CheckpointError(f"{self.root / MODEL_INDEX} is missing; give the top folder of the model.")
        name = self.json(path).get("_class_name")
        if name != "UNet2DModel":
            raise CheckpointError(
                f"{self.root} holds one part of a model ({name!r}); give the top folder, with {MODEL_INDEX}."
            )
        return {"unet": name, "scheduler": ""}

    def _weights_file(self, where: Path, stem: str) -> Path:
        for name in weight_names(stem, self.variant):
            if (where / name).is_file():
                return where / name
        for name in (f"{stem}.bin", "pytorch_model.bin"):
            if (where / name).is_file() and not self.variant:
                return where / name
        wanted = f"{stem}.{self.variant}.safetensors" if self.variant else f"{stem}.safetensors"
        raise CheckpointError(f"{where / wanted} is missing: there are no weights; download the whole model again.")

    def _shards(self, index: Path) -> dict[str, Tensor]:
        where = shards(index, self.json(index))
        state: dict[str, Tensor] = {}
        for name in sorted(set(where.values())):
            if not (index.parent / name).is_file():
                raise CheckpointError(f"{index.parent / name} is missing, one of the files that {index.name} lists.")
            state.update(safe.load_safetensors(self.note(index.parent / name))[0])
        lost = sorted(set(where) - set(state))
        if lost:
            raise CheckpointError(f"the shards of {index} lack {len(lost)} tensors that it lists, first {lost[0]!r}.")
        return state


class Loaded(Folder):
    """A pipeline of diffusers that is in memory, in place of its folder; its parts are used as they are.

    Raises:
        CheckpointError: a part is not one that is known.
    """

    def __init__(self, pipe: Any) -> None:
        self.parts: dict[str, Any] = {
            name: part for name, part in pipe.components.items() if part is not None and name not in UNUSED
        }
        super().__init__(Path(str(pipe.config.get("_name_or_path") or type(pipe).__name__)))
        self.settings = {"_class_name": type(pipe).__name__} | {
            key: value for key, value in pipe.config.items() if not isinstance(value, (list, tuple))
        }
        self.source = None

    def ready(self, name: str) -> Any:
        return self.parts.get(name)

    def path(self, name: str) -> Path:
        return self.root / name

    def hash(self) -> None:
        return None

    def _components(self) -> dict[str, str]:
        return {
            name: _allowed(name, [type(part).__module__.split(".")[0], type(part).__name__], self.root)
            for name, part in self.parts.items()
            if isinstance(part, nn.Module) or name.startswith(("scheduler", "tokenizer"))
        }


def weight_names(stem: str, variant: str | None) -> list[str]:
    """Names of safetensors files, or of the lists of their shards, in the order in which they are preferred."""
    names = []
    for one in (variant,) if variant else (None, *_VARIANTS):
        dotted = f".{one}" if one else ""
        names += [f"{stem}{dotted}.safetensors", f"{stem}.safetensors.index{dotted}.json"]
    return names


def shards(path: Path, index: Any) -> dict[str, str]:
    """Tensor -> file beside it, of an index, whose own file is ``path``.

    Raises:
        CheckpointError: it has no such table, or a file lies elsewhere or is not a safetensors file.
    """
    where = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise CheckpointError(f"{path} has no weight_map from tensors to files; download it again.")
    for name in where.values():
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{path} names the file {name!r}; shards must be .safetensors files that lie beside it."
            )
    return where


def build(cls: type[nn.Module], make: Any, config: Mapping[str, Any], where: Path) -> nn.Module:
    """A network from its configuration, without memory for its weights.

    Args:
        cls: for the message.
        make: takes the configuration and returns the network.
        config: as the folder has it, with settings that `diffusers_settings` has checked.
        where: the folder, for the message.

    Raises:
        CheckpointError: the configuration does not describe a network of this class.
    """
    from accelerate import init_empty_weights

    try:
        with torch.random.fork_rng(devices=[]), init_empty_weights(include_buffers=False), quiet():
            network: nn.Module = make(dict(config))
    except Exception as error:  # the library's constructors raise whatever a wrong setting runs into
        raise CheckpointError(
            f"the configuration in {where} does not describe a {cls.__name__} ({safe.named(error)})."
        ) from None
    return network


def fill(network: nn.Module, state: dict[str, Tensor], where: Path, dtype: torch.dtype, device: torch.device) -> None:
    """Put the tensors into the network that ``build`` made, in ``dtype`` and on ``device``."""
    safe.check_fit(state, network, where)
    cast = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    network.load_state_dict(cast, assign=True)
    nn.Module.to(network, device=device, dtype=dtype)  # diffusers' own `to` only adds remarks
    network.eval().requires_grad_(False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' remarks on stderr; what matters is checked here."""
    loggers = [sys.modules[f"{name}.utils.logging"] for name in ("diffusers", "transformers") if _logs(name)]
    before = [logger.get_verbosity() for logger in loggers]
    for logger in loggers:
        logger.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.set_verbosity(level)


def libraries(what: str = "a diffusers model") -> None:
    """Raise MissingExtra where diffusers, transformers or accelerate, which read ``what``, are not installed."""
    missing = [name for name in ("diffusers", "transformers", "accelerate") if find_spec(name) is None]
    if missing:
        raise MissingExtra(f"reading {what} needs {missing[0]}; run: pip install 'priorpaint[hub]'")


def _logs(library: str) -> bool:
    return f"{library}.utils.logging" in sys.modules


def _allowed(name: str, value: list[Any], path: Path) -> str:
    if len(value) != 2 or not all(isinstance(part, str) for part in value):
        raise CheckpointError(f"{path}: the part {name!r} should be [library, class] and is {value}.")
    library, cls = map(str, value)
    if name == "scheduler":
        if library != "diffusers":
            raise CheckpointError(f"{path}: the scheduler comes from {library!r}; only classes of diffusers are used.")
        return cls
    kind = name.rstrip("_0123456789") if name.startswith(("text_encoder", "tokenizer")) else name
    if kind not in ALLOWED:
        raise CheckpointError(
            f"{path}: the part {name!r} ({library}.{cls}) is not one that priorpaint knows; models with "
            f"{', '.join(ALLOWED)} and a scheduler are read."
        )
    home, classes = ALLOWED[kind]
    if library != home or cls not in classes:
        raise CheckpointError(
            f"{path}: the part {name!r} is {library}.{cls}; only {home}'s {', '.join(classes)} are used, "
            "and code of a model's folder is never run."
        )
    return cls
