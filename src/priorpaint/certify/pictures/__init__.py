"""Methods on pictures whose completions can be judged: avatars, with an exact posterior combination by combination."""

from .masks import MASKS, draw_masks
from .run import PictureCell, PictureReport, certify_pictures

__all__ = ["MASKS", "PictureCell", "PictureReport", "certify_pictures", "draw_masks"]
