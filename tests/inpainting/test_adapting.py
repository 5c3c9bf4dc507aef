"""A picture's own prior in the main job: made once, kept, told, reproducible; and the command that makes one."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint import CancelToken, DenoiserPrior, Result, Stopped, UsageError, inpaint, load_prior, plan, schedules
from priorpaint.inpainting.adapting import cache_folder
from priorpaint.inpainting.events import Adapting, Event
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights
from priorpaint.training.adaptation import facts_in
from priorpaint.training.defaults import CROPS
from tests.command_line import exit_code, finish, start
from tests.training.conftest import draw_pictures

QUICK: dict[str, Any] = {"num_samples": 1, "steps": 2, "adapt": 16}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRIORPAINT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    """The file of a tiny network, whose output is not 0."""
    network = UNet(UNetConfig((8,), (1,), 8), seed=0)
    with torch.no_grad():
        network.tail.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    save_weights(tmp_path / "tiny.safetensors", network, WeightsMetadata(training={"verify": {"denoises": True}}))
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture of 40x40 pixels with a mask of 12x12 beside it."""
    photo = draw_pictures(tmp_path / "photos", count=1) / "00.png"
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[10:22, 10:22] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return photo


def mask_of(photo: Path) -> Path:
    return photo.parents[1] / "mask.png"


def pixels(result: Result) -> bytes:
    return result.images[0].tobytes()


def test_the_first_run_learns_and_the_next_ones_take_what_it_kept(photo: Path, prior: Path, cache: Path) -> None:
    events: list[Event] = []
    first = inpaint(photo, mask_of(photo), prior, on_event=events.append, **QUICK)
    learned = [event for event in events if isinstance(event, Adapting)]
    assert learned and learned[-1].crops == learned[-1].total == 16
    (kept,) = (cache / "adapted").iterdir()
    events.clear()
    second = inpaint(photo, mask_of(photo), prior, on_event=events.append, **QUICK)
    assert [event for event in events if isinstance(event, Adapting)] == [Adapting(16, 16, 0.0, kept)]
    assert pixels(first) == pixels(second) != pixels(inpaint(photo, mask_of(photo), prior, num_samples=1, steps=2))
    about = first.info["prior"]
    assert about["source"] == str(prior) and about["sha256"] == load_prior(kept).hash != load_prior(prior).hash
    assert about["adapted"]["prior_sha256"] == load_prior(prior).hash
    assert about["adapted"]["crops"] == first.info["call"]["adapt"] == 16
    assert (about["adapted"]["cached"], second.info["prior"]["adapted"]["cached"]) == (False, True)
    assert not first.warnings and not second.warnings


def test_a_run_is_reproduced_from_its_record(photo: Path, prior: Path, cache: Path, tmp_path: Path) -> None:
    first = inpaint(photo, mask_of(photo), prior, **QUICK)
    record = json.loads(json.dumps(first.info))
    for file in (cache / "adapted").iterdir():
        file.unlink()
    again = inpaint(record["image"]["path"], record["mask"]["path"], record["prior"]["source"], **record["call"])
    assert pixels(first) == pixels(again)
    assert again.info["prior"]["sha256"] == record["prior"]["sha256"]


def test_a_picture_s_own_prior_keeps_the_precision(photo: Path, prior: Path) -> None:
    made, kept, plain = (
        inpaint(photo, mask_of(photo), prior, precision=precision, **QUICK)
        for precision in ("bfloat16", "bfloat16", None)
    )
    assert made.info["prior"]["sha256"] == plain.info["prior"]["sha256"]
    assert kept.info["prior"]["adapted"]["cached"] and pixels(made) == pixels(kept) != pixels(plain)


def test_a_picture_that_differs_in_the_hole_alone_has_the_same_prior(photo: Path, prior: Path, cache: Path) -> None:
    values = np.asarray(Image.open(photo)).copy()
    first = plan(photo, mask_of(photo), prior, **QUICK)
    values[12:20, 12:20] = 255
    second = plan(values, mask_of(photo), prior, **QUICK)
    assert first.prior.hash == second.prior.hash
    assert second.info["prior"]["adapted"]["cached"] and len(list((cache / "adapted").iterdir())) == 1


def test_what_is_transparent_is_not_learned(photo: Path, prior: Path) -> None:
    alpha = np.full((40, 40), 255, dtype=np.uint8)
    alpha[30:, 30:] = 0
    plans = []
    for shade in (0, 200):
        values = np.asarray(Image.open(photo)).copy()
        values[30:, 30:] = shade
        picture = Image.fromarray(np.dstack([values, alpha]))
        plans.append(plan(picture, mask_of(photo), prior, **QUICK))
    assert plans[0].prior.hash == plans[1].prior.hash


def test_another_prior_mask_picture_or_number_of_crops_is_learned_anew(
    photo: Path, prior: Path, cache: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    save_weights(other, UNet(UNetConfig((8,), (1,), 8), seed=2), WeightsMetadata())
    turned = Image.open(photo).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    base: dict[str, Any] = {"image": photo, "mask": mask_of(photo), "prior": prior, **QUICK}
    for changed in ({}, {"prior": other}, {"image": turned}, {"grow": 1}, {"adapt": 32}):
        count = len(list((cache / "adapted").iterdir())) if cache.exists() else 0
        plan(**{**base, **changed})
        assert len(list((cache / "adapted").iterdir())) == count + 1


@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_damaged_file_of_the_cache_is_said_and_made_again(photo: Path, prior: Path, cache: Path, damage: str) -> None:
    first = plan(photo, mask_of(photo), prior, **QUICK)
    (kept,) = (cache / "adapted").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes({"cut": whole[:-100], "other": prior.read_bytes(), "empty": b""}[damage])
    second = plan(photo, mask_of(photo), prior, **QUICK)
    assert any("is made again" in warning for warning in second.warnings)
    assert second.prior.hash == first.prior.hash and kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_said_and_costs_nothing(
    photo: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRIORPAINT_CACHE", str(tmp_path / "file"))
    result = inpaint(photo, mask_of(photo), prior, **QUICK)
    assert any("not kept for later runs" in warning for warning in result.warnings)


def test_the_folder_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("PRIORPAINT_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "priorpaint"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "priorpaint"


def test_a_stopped_learning_keeps_nothing(photo: Path, prior: Path, cache: Path) -> None:
    token = CancelToken()

    def hear(event: Event) -> None:
        if isinstance(event, Adapting):
            token.cancel()

    with pytest.raises(Stopped, match="nothing is kept") as caught:
        inpaint(photo, mask_of(photo), prior, on_event=hear, cancel=token, **{**QUICK, "adapt": 64})
    assert caught.value.result is None and not cache.exists()


def test_what_cannot_be_meant_is_refused(photo: Path, prior: Path, cache: Path) -> None:
    for adapt in (0, -1, 1.5, "yes"):
        with pytest.raises(UsageError, match="adapt is"):
            plan(photo, mask_of(photo), prior, adapt=adapt)  # type: ignore[arg-type]
    function = DenoiserPrior(lambda x_t, t: x_t, schedules.EDM(), (3, None, None))
    with pytest.raises(UsageError, match="cannot be adapted"):
        plan(photo, mask_of(photo), function, adapt=True)
    with pytest.raises(UsageError, match="too small to learn from"):
        plan(photo, mask_of(photo), prior, boxes=[(0, 0, 40, 38)], **QUICK)
    assert not cache.exists()


def test_the_command_learns_once_and_says_so(
    photo: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for out, words in (("a", "Adapting the prior: 64 crops, about"), ("b", "has learned this picture before")):
        arguments = ["inpaint", photo, mask_of(photo), "--prior", prior, "-o", tmp_path / out]
        more = ["-n", 1, "--set", "steps=2", "--adapt-crops", 64, "--threads", 1]
        assert exit_code(monkeypatch, *arguments, *more) == 0
        assert words in capsys.readouterr().err
    one, two = ((tmp_path / out / "00_0.png").read_bytes() for out in ("a", "b"))
    assert one == two
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["call"]["adapt"] == 64 and record["prior"]["adapted"]["seed"] == 0


def test_a_preview_learns_nothing(
    photo: Path, prior: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["inpaint", photo, mask_of(photo), "--prior", prior, "-o", tmp_path, "--adapt", "--preview"]
    assert exit_code(monkeypatch, *words) == 0
    assert (tmp_path / "00_preview.png").exists() and not cache.exists()


def test_adapt_makes_a_prior_for_a_picture(
    photo: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own, small = tmp_path / "own", ["--crops", 16, "--threads", 1]
    arguments = ["adapt", photo, mask_of(photo), "-o", own, "--prior", prior, *small]
    assert exit_code(monkeypatch, *arguments) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(own / "weights.safetensors"), str(own / "adapted.json")]
    assert f"--prior {own}" in said.err
    record, loaded = json.loads((own / "adapted.json").read_text()), load_prior(own)
    assert record["sha256"] == loaded.hash and record["crops"] == 16 and record["pictures"] == [str(photo)]
    assert facts_in(loaded) is not None and loaded.hash == plan(photo, mask_of(photo), prior, **QUICK).prior.hash
    assert exit_code(monkeypatch, *arguments) == 2
    assert "exist already" in capsys.readouterr().err
    assert exit_code(monkeypatch, *arguments, "--overwrite", "--seed", 1) == 0
    assert load_prior(own).hash != record["sha256"]
    words = ["inpaint", photo, mask_of(photo), "--prior", own, "-n", 1, "--set", "steps=2", "-o", tmp_path / "out"]
    assert exit_code(monkeypatch, *words) == 0


def test_adapt_takes_a_folder_with_masks_or_without(
    prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, masks = draw_pictures(tmp_path / "some", count=2), tmp_path / "masks"
    masks.mkdir()
    hole = np.zeros((40, 40), dtype=np.uint8)
    hole[:8] = 255
    Image.fromarray(hole).save(masks / "00_mask.png")
    base = ["adapt", folder, "--prior", prior, "--crops", 16, "--threads", 1, "-o"]
    assert exit_code(monkeypatch, *base, tmp_path / "whole") == 0
    record = json.loads((tmp_path / "whole" / "adapted.json").read_text())
    assert record["masks"] == [None, None] and len(set(record["known_sha256"])) == 1
    capsys.readouterr()
    assert exit_code(monkeypatch, "adapt", folder, masks, *base[2:], tmp_path / "holes") == 2
    assert "there is no mask for 01.png" in capsys.readouterr().err
    Image.fromarray(hole.T).save(masks / "01.png")
    assert exit_code(monkeypatch, "adapt", folder, masks, *base[2:], tmp_path / "holes") == 0
    record = json.loads((tmp_path / "holes" / "adapted.json").read_text())
    assert record["masks"] == [str(masks / "00_mask.png"), str(masks / "01.png")]
    assert len(set(record["known_sha256"])) == 2
    Image.fromarray(hole).save(masks / "00.png")
    capsys.readouterr()
    assert exit_code(monkeypatch, "adapt", folder, masks, *base[2:], tmp_path / "two") == 2
    assert "more than one mask (00.png, 00_mask.png)" in capsys.readouterr().err


def test_adapt_takes_the_other_options_about_a_hole(
    photo: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ["adapt", photo, "--prior", prior, "--crops", 16, "--threads", 1, "-o", tmp_path / "box"]
    assert exit_code(monkeypatch, *base, "--box", "10,10,12,12") == 0
    assert load_prior(tmp_path / "box").hash == plan(photo, mask_of(photo), prior, **QUICK).prior.hash


def test_adapt_refuses_what_cannot_be_learned(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none").mkdir()
    for words, sentence in (
        ([tmp_path / "none"], "there is no picture in"),
        ([photo, tmp_path / "none"], "is one picture"),
        ([photo, "--prior", "avatars-latent"], "one of latents"),
        ([photo, "--box", "0,0,40,39"], "too small to learn from"),
    ):
        assert exit_code(monkeypatch, "adapt", *words, "-o", tmp_path / "own") == 2
        assert sentence in capsys.readouterr().err
        assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("words", [("adapt", "--crops"), ("inpaint", "--adapt-crops")])
def test_ctrl_c_says_that_nothing_is_kept(
    photo: Path, prior: Path, tmp_path: Path, cache: Path, words: tuple[str, str]
) -> None:
    command, option = words
    out = tmp_path / "own"
    process = start(command, photo, mask_of(photo), option, 1_000_000, "--prior", prior, "--threads", 1, "-o", out)
    try:
        assert process.stderr is not None
        assert "Adapting the prior: 1000000 crops" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        code, _, err = finish(process)
    finally:
        process.kill()
    assert code == 130 and "still learning, and nothing of it is kept" in err
    assert not cache.exists() and not out.exists()


def test_the_help_says_the_default(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(monkeypatch, "adapt", "--help") == 0
    assert f"Crops of 64x64 pixels to learn; default: {CROPS}." in " ".join(capsys.readouterr().out.split())
