"""``priorpaint sample`` and ``priorpaint likelihood`` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights
from tests.command_line import exit_code

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
FEW = ("--steps", 2, "--threads", 1, "--device", "cpu", "--quiet")


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    """A grey prior of 16 x 16 pixels with two classes, untrained."""
    folder = tmp_path / "prior"
    folder.mkdir()
    shape = UNetConfig((8, 8), (1, 1), 8, in_channels=1, classes=2)
    save_weights(folder / "weights.safetensors", UNet(shape, seed=0), WeightsMetadata(size=(16, 16)))
    return folder


def test_pictures_a_sheet_and_what_reproduces_them(
    prior: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    out = tmp_path / "out"
    for sampler in ("ddpm", "ddim", "heun", "sde", "ode", "langevin", "pc"):
        arguments = ("sample", "--prior", prior, "-n", 3, "--sampler", sampler, *FEW, "-o", out / sampler)
        assert exit_code(monkeypatch, *arguments, "--batch-size", 2, "--label", 1) == 0, capsys.readouterr().err
        names = capsys.readouterr().out.splitlines()
        assert [Path(name).name for name in names] == [*(f"sample_{i}.png" for i in range(3)), "sheet.png", "run.json"]
        run = json.loads((out / sampler / "run.json").read_text())
        assert run["sampler"]["name"] == sampler and run["num"] == 3 and run["label"] == 1
        assert run["nfe"] == 3 * run["nfe_of_a_sample"]
        with Image.open(out / sampler / "sample_2.png") as picture:
            assert picture.size == (16, 16) and picture.mode == "L"
    one = tmp_path / "one"
    assert exit_code(monkeypatch, "sample", "--prior", prior, "-n", 1, *FEW, "--label", 1, "-o", one, "--json") == 0
    assert json.loads(capsys.readouterr().out)["num"] == 1
    assert (one / "sample_0.png").read_bytes() == (out / "heun" / "sample_0.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampler", "euler"], "there is no sampler 'euler'"),
        (["--sampler", "heun", "--variance", "small"], "has no setting 'variance'"),
        (["--sampler", "ddpm", "--variance", "learned"], "needs a network that learned one"),
        (["--sampler", "ddpm", "--variance", "medium"], "variance = 'medium' is not valid"),
        (["--sampler", "ddim", "--variance", "large"], "belongs to an ancestral step"),
        (["--steps", "0"], "steps = 0 is not valid"),
        (["--set", "steps=3", "--steps", "3"], "as an option and with --set"),
        (["--size", "16by16"], "--size is WIDTHxHEIGHT"),
        (["--size", "32x16"], "works on"),
        (["--label", "2"], "knows the classes 0 to 1"),
        (["--prior", "nowhere"], "no prior and no file 'nowhere'"),
        (["--prior", "avatars-latent", "--clip"], "latents have no range"),
        (["--prior", "photos"], "say which with --size"),
    ],
    ids=" ".join,
)
def test_nonsense_is_refused_before_any_work(
    arguments: list[str], message: str, prior: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    assert (
        exit_code(monkeypatch, "sample", "--prior", prior, "-o", tmp_path / "out", "--device", "cpu", *arguments) == 2
    )
    printed = capsys.readouterr()
    assert message in printed.err and len(printed.err.splitlines()) == 1 and printed.out == ""
    assert not (tmp_path / "out").exists()


def test_results_are_not_replaced(prior: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    (tmp_path / "sample_1.png").write_bytes(b"mine")
    assert exit_code(monkeypatch, "sample", "--prior", prior, "-n", 2, *FEW, "-o", tmp_path) == 2
    assert "use --overwrite" in capsys.readouterr().err and (tmp_path / "sample_1.png").read_bytes() == b"mine"
    assert exit_code(monkeypatch, "sample", "--prior", prior, "-n", 2, *FEW, "-o", tmp_path, "--overwrite") == 0


def test_the_samplers_are_listed(monkeypatch: Patch, capsys: Capture) -> None:
    assert exit_code(monkeypatch, "sample", "--list") == 0
    out = capsys.readouterr().out
    assert "ddpm: DDPM, ancestral sampling" in out and "  snr = 0.16" in out and "4 * steps - 3" in out


# -- likelihood --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    made = []
    for i, mode in enumerate(("L", "RGB")):
        made.append(tmp_path / f"picture_{i}.png")
        Image.new(mode, (16, 16), 90 if mode == "L" else (90, 90, 90)).save(made[-1])
    return made


def test_a_table_and_all_terms(
    prior: Path, pictures: list[Path], tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    few = ("--steps", 3, "--ode-steps", 2, "--draws", 2, "--threads", 1, "--device", "cpu", "--quiet")
    out = tmp_path / "bits.json"
    assert exit_code(monkeypatch, "likelihood", "--prior", prior, *pictures, *few, "-o", out) == 0
    table = capsys.readouterr().out
    assert all(
        word in table for word in ("L_T", "L_0", "bound", "ODE", "picture_0.png", "picture_1.png", "bits a value")
    )
    report = json.loads(out.read_text())
    for row in report["rows"]:
        terms = row["bound"]
        assert len(terms["terms"]) == 2 and terms["standard_error"] > 0
        assert terms["total"] == pytest.approx(terms["L_T"] + sum(terms["terms"]) + terms["L_0"])
        assert row["ode"]["standard_error"] is not None
    # A grey picture is the same one in colour, and has the same numbers alone.
    first, second = ({**row, "picture": ""} for row in report["rows"])
    assert first["bound"]["total"] != second["bound"]["total"]  # copies in one batch get noise of their own
    assert exit_code(monkeypatch, "likelihood", "--prior", prior, pictures[1], *few, "--json", "--which", "bound") == 0
    alone = json.loads(capsys.readouterr().out)
    assert "ode" not in alone and alone["rows"][0]["bound"]["total"] == pytest.approx(first["bound"]["total"], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--which", "all"], "--which is both, bound or ode"),
        (["--variance", "wide"], "--variance is small, large or learned"),
        (["--variance", "learned"], "learned no variance"),
        (["--rule", "euler"], "--rule is rk4 or heun"),
        (["--spacing", "even"], "--spacing is uniform"),
        (["-o", "nowhere/bits.json"], "does not exist; make it first"),
        (["missing.png"], "missing.png does not exist"),
        (["wide.png"], "works on"),
    ],
    ids=" ".join,
)
def test_a_likelihood_of_nonsense_is_refused(
    arguments: list[str], message: str, prior: Path, pictures: list[Path], monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.chdir(pictures[0].parent)
    Image.new("L", (32, 16)).save("wide.png")
    assert exit_code(monkeypatch, "likelihood", "--prior", prior, pictures[0], "--device", "cpu", *arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err and len(printed.err.splitlines()) == 1 and printed.out == ""
