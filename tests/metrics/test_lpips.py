"""LPIPS: the published known answer, and what must hold for any weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from priorpaint.errors import PriorError, UsageError
from priorpaint.metrics import LPIPS

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
