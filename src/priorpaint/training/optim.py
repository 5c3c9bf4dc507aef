"""Muon for the convolutions, Adam for the rest, and the learning rate over the budget.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"): the momentum of each weight
matrix is replaced by a nearly orthogonal matrix with the same row and column spaces, by five steps of a quintic
Newton-Schulz iteration. torch.optim.Muon takes 2-D parameters only and iterates in bfloat16, which most CPUs emulate;
this one takes convolution weights, in float32, and iterates on the small Gram matrix.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from priorpaint.priors.native.weights_file import Network

_A, _B, _C = 3.4445, -4.7750, 2.0315
WARM_UP_STEPS = 100
FINAL_SHARE = 0.02


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values of each matrix towards 1 (into about [0.7, 1.2]).

    Each step X <- (a I + b G + c G^2) X with G = X X^T is a polynomial in the first Gram matrix, so the polynomials
    are multiplied up among small square matrices and meet X once: the same result for 2.5 times less work.

    Args:
        matrices: shape (B, M, N).

    Returns:
        shape (B, M, N), float32.
    """
    x = matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = x @ x.mT
    identity = torch.eye(gram.shape[-1], device=x.device).expand_as(gram)
    product = identity
    for step in range(steps):
        factor = _A * identity + torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        product = factor @ product if step else factor
        if step < steps - 1:
            gram = factor @ gram @ factor
            # The polynomials commute only while rounding leaves the Gram matrix symmetric.
            gram = (gram + gram.mT) / 2
    x = torch.bmm(product, x)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; see the module's text.

    Args:
        params: weights with at least two axes; all but the first are flattened.
        lr: learning rate; an update has singular values near ``lr * sqrt(max(1, rows / columns))``.
        momentum: decay of the momentum.
        decay: decoupled weight decay. It keeps singular values below about ``1 / decay``: a network without
            normalisation has nothing else that stops its weights from growing at the constant speed of Muon.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 0.01, momentum: float = 0.95, decay: float = 0.3) -> None:
        # As a group, which may be empty; a list may not.
        super().__init__([{"params": list(params)}], {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[tuple(parameter.flatten(1).shape)].append((parameter, self._momentum(parameter, group)))
            for (rows, columns), pairs in shapes.items():
                updates = orthogonalise(torch.stack([update.flatten(1) for _, update in pairs]))
                step = -group["lr"] * max(1.0, rows / columns) ** 0.5
                for (parameter, _), update in zip(pairs, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["decay"]).add_(update.view(parameter.shape), alpha=step)

    def _momentum(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum"].mul_(group["momentum"]).add_(parameter.grad)
        return torch.add(parameter.grad, buffer, alpha=group["momentum"])  # type: ignore[arg-type]


class Optimizers:
    """Muon for the convolutions between the ``ends`` of ``network``, Adam for everything else.

    Dense layers take Adam, 1x1 convolutions among them: on large matrices Muon's iterations cost more than the network.
    """

    def __init__(self, network: Network, lr: float, adam_lr: float) -> None:
        ends = {id(layer.weight) for layer in network.ends}
        hidden = [p for p in network.parameters() if p.ndim == 4 and p.shape[2] > 1 and id(p) not in ends]
        chosen = {id(p) for p in hidden}
        rest = [p for p in network.parameters() if id(p) not in chosen]
        self.muon = Muon(hidden, lr)
        self.adam = torch.optim.Adam(rest, adam_lr, betas=(0.9, 0.99), fused=True)
        self._rates = ((self.muon, lr), (self.adam, adam_lr))

    def step(self, factor: float) -> None:
        """One update with both learning rates times ``factor``; gradients are cleared afterwards."""
        for optimizer, rate in self._rates:
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Plain state of both optimizers."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ValueError: a tensor is not of the shape of its parameter; for other states, what torch raises.
        """
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        for optimizer, _ in self._rates:
            for parameter, held in optimizer.state.items():
                if any(value.ndim and value.shape != parameter.shape for value in held.values()):
                    raise ValueError("the state of an optimizer is of another network")


def rate_factor(step: int, fraction: float, decay: float, warm_up: int = WARM_UP_STEPS) -> float:
    """Share of the full learning rate: warm-up by steps, constant, then linear decay by the budget.

    Args:
        step: updates made so far.
        fraction: share of the budget that is spent, 0..1.
        decay: share of the budget that the decay takes, in (0, 1].
        warm_up: updates that the warm-up takes.
    """
    warm = min(1.0, (step + 1) / warm_up)
    left = (1 - min(fraction, 1.0)) / decay
    return warm * (1.0 if left >= 1 else FINAL_SHARE + (1 - FINAL_SHARE) * left)
