"""Sheets of small pictures, value by value."""

from __future__ import annotations

import numpy as np
import torch

from priorpaint.imaging.grids import picture_grid, picture_rows, to_pixels


def test_pictures_become_bytes() -> None:
    grey = torch.tensor([-2.0, -1.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    found = to_pixels(grey)
    assert found.dtype == np.uint8 and found.shape == (1, 2, 2, 3)
    assert found[0, :, :, 0].tolist() == [[0, 0], [128, 255]] and (found == found[..., :1]).all()
    colour = torch.rand(4, 5, 3, 2, 6) * 2 - 1
    assert np.abs(to_pixels(colour) / 127.5 - 1 - colour.movedim(2, -1).numpy()).max() <= 1 / 255 + 1e-6


def test_rows_stand_where_they_should() -> None:
    first, second = np.full((3, 2, 4, 3), 10, np.uint8), np.full((1, 3, 5, 3), 20, np.uint8)
    first[1, 0, 1] = 99
    sheet = np.asarray(picture_rows([first, second], gap=3, border=1, scale=2))
    wanted = np.full((4 + 6 + 3 + 2, 3 * 8 + 2 * 3 + 2, 3), 255)
    for left in (1, 12, 23):
        wanted[1:5, left : left + 8] = 10
    wanted[1:3, 14:16] = 99
    wanted[8:14, 1:11] = 20
    assert np.array_equal(sheet, wanted)


def test_a_grid_is_rows_of_equal_length() -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (5, 2, 3, 3), dtype=np.uint8)
    wanted = picture_rows([pictures[:2], pictures[2:4], pictures[4:]], gap=1)
    assert np.array_equal(np.asarray(picture_grid(pictures, 2, gap=1)), np.asarray(wanted))
    alone = np.asarray(picture_grid(pictures[:1], 3))
    assert alone.shape == (2, 9, 3) and np.array_equal(alone[:, :3], pictures[0]) and (alone[:, 3:] == 255).all()
