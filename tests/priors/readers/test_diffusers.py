"""Diffusers folders: the numbers of diffusers' own networks, the layouts of old and new releases, latent models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from priorpaint import UsageError, load_prior
from priorpaint.errors import CheckpointError
from priorpaint.priors.cfg import CFGPrior
from priorpaint.priors.readers.diffusers import recognises

diffusers = pytest.importorskip("diffusers")
models = pytest.importorskip("tests.priors.readers.diffusers_models")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def at(step: int, count: int = 1000) -> torch.Tensor:
    return torch.tensor((step + 1) / count, dtype=torch.float64)


def test_a_pixel_network_gives_the_schedulers_own_estimate(tmp_path: Path) -> None:
    network = models.pixel(tmp_path)
    before = torch.get_rng_state()
    prior = load_prior(tmp_path, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert recognises(tmp_path) and prior.shape == (3, 8, 8) and prior.multiple == 2
    scheduler = diffusers.DDPMScheduler(**models.DDPM, clip_sample=False)
    x = noise(2, 3, 8, 8)
    for step in (0, 15, 400, 999):
        expected = scheduler.step(network(x, step).sample, step, x).pred_original_sample
        actual = prior.denoise(x, at(step))
        assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert prior.facts["architecture"] == "UNet2DModel" and json.loads(json.dumps(prior.facts)) == prior.facts
    assert prior.facts["parameters"] == sum(p.numel() for p in network.parameters()) > 1000


def test_gradients_reach_the_picture_and_not_the_weights(tmp_path: Path) -> None:
    models.pixel(tmp_path)
    prior = load_prior(tmp_path, device="cpu")
    x = noise(1, 3, 8, 8).requires_grad_()
    prior.denoise(x, 0.5).square().sum().backward()
    assert x.grad is not None and bool(x.grad.abs().sum() > 0)
    assert all(not weight.requires_grad for weight in prior.parameters())


def test_classes(tmp_path: Path) -> None:
    network = models.pixel(tmp_path, num_class_embeds=5)
    prior = load_prior(tmp_path, device="cpu")
    x, t, labels = noise(2, 3, 8, 8), at(300), torch.tensor([4, 1])
    assert prior.classes == 5
    raw = network(x, 300, class_labels=labels).sample
    actual = CFGPrior(prior, label=labels).denoise(x, t)
    alpha, sigma = prior.schedule.alpha(t).float(), prior.schedule.sigma(t).float()
    assert torch.allclose(actual, (x - sigma * raw) / alpha, atol=1e-4)
    with pytest.raises(UsageError, match="label"):
        prior.denoise(x, t)
    guided = CFGPrior(load_prior(tmp_path, flags="--null_class 4", device="cpu"), label=1, scale=3.0)
    null, condition = (CFGPrior(prior, label=label).denoise(x, t) for label in (4, 1))
    assert torch.allclose(guided.denoise(x, t), null + 3 * (condition - null), atol=1e-3)
    with pytest.raises(UsageError, match="classes 0 to 4"):
        load_prior(tmp_path, flags={"null_class": 5})


def test_the_first_layout_with_all_files_at_the_top_and_old_names_of_attention(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    models.pixel(new)
    old.mkdir()
    for file in (new / "unet" / "config.json", new / "scheduler" / "scheduler_config.json", new / "model_index.json"):
        (old / file.name).write_bytes(file.read_bytes())
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    from safetensors.torch import load_file, save_file

    state = load_file(new / "unet" / "diffusion_pytorch_model.safetensors")
    renamed = {}
    for key, value in state.items():
        for modern, former in names.items():
            key = key.replace(f".{modern}.", f".{former}.")
        renamed[key] = value
    assert set(renamed) != set(state)
    save_file(renamed, old / "diffusion_pytorch_model.safetensors")
    x = noise(1, 3, 8, 8)
    expected = load_prior(new, device="cpu").denoise(x, 0.3)
    assert torch.allclose(load_prior(old, device="cpu").denoise(x, 0.3), expected, atol=1e-5)
    # The same weights in the older pickled file, through the reader that takes tensors only.
    (old / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(renamed, old / "diffusion_pytorch_model.bin")
    assert torch.allclose(load_prior(old, device="cpu").denoise(x, 0.3), expected, atol=1e-5)


def test_shards_variants_and_one_network_without_an_index(tmp_path: Path) -> None:
    network = models.pixel(tmp_path / "whole")
    x, whole = noise(1, 3, 8, 8), load_prior(tmp_path / "whole", device="cpu")
    models.pixel(tmp_path / "shards")
    (tmp_path / "shards" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    network.save_pretrained(tmp_path / "shards" / "unet", max_shard_size="20KB")
    assert len(list((tmp_path / "shards" / "unet").glob("*-of-*.safetensors"))) > 1
    sharded = load_prior(tmp_path / "shards", device="cpu")
    assert torch.allclose(sharded.denoise(x, 0.3), whole.denoise(x, 0.3), atol=1e-5) and sharded.hash != whole.hash
    models.pixel(tmp_path / "half")
    (tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    network.to(torch.float16).save_pretrained(tmp_path / "half" / "unet", variant="fp16")
    for flags in (None, "--variant fp16"):
        half = load_prior(tmp_path / "half", flags=flags, device="cpu").denoise(x, 0.3)
        assert torch.allclose(half, whole.denoise(x, 0.3), atol=0.02) and half.dtype == torch.float32
    with pytest.raises(CheckpointError, match="diffusion_pytorch_model.bf16.safetensors is missing"):
        load_prior(tmp_path / "half", flags={"variant": "bf16"})
    network.float().save_pretrained(tmp_path / "bare")
    diffusers.DDPMScheduler(**models.DDPM).save_pretrained(tmp_path / "bare")
    assert recognises(tmp_path / "bare")
    assert torch.allclose(load_prior(tmp_path / "bare", device="cpu").denoise(x, 0.3), whole.denoise(x, 0.3), atol=0.02)


def test_the_hash_is_of_what_was_read(tmp_path: Path) -> None:
    models.pixel(tmp_path)
    before = load_prior(tmp_path, device="cpu").hash
    (tmp_path / "README.md").write_text("a model")
    assert load_prior(tmp_path, device="cpu").hash == before
    models.edit(tmp_path / "scheduler" / "scheduler_config.json", beta_end=0.021)
    assert load_prior(tmp_path, device="cpu").hash != before


def test_low_precision_is_close(tmp_path: Path) -> None:
    models.pixel(tmp_path)
    x = noise(1, 3, 8, 8)
    half = load_prior(tmp_path, device="cpu", dtype=torch.bfloat16)
    assert next(half.parameters()).dtype == torch.bfloat16
    actual, full = half.denoise(x, 0.2), load_prior(tmp_path, device="cpu").denoise(x, 0.2)
    assert actual.dtype == torch.float32 and torch.allclose(actual, full, atol=0.1) and not torch.equal(actual, full)


def test_flags_of_the_size(tmp_path: Path) -> None:
    models.pixel(tmp_path)
    assert load_prior(tmp_path, flags={"image_size": 16}, device="cpu").shape == (3, 16, 16)
    free = load_prior(tmp_path, flags="--image_size any", device="cpu")
    assert free.shape == (3, None, None) and free.denoise(noise(1, 3, 12, 8), 0.5).shape == (1, 3, 12, 8)
    with pytest.raises(UsageError, match="multiple of 2"):
        load_prior(tmp_path, flags={"image_size": 15})
    with pytest.raises(UsageError, match="no flag 'num_heads'"):
        load_prior(tmp_path, flags={"num_heads": 4})


def test_a_network_of_score_matching_works_on_pictures_in_0_to_1(tmp_path: Path) -> None:
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_min=0.01, sigma_max=50.0)
    network = models.unet(time_embedding_type="fourier", center_input_sample=True)
    prior = load_prior(models.save(tmp_path, scheduler, unet=network), device="cpu")
    v, sigma = noise(1, 3, 8, 8), 3.0  # on [0, 1]
    score = network(v, torch.tensor([sigma])).sample
    t = prior.schedule.time_at(torch.tensor(2 * sigma, dtype=torch.float64))
    actual = prior.denoise(2 * v - 1, t)
    assert torch.allclose(actual, 2 * (v + sigma**2 * score) - 1, atol=1e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edm_preconditioning(tmp_path: Path, prediction: str) -> None:
    scheduler = diffusers.EDMEulerScheduler(sigma_data=0.6, prediction_type=prediction)
    network = models.unet()
    prior = load_prior(models.save(tmp_path, scheduler, unet=network), device="cpu")
    x, sigma = noise(1, 3, 8, 8, seed=2), torch.tensor(1.7)
    raw = network(scheduler.precondition_inputs(x, sigma), scheduler.precondition_noise(sigma)).sample
    t = prior.schedule.time_at(sigma.double())
    assert torch.allclose(prior.denoise(x, t), scheduler.precondition_outputs(x, raw, sigma), atol=1e-4)


@pytest.mark.parametrize("whole", [{}, {"vq_embed_dim": 5}], ids=str)
def test_latent_diffusion_with_a_codebook(tmp_path: Path, whole: dict[str, Any]) -> None:
    autoencoder = models.vq(**whole)
    channels = whole.get("vq_embed_dim", 3)
    network = models.unet(in_channels=channels, out_channels=channels)
    folder = models.save(tmp_path, diffusers.DDIMScheduler(), vqvae=autoencoder, unet=network)
    prior = load_prior(folder, device="cpu")
    image = noise(2, 3, 16, 16).clamp(-1, 1)
    assert prior.shape == (channels, 8, 8) and prior.image_shape == (3, 16, 16) and prior.latent
    latent = prior.encode(image)
    assert torch.allclose(latent, 0.7 * autoencoder.encode(image).latents, atol=1e-5)
    assert torch.allclose(prior.decode(latent), autoencoder.decode(latent / 0.7).sample, atol=1e-5)
    z = latent.clone().requires_grad_()
    prior.decode(z).sum().backward()
    assert z.grad is not None and bool(z.grad.abs().sum() > 0)  # straight through the codebook


@pytest.mark.parametrize(
    "settings",
    [
        {"scaling_factor": 1.5, "shift_factor": 0.1},
        {"scaling_factor": 0.5, "latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.0, 2.0, 0.5, 1.5]},
    ],
    ids=["shift", "per channel"],
)
def test_kl_autoencoders_scale_as_diffusers_does(tmp_path: Path, settings: dict[str, Any]) -> None:
    autoencoder = models.kl(**settings)
    network = models.unet(in_channels=4, out_channels=4)
    prior = load_prior(models.save(tmp_path, diffusers.DDIMScheduler(), vae=autoencoder, unet=network), device="cpu")
    image = noise(1, 3, 16, 16).clamp(-1, 1)
    own = autoencoder.encode(image).latent_dist.mode()
    mean = torch.tensor(settings.get("latents_mean", [settings.get("shift_factor", 0)] * 4)).reshape(1, 4, 1, 1)
    std = torch.tensor(settings.get("latents_std", [1.0] * 4)).reshape(1, 4, 1, 1)
    expected = (own - mean) / std * settings["scaling_factor"]
    assert torch.allclose(prior.encode(image), expected, atol=1e-5)
    assert torch.allclose(prior.decode(expected), autoencoder.decode(own).sample, atol=1e-4)


def test_the_tiny_autoencoder(tmp_path: Path) -> None:
    autoencoder = models.randomised(
        diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        )
    )  # fmt: skip
    network = models.unet(in_channels=4, out_channels=4)
    prior = load_prior(models.save(tmp_path, diffusers.DDIMScheduler(), vae=autoencoder, unet=network), device="cpu")
    image = noise(1, 3, 16, 16).clamp(-1, 1)
    latent = prior.encode(image)
    assert latent.shape == (1, 4, 8, 8) and torch.allclose(latent, autoencoder.encode(image).latents, atol=1e-5)
    assert torch.allclose(prior.decode(latent), autoencoder.decode(latent).sample, atol=1e-5)


def test_dit_knows_classes_and_none(tmp_path: Path) -> None:
    network = models.dit(tmp_path)
    prior = load_prior(tmp_path, device="cpu")
    x = noise(1, 4, 8, 8)
    for label, row in ((2, 2), (None, 6)):
        condition = prior.condition(label=label)
        raw = network(x, timestep=torch.tensor([300]), class_labels=torch.tensor([row])).sample[:, :4]
        t = at(300)
        expected = (x - prior.schedule.sigma(t).float() * raw) / prior.schedule.alpha(t).float()
        assert torch.allclose(prior.denoise(x, t, condition), expected, atol=1e-4)
    assert prior.classes == 6


def test_nothing_of_the_folder_is_imported(tmp_path: Path) -> None:
    models.pixel(tmp_path)
    (tmp_path / "unet" / "diffusers.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "unet" / "my_unet.py").write_text("raise RuntimeError('imported')")
    models.edit(tmp_path / "unet" / "config.json", auto_map={"AutoModel": "my_unet.MyUNet"}, _name_or_path="no/where")
    load_prior(tmp_path, device="cpu").denoise(noise(1, 3, 8, 8), 0.5)
    assert "my_unet" not in sys.modules


# -- the reference outputs of the original programs --------------------------------------------------------------------


@pytest.fixture(params=["ddpm", "ldm_vq", "sd_eps", "sd_v_zsnr", "sd3_flow"])
def reference(request: pytest.FixtureRequest, shared: Path) -> tuple[Path, dict[str, torch.Tensor], dict[str, Any]]:
    folder = shared / "data" / "checkpoints" / "diffusers"
    name = f"diffusers_{request.param}"
    if not (folder / name).is_dir():
        pytest.skip("../shared/data/checkpoints/diffusers is not here")
    with np.load(folder / f"{name}.npz") as arrays:
        values = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return folder / name, values, json.loads((folder / f"{name}.json").read_text())


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def test_reference_outputs(reference: tuple[Path, dict[str, torch.Tensor], dict[str, Any]]) -> None:
    folder, values, about = reference
    flags = {"max_sequence_length": 32} if "pooled_prompt_embeds" in values else None
    prior = load_prior(folder, flags=flags, device="cpu")
    denoiser = getattr(prior, "inner", prior)
    times = (values["t"].double() + 1) / 1000 if "t" in values else values["sigma"].double()
    prompts = about.get("prompts", [None] * len(times))
    for row, (t, prompt) in enumerate(zip(times, prompts, strict=True)):
        x, condition = values["x"][row : row + 1], prior.condition(prompt=prompt)
        for key, name in (("prompt_embeds", "states"), ("pooled_prompt_embeds", "pooled")):
            if key in values:
                assert relative(condition[name][0], values[key][row]) < 1e-5
        assert relative(denoiser._raw(x, t[None], condition)[0], values["raw"][row]) < 1e-5
        assert relative(prior.denoise(x, t, condition)[0], values["x0"][row]) < 1e-5
        if "x0_guided_7_5" in values:
            guided = CFGPrior(prior, prompt=prompt, scale=7.5).denoise(x, t)
            assert relative(guided[0], values["x0_guided_7_5"][row]) < 1e-4
    if "image" in values:
        assert relative(prior.encode(values["image"]), values["latent"]) < 1e-4
        assert relative(prior.decode(values["latent"]), values["decoded"]) < 5e-4
    if "sampling_sigmas_10" in values:
        assert torch.allclose(prior.schedule.grid(10).float(), values["sampling_sigmas_10"], atol=1e-6)
        full = load_prior(folder, device="cpu")
        condition = full.condition(prompt=prompts[0])
        assert (
            relative(full.inner._raw(values["x"][:1], times[:1], condition)[0], values["raw_t5_length_256"][0]) < 1e-5
        )
