"""Every number of a configuration changed, one at a time, in a process whose memory is watched.

``python -m tests.priors.readers.changed_settings KIND FOLDER CHOICE`` writes a small checkpoint of that kind, changes
it, and prints one JSON list a change: where, the new value, and what became of it.
"""

from __future__ import annotations

import copy
import json
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from priorpaint import load_prior
from priorpaint.errors import CheckpointError, UsageError
from priorpaint.priors.base import Prior
from tests.priors.readers.small_files import Persistent, images

Where = tuple[str | int, ...]
NUMBERS: tuple[Any, ...] = (0, -1, 10**9)
OTHERS: tuple[Any, ...] = (10**400, 1e308, "x", None, True)
ALIKE = 2  # numbers of one name that are changed
GUARD = 12 << 30  # bytes of address space, so that a failure does not take the machine with it
HANGS_AFTER = 120  # seconds of one change; an ordinary one takes less than one


class Hangs(BaseException):
    """Not to be caught by what hangs."""


_TABLES = ("_parameters", "_buffers", "_non_persistent_buffers_set", "training")


@dataclass(frozen=True)
class Document:
    """One configuration of a checkpoint: what it holds, and how a changed one is written and read."""

    name: str
    content: Any
    write: Callable[[Any], None]
    read: Callable[[], Prior]


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint; ``parts``: the configurations that no other kind has, all of them where empty."""

    make: Callable[[Path], list[Document]]
    parts: tuple[str, ...] = field(default=())


def leaves(content: Any, where: Where = ()) -> Iterator[tuple[Where, Any]]:
    """Every number and truth value, with the way to it."""
    if isinstance(content, Persistent):
        content = {name: value for name, value in content.state.items() if name not in _TABLES}
    if isinstance(content, dict):
        pairs: Iterator[tuple[Any, Any]] = iter(content.items())
    elif isinstance(content, (list, tuple)):
        pairs = enumerate(content)
    else:
        if isinstance(content, (int, float)):
            yield where, content
        return
    for name, value in pairs:
        yield from leaves(value, (*where, name))


def changed(content: Any, where: Where, value: Any) -> Any:
    """A copy with another value at one place."""
    if not where:
        return value
    if isinstance(content, Persistent):
        return Persistent(content.class_name, changed(content.state, where, value))
    out = list(content) if isinstance(content, tuple) else copy.copy(content)
    out[where[0]] = changed(content[where[0]], where[1:], value)
    return out


def used(prior: Prior) -> torch.Tensor:
    """One denoising call, and a latent prior's decoder and encoder."""
    if max(side or 0 for side in prior.shape[1:]) > 512:
        raise AssertionError(f"a prior of the shape {prior.shape}")
    sides = [8 if side is None else min(side, 8) for side in prior.shape[1:]]
    x_t = images(1, prior.shape[0], *sides)
    label = {"label": 0} if prior.classes else {"prompt": "a red cat"} if prior.takes_text else {}
    parts = [prior.denoise(x_t, t, prior.condition(**label)).flatten() for t in (0.3, 1.0)]
    if prior.latent:
        image = prior.decode(x_t)
        parts += [image.flatten(), prior.encode(image).flatten()]
    out = torch.cat(parts)
    if not bool(out.isfinite().all()):
        raise AssertionError("values that are not finite")
    return out


def outcome(document: Document, expected: torch.Tensor) -> str:
    """``refused: sentence``, ``same``, ``different``, or ``failed: why``."""
    try:
        prior = document.read()
    except (CheckpointError, UsageError) as error:
        return f"refused: {error}"
    except (Exception, Hangs) as error:
        return f"failed to load: {type(error).__name__}: {error}"[:500]
    try:
        out = used(prior)
    except (Exception, Hangs) as error:
        return f"failed to run: {type(error).__name__}: {error}"[:500]
    return "same" if out.shape == expected.shape and torch.allclose(out, expected) else "different"


def changes(document: Document, every: bool) -> Iterator[tuple[Where, Any]]:
    """Of each number, all of `NUMBERS` and one of `OTHERS`; in a quick selection one of both together."""
    named: Counter[str] = Counter()
    for index, (where, old) in enumerate(leaves(document.content)):
        name = next(part for part in reversed(where) if isinstance(part, str))
        named[name] += 1
        if named[name] > ALIKE:  # blocks and lists repeat themselves
            continue
        new, further = ([value for value in values if _other(value, old)] for values in (NUMBERS, OTHERS))
        chosen = [*new, further[index % len(further)]] if every else [(new + further)[index % len(new + further)]]
        yield from ((where, value) for value in chosen)


def _other(value: Any, old: Any) -> bool:
    return isinstance(value, bool) != isinstance(old, bool) or value != old and not isinstance(value, bool)


def run(document: Document, every: bool) -> Iterator[list[Any]]:
    """Where, value, outcome and megabytes taken, of every change."""
    document.write(document.content)
    expected = used(document.read())
    for where, value in changes(document, every):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.alarm(HANGS_AFTER)
        try:
            document.write(changed(document.content, where, value))
            said = outcome(document, expected)
        finally:
            signal.alarm(0)
        megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        yield [document.name, ".".join(map(str, where)), repr(value)[:12], said, megabytes]
    document.write(document.content)


# -- the kinds ---------------------------------------------------------------------------------------------------------


def _read(path: Path, flags: Any = None) -> Callable[[], Prior]:
    return lambda: load_prior(path, flags=flags, device="cpu")


def _json(file: Path, folder: Path, flags: Any = None) -> Document:
    name = file.relative_to(folder).as_posix()
    content = json.loads(file.read_text())
    return Document(name, content, lambda new: _text(file, json.dumps(new)), _read(folder, flags))


def _text(file: Path, text: str) -> None:
    file.write_text(text)


def _folder(write: Callable[[Path], Any], flags: Any = None) -> Callable[[Path], list[Document]]:
    def make(path: Path) -> list[Document]:
        write(path)
        names = ("config.json", "scheduler_config.json", "tokenizer_config.json", "model_index.json")
        return [_json(file, path, flags) for name in names for file in sorted(path.rglob(name))]

    return make


def _edm(network: str, precond: str, **more: Any) -> Callable[[Path], list[Document]]:
    def make(path: Path) -> list[Document]:
        from tests.priors.readers import test_edm as files

        settings = {name: more.pop(name) for name in list(more) if name not in ("label_dim", "out_channels")}
        top, _ = files.pickled(network, precond, {**files.KWARGS, **more}, **settings)
        return [Document(precond, top, lambda new: _pickle(path, new), _read(path))]

    return make


def _pickle(path: Path, top: Persistent) -> None:
    from tests.priors.readers.small_files import write_edm

    write_edm(path, top)


def _edm2(path: Path) -> list[Document]:
    from tests.priors.readers import test_edm as files

    top = files.TestEDM2().pickled()[0]
    return [Document("Precond", top, lambda new: _pickle(path, new), _read(path))]


def _ldm(codes: bool, classes: bool = False) -> Callable[[Path], list[Document]]:
    def make(path: Path) -> list[Document]:
        import yaml

        from tests.priors.readers import test_ldm as files

        path = path / "model.ckpt"
        path.parent.mkdir()
        if classes:
            files.TestClasses().write(path.parent)
            path = path.with_name("a.ckpt")
        else:
            first = files.VQ if codes else files.KL
            files.write(path, files.tensors(first), files.configuration(first, scale_factor=0.5))
        file = path.with_suffix(".yaml")
        content = yaml.safe_load(file.read_text())
        return [Document("yaml", content, lambda new: _text(file, yaml.safe_dump(new)), _read(path))]

    return make


def _adm(path: Path) -> list[Document]:
    from tests.priors.readers import test_adm as files

    shape = files.ADMConfig(3, 3, 32, (32, 64), 1, frozenset({1}), "conv", True, files.Heads(2), 5)
    files.write(path, shape)
    flags: dict[str, Any] = {
        "image_size": 16,
        "num_channels": 32,
        "num_res_blocks": 1,
        "channel_mult": [1, 2],
        "attention_resolutions": [8],
        "resblock_updown": False,
        "use_scale_shift_norm": True,
        "class_cond": True,
        "learn_sigma": False,
        "num_heads": 2,
        "num_heads_upsample": 2,
        "use_new_attention_order": False,
        "diffusion_steps": 400,
        "predict_xstart": False,
        "rescale_timesteps": False,
    }
    now = [flags]
    return [
        Document(
            "flags", flags, lambda new: now.__setitem__(0, new), lambda: load_prior(path, flags=now[0], device="cpu")
        )
    ]


def _own(latent: bool) -> Callable[[Path], list[Document]]:
    def make(path: Path) -> list[Document]:
        from safetensors.torch import load_file, save_file

        from priorpaint.priors.native.autoencoder import AutoencoderConfig, ConvAutoencoder
        from priorpaint.priors.native.unet import UNet, UNetConfig
        from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights
        from priorpaint.priors.readers.untrusted.reading import load_safetensors

        network = UNet(UNetConfig((8,), (1,), 8, classes=3), seed=0)
        autoencoder = None
        if latent:
            autoencoder = ConvAutoencoder(AutoencoderConfig(2, 3, (8,), (1,)), seed=0)
        save_weights(path, network, WeightsMetadata(size=(8, 8)), autoencoder=autoencoder)
        tensors = load_file(path)
        content = json.loads(load_safetensors(path)[1]["priorpaint"])

        def write(new: Any) -> None:
            save_file(tensors, path, metadata={"priorpaint": json.dumps(new)})

        return [Document("metadata", content, write, _read(path))]

    return make


def _models() -> Any:
    from tests.priors.readers import diffusers_models

    return diffusers_models


def _scored(path: Path) -> None:
    import diffusers

    models = _models()
    network = models.unet(time_embedding_type="fourier")
    models.save(path, diffusers.ScoreSdeVeScheduler(sigma_min=0.01, sigma_max=50.0), unet=network)


def _preconditioned(path: Path) -> None:
    import diffusers

    models = _models()
    models.save(
        path,
        diffusers.EDMEulerScheduler(),
        vae=models.kl(latents_mean=[0.1] * 4, latents_std=[0.5] * 4, shift_factor=0.1),
        unet=models.unet(in_channels=4, out_channels=4),
    )


def _learned_times(path: Path) -> None:
    _models().pixel(path, time_embedding_type="learned", num_train_timesteps=1000, num_class_embeds=5)


def _tiny(path: Path) -> None:
    import diffusers

    models = _models()
    tiny = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )  # fmt: skip
    betas = [0.01, 0.02, 0.05, 0.3, 0.9]
    scheduler = diffusers.DDIMScheduler(trained_betas=betas, num_train_timesteps=5)
    models.save(path, scheduler, vae=models.randomised(tiny), unet=models.unet(in_channels=4, out_channels=4))


FEW = {"max_sequence_length": 8, "image_size": 16}
KINDS: dict[str, Kind] = {
    "adm": Kind(_adm),
    "edm": Kind(_edm("SongUNet", "EDMPrecond", label_dim=4, sigma_data=0.5, sigma_min=0.01, sigma_max=50.0)),
    "edm ve": Kind(_edm("SongUNet", "VEPrecond", sigma_min=0.02, sigma_max=100.0)),
    "edm vp": Kind(_edm("DhariwalUNet", "VPPrecond", beta_d=19.9, beta_min=0.1, M=1000, epsilon_t=1e-5)),
    "edm2": Kind(_edm2),
    "ldm": Kind(_ldm(codes=False)),
    "ldm with a codebook": Kind(_ldm(codes=True)),
    "ldm with classes": Kind(_ldm(codes=False, classes=True)),
    "pixels": Kind(_folder(lambda path: _models().pixel(path))),
    "scores": Kind(_folder(_scored)),
    "preconditioned": Kind(_folder(_preconditioned), ("scheduler", "vae")),
    "learned times": Kind(_folder(_learned_times), ("unet",)),
    "codes": Kind(_folder(lambda path: _models().latent_vq(path)), ("vqvae", "scheduler")),
    "tiny": Kind(_folder(_tiny), ("vae", "scheduler")),
    "stable diffusion": Kind(_folder(lambda path: _models().stable_diffusion(path)), ("unet", "scheduler")),
    "sdxl": Kind(
        _folder(lambda path: _models().sdxl(path)),
        ("unet", "scheduler", "vae", "text_encoder", "text_encoder_2", "tokenizer", "model_index.json"),
    ),
    "sd3": Kind(
        _folder(lambda path: _models().sd3(path), FEW), ("transformer", "scheduler", "text_encoder_3", "tokenizer_3")
    ),
    "flux": Kind(_folder(lambda path: _models().flux(path), FEW), ("transformer", "scheduler")),
    "dit": Kind(_folder(lambda path: _models().dit(path)), ("transformer",)),
    "own": Kind(_own(latent=False)),
    "own latent": Kind(_own(latent=True)),
}


def _hangs(number: int, frame: Any) -> None:
    raise Hangs


def main(kind: str, folder: str, choice: str) -> None:
    """Print one line for each change."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _hangs)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = taken + GUARD if hard == resource.RLIM_INFINITY else min(taken + GUARD, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    for document in KINDS[kind].make(Path(folder) / "model"):
        if KINDS[kind].parts and document.name.split("/")[0] not in KINDS[kind].parts:
            continue
        for line in run(document, choice == "every"):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
