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
    *("clip_sample", "clip_sample_range", "dynamic_thresholding_ratio", "invert_sigmas", "lambda_min_clipped"),
    *("sample_max_value", "set_alpha_to_one", "skip_prk_steps", "steps_offset", "stochastic_sampling", "thresholding"),
    *("use_beta_sigmas", "use_exponential_sigmas", "use_karras_sigmas", "snr", "sampling_eps", "correct_steps"),
    *("solver_order", "lower_order_final", "euler_at_final", "use_lu_lambdas"),
    # training, and generation of texts
    *("dropout", "attention_dropout", "classifier_dropout", "dropout_rate", "initializer_factor", "initializer_range"),
    *("bos_token_id", "pad_token_id", "num_decoder_layers", "is_decoder", "is_encoder_decoder", "use_cache"),
    *("scale_decoder_outputs", "tie_word_embeddings", "is_gated_act", "use_fp16", "epsilon_t", "use_ema"),
    *("training", "seed", "steps", "lr"),
    # what something else of the file says with more right, or what a network of another kind would need
    *("out_channels", "attn_resolutions", "addition_embed_type_num_heads", "class_embeddings_concat"),
    *("beta_start", "beta_end", "shift", "base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift"),
    *("sample_size", "lookup_from_codebook", "force_upcast", "num_train_timesteps", "model_max_length"),
    *("legacy", "add_bos_token", "dual_cross_attention", "projection_dim", "concat_mode", "scale_by_std"),
}
# Values that another model may well have: a prior, but not the same one.
LEGITIMATE = {
    ("downsample_padding", "0"),
    ("num_heads", "-1"),  # of guided-diffusion's command line: not given
    ("num_heads_upsample", "-1"),
    ("sigma_min", "0"),
    ("sigma_min", "-1"),
    ("sigma_max", "1000000000"),
    ("sigma_max", "1e+308"),
}
# Found by what they lead to, a tensor that does not fit, which the sentence names.
CONSEQUENCES = {"num_heads", "channel_mult", "attention_resolutions", "image_size", "n_embed", "attn_resolutions"}


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
        return names[-1] in IGNORED or value in ("None", "True", "0", "-1")
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
