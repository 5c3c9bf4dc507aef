"""Small checkpoints in the published formats, written by the tests themselves from seeded random weights."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from priorpaint.errors import CheckpointError
from priorpaint.priors.base import Prior


def filled(network: nn.Module, seed: int = 0) -> nn.Module:
    """All weights drawn so that none is without influence: norms about 1, the others about their fan-in."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in list(network.named_parameters()) + list(network.named_buffers()):
        noise = torch.randn(value.shape, generator=generator)
        if "resample_filter" in name:
            continue
        if name.endswith("weight") and value.ndim == 1:
            value.data = 1 + 0.2 * noise
        elif value.ndim > 1:
            value.data = noise / value[0].numel() ** 0.5
        else:
            value.data = 0.2 * noise
    return network.eval().requires_grad_(False)


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def windowed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors as windows of one storage, in an order of their own."""
    flat = torch.cat([value.flatten() for value in reversed(list(state.values()))])
    out, end = {}, flat.numel()
    for name, value in state.items():
        end -= value.numel()
        out[name] = flat[end : end + value.numel()].view(value.shape)
    return out


def damaged(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """``count`` copies, each with one bit changed."""
    generator = torch.Generator().manual_seed(seed)
    for bit in torch.randint(0, 8 * len(data), (count,), generator=generator).tolist():
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def read_or_refuse(read: Any, path: Path) -> Prior | None:
    """The prior, or None where the file was refused with a sentence that names it; any other error fails the test."""
    try:
        prior: Prior = read(path)
    except CheckpointError as error:
        text = str(error)
        assert str(path.parent) in text and "\n" not in text and len(text) < 1200, text
        return None
    return prior


class Persistent:
    """An object that pickles as the persistent classes of EDM do: class name, source and state."""

    def __init__(self, class_name: str, state: Mapping[str, Any]) -> None:
        self.class_name, self.state = class_name, dict(state)

    def __reduce__(self) -> Any:
        about = {
            "type": "class",
            "version": 6,
            "module_src": "raise RuntimeError('the source of a checkpoint was run')",
            "class_name": self.class_name,
            "state": self.state,
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (about,)


@contextmanager
def edm_modules() -> Iterator[None]:
    """The names that EDM pickles mention, for as long as one is written."""
    package, module = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(about: Any) -> Any:
        raise RuntimeError("an object of a checkpoint was made")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    sys.modules.update({"torch_utils": package, "torch_utils.persistence": module})
    try:
        yield
    finally:
        del sys.modules["torch_utils"], sys.modules["torch_utils.persistence"]


def edm_tree(module: nn.Module, kind: str, kwargs: Mapping[str, Any] | None = None, **attributes: Any) -> Persistent:
    """A module with everything in it as EDM would pickle it; the classes in it take the names of ``_KINDS``."""
    children: dict[str, Any] = {}
    for name, child in module.named_children():
        about = {"num_heads": child.heads, "out_channels": _outputs(child)} if hasattr(child, "heads") else {}
        children[name] = edm_tree(child, _KINDS.get(type(child).__name__, type(child).__name__), None, **about)
    state = {
        "training": False,
        "_parameters": {name: value for name, value in module._parameters.items() if value is not None},
        "_buffers": {name: value for name, value in module._buffers.items() if value is not None},
        "_non_persistent_buffers_set": set(),
        "_modules": children,
        "_init_args": (),
        "_init_kwargs": dict(kwargs or {}),
        **attributes,
    }
    return Persistent(kind, state)


_KINDS = {"Block": "UNetBlock", "Conv": "Conv2d", "Fourier": "FourierEmbedding", "Weighted": "MPConv"}


def _outputs(block: Any) -> int:
    conv = block.conv1 if hasattr(block, "conv1") else block.conv_res1
    return int(conv.weight.shape[0])


def write_edm(path: Path, network: Persistent, key: str = "ema") -> Path:
    with edm_modules(), open(path, "wb") as file:
        pickle.dump({key: network, "dataset_kwargs": {"class_name": "training.dataset.ImageFolderDataset"}}, file)
    return path


def check_adversarial(
    reader: str, shared: Path, words: Mapping[str, str], *, flags: Mapping[str, Any] | None = None
) -> None:
    """Each hostile or broken file of a format is answered with its word, and nothing in it has run.

    Args:
        reader: the format, as EXPECTED.json and the reader's module call it.
        shared: the folder with the files.
        words: file name -> what the reader must say; no file of the format may be missing.
        flags: where EXPECTED.json has none.
    """
    folder = shared / "data" / "checkpoints" / "adversarial"
    cases = [c for c in json.loads((folder / "EXPECTED.json").read_text())["cases"] if c.get("format") == reader]
    said = refusals(reader, [(folder / c.get("checkpoint", c["file"]), c.get("flags", flags or {})) for c in cases])
    assert set(said) == set(words)
    for name, word in words.items():
        assert word in said[name], said[name]
    for case in cases:
        if "must_not_appear" in case:
            assert not os.path.exists(case["must_not_appear"])


def refusals(reader: str, files: list[tuple[Path, Mapping[str, Any]]], megabytes: int = 400) -> dict[str, str]:
    """What a reader says of files, in a process that may take this much memory beyond what it needs to start."""
    code = """
        import json, resource, sys
        from importlib import import_module
        from pathlib import Path
        from priorpaint.errors import CheckpointError
        from priorpaint.priors.readers.base import Request
        reader = import_module("priorpaint.priors.readers." + sys.argv[1])
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (int(sys.argv[2]) << 20),) * 2)
        said = {}
        for path, flags in json.load(sys.stdin):
            try:
                reader.read(Request(Path(path), flags))
                said[Path(path).name] = "read"
            except CheckpointError as error:
                said[Path(path).name] = str(error)
        print(json.dumps(said))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), reader, str(megabytes)],
        input=json.dumps([(str(path), dict(flags)) for path, flags in files]),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    said: dict[str, str] = json.loads(run.stdout)
    return said
