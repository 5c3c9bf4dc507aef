"""Every number of every configuration set to 0, -1, 10^9 and to what is no number: one sentence that names it, within
little memory, or, where the value is harmless, a prior that runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.priors.readers.changed_settings import KINDS, run

MEGABYTES = 1000
# What no prior has a use for: the same prior whatever they say.
IGNORED = {
    # samplers of diffusers, not the noise that a network was trained with
    *("clip_sample", "clip_sample_range", "correct_steps", "dynamic_thresholding_ratio", "invert_sigmas"),
    *("sample_max_value", "sampling_eps", "set_alpha_to_one", "skip_prk_steps", "snr", "steps_offset"),
    *("stochastic_sampling", "thresholding", "use_beta_sigmas", "use_exponential_sigmas", "use_karras_sigmas"),
    # training, generation of texts, numbers of words that the tokeniser has with more right
    *("attention_dropout", "bos_token_id", "classifier_dropout", "dropout", "dropout_rate", "epsilon_t"),
    *("initializer_factor", "initializer_range", "is_decoder", "is_encoder_decoder", "is_gated_act"),
    *("num_decoder_layers", "pad_token_id", "scale_decoder_outputs", "tie_word_embeddings", "use_cache", "use_fp16"),
    # a shift by the number of tokens, in a schedule with a fixed one; the fixed one, in a schedule with the other
    *("base_image_seq_len", "base_shift", "max_image_seq_len", "max_shift", "shift"),
    # what the tensors or the blocks of the file say with more right, and ends that are never reached
    *("attn_resolutions", "block_out_channels", "eos_token_id", "image_size", "latent_shift", "model_max_length"),
    "out_channels",
}
# Values that another model may well have: a prior, but not the same one.
LEGITIMATE = {
    ("downsample_padding", "0"),
    ("latents_mean", "0"),
    ("latents_mean", "-1"),
    ("shift_factor", "-1"),
    ("shift_factor", "0"),
    ("num_heads", "-1"),  # of guided-diffusion's command line: not given
    ("num_heads_upsample", "-1"),
    ("sigma_min", "0"),
    ("sigma_min", "-1"),
    ("sigma_max", "1000000000"),
    ("sigma_max", "1e+308"),
}
# Found by what they lead to: tensors that do not fit, which the sentence names.
CONSEQUENCES = {
    *("attention_resolutions", "attn_resolutions", "blocks", "channel_mult", "channels", "classes", "dropout_rate"),
    *("embedding", "image_size", "in_channels", "is_gated_act", "latent_channels", "n_embed", "num_heads"),
}


def check(lines: list[list[Any]]) -> None:
    """That each change ended as it should; at least one was refused."""
    wrong = [line for line in lines if not _right(*line)]
    assert not wrong, "\n".join(map(str, wrong))
    assert any(line[3].startswith("refused: ") for line in lines)


def _right(document: str, where: str, value: str, outcome: str, megabytes: int) -> bool:
    names = [part for part in where.split(".") if not part.isdigit()]
    if megabytes >= MEGABYTES:
        return False
    if outcome.startswith("refused: "):
        one = "\n" not in outcome and len(outcome) < 1500 and "allocate" not in outcome
        return one and (names[-1] in outcome or names[-1] in CONSEQUENCES or value == "None")
    if outcome == "same":
        return names[-1] in IGNORED or value in ("None", "True", "0") or (names[-1], value) in LEGITIMATE
    return outcome == "different" and ((names[-1], value) in LEGITIMATE or value == "None")


@pytest.mark.parametrize("kind", ["pixels", "edm", "own latent"])
def test_a_change_of_each_number(tmp_path: Path, kind: str) -> None:
    documents = KINDS[kind].make(tmp_path / "model")
    check([line for document in documents for line in run(document, every=False)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_all_changes(tmp_path: Path, kind: str) -> None:
    """In a process of its own, whose peak of memory is then that of the changes."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.priors.readers.changed_settings", kind, str(tmp_path)]
    root = Path(__file__).parents[3]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "every"], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    check([json.loads(line) for line in done.stdout.splitlines()])
