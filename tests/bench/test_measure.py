"""The second pass: what it finds of samples whose law is known, what it does again and what not, what it refuses."""

from __future__ import annotations

import json
import math
import warnings
import weakref
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from priorpaint.batch.store import Record
from priorpaint.bench.features import FEATURES, FeatureNetwork, set_distances
from priorpaint.bench.measure import MEASURES, check_metrics, measure, measured, read_cell
from priorpaint.bench.metrics import METRICS, Stored
from priorpaint.errors import Cancelled, CancelToken, PriorError, UsageError
from priorpaint.metrics import LPIPS, fair_crps, frechet_distance, kid, psnr, ssim
from tests.bench.stored import NOISE, line_of, lpips_file, make
from tests.command_line import exit_code


class Means(torch.nn.Module):
    """Three features: the mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


MEANS = FeatureNetwork("means", "means", Means())


def as_torchscript(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript, in later versions of torch
        torch.jit.save(torch.jit.trace(Means(), torch.zeros(1, 3, 32, 32)), str(path))


def as_exported(path: Path) -> None:
    shapes = ({0: torch.export.Dim("pictures")},)
    torch.export.save(torch.export.export(Means(), (torch.zeros(2, 3, 32, 32),), dynamic_shapes=shapes), path)


def test_samples_of_a_known_law(tmp_path: Path) -> None:
    """Over 3 x 512 hidden values of truths N(c, s^2): CRPS s / sqrt(pi), and calibrated; too sure and too wide are not.

    Bands of five standard deviations: a CRPS varies by less than s from value to value.
    """
    plan = make(tmp_path, pictures=2, samples=9)
    passed = measure(tmp_path, metrics=["crps", "calibration"])
    assert (passed.measured, passed.kept, passed.damaged, passed.left_out) == (6, 0, {}, {})
    lines = measured(tmp_path)
    right, sure, wide = (line_of(plan, lines, method) for method in ("right", "sure", "wide"))
    values = 3 * 32 * 16
    assert right["crps"] == pytest.approx(NOISE / math.sqrt(math.pi), abs=5 * NOISE / math.sqrt(values))
    assert right["cover90"] == pytest.approx(0.9, abs=5 * math.sqrt(0.09 / values))
    assert right["variance"] / right["squared_error"] == pytest.approx(1, abs=5 * math.sqrt(3 / values))
    assert sum(right["ranks"]) == pytest.approx(1) and len(right["ranks"]) == 10
    assert sure["cover90"] < 0.85 < 0.95 < wide["cover90"]
    assert min(sure["crps"], wide["crps"]) > right["crps"] and min(sure["energy"], wide["energy"]) > right["energy"]


def test_columns_are_those_of_the_metrics(tmp_path: Path) -> None:
    """Pasted under a mask, whole without one, of the mean and of singles, each as the plain functions have it."""
    plan = make(tmp_path, pictures=1, samples=3, operators=True)
    weights = lpips_file(tmp_path / "alex.safetensors")
    assert measure(tmp_path, lpips=weights).left_out.keys() == {"frechet", "kid"}
    lines, network = measured(tmp_path), LPIPS(weights)
    for case in plan.cells():
        if case.method.label != "wide":
            continue
        found = lines[case.key]["values"]
        stored = read_cell(tmp_path, {"key": case.key, "problem": case.problem.key})
        assert (stored.hidden is None) == (case.problem.condition.mask is None)
        x, truth = stored.raw, stored.truth[None].expand_as(stored.raw)
        hidden = torch.ones(1, 32, 32, dtype=torch.bool) if stored.hidden is None else stored.hidden
        pasted = torch.where(hidden, x, truth)
        assert found["psnr"] == pytest.approx(float(psnr(x, truth, hidden[None]).mean()))
        assert found["psnr_mean"] == pytest.approx(float(psnr(x.mean(0)[None], truth[:1], hidden[None])))
        assert found["ssim"] == pytest.approx(float(ssim(pasted, truth).mean()))
        assert found["crps"] == pytest.approx(float(fair_crps(x, truth[0])[hidden.expand_as(truth[0])].mean()))
        large = [v.repeat_interleave(2, -1).repeat_interleave(2, -2) for v in (pasted, truth, x)]
        distances = network(large[0], large[1])
        assert found["lpips"] == pytest.approx(float(distances.mean()), rel=1e-4)
        assert found["lpips_min"] == pytest.approx(float(distances.min()), rel=1e-4)
        assert found["lpips_max"] == pytest.approx(float(distances.max()), rel=1e-4)
        assert found["lpips_raw"] == pytest.approx(float(network(large[2], large[1]).mean()), rel=1e-4)
        assert found["diversity"] == pytest.approx(float(network.pairwise(large[0]).mean()), rel=1e-4)
        columns = {c.key for m in METRICS.values() if m.measure for c in m.columns} - {"variance_over_error"}
        assert columns <= found.keys()


def test_what_is_measured_is_not_measured_again(tmp_path: Path) -> None:
    make(tmp_path, pictures=2)
    token, seen = CancelToken(), []

    def stop_after_two(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            token.cancel()

    with pytest.raises(Cancelled):
        measure(tmp_path, metrics=["psnr"], report=stop_after_two, cancel=token)
    log = tmp_path / MEASURES
    assert seen == [(0, 6), (1, 6), (2, 6)] and len(log.read_text().splitlines()) == 3
    log.write_bytes(log.read_bytes()[:-20])  # a kill in the middle of the last line
    assert measure(tmp_path, metrics=["psnr"]).measured == 4
    assert measure(tmp_path, metrics=["psnr"]).measured == 0
    assert measure(tmp_path, metrics=["psnr", "ssim"]).measured == 6  # what is new
    assert {key for line in measured(tmp_path).values() for key in line["values"]} == {"psnr", "psnr_mean", "ssim"}


def test_one_cell_at_a_time_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a cell is read, at most the one before it is still there, however many pictures there are."""
    make(tmp_path, pictures=4)
    alive: weakref.WeakSet[Stored] = weakref.WeakSet()
    most = 0

    def watched(folder: Path, cell: Record) -> Stored:
        nonlocal most
        stored = read_cell(folder, cell)
        alive.add(stored)
        most = max(most, len(alive))
        return stored

    monkeypatch.setattr("priorpaint.bench.measure.read_cell", watched)
    assert measure(tmp_path).measured == 12
    assert most <= 2


def test_other_weights_are_measured_anew(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    plan = make(tmp_path, pictures=1)
    weights = lpips_file(tmp_path / "alex.safetensors")
    measure(tmp_path, metrics=["lpips"], lpips=weights)
    first = line_of(plan, measured(tmp_path), "wide")["lpips"]
    save_file(
        {k: 2 * v if k.startswith("lin") else v for k, v in load_file(weights).items()}, tmp_path / "b.safetensors"
    )
    assert measure(tmp_path, metrics=["lpips"], lpips=weights).measured == 0
    assert measure(tmp_path, metrics=["lpips"], lpips=tmp_path / "b.safetensors").measured == 3
    assert line_of(plan, measured(tmp_path), "wide")["lpips"] == pytest.approx(2 * first, rel=1e-4)


@pytest.mark.parametrize(("name", "write"), [("means.pt", as_torchscript), ("means.pt2", as_exported)])
def test_features_of_a_file_and_of_a_function_are_the_same(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    make(tmp_path / "bench", pictures=2)
    write(tmp_path / name)
    measure(tmp_path / "bench", metrics=["kid"], features=tmp_path / name)
    measure(tmp_path / "bench", metrics=["frechet"], features=MEANS)
    folders = sorted((tmp_path / "bench" / FEATURES).iterdir())
    assert len(folders) == 2
    for one in folders[0].iterdir():
        assert np.allclose(np.load(one), np.load(folders[1] / one.name), atol=1e-6)
    assert sorted(len(np.load(file)) for file in folders[0].iterdir()) == [1] * 2 + [6] * 6


def test_distances_between_sets_of_features(tmp_path: Path) -> None:
    """One block: the plain distances, without pairs of one picture; more blocks: their mean. Two cells a picture."""
    generator = torch.Generator().manual_seed(0)
    rows, truths = torch.randn(200, 2, 3, 4, generator=generator), torch.randn(200, 1, 4, generator=generator)
    pictures = []
    for i in range(200):
        np.save(tmp_path / f"{i}.npy", truths[i].numpy())
        for seed in (0, 1):
            np.save(tmp_path / f"{i}-{seed}.npy", rows[i, seed].numpy())
        pictures.append([(tmp_path / f"{i}-{seed}.npy", tmp_path / f"{i}.npy") for seed in (0, 1)])

    def plain(first: int, last: int) -> float:
        groups = torch.arange(last - first)
        twice = truths[first:last, 0].repeat_interleave(2, 0)
        return kid(rows[first:last].flatten(0, 2), twice, groups.repeat_interleave(6), groups.repeat_interleave(2))

    few = set_distances(pictures[:20])
    assert few is not None and few.kid_error is None and few.pictures == 20
    assert few.kid == pytest.approx(plain(0, 20))
    twice = truths[:20, 0].repeat_interleave(2, 0)
    assert few.frechet == pytest.approx(frechet_distance(rows[:20].flatten(0, 2), twice))
    many = set_distances(pictures)
    assert many is not None and many.kid_error is not None
    halves = [plain(0, 100), plain(100, 200)]
    assert many.kid == pytest.approx(sum(halves) / 2)
    assert many.kid_error == pytest.approx(abs(halves[0] - halves[1]) / 2)
    assert set_distances(pictures[:1]) is None


def test_damaged_samples_are_listed_and_the_rest_is_measured(tmp_path: Path) -> None:
    plan = make(tmp_path, pictures=2)
    keys = [case.key for case in plan.cells()]
    (tmp_path / "cells" / keys[1] / "samples.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "cells" / keys[4] / "samples.npy").unlink()
    passed = measure(tmp_path, metrics=["psnr"])
    assert passed.measured == 4 and passed.damaged.keys() == {keys[1], keys[4]}
    assert all("cannot be read" in reason for reason in passed.damaged.values())


def test_equal_pictures_have_no_number_instead_of_infinity(tmp_path: Path) -> None:
    plan = make(tmp_path, pictures=1)
    case = next(iter(plan.cells()))
    stored = read_cell(tmp_path, {"key": case.key, "problem": case.problem.key})
    np.save(tmp_path / "cells" / case.key / "samples.npy", stored.truth[None].expand(6, -1, -1, -1).numpy())
    measure(tmp_path, metrics=["psnr", "crps"])
    found = measured(tmp_path)[case.key]["values"]
    assert found["psnr"] is None and found["crps"] == 0


def test_what_is_refused_before_any_work(tmp_path: Path) -> None:
    make(tmp_path, pictures=1)
    make(tmp_path / "single", pictures=1, samples=1)
    make(tmp_path / "tiny", pictures=1, shape=(3, 8, 8))
    for name in ("text.pt", "text.pt2"):
        (tmp_path / name).write_text("no network")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as file:
        file.writestr("a", "no network")
    refusals: list[tuple[Path, dict[str, object], type[Exception], str]] = [
        (tmp_path / "none", {}, UsageError, "no benchmark in"),
        (tmp_path, {"metrics": ["lpps"]}, UsageError, "no metric 'lpps'; the metrics are lpips, psnr"),
        (tmp_path, {"metrics": ["diversity"]}, UsageError, "priorpaint.metrics.lpips_weights"),
        (tmp_path, {"metrics": ["kid"]}, UsageError, "--features"),
        (tmp_path, {"lpips": tmp_path / "alex.safetensors"}, PriorError, "no file .*priorpaint.metrics.lpips_weights"),
        (tmp_path, {"features": tmp_path / "net.pt"}, PriorError, "no file .*TorchScript"),
        (tmp_path, {"features": tmp_path / "text.pt"}, PriorError, "not a TorchScript file"),
        (tmp_path, {"features": tmp_path / "zip.pt"}, PriorError, "not a TorchScript file"),
        (tmp_path, {"features": tmp_path / "text.pt2"}, PriorError, "not a file of torch.export"),
        (tmp_path / "single", {"metrics": ["crps"]}, UsageError, "at least two samples"),
        (tmp_path / "tiny", {"metrics": ["ssim"]}, UsageError, "at least 11 x 11"),
    ]
    for folder, arguments, kind, said in refusals:
        with pytest.raises(kind, match=said):
            measure(folder, **arguments)  # type: ignore[arg-type]
        assert not (folder / MEASURES).exists()


def test_a_network_that_does_not_fit_the_pictures_says_so(tmp_path: Path) -> None:
    plan = make(tmp_path, pictures=1)
    for function, said in (
        (lambda x: x, "must map pictures"),
        (lambda x: torch.zeros(1, 1).matmul(x.flatten(1)), "has no features of pictures"),
    ):
        network = FeatureNetwork("wrong", "wrong", function)
        with pytest.raises(UsageError, match=said):
            measure(tmp_path, metrics=["kid"], features=network)
        with pytest.raises(UsageError, match=said):
            check_metrics(plan, features=network)
        assert not (tmp_path / MEASURES).exists()


def test_the_classifier_of_garments_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the command line; it takes grey pictures, which is said before any work."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    (tmp_path / "grid.toml").write_text(
        'masks = ["half"]\nmethods = ["ddnm:steps=2"]\nmetrics = ["kid"]\nsamples = 2\n'
    )
    words = [
        "bench",
        "grid.toml",
        "--images",
        "pictures",
        "--features",
        "fashion",
        "--settings",
        "default",
        "-o",
        "out",
    ]
    assert exit_code(monkeypatch, *words, "--prior", "avatars") == 2
    assert "fashion-classifier has no features of pictures (3, 32, 32)" in capsys.readouterr().err
    assert exit_code(monkeypatch, *words, "--prior", "fashion") == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Measured with fashion-classifier " in text and "| method | KID |" in text


def test_lines_are_plain_json(tmp_path: Path) -> None:
    make(tmp_path, pictures=1)
    measure(tmp_path)
    for text in (tmp_path / MEASURES).read_text().splitlines():
        line = json.loads(text)
        assert line.keys() == {"key", "values", "made_with"}
        assert set(line["made_with"]) == {"psnr", "ssim", "crps", "calibration"}
