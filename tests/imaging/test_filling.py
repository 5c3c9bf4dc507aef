"""The smooth guess of a hole."""

from __future__ import annotations

import torch

from priorpaint.imaging.filling import smooth_fill


def test_a_filled_picture_keeps_what_is_known_and_stays_within_it() -> None:
    pictures = torch.rand(3, 2, 13, 21, generator=torch.Generator().manual_seed(0))
    known = torch.zeros(13, 21, dtype=torch.bool)
    known[3, 5] = known[10, 20] = known[0, 0] = True
    out = smooth_fill(pictures, known)
    assert torch.equal(out[..., known], pictures[..., known])
    for filled, kept in zip(out.flatten(0, 1), pictures[..., known].flatten(0, 1), strict=True):
        assert float(kept.min()) - 1e-6 <= float(filled.min()) and float(filled.max()) <= float(kept.max()) + 1e-6


def test_what_is_hidden_is_not_looked_at() -> None:
    known = torch.zeros(5, 7, dtype=torch.bool)
    known[4, 6] = True
    hidden = torch.full((1, 1, 5, 7), torch.nan)
    hidden[..., 4, 6] = 0.3
    torch.testing.assert_close(smooth_fill(hidden, known), torch.full((1, 1, 5, 7), 0.3))


def test_a_picture_is_filled_the_same_in_any_company() -> None:
    pictures = torch.rand(4, 3, 33, 18, generator=torch.Generator().manual_seed(1))
    known = torch.rand(33, 18, generator=torch.Generator().manual_seed(2)) < 0.3
    together = smooth_fill(pictures, known)
    assert all(torch.equal(together[i : i + 1], smooth_fill(pictures[i : i + 1], known)) for i in range(4))
