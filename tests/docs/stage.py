"""What the commands and blocks of the documentation take for granted, small: pictures, data sets, priors, checkpoints.

Everything lies under the name that the text uses, in the layout of the program that publishes it, with random weights.
Nothing is fetched: models of the hub lie in a cache of the hub's own layout.
"""

from __future__ import annotations

import lzma
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights
from priorpaint.priors.networks.adm import ADMConfig, Heads
from tests.bench import stored
from tests.lab.fashion.made_up import made_up, write_idx
from tests.priors.readers import test_adm, test_adm_classifier, test_edm

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PHOTOS = ("photo.jpg", "photo.png", "face.png", "room.png", "truck.png", "rose.jpg", "cat.png", "dog.png")


def picture(side: tuple[int, int], seed: int = 0) -> Image.Image:
    width, height = side
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pictures(side: tuple[int, int]) -> Callable[[Path], None]:
    """Photos that the text names, a mask with a small hole, pictures transparent or yellow there, and deep ones."""

    def write(folder: Path) -> None:
        hole = np.zeros(side[::-1], dtype=np.uint8)
        hole[12:18, 12:18] = 255
        Image.fromarray(hole).save(folder / "mask.png")
        for name in PHOTOS:
            picture(side).save(folder / name)
        labels = Image.fromarray(hole // 17).convert("P")
        labels.putpalette([*bytes(45), 192, 128, 128])  # VOC's person is 15
        labels.save(folder / "labels.png")
        marked = picture(side)
        marked.paste("#ffff00", mask=Image.fromarray(hole))
        marked.save(folder / "marked.png")
        deep = np.linspace(100, 700, side[0] * side[1]).reshape(hole.shape)
        Image.fromarray(deep.astype(np.uint16)).save(folder / "cells.png")
        np.save(folder / "warm.npy", np.where(hole > 0, np.nan, deep).astype(np.float32))
        cutout = picture(side).convert("RGBA")
        cutout.putalpha(Image.fromarray(255 - hole))
        cutout.save(folder / "cutout.png")

    return write


def classes(*names: str, count: int = 8) -> Callable[[Path], None]:
    """``count`` pictures in each of these folders; without names, in the folder itself."""

    def write(folder: Path) -> None:
        for number, name in enumerate(names or ("",)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                picture((64, 64), seed=100 * number + i).save(folder / name / f"{i:06}.png")

    return write


def masks(folder: Path) -> None:
    """A mask for each picture of `classes`, where the hole is a corner."""
    folder.mkdir()
    for i in range(8):
        hole = np.zeros((64, 64), dtype=np.uint8)
        hole[:16, :16] = 255
        Image.fromarray(hole).save(folder / f"{i:06}_mask.png")


def own(channels: int = 3, num_classes: int = 0) -> Callable[[Path], None]:
    """A folder as `priorpaint train` leaves it."""

    def write(folder: Path) -> None:
        shape = UNetConfig((8, 8), (1, 1), 8, in_channels=channels, classes=num_classes)
        folder.mkdir()
        save_weights(folder / "weights.safetensors", UNet(shape, seed=0), WeightsMetadata(size=(32, 32)))

    return write


def fashion_mnist(folder: Path) -> None:
    """Both splits in the published format, the train pictures packed, as Debian packs them."""
    folder.mkdir()
    x, labels = made_up(100)
    pixels = ((x[:, 0, 2:-2, 2:-2] + 1) * 127.5).round().byte().numpy()
    for split, times in (("train", 62), ("t10k", 100)):  # 6000 are held out in training; 9000 test pictures are used
        images, numbers = np.tile(pixels, (times, 1, 1)), np.tile(labels.numpy(), times)
        for name, values in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", numbers)):
            write_idx(folder / name, values)
            if split == "train":
                (folder / f"{name}.xz").write_bytes(lzma.compress((folder / name).read_bytes()))
                (folder / name).unlink()


def diffusers(layout: str, **settings: int) -> Callable[[Path], None]:
    """A folder of ``save_pretrained``; the layouts are those of `tests.priors.readers.diffusers_models`."""

    def write(folder: Path) -> None:
        models = pytest.importorskip("tests.priors.readers.diffusers_models")
        folder.parent.mkdir(parents=True, exist_ok=True)
        getattr(models, layout)(folder, **settings)

    return write


def on_the_hub(name: str, layout: str) -> Callable[[Path], None]:
    """A model in a cache of huggingface_hub, as a fetched one lies there."""

    def write(cache: Path) -> None:
        model = cache / f"models--{name.replace('/', '--')}"
        diffusers(layout)(model / "snapshots" / COMMIT)
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text(COMMIT)

    return write


def adm_of_classes(path: Path) -> None:
    """guided-diffusion's 64x64_diffusion.pt with narrower levels and one block in each."""
    shape = ADMConfig(
        3, 6, 32, (32, 64, 96, 128), 1, frozenset({1, 2, 3}), "block", True, Heads(width=32, split_first=True), 1000
    )
    test_adm.write(path, shape)


def adm_classifier(path: Path) -> None:
    """guided-diffusion's 64x64_classifier.pt with three levels of two blocks."""
    torch.save(test_adm_classifier.weights(side=64, classes=1000), path)


def edm(num_classes: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        test_edm.write(path, "SongUNet", "EDMPrecond", {**test_edm.KWARGS, "label_dim": num_classes}, sigma_data=0.5)

    return write


def compvis(yaml: str = "model.yaml", num_classes: int = 0) -> Callable[[Path], None]:
    """A checkpoint of latent-diffusion and its configuration, at ``yaml`` seen from where the commands run."""

    def write(path: Path) -> None:
        files = pytest.importorskip(
            "tests.priors.readers.test_ldm", reason="the YAML of these checkpoints needs PyYAML"
        )
        path.parent.mkdir()
        if num_classes:
            files.TestClasses().write(path.parent, num_classes=num_classes)
            (path.parent / "a.ckpt").rename(path)
            (path.parent / "a.yaml").rename(path.with_suffix(".yaml"))
            return
        files.write(path, files.tensors(), files.configuration())
        if yaml != "model.yaml":
            (path.parents[1] / yaml).parent.mkdir(parents=True)
            path.with_suffix(".yaml").rename(path.parents[1] / yaml)

    return write


def benchmark(folder: Path) -> None:
    """A finished benchmark on two pictures."""
    stored.make(folder, pictures=2, samples=3)


def grid(path: Path) -> None:
    """The grid that docs/bench.md shows."""
    page = (Path(__file__).parents[2] / "docs/bench.md").read_text(encoding="utf-8")
    path.write_text(page.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")


CHURCHES = "configs/latent-diffusion/lsun_churches-ldm-kl-8.yaml"
# As the text calls it -> what writes it, given the path; names of the hub are written into its cache.
THINGS: dict[str, Callable[[Path], None]] = {
    "examples/": lambda folder: shutil.copytree(EXAMPLES, folder) and None,
    "my-pictures/": classes(),
    "damaged/": classes(),
    "damaged-masks/": masks,
    "flowers/": classes("daisy", "tulips"),
    "animals/": classes("cats", "dogs", "owls"),
    "faces/": classes(),
    "held-out/": classes(),
    "fashion-mnist/": fashion_mnist,
    "my-prior/": own(),
    "my-bench/": benchmark,
    "my-grid.toml": grid,
    "lpips_alex.safetensors": stored.lpips_file,
    "animals-prior/": own(num_classes=3),
    "my-fashion/": own(channels=1),
    "hf:OWNER/NAME": on_the_hub("OWNER/NAME", "pixel"),
    "hf:some/text-model": on_the_hub("some/text-model", "stable_diffusion"),
    "hf:google/ddpm-celebahq-256": on_the_hub("google/ddpm-celebahq-256", "pixel"),
    "hf:google/ddpm-bedroom-256": on_the_hub("google/ddpm-bedroom-256", "pixel"),
    "hf:stabilityai/stable-diffusion-xl-base-1.0": on_the_hub("stabilityai/stable-diffusion-xl-base-1.0", "sdxl"),
    "./stable-diffusion-3/": diffusers("sd3"),
    "./DiT-XL-2-256/": diffusers("dit", classes=1000),
    "./my-ddpm/": diffusers("pixel"),
    "64x64_diffusion.pt": adm_of_classes,
    "64x64_classifier.pt": adm_classifier,
    "edm-ffhq-64x64-uncond-vp.pkl": edm(0),
    "edm-cifar10-32x32-cond-vp.pkl": edm(10),
    "celeba256/model.ckpt": compvis(),
    "cin256/model.ckpt": compvis(num_classes=1001),
    "churches/model.ckpt": compvis(CHURCHES),
}


def set_up(folder: Path, cache: Path, text: str) -> None:
    """Write what a block names into ``folder``, but for what its own commands make.

    Args:
        folder: an empty one.
        cache: of huggingface_hub.
        text: the block.
    """
    # One block repaints a box that only fits into a larger photo.
    text = re.sub(r"\bPRIOR\b", "my-prior/", text)
    pictures((256, 192) if "--box 120," in text else (32, 32))(folder)
    for name, write in THINGS.items():
        made_here = any(words + name in text for words in ("--out ", "write "))
        if name in text and not made_here:
            write(cache if name.startswith("hf:") else folder / name)
