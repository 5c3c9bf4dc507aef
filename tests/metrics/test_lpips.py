"""LPIPS: the published known answer, and what must hold for any weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from priorpaint.errors import PriorError, UsageError, run_module
from priorpaint.metrics import LPIPS
from priorpaint.metrics.lpips import for_lpips
from priorpaint.metrics.lpips_weights import app

ALEX = {"channels": (64, 192, 384, 256, 256), "kernels": (11, 5, 3, 3, 3)}


def load(path: Path) -> Tensor:
    pixels = np.array(Image.open(path).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.fixture
def random_alex(tmp_path: Path) -> Path:
    """AlexNet's shapes with seeded random weights and positive heads."""
    generator = torch.Generator().manual_seed(0)
    weights, before = {}, 3
    for i, (channels, kernel) in enumerate(zip(ALEX["channels"], ALEX["kernels"], strict=True)):
        scale = (before * kernel**2) ** -0.5
        weights[f"conv{i}.weight"] = scale * torch.randn(channels, before, kernel, kernel, generator=generator)
        weights[f"conv{i}.bias"] = 0.1 * torch.randn(channels, generator=generator)
        weights[f"lin{i}.weight"] = torch.rand(1, channels, 1, 1, generator=generator)
        before = channels
    path = tmp_path / "alex.safetensors"
    save_file(weights, path)
    return path


@pytest.mark.parametrize(
    ("file", "name", "far", "near"),
    [
        ("lpips_alex.safetensors", "AlexNet", 0.7219, 0.1376),
        ("lpips_vgg16_fp16.safetensors", "VGG16", 0.5686, 0.4217),
    ],
)
def test_known_answer(shared: Path, file: str, name: str, far: float, near: float) -> None:
    folder = shared / "data" / "lpips-weights"
    metric = LPIPS(folder / file)
    assert metric.name == name
    reference = load(folder / "ex_ref.png").expand(2, -1, -1, -1)
    distances = metric(reference, torch.cat([load(folder / "ex_p0.png"), load(folder / "ex_p1.png")]))
    assert distances.tolist() == pytest.approx([far, near], abs=1e-4)


def test_is_a_symmetric_distance_of_each_picture(random_alex: Path) -> None:
    metric = LPIPS(random_alex)
    a, b = torch.rand(2, 3, 3, 64, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    distances = metric(a, b)
    assert distances.shape == (3,) and bool((distances > 0).all())
    assert metric(b, a).tolist() == pytest.approx(distances.tolist(), rel=1e-5)
    assert metric(a[1:2], b[1:2]).tolist() == pytest.approx(distances[1:2].tolist(), rel=1e-4)
    assert metric(a, a).tolist() == [0.0, 0.0, 0.0]


def test_all_pairs_and_one_picture_for_all(random_alex: Path) -> None:
    metric = LPIPS(random_alex)
    x = torch.rand(4, 3, 64, 48, generator=torch.Generator().manual_seed(2)) * 2 - 1
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    expected = [float(metric(x[i : i + 1], x[j : j + 1])) for i, j in pairs]
    assert metric.pairwise(x).tolist() == pytest.approx(expected, rel=1e-4)
    assert metric(x[1:], x[:1]).tolist() == pytest.approx(expected[:3], rel=1e-4)
    with pytest.raises(UsageError, match="at least two"):
        metric.pairwise(x[:1])


def test_small_and_grey_pictures_are_enlarged_and_in_colour() -> None:
    x = torch.arange(32.0 * 40).reshape(1, 1, 32, 40)
    seen = for_lpips(x)
    assert seen.shape == (1, 3, 64, 80) and bool((seen[:, 1, ::2, 1::2] == x[:, 0]).all())
    large = torch.zeros(2, 3, 64, 200)
    assert for_lpips(large).shape == large.shape
    assert for_lpips(torch.zeros(1, 3, 28, 28)).shape == (1, 3, 84, 84)


def test_gradients_are_finite_where_features_vanish(random_alex: Path, tmp_path: Path) -> None:
    """With all biases far below zero every ReLU is silent, where a bare norm has no gradient."""
    from safetensors.torch import load_file

    weights = load_file(random_alex)
    silent = tmp_path / "silent.safetensors"
    save_file({k: v - 1000 if k.endswith("bias") else v for k, v in weights.items()}, silent)
    a = torch.zeros(1, 3, 64, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(LPIPS(silent)(a, torch.ones(1, 3, 64, 64)).sum(), a)
    assert bool(torch.isfinite(gradient).all())


def test_other_files_are_refused(tmp_path: Path, random_alex: Path) -> None:
    from safetensors.torch import load_file

    text = tmp_path / "page.safetensors"
    text.write_text("<html>not found</html>")
    partial = tmp_path / "partial.safetensors"
    save_file({k: v for k, v in load_file(random_alex).items() if k != "lin2.weight"}, partial)
    for path in (tmp_path / "absent.safetensors", text, partial):
        with pytest.raises(PriorError, match=path.name):
            LPIPS(path)


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 3, 16, 64), (3, 64, 64)])
def test_other_pictures_are_refused(random_alex: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        LPIPS(random_alex)(torch.zeros(shape), torch.zeros(shape))


# -- the converter -----------------------------------------------------------------------------------------------------


def vgg16() -> torch.nn.Sequential:
    """VGG16's `features` as torchvision numbers them, with 2, 3, 4, 5 and 6 channels."""
    layers: list[torch.nn.Module] = []
    before = 3
    for channels, count in ((2, 2), (3, 2), (4, 3), (5, 3), (6, 3)):
        for _ in range(count):
            layers += [torch.nn.Conv2d(before, channels, 3, padding=1), torch.nn.ReLU()]
            before = channels
        layers.append(torch.nn.MaxPool2d(2, 2))
    return torch.nn.Sequential(*layers)


def alexnet() -> torch.nn.Sequential:
    """AlexNet's `features` as torchvision numbers them, with 2 to 6 channels."""
    conv, relu, pool = torch.nn.Conv2d, torch.nn.ReLU, torch.nn.MaxPool2d
    return torch.nn.Sequential(
        conv(3, 2, 11, 4, 2), relu(), pool(3, 2), conv(2, 3, 5, padding=2), relu(), pool(3, 2),
        conv(3, 4, 3, padding=1), relu(), conv(4, 5, 3, padding=1), relu(), conv(5, 6, 3, padding=1), relu(),
    )  # fmt: skip


TAPS = {"AlexNet": (1, 4, 7, 9, 11), "VGG16": (3, 8, 15, 22, 29)}


def published(folder: Path, features: torch.nn.Sequential) -> tuple[Path, Path, list[Tensor]]:
    """The two files in their published layout, and the heads."""
    heads = [torch.rand(1, channels, 1, 1) for channels in range(2, 7)]
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    torch.save(state | {"classifier.1.weight": torch.zeros(2, 2)}, folder / "network.pth")
    torch.save({f"lin{i}.model.1.weight": head for i, head in enumerate(heads)}, folder / "heads.pth")
    return folder / "network.pth", folder / "heads.pth", heads


def command(monkeypatch: pytest.MonkeyPatch, *words: Path) -> object:
    """The exit code of ``python -m priorpaint.metrics.lpips_weights``."""
    monkeypatch.setattr(sys, "argv", ["lpips_weights", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        run_module(app, "priorpaint.metrics.lpips_weights")
    return end.value.code


@pytest.mark.parametrize(("name", "network"), [("AlexNet", alexnet), ("VGG16", vgg16)])
def test_published_files_are_converted(
    tmp_path: Path,
    name: str,
    network: Callable[[], torch.nn.Sequential],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The converted file gives what a direct evaluation of the published network and heads gives."""
    torch.manual_seed(0)
    features = network().requires_grad_(False)
    *files, heads = published(tmp_path, features)
    out = tmp_path / "out.safetensors"
    assert command(monkeypatch, *files, out) == 0 and capsys.readouterr().out == f"{out}: LPIPS with {name}\n"
    a, b = torch.rand(2, 2, 3, 64, 80) * 2 - 1
    shift, scale = (torch.tensor(c).view(3, 1, 1) for c in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    f, g, expected = (a - shift) / scale, (b - shift) / scale, torch.zeros(2)
    for i, layer in enumerate(features):
        f, g = layer(f), layer(g)
        if i in TAPS[name]:
            unit_f, unit_g = (h / (h.norm(dim=1, keepdim=True) + 1e-10) for h in (f, g))
            expected += ((unit_f - unit_g).square() * heads[TAPS[name].index(i)]).sum(1).mean((1, 2))
    assert LPIPS(out)(a, b).tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, heads, _ = published(tmp_path, alexnet())
    out, text = tmp_path / "out.safetensors", tmp_path / "page.pth"
    text.write_text("<html>not found</html>")
    wide = torch.load(heads, weights_only=True) | {"lin2.model.1.weight": torch.zeros(1, 7, 1, 1)}
    torch.save(wide, tmp_path / "wide.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for files in (
        (network, network), (heads, heads), (text, heads), (network, tmp_path / "absent.pth"),
        (network, tmp_path / "wide.pth"), (tmp_path / "list.pth", heads),
    ):  # fmt: skip
        assert command(monkeypatch, *files, out) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1 and not out.exists()
    assert command(monkeypatch, network, heads, tmp_path / "no" / "out.safetensors") == 1
    assert "cannot be written" in capsys.readouterr().err
