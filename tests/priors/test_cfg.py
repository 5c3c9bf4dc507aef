"""Conditions: classes, texts, classifier-free guidance, and what is counted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import priorpaint
from priorpaint import CFGPrior, DenoiserPrior, NetworkPrior, UsageError
from priorpaint.diffusion.samplers import DDIM, DDPM
from priorpaint.diffusion.schedules import EDM, VP, Flow
from priorpaint.operators import Inpainting
from priorpaint.priors import NFE

CLASSES = 3
WORDS = {"": 0.0, "dark": -0.8, "bright": 0.8}


class Constant(nn.Module):
    """x_0 of class k is the constant (k - 1) / 2, of the null class (index 3) 0.1; a text adds its own value."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor([-0.5, 0.0, 0.5, 0.1]))
        self.calls: list[tuple[int, ...]] = []

    def forward(self, x: Tensor, c: Tensor, labels: Tensor, states: Tensor | None = None) -> Tensor:
        assert labels.dtype == torch.int64 and len(labels) == len(x) == len(c)
        self.calls.append(tuple(labels.tolist()))
        level = self.values[labels]
        if states is not None:
            assert states.shape == (len(x), 2, 4)
            level = level + states[:, 0, 0]
        return level[:, None, None, None].expand_as(x) + 0.25 * x


def embed_labels(labels: Tensor | None, prompt: str | None) -> Mapping[str, Tensor]:
    return {"labels": torch.tensor([CLASSES]) if labels is None else labels}


def embed_both(labels: Tensor | None, prompt: str | None) -> Mapping[str, Tensor]:
    return {**embed_labels(labels, prompt), "states": torch.full((1, 2, 4), WORDS[prompt or ""])}


def make(schedule: Any = None, **options: Any) -> NetworkPrior:
    wanted: dict[str, Any] = {"embed": embed_labels, "classes": CLASSES} | options
    return NetworkPrior(Constant(), schedule or VP(), (1, 4, 4), prediction="x0", name="toy", **wanted)


def x(rows: int = 2) -> Tensor:
    return torch.randn(rows, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def test_a_label_chooses_the_class_and_none_is_the_null_class() -> None:
    prior = make()
    for label, level in ((0, -0.5), (1, 0.0), (2, 0.5)):
        torch.testing.assert_close(CFGPrior(prior, label=label).denoise(x(), 0.5), level + 0.25 * x())
    torch.testing.assert_close(prior.denoise(x(), 0.5), 0.1 + 0.25 * x())
    torch.testing.assert_close(CFGPrior(prior).denoise(x(), 0.5), 0.1 + 0.25 * x())


@pytest.mark.parametrize("labels", [[2, 0], torch.tensor([2, 0]), torch.tensor([2, 0], dtype=torch.int32)])
def test_one_label_a_row(labels: Any) -> None:
    out = CFGPrior(make(), label=labels).denoise(x(), 0.5) - 0.25 * x()
    torch.testing.assert_close(out.mean((1, 2, 3)), torch.tensor([0.5, -0.5]))
    guided = CFGPrior(make(), label=labels, scale=3.0).denoise(x(), 0.5) - 0.25 * x()
    torch.testing.assert_close(guided.mean((1, 2, 3)), torch.tensor([0.1 + 3 * 0.4, 0.1 - 3 * 0.6]))


def test_labels_of_other_rows_are_refused() -> None:
    for scale in (1.0, 2.0):
        with pytest.raises(UsageError, match="for 2 rows and 3 are denoised"):
            CFGPrior(make(), label=[2, 0], scale=scale).denoise(x(3), 0.5)


@pytest.mark.parametrize("schedule", [VP(), EDM(), Flow()])
@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 2.5])
def test_guidance_is_the_formula(schedule: Any, scale: float) -> None:
    prior = make(schedule)
    out = CFGPrior(prior, label=2, scale=scale).denoise(x(), 0.5)
    torch.testing.assert_close(out, 0.1 + scale * (0.5 - 0.1) + 0.25 * x())


def test_evaluations_are_counted_as_they_run() -> None:
    prior = make()
    network: Any = prior.network
    CFGPrior(prior, label=2).denoise(x(), 0.5)
    assert prior.nfe == NFE(2, 0)
    guided = CFGPrior(prior, label=2, scale=2.0)
    guided.denoise(x(), 0.5)
    assert prior.nfe == guided.nfe == NFE(6, 0)
    assert network.calls[-1] == (3, 3, 2, 2)  # one call of 2 N rows
    guided.denoise(x().requires_grad_(), 0.5)
    assert prior.nfe == NFE(6, 4)
    CFGPrior(prior, label=2, scale=0.0).denoise(x(), 0.5)
    assert prior.nfe == NFE(8, 4) and network.calls[-1] == (3, 3)


class Variance(Constant):
    """A learned variance beside x_0: the label itself."""

    def forward(self, x: Tensor, c: Tensor, labels: Tensor, states: Tensor | None = None) -> Tensor:
        return torch.cat([super().forward(x, c, labels), labels[:, None, None, None].to(x).expand_as(x)], dim=1)


@pytest.mark.parametrize(("scale", "share"), [(1.0, 1.5), (0.0, 2.0), (2.0, 1.5)])
def test_the_learned_variance_is_that_under_the_condition(scale: float, share: float) -> None:
    prior = NetworkPrior(Variance(), VP(), (1, 4, 4), prediction="x0", embed=embed_labels, classes=CLASSES)
    assert CFGPrior(prior, label=2).evaluate(x(), 0.5).variance_share is None
    prior.learned_variance = True
    guided = CFGPrior(prior, label=2, scale=scale)
    before = prior.nfe.copy()
    out = guided.evaluate(x(), 0.5)
    x_0, variance_share = out.mean, out.variance_share
    assert (prior.nfe - before).forward == (4 if scale == 2 else 2)
    torch.testing.assert_close(x_0, guided.denoise(x(), 0.5))
    assert variance_share is not None
    torch.testing.assert_close(variance_share, torch.full_like(variance_share, share))
    assert prior.sample(1, seed=0, sampler=DDPM(5)).shape == (1, 1, 4, 4)


def test_gradients_reach_the_image() -> None:
    start = x().requires_grad_()
    CFGPrior(make(), label=0, scale=4.0).denoise(start, 0.5).sum().backward()  # type: ignore[no-untyped-call]
    assert start.grad is not None
    torch.testing.assert_close(start.grad, torch.full_like(start, 0.25))


def test_texts() -> None:
    prior = make(embed=embed_both, takes_text=True)
    out = CFGPrior(prior, prompt="bright", scale=2.0).denoise(x(), 0.5) - 0.25 * x()
    torch.testing.assert_close(out, torch.full_like(out, 0.1 + 1.6))
    out = CFGPrior(prior, prompt="bright", negative_prompt="dark", scale=2.0).denoise(x(), 0.5) - 0.25 * x()
    torch.testing.assert_close(out, torch.full_like(out, 0.1 - 0.8 + 2 * 1.6))
    both = CFGPrior(prior, prompt="dark", label=2).denoise(x(), 0.5) - 0.25 * x()
    torch.testing.assert_close(both, torch.full_like(both, 0.5 - 0.8))


def test_everything_else_is_the_prior_inside() -> None:
    class Shrunk(NetworkPrior):
        def encode(self, image: Tensor) -> Tensor:
            return image[..., ::2, ::2]

        def decode(self, latent: Tensor) -> Tensor:
            return latent.repeat_interleave(2, 2).repeat_interleave(2, 3)

    inner = Shrunk(Constant(), EDM(), (1, 4, None), prediction="edm", embed=embed_labels, classes=CLASSES, multiple=2)
    assert inner.source is inner.facts is inner.spec is inner.flags is None
    inner.hash = "abc"
    inner.source, inner.facts, inner.spec, inner.flags = Path("a"), {"b": 1}, "c", {"d": 2}
    guided: Any = CFGPrior(inner, label=1, scale=2.0)
    assert isinstance(guided, CFGPrior) and guided.schedule is inner.schedule and guided.hash == "abc"
    assert (guided.source, guided.facts, guided.spec, guided.flags) == (Path("a"), {"b": 1}, "c", {"d": 2})
    assert (guided.shape, guided.multiple, guided.data_std) == ((1, 4, None), 2, 0.5)
    assert guided.encode(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 4, 4)
    assert guided.decode(torch.zeros(1, 1, 4, 4)).shape == (1, 1, 8, 8)
    assert guided.sample(2, seed=0, size=(4, 6), steps=3).shape == (2, 1, 8, 12)
    with pytest.raises(UsageError, match="multiple of 2"):
        guided.check_size(4, 5)
    with pytest.raises(AttributeError):
        guided.nonsense  # noqa: B018


def test_samples_and_solvers_follow_the_class() -> None:
    prior = make()
    means = [CFGPrior(prior, label=k).sample(1, seed=0, sampler=DDIM(20)).mean().item() for k in range(CLASSES)]
    assert means[0] < means[1] - 0.3 < means[2] - 0.6
    known = torch.zeros(1, 1, 4, 4)
    known[..., :1] = 1
    operator = Inpainting(known)
    solver = priorpaint.solver("dps", steps=10)
    means = []
    for k in range(CLASSES):
        out = solver.sample(CFGPrior(prior, label=k, scale=1.5), operator, known, num_samples=2, seed=1)
        means.append(out[..., 1:].mean().item())
    assert means[0] < means[1] < means[2]


def test_asked_for_what() -> None:
    guided: Any = CFGPrior(make(embed=embed_both, takes_text=True), label=torch.tensor([1]), prompt="dark", scale=2)
    assert guided.request == {"label": [1], "prompt": "dark", "negative_prompt": None, "guidance_scale": 2.0}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"label": 3}, "classes 0 to 2, not 3"),
        ({"label": -1}, "classes 0 to 2"),
        ({"label": 1.5}, "whole number"),
        ({"label": [[1]]}, "whole number"),
        ({"label": []}, "whole number"),
        ({"prompt": "dark"}, "takes no text"),
        ({"label": 1, "negative_prompt": "dark"}, "takes no text"),
        ({"scale": 2.0}, "give a label or a prompt"),
        ({"label": 1, "scale": float("nan")}, "finite"),
    ],
)
def test_wrong_wishes(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CFGPrior(make(), **wanted)


def test_priors_without_conditions_say_so() -> None:
    prior = DenoiserPrior(lambda x_t, t: x_t, VP(), (1, 4, 4), name="plain")
    with pytest.raises(UsageError, match="plain knows no classes"):
        CFGPrior(prior, label=0)
    with pytest.raises(UsageError, match="plain takes no text"):
        CFGPrior(prior, prompt="a dog")
    assert torch.equal(CFGPrior(prior).denoise(x(), 0.5), x())
    with pytest.raises(UsageError, match="takes no condition"):
        prior.denoise(x(), 0.5, {"labels": torch.tensor([0])})


def test_a_network_without_a_null_class_asks_for_a_label() -> None:
    prior = make(embed=None)
    with pytest.raises(UsageError, match="name one of its 3 classes"):
        prior.denoise(x(), 0.5)
    with pytest.raises(UsageError, match="guidance needs a state without a class"):
        CFGPrior(prior, label=1, scale=2.0)
    assert CFGPrior(prior, label=1).denoise(x(), 0.5).shape == (2, 1, 4, 4)


def test_a_condition_is_given_once() -> None:
    with pytest.raises(UsageError, match="already"):
        CFGPrior(CFGPrior(make(), label=1), label=2)
