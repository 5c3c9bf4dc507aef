"""``priorpaint priors``: list, add, info, verify, remove, and what they say when something is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from priorpaint.cli import main
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRIORPAINT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def tiny_prior(path: Path) -> Path:
    """A prior of priorpaint's own format with random weights, written to ``path``."""
    network = UNet(UNetConfig((8, 8), (1, 1), 8), seed=0)
    with torch.no_grad():
        network.tail.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    save_weights(path, network, WeightsMetadata())
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tiny_prior(tmp_path / "tiny.safetensors")


class Shell:
    """The command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["priorpaint", "priors", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        shown = self.capsys.readouterr()
        return int(caught.value.code or 0), shown.out, shown.err


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


def test_a_name_from_add_to_remove(shell: Shell, weights: Path, own_home: Path) -> None:
    assert shell("add", "mine", weights)[:2] == (0, f"mine is {weights}\n")
    code, out, _ = shell("list")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0 and lines[0][0] == "photos" and ["mine", str(weights)] in [line[:2] for line in lines]
    assert shell()[1] == out
    code, out, _ = shell("info", "mine", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["name"] == "mine" and len(facts["sha256"]) == 64 and facts["format"] == "priorpaint"
    assert shell("mine")[1] == shell("info", "mine")[1] != ""
    code, _, err = shell("add", "mine", weights)
    assert code == 2 and "stands for" in err
    assert shell("add", "mine", weights, "--overwrite")[0] == 0
    code, out, _ = shell("remove", "mine")
    assert code == 0 and "its files were not touched" in out and weights.is_file()
    assert "mine" not in shell("list")[1]


def test_verify_tells_a_denoiser_from_random_weights(shell: Shell, weights: Path) -> None:
    code, out, err = shell("verify", weights)
    assert code == 0 and "denoises 3 x 64 x 64 to finite values" in out and "Warning" in err
    code, out, err = shell("verify", "photos", "--device", "cpu")
    assert code == 0 and "as a trained denoiser does" in out and err == ""


def test_flags_travel_with_the_name(shell: Shell, tmp_path: Path) -> None:
    spec = tmp_path / "model.pt"
    code, out, _ = shell("add", "adm", spec, "--no-check", "--flags", "--image_size 64 --class_cond True")
    assert code == 0 and out == f"adm is {spec} --image_size 64 --class_cond True\n"
    saved = json.loads((tmp_path / "home" / "priors.json").read_text())["priors"]["adm"]
    assert saved == {"spec": str(spec), "flags": {"image_size": 64, "class_cond": True}}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["info", "nowhere"], 2, "no prior and no file 'nowhere'"),
        (["add", "photos", "x", "--no-check"], 2, "embedded prior"),
        (["add", "a/b", "x", "--no-check"], 2, "not a name for a prior"),
        (["add", "lost", "lost.pt"], 2, "no prior and no file"),
        (["remove", "nobody"], 2, "no prior of your own"),
        (["info", "hf:one"], 2, "hf:owner/name"),
        (["verify", "photos", "--flags", "--x 3"], 2, "leave the flags out"),
    ],
    ids=str,
)
def test_errors_are_one_sentence(shell: Shell, arguments: list[str], code: int, message: str) -> None:
    found, out, err = shell(*arguments)
    assert found == code and out == "" and message in err and len(err.splitlines()) == 1


def test_a_damaged_checkpoint_is_a_failure_and_not_a_traceback(shell: Shell, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:5000])
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html></html>")
    for file in ("cut.safetensors", "page.pt"):
        code, _, err = shell("verify", tmp_path / file)
        assert code == 1 and len(err.splitlines()) == 1 and file in err and "Traceback" not in err
