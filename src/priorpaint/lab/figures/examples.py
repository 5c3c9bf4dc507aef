"""Pictures and masks of a figure, in the size that the prior takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...errors import UsageError
from ...imaging import mask_picture, read_mask, read_picture
from ...imaging.mask_kinds import MASK_KINDS, mask_for
from ...imaging.sheets import shown
from ...operators import Inpainting
from ...priors.base import Prior


@dataclass(frozen=True)
class Examples:
    """B pictures of one size with their masks.

    Attributes:
        names: of the pictures.
        masks: what each mask is: a kind, or a file.
        x: (B, C, H, W) in [-1, 1].
        known: (B, 1, H, W), 1 where known.
    """

    names: tuple[str, ...]
    masks: tuple[str, ...]
    x: Tensor
    known: Tensor

    @property
    def operator(self) -> Inpainting:
        """What hides the unknown pixels."""
        return Inpainting(self.known)

    @property
    def y(self) -> Tensor:
        """What is known, (B, C, H, W)."""
        return self.operator(self.x)

    def to(self, prior: Prior) -> Examples:
        """The same on the prior's device."""
        return Examples(self.names, self.masks, self.x.to(prior.device), self.known.to(prior.device))

    def error(self, pictures: Tensor) -> Tensor:
        """Root mean square error in the hole of pictures (B, n, C, H, W), values clamped to [-1, 1], (B, n)."""
        hidden = (1 - self.known).expand_as(self.x)[:, None]
        squares = ((pictures.to(self.x).clamp(-1, 1) - self.x[:, None]).square() * hidden).flatten(2).sum(2)
        return (squares / hidden.flatten(2).sum(2)).sqrt()


def check_masks(pictures: Sequence[Path], masks: Sequence[str]) -> list[tuple[Path, str]]:
    """Each picture with its mask: as many masks as pictures, or one of either for all of the others.

    Raises:
        UsageError: other numbers, a picture that is missing, or a mask that is neither a kind nor a file.
    """
    count = max(len(pictures), len(masks))
    if not pictures or not masks or {len(pictures), len(masks)} - {1, count}:
        raise UsageError(
            f"a figure takes as many masks as pictures, or one of either, not {len(masks)} and {len(pictures)}."
        )
    for picture in pictures:
        if not picture.is_file():
            raise UsageError(f"{picture} does not exist; check the path.")
    for mask in masks:
        if mask not in MASK_KINDS and not Path(mask).is_file():
            raise UsageError(
                f"{mask} is neither a mask file nor a kind of masks; the kinds are {', '.join(MASK_KINDS)}."
            )
    return [(pictures[i % len(pictures)], masks[i % len(masks)]) for i in range(count)]


def read_examples(
    pairs: Sequence[tuple[Path, str]], prior: Prior, *, size: int | None = None, mask_seed: int = 0
) -> Examples:
    """Read pictures and masks for a prior.

    Pictures are cut to the middle and resized to what the prior takes, as the papers do: a prior of one size decides,
    else ``size`` makes squares, and without it only what is more than a multiple of the prior's is cut off.

    Args:
        pairs: picture files, and for each a mask file (white is to be repainted) or a kind of masks.
        prior: whose channels and size they get.
        size: side in pixels, for a prior of any size.
        mask_seed: of masks of a kind.

    Raises:
        UsageError: a file that cannot be read, a size that does not fit, or pictures of several sizes.
    """
    pictures, known = [], []
    for file, mask in pairs:
        picture = read_picture(file)
        target = _target(prior, picture.size, size)
        image = ImageOps.fit(shown(picture.image), target, Image.Resampling.LANCZOS)
        pictures.append(_values(image, prior.image_shape[0]))
        if mask in MASK_KINDS:
            visible = mask_for(Path(file).stem, mask, target[::-1], mask_seed)
        else:
            whole = mask_picture(read_mask(mask, picture.size).known)
            visible = np.asarray(ImageOps.fit(whole, target, Image.Resampling.NEAREST)) < 128
        if visible.all() or not visible.any():
            raise UsageError(f"at {target[0]}x{target[1]} pixels {mask} hides all or nothing; take another mask.")
        known.append(torch.from_numpy(visible.copy()).float()[None])
    if len({tuple(each.shape) for each in pictures}) > 1:
        raise UsageError("the pictures of a figure have one size; make them squares with --size, such as --size 64.")
    names, masks = zip(*((file.stem, mask) for file, mask in pairs), strict=True)
    return Examples(names, masks, torch.stack(pictures), torch.stack(known)).to(prior)


def _target(prior: Prior, picture: tuple[int, int], size: int | None) -> tuple[int, int]:
    """(width, height) that the picture gets."""
    _, height, width = prior.image_shape
    multiple = prior.image_multiple
    if height is not None and width is not None:
        if size is not None and (size, size) != (height, width):
            raise UsageError(f"the prior {prior.name} takes {width}x{height} pixels; leave --size out.")
        return width, height
    if size is not None and (size < multiple or size % multiple):
        raise UsageError(f"the prior {prior.name} takes sides that are multiples of {multiple}, not --size {size}.")
    wide, tall = (side - side % multiple for side in ((size, size) if size else picture))
    if min(wide, tall) < 1:
        raise UsageError(
            f"the prior {prior.name} takes sides from {multiple} pixels on; give --size or larger pictures."
        )
    return wide, tall


def _values(image: Image.Image, channels: int) -> Tensor:
    """(channels, H, W) in [-1, 1]."""
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.float32)
    return torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], -1).movedim(-1, 0) / 127.5 - 1
