"""EDM pickles: published outputs come back, without a line of what is in the file being run."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from priorpaint.diffusion.schedules import EDM, VE, VP
from priorpaint.errors import CheckpointError, UsageError
from priorpaint.priors.base import Prior
from priorpaint.priors.cfg import CFGPrior
from priorpaint.priors.network import NetworkPrior
from priorpaint.priors.networks import edm as networks
from priorpaint.priors.networks import edm2
from priorpaint.priors.networks.edm import EDMConfig, Labelled
from priorpaint.priors.readers import edm
from priorpaint.priors.readers.base import Request
from tests.priors.readers.small_files import (
    Persistent,
    check_adversarial,
    damaged,
    edm_modules,
    edm_tree,
    filled,
    images,
    read_or_refuse,
    write_edm,
)

FILES = (
    "edm_adm_64_cond",
    "edm_ddpmpp_16_uncond",
    "edm_iddpm_adm_16_cond",
    "edm_ncsnpp_32_cond",
    "edm_ve_ncsnpp_16_uncond",
    "edm_vp_ddpmpp_16_cond",
)
KWARGS: dict[str, Any] = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "label_dim": 0,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}


def read(path: Path, **flags: Any) -> NetworkPrior:
    prior = edm.read(Request(path, flags))
    assert isinstance(prior, NetworkPrior)
    return prior


def inner(prior: NetworkPrior) -> nn.Module:
    assert isinstance(prior.network, Labelled)
    return prior.network.network


def built(kind: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """Our network for the published arguments, with random weights."""
    lists = {name: tuple(value) for name, value in kwargs.items() if isinstance(value, list)}
    shape = {name: value for name, value in {**kwargs, **lists}.items() if name not in ("dropout", "label_dropout")}
    network = filled(networks.NETWORKS[kind](EDMConfig(**shape)))
    taps = torch.tensor(shape.get("resample_filter", (1.0, 1.0)), dtype=torch.float32)
    for name, buffer in network.named_buffers():
        if name.endswith("resample_filter"):
            buffer.data = torch.outer(taps, taps)[None, None] / taps.sum() ** 2
    return network


def write(path: Path, kind: str, precond: str, kwargs: Mapping[str, Any], **attributes: Any) -> nn.Module:
    top, network = pickled(kind, precond, kwargs, **attributes)
    write_edm(path, top)
    return network


def pickled(kind: str, precond: str, kwargs: Mapping[str, Any], **attributes: Any) -> tuple[Persistent, nn.Module]:
    """(what is written, the network in it)."""
    network = built(kind, kwargs)
    wrapper = nn.Module()
    for name, value in list(attributes.items()):
        if isinstance(value, Tensor):
            wrapper.register_buffer(name, attributes.pop(name))
    ends = {"img_resolution": kwargs["img_resolution"], "img_channels": kwargs["in_channels"]}
    top = edm_tree(wrapper, precond, **ends, label_dim=kwargs.get("label_dim", 0), use_fp16=False, **attributes)
    top.state["_modules"] = {"model": edm_tree(network, kind, {"dropout": 0.1, **kwargs})}
    return top, network


class TestPublishedOutputs:
    @pytest.mark.parametrize("name", FILES)
    def test_raw_and_x0_come_back(self, shared: Path, name: str) -> None:
        """To 1e-4 of the largest value, with the scale of x that the prior's schedule asks for."""
        folder = shared / "data" / "checkpoints" / "edm"
        about = json.loads((folder / f"{name}.json").read_text())
        stored = {key: torch.from_numpy(value) for key, value in np.load(folder / f"{name}.npz").items()}
        prior = read(folder / f"{name}.pkl")
        sigma = stored["sigma"].double()
        data = {"EDMPrecond": prior.sigma_data, "VEPrecond": None}.get(about["precond"], 1.0)
        shrink = torch.ones_like(sigma) if data is None else (sigma**2 + data**2).rsqrt()
        t = prior.schedule.time_at(sigma)
        x_t = stored["x"] * prior.schedule.alpha(t).float()[:, None, None, None]
        with torch.no_grad():
            scaled = stored["x"] * shrink.float()[:, None, None, None]
            raw = inner(prior)(scaled, stored["c_noise"], stored.get("class_labels"))
            x_0 = prior.denoise(x_t, t, prior.condition(label=stored.get("labels")))
        for actual, wanted in ((raw, stored["raw"]), (x_0, stored["x0"])):
            assert float((actual - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())
        if "x0_no_label" in stored:
            wanted = stored["x0_no_label"]
            assert float((prior.denoise(x_t, t) - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())
        assert prior.facts["parameters"] == about["parameters"]
        assert prior.shape == (3, about["init_kwargs"]["img_resolution"], about["init_kwargs"]["img_resolution"])
        assert prior.hash in (folder.parent / "SHA256SUMS").read_text()
        json.dumps(prior.facts)


COMMON = {"sigma_data": 0.5, "sigma_min": 0, "sigma_max": math.inf}


class TestFormat:
    @pytest.mark.parametrize(
        ("kind", "more"),
        [
            ("SongUNet", {"attn_resolutions": [8], "augment_dim": 9}),
            ("SongUNet", {"embedding_type": "fourier", "encoder_type": "residual", "resample_filter": [1, 3, 3, 1]}),
            ("SongUNet", {"encoder_type": "skip", "decoder_type": "skip", "channel_mult": [1, 1, 2]}),
            ("SongUNet", {"num_blocks": 3, "channel_mult_emb": 2, "channel_mult_noise": 2, "label_dim": 5}),
            ("DhariwalUNet", {"model_channels": 64, "channel_mult": [1, 2], "attn_resolutions": [8, 4]}),
            ("DhariwalUNet", {"label_dim": 5, "augment_dim": 9, "num_blocks": 2}),
        ],
    )
    def test_every_variant_is_rebuilt_from_its_arguments(
        self, tmp_path: Path, kind: str, more: Mapping[str, Any]
    ) -> None:
        """The same output as the network whose weights were written."""
        kwargs = {**KWARGS, **more}
        network = write(tmp_path / "a.pkl", kind, "EDMPrecond", kwargs, **COMMON)
        prior = read(tmp_path / "a.pkl")
        x, noise = images(2, 3, 8, 8), torch.tensor([-0.5, 0.7])
        classes = torch.eye(5)[:2] if kwargs["label_dim"] else None
        torch.testing.assert_close(inner(prior)(x, noise, classes), network(x, noise, classes))
        assert isinstance(prior.schedule, EDM)
        assert (prior.schedule.sigma_min, prior.schedule.sigma_max) == (0.002, 80)

    def test_heads_are_those_of_the_file(self, tmp_path: Path) -> None:
        """The blocks say how many heads they have, whatever the rule."""
        kwargs = {**KWARGS, "model_channels": 64, "channel_mult": [1, 2]}
        network = built("DhariwalUNet", kwargs)
        for block in network.modules():
            if getattr(block, "heads", 0):
                block.heads = 4
        top = edm_tree(nn.Module(), "EDMPrecond", **COMMON)
        top.state["_modules"] = {"model": edm_tree(network, "DhariwalUNet", kwargs)}
        prior = read(write_edm(tmp_path / "a.pkl", top))
        x, noise = images(1, 3, 8, 8), torch.tensor([0.1])
        torch.testing.assert_close(inner(prior)(x, noise), network(x, noise))

    def test_limits_of_the_noise(self, tmp_path: Path) -> None:
        write(tmp_path / "a.pkl", "SongUNet", "EDMPrecond", KWARGS, sigma_data=0.7, sigma_min=0.01, sigma_max=20.0)
        prior = read(tmp_path / "a.pkl")
        assert prior.sigma_data == prior.data_std == 0.7
        assert prior.schedule.nsr_range == (0.01, 20.0)
        assert read(tmp_path / "a.pkl", sigma_max="40").schedule.nsr_range == (0.01, 40.0)
        with pytest.raises(UsageError, match="sigma_top"):
            read(tmp_path / "a.pkl", sigma_top=40)

    def test_ve(self, tmp_path: Path) -> None:
        """D = x + sigma F(x; ln(sigma / 2))."""
        network = write(tmp_path / "a.pkl", "SongUNet", "VEPrecond", KWARGS, sigma_min=0.05, sigma_max=30.0)
        prior = read(tmp_path / "a.pkl")
        assert isinstance(prior.schedule, VE) and prior.schedule.nsr_range == (0.05, 30.0)
        x, sigma = images(1, 3, 8, 8), torch.tensor([2.5])
        wanted = x + 2.5 * network(x, (sigma / 2).log())
        torch.testing.assert_close(prior.denoise(x, prior.schedule.time_at(sigma.double())), wanted)

    @pytest.mark.parametrize(("rise", "start", "count"), [(19.9, 0.1, 1000), (9.0, 0.4, 100)])
    def test_vp(self, tmp_path: Path, rise: float, start: float, count: int) -> None:
        """D = x - sigma F(c_in x; (M - 1) t) with sigma(t)^2 + 1 = exp(beta_d t^2 / 2 + beta_min t)."""
        about = {"beta_d": rise, "beta_min": start, "M": count, "epsilon_t": 1e-5}
        network = write(tmp_path / "a.pkl", "SongUNet", "VPPrecond", KWARGS, **about)
        prior = read(tmp_path / "a.pkl")
        assert isinstance(prior.schedule, VP) and len(prior.schedule.betas) == count
        for time in (0.1234, 0.5, 1.0):
            sigma = torch.tensor([math.expm1(rise * time**2 / 2 + start * time) ** 0.5], dtype=torch.float64)
            x, t = sigma.float() * images(1, 3, 8, 8), prior.schedule.time_at(sigma)
            shrink = float((1 + sigma**2).rsqrt())
            assert float(prior.schedule.alpha(t)) == pytest.approx(shrink, rel=1e-6)
            wanted = x - sigma.float() * network(shrink * x, torch.tensor([(count - 1) * time]))
            torch.testing.assert_close(prior.denoise(shrink * x, t), wanted, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("count", [1000, 50])
    def test_iddpm(self, tmp_path: Path, count: int) -> None:
        """The network is told the index of the nearest level, counted from low noise; twice the channels come out."""
        levels = torch.cat([torch.logspace(2, -2, count), torch.zeros(1)])
        kwargs = {**KWARGS, "out_channels": 6}
        network = write(tmp_path / "a.pkl", "DhariwalUNet", "iDDPMPrecond", kwargs, u=levels, M=count)
        prior = read(tmp_path / "a.pkl")
        index = torch.tensor([0, 7, count - 1])
        sigma = levels[index].double()
        t = prior.schedule.time_at(sigma)
        torch.testing.assert_close((t * count).round(), (count - index).double())
        x = images(3, 3, 8, 8)
        shrunk = x * (1 + sigma.float() ** 2).rsqrt()[:, None, None, None]
        raw = network(shrunk, (count - 1 - index).float())[:, :3]
        wanted = x - sigma.float()[:, None, None, None] * raw
        torch.testing.assert_close(prior.denoise(shrunk, t), wanted, rtol=1e-4, atol=1e-3)

    def test_classes(self, tmp_path: Path) -> None:
        """Labels are one-hot rows, no label is a row of zeros, and guidance goes between the two, where the network was
        trained on both."""
        kwargs = {**KWARGS, "label_dim": 4}
        write(tmp_path / "b.pkl", "SongUNet", "VEPrecond", kwargs, sigma_min=0.02)
        with pytest.raises(UsageError, match="needs a state without a class"):
            CFGPrior(read(tmp_path / "b.pkl"), label=1, scale=2.0)
        network = write(tmp_path / "a.pkl", "SongUNet", "VEPrecond", {**kwargs, "label_dropout": 0.1}, sigma_min=0.02)
        prior = read(tmp_path / "a.pkl")
        assert prior.classes == 4
        x, noise, t = images(2, 3, 8, 8), torch.zeros(2), prior.schedule.time_at(torch.tensor(2.0).double())
        labels = torch.tensor([3, 0])
        labelled = x + 2 * network(x, noise, torch.eye(4)[labels])
        without = x + 2 * network(x, noise, torch.zeros(2, 4))
        torch.testing.assert_close(CFGPrior(prior, label=labels).denoise(x, t), labelled)
        torch.testing.assert_close(prior.denoise(x, t), without)
        guided = CFGPrior(prior, label=labels, scale=2.0).denoise(x, t)
        torch.testing.assert_close(guided, 2 * labelled - without, rtol=1e-4, atol=1e-4)

    def test_which_network_of_the_file(self, tmp_path: Path) -> None:
        top = edm_tree(nn.Module(), "EDMPrecond", **COMMON)
        top.state["_modules"] = {"model": edm_tree(built("SongUNet", KWARGS), "SongUNet", KWARGS)}
        write_edm(tmp_path / "a.pkl", top, key="other")
        with pytest.raises(CheckpointError, match="'ema'"):
            read(tmp_path / "a.pkl")
        assert read(tmp_path / "a.pkl", key="other").classes == 0
        with pytest.raises(UsageError, match="dataset_kwargs"):
            read(tmp_path / "a.pkl", key="third")


class TestEDM2:
    KWARGS = {"img_resolution": 8, "img_channels": 3, "label_dim": 4, "model_channels": 8, "channel_mult": [1, 2]}

    def write(self, path: Path, **more: Any) -> tuple[edm2.UNet, dict[str, Tensor]]:
        top, network, raw = self.pickled(**more)
        write_edm(path, top)
        return network, raw

    def pickled(self, **more: Any) -> tuple[Persistent, edm2.UNet, dict[str, Tensor]]:
        """(what is written, the network in it, its weights as they are stored)."""
        kwargs = {**self.KWARGS, "num_blocks": 1, "attn_resolutions": [4], "channels_per_head": 8, **more}
        lists = {name: tuple(value) for name, value in kwargs.items() if isinstance(value, list)}
        network = filled(edm2.UNet(edm2.EDM2Config(**{**kwargs, **lists})))
        assert isinstance(network, edm2.UNet)
        raw = {name: value.clone() for name, value in network.state_dict().items()}
        top = edm_tree(nn.Module(), "Precond", sigma_data=0.5, img_resolution=8, img_channels=3, label_dim=4)
        top.state["_modules"] = {"unet": edm_tree(network, "UNet", kwargs)}
        for side in ("enc", "dec"):
            for block in top.state["_modules"]["unet"].state["_modules"][side].state["_modules"].values():
                block.class_name = "Block" if block.class_name == "UNetBlock" else block.class_name
        return top, network, raw

    def test_it_is_read(self, tmp_path: Path) -> None:
        network, _ = self.write(tmp_path / "a.pkl")
        network.settle()
        prior = read(tmp_path / "a.pkl")
        x, noise, classes = images(2, 3, 8, 8), torch.tensor([-0.3, 0.2]), torch.eye(4)[:2]
        torch.testing.assert_close(inner(prior)(x, noise, classes), network(x, noise, classes))
        assert (prior.classes, prior.prediction, prior.shape) == (4, "edm", (3, 8, 8))

    def test_weights_have_unit_length(self, tmp_path: Path) -> None:
        """Eq. 47: each output's weights have length 1 after the division by the root of the number of inputs."""
        _, raw = self.write(tmp_path / "a.pkl")
        state = inner(read(tmp_path / "a.pkl")).state_dict()
        for name in ("emb_noise.weight", "enc.8x8_block0.conv_res0.weight", "out_conv.weight"):
            flat = state[name].flatten(1)
            torch.testing.assert_close(flat.norm(dim=1), torch.ones(len(flat)), rtol=2e-3, atol=0)
            torch.testing.assert_close(
                nn.functional.normalize(flat), nn.functional.normalize(raw[name].flatten(1)), rtol=1e-4, atol=1e-5
            )

    def test_magnitudes_are_kept(self) -> None:
        """Sums, joins and activations of standard normal numbers have variance 1 (Eq. 81, 88, 103)."""
        a, b = images(1, 40, 50, 50), images(1, 20, 50, 50, seed=2)
        assert float(edm2.silu(a).square().mean()) == pytest.approx(1, abs=0.02)
        assert float(edm2.blend(a, images(1, 40, 50, 50, seed=3), 0.3).var()) == pytest.approx(1, abs=0.02)
        joined = edm2.join(a, b, 0.5)
        assert float(joined[:, :40].square().sum() / joined[:, 40:].square().sum()) == pytest.approx(1, abs=0.03)
        assert float(joined.square().mean()) == pytest.approx(1, abs=0.02)
        torch.testing.assert_close(edm2.unit(a, 1).square().mean(1), torch.ones(1, 50, 50), rtol=1e-3, atol=1e-3)

    def test_it_is_differentiable(self, tmp_path: Path) -> None:
        self.write(tmp_path / "a.pkl")
        x = images(1, 3, 8, 8).requires_grad_()
        read(tmp_path / "a.pkl").denoise(x, 0.5).sum().backward()
        assert x.grad is not None and float(x.grad.abs().min()) > 0


class TestRefused:
    @pytest.fixture
    def top(self) -> Persistent:
        top = edm_tree(nn.Module(), "EDMPrecond", **COMMON)
        top.state["_modules"] = {"model": edm_tree(built("SongUNet", KWARGS), "SongUNet", KWARGS)}
        return top

    def refused(self, path: Path, top: Persistent, words: str) -> None:
        write_edm(path / "a.pkl", top)
        with pytest.raises(CheckpointError, match=words):
            read(path / "a.pkl")

    def test_unknown_classes_are_named(self, tmp_path: Path, top: Persistent) -> None:
        model = top.state["_modules"]["model"]
        model.class_name = "SongVNet"
        self.refused(tmp_path, top, "SongVNet")
        model.class_name, top.class_name = "SongUNet", "EDM3Precond"
        self.refused(tmp_path, top, "EDM3Precond")

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("model_channels", 16, "expected"),
            ("num_blocks", 2, "missing"),
            ("num_blocks", 60000, "blocks"),
            ("channel_mult", [1, 2, 2], "missing"),
            ("channel_mult", "12", "tuple"),
            ("attn_resolutions", [8], "not part of it|missing|blocks"),
            ("img_resolution", 7, "halved"),
            ("in_channels", None, "valid integer"),
            ("embedding_type", "learned", "embedding_type"),
            ("style", 3, "style"),
            ("model_channels", -8, "greater than"),
            ("label_dim", 3, "label"),
        ],
    )
    def test_arguments_that_do_not_fit(
        self, tmp_path: Path, top: Persistent, name: str, value: Any, words: str
    ) -> None:
        model = top.state["_modules"]["model"]
        model.state["_init_kwargs"][name] = value
        if name == "attn_resolutions":  # the blocks' own word is missing too
            for side in ("enc", "dec"):
                for block in model.state["_modules"][side].state["_modules"].values():
                    block.state.pop("num_heads", None)
        self.refused(tmp_path, top, words)

    def test_missing_and_further_tensors(self, tmp_path: Path, top: Persistent) -> None:
        layer = top.state["_modules"]["model"].state["_modules"]["map_layer0"]
        weight = layer.state["_parameters"].pop("weight")
        self.refused(tmp_path, top, "missing: map_layer0.weight")
        layer.state["_parameters"].update(weight=weight, further=nn.Parameter(torch.ones(2)))
        self.refused(tmp_path, top, "map_layer0.further")
        del layer.state["_parameters"]["further"]
        layer.state["_parameters"]["weight"] = nn.Parameter(weight.T[:, :-1])
        self.refused(tmp_path, top, r"map_layer0.weight \(expected \(32, 8\), found")
        layer.state["_parameters"]["weight"] = nn.Parameter(torch.full_like(weight, math.nan))
        self.refused(tmp_path, top, "map_layer0.weight")

    def test_states_that_are_none(self, tmp_path: Path, top: Persistent) -> None:
        state = dict(top.state["_modules"]["model"].state)
        for name in ("_modules", "_parameters", "_buffers", "_init_kwargs"):
            top.state["_modules"]["model"].state = {**state, name: 3}
            self.refused(tmp_path, top, "a.pkl")
        top.state["_modules"] = {}
        self.refused(tmp_path, top, "lacks its module model")

    def test_a_module_inside_itself(self, tmp_path: Path, top: Persistent) -> None:
        layer = top.state["_modules"]["model"].state["_modules"]["map_layer0"]
        layer.state["_modules"]["again"] = layer
        write_edm(tmp_path / "a.pkl", top)
        with pytest.raises(CheckpointError, match="deep"):
            read(tmp_path / "a.pkl")

    def test_damage(self, tmp_path: Path, top: Persistent) -> None:
        """Truncations are refused; a changed bit is refused or changes a number."""
        path = write_edm(tmp_path / "a.pkl", top)
        data = path.read_bytes()
        for length in (1, 2, 100, 3000, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:length])
            assert read_or_refuse(read, path) is None
        refused = 0
        for changed in damaged(data[:20000], seed=4, count=20):  # where there is more than numbers
            path.write_bytes(changed + data[20000:])
            refused += read_or_refuse(read, path) is None
        assert refused > 2

    def test_other_pickles(self, tmp_path: Path) -> None:
        for content in ([1, 2], {"ema": 3}, {"ema": None}, "text"):
            (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
            with pytest.raises(CheckpointError, match="a.pkl"):
                read(tmp_path / "a.pkl")

    def test_the_source_is_not_run(self, tmp_path: Path, top: Persistent) -> None:
        """The files of these tests hold a source that raises when run, under a function that raises when called."""
        path = write_edm(tmp_path / "a.pkl", top)
        with edm_modules(), pytest.raises(RuntimeError, match="was made"), open(path, "rb") as file:
            pickle.load(file)
        prior: Prior = read(path)
        assert prior.name == "a"


class TestAdversarial:
    def test_all_are_refused_and_nothing_runs(self, shared: Path) -> None:
        words = {
            "adv_edm_reduce.pkl": "posix.system",
            "adv_edm_builtin_exec.pkl": "builtins.exec",
            "adv_edm_nested_storage.pkl": "posix.system",
            "adv_edm_dotted_global.pkl": "os.system",
            "adv_edm_module_src.pkl": "read",
            "edm_truncated.pkl": "incomplete",
            "edm_unknown_class.pkl": "SongVNet",
        }
        check_adversarial("edm", shared, words)

    def test_the_weights_beside_hostile_source_are_right(self, shared: Path) -> None:
        folder = shared / "data" / "checkpoints"
        hostile = read(folder / "adversarial" / "adv_edm_module_src.pkl")
        honest = read(folder / "edm" / "edm_ve_ncsnpp_16_uncond.pkl")
        for one, other in zip(hostile.parameters(), honest.parameters(), strict=True):
            assert torch.equal(one, other)
