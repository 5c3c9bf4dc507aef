"""A prior whose every call can be the last one of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from ..errors import CancelToken
from ..priors.base import Denoising, Prior, WrappedPrior


class CancellablePrior(WrappedPrior):
    """The same prior; inside ``cancelled_by`` each call first looks at the token."""

    def __init__(self, inner: Prior) -> None:
        super().__init__(inner)
        self._token = CancelToken()

    @contextmanager
    def cancelled_by(self, token: CancelToken) -> Iterator[None]:
        """Calls inside raise `Cancelled` once the token is cancelled."""
        self._token = token
        try:
            yield
        finally:
            self._token = CancelToken()

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        self._token.check()
        return self.inner.evaluate(x_t, t, given)
