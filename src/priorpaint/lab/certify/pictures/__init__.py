"""Methods on pictures whose completions can be judged.

Avatars have an exact posterior, combination by combination; pictures of fashion are judged by a classifier.
"""

from .masks import draw_masks
from .run import PictureCell, PictureReport, certify_pictures
from .subjects import SUBJECTS

__all__ = ["SUBJECTS", "PictureCell", "PictureReport", "certify_pictures", "draw_masks"]
