"""Text encoders: Stable Diffusion 1, XL and 3, and Flux see a prompt as diffusers' own pipelines do."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from priorpaint import UsageError, load_prior
from priorpaint.errors import CheckpointError
from priorpaint.priors.cfg import CFGPrior

diffusers = pytest.importorskip("diffusers")
models = pytest.importorskip("tests.priors.readers.diffusers_models")

PROMPT = "a photo of a red cat"


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def pipeline_of(cls: Any, folder: Path, **absent: None) -> Any:
    """Diffusers' own pipeline from the same folder; parts that the folder leaves out are passed as None."""
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": cls.__name__}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cls.from_pretrained(folder, local_files_only=True, **absent)


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = models.stable_diffusion(tmp_path_factory.mktemp("sd"))
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("sd3")
    models.sd3(folder)
    return folder


def test_stable_diffusion(sd: Path) -> None:
    prior = load_prior(sd, device="cpu")
    pipe = pipeline_of(diffusers.StableDiffusionPipeline, sd)
    positive, negative = pipe.encode_prompt(PROMPT, "cpu", 1, True)
    assert torch.allclose(prior.condition(prompt=PROMPT)["states"], positive, atol=1e-5)
    assert torch.allclose(prior.condition()["states"], negative, atol=1e-5)
    assert not torch.allclose(positive, negative, atol=1e-2)
    assert prior.takes_text and prior.shape == (4, 8, 8) and prior.image_shape == (3, 16, 16)
    x = noise(1, 4, 8, 8)
    t = torch.tensor(401 / 1000, dtype=torch.float64)
    raw = pipe.unet(x, 400, encoder_hidden_states=positive).sample
    abar = pipe.scheduler.alphas_cumprod[400]
    expected = (x - (1 - abar).sqrt() * raw) / abar.sqrt()
    assert torch.allclose(CFGPrior(prior, prompt=PROMPT).denoise(x, t), expected, atol=1e-3)
    with pytest.raises(UsageError, match="no classes"):
        CFGPrior(prior, label=3)


def test_older_names_of_text_tensors_are_read(sd: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    expected = load_prior(sd, device="cpu").condition(prompt=PROMPT)["states"]
    older = tmp_path / "older"
    for file in sd.rglob("*"):
        if file.is_file():
            (older / file.relative_to(sd)).parent.mkdir(parents=True, exist_ok=True)
            (older / file.relative_to(sd)).write_bytes(file.read_bytes())
    path = older / "text_encoder" / "model.safetensors"
    state = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in load_file(path).items()}
    state["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    save_file(state, path)
    assert torch.allclose(load_prior(older, device="cpu").condition(prompt=PROMPT)["states"], expected, atol=1e-6)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="incomplete"):
        load_prior(older)


@pytest.mark.parametrize("zeros", [True, False])
def test_sdxl(tmp_path: Path, zeros: bool) -> None:
    models.sdxl(tmp_path, zeros=zeros)
    prior = load_prior(tmp_path, device="cpu")
    pipe = pipeline_of(diffusers.StableDiffusionXLPipeline, tmp_path)
    states, null_states, pooled, null_pooled = pipe.encode_prompt(PROMPT, device="cpu")
    condition, null = prior.condition(prompt=PROMPT), prior.condition()
    assert torch.allclose(condition["states"], states, atol=1e-5) and torch.allclose(
        condition["pooled"], pooled, atol=1e-5
    )
    assert torch.allclose(null["states"], null_states, atol=1e-5)
    assert torch.allclose(null["pooled"], null_pooled, atol=1e-5) and bool((null_states == 0).all()) == zeros
    x = noise(2, 4, 8, 8)
    sizes = pipe._get_add_time_ids((16, 16), (0, 0), (16, 16), torch.float32, text_encoder_projection_dim=8)
    added = {"text_embeds": pooled.expand(2, -1), "time_ids": sizes.expand(2, -1)}
    raw = pipe.unet(x, 400, encoder_hidden_states=states.expand(2, -1, -1), added_cond_kwargs=added).sample
    t = torch.full((2,), 401 / 1000, dtype=torch.float64)
    assert torch.allclose(prior.inner._raw(x, t, condition), raw, atol=1e-4)
    guided = CFGPrior(prior, prompt=PROMPT, scale=5.0).denoise(x, t)
    assert guided.shape == x.shape and bool(guided.isfinite().all())


@pytest.mark.parametrize("with_t5", [True, False])
def test_stable_diffusion_3(tmp_path: Path, with_t5: bool) -> None:
    transformer = models.sd3(tmp_path, with_t5=with_t5)
    prior = load_prior(tmp_path, flags="--max_sequence_length 12", device="cpu")
    absent = {} if with_t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipe = pipeline_of(diffusers.StableDiffusion3Pipeline, tmp_path, **absent)
    states, _, pooled, _ = pipe.encode_prompt(PROMPT, PROMPT, PROMPT, device="cpu", max_sequence_length=12)
    condition = prior.condition(prompt=PROMPT)
    assert condition["states"].shape == (1, 16 + 12, 20)
    states = states[:, :28]  # without T5, diffusers 0.35 has as many zeros as CLIP has tokens
    assert torch.allclose(condition["states"], states, atol=1e-5) and torch.allclose(
        condition["pooled"], pooled, atol=1e-5
    )
    x, t = noise(1, 4, 8, 8), torch.tensor([0.4], dtype=torch.float64)
    raw = transformer(x, states, pooled, torch.tensor([400.0])).sample
    assert torch.allclose(prior.denoise(x, t, condition), x - 0.4 * raw, atol=1e-4)
    assert prior.schedule.shift == 3 and prior.multiple == 2


@pytest.mark.parametrize("distilled", [True, False])
def test_flux(tmp_path: Path, distilled: bool) -> None:
    transformer = models.flux(tmp_path, distilled=distilled)
    prior = load_prior(tmp_path, flags={"max_sequence_length": 10, "guidance": 2.0, "image_size": 16}, device="cpu")
    pipe = pipeline_of(diffusers.FluxPipeline, tmp_path)
    states, pooled, text_ids = pipe.encode_prompt(PROMPT, PROMPT, device="cpu", max_sequence_length=10)
    condition = prior.condition(prompt=PROMPT)
    assert torch.allclose(condition["states"], states, atol=1e-5) and torch.allclose(
        condition["pooled"], pooled, atol=1e-5
    )
    x, t = noise(1, 4, 8, 6), torch.tensor([0.4], dtype=torch.float64)
    packed = pipe._pack_latents(x, 1, 4, 8, 6)
    positions = pipe._prepare_latent_image_ids(1, 4, 3, "cpu", torch.float32)
    told = torch.tensor([2.0]) if distilled else None
    raw = transformer(
        packed, states, pooled, torch.tensor([0.4]), img_ids=positions, txt_ids=text_ids, guidance=told
    ).sample
    raw = pipe._unpack_latents(raw, 16, 12, 2)
    assert torch.allclose(prior.denoise(x, t, condition), x - 0.4 * raw, atol=1e-4)
    assert prior.shape == (4, 8, 8)


@pytest.mark.parametrize(("side", "shift"), [(64, 1.583), (1024, 3.158), (None, 3.158)])
def test_the_grid_of_flux_is_its_pipelines(tmp_path: Path, side: int | None, shift: float) -> None:
    """Latents of 8 x 8 pixels, packed 2 x 2 into tokens: 16 of them at 64 pixels, 4096 at the model's own 1024."""
    models.flux(tmp_path)
    deep = {"block_out_channels": (4,) * 4, "down_block_types": ("DownEncoderBlock2D",) * 4}
    models.kl(**deep, up_block_types=("UpDecoderBlock2D",) * 4).save_pretrained(tmp_path / "vae")
    prior = load_prior(tmp_path, flags={"image_size": side} if side else None, device="cpu")
    assert prior.schedule.shift == pytest.approx(shift, abs=5e-4)
    assert prior.image_shape == (3, side or 1024, side or 1024)
    if side != 64:
        return
    pipe = pipeline_of(diffusers.FluxPipeline, tmp_path)
    pipe.set_progress_bar_config(disable=True)
    for steps in (1, 4, 7):
        pipe(PROMPT, height=side, width=side, num_inference_steps=steps, max_sequence_length=8, output_type="latent")
        assert torch.allclose(prior.schedule.grid(steps).float(), pipe.scheduler.sigmas, atol=1e-6)


@pytest.mark.parametrize(
    ("part", "changes", "named"),
    [
        ("transformer", {"pos_embed_max_size": 3000}, "pos_embed_max_size is 3000; expected the root of the rows"),
        ("transformer", {"pos_embed_max_size": 10**9}, "pos_embed_max_size is 1000000000; expected a whole number"),
        ("transformer", {"sample_size": 18}, "sample_size is 18; expected at most 16"),
        ("transformer", {"patch_size": 0}, "patch_size is 0; expected a whole number from 1"),
        ("text_encoder", {"layer_norm_eps": -1}, "layer_norm_eps is -1"),
        ("text_encoder", {"max_position_embeddings": 10**9}, "max_position_embeddings is 1000000000"),
        ("text_encoder", {"vocab_size": 36}, "vocab_size|embed"),
        ("text_encoder", {"eos_token_id": 0}, "eos_token_id is 0 and the end of a text of its tokeniser is 34"),
        ("text_encoder_3", {"relative_attention_max_distance": 10**400}, "relative_attention_max_distance is 1000"),
        ("text_encoder_3", {"num_layers": 10**5}, "num_layers is 100000; expected a whole number from 1 to"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_named(
    three: Path, tmp_path: Path, part: str, changes: dict[str, Any], named: str
) -> None:
    shutil.copytree(three, tmp_path, dirs_exist_ok=True)
    models.edit(tmp_path / part / "config.json", **changes)
    with pytest.raises(CheckpointError, match=named):
        load_prior(tmp_path, device="cpu")


def test_sizes_beyond_the_table_of_positions_are_refused(three: Path) -> None:
    assert load_prior(three, flags={"image_size": 32}, device="cpu").shape == (4, 16, 16)
    with pytest.raises(UsageError, match="image_size is 36, .* up to 32 pixels"):
        load_prior(three, flags={"image_size": 36}, device="cpu")


@pytest.mark.parametrize("axes", [[10**9, 6, 6], [0, 6, 6], [2, 2, 2], [2, 6], [3, 3, 2], 8, ["x", 2, 2]], ids=str)
def test_the_axes_of_flux_share_out_a_head(tmp_path: Path, axes: Any) -> None:
    models.flux(tmp_path)
    models.edit(tmp_path / "transformer" / "config.json", axes_dims_rope=axes)
    with pytest.raises(CheckpointError, match="axes_dims_rope"):
        load_prior(tmp_path, device="cpu")


def test_a_tokeniser_without_its_words_is_refused(sd: Path, three: Path, tmp_path: Path) -> None:
    """By its files, and by their content: without words all prompts would be the same text."""
    clip, t5 = tmp_path / "clip", tmp_path / "t5"
    shutil.copytree(sd, clip)
    vocabulary = json.loads((clip / "tokenizer" / "vocab.json").read_text())
    few = dict(list(vocabulary.items())[-2:])
    high = {**vocabulary, "a": 10**9}
    merges = (clip / "tokenizer" / "merges.txt").read_text()
    for words, pairs, named in (
        (high, merges, "up to the number 1000000000"),
        (few, merges, "tokenizer cannot be read"),
        (few, merges.splitlines()[0], "has 2 words, up to the number .*vocab_size .*is 35"),
    ):
        (clip / "tokenizer" / "vocab.json").write_text(json.dumps(words))
        (clip / "tokenizer" / "merges.txt").write_text(pairs)
        with pytest.raises(CheckpointError, match=named):
            load_prior(clip, device="cpu")
    (clip / "tokenizer" / "vocab.json").unlink()
    with pytest.raises(CheckpointError, match="has no vocabulary .tokenizer.json or vocab.json and merges.txt"):
        load_prior(clip, device="cpu")
    shutil.copytree(three, t5)
    (t5 / "tokenizer_3" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer_3 has no vocabulary .tokenizer.json or spiece.model"):
        load_prior(t5, device="cpu")


def test_parts_of_two_models_are_refused(sd: Path, tmp_path: Path) -> None:
    models.save(
        tmp_path, diffusers.DDIMScheduler(), vae=models.kl(), unet=models.text_unet(12),
        text_encoder=models.clip(8, projected=False), tokenizer="CLIPTokenizer",
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="expects text states of width 12 and the text encoders make 8"):
        load_prior(tmp_path)
    inpainting = tmp_path / "inpainting"
    models.save(
        inpainting, diffusers.DDIMScheduler(), vae=models.kl(), unet=models.text_unet(8, in_channels=9),
        text_encoder=models.clip(8, projected=False), tokenizer="CLIPTokenizer",
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="takes 9 channels and the autoencoder makes 4 .a model for inpainting"):
        load_prior(inpainting)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({k: v for k, v in json.loads(index.read_text()).items() if k != "tokenizer"}))
    with pytest.raises(CheckpointError, match="has no tokenizer,"):
        load_prior(tmp_path)
