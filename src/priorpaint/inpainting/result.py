"""What the main job returns, and how it becomes files."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import UsageError
from ..imaging import (
    Picture,
    check_output,
    check_results,
    check_space,
    contact_sheet,
    save_picture,
    size_on_disk,
    uncertainty_picture,
    write_array_atomic,
    write_text_atomic,
)
from ..imaging.arrays import is_array

RUN_FILE = "run.json"
SUFFIXES = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tif", "npy": ".npy"}
_ALIASES = {"jpeg": "jpg", "tif": "tiff"}
_OF_FORMAT = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "NPY": ".npy"}


@dataclass(frozen=True, eq=False)
class Result:
    """Completions of a picture.

    Attributes:
        images: the completions, of the input's size and mode; known pixels are bit-identical.
        mean: the mean of the completions (of their unrounded values).
        uncertainty: (H, W) float32, standard deviation over the samples (n - 1 in the denominator; 0 for one sample),
            averaged over the channels, in units of values on [-1, 1]; 0 on known pixels.
        info: everything needed to reproduce the run; ``info["call"]`` are the keyword arguments of ``inpaint``.
        known: (H, W) bool, True where a pixel was known.
        picture: the input.
        warnings: what the user should hear about, one sentence each.
    """

    images: list[Image.Image]
    mean: Image.Image
    uncertainty: NDArray[np.float32]
    info: dict[str, Any]
    known: NDArray[np.bool_] = field(repr=False)
    picture: Picture = field(repr=False)
    warnings: tuple[str, ...] = ()

    def save(
        self, folder: str | Path, stem: str | None = None, *, format: str | None = None, overwrite: bool = False
    ) -> list[Path]:
        """Write the completions, mean, uncertainty, contact sheet and run.json into a folder, each file atomically.

        Args:
            folder: made where it is missing.
            stem: start of the names (see ``Output``); by default the input's, or "picture" for one made in memory.
            format: png, jpg, webp, tiff, npy, or same (as the input); None is png, or for values that PNG cannot hold
                the input's, and npy for those of an array.
            overwrite: whether files of these names may be replaced.

        Returns:
            The files.

        Raises:
            UsageError: a file exists already or cannot be written, or the format cannot hold the picture.

        Warns:
            UserWarning: what the format cannot keep of the picture's metadata.
        """
        stem = stem or Path(self.info["image"]["path"] or "picture").stem
        output = Output(folder, stem, suffix_for(format, self.picture))
        for sentence in output.check(len(self.images), overwrite=overwrite, picture=self.picture):
            warnings.warn(sentence, stacklevel=2)
        completions = [output.write_completion(k, image, self.picture) for k, image in enumerate(self.images)]
        return completions + output.write_summary(self)


@dataclass(frozen=True)
class Output:
    """The names of a run's files: STEM_0.png, STEM_1.png, ... (completions), STEM_mean.png, STEM_uncertainty.png and
    .npy, STEM_sheet.png and run.json, or STEM_run.json in a folder that holds another picture's run.json. Completions
    and mean have ``suffix``, the other pictures are PNG.
    """

    folder: str | Path
    stem: str
    suffix: str = ".png"

    def path(self, ending: str) -> Path:
        """FOLDER/STEM_ENDING."""
        return Path(self.folder) / f"{self.stem}_{ending}"

    def completion(self, index: int) -> Path:
        """The file of completion ``index``, counted from 0."""
        return self.path(f"{index}{self.suffix}")

    def files(self, num_samples: int) -> list[Path]:
        """All files of a run."""
        return [*(self.completion(k) for k in range(num_samples)), *self._summary()]

    def __post_init__(self) -> None:
        if any(mark in self.stem for mark in (os.sep, os.altsep, "\0") if mark):
            raise UsageError(f"a stem is the start of a file's name and has no {os.sep}, but this one is {self.stem!r}")

    def check(self, num_samples: int, *, overwrite: bool, picture: Picture | None = None) -> tuple[str, ...]:
        """Say before the work starts that the files cannot be written.

        Returns:
            What will not be kept of the picture's metadata, one sentence.

        Raises:
            UsageError: a file exists already, the folder cannot be written to, its names are too long, its disk is too
                full, or the format cannot hold the picture.
        """
        check_results(self.folder, [*self.files(num_samples), self.path(RUN_FILE)], overwrite=overwrite)
        if picture is None:
            return ()
        lost = check_output(self.completion(0), picture)
        check_space(self.folder, self.size(num_samples, picture))
        return lost

    def size(self, num_samples: int, picture: Picture) -> int:
        """Bytes that the files of a run take at least: pictures half of what they take by the picture's middle."""
        one = size_on_disk(self.completion(0), picture.image)
        width, height = picture.size
        return (num_samples + 1) * one // 2 + 4 * width * height  # float32 uncertainty

    def write_completion(self, index: int, image: Image.Image, picture: Picture) -> Path:
        """Write completion ``index`` with the input's ICC profile and EXIF block; a missing folder is made.

        Raises:
            UsageError: folder or file cannot be written.
        """
        path = self.completion(index)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.folder} cannot be made ({error.strerror}); choose another folder.") from None
        save_picture(image, path, picture)
        return path

    def write_summary(self, result: Result) -> list[Path]:
        """Write everything but the completions; first run.json, which says what there will be."""
        mean, uncertainty, array, sheet, run = self._summary()
        info = {**result.info, "outputs": [file.name for file in self.files(len(result.images))]}
        write_text_atomic(run, json.dumps(info, indent=2) + "\n")
        save_picture(result.mean, mean, result.picture)
        heat = uncertainty_picture(result.uncertainty, result.known, background=result.picture.image)
        save_picture(heat, uncertainty)
        write_array_atomic(array, result.uncertainty)
        tinted = result.known if result.known.any() else ~result.known  # a whole picture is not shown as a hole
        page = contact_sheet(result.picture.image, tinted, result.images, mean=result.mean, uncertainty=heat)
        save_picture(page, sheet)
        return self._summary()

    def _summary(self) -> list[Path]:
        names = (f"mean{self.suffix}", "uncertainty.png", "uncertainty.npy", "sheet.png")
        return [*(self.path(name) for name in names), self._run_file()]

    def _run_file(self) -> Path:
        shared = Path(self.folder) / RUN_FILE
        if self.path(RUN_FILE).exists():
            return self.path(RUN_FILE)
        if not shared.exists():
            return shared
        try:
            others = self.path("sheet.png").name not in json.loads(shared.read_text(encoding="utf-8"))["outputs"]
        except (OSError, ValueError, KeyError, TypeError):
            return shared
        return self.path(RUN_FILE) if others else shared


def suffix_for(format: str | None, picture: Picture | None = None) -> str:
    """The suffix of completions: of a named format; of the picture's own for "same"; None see `Result.save`.

    Raises:
        UsageError: an unknown format.
    """
    if picture is not None and (format or "same").lower() == "same":
        if format is None and not is_array(picture.image):
            return SUFFIXES["png"]
        return _OF_FORMAT[picture.format or ("NPY" if is_array(picture.image) else "PNG")]
    name = _ALIASES.get((format or "png").lower(), (format or "png").lower())
    if name not in SUFFIXES:
        raise UsageError(f"there is no output format {format!r}; choose {', '.join(SUFFIXES)} or same.")
    return SUFFIXES[name]
