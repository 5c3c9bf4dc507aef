"""Other measurements than masks: real pictures, an exact posterior, sizes and modes, events, what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import priorpaint
from priorpaint import (
    JPEG,
    Blur,
    CancelToken,
    Completion,
    DenoiserPrior,
    Downsampling,
    GaussianBlur,
    Grayscale,
    Loading,
    MatrixOperator,
    Operator,
    Step,
    Stopped,
    UsageError,
    restore,
    solver,
)
from priorpaint.diffusion.schedules import EDM
from priorpaint.inpainting.method import restoration_default
from priorpaint.inpainting.restoration import plan_restoration
from priorpaint.priors.analytic import Gaussian
from priorpaint.priors.latent import LatentPrior
from tests.latent_toy import Identity

EXAMPLES = Path(__file__).parents[2] / "examples"
FAST: dict[str, Any] = {"method": "ddnm", "steps": 3, "num_samples": 1}


def half(shape: tuple[int, int | None, int | None] = (3, None, None), sizes: list[Any] | None = None) -> DenoiserPrior:
    """D(x_t, t) = x_t / 2, which notes the size of each call."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        if sizes is not None:
            sizes.append(tuple(x_t.shape[2:]))
        return 0.5 * x_t

    return DenoiserPrior(denoise, EDM(sigma_min=0.01, sigma_max=8), shape, multiple=4, name="half")


def tensor(image: Image.Image) -> Tensor:
    values = torch.from_numpy(np.array(image, dtype=np.float32)) / 127.5 - 1
    return values.reshape(1, image.height, image.width, -1).movedim(3, 1)


def picture_of(x: Tensor) -> Image.Image:
    values = (127.5 * x[0] + 127.5).round().clamp(0, 255).byte().movedim(0, 2).numpy()
    return Image.fromarray(values.squeeze())


def photo(height: int = 90, width: int = 100) -> Image.Image:
    return Image.open(EXAMPLES / "chelsea.png").convert("RGB").crop((150, 60, 150 + width, 60 + height))


def noise_picture(mode: str = "RGB", size: tuple[int, int] = (18, 20)) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def psnr(a: Image.Image, b: Image.Image) -> float:
    error = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    return float(10 * np.log10(255**2 / np.square(error).mean()))


@pytest.mark.parametrize("operator", [Downsampling(2), GaussianBlur(1.5)], ids=["super-resolution", "deblurring"])
def test_a_photo_agrees_with_its_measurement_and_is_nearer_to_the_truth(operator: Operator, tmp_path: Path) -> None:
    truth = photo()
    damaged = picture_of(operator(tensor(truth)))
    damaged.save(tmp_path / "damaged.png")
    result = restore(tmp_path / "damaged.png", operator, num_samples=4, steps=12)
    plain = psnr(damaged.resize(truth.size, Image.Resampling.BICUBIC), truth)
    for image in (*result.images, result.mean):
        assert image.size == truth.size and image.mode == "RGB"
        # Both pictures are rounded to 8 bits, by 2 / 255 / sqrt(12) each.
        assert float((operator(tensor(image)) - tensor(damaged)).square().mean().sqrt()) < 0.004
    # A single sample need not be nearer: of an exact posterior it is 3 dB further from the truth than the mean of many.
    assert psnr(result.mean, truth) > max(plain + 0.5, *(psnr(image, truth) for image in result.images))
    assert result.uncertainty is not None
    assert result.uncertainty.min() >= 0 < result.uncertainty.mean() and not result.known.any()


@pytest.mark.parametrize(("sigma_y", "channels"), [(0.05, 1), (0.2, 1), (0.3, 3)])
def test_samples_have_the_mean_and_variance_of_an_exact_posterior(sigma_y: float, channels: int) -> None:
    """With three channels y is grey, and it is their average that has this posterior."""
    side, count = 4, 900
    place = torch.arange(side * side, dtype=torch.float64)
    cov = 0.05 * torch.exp(-((place[:, None] - place).abs()) / 4)
    alike = 0.8 + 0.2 * torch.eye(channels, dtype=torch.float64)
    mean = torch.full((side * side,), 0.1)
    prior = Gaussian(mean.repeat(channels), torch.kron(alike, cov), (channels, side, side))  # type: ignore[arg-type]
    average = Gaussian(mean, alike.mean() * cov, (1, side, side))  # type: ignore[arg-type]
    operator = Downsampling(2, "box")
    y = operator(average.sample(1, seed=3)) + 0.2
    exact = average.posterior(operator, y, sigma_y=sigma_y)
    std = exact.cov.diagonal().sqrt().reshape(side, side).numpy()
    result = restore(y, operator, prior, "mmps", count, sigma_y=sigma_y, iterations=side, sampler="heun", steps=30)
    assert np.asarray(result.mean, dtype=float) / 127.5 - 1 == pytest.approx(
        exact.mean[0].numpy(), abs=float(5 * std.max() / np.sqrt(count) + 1 / 255)
    )
    assert result.uncertainty is not None
    assert result.uncertainty == pytest.approx(std, rel=5 / np.sqrt(2 * count))


def test_a_name_and_its_settings_are_an_operator() -> None:
    y = noise_picture()
    named = restore(y, "downsampling", half(), operator_settings={"factor": "2", "kind": "box"}, **FAST)
    ready = restore(y, Downsampling(2, "box"), half(), **FAST)
    assert np.array_equal(named.images[0], ready.images[0])
    assert named.info["operator"] == ready.info["operator"]
    assert ready.info["operator"] == {"name": "downsampling", "settings": {"factor": 2, "kind": "box"}}
    kernel = [[0.0, 1.0], [1.0, 2.0]]
    named = restore(y, "blur", half(), operator_settings={"kernel": kernel}, **FAST)
    assert np.array_equal(named.images[0], restore(y, Blur(torch.tensor(kernel)), half(), **FAST).images[0])


def test_info_reproduces_the_run() -> None:
    first = restore(noise_picture(), Blur(torch.ones(2, 3)), half(), num_samples=3, seed=5, sigma_y=0.1, steps=4)
    call = json.loads(json.dumps(first.info))["call"]
    assert call["method"] == "diffpir" and call["steps"] == 4 and call["sigma_y"] == 0.1
    again = restore(noise_picture(), prior=half(), **call)
    assert all(np.array_equal(a, b) for a, b in zip(first.images, again.images, strict=True))
    assert len({np.asarray(image).tobytes() for image in first.images}) == 3
    alone = restore(noise_picture(), prior=half(), **{**call, "num_samples": 1, "seed": first.info["sample_seeds"][2:]})
    assert np.array_equal(alone.images[0], first.images[2])


def test_the_plan_knows_its_cost_and_the_run_tells_where_it_is() -> None:
    events: list[Any] = []
    previews: list[Image.Image] = []

    def on_event(event: Any) -> None:
        events.append(event)
        if isinstance(event, Step):
            previews.append(event.preview())

    ready = plan_restoration(
        noise_picture(), "downsampling", half(), "ddnm", 3, operator_settings={"factor": 2}, steps=4
    )
    assert ready.cost.forward == 12
    result = ready.run(on_event)
    assert result.info["nfe"] == {"forward": 12, "backward": 0} and ready.seconds() > 0
    assert isinstance(events[0], Loading) and sum(isinstance(event, Completion) for event in events) == 3
    steps = [event for event in events if isinstance(event, Step)]
    assert {step.window for step in steps} == {(0, 0, 36, 40)} and steps[-1].done == steps[-1].total
    assert all(preview.size == (36, 40) and preview.mode == "RGB" for preview in previews)
    assert np.array_equal(ready.run().images[1], result.images[1])


def test_work_that_samples_share_is_done_once_and_memory_is_kept_to() -> None:
    fast = {"levels": 1, "iterations": 2, "mc_samples": 1, "refine_steps": 2, "top_steps": 4}
    method = solver("vipaint", **fast)
    result = restore(noise_picture(), Downsampling(1), half(), method, num_samples=3, batch_size=1, sigma_y=0.1)
    cost = method.cost(3)
    assert result.info["nfe"] == {"forward": cost.forward, "backward": cost.backward}
    tight = plan_restoration(noise_picture(), Downsampling(2), half(), "dps", 8, steps=2, max_memory="1.2MB")
    assert tight.batch_size < 8 == plan_restoration(noise_picture(), Downsampling(2), half(), "dps", 8).batch_size


def test_cancelling_keeps_what_is_finished() -> None:
    token = CancelToken()

    def on_event(event: Any) -> None:
        if isinstance(event, Completion):
            token.cancel()

    with pytest.raises(Stopped) as caught:
        restore(
            noise_picture("L"),
            Grayscale(),
            half(),
            num_samples=3,
            batch_size=1,
            on_event=on_event,
            cancel=token,
            steps=3,
        )
    assert caught.value.result is not None and len(caught.value.result.images) == 1


@pytest.mark.parametrize(
    ("mode", "operator", "out"),
    [
        ("L", Grayscale(), "RGB"),
        ("L", GaussianBlur(1.0), "L"),
        ("1", GaussianBlur(1.0), "L"),
        ("I;16", Downsampling(2), "I;16"),
        ("P", Downsampling(2), "RGB"),
        ("RGBA", JPEG(50), "RGB"),
    ],
)
def test_modes(mode: str, operator: Operator, out: str) -> None:
    image = noise_picture("RGB" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (20, 18), dtype=np.uint16))
    if mode == "RGBA":
        image.putalpha(100)
    result = restore(image, operator, half(), "dps", num_samples=1, steps=2)
    factor = 2 if isinstance(operator, Downsampling) else 1
    assert result.images[0].mode == out and result.images[0].size == (18 * factor, 20 * factor)
    assert any("transparent in parts" in warning for warning in result.warnings) == (mode == "RGBA")


def test_priors_see_sizes_that_they_take() -> None:
    sizes: list[tuple[int, int]] = []
    restore(noise_picture(size=(18, 21)), Downsampling(1), half(sizes=sizes), **FAST)
    assert set(sizes) == {(24, 20)}
    sizes.clear()
    tiled = restore(noise_picture(size=(18, 21)), Downsampling(1), half((3, 16, 16), sizes), **FAST)
    assert set(sizes) == {(16, 16)} and len(sizes) < 3 * 4 and tiled.images[0].size == (18, 21)


def test_a_measurement_that_is_no_picture() -> None:
    operator = MatrixOperator(torch.eye(48)[:20], (3, 4, 4))
    y = torch.linspace(-0.5, 0.5, 20)[None]
    result = restore(y, operator, half(), **FAST)
    assert result.info["image"]["shape"] == [1, 20] and result.picture.size == (4, 4)
    values = tensor(result.images[0]).flatten()[:20]
    assert float((values - y[0]).abs().max()) <= 1 / 255


def test_the_files(tmp_path: Path) -> None:
    noise_picture().save(tmp_path / "small.jpg")
    result = restore(tmp_path / "small.jpg", Downsampling(2), half(), **FAST)
    files = result.save(tmp_path / "out", format="same")
    assert [file.name for file in files][:2] == ["small_0.jpg", "small_mean.jpg"]
    with Image.open(tmp_path / "out" / "small_0.jpg") as image:
        assert image.size == (36, 40)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["operator"]["name"] == "downsampling"


@pytest.mark.parametrize(
    ("operator", "sigma_y", "name"),
    [(Downsampling(2), 0.0, "ddnm"), (Blur(torch.ones(2, 2)), 0.1, "diffpir"), (JPEG(50), 0.0, "dps")],
)
def test_the_default_method_follows_the_measurement(operator: Operator, sigma_y: float, name: str) -> None:
    assert restoration_default(operator, sigma_y)[0] == name
    ready = plan_restoration(noise_picture(), operator, half(), sigma_y=sigma_y)
    assert type(ready.solver) is type(solver(name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operator": "magic"}, "the operators are blur, downsampling"),
        ({"operator": "downsampling", "operator_settings": {"scale": 2}}, "its settings are factor, kind"),
        ({"operator": "downsampling", "operator_settings": {"factor": "two"}}, "factor = 'two' is not valid"),
        ({"operator": "blur"}, "blur needs a value for kernel"),
        ({"operator": "blur", "operator_settings": {"kernel": [[1, 2], [3]]}}, "blur: kernel = .* is not valid"),
        ({"operator": "blur", "operator_settings": {"kernel": "wide"}}, "blur: kernel = 'wide' is not valid"),
        ({"operator": Downsampling(2), "operator_settings": {"factor": 2}}, "a ready operator takes none"),
        ({"operator": Downsampling(2), "method": "vipaint", "levels": 0}, "vipaint"),
        ({"operator": JPEG(50), "method": "ddrm"}, "needs a linear measurement, and JPEG is not linear"),
        ({"operator": Downsampling(2), "method": "replacement"}, "fills in the hidden pixels of a mask"),
        (
            {"operator": Downsampling(2), "prior": LatentPrior(half(), Identity(3))},
            "with a latent prior it takes masks",
        ),
        ({"operator": Downsampling(2), "sigma_y": -1.0}, "cannot be -1.0"),
        ({"operator": Downsampling(2), "prior": half((1, None, None))}, "knows grey pictures"),
        ({"operator": Grayscale()}, "a grey image has 1 channel"),
        ({"operator": Downsampling(2), "y": torch.zeros(2, 3, 8, 8)}, "the measurement of one picture"),
        ({"operator": Downsampling(2), "y": torch.full((1, 3, 8, 8), torch.nan)}, "not finite"),
        ({"operator": Downsampling(2), "y": torch.zeros(1, 2, 8, 8)}, "1 or 3 channels, not 2"),
        ({"operator": Downsampling(300)}, "at most 16 megapixels"),
        ({"operator": Downsampling(2), "fit": "resize"}, "leave fit='resize' out"),
        ({"operator": None}, r"an operator is a name \(`priorpaint operators`\) or an Operator, not None"),
    ],
)
def test_what_does_not_fit_is_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_restoration(**{"y": noise_picture(), "prior": half(), **arguments})


def test_it_is_public() -> None:
    assert priorpaint.restore is restore and "restore" in priorpaint.__all__
