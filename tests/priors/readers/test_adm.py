"""ADM checkpoints: published outputs come back, the architecture is read from the tensors, bad files are refused."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.samplers import DDPM
from priorpaint.diffusion.schedules import VP
from priorpaint.diffusion.transitions import backward_variance, forward, step_mean
from priorpaint.errors import CheckpointError, PriorpaintError, UsageError
from priorpaint.priors.base import Prior
from priorpaint.priors.network import NetworkPrior
from priorpaint.priors.networks.adm import ADM, ADMConfig, Heads
from priorpaint.priors.readers import adm
from priorpaint.priors.readers.base import Request
from tests.priors.readers.small_files import check_adversarial, damaged, filled, images, read_or_refuse, windowed

FILES = ("adm_256_uncond", "adm_32_plain_legacy", "adm_64_cond", "adm_64_uncond")
SMALL = ADMConfig(3, 3, 32, (32, 64), 1, frozenset({1}), "conv", False, Heads(2))
HEADS = {"num_heads": 2}


def read(path: Path, flags: Mapping[str, Any] = HEADS) -> Prior:
    return adm.read(Request(path, flags))


def write(path: Path, config: ADMConfig, *, zipped: bool = True, dtype: torch.dtype = torch.float32) -> ADM:
    network = filled(ADM(config))
    assert isinstance(network, ADM)
    state = windowed({name: value.to(dtype) for name, value in network.state_dict().items()})
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    return network.to(dtype).float()


class TestPublishedOutputs:
    @pytest.mark.parametrize("name", FILES)
    def test_raw_and_x0_come_back(self, shared: Path, name: str) -> None:
        """To 1e-4 of the largest value; x_0 to that times the factor by which it magnifies the network's rounding."""
        folder = shared / "data" / "checkpoints" / "adm"
        about = json.loads((folder / f"{name}.json").read_text())
        stored = {key: torch.from_numpy(value) for key, value in np.load(folder / f"{name}.npz").items()}
        prior = read(folder / f"{name}.pt", about["flags"])
        assert isinstance(prior, NetworkPrior)
        condition = prior.condition(label=stored.get("y"))
        t = (stored["t"].double() + 1) / about["conventions"]["T"]
        alpha, sigma = prior.schedule.alpha(t), prior.schedule.sigma(t)
        with torch.no_grad():
            raw = prior.network(stored["x"], stored["network_t"].float(), **condition)
            x_0 = prior.denoise(stored["x"], t, condition)
        assert float((raw - stored["raw"]).abs().max()) < 1e-4 * float(stored["raw"].abs().max())
        limit = 1e-4 * torch.clamp(sigma / alpha, min=1)[:, None, None, None]
        assert bool(((x_0 - stored["x0"]).abs() < limit).all())

    def test_what_the_files_say(self, shared: Path) -> None:
        folder = shared / "data" / "checkpoints" / "adm"
        prior = read(folder / "adm_64_cond.pt", json.loads((folder / "adm_64_cond.json").read_text())["flags"])
        assert isinstance(prior, NetworkPrior)
        assert (prior.shape, prior.multiple, prior.classes, prior.name) == ((3, 64, 64), 8, 1000, "adm_64_cond")
        assert prior.source == folder / "adm_64_cond.pt"
        assert prior.hash in (folder.parent / "SHA256SUMS").read_text()
        assert prior.facts["parameters"] == 4652966 == sum(weight.numel() for weight in prior.parameters())
        assert prior.facts["betas"] == "cosine"
        assert prior.facts["channel_mult"] == [1, 2, 3, 4]
        json.dumps(prior.facts)
        with pytest.raises(UsageError, match="class"):
            prior.denoise(images(1, 3, 32, 32), 0.5)


def variants() -> list[Any]:
    """Networks that differ in each thing that the tensors show."""
    wide = (64, 64, 128)
    actual = {
        "plain": (SMALL, HEADS),
        "one level": (ADMConfig(3, 3, 32, (32,), 2, frozenset(), "conv", True, Heads(4)), {"num_heads": 4}),
        "three blocks": (ADMConfig(3, 6, 32, (32, 32), 3, frozenset({0}), "block", True, Heads(1, 16)), {}),
        "resampled by blocks": (ADMConfig(3, 6, 64, wide, 2, frozenset({1, 2}), "block", True, Heads(1, 32)), {}),
        "resampled without weights": (ADMConfig(1, 2, 32, (32, 64), 2, frozenset(), "pool", False, Heads(4)), {}),
        "half at the top": (ADMConfig(3, 3, 64, (32, 64), 1, frozenset({1}), "conv", False, Heads(2)), {}),
        "classes": (ADMConfig(3, 3, 32, (32, 64), 1, frozenset(), "block", False, Heads(2), 7), {}),
        "other decoder heads": (
            ADMConfig(3, 3, 32, (32, 64), 1, frozenset({1}), "conv", False, Heads(2, None, 8)),
            {"num_heads_upsample": 8},
        ),
        "new order": (
            ADMConfig(3, 3, 32, (32, 64), 1, frozenset({1}), "conv", False, Heads(4, None, None, True)),
            {"num_heads": "4", "use_new_attention_order": "True"},
        ),
    }
    return [pytest.param(*value, id=key) for key, value in actual.items()]


class TestArchitecture:
    @pytest.mark.parametrize(("config", "flags"), variants())
    def test_it_is_read_from_the_tensors(self, tmp_path: Path, config: ADMConfig, flags: dict[str, Any]) -> None:
        """The configuration that wrote the file, and the same output for the same input."""
        network = write(tmp_path / "a.pt", config)
        width = {} if config.heads.width is None else {"num_head_channels": config.heads.width}
        prior = read(tmp_path / "a.pt", {"num_heads": config.heads.count, **width, **flags})
        assert isinstance(prior, NetworkPrior)
        for name in ("in_channels", "out_channels", "model_channels", "levels", "blocks", "attention", "classes"):
            assert getattr(prior.network.config, name) == getattr(config, name), name
        x, t = images(2, config.in_channels, 16, 16), torch.tensor([3.0, 500.0])
        labels = (torch.tensor([0, config.classes - 1]),) if config.classes else ()
        torch.testing.assert_close(prior.network(x, t, *labels), network(x, t, *labels))

    @pytest.mark.parametrize("zipped", [True, False])
    def test_half_floats_in_either_container(self, tmp_path: Path, zipped: bool) -> None:
        network = write(tmp_path / "a.pt", SMALL, zipped=zipped, dtype=torch.float16)
        x, t = images(1, 3, 8, 8), torch.tensor([40.0])
        prior = read(tmp_path / "a.pt")
        assert isinstance(prior, NetworkPrior)
        torch.testing.assert_close(prior.network(x, t), network(x, t))

    def test_in_another_type(self, tmp_path: Path) -> None:
        write(tmp_path / "a.pt", SMALL)
        x = images(1, 3, 8, 8)
        exact = read(tmp_path / "a.pt").denoise(x, 0.3)
        prior = adm.read(Request(tmp_path / "a.pt", HEADS, dtype=torch.bfloat16))
        assert prior.denoise(x, 0.3).dtype == torch.float32
        assert 0 < float((prior.denoise(x, 0.3) - exact).abs().max()) < 0.1 * float(exact.abs().max())

    def test_attention_heads_change_the_result_as_the_flags_say(self, tmp_path: Path) -> None:
        write(tmp_path / "a.pt", SMALL)
        x = images(1, 3, 8, 8)
        flags: list[dict[str, Any]] = [{"num_heads": 2}, {"num_heads": 4}, {"num_head_channels": 32}]
        flags += [{"num_heads": 2, "use_new_attention_order": True}, {"num_heads": 4, "num_head_channels": 32}]
        two, four, wide, new, both = (read(tmp_path / "a.pt", condition).denoise(x, 0.5) for condition in flags)
        torch.testing.assert_close(two, wide)
        torch.testing.assert_close(two, both)
        assert float((two - four).abs().max()) > 1e-3
        assert float((two - new).abs().max()) > 1e-3

    @pytest.mark.parametrize("steps", [50, 1000, 4000])
    @pytest.mark.parametrize("schedule", ["linear", "cosine"])
    def test_times_sit_on_the_table(self, tmp_path: Path, steps: int, schedule: str) -> None:
        """The network is told the index of the noise level, or that times 1000 / steps."""
        write(tmp_path / "a.pt", SMALL)
        flags = {**HEADS, "noise_schedule": schedule, "diffusion_steps": steps}
        prior = read(tmp_path / "a.pt", flags)
        assert isinstance(prior, NetworkPrior) and isinstance(prior.schedule, VP)
        torch.testing.assert_close(prior.schedule.betas, VP(schedule, steps).betas)
        index = torch.tensor([0, 1, steps // 2, steps - 1], dtype=torch.float64)
        torch.testing.assert_close(prior._condition((index + 1) / steps), index)
        scaled = read(tmp_path / "a.pt", {**flags, "rescale_timesteps": True})
        assert isinstance(scaled, NetworkPrior)
        torch.testing.assert_close(scaled._condition((index + 1) / steps), index * 1000 / steps)

    def test_a_network_that_predicts_the_picture(self, tmp_path: Path) -> None:
        network = write(tmp_path / "a.pt", SMALL)
        x = images(1, 3, 8, 8)
        actual = read(tmp_path / "a.pt", {**HEADS, "predict_xstart": True}).denoise(x, 0.5)
        torch.testing.assert_close(actual, network(x, torch.tensor([499.0])))


class TestFlags:
    def test_heads_must_be_said(self, tmp_path: Path) -> None:
        write(tmp_path / "a.pt", SMALL)
        with pytest.raises(UsageError, match="num_head_channels"):
            read(tmp_path / "a.pt", {})

    @pytest.mark.parametrize(
        "flags",
        [
            {"num_channels": 64},
            {"num_res_blocks": 2},
            {"channel_mult": "1,3"},
            {"resblock_updown": True},
            {"use_scale_shift_norm": "True"},
            {"class_cond": True},
            {"learn_sigma": True},
            {"image_size": 32, "channel_mult": "1,2", "attention_resolutions": "32"},
            {"image_size": 256},
            {"num_head_channels": 24},
            {"num_heads": 3},
            {"num_heads_upsample": 7},
        ],
    )
    def test_contradictions_between_flags_and_tensors(self, tmp_path: Path, flags: dict[str, Any]) -> None:
        """Refused, naming the flag or the tensor that shows it."""
        write(tmp_path / "a.pt", SMALL)
        named = "out.2.weight" if "learn_sigma" in flags else next(reversed(flags)).split("_up")[0]
        with pytest.raises(CheckpointError, match=named):
            read(tmp_path / "a.pt", {**HEADS, **flags})

    def test_true_flags_are_accepted_as_words(self, tmp_path: Path) -> None:
        write(tmp_path / "a.pt", SMALL)
        words = (
            "image_size 16 num_channels 32 num_res_blocks 1 channel_mult 1,2 attention_resolutions 8 num_heads 2 "
            "learn_sigma False resblock_updown False use_scale_shift_norm False class_cond False dropout 0.1 "
            "use_fp16 True timestep_respacing 250 num_head_channels -1 num_heads_upsample -1"
        ).split()
        prior = read(tmp_path / "a.pt", dict(zip(words[::2], words[1::2], strict=True)))
        assert prior.shape == (3, 16, 16)

    @pytest.mark.parametrize(
        "flags",
        [
            {"num_head": 2},
            {"num_heads": "two"},
            {"num_heads": 0},
            {"noise_schedule": "sqrt"},
            {"diffusion_steps": 0},
            {"learn_sigma": "maybe"},
            {"channel_mult": "1;2"},
        ],
    )
    def test_flags_that_are_none(self, tmp_path: Path, flags: dict[str, Any]) -> None:
        write(tmp_path / "a.pt", SMALL)
        with pytest.raises(UsageError, match=next(iter(flags))):
            read(tmp_path / "a.pt", {**HEADS, **flags})

    def test_published_files_need_no_flags(self, tmp_path: Path) -> None:
        """By their name; the tensors are compared with the README's flags."""
        path = tmp_path / "64x64_diffusion.pt"
        write(path, SMALL)
        with pytest.raises(CheckpointError, match="num_channels says 192"):
            read(path, {})


class TestLearnedVariance:
    CONFIG = ADMConfig(3, 6, 32, (32, 64), 1, frozenset(), "block", True, Heads(1, 32))

    def prior(self, path: Path) -> Prior:
        write(path / "a.pt", self.CONFIG)
        return read(path / "a.pt", {"num_head_channels": 32})

    def test_one_evaluation_gives_both(self, tmp_path: Path) -> None:
        prior = self.prior(tmp_path)
        assert isinstance(prior, NetworkPrior)
        x = images(2, 3, 8, 8)
        out = prior.evaluate(x, 0.25)
        x_0, share = out.mean, out.variance_share
        assert prior.nfe.forward == 2
        torch.testing.assert_close(x_0, prior.denoise(x, 0.25))
        raw = prior.network(x, torch.tensor([249.0, 249.0]))
        assert share is not None
        torch.testing.assert_close(share, (raw[:, 3:] + 1) / 2)

    def test_ancestral_steps_use_it(self, tmp_path: Path) -> None:
        """x_s = mean + exp((v log beta + (1 - v) log beta-tilde) / 2) z, element by element."""
        prior = self.prior(tmp_path)
        x, t, s = images(1, 3, 8, 8), torch.tensor(0.5).double(), torch.tensor(0.4).double()
        x_s, x_0 = DDPM(steps=5).step(prior, x, t, s, Streams([7]))
        z = Streams([7]).normal_like(x)
        share = prior.evaluate(x, t).variance_share
        assert share is not None
        large = forward(prior.schedule, s, t)[1].log()
        small = backward_variance(prior.schedule, t, s).log()
        std = torch.exp((share * float(large) + (1 - share) * float(small)) / 2)
        torch.testing.assert_close(x_s, step_mean(prior.schedule, x, x_0, t, s) + std * z)
        assert float((x_s - x_0).abs().max()) > 0

    def test_a_network_without_it_has_the_small_variance(self, tmp_path: Path) -> None:
        write(tmp_path / "a.pt", SMALL)
        prior = read(tmp_path / "a.pt")
        x = images(1, 3, 8, 8)
        out = prior.evaluate(x, 0.25)
        x_0, share = out.mean, out.variance_share
        assert share is None
        torch.testing.assert_close(x_0, prior.denoise(x, 0.25))
        assert DDPM(steps=3)(prior, x, Streams([1])).isfinite().all()


class TestRefused:
    @pytest.fixture
    def state(self) -> dict[str, Tensor]:
        return dict(filled(ADM(SMALL)).state_dict())

    def refused(self, path: Path, state: Mapping[str, Any], words: str, flags: Mapping[str, Any] = HEADS) -> None:
        torch.save(dict(state), path / "a.pt")
        with pytest.raises(CheckpointError, match=words):
            read(path / "a.pt", flags)

    def test_each_missing_part_is_named(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        """Any tensor, and any block: the shape of the network is then known from the others."""
        prefixes = {name.rsplit(".", 2)[0] for name in state if name.count(".") >= 3} | set(list(state)[::9])
        for prefix in sorted(prefixes)[::4]:
            left = {name: value for name, value in state.items() if not name.startswith(prefix)}
            self.refused(tmp_path, left, r"(missing|lacks|number of blocks|out\.2|no diffusion|shape)")

    def test_wrong_shapes(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        for name in list(state)[::11]:
            longer = torch.cat([state[name], state[name]])
            self.refused(tmp_path, {**state, name: longer}, r"expected|corrects|correct")

    def test_further_tensors(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        self.refused(tmp_path, {**state, "middle_block.1.extra": torch.ones(1)}, "middle_block.1.extra")
        for name in ("output_blocks.9.0.x", "input_blocks.99.0.in_layers.0.weight", "input_blocks.4.0.x", "out.3.x"):
            self.refused(tmp_path, {**state, name: torch.ones(1)}, name)

    def test_values_that_are_not_finite(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        state["out.2.bias"][1] = float("nan")
        self.refused(tmp_path, state, "out.2.bias")

    def test_other_dictionaries(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        self.refused(tmp_path, {"state_dict": state, "epoch": 3}, r"epoch \(int\)")
        self.refused(tmp_path, {}, "not hold a diffusion U-Net")
        self.refused(tmp_path, {**state, "out.2.bias": torch.ones(3, dtype=torch.long)}, "int64")

    def test_upsamplers(self, tmp_path: Path) -> None:
        write(tmp_path / "a.pt", ADMConfig(6, 6, 32, (32,), 1, frozenset(), "conv", False, Heads(2)))
        with pytest.raises(CheckpointError, match="6 channels"):
            read(tmp_path / "a.pt")

    def test_damage(self, tmp_path: Path) -> None:
        """Truncations and changed bits: refused, or (in the old container, which has no checksums) the same shapes."""
        path = tmp_path / "a.pt"
        small = ADMConfig(3, 3, 32, (32,), 1, frozenset(), "conv", False, Heads(2))
        write(path, small, zipped=False)
        data = path.read_bytes()
        for length in (100, 1000, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:length])
            assert read_or_refuse(read, path) is None
        refused = 0
        for changed in damaged(data[:12000], seed=3, count=25):
            path.write_bytes(changed + data[12000:])
            refused += read_or_refuse(read, path) is None
        assert refused > 3


class TestAdversarial:
    def test_all_are_refused_within_little_memory(self, shared: Path) -> None:
        """In a process of its own whose memory is limited; nothing runs, and the message says what was found."""
        words = {
            "adm_truncated.pt": "incomplete",
            "adm_wrong_arch.pt": "not hold a diffusion U-Net",
            "adm_missing_keys.pt": "middle_block.0.in_layers",
            "adm_wrong_shape.pt": r"out.2.weight (expected (3, 32, 3, 3), found (32, 3, 3, 3))",
            "adm_extra_key.pt": "label_emb.weight",
            "adm_zip_bomb.pt": "compressed record",
            "adm_stride_bomb.pt": "(1048576, 524288)",
            "adm_html_page.pt": "a web page",
            "adm_empty.pt": "an empty file",
            "adv_adm_reduce.pt": "posix.system",
            "adv_adm_legacy_reduce.pt": "exec",
        }
        check_adversarial("adm", shared, words, flags=HEADS)


def test_every_error_is_of_the_project(tmp_path: Path) -> None:
    for content in (b"", b"\x80", b"PK\x03\x04", os.urandom(0) + b"\x80\x02."):
        (tmp_path / "a.pt").write_bytes(content)
        with pytest.raises(PriorpaintError):
            read(tmp_path / "a.pt")
