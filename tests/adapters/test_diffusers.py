"""Pipelines of diffusers that are in memory: the same completions as from their folders, and nothing left changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint import Stopped, UsageError, inpaint, load_prior

models = pytest.importorskip("tests.priors.readers.diffusers_models")

from priorpaint.adapters.diffusers import PriorpaintInpaintPipeline  # noqa: E402

diffusers = models.diffusers
PIPELINES = {
    "pixel": "DDPMPipeline",
    "stable_diffusion": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "dit": "DiTPipeline",
}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
HOLE = np.zeros((16, 16), dtype=np.uint8)
HOLE[4:10, 4:10] = 255
WHERE: dict[str, Any] = {"image": PICTURE, "mask_image": Image.fromarray(HOLE), "num_inference_steps": 2}

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, while they load


def pipeline(folder: Path, layout: str) -> Any:
    getattr(models, layout)(folder)
    models.edit(folder / "model_index.json", _class_name=PIPELINES[layout])
    return getattr(diffusers, PIPELINES[layout]).from_pretrained(folder)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def same(one: list[Image.Image], other: list[Image.Image]) -> bool:
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("layout", PIPELINES)
def test_the_same_completions_as_from_the_folder(layout: str, tmp_path: Path) -> None:
    pipe = pipeline(tmp_path / "model", layout)
    flags = {"image_size": 16} if layout == "flux" else {}  # in place of 1024
    painter = PriorpaintInpaintPipeline.from_pipe(pipe, method="langevin", flags=flags)
    asked: dict[str, Any] = {"dit": {"class_labels": 2}, "pixel": {}}.get(layout, {"prompt": "a red cat"})
    images = painter(**WHERE, **asked, num_images_per_prompt=2, generator=generators(3, 4)).images
    call = painter.result.info["call"]
    usual = {"stable_diffusion": 7.5, "sdxl": 5.0, "sd3": 7.0, "dit": 4.0}
    assert call["guidance_scale"] == usual.get(layout, 1.0)
    told = {key: call[key] for key in ("guidance_scale", "prompt", "label")}
    prior = load_prior(tmp_path / "model", device="cpu", flags=flags)
    again = inpaint(PICTURE, WHERE["mask_image"], prior, "langevin", 2, call["seed"], steps=2, **told)
    assert same(images, again.images)
    if layout == "sdxl":
        pipe.vae.half()
        with pytest.raises(UsageError, match="overflows in float16"):
            PriorpaintInpaintPipeline.from_pipe(pipe)
    known = HOLE == 0
    assert all(np.array_equal(np.asarray(image)[known], np.asarray(PICTURE)[known]) for image in images)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return pipeline(tmp_path_factory.mktemp("pixels") / "model", "pixel")


def test_the_pipeline_is_shared_and_left_as_it_was(pixels: Any) -> None:
    weight = next(pixels.unet.parameters())
    pixels.unet.train()
    pixels.unet.requires_grad_(True)
    before = weight.detach().clone()
    painter = PriorpaintInpaintPipeline.from_pipe(pixels)
    assert next(painter.prior.parameters()) is weight
    painter(**WHERE)
    assert all(module.training for module in pixels.unet.modules())
    assert all(one.requires_grad and one.grad is None for one in pixels.unet.parameters())
    assert torch.equal(weight, before)


def test_generators_give_one_seed_each_and_move_on(pixels: Any) -> None:
    painter = PriorpaintInpaintPipeline.from_pipe(pixels, method="replacement")
    two = painter(**WHERE, num_images_per_prompt=2, generator=generators(3, 4)).images
    alone = painter(**WHERE, generator=generators(4)).images
    assert same(two[1:], alone) and not same(two[:1], alone)
    [one] = generators(3)
    assert same(painter(**WHERE, generator=one).images, two[:1])
    assert not same(painter(**WHERE, generator=one).images, two[:1])
    with pytest.raises(UsageError, match="2 generators were given for 3 completions"):
        painter(**WHERE, num_images_per_prompt=3, generator=generators(1, 2))


def test_callbacks_outputs_and_interruption(pixels: Any) -> None:
    painter = PriorpaintInpaintPipeline.from_pipe(pixels, method="replacement", steps=4)
    where = {**WHERE, "num_inference_steps": None, "num_images_per_prompt": 2}
    seen: list[tuple[int, int, tuple[int, int]]] = []

    def watch(pipe: Any, step: int, left: int, inside: dict[str, Any]) -> None:
        assert pipe is painter
        seen.append((step, left, inside["preview"]().size))

    arrays = painter(**where, generator=generators(3, 4), callback_on_step_end=watch, output_type="np").images
    assert [step for step, *_ in seen] == sorted(step for step, *_ in seen) and seen[-1][1:] == (0, (16, 16))
    (tensors,) = painter(**where, generator=generators(3, 4), output_type="pt", return_dict=False)
    assert arrays.shape == (2, 16, 16, 3) and arrays.max() <= 1 and arrays.min() >= 0
    assert torch.equal(tensors.permute(0, 2, 3, 1), torch.from_numpy(arrays))
    half = seen[-1][0] // 2 + 1

    def stop(pipe: Any, step: int, left: int, inside: dict[str, Any]) -> None:
        pipe._interrupt = step >= half

    first = painter(**where, batch_size=1, generator=generators(3, 4), callback_on_step_end=stop, output_type="np")
    assert np.array_equal(first.images, arrays[:1])
    half = 0
    with pytest.raises(Stopped):
        painter(**where, callback_on_step_end=stop)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"image": None}, "what is to be repainted, in white"),
        ({"prompt": ["a", "b"]}, "prompt is one text"),
        ({"output_type": "latent"}, "output_type is one of pil, np, pt"),
        ({"prompt": "a cat"}, "text"),
    ],
)
def test_what_does_not_fit_is_refused(asked: dict[str, Any], sentence: str, pixels: Any) -> None:
    with pytest.raises(UsageError, match=sentence):
        PriorpaintInpaintPipeline.from_pipe(pixels)(**{**WHERE, **asked})


def test_weights_that_hooks_bring_for_each_call(tmp_path: Path) -> None:
    """As after ``enable_sequential_cpu_offload``, whose device is the CPU here."""
    from accelerate import cpu_offload

    pipe = pipeline(tmp_path / "model", "stable_diffusion")
    ask = {**WHERE, "prompt": "a red cat"}
    plain = PriorpaintInpaintPipeline.from_pipe(pipe, method="langevin")(**ask, generator=generators(3)).images
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        cpu_offload(part, execution_device=torch.device("cpu"), offload_buffers=True)
    assert {weight.device.type for weight in pipe.unet.parameters()} == {"meta"}
    painter = PriorpaintInpaintPipeline.from_pipe(pipe, method="langevin")
    assert same(painter(**ask, generator=generators(3)).images, plain)
    assert {weight.device.type for weight in pipe.unet.parameters()} == {"meta"}
