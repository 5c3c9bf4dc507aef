"""What the main job returns, and how it becomes files."""

from __future__ import annotations

import base64
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from html import escape
from io import BytesIO
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
    lossy,
    read_picture,
    save_picture,
    size_on_disk,
    uncertainty_picture,
    write_array_atomic,
    write_bytes_atomic,
)
from ..imaging.arrays import is_array
from .inputs import flag, path, text
from .method import MAX_SAMPLES
from .record import RUN_FILE, Record, check_same, clear_parts, created, interrupted, locked, other_versions, read_record

SUFFIXES = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tif", "npy": ".npy"}
_ALIASES = {"jpeg": "jpg", "tif": "tiff"}
_OF_FORMAT = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "NPY": ".npy"}


@dataclass(frozen=True, eq=False)
class Result:
    """Completions of a picture.

    Attributes:
        images: the completions, of the input's size and mode; known pixels are bit-identical.
        mean: the mean of the completions (of their unrounded values).
        uncertainty: (H, W) float32, standard deviation over the samples (n - 1 in the denominator), averaged over the
            channels, in units of values on [-1, 1]; 0 on known pixels. None for one sample, which says nothing of it.
        info: everything needed to reproduce the run; ``info["call"]`` are the keyword arguments of ``inpaint``.
        known: (H, W) bool, True where a pixel was known.
        picture: the input.
        warnings: what the user should hear about, one sentence each.
    """

    images: list[Image.Image]
    mean: Image.Image
    uncertainty: NDArray[np.float32] | None
    info: dict[str, Any]
    known: NDArray[np.bool_] = field(repr=False)
    picture: Picture = field(repr=False)
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """One line: what was drawn, of what, how, and whether there is something to hear about."""
        count, told, (width, height) = len(self.images), len(self.warnings), self.mean.size
        call, prior = self.info["call"], self.info["prior"]
        facts = (
            f"{count} sample{'s' * (count != 1)} of {width} x {height} {self.mean.mode}",
            f"{call['method']} on {prior['name']}",
            f"seed {call['seed']}" if isinstance(call["seed"], int) else "seeds of your own",
            f"{told} warning{'s' * (told != 1)}" if told else "",
        )
        return f"Result({', '.join(filter(None, facts))})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the contact sheet, the seed of each sample, and the warnings."""
        heat, data = self._heat(), BytesIO()
        self._sheet(heat).save(data, "JPEG", quality=92, subsampling=0)
        picture = base64.b64encode(data.getvalue()).decode("ascii")
        line, seeds = repr(self), ", ".join(map(str, self.info["sample_seeds"][: len(self.images)]))
        told = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.warnings)
        return (
            f'<figure><img alt="{escape(line)}" style="max-width: 100%" src="data:image/jpeg;base64,{picture}">'
            f"<figcaption>{escape(line)}"
            f"<br>Seeds of the samples: {seeds}</figcaption></figure>" + (f"<ul>{told}</ul>" if told else "")
        )

    def _heat(self) -> Image.Image | None:
        """The uncertainty as a picture; None for one sample."""
        if self.uncertainty is None:
            return None
        return uncertainty_picture(self.uncertainty, self.known, background=self.picture.image)

    def _sheet(self, heat: Image.Image | None) -> Image.Image:
        """All at a glance."""
        tinted = self.known if self.known.any() else ~self.known  # a whole picture is not shown as a hole
        return contact_sheet(self.picture.image, tinted, self.images, mean=self.mean, uncertainty=heat)

    def save(
        self,
        folder: str | Path,
        stem: str | None = None,
        *,
        format: str | None = None,
        overwrite: bool = False,
        read_back: bool = True,
    ) -> list[Path]:
        """Write the completions, mean, uncertainty, contact sheet and run.json into a folder, each file atomically.

        Args:
            folder: made where it is missing.
            stem: start of the names (see ``Output``); by default the input's, or "picture" for one made in memory.
            format: png, jpg, webp, tiff, npy, or same (as the input); None is png, or for values that PNG cannot hold
                the input's, and npy for those of an array.
            overwrite: whether files of these names may be replaced.
            read_back: whether each picture is decoded and compared before its file takes its name (`save_picture`).

        Returns:
            The files.

        Raises:
            UsageError: a file exists already or cannot be written, or the format cannot hold the picture.
            PriorpaintError: a file read back as something else.

        Warns:
            UserWarning: what the format cannot keep of the picture's metadata.
        """
        if stem is not None:
            text(stem, "stem")
        overwrite, read_back = flag(overwrite, "overwrite"), flag(read_back, "read_back")
        stem = stem or Path(self.info["image"]["path"] or "picture").stem
        output = Output(path(folder, "folder"), stem, suffix_for(format, self.picture), read_back)
        made = replace(self.picture, image=self.images[0])
        with output.reserved(len(self.images), self.info, overwrite=overwrite, picture=made) as record:
            for sentence in record.told:
                warnings.warn(sentence, stacklevel=2)
            completions = [output.write_completion(k, image, self.picture) for k, image in enumerate(self.images)]
            return completions + output.write_summary(self, record)


@dataclass(frozen=True)
class Output:
    """The names of a run's files: STEM_0.png, STEM_1.png, ... (completions), STEM_mean.png, STEM_uncertainty.png and
    .npy (of two samples or more), STEM_sheet.png and run.json, or STEM_run.json in a folder that holds another
    picture's run.json, or with ``own_record`` in any. Completions and mean have ``suffix``, the other pictures are PNG.
    ``read_back`` as for `save_picture`.
    """

    folder: str | Path
    stem: str
    suffix: str = ".png"
    read_back: bool = True
    own_record: bool = False

    def __post_init__(self) -> None:
        if any(mark in self.stem for mark in (os.sep, os.altsep, "\0") if mark):
            raise UsageError(f"a stem is the start of a file's name and has no {os.sep}, but this one is {self.stem!r}")

    def path(self, ending: str) -> Path:
        """FOLDER/STEM_ENDING."""
        return Path(self.folder) / f"{self.stem}_{ending}"

    def completion(self, index: int) -> Path:
        """The file of completion ``index``, counted from 0."""
        return self.path(f"{index}{self.suffix}")

    def files(self, num_samples: int) -> list[Path]:
        """All files of a run."""
        return [*(self.completion(k) for k in range(num_samples)), *self._summary(num_samples)]

    def check(self, num_samples: int, *, overwrite: bool, picture: Picture | None = None) -> tuple[str, ...]:
        """Say before the work starts that the files cannot be written.

        Returns:
            What will not be kept of the picture's metadata, one sentence.

        Raises:
            UsageError: a file exists already, the folder cannot be written to, its names are too long, its disk is too
                full, or the format cannot hold the picture.
        """
        there = interrupted(read_record(self._run_file()))
        if there is not None and there[0] and not overwrite:
            raise UsageError(
                f"{self.folder} holds {there[0]} of {there[1]} samples of an interrupted run of {self.stem}; go on "
                "with it by --resume, replace it by --overwrite, or choose another folder."
            )
        completions = (self.completion(k) for k in range(num_samples))
        files = [*completions, *self._summary(2), self.path(RUN_FILE)]
        if there is not None:  # a run that died before its first sample left its run.json only
            files = [file for file in files if file != self._run_file()]
        check_results(self.folder, files, overwrite=overwrite)
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

    @contextmanager
    def reserved(
        self, num_samples: int, info: Mapping[str, Any], *, overwrite: bool = False, picture: Picture | None = None
    ) -> Iterator[Record]:
        """Inside, the files are this run's alone; run.json says from the start on what it will be.

        Args:
            info: what is known of the run, for run.json.
            overwrite, picture: as for `check`.

        Raises:
            UsageError: as `check`, or another run is writing the same files.
        """
        lost = self.check(num_samples, overwrite=overwrite, picture=picture)  # before a folder is made
        self.spare_inputs(num_samples, info)
        with locked(Path(self.folder), self.stem):
            self._clear_parts()
            self.check(num_samples, overwrite=overwrite)
            path = self._run_file()
            before = path.read_bytes() if path.exists() else None
            names = [file.name for file in self.files(num_samples)]
            record = Record(path, {**info, "outputs": names}, 0, self._own_names(read_record(path)), lost)
            if before is None and path != self.path(RUN_FILE):
                record.path = created(self.path(RUN_FILE), path, record.text())
            else:
                record.write()
            try:
                yield record
            except BaseException:
                if not record.finished:  # a run without a sample leaves nothing
                    with suppress(OSError, UsageError):  # the folder may be gone, which is told already
                        record.path.unlink() if before is None else write_bytes_atomic(record.path, before)
                raise

    @contextmanager
    def resumed(
        self, num_samples: int, info: Mapping[str, Any], picture: Picture, known: NDArray[np.bool_]
    ) -> Iterator[tuple[Record, list[Image.Image]]]:
        """As `reserved`, for a run that goes on with an interrupted one, whose completions come with it.

        Args:
            known: (H, W), True where a completion has the pixels of ``picture``.

        Raises:
            UsageError: there is none, it is a run of something else, or it is still under way.
        """
        self.check_resumable()
        with locked(Path(self.folder), self.stem):
            self._clear_parts()
            path = self._run_file()
            old = read_record(path)
            if old is None:
                raise UsageError(f"{path} is gone; leave --resume out to begin anew.")
            check_same(path, old, info, self.suffix)
            images = self._finished(old, picture, known)
            there = all(map(Path.exists, self.files(num_samples)))
            if there and len(images) == num_samples and interrupted(old) is None:
                yield Record(path, old, num_samples, complete=True), images
                return
            names = [file.name for file in self.files(num_samples)]
            lost = check_output(self.completion(0), picture)
            check_space(self.folder, self.size(num_samples - len(images), picture))
            told = other_versions(path, old, info) if images else ()
            record = Record(path, {**info, "outputs": names}, len(images), self._own_names(old), (*lost, *told))
            record.write()
            yield record, images

    def _finished(self, record: Mapping[str, Any], picture: Picture, known: NDArray[np.bool_]) -> list[Image.Image]:
        """The completions of a run up to the first one that was removed, damaged or replaced since."""
        said, images = record.get("finished_samples"), []
        for index in range(min(said, MAX_SAMPLES) if isinstance(said, int) else 0):
            path = self.completion(index)
            try:
                there = read_picture(path)
            except UsageError:
                break
            if there.size != picture.size or not (lossy(path) or _same_where(known, there, picture)):
                break
            images.append(there.image)
        return images

    def check_resumable(self) -> None:
        """Say before the work starts that there is no run to go on with.

        Raises:
            UsageError: there is none.
        """
        if read_record(self._run_file()) is None:
            raise UsageError(
                f"{self.folder} holds no run of {self.stem} to go on with; leave --resume out to begin one."
            )

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
        save_picture(image, path, picture, read_back=self.read_back)
        return path

    def write_summary(self, result: Result, record: Record) -> list[Path]:
        """Write everything but the completions, at last run.json, and remove what a replaced run left."""
        count, heat = len(result.images), result._heat()
        save_picture(result.mean, self.path(f"mean{self.suffix}"), result.picture, read_back=self.read_back)
        if heat is not None and result.uncertainty is not None:
            save_picture(heat, self.path("uncertainty.png"), read_back=self.read_back)
            write_array_atomic(self.path("uncertainty.npy"), result.uncertainty)
        save_picture(result._sheet(heat), self.path("sheet.png"), read_back=self.read_back)
        names = [file.name for file in self.files(count)]
        record.info, record.finished = {**result.info, "outputs": names}, count
        record.write()
        for name in record.earlier.difference(names):
            (Path(self.folder) / name).unlink(missing_ok=True)
        return self._summary(count)

    def spare_inputs(self, num_samples: int, info: Mapping[str, Any]) -> None:
        """Say that a file of the run would replace one that it reads, whatever may be overwritten.

        Raises:
            UsageError: it would.
        """
        picture, mask, call = (info.get(part) or {} for part in ("image", "mask", "call"))
        inputs = [Path(path) for path in (picture.get("path"), mask.get("path"), call.get("mask_diff")) if path]
        inputs = [path for path in inputs if path.is_file()]
        for file in filter(Path.is_file, self.files(num_samples)):
            if any(file.samefile(path) for path in inputs):
                raise UsageError(f"{file} is an input of this run, which would replace it; choose another folder.")

    def _summary(self, num_samples: int) -> list[Path]:
        uncertainty = ("uncertainty.png", "uncertainty.npy") if num_samples > 1 else ()
        return [*map(self.path, (f"mean{self.suffix}", *uncertainty, "sheet.png")), self._run_file()]

    def _is_own(self, name: str) -> bool:
        """Whether a run of this stem writes a file of this name, in any format."""
        pattern = re.escape(self.stem) + r"_(\d+\.\w+|mean\.\w+|uncertainty\.(png|npy)|sheet\.png|run\.json)"
        return re.fullmatch(pattern, name) is not None

    def _own_names(self, record: dict[str, Any] | None) -> frozenset[str]:
        outputs = [] if record is None else record["outputs"]
        return frozenset(name for name in outputs if isinstance(name, str) and self._is_own(name))

    def _clear_parts(self) -> None:
        run = self._run_file()
        record = read_record(run)
        own = record is not None and self.path("sheet.png").name in record["outputs"]
        clear_parts(Path(self.folder), lambda name: self._is_own(name) or (own and name == run.name))

    def _run_file(self) -> Path:
        shared = Path(self.folder) / RUN_FILE
        own = self.path(RUN_FILE)
        if self.own_record or os.path.exists(own):  # False of a name that is too long, which is told later
            return own
        if not os.path.exists(shared):
            return shared
        record = read_record(shared)
        others = record is not None and self.path("sheet.png").name not in record["outputs"]
        return self.path(RUN_FILE) if others else shared


def _same_where(known: NDArray[np.bool_], there: Picture, picture: Picture) -> bool:
    """Whether a file has the known pixels of a picture; a format without grey has them three times."""
    values, wanted = there.values(), picture.values()
    return values.dtype == wanted.dtype and bool((values == wanted)[known].all())


def suffix_for(format: str | None, picture: Picture | None = None) -> str:
    """The suffix of completions: of a named format; of the picture's own for "same"; None see `Result.save`.

    Raises:
        UsageError: an unknown format.
    """
    if format is not None:
        text(format, "format")
    if picture is not None and (format or "same").lower() == "same":
        if format is None and not is_array(picture.image):
            return SUFFIXES["png"]
        return _OF_FORMAT[picture.format or ("NPY" if is_array(picture.image) else "PNG")]
    name = _ALIASES.get((format or "png").lower(), (format or "png").lower())
    if name not in SUFFIXES:
        raise UsageError(f"there is no output format {format!r}; choose {', '.join(SUFFIXES)} or same.")
    return SUFFIXES[name]
