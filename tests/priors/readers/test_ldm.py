"""CompVis checkpoints: published latents, noise and pictures come back; weights, YAML and flags must agree."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from priorpaint.diffusion.schedules import VP
from priorpaint.errors import CheckpointError, UsageError
from priorpaint.priors.cfg import CFGPrior
from priorpaint.priors.latent import LatentPrior
from priorpaint.priors.network import NetworkPrior
from priorpaint.priors.networks.adm import ADM, ADMConfig, Heads, Transformer
from priorpaint.priors.networks.autoencoder import AutoencoderConfig, LatentAutoencoder
from priorpaint.priors.readers import ldm
from priorpaint.priors.readers.base import Request
from tests.priors.readers.small_files import check_adversarial, damaged, filled, images, read_or_refuse

yaml = pytest.importorskip("yaml", reason="the YAML of these checkpoints needs PyYAML")

FILES = ("ldm_celebahq_vq4", "ldm_churches_kl8", "ldm_cin_vq4_crossattn")
UNET = ADMConfig(4, 4, 32, (32, 32), 1, frozenset({1}), "conv", False, Heads(2))
First = tuple[AutoencoderConfig, int, int]  # with the channels of the latent, and the number of codes
KL: First = AutoencoderConfig(3, 3, 32, 1, 4, 16, (1, 1)), 4, 0
VQ: First = AutoencoderConfig(3, 3, 32, 1, 4, 16, (1, 1), (8,), double_z=False), 4, 16


def read(path: Path, **flags: Any) -> LatentPrior:
    prior = ldm.read(Request(path, flags))
    assert isinstance(prior, LatentPrior)
    return prior


def denoiser(prior: LatentPrior) -> NetworkPrior:
    assert isinstance(prior.inner, NetworkPrior)
    return prior.inner


def configuration(first: First = KL, unet: ADMConfig = UNET, **more: Any) -> dict[str, Any]:
    """The YAML of a network, with the names of the published program."""
    heads, (pyramid, embed_dim, codes) = unet.heads, first
    shape: dict[str, Any] = {
        "image_size": 8,
        "in_channels": unet.in_channels,
        "out_channels": unet.out_channels,
        "model_channels": unet.model_channels,
        "attention_resolutions": [2**level for level in sorted(unet.attention)],
        "num_res_blocks": unet.blocks,
        "channel_mult": [width // unet.model_channels for width in unet.levels],
        "num_heads": heads.count,
        "use_scale_shift_norm": unet.scale_shift,
        "resblock_updown": unet.resampling == "block",
        "conv_resample": unet.resampling != "pool",
    }
    if unet.transformer:
        shape |= {
            "use_spatial_transformer": True,
            "transformer_depth": unet.transformer.depth,
            "context_dim": unet.transformer.context,
        }
    params: dict[str, Any] = {
        "linear_start": 0.0015,
        "linear_end": 0.0195,
        "timesteps": 1000,
        "image_size": 8,
        "channels": unet.in_channels,
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": shape},
        "first_stage_config": {
            "target": f"ldm.models.autoencoder.{'VQModelInterface' if codes else 'AutoencoderKL'}",
            "params": {
                "embed_dim": embed_dim,
                **({"n_embed": codes} if codes else {}),
                "ddconfig": {**asdict(pyramid), "dropout": 0.0},
                "lossconfig": {"target": "torch.nn.Identity"},
            },
        },
        "cond_stage_config": "__is_unconditional__",
        **more,
    }
    return {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}}


def tensors(first: First = KL, unet: ADMConfig = UNET) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in _tensors(first, unet).items()}


@lru_cache
def _tensors(first: First, unet: ADMConfig) -> dict[str, Tensor]:
    """A state_dict: raw weights and another network's as their moving average."""
    state = {f"model.diffusion_model.{name}": value for name, value in filled(ADM(unet), 1).state_dict().items()}
    average = filled(ADM(unet), 2).state_dict()
    state |= {f"model_ema.diffusion_model{name.replace('.', '')}": value for name, value in average.items()}
    state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7, dtype=torch.int32)}
    autoencoder = filled(LatentAutoencoder(*first, 1.0), 3).state_dict()
    return {**state, **{f"first_stage_model.{name}": value for name, value in autoencoder.items()}}


def write(path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> Path:
    torch.save({"epoch": 3, "global_step": 100, "state_dict": dict(state)}, path)
    path.with_suffix(".yaml").write_text(yaml.safe_dump(dict(config)))
    return path


class TestPublishedOutputs:
    @pytest.mark.parametrize("name", FILES)
    def test_all_outputs_come_back(self, shared: Path, name: str) -> None:
        """Noise and latents to 1e-4 of the largest value, pictures to 5e-4, guided estimates included."""
        folder = shared / "data" / "checkpoints" / "ldm"
        stored = {key: torch.from_numpy(value) for key, value in np.load(folder / f"{name}.npz").items()}
        about = json.loads((folder / f"{name}.json").read_text())
        prior = read(folder / f"{name}.ckpt")
        labels = stored.get("labels")
        t = (stored["t"].double() + 1) / 1000
        conditions = prior.condition(label=labels)
        pairs = []
        with torch.no_grad():
            raw = denoiser(prior).network(stored["x"], stored["t"].float(), **conditions)
            pairs.append((raw, stored["raw"], 1e-4))
            x_0 = prior.denoise(stored["x"], t, conditions)
            pairs.append((prior.encode(stored["image"]), stored["latent"], 1e-4))
            pairs.append((prior.decode(stored["latent"]), stored["decoded"], 5e-4))
            pairs.append((prior.decode(stored["z_clean"]), stored["decoded_x0"], 5e-4))
            if labels is not None:
                guided = CFGPrior(prior, label=labels, scale=3.0).denoise(stored["x"], t)
                pairs.append((guided, stored["x0_guided_3"], 1e-4))
                null = denoiser(prior).network(stored["x"], stored["t"].float(), torch.full((5,), 10))
                pairs.append((null, stored["raw_uncond"], 1e-4))
        for actual, wanted, limit in pairs:
            assert float((actual - wanted).abs().max()) < limit * float(wanted.abs().max())
        nsr = prior.schedule.sigma(t) / prior.schedule.alpha(t)
        limits = 1e-4 * nsr.clamp(min=1)[:, None, None, None]
        assert bool(((x_0 - stored["x0"]).abs() < limits).all())
        assert prior.facts["scale_factor"] == pytest.approx(about["scale_factor"]["value"], rel=1e-7)
        assert prior.facts["weights"] == "moving average"
        assert prior.facts["parameters"] == sum(weight.numel() for weight in prior.parameters())
        assert prior.hash in (folder.parent / "SHA256SUMS").read_text()
        json.dumps(prior.facts)

    def test_sizes(self, shared: Path) -> None:
        folder = shared / "data" / "checkpoints" / "ldm"
        prior = read(folder / "ldm_churches_kl8.ckpt")
        assert (prior.shape, prior.image_shape, prior.multiple) == ((4, 8, 8), (3, 64, 64), 2)


class TestFormat:
    @pytest.mark.parametrize(
        ("first", "unet"),
        [
            (KL, UNET),
            (VQ, ADMConfig(4, 4, 32, (32, 64, 64), 2, frozenset({0, 2}), "block", True, Heads(4))),
            (
                (AutoencoderConfig(1, 1, 32, 2, 4, 16, (1, 1, 2), (16, 4)), 2, 0),
                ADMConfig(2, 2, 64, (64,), 1, frozenset(), "conv", False, Heads(4)),
            ),
        ],
    )
    def test_networks_are_those_that_were_written(self, tmp_path: Path, first: First, unet: ADMConfig) -> None:
        prior = read(write(tmp_path / "a.ckpt", tensors(first, unet), configuration(first, unet)))
        x, t = images(2, unet.in_channels, 8, 8), torch.tensor([3.0, 700.0])
        torch.testing.assert_close(denoiser(prior).network(x, t), filled(ADM(unet), 2)(x, t))
        autoencoder = filled(LatentAutoencoder(*first, 1.0), 3)
        assert isinstance(autoencoder, LatentAutoencoder)
        image = images(2, first[0].in_channels, 16, 16)
        torch.testing.assert_close(prior.encode(image), autoencoder.encode(image))
        torch.testing.assert_close(prior.decode(x), autoencoder.decode(x))
        assert prior.shape == (unet.in_channels, 8, 8)

    def test_the_moving_average_is_preferred(self, tmp_path: Path) -> None:
        state = tensors()
        x, t = images(1, 4, 8, 8), torch.tensor([3.0])
        raw = {name: value for name, value in state.items() if not name.startswith("model_ema.")}
        for weights, config, seed in (
            (state, configuration(), 2),
            (raw, configuration(), 1),
            (state, configuration(use_ema=False), 1),
        ):
            prior = read(write(tmp_path / "a.ckpt", weights, config))
            torch.testing.assert_close(denoiser(prior).network(x, t), filled(ADM(UNET), seed)(x, t))

    def test_what_trainers_leave_in_the_file_is_passed_over(self, tmp_path: Path) -> None:
        state = {**tensors(), "first_stage_model.loss.logvar": torch.zeros(()), "lvlb_weights": torch.ones(5)}
        path = write(tmp_path / "a.ckpt", state, configuration())
        extra = {"best": np.float64(0.25), "callbacks": {"x": {"path": "y"}}, "state_dict": state}
        torch.save(extra, path)
        assert read(path).facts["first_stage"] == "kl"

    @pytest.mark.parametrize(
        ("schedule", "wanted"),
        [
            ("linear", torch.linspace(0.0015**0.5, 0.0195**0.5, 1000).double() ** 2),
            ("sqrt_linear", torch.linspace(0.0015, 0.0195, 1000).double()),
            ("sqrt", torch.linspace(0.0015, 0.0195, 1000).double() ** 0.5),
        ],
    )
    def test_tables_of_betas(self, tmp_path: Path, schedule: str, wanted: Tensor) -> None:
        path = write(tmp_path / "a.ckpt", tensors(), configuration(beta_schedule=schedule))
        actual = read(path).schedule
        assert isinstance(actual, VP)
        torch.testing.assert_close(actual.betas, wanted, rtol=1e-5, atol=0)
        write(path, {**tensors(), "betas": wanted.half()}, configuration(beta_schedule=schedule))
        read(path)
        write(path, {**tensors(), "betas": 2 * wanted}, configuration(beta_schedule=schedule))
        with pytest.raises(CheckpointError, match="do not belong together"):
            read(path)

    def test_the_network_is_told_the_index(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.ckpt", tensors(), configuration(timesteps=400))
        index = torch.tensor([0, 17, 399]).double()
        torch.testing.assert_close(denoiser(read(path))._condition((index + 1) / 400), index)

    def test_scale(self, tmp_path: Path) -> None:
        """From the file where it has one, else from the YAML; latents are scale times what the encoder gives."""
        path = tmp_path / "a.ckpt"
        image = images(1, 3, 16, 16)
        plain = read(write(path, tensors(), configuration())).encode(image)
        scaled = read(write(path, tensors(), configuration(scale_factor=0.25)))
        torch.testing.assert_close(scaled.encode(image), 0.25 * plain)
        torch.testing.assert_close(
            scaled.decode(0.25 * plain), read(write(path, tensors(), configuration())).decode(plain)
        )
        state = {**tensors(), "scale_factor": torch.tensor(0.5)}
        torch.testing.assert_close(read(write(path, state, configuration(scale_by_std=True))).encode(image), plain / 2)
        with pytest.raises(CheckpointError, match="scale_factor"):
            read(write(path, tensors(), configuration(scale_by_std=True)))

    def test_the_codebook_lets_gradients_through(self, tmp_path: Path) -> None:
        """decode quantises, and its gradient is that of the decoder at the code."""
        prior = read(write(tmp_path / "a.ckpt", tensors(VQ), configuration(VQ)))
        autoencoder = prior.autoencoder
        assert isinstance(autoencoder, LatentAutoencoder) and autoencoder.quantize is not None
        z = images(1, 4, 8, 8).requires_grad_()
        prior.decode(z).sum().backward()
        code = autoencoder.quantize(z.detach()).requires_grad_()
        autoencoder.decoder(autoencoder.post_quant_conv(code)).sum().backward()
        assert z.grad is not None and code.grad is not None
        torch.testing.assert_close(z.grad, code.grad, rtol=1e-4, atol=1e-4)
        distances = torch.cdist(z.detach().permute(0, 2, 3, 1).reshape(-1, 4), autoencoder.quantize.embedding.weight)
        nearest = autoencoder.quantize.embedding.weight[distances.argmin(1)]
        torch.testing.assert_close(code.detach().permute(0, 2, 3, 1).reshape(-1, 4), nearest)

    def test_another_type_is_for_the_denoiser(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.ckpt", tensors(VQ), configuration(VQ))
        prior = ldm.read(Request(path, {}, dtype=torch.bfloat16))
        z = images(1, 4, 8, 8)
        torch.testing.assert_close(prior.decode(z), read(path).decode(z))
        assert prior.denoise(z, 0.5).dtype == torch.float32

    @pytest.mark.parametrize("where", ["beside", "config", "flag"])
    def test_where_the_configuration_is(self, tmp_path: Path, where: str) -> None:
        path = write(tmp_path / "a.ckpt", tensors(), configuration())
        name = {"beside": "a.yml", "config": "config.yaml", "flag": "other/b.yaml"}[where]
        (tmp_path / "other").mkdir()
        (tmp_path / "a.yaml").rename(tmp_path / name)
        assert read(path, **({"config": str(tmp_path / name)} if where == "flag" else {})).name == "a"

    def test_without_a_configuration(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.ckpt", tensors(), configuration())
        (tmp_path / "a.yaml").unlink()
        with pytest.raises(UsageError, match=r"a\.yaml"):
            read(path)
        with pytest.raises(UsageError, match="missing.yaml"):
            read(path, config=str(tmp_path / "missing.yaml"))


class TestClasses:
    WIDE = ADMConfig(4, 4, 32, (32, 32), 1, frozenset({1}), "conv", False, Heads(2), 0, Transformer(2, 12))

    def write(self, path: Path, num_classes: int = 6, rate: float | None = None, **more: Any) -> LatentPrior:
        condition: dict[str, Any] = {
            "target": "ldm.modules.encoders.modules.ClassEmbedder",
            "params": {"n_classes": num_classes, "embed_dim": 12, "key": "class_label"},
        }
        if rate is not None:
            condition["params"]["ucg_rate"] = rate
        config = configuration(KL, self.WIDE, cond_stage_config=condition, conditioning_key="crossattn")
        state = {**tensors(KL, self.WIDE), "cond_stage_model.embedding.weight": images(num_classes, 12)}
        return read(write(path / "a.ckpt", state, config), **more)

    def test_a_class_is_a_token(self, tmp_path: Path) -> None:
        """The context is one row of the embedding; the last class stands for none."""
        prior = self.write(tmp_path)
        assert prior.classes == 6
        network = filled(ADM(self.WIDE), 2)
        x, t = images(2, 4, 8, 8), torch.tensor([499.0, 499.0])
        context = images(6, 12)[[4, 1]][:, None]
        for labels, told in ((torch.tensor([4, 1]), context), (None, images(6, 12)[[5, 5]][:, None])):
            raw = network(x, t, context=told)
            alpha, sigma = (float(f(torch.tensor(0.5).double())) for f in (prior.schedule.alpha, prior.schedule.sigma))
            wanted = (x - sigma * raw) / alpha
            actual = prior.denoise(x, 0.5) if labels is None else CFGPrior(prior, label=labels).denoise(x, 0.5)
            torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-4)

    def test_another_null_class(self, tmp_path: Path) -> None:
        prior = self.write(tmp_path, null_class=0)
        x = images(1, 4, 8, 8)
        torch.testing.assert_close(prior.denoise(x, 0.5), CFGPrior(prior, label=0).denoise(x, 0.5))
        with pytest.raises(UsageError, match="null_class"):
            self.write(tmp_path, null_class=6)

    @pytest.mark.parametrize(
        ("classes", "rate", "guides"),
        [(1000, None, False), (1000, 0.1, True), (1001, None, True), (1001, 0.0, False), (1001, 0.2, True)],
    )
    def test_guidance_needs_a_class_that_stood_for_none(
        self, tmp_path: Path, classes: int, rate: float | None, guides: bool
    ) -> None:
        """ImageNet's own 1000 classes leave none for that, and the configuration may say how often it was trained."""
        prior = self.write(tmp_path, classes, rate)
        assert prior.info.null_state == guides and CFGPrior(prior, label=classes - 1).scale == 1
        if guides:
            torch.testing.assert_close(prior.condition()["labels"], torch.tensor([classes - 1]))
            CFGPrior(prior, label=1, scale=2.0)
            return
        with pytest.raises(UsageError, match="needs a state without a class.*null_class"):
            CFGPrior(prior, label=1, scale=2.0)
        with pytest.raises(UsageError, match="by class only"):
            prior.denoise(images(1, 4, 8, 8), 0.5)
        CFGPrior(self.write(tmp_path, classes, rate, null_class=classes - 1), label=1, scale=2.0)

    def test_the_embedding_is_checked(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        config = yaml.safe_load((tmp_path / "a.yaml").read_text())
        for bad in ({}, {"embedding.weight": images(7, 12)}, {"embedding.weight": images(6, 12), "x": images(1)}):
            state = {**tensors(KL, self.WIDE), **{f"cond_stage_model.{k}": v for k, v in bad.items()}}
            with pytest.raises(CheckpointError, match="cond_stage_model"):
                read(write(tmp_path / "a.ckpt", state, config))


class TestRefused:
    def refused(self, path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any], words: str) -> None:
        write(path / "a.ckpt", state, config)
        with pytest.raises(CheckpointError, match=words):
            read(path / "a.ckpt")

    @pytest.mark.parametrize(
        ("place", "value", "words"),
        [
            ("target", "os.system", "os.system"),
            ("params.unet_config.target", "subprocess.run", "subprocess.run"),
            ("params.first_stage_config.target", "ldm.models.autoencoder.IdentityFirstStage", "IdentityFirstStage"),
            ("params.cond_stage_config", {"target": "builtins.eval", "params": {}}, "builtins.eval"),
            ("params.cond_stage_config", "__is_first_stage__", "cond_stage_config"),
            ("params.timesteps", "many", "timesteps"),
            ("params.timesteps", 0, "timesteps"),
            ("params.linear_end", 0.001, "start < end"),
            ("params.beta_schedule", "quadratic", "beta_schedule"),
            ("params.parameterization", "flow", "parameterization"),
            ("params.channels", 3, "channels"),
            ("params.unet_config.params.channel_mult", [1, 4], "levels"),
            ("params.unet_config.params.num_res_blocks", 2, "blocks"),
            ("params.unet_config.params.attention_resolutions", [1], "attention"),
            ("params.unet_config.params.resblock_updown", True, "resampling"),
            ("params.unet_config.params.model_channels", 64, "model_channels"),
            ("params.unet_config.params.use_scale_shift_norm", True, "scale_shift"),
            ("params.unet_config.params.use_spatial_transformer", True, "transformer of the U-Net is Transformer"),
            ("params.unet_config.params.num_heads", 3, "heads"),
            ("params.unet_config.params.num_heads", -1, "num_heads"),
            ("params.first_stage_config.params.ddconfig.ch_mult", [1, 2, 2], "missing|blocks"),
            ("params.first_stage_config.params.ddconfig.num_res_blocks", 50000, "blocks"),
            ("params.first_stage_config.params.ddconfig.double_z", False, "double_z"),
            ("params.first_stage_config.params.ddconfig.ch", 48, "multiples of 32"),
            ("params.first_stage_config.params.embed_dim", 3, "quant_conv"),
            ("params", None, "params"),
        ],
    )
    def test_configurations(self, tmp_path: Path, place: str, value: Any, words: str) -> None:
        config = copy.deepcopy(configuration())
        section = config["model"]
        *way, last = place.split(".")
        for name in way:
            section = section[name]
        section[last] = value
        self.refused(tmp_path, tensors(), config, words)

    def test_texts_that_are_no_configuration(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.ckpt", tensors(), configuration())
        bomb = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40))
        for text in ("", "[1, 2]", "model: 3", "model: {", "\x00", "x: !!python/name:os.system", bomb, "- " * 5000):
            path.with_suffix(".yaml").write_text(text)
            assert read_or_refuse(read, path) is None
        path.with_suffix(".yaml").write_bytes(b"\xff\xfe\x00")
        assert read_or_refuse(read, path) is None
        path.with_suffix(".yaml").write_text("#" * (1 << 21))
        assert read_or_refuse(read, path) is None

    def test_missing_and_further_tensors(self, tmp_path: Path) -> None:
        state = tensors()
        for name in list(state)[::41]:
            left = {key: value for key, value in state.items() if key != name}
            if name in ("model_ema.decay", "model_ema.num_updates"):
                continue
            self.refused(tmp_path, left, configuration(), r"missing|lacks|not part|expected")
        for name in ("model.diffusion_model.extra", "first_stage_model.extra", "model_ema.extra", "extra", "model.x"):
            self.refused(tmp_path, {**state, name: torch.ones(2)}, configuration(), "extra|model.x")
        self.refused(tmp_path, {"a": torch.ones(2)}, configuration(), "such as a;")
        self.refused(tmp_path, {"betas": torch.ones(2)}, configuration(), "not hold a latent diffusion model")
        self.refused(tmp_path, {}, configuration(), "found none")

    def test_wrong_shapes_and_values(self, tmp_path: Path) -> None:
        state = tensors()
        for name in list(state)[::61]:
            if state[name].ndim == 0:
                continue
            longer = torch.cat([state[name], state[name]])
            self.refused(tmp_path, {**state, name: longer}, configuration(), "expected|YAML")
        state["first_stage_model.quant_conv.bias"][0] = float("inf")
        self.refused(tmp_path, state, configuration(), "quant_conv.bias")

    def test_damage(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.ckpt", tensors(), configuration())
        data = path.read_bytes()
        for length in (0, 100, 5000, len(data) // 2, len(data) - 10):
            path.write_bytes(data[:length])
            assert read_or_refuse(read, path) is None
        for changed in damaged(data, seed=5, count=10):
            path.write_bytes(changed)
            read_or_refuse(read, path)
        path.write_bytes(data)
        text = path.with_suffix(".yaml").read_bytes()
        for changed in damaged(text, seed=6, count=15):
            path.with_suffix(".yaml").write_bytes(changed)
            read_or_refuse(read, path)

    def test_the_model_is_not_a_module(self, tmp_path: Path) -> None:
        torch.save({"state_dict": nn.Linear(1, 1)}, tmp_path / "a.ckpt")
        (tmp_path / "a.yaml").write_text(yaml.safe_dump(configuration()))
        with pytest.raises(CheckpointError, match="Linear"):
            read(tmp_path / "a.ckpt")


class TestAdversarial:
    def test_all_are_refused_and_nothing_runs(self, shared: Path) -> None:
        words = {
            "adv_ldm_reduce.ckpt": "posix.system",
            "adv_ldm_state_dict.ckpt": "exec",
            "adv_ldm_yaml_tag.ckpt": "python/object/apply:os.system",
            "adv_ldm_yaml_target.ckpt": "os.system",
            "ldm_truncated.ckpt": "incomplete",
        }
        check_adversarial("ldm", shared, words)
