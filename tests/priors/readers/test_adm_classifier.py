"""Classifiers of guided-diffusion: the published layout, written down here again with a forward pass of its own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import priorpaint
from priorpaint import DenoiserPrior, Prior, PriorpaintError, UsageError, solver
from priorpaint.diffusion.schedules import EDM, VP, Flow, Schedule
from priorpaint.errors import CheckpointError
from priorpaint.priors.classifier_guidance import ClassifierGuidedPrior
from priorpaint.priors.networks.adm import ADMConfig, Heads
from priorpaint.priors.readers.adm_classifier import load_classifier
from tests.priors.readers.small_files import damaged, images
from tests.priors.readers.test_adm import read, write

SIDE, WIDTHS, BLOCKS, CLASSES, MODEL = 16, (64, 64, 128), 2, 5, 64
ATTENDED = (1, 2)  # levels


def layout(side: int = SIDE, classes: int = CLASSES) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a small classifier as the program saves it, of three levels of two blocks."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

    def block(name: str, channels: int, out: int) -> None:
        layer(f"{name}.in_layers.0", channels)
        layer(f"{name}.in_layers.2", out, channels, 3, 3)
        layer(f"{name}.emb_layers.1", 2 * out, 4 * MODEL)
        layer(f"{name}.out_layers.0", out)
        layer(f"{name}.out_layers.3", out, out, 3, 3)
        if channels != out:
            layer(f"{name}.skip_connection", out, channels, 1, 1)

    def attention(name: str, channels: int) -> None:
        layer(f"{name}.norm", channels)
        layer(f"{name}.qkv", 3 * channels, channels, 1)
        layer(f"{name}.proj_out", channels, channels, 1)

    layer("time_embed.0", 4 * MODEL, MODEL)
    layer("time_embed.2", 4 * MODEL, 4 * MODEL)
    layer("input_blocks.0.0", WIDTHS[0], 3, 3, 3)
    channels, index = WIDTHS[0], 1
    for level, width in enumerate(WIDTHS):
        for _ in range(BLOCKS):
            block(f"input_blocks.{index}.0", channels, width)
            if level in ATTENDED:
                attention(f"input_blocks.{index}.1", width)
            channels, index = width, index + 1
        if level < len(WIDTHS) - 1:
            block(f"input_blocks.{index}.0", channels, channels)
            index += 1
    block("middle_block.0", channels, channels)
    attention("middle_block.1", channels)
    block("middle_block.2", channels, channels)
    layer("out.0", channels)
    shapes["out.2.positional_embedding"] = (channels, (side // 4) ** 2 + 1)
    layer("out.2.qkv_proj", 3 * channels, channels, 1)
    layer("out.2.c_proj", classes, channels, 1)
    return shapes


def weights(side: int = SIDE, classes: int = CLASSES) -> dict[str, Tensor]:
    """Drawn so that none is without influence."""
    generator = torch.Generator().manual_seed(0)
    out = {}
    for name, shape in layout(side, classes).items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            out[name] = noise / math.sqrt(math.prod(shape[1:]))
        else:
            out[name] = 0.2 * noise + (1 if name.endswith("weight") else 0)
    return out


def reference(w: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
    """Logits (N, K), in functions of torch and einsum alone."""

    def norm(name: str, h: Tensor) -> Tensor:
        return F.group_norm(h, 32, w[f"{name}.weight"], w[f"{name}.bias"])

    def conv(name: str, h: Tensor) -> Tensor:
        return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], padding=w[f"{name}.weight"].shape[-1] // 2)

    def linear(name: str, h: Tensor) -> Tensor:
        return F.linear(h, w[f"{name}.weight"].flatten(1), w[f"{name}.bias"])

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (N, L, 64) each
        return torch.einsum("nij,njc->nic", torch.softmax(torch.einsum("nic,njc->nij", q, k) / 8, -1), v)

    def block(name: str, h: Tensor, down: bool = False) -> Tensor:
        inner = F.silu(norm(f"{name}.in_layers.0", h))
        h, inner = (F.avg_pool2d(part, 2) for part in (h, inner)) if down else (h, inner)
        inner = conv(f"{name}.in_layers.2", inner)
        scale, shift = linear(f"{name}.emb_layers.1", F.silu(embedding))[:, :, None, None].chunk(2, 1)
        inner = norm(f"{name}.out_layers.0", inner) * (1 + scale) + shift
        inner = conv(f"{name}.out_layers.3", F.silu(inner))
        return inner + (conv(f"{name}.skip_connection", h) if f"{name}.skip_connection.weight" in w else h)

    def attention(name: str, h: Tensor) -> Tensor:
        """Of each head in turn: 64 queries, 64 keys, 64 values."""
        tokens = linear(f"{name}.qkv", norm(f"{name}.norm", h).flatten(2).mT)
        heads = [attend(*tokens[..., 192 * k : 192 * (k + 1)].split(64, -1)) for k in range(h.shape[1] // 64)]
        return h + linear(f"{name}.proj_out", torch.cat(heads, -1)).mT.reshape(h.shape)

    angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(MODEL // 2) / (MODEL // 2))
    embedding = torch.cat([angles.cos(), angles.sin()], 1)
    embedding = linear("time_embed.2", F.silu(linear("time_embed.0", embedding)))
    h = conv("input_blocks.0.0", x)
    for index in range(1, 9):
        h = block(f"input_blocks.{index}.0", h, down=index in (3, 6))
        if f"input_blocks.{index}.1.qkv.weight" in w:
            h = attention(f"input_blocks.{index}.1", h)
    h = block("middle_block.2", attention("middle_block.1", block("middle_block.0", h)))
    flat = F.silu(norm("out.0", h)).flatten(2).mT  # (N, L, C)
    tokens = torch.cat([flat.mean(1, keepdim=True), flat], 1) + w["out.2.positional_embedding"].mT
    queries, keys, values = linear("out.2.qkv_proj", tokens).chunk(3, -1)  # all queries before all keys, as in CLIP
    heads = [
        attend(*(part[..., 64 * k : 64 * (k + 1)] for part in (queries, keys, values))) for k in range(h.shape[1] // 64)
    ]
    return linear("out.2.c_proj", torch.cat(heads, -1))[:, 0]


def prior(schedule: Schedule | None = None, side: int | None = SIDE, channels: int = 3) -> DenoiserPrior:
    return DenoiserPrior(lambda x, t: 0.5 * x, schedule or VP("cosine"), (channels, side, side), name="toy")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classifier") / "64x64_classifier.pt"
    torch.save(weights(), path)
    return path


def test_logits_are_those_of_the_published_network(file: Path) -> None:
    x, t = images(3, 3, SIDE, SIDE), torch.tensor([0.0, 17.0, 999.0])
    found = load_classifier(file, prior(), 2).network(x, t)
    torch.testing.assert_close(found, reference(weights(), x, t), rtol=1e-4, atol=1e-4)


def test_log_prob_at_the_levels_of_the_table(file: Path) -> None:
    """t = (i + 1) / 1000 is the index i that the program tells its classifier; the probabilities sum to 1."""
    x, index = images(3, 3, SIDE, SIDE), torch.tensor([0.0, 17.0, 999.0])
    got = torch.stack([load_classifier(file, prior(), k)(x, (index.double() + 1) / 1000) for k in range(CLASSES)], 1)
    want = torch.log_softmax(reference(weights(), x, index), 1)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got.exp().sum(1), torch.ones(3))


@pytest.mark.parametrize("schedule", [EDM(), Flow()], ids=["edm", "flow"])
def test_other_coordinates_are_converted(file: Path, schedule: Schedule) -> None:
    """x_t of another scale at the same sigma / alpha: the same log-probability, as the table says it."""
    table, nsr = VP("cosine"), torch.tensor([0.3, 2.0], dtype=torch.float64)
    x = images(2, 3, SIDE, SIDE)
    there = schedule.time_at(nsr)
    length = torch.hypot(schedule.alpha(there), schedule.sigma(there)).float()[:, None, None, None]
    got = load_classifier(file, prior(schedule), 1, "cosine")(length * x, there)
    want = load_classifier(file, prior(table), 1)(x, table.time_at(nsr))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    ends = load_classifier(file, prior(schedule), 1, "cosine")(x, torch.tensor([1e-6, 1.0]))
    assert ends.isfinite().all()


@pytest.mark.parametrize("method", ["ddnm", "dps"])
def test_methods_run_with_it(file: Path, method: str) -> None:
    guided = ClassifierGuidedPrior(prior(), load_classifier(file, prior(), 1), 3.0)
    mask = torch.ones(SIDE, SIDE)
    mask[4:10, 4:12] = 0
    operator = priorpaint.Inpainting(mask)
    y = operator(images(1, 3, SIDE, SIDE))
    out = solver(method, steps=2).sample(guided, operator, y)
    plain = solver(method, steps=2).sample(prior(), operator, y)
    assert out.isfinite().all() and not torch.allclose(out, plain)


def refused(file: Path, **changes: Any) -> str:
    options: dict[str, Any] = {"prior": prior(), "label": 1, **changes}
    with pytest.raises(PriorpaintError) as error:
        load_classifier(file, **options)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_what_cannot_be_meant_is_refused(file: Path, tmp_path: Path) -> None:
    assert "knows the classes 0 to 4, not 5" in refused(file, label=5)
    assert "knows the classes 0 to 4, not True" in refused(file, label=True)
    assert "'linear' or 'cosine', not 'quadratic'" in refused(file, noise_schedule="quadratic")
    assert "has no table of noise levels" in refused(file, prior=prior(EDM()))
    assert "toy is none; choose a prior of pixels" in refused(file, prior=prior(side=None))
    assert "which pictures of 20 x 20 do not have" in refused(file, prior=prior(side=20))
    assert "which pictures of 2 x 2 do not have" in refused(file, prior=prior(side=2))
    assert "which 2 levels cannot share" in refused(file, prior=prior(side=8))
    assert "pictures of 3 channels, and the prior toy draws 1" in refused(file, prior=prior(channels=1))
    assert "there is no file" in refused(tmp_path / "none.pt")
    write(tmp_path / "a.pt", ADMConfig(3, 3, 32, (32, 64), 1, frozenset(), "conv", False, Heads(2)))
    assert "not a classifier of guided-diffusion with attention pooling" in refused(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "name", ["out.2.c_proj.weight", "input_blocks.4.0.in_layers.2.weight", "middle_block.1.qkv.bias"]
)
def test_a_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    torch.save({key: value for key, value in weights().items() if key != name}, tmp_path / "a.pt")
    assert name in refused(tmp_path / "a.pt")


def test_damaged_files_are_refused_or_read(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    for number, changed in enumerate(damaged(data, seed=1, count=12)):
        path = tmp_path / f"{number}.pt"
        path.write_bytes(changed)
        try:
            load_classifier(path, prior(), 1)
        except CheckpointError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        path.unlink()


# -- the main job ------------------------------------------------------------------------------------------------------


@pytest.fixture
def network(tmp_path: Path) -> Prior:
    config = ADMConfig(3, 3, 32, (32, 64), 1, frozenset(), "conv", False, Heads(2))
    write(tmp_path / "a.pt", config)
    return read(
        tmp_path / "a.pt", {"num_heads": 2, "noise_schedule": "cosine", "channel_mult": "1,2", "image_size": SIDE}
    )


def test_inpaint_guides_and_says_so(file: Path, network: Prior) -> None:
    picture = np.full((SIDE, SIDE, 3), 128, np.uint8)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[4:12, 4:12] = True
    more: dict[str, Any] = {"num_samples": 1, "steps": 3, "method": "replacement"}
    plain = priorpaint.inpaint(picture, mask, network, **more)
    guided = priorpaint.inpaint(picture, mask, network, **more, classifier=file, label=3, classifier_scale=20.0)
    assert not np.array_equal(plain.images[0], guided.images[0])
    about = guided.info["prior"]["classifier"]
    assert (about["label"], about["scale"], about["source"]) == (3, 20.0, str(file)) and len(about["sha256"]) == 64
    assert guided.info["call"]["classifier"] == str(file) and plain.info["prior"]["classifier"] is None


def test_a_classifier_without_a_class_and_a_scale_without_a_classifier(file: Path, network: Prior) -> None:
    picture, mask = np.full((SIDE, SIDE, 3), 128, np.uint8), np.eye(SIDE) > 0
    with pytest.raises(UsageError, match="name it with label"):
        priorpaint.plan(picture, mask, network, classifier=file)
    with pytest.raises(UsageError, match="give its file as classifier"):
        priorpaint.plan(picture, mask, network, label=1, classifier_scale=2.0)
