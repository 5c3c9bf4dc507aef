"""The command line as a user meets it: real processes, real files, exit codes, Ctrl-C.

What needs no process of its own goes through `main()` in this one.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import priorpaint
from priorpaint.cli import main
from priorpaint.imaging.writing import FORMATS
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights
from tests.command_line import exit_code, finish, start

FAST = ["--method", "replacement", "--set", "steps=3", "--threads", "1"]
OUTPUTS = ["mean.png", "uncertainty.png", "uncertainty.npy", "sheet.png"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (48, 65, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def hole(size: tuple[int, int] = (65, 48)) -> np.ndarray:
    mask = np.zeros(size[::-1], dtype=np.uint8)
    mask[10:25, 20:44] = 255
    return mask


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    Image.fromarray(hole()).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def raw(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_file_in_place_of_the_folder_is_known_by_every_suffix_that_can_be_written() -> None:
    assert tuple(FORMATS) == (*sys.modules["priorpaint.cli.running"].PICTURE_SUFFIXES, ".npy")


def test_a_run_its_files_its_protection_and_its_reproduction(
    photo: Path, mask: Path, prior: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    arguments = ["inpaint", photo, mask, "-o", out, "--prior", prior, "--samples", "2", "--seed", "3", *FAST]
    code, stdout, stderr = finish(start(*arguments))
    assert code == 0, stderr
    names = ["photo_0.png", "photo_1.png", *(f"photo_{name}" for name in OUTPUTS), "run.json"]
    assert stdout.split() == [str(out / name) for name in names]
    assert sorted(snapshot(out)) == sorted(names)
    assert "2 of 2 completions" in stderr and "\x1b" not in stderr and "Traceback" not in stderr
    info = json.loads((out / "run.json").read_text())

    # Bit-identical known pixels, and the same samples again from run.json through the Python API.
    for k in range(2):
        assert np.array_equal(raw(out / f"photo_{k}.png")[hole() == 0], raw(photo)[hole() == 0])
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(info["machine"]["threads"])
    again = priorpaint.inpaint(info["image"]["path"], info["mask"]["path"], info["prior"]["source"], **info["call"])
    torch.set_num_threads(torch_threads)
    for k, image in enumerate(again.images):
        assert np.array_equal(raw(out / f"photo_{k}.png"), np.array(image))
    assert again.info["prior"]["sha256"] == info["prior"]["sha256"]

    # A second run touches nothing unless it is told to.
    before = snapshot(out)
    code, stdout, stderr = finish(start(*arguments))
    assert code == 2 and stdout == "" and "exist already" in stderr and "--overwrite" in stderr
    assert snapshot(out) == before
    code, stdout, stderr = finish(start(*arguments, "--seed", "4", "--overwrite", "--json", "--quiet"))
    assert code == 0 and all("untrained" in line for line in stderr.splitlines()), stderr
    assert json.loads(stdout)["call"]["seed"] == 4
    assert snapshot(out)["photo_0.png"] != before["photo_0.png"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8000, 5000), (16, 16)])
def test_pictures_from_16x16_to_40_megapixels(size: tuple[int, int], tmp_path: Path) -> None:
    """With the embedded prior: only the boxes change, and the process needs less than 3 GB."""
    width, height = size
    few = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    Image.fromarray(few).resize(size, Image.Resampling.BICUBIC).save(tmp_path / "photo.png", compress_level=1)
    boxes = ["--box", "3,5,8,6", "--box", f"{width - 6},4,5,5"]
    process = start("inpaint", tmp_path / "photo.png", *boxes, "-o", tmp_path / "out", "-n", "1", "--threads", "1")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    code, _, stderr = finish(process)
    assert code == 0, stderr
    assert usage.ru_maxrss < 3e6  # kB
    known = np.ones((height, width), dtype=bool)
    known[5:11, 3:11] = known[4:9, width - 6 : width - 1] = False
    filled, photo = raw(tmp_path / "out" / "photo_0.png"), raw(tmp_path / "photo.png")
    assert np.array_equal(filled[known], photo[known]) and not np.array_equal(filled, photo)


def test_ctrl_c_keeps_finished_samples_and_exits_130(photo: Path, mask: Path, prior: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = ["inpaint", photo, mask, "-o", out, "--prior", prior, "--method", "replacement", "--threads", "1"]
    process = start(*run, "--set", "steps=150", "--samples", "500", "--batch-size", "1")
    assert process.stderr is not None
    for line in process.stderr:
        if " 2 of 500 completions" in line:
            break
    process.send_signal(signal.SIGINT)
    code, stdout, stderr = finish(process)
    assert code == 130, stderr
    said = re.search(r"Stopped: (\d+) of 500 completions are finished and in", stderr)
    assert said is not None and "Traceback" not in stderr
    kept = int(said[1])
    assert 2 <= kept < 500
    files = snapshot(out)
    assert sorted(name for name in files if re.fullmatch(r"photo_\d+\.png", name)) == sorted(
        f"photo_{k}.png" for k in range(kept)
    )
    assert not [name for name in files if name.endswith(".part")]
    info = json.loads(files["run.json"])
    assert info["finished_samples"] == kept and info["call"]["num_samples"] == 500
    assert str(out / "photo_1.png") in stdout.split()
    one = priorpaint.inpaint(
        photo, mask, prior, "replacement", steps=150, num_samples=1, seed=info["sample_seeds"][1:2], batch_size=1
    )
    assert np.abs(np.array(one.images[0]).astype(int) - raw(out / "photo_1.png").astype(int)).max() <= 1


def test_errors_are_one_sentence_and_an_exit_code(photo: Path, mask: Path, prior: Path, tmp_path: Path) -> None:
    Image.new("L", (65, 48), 0).save(tmp_path / "black.png")
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    cases: list[tuple[list[str | Path], int, str]] = [
        ([photo, tmp_path / "black.png", "--prior", prior], 2, "nothing to repaint"),
        ([photo, mask, "--prior", tmp_path / "broken.safetensors"], 1, "is not a checkpoint"),
    ]
    out = tmp_path / "out"
    running = [start("inpaint", *case[0], "-o", out) for case in cases]
    for process, (_, expected, message) in zip(running, cases, strict=True):
        code, stdout, stderr = finish(process)
        assert (code, stdout) == (expected, ""), stderr
        assert stderr.startswith("priorpaint: ") and message in stderr and len(stderr.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{tmp}/gone.png", "{mask}"], 2, "gone.png does not exist"),
        (["{photo}", "{tmp}/gone.png"], 2, "gone.png does not exist"),
        (["{photo}"], 2, "--box X,Y,W,H or --mask-from-alpha"),
        (["{photo}", "--mask-from-alpha"], 2, "no transparency"),
        (["{photo}", "{mask}", "--mask-from-alpha"], 2, "leave one of them out"),
        (["{photo}", "--box", "1,2,3"], 2, "x,y,width,height"),
        (["{photo}", "--box", "60,1,10,10"], 2, "outside the picture"),
        (["{photo}", "{small}"], 2, "64x48 but the picture is 65x48"),
        (["{photo}", "{turned}"], 2, r"48x65 but the picture is 65x48; make the mask 65x48 \(turn it\)"),
        (["{photo}", "{white}"], 2, "nothing is known"),
        (
            ["{photo}", "{mask}", "-o", "x" * 300],
            2,
            r"the path x{40}\.\.\.x{40} \(300 bytes\) is longer than the system allows",
        ),
        (["{photo}", "--box", "1,1,9,9", "--mask-means", "keep"], 2, "--mask-means is about a mask file"),
        (["{photo}", "{mask}", "--threads", "100000"], 2, "threads"),
        (["{photo}", "{mask}", "--set", "speed=3"], 2, "its settings are steps"),
        (["{photo}", "{mask}", "--mask-means", "black"], 2, "'repaint' or 'keep'"),
        (["{photo}", "{mask}", "--method", "magic"], 2, "the methods are"),
        (["{photo}", "{mask}", "--set", "steps"], 2, "KEY=VALUE"),
        (["{photo}", "{mask}", "--set", "steps=many"], 2, "steps = 'many'"),
        (["{photo}", "{mask}", "--set", "seed=1"], 2, "no setting 'seed'"),
        (["{photo}", "{mask}", "--set", "steps=[3"], 2, "a list is written like"),
        (["{tmp}/gone.png", "{mask}", "--set", "speed=3"], 2, "its settings are steps"),
        (["{photo}", "{mask}", "--prior", "magic"], 2, "no prior and no file"),
        (["{photo}", "{mask}", "--prior", "hf:owner/name", "--offline"], 1, "not in the cache"),
        (["{photo}", "{mask}", "--format", "gif"], 2, "png, jpg, webp, tiff, npy or same"),
        (["{photo}", "{mask}", "-o", "{tmp}/result.png"], 2, "-o takes a folder"),
        (["{photo}", "{mask}", "-o", "{mask}"], 2, "-o takes a folder|is a file"),
        (["{photo}", "{mask}", "--samples", "0"], 2, "samples"),
        (["{photo}", "{mask}", "--nonsense"], 2, "No such option"),
        (["{photo}", "{mask}", "--device", "nonsense"], 2, "cannot use the device"),
    ],
)
def test_wrong_use(
    arguments: list[str],
    code: int,
    message: str,
    photo: Path,
    mask: Path,
    prior: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    masks = {name: tmp_path / f"{name}.png" for name in ("small", "white", "turned")}
    Image.fromarray(hole((48, 65))).save(masks["turned"])
    Image.fromarray(hole((64, 48))).save(masks["small"])
    Image.new("L", (65, 48), 255).save(masks["white"])
    filled = [text.format(tmp=tmp_path, photo=photo, mask=mask, **masks) for text in arguments]
    usual = [] if "--prior" in filled else ["--prior", str(prior)]
    usual += [] if "-o" in filled else ["-o", str(tmp_path / "out")]
    assert exit_code(monkeypatch, "inpaint", *filled, *usual) == code
    printed = capsys.readouterr()
    assert re.search(message, printed.err) and printed.out == "" and "Traceback" not in printed.err
    assert not (tmp_path / "out").exists()


def test_a_mask_the_wrong_way_round_is_told_before_the_work(
    photo: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.full((48, 65), 255, np.uint8)
    pixels[:4] = 0
    Image.fromarray(pixels).save(tmp_path / "inverted.png")
    arguments = ["inpaint", photo, tmp_path / "inverted.png", "-o", tmp_path / "out", "--prior", prior, "-n", "1"]
    assert exit_code(monkeypatch, *map(str, arguments), "--set", "steps=2", "--format", "JPEG") == 0
    told = capsys.readouterr().err
    assert told.count("is it inverted?") == 1 and told.index("is it inverted?") < told.index("1 of 1 completions")
    assert (tmp_path / "out" / f"{photo.stem}_0.jpg").is_file()


def test_an_unexpected_error_is_a_sentence_unless_debugging(
    photo: Path, mask: Path, prior: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("priorpaint.inpainting.api.plan", fail)
    arguments = ["inpaint", photo, mask, "-o", photo.parent / "out", "--prior", prior]
    assert exit_code(monkeypatch, *arguments) == 1
    assert "priorpaint: ZeroDivisionError: a bug (run again with --debug" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["priorpaint", *map(str, arguments), "--debug"])
    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.parametrize(("mode", "size"), [("RGB", (17, 16)), ("RGBA", (333, 257)), ("L", (64, 33)), ("P", (40, 40))])
def test_modes_and_odd_sizes(
    mode: str, size: tuple[int, int], prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(values, "RGBA")
    image = image if mode == "RGBA" else image.convert("RGB").quantize(32) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "in.png")
    run = ["inpaint", tmp_path / "in.png", "-o", tmp_path / "out", "--prior", prior, "-n", "2", "--quiet", *FAST]
    assert exit_code(monkeypatch, *run, "--box", "2,3,5,6", "--box", f"{size[0] - 4},{size[1] - 3},4,3") == 0
    known = np.ones(size[::-1], dtype=bool)
    known[3:9, 2:7] = known[-3:, -4:] = False
    with Image.open(tmp_path / "out" / "in_0.png") as filled:
        assert (filled.mode, filled.size) == (mode, size)
        assert np.array_equal(np.array(filled)[known], np.array(image)[known])
        assert not np.array_equal(np.array(filled)[~known], np.array(image)[~known])
    deviation = np.load(tmp_path / "out" / "in_uncertainty.npy")
    assert deviation.shape == size[::-1]


def test_keep_polarity_and_alpha_masks(
    photo: Path, mask: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(255 - hole()).save(tmp_path / "keep.png")
    image = Image.open(photo).convert("RGBA")
    image.putalpha(Image.fromarray(255 - hole()))
    image.save(tmp_path / "cut.png")
    run = ["--prior", prior, "-n", "1", "--quiet", *FAST]
    assert exit_code(monkeypatch, "inpaint", photo, mask, "-o", tmp_path / "a", *run) == 0
    keep = ["--mask-means", "keep"]
    assert exit_code(monkeypatch, "inpaint", photo, tmp_path / "keep.png", "-o", tmp_path / "b", *keep, *run) == 0
    assert exit_code(monkeypatch, "inpaint", tmp_path / "cut.png", "--mask-from-alpha", "-o", tmp_path / "c", *run) == 0
    assert (tmp_path / "a" / "photo_0.png").read_bytes() == (tmp_path / "b" / "photo_0.png").read_bytes()
    filled = raw(tmp_path / "c" / "cut_0.png")
    assert (filled[..., 3] == 255).all()
    assert np.array_equal(filled[..., :3], raw(tmp_path / "a" / "photo_0.png"))


def test_jpeg_says_what_it_cannot_keep_and_warnings_are_shown(
    photo: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soft = hole()
    soft[5:8] = 100
    Image.fromarray(soft).save(tmp_path / "soft.png")
    run = ["inpaint", photo, tmp_path / "soft.png", "-o", tmp_path / "out", "--prior", prior, "-n", "1", *FAST]
    assert exit_code(monkeypatch, *run, "--format", "jpg") == 0
    printed = capsys.readouterr()
    assert "JPEG cannot keep the known pixels bit-identical" in printed.err
    assert "Warning: " in printed.err and "grey" in printed.err
    assert (tmp_path / "out" / "photo_0.jpg").is_file()


def test_methods_and_priors_are_listed(
    prior: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, "methods") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(priorpaint.SOLVERS)
    assert all(cls.about in line for line, (_, cls) in zip(lines, sorted(priorpaint.SOLVERS.items()), strict=True))
    for name in priorpaint.SOLVERS:
        assert exit_code(monkeypatch, "methods", name) == 0
        shown = capsys.readouterr().out
        assert all(f"    {setting} = " in shown for setting in priorpaint.solvers.explain(priorpaint.SOLVERS[name]))
    assert exit_code(monkeypatch, "methods", "magic") == 2
    assert "the methods are" in capsys.readouterr().err
    assert exit_code(monkeypatch, "priors") == 0
    assert capsys.readouterr().out.startswith("photos  ")
    assert exit_code(monkeypatch, "priors", prior) == 0
    assert "sha256" in capsys.readouterr().out


def test_version_and_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, stdout, _ = finish(start("--version"))
    assert (code, stdout) == (0, f"priorpaint {priorpaint.__version__}\n")
    assert exit_code(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("inpaint", "methods", "priors", "train"))


def test_restore_takes_an_operator_with_its_settings(
    photo: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["restore", photo, "--prior", prior, "-n", "2", "--threads", "1", "--set", "steps=3", "--format", "jpg"]
    double = ["--operator", "downsampling", "--set-operator", "factor=2", "--set-operator", "kind=box"]
    assert exit_code(monkeypatch, *run, *double, "-o", tmp_path / "a") == 0
    printed = capsys.readouterr()
    assert printed.out.split()[0] == str(tmp_path / "a" / "photo_0.jpg") and "bit-identical" not in printed.err
    assert raw(tmp_path / "a" / "photo_1.jpg").shape == (96, 130, 3)
    kernel = ["--operator", "blur", "--set-operator", "kernel=[[1, 1], [1, 1]]", "--noise", "0.1"]
    assert exit_code(monkeypatch, *run, *kernel, "-o", tmp_path / "b", "--json") == 0
    call = json.loads(capsys.readouterr().out)["call"]
    assert (call["method"], call["sigma_y"], call["operator"]) == ("diffpir", 0.1, "blur")
    assert call["operator_settings"]["kernel"] == [[0.25, 0.25], [0.25, 0.25]]
    for words, message in (
        (["--operator", "magic"], "`priorpaint operators`"),
        (
            ["--operator", "downsampling", "--set-operator", "factor"],
            "--set-operator takes KEY=VALUE, such as factor=2",
        ),
        (["--operator", "downsampling", "--set", "sigma_y=1"], "no setting 'sigma_y'"),
        (["--operator", "grayscale"], "has 1 channel"),
    ):
        assert exit_code(monkeypatch, *run, *words, "-o", tmp_path / "c") == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_results_that_exist_are_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "gone_1.png").write_bytes(b"")
    arguments = ["inpaint", "gone.png", "--box", "1,2,3,4", "--prior", "gone", "-o", tmp_path / "out"]
    assert exit_code(monkeypatch, *arguments) == 2
    assert "gone_1.png exists already" in capsys.readouterr().err
    assert exit_code(monkeypatch, *arguments, "-n", "1") == 2
    assert "gone.png does not exist" in capsys.readouterr().err


def test_operators_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(monkeypatch, "operators") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(priorpaint.OPERATORS)
    assert any(line.startswith("downsampling ") and line.endswith("settings: factor, kind") for line in lines)


def class_prior(path: Path) -> Path:
    network = UNet(UNetConfig((8, 8), (1, 1), 8, classes=2), seed=0)
    with torch.no_grad():
        for weight in (network.tail.weight, *(p for name, p in network.named_parameters() if "film.weight" in name)):
            weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    save_weights(path, network, WeightsMetadata(size=(32, 32), class_names=("cats", "dogs")))
    return path


def test_labels_at_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 48, 3), 120, dtype=np.uint8)).save(tmp_path / "a.png")
    model = class_prior(tmp_path / "pets.safetensors")
    common = ["inpaint", tmp_path / "a.png", "--box", "16,16,8,8", "--prior", model, "-n", "1", *FAST]
    pictures = []
    for i, words in enumerate((["--label", "0"], ["--label", "1"], ["--label", "1", "--guidance", "3"])):
        out = tmp_path / str(i)
        assert exit_code(monkeypatch, *common, "-o", out, *words) == 0
        pictures.append(np.asarray(Image.open(out / "a_0.png")).astype(int))
        info = json.loads((out / "run.json").read_text())
        assert str(info["call"]["label"]) == words[1] and info["prior"]["condition"]["label"] == int(words[1])
        assert info["call"]["guidance_scale"] == (3.0 if i == 2 else 1.0)
        assert info["nfe"]["forward"] == 3 * (2 if i == 2 else 1)  # one window of 32x32
    assert all(np.abs(pictures[a] - pictures[b]).max() > 0 for a, b in ((0, 1), (1, 2)))
    assert exit_code(monkeypatch, *common, "-o", tmp_path / "r", "--fit", "resize") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--label", "1"], "knows no classes"),
        (["--prompt", "an owl"], "takes no text"),
        (["--guidance", "3"], "give a label or a prompt"),
        (["--negative-prompt", "fog"], "add --guidance"),
        (["--fit", "resize"], "any size"),
    ],
)
def test_conditions_that_a_prior_does_not_take(
    prior: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    Image.fromarray(np.full((40, 48, 3), 120, dtype=np.uint8)).save(tmp_path / "a.png")
    common = ["inpaint", tmp_path / "a.png", "--box", "8,8,24,20", "--prior", prior, "-o", tmp_path / "out", *FAST]
    assert exit_code(monkeypatch, *common, *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    ["certify", "inpaint", "methods", "priors add", "priors info", "priors verify", "restore", "theory", "train"],
)
def test_options_take_words_of_the_field_and_no_types_of_python(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, *command.split(), "--help") == 0
    options = capsys.readouterr().out.partition("Options:")[2]
    assert "--help" in options
    assert re.findall(r"<\w+>|\b(?:INTEGER|FLOAT|TEXT|STR|BOOLEAN)\b", options) == []


def test_the_help_of_certify_names_the_default_number_of_samples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from priorpaint.lab.certify.pictures.run import SAMPLES
    from priorpaint.lab.certify.run import NUM_SAMPLES

    assert exit_code(monkeypatch, "certify", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Samples per draw; default: {NUM_SAMPLES} (pictures: {SAMPLES})." in shown
