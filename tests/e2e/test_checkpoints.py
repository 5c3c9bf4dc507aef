"""Checkpoints of every published format through the command line: named, described, verified, and painted with.

The files are written by the tests in the layouts of the published programs, from seeded random weights, so completions
are noise; what must hold is that they are made, that known pixels stay, and that run.json says what they are made with.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from priorpaint.cli import main
from priorpaint.priors.loading import PRIORS
from priorpaint.priors.networks.adm import ADMConfig, Heads
from tests.e2e.test_priors import tiny_prior
from tests.priors.readers import test_adm, test_edm

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ADM_FLAGS = {"image_size": 16, "num_heads": 2, "noise_schedule": "cosine"}
TEXT = ("--prompt", "a photo of a red cat", "--negative-prompt", "dog", "--guidance", "3")


def models() -> Any:
    """Writers of diffusers folders; skips where diffusers is not installed."""
    return pytest.importorskip("tests.priors.readers.diffusers_models")


def ldm() -> Any:
    return pytest.importorskip("tests.priors.readers.test_ldm", reason="the YAML of these checkpoints needs PyYAML")


# -- one writer a format: folder -> what the user gives as the prior ---------------------------------------------------


def own(folder: Path) -> Path:
    return tiny_prior(folder / "own.safetensors")


def pixels(folder: Path) -> Path:
    models().pixel(folder)
    return folder


def pixels_of_classes(folder: Path) -> Path:
    models().pixel(folder, num_class_embeds=5)
    return folder


def layout(kind: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        getattr(models(), kind)(folder)
        return folder

    return write


def latent_kl(folder: Path) -> Path:
    parts = models()
    network = parts.unet(in_channels=4, out_channels=4)
    saved: Path = parts.save(folder, parts.diffusers.DDIMScheduler(), vae=parts.kl(), unet=network)
    return saved


def adm(folder: Path) -> Path:
    test_adm.write(folder / "adm.pt", ADMConfig(3, 6, 32, (32, 64), 1, frozenset({1}), "block", True, Heads(2)))
    return folder / "adm.pt"


def adm_of_classes(folder: Path) -> Path:
    config = ADMConfig(3, 3, 32, (32, 64), 1, frozenset(), "conv", False, Heads(2), 7)
    test_adm.write(folder / "adm.pt", config)
    return folder / "adm.pt"


def edm(kind: str, precond: str, **about: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        test_edm.write(folder / "edm.pkl", kind, precond, {**test_edm.KWARGS, "label_dim": 4}, **about)
        return folder / "edm.pkl"

    return write


def edm2(folder: Path) -> Path:
    test_edm.TestEDM2().write(folder / "edm2.pkl")
    return folder / "edm2.pkl"


def compvis(first: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        files = ldm()
        config = getattr(files, first)
        saved: Path = files.write(folder / "model.ckpt", files.tensors(config), files.configuration(config))
        return saved

    return write


def compvis_of_classes(folder: Path) -> Path:
    ldm().TestClasses().write(folder)
    return folder / "a.ckpt"


@dataclass(frozen=True)
class Case:
    """A format.

    Attributes:
        write: its writer.
        format: as ``priors info`` names it.
        flags: as a user gives them to ``priors add``.
        wishes: of ``inpaint``.
        method: a fast one that fits.
        mode: of the picture.
    """

    write: Callable[[Path], Path]
    format: str
    flags: dict[str, Any] | None = None
    wishes: tuple[str, ...] = ()
    method: str = "replacement"
    mode: str = "RGB"

    @property
    def words(self) -> tuple[str, ...]:
        if not self.flags:
            return ()
        return "--flags", " ".join(f"--{key} {value}" for key, value in self.flags.items())


LABEL = ("--label", "1")
GUIDED = (*LABEL, "--guidance", "2")
CASES = {
    "priorpaint": Case(own, "priorpaint", mode="L"),
    "pixels": Case(pixels, "diffusers", method="ddnm", mode="RGBA"),
    "pixels, classes": Case(pixels_of_classes, "diffusers", {"null_class": 4}, GUIDED),
    "latent, codebook": Case(layout("latent_vq"), "diffusers", method="dps"),
    "latent, KL": Case(latent_kl, "diffusers", mode="L"),
    "Stable Diffusion": Case(layout("stable_diffusion"), "diffusers", None, TEXT, mode="RGBA"),
    "SDXL": Case(layout("sdxl"), "diffusers", {"image_size": "any"}, TEXT),
    "Stable Diffusion 3": Case(layout("sd3"), "diffusers", {"max_sequence_length": 12}, TEXT[:2]),
    "Flux": Case(layout("flux"), "diffusers", {"image_size": 16, "guidance": 2.5, "max_sequence_length": 12}, TEXT[:2]),
    "DiT": Case(layout("dit"), "diffusers", None, GUIDED),
    "ADM": Case(adm, "adm", ADM_FLAGS, method="dps"),
    "ADM, classes": Case(adm_of_classes, "adm", ADM_FLAGS, LABEL, mode="L"),
    "EDM": Case(edm("SongUNet", "EDMPrecond", sigma_data=0.5), "edm", None, LABEL, "ddnm", "RGBA"),
    "EDM2": Case(edm2, "edm", None, LABEL),
    "LDM, KL": Case(compvis("KL"), "ldm", method="psld"),
    "LDM, codebook": Case(compvis("VQ"), "ldm", mode="L"),
    "LDM, classes": Case(compvis_of_classes, "ldm", {"null_class": 0}, GUIDED),
}


class Shell:
    """The command line in this process; the user's folder is the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["priorpaint", *map(str, arguments)])
        self.capsys.readouterr()  # what the writers of models said
        with pytest.raises(SystemExit) as caught:
            main()
        shown = self.capsys.readouterr()
        return int(caught.value.code or 0), shown.out, shown.err


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("PRIORPAINT_HOME", str(tmp_path / "home"))
    return Shell(monkeypatch, capsys)


def picture(folder: Path, mode: str = "RGB", size: tuple[int, int] = (26, 20)) -> tuple[Path, Path]:
    """(picture, mask) of a size (width, height)."""
    width, height = size
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    if mode == "RGBA":
        values[..., 3] |= 128  # a transparent pixel says nothing
    Image.fromarray(values[..., 0] if mode == "L" else values).save(folder / "photo.png")
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder / "photo.png", folder / "mask.png"


def painted(shell: Shell, photo: tuple[Path, Path], prior: str | Path, *more: str, method: str = "replacement") -> Any:
    """run.json of a completion; it differs from the picture in the hole and nowhere else."""
    out = photo[0].parent / f"out{len(list(photo[0].parent.glob('out*')))}"
    steps = ("--method", method, "--set", "steps=2", "--samples", "1", "--quiet")
    code, files, err = shell("inpaint", *photo, "--prior", prior, "-o", out, *steps, *more)
    assert code == 0 and all("does not find noise as a trained denoiser does" in line for line in err.splitlines()), err
    assert [Path(file).is_file() for file in files.splitlines()] == [True] * 4
    before, after = (np.asarray(Image.open(path)) for path in (photo[0], out / "photo_0.png"))
    known = np.asarray(Image.open(photo[1])) == 0
    assert before.shape == after.shape and np.array_equal(before[known], after[known])
    assert not np.array_equal(before[~known], after[~known])
    return json.loads((out / "run.json").read_text())


# Formats that differ from another one in little that the command line sees.
SLOW = ("latent, KL", "SDXL", "Stable Diffusion 3", "LDM, codebook")


def formats() -> list[Any]:
    return [
        pytest.param(case, id=name, marks=[pytest.mark.slow] if name in SLOW else []) for name, case in CASES.items()
    ]


@pytest.mark.parametrize("case", formats())
def test_a_format_from_its_file_to_a_picture(shell: Shell, tmp_path: Path, case: Case) -> None:
    (tmp_path / "model").mkdir()
    model = case.write(tmp_path / "model")
    added, named, _ = shell("priors", "add", "mine", model, *case.words)
    assert added == 0 and named.startswith(f"mine is {model}")
    code, told, err = shell("priors", "info", "mine", "--json")
    facts = json.loads(told)
    assert (code, err, facts["format"]) == (0, "", case.format) and facts["parameters"] > 0
    if model.is_file():
        assert facts["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    info = painted(shell, picture(tmp_path, case.mode), "mine", *case.wishes, method=case.method)
    assert case.format != "diffusers" or info["versions"]["diffusers"] == version("diffusers")
    run = info["prior"]
    assert (run["name"], run["spec"], run["sha256"]) == ("mine", str(model), facts["sha256"])
    assert (run["flags"], run["facts"]["format"]) == (case.flags or {}, case.format)
    wishes = dict(zip(case.wishes[::2], case.wishes[1::2], strict=True))
    found = {f"--{key.replace('_', '-')}": str(value) for key, value in (run["condition"] or {}).items()}
    assert all(found[key] in (value, f"{value}.0") for key, value in wishes.items() if key != "--guidance")
    assert not wishes or found["--guidance-scale"] == str(float(wishes.get("--guidance", 1)))


@pytest.mark.parametrize("name", ["DiT", "ADM, classes", "EDM", "LDM, classes"])
def test_verify(shell: Shell, tmp_path: Path, name: str) -> None:
    """Random weights are read and give finite values; that they find no noise is a warning and no failure."""
    code, out, err = shell("priors", "verify", CASES[name].write(tmp_path), *CASES[name].words)
    assert code == 0 and "to finite values" in out and out.count("found with correlation") == 3
    assert err.startswith("Warning: it does not find the noise") and len(err.splitlines()) == 1
    assert ("noise_schedule" in err) == (name == "ADM, classes")


@pytest.mark.parametrize(("mode", "fit"), [("L", "windows"), ("RGBA", "resize")])
@pytest.mark.parametrize("size", [(16, 17), (61, 44)], ids=str)
def test_pictures_smaller_and_larger_than_the_network(
    shell: Shell, tmp_path: Path, mode: str, size: tuple[int, int], fit: str
) -> None:
    parts = models()
    parts.pixel(tmp_path / "model", sample_size=24)
    run = painted(shell, picture(tmp_path, mode, size), tmp_path / "model", "--fit", fit)
    assert run["call"]["fit"] == fit and run["image"]["mode"] == mode


def test_a_memory_limit_and_flags_on_the_command_line(shell: Shell, tmp_path: Path) -> None:
    model = adm(tmp_path)
    more = ("--flags", "--image_size=16 --num_heads 2", "--max-memory", "1GB")
    run = painted(shell, picture(tmp_path), model, *more, method="dps")
    assert run["call"]["max_memory"] == "1GB" and run["prior"]["flags"] == {"image_size": 16, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "arguments", "code", "message"),
    [
        ("ADM", (), 2, "adm.pt is an ADM checkpoint, whose tensors do not show the number of attention heads"),
        ("ADM", ("--flags", "--num_heads 2 --heads 3"), 2, "no flag 'heads'"),
        ("ADM", ("--flags", "--num_heads 2 --class_cond True"), 1, "the flag class_cond says True"),
        ("ADM, classes", ("--flags", "--num_heads 2"), 2, "name one of its 7 classes"),
        ("EDM", ("--label", "4"), 2, "knows the classes 0 to 3, not 4"),
        ("EDM", ("--prompt", "a cat"), 2, "takes no text"),
        ("EDM", ("--flags", "--num_heads 2"), 2, "no flag"),
        ("pixels, classes", ("--label", "1", "--guidance", "2"), 2, "guidance needs a state without a class"),
        ("pixels", ("--label", "1"), 2, "knows no classes"),
        ("EDM", ("--negative-prompt", "dog"), 2, "add --guidance"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(
    shell: Shell, tmp_path: Path, name: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "model").mkdir()
    model, photo = CASES[name].write(tmp_path / "model"), picture(tmp_path)
    found, out, err = shell("inpaint", *photo, "--prior", model, "-o", tmp_path / "out", "--quiet", *arguments)
    *warnings, last = err.splitlines()
    assert (found, out) == (code, "") and message in last and all("untrained" in line for line in warnings)
    assert not (tmp_path / "out").exists()


def test_a_changed_file_behind_a_name_is_refused(shell: Shell, tmp_path: Path) -> None:
    model = edm("SongUNet", "EDMPrecond", sigma_data=0.5)(tmp_path)
    assert shell("priors", "add", "mine", model)[0] == 0
    edm("SongUNet", "EDMPrecond", sigma_data=0.4)(tmp_path)
    code, _, err = shell("priors", "verify", "mine")
    assert code == 1 and "not those that were added" in err and len(err.splitlines()) == 1


def test_a_configuration_elsewhere_is_found_from_every_folder(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = compvis("KL")(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    model.with_suffix(".yaml").rename(tmp_path / "elsewhere" / "unusual.yml")
    code, _, err = shell("priors", "info", model)
    assert code == 2 and "put it beside the checkpoint as model.yaml, or give --flags" in err
    monkeypatch.chdir(tmp_path)
    assert shell("priors", "add", "mine", "model.ckpt", "--flags", "--config elsewhere/unusual.yml")[0] == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert shell("priors", "info", "mine")[0] == 0


# -- the hub -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub in the test's folder."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_offline_from_the_cache(shell: Shell, tmp_path: Path, cache: Path) -> None:
    place = cache / "models--someone--faces"
    models().pixel(place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    assert shell("priors", "add", "faces", "hf:someone/faces", "--offline")[:2] == (0, "faces is hf:someone/faces\n")
    run = painted(shell, picture(tmp_path), "faces", "--offline")["prior"]
    assert (run["name"], run["spec"], run["facts"]["format"]) == ("faces", "hf:someone/faces", "diffusers")
    shutil.rmtree(place)
    code, _, err = shell("priors", "verify", "faces", "--offline")
    assert code == 1 and "hf:someone/faces is not in the cache" in err and len(err.splitlines()) == 1


def test_offline_without_the_cache(shell: Shell, tmp_path: Path, cache: Path) -> None:
    for command in (["priors", "info"], ["priors", "add", "faces"]):
        code, out, err = shell(*command, "hf:someone/faces", "--offline")
        assert (code, out) == (1, "") and len(err.splitlines()) == 1
        assert "hf:someone/faces is not in the cache" in err and "you asked to stay offline" in err
    assert shell("priors", "list")[1].count("\n") == len(PRIORS)


# -- LPIPS -------------------------------------------------------------------------------------------------------------

FEW = ("iterations=1", "mc_samples=1", "refine_steps=1", "top_steps=2", "levels=1", "preset=official-imagenet")
VIPAINT = ("--method", "vipaint", "--samples", "1", "--quiet", *(word for text in FEW for word in ("--set", text)))


@pytest.mark.filterwarnings("default")
def test_vipaint_without_lpips_says_so_once(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    models().latent_vq(tmp_path / "model")
    photo = picture(tmp_path, size=(40, 40))
    code, _, err = shell("inpaint", *photo, "--prior", tmp_path / "model", "-o", tmp_path / "out", *VIPAINT)
    *warnings, last = err.splitlines()
    assert code == 0 and last.startswith("Warning: the published VIPaint adds LPIPS")
    assert all("untrained" in line for line in warnings)


def test_lpips_without_its_file_is_one_sentence(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    models().latent_vq(tmp_path / "model")
    more = (*VIPAINT, "--set", "perceptual=vgg.safetensors")
    code, _, err = shell("inpaint", *picture(tmp_path), "--prior", tmp_path / "model", "-o", tmp_path / "out", *more)
    *warnings, last = err.splitlines()
    assert code == 1 and "python -m priorpaint.metrics.lpips_weights" in last
    assert all("untrained" in line for line in warnings)


# -- what the libraries print ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Stable Diffusion", "Stable Diffusion 3", "LDM, KL"])
def test_a_process_prints_no_line_of_the_libraries(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    model, photo = CASES[name].write(tmp_path / "model"), picture(tmp_path)
    command = [sys.executable, "-m", "priorpaint", "inpaint", *photo, "--prior", model, "-o", tmp_path / "out"]
    more = ["--method", "replacement", "--set", "steps=2", "--samples", "1", "--quiet", *CASES[name].words]
    done = subprocess.run([*map(str, command), *more, *CASES[name].wishes], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and all("untrained" in line for line in done.stderr.splitlines()), done.stderr
