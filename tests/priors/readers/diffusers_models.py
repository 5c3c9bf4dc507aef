"""Small diffusers folders with random weights, written by diffusers itself."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the libraries say while they are imported is not ours to fix
    import diffusers
    import transformers

WORDS = ("a", "photo", "of", "cat", "dog", "red")
DDPM = {"num_train_timesteps": 1000, "beta_schedule": "linear", "prediction_type": "epsilon"}


def randomised(module: torch.nn.Module, seed: int = 0) -> Any:
    """Every weight random, also those that start as zeros, so that a misplaced one is seen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            scale = 0.3 / max(1, weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.1
            weight.copy_(scale * torch.randn(weight.shape, generator=generator) + (name.endswith("norm.weight")))
    return module.eval().requires_grad_(False)


def unet(**settings: Any) -> Any:
    usual = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    return randomised(diffusers.UNet2DModel(**{**usual, **settings}))


def text_unet(width: int, **settings: Any) -> Any:
    usual = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "cross_attention_dim": width,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return randomised(diffusers.UNet2DConditionModel(**{**usual, **settings}), 1)


CODEC = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
}


def kl(**settings: Any) -> Any:
    usual = {**CODEC, "latent_channels": 4, "sample_size": 16}
    return randomised(diffusers.AutoencoderKL(**{**usual, **settings}), 2)


def vq(**settings: Any) -> Any:
    usual = {**CODEC, "latent_channels": 3, "num_vq_embeddings": 32, "scaling_factor": 0.7}
    return randomised(diffusers.VQModel(**{**usual, **settings}), 3)


def clip(width: int, *, projected: bool, seed: int = 4) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=len(_vocabulary()), hidden_size=width, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, projection_dim=width,
        bos_token_id=len(_vocabulary()) - 2, eos_token_id=len(_vocabulary()) - 1, pad_token_id=len(_vocabulary()) - 1,
    )  # fmt: skip
    cls = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return randomised(cls(config), seed)


def t5(width: int) -> Any:
    config = transformers.T5Config(
        vocab_size=len(WORDS) + 3, d_model=width, d_kv=4, d_ff=16, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return randomised(transformers.T5EncoderModel(config), 5)


def clip_tokenizer(folder: Path) -> None:
    """vocab.json and merges.txt of a CLIP tokeniser that knows `WORDS` by their letters."""
    folder.mkdir(parents=True)
    table = {token: index for index, token in enumerate(_vocabulary())}
    (folder / "vocab.json").write_text(json.dumps(table))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(_merges()) + "\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def t5_tokenizer(folder: Path) -> None:
    """A T5 tokeniser with one token a word."""
    import tokenizers

    table = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁{word}", -2.0) for word in WORDS)]
    unigram = tokenizers.Tokenizer(tokenizers.models.Unigram(table, unk_id=2))
    unigram.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    unigram.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=unigram, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=32
    )
    fast.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "T5Tokenizer"}))


def save(folder: Path, scheduler: Any, settings: dict[str, Any] | None = None, **parts: Any) -> Path:
    """A folder with model_index.json; a part that is None is written as absent, one that is a str is a tokeniser."""
    index: dict[str, Any] = {"_class_name": "AnyPipeline", "_diffusers_version": "0.42.1", **(settings or {})}
    for name, part in {"scheduler": scheduler, **parts}.items():
        if part is None:
            index[name] = [None, None]
        elif isinstance(part, str):
            (clip_tokenizer if part == "CLIPTokenizer" else t5_tokenizer)(folder / name)
            index[name] = ["transformers", part]
        else:
            part.save_pretrained(folder / name)
            index[name] = [type(part).__module__.split(".")[0], type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def pixel(folder: Path, **settings: Any) -> Any:
    """Write a pixel U-Net with its DDPM scheduler; the network."""
    network = unet(**settings)
    save(folder, diffusers.DDPMScheduler(**DDPM), unet=network)
    return network


def latent_vq(folder: Path) -> Path:
    """Latent diffusion with a codebook, f = 2."""
    return save(folder, diffusers.DDIMScheduler(), vqvae=vq(), unet=unet())


def stable_diffusion(folder: Path) -> Path:
    """The layout of Stable Diffusion 1 and 2."""
    return save(
        folder, diffusers.PNDMScheduler(beta_schedule="scaled_linear", steps_offset=1), vae=kl(), unet=text_unet(8),
        text_encoder=clip(8, projected=False), tokenizer="CLIPTokenizer", safety_checker=None, feature_extractor=None,
    )  # fmt: skip


def sdxl(folder: Path, *, zeros: bool = True) -> Path:
    """The layout of SDXL; ``zeros``: whether no prompt is zeros."""
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    return save(
        folder, diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        {"force_zeros_for_empty_prompt": zeros}, vae=kl(),
        unet=text_unet(16, **added, projection_class_embeddings_input_dim=6 * 4 + 8),
        text_encoder=clip(8, projected=False), text_encoder_2=clip(8, projected=True, seed=9),
        tokenizer="CLIPTokenizer", tokenizer_2="CLIPTokenizer",
    )  # fmt: skip


def sd3(folder: Path, *, with_t5: bool = True) -> Any:
    """Write the layout of Stable Diffusion 3; the transformer."""
    transformer = randomised(
        diffusers.SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=4,
            num_attention_heads=2, joint_attention_dim=20, caption_projection_dim=8, pooled_projection_dim=16,
            pos_embed_max_size=8,
        )
    )  # fmt: skip
    save(
        folder, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06), transformer=transformer,
        text_encoder=clip(8, projected=True), text_encoder_2=clip(8, projected=True, seed=8),
        text_encoder_3=t5(20) if with_t5 else None, tokenizer="CLIPTokenizer", tokenizer_2="CLIPTokenizer",
        tokenizer_3="T5Tokenizer" if with_t5 else None,
    )  # fmt: skip
    return transformer


def flux(folder: Path, *, distilled: bool = True) -> Any:
    """Write the layout of Flux; the transformer."""
    transformer = randomised(
        diffusers.FluxTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=20, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4), guidance_embeds=distilled,
        )
    )  # fmt: skip
    save(
        folder, diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=kl(),
        transformer=transformer, text_encoder=clip(8, projected=False), text_encoder_2=t5(20),
        tokenizer="CLIPTokenizer", tokenizer_2="T5Tokenizer",
    )  # fmt: skip
    return transformer


def dit(folder: Path, classes: int = 6) -> Any:
    """Write DiT; the transformer."""
    transformer = randomised(
        diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=2, sample_size=8,
            num_embeds_ada_norm=classes, norm_num_groups=4,
        )
    )  # fmt: skip
    save(folder, diffusers.DDIMScheduler(), vae=kl(), transformer=transformer)
    return transformer


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _vocabulary() -> list[str]:
    letters = sorted(set("".join(WORDS)))
    merged = [merge.replace(" ", "") for merge in _merges()]
    return [*letters, *(f"{letter}</w>" for letter in letters), *merged, "<|startoftext|>", "<|endoftext|>"]


def _merges() -> list[str]:
    merges: list[str] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            if f"{pieces[0]} {pieces[1]}" not in merges:
                merges.append(f"{pieces[0]} {pieces[1]}")
            pieces = ["".join(pieces[:2]), *pieces[2:]]
    return merges
