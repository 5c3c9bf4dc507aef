"""Text encoders of diffusers folders: a prompt becomes what the network of the same folder was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from .base import short
from .diffusers_folder import Folder, build, fill, quiet
from .diffusers_settings import check_text
from .untrusted.reading import named

_MOST_TOKENIZER = 64 * 2**20
_USUAL_LENGTH = 512
_UNUSED_WORDS = 0.02  # of an encoder's: T5 rounds their number up
_OLD_END = 2  # "eos_token_id" of CLIP's old configurations, which means the last word
# What a tokeniser is made of: all files of one of these groups.
_VOCABULARIES = {
    "CLIP": (("tokenizer.json",), ("vocab.json", "merges.txt")),
    "T5": (("tokenizer.json",), ("spiece.model",)),
}


@dataclass(frozen=True)
class Encoder:
    """One text encoder with its tokeniser.

    Attributes:
        tokenizer: of transformers, from files in the model's folder only.
        network: a CLIP or T5 encoder.
        length: tokens that every text is padded or cut to.
        masked: whether padding is hidden from attention.
        device: where it computes; None is where its weights are.
    """

    tokenizer: Any
    network: nn.Module
    length: int
    masked: bool
    device: torch.device | None = None

    def run(self, prompt: str) -> Any:
        """The encoder's outputs for one prompt, with all hidden states."""
        with quiet():
            tokens = self.tokenizer(
                prompt, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
            )
        device = self.device or next(self.network.parameters()).device
        mask = tokens.attention_mask.to(device) if self.masked else None
        with torch.no_grad():
            return self.network(tokens.input_ids.to(device), attention_mask=mask, output_hidden_states=True)


def read_encoder(folder: Folder, suffix: str, device: torch.device, dtype: torch.dtype, length: int = 0) -> Encoder:
    """The part ``text_encoder`` + suffix with ``tokenizer`` + suffix.

    Args:
        suffix: "", "_2" or "_3".
        length: tokens of a text; 0 is the tokeniser's own.

    Raises:
        CheckpointError: the files are missing or damaged.
    """
    import transformers

    name, words = f"text_encoder{suffix}", f"tokenizer{suffix}"
    for part in (name, words):
        if part not in folder.index:
            raise CheckpointError(f"{folder.root} has no {part}, which its network needs; download the whole model.")
    if (loaded := folder.ready(name)) is not None:
        return _encoder(folder.ready(words), loaded, length, device)
    cls = getattr(transformers, folder.index[name])
    config = folder.config(name)
    for key in ("dtype", "torch_dtype"):
        config.pop(key, None)
    where = folder.path(name)
    state = folder.weights(name, "transformers")

    def make(settings: Mapping[str, Any]) -> nn.Module:
        network: nn.Module = cls(cls.config_class(**settings))
        return network

    check_text(config, where, state)
    network = build(cls, make, config, where)
    if folder.index[name] == "T5EncoderModel" and dtype == torch.float16:
        dtype = torch.bfloat16  # T5 overflows in float16
    fill(network, _renamed(state, network), where, dtype, device)
    if hasattr(network, "tie_weights"):
        network.tie_weights()  # type: ignore[operator]
    tokenizer = _tokenizer(folder, words)
    _check_words(tokenizer, network.config, folder.root / words, where)
    return _encoder(tokenizer, network, length)


def _encoder(tokenizer: Any, network: nn.Module, length: int, device: torch.device | None = None) -> Encoder:
    config: Any = network.config
    most = getattr(config, "max_position_embeddings", None) or _USUAL_LENGTH
    own = min(int(tokenizer.model_max_length), int(most))
    return Encoder(tokenizer, network, length or own, bool(getattr(config, "use_attention_mask", False)), device)


def _renamed(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Tensor names of older and newer transformers releases as the installed one calls them."""
    wanted = network.state_dict()
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith("embeddings.position_ids"):
            continue  # a counter that old releases saved
        bare = key.removeprefix("text_model.")
        out[next((name for name in (key, bare, f"text_model.{bare}") if name in wanted), key)] = value
    # T5 has one embedding under two names and saves one of them.
    for one, other in (
        ("shared.weight", "encoder.embed_tokens.weight"),
        ("encoder.embed_tokens.weight", "shared.weight"),
    ):
        if one in wanted and one not in out and other in out:
            out[one] = out[other]
    return out


def _tokenizer(folder: Folder, name: str) -> Any:
    import transformers

    path = folder.root / name
    files = sorted(file for file in path.glob("*") if file.is_file()) if path.is_dir() else []
    if not files:
        raise CheckpointError(f"the tokeniser {path} is missing; download the whole model again.")
    held = {file.name for file in files}
    groups = next(groups for kind, groups in _VOCABULARIES.items() if folder.index[name].startswith(kind))
    if not any(held.issuperset(group) for group in groups):
        wanted = " or ".join(" and ".join(group) for group in groups)
        raise CheckpointError(f"the tokeniser {path} has no vocabulary ({wanted}); download the whole model again.")
    for file in files:
        if file.stat().st_size > _MOST_TOKENIZER:
            raise CheckpointError(f"{file} is larger than any tokeniser ({file.stat().st_size} bytes).")
        if file.suffix in (".json", ".txt", ".model"):
            folder.note(file)
    try:
        with quiet():
            cls = getattr(transformers, folder.index[name])
            return cls.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever damaged files run into inside transformers
        raise CheckpointError(f"the tokeniser {path} cannot be read ({named(error)}).") from None


def _check_words(tokenizer: Any, config: Any, path: Path, encoder: Path) -> None:
    """That a tokeniser and its encoder know the same words: with few, all prompts would become the same text."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    highest = max((index for word, index in tokenizer.get_vocab().items() if word not in added), default=-1)
    words, known = tokenizer.vocab_size, config.vocab_size
    if not (1 - _UNUSED_WORDS) * known <= words <= known or highest >= known:
        raise CheckpointError(
            f"the tokeniser {path} has {words} words, up to the number {highest}, and vocab_size of {encoder} is "
            f"{known}; expected the same, so download the whole model again."
        )
    length = tokenizer.model_max_length
    if isinstance(length, bool) or not isinstance(length, (int, float)) or not length >= 2:
        raise CheckpointError(f"{path}: model_max_length is {short(length)}; expected a number of words, at least 2.")
    end = getattr(config, "eos_token_id", None)
    if config.model_type.startswith("clip") and end not in (_OLD_END, tokenizer.eos_token_id):
        raise CheckpointError(
            f"{encoder}: eos_token_id is {short(end)} and the end of a text of its tokeniser is "
            f"{tokenizer.eos_token_id}; expected the same."
        )


@dataclass(frozen=True)
class Text:
    """Makes the condition of a network from a prompt; None is the unconditional state."""

    encoders: tuple[Encoder, ...]

    def __call__(self, labels: Tensor | None, prompt: str | None) -> dict[str, Tensor]:
        raise NotImplementedError


class StableDiffusionText(Text):
    """Prompts of Stable Diffusion 1.x and 2.x: CLIP's last hidden state, (1, 77, dim)."""

    def __call__(self, labels: Tensor | None, prompt: str | None) -> dict[str, Tensor]:
        return {"states": self.encoders[0].run(prompt or "")[0]}


@dataclass(frozen=True)
class SDXLText(Text):
    """Prompts of SDXL: the last hidden state but one of both encoders, and the pooled text of the second.

    Attributes:
        encoders: one or two.
        zeros: whether the state without a prompt is zeros (``force_zeros_for_empty_prompt``) and not the empty text.
    """

    zeros: bool

    def __call__(self, labels: Tensor | None, prompt: str | None) -> dict[str, Tensor]:
        outs = [encoder.run(prompt or "") for encoder in self.encoders]
        text = {"states": torch.cat([out.hidden_states[-2] for out in outs], dim=-1), "pooled": outs[-1][0]}
        if prompt is None and self.zeros:
            return {name: torch.zeros_like(value) for name, value in text.items()}
        return text


@dataclass(frozen=True)
class SD3Text(Text):
    """Prompts of Stable Diffusion 3: both CLIPs side by side, padded to T5's width, then T5's rows; pooled CLIPs.

    Attributes:
        encoders: the two CLIPs, and T5 or zeros in its place, as the model allows.
        length: rows of T5.
        width: of the joint text states.
    """

    length: int
    width: int

    def __call__(self, labels: Tensor | None, prompt: str | None) -> dict[str, Tensor]:
        outs = [clip.run(prompt or "") for clip in self.encoders[:2]]
        clip = torch.cat([out.hidden_states[-2] for out in outs], dim=-1)
        clip = nn.functional.pad(clip, (0, self.width - clip.shape[-1]))
        rows = [t5.run(prompt or "")[0] for t5 in self.encoders[2:]] or [clip.new_zeros(1, self.length, self.width)]
        return {
            "states": torch.cat([clip, rows[0].to(clip)], dim=1),
            "pooled": torch.cat([out[0] for out in outs], dim=-1),
        }


class FluxText(Text):
    """Prompts of Flux: T5's rows, and CLIP's pooled text."""

    def __call__(self, labels: Tensor | None, prompt: str | None) -> dict[str, Tensor]:
        clip, t5 = self.encoders
        return {"states": t5.run(prompt or "")[0], "pooled": clip.run(prompt or "").pooler_output}
