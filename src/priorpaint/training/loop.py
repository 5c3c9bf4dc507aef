"""The training loop: crops, loss, Muon and Adam, moving average, checkpoints, validation, export."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from priorpaint.errors import CancelToken, PriorError, UsageError, printable
from priorpaint.imaging.writing import check_results, make_folder, save_picture, write_text_atomic
from priorpaint.priors.native.autoencoder import AutoencoderConfig
from priorpaint.priors.native.mlp import MLPConfig
from priorpaint.priors.native.weights_file import Config, Network, new_network
from priorpaint.priors.verify import FIGURES
from priorpaint.training.checkpoint import (
    CHECKPOINT,
    Progress,
    check_same_run,
    read_checkpoint,
    restoring,
    save_checkpoint,
)
from priorpaint.training.checks import remarks
from priorpaint.training.config import TrainConfig
from priorpaint.training.data import Pictures, centre_crops, to_float
from priorpaint.training.ema import EMA
from priorpaint.training.forecast import forecast
from priorpaint.training.machine import accelerator, out_of_memory
from priorpaint.training.optim import Optimizers, rate_factor
from priorpaint.training.tasks import WEIGHTS, load_autoencoder, stored_weights, task_of

VALIDATION_SIDE = 128
SKIPPED = "skipped.txt"
_SKIPPED_SHOWN = 5
_NOTIFY_SECONDS = 1.0
_PREFETCH = 2
# Training crops that an autoencoder's latents are measured on.
_MEASURED = 512
# Pictures that the written weights denoise, to see that they do.
_VERIFIED = 8


@dataclass(frozen=True)
class Report:
    """The state of a run, given to ``on_progress`` about once a second and after each validation.

    Args:
        crops, seconds: seen and spent, over all resumptions.
        fraction: share of the budget that is spent, 0..1.
        loss: mean loss (unbalanced) since the last line of log.jsonl; None before the first step since this start.
        rate: crops per second since this start; None before the first step.
        seconds_left: estimate until the end of the budget.
        psnr: dB for each noise level (1/255), just after a validation only.
        notes: sentences for the user, such as the files that were skipped, or what is done after the last step.
    """

    crops: int
    seconds: float
    fraction: float
    loss: float | None
    rate: float | None
    seconds_left: float
    psnr: dict[str, float] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        crops, seconds: seen and spent, over all resumptions.
        cancelled: whether it was stopped before its budget was used up, in this or another process of the run.
        speaks: true in the one of several processes that reports.
    """

    crops: int
    seconds: float
    cancelled: bool
    speaks: bool = True


def train(
    config: TrainConfig,
    on_progress: Callable[[Report], None] = lambda report: None,
    cancel: CancelToken | None = None,
) -> Outcome:
    """Train a network, or go on with it, until the budget is used up or ``cancel`` is cancelled, from any thread.

    A cancelled run ends after the step it is in, and saves: the same configuration goes on from there. Of several
    processes, all end after the same step when one is cancelled.

    Writes checkpoint.pt, weights.safetensors (moving average, float16), samples.png and log.jsonl to ``config.out``,
    and skipped.txt where files cannot be used.

    Raises:
        MissingExtra: accelerate is not installed.
        UsageError: pictures, checkpoint or settings that cannot be used.
        PriorError: ``config.init`` cannot be read, the loss is no longer finite, memory or the disk is full.
    """
    folder = config.folder
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, but a run is written into a folder; choose another --out.")
    fresh = not folder.exists()
    make_folder(folder)  # first: reading the pictures may take long
    check_results(folder, (), overwrite=True)
    try:
        return _Run(config, on_progress).go(CancelToken() if cancel is None else cancel)
    except BaseException as error:
        if fresh:
            with suppress(OSError):  # what is in it stays
                folder.rmdir()
        if not out_of_memory(error):
            raise
        raise PriorError(
            "There is not enough memory for this training; ask for a smaller --batch or --size, or narrower --channels."
        ) from None


class _Run:
    """Everything that lives from the first to the last step."""

    def __init__(self, config: TrainConfig, on_progress: Callable[[Report], None]) -> None:
        self.on_progress = on_progress
        self.accelerator = accelerator(config.precision)
        device = self.accelerator.device
        autoencoder = None if config.latent is None else load_autoencoder(config.latent, device)
        codes = isinstance(config.network, AutoencoderConfig)
        self.notes: tuple[str, ...] = ()
        path = config.folder / CHECKPOINT
        state = read_checkpoint(path) if config.resume and path.exists() else None
        self.hold_out = self._hold_out(config, state)
        self.pictures = Pictures(
            config.data, config.size, wide=config.wide, scales=config.scales,
            channels=config.network.in_channels if autoencoder is None else autoencoder.network.image_channels,
            classes="none" if codes else config.classes, augment=config.augment,
            dense=isinstance(config.network, MLPConfig), whole=config.whole, hold_out=self.hold_out,
        )  # fmt: skip
        if not isinstance(config.network, AutoencoderConfig):
            told: Config = replace(config.network, classes=len(self.pictures.class_names))
            config = replace(config, network=told)
        self.config, self.autoencoder = config, None if autoencoder is None else autoencoder.sha256
        self.skipped, self.notes = self.pictures.skipped, (*self.notes, *remarks(self.config, self.pictures))
        self.task = task_of(config, autoencoder)
        network, self.progress = self._start(state)
        network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network, self.ema = network, EMA(network, config.ema, config.ema_power)
        self.optimizers = Optimizers(network, config.lr, config.adam_lr)
        if state is not None:
            with restoring(path):
                self.ema.network.load_state_dict(state["ema"])
                self.optimizers.load_state_dict(state["optimizers"])
                if self.task.balance is not None:
                    self.task.balance.means = self.task.balance.means.copy_(state["balance"])
        self.wrapped: Any = self.accelerator.prepare(network)
        with self.accelerator.autocast():
            self.source = self.task.source(self.pictures, device)
        self.validation = self._validation()
        self.psnr: dict[str, float] | None = None
        self.denoises = True
        self.loss_sum, self.loss_count = torch.zeros((), device=device), 0
        self.loss: float | None = None
        self.rate: float | None = None
        self.spent, self.cancelled = 0.0, False

    def _hold_out(self, config: TrainConfig, state: dict[str, Any] | None) -> bool:
        """Whether pictures are kept out: as asked, or as the run that goes on began."""
        asked = config.hold_out and not config.val
        if state is None:
            return asked
        before = bool(state.get("held_out", False))  # earlier versions did not hold out, nor say so
        if before != asked:
            self.notes = ("The run goes on with the pictures that it began with; --no-resume begins anew.",)
        return before

    def _start(self, state: dict[str, Any] | None) -> tuple[Network, Progress]:
        config, network = self.config, new_network(self.config.network, self.config.seed)
        if state is not None:
            path = config.folder / CHECKPOINT
            with restoring(path):
                check_same_run(path, state, config.network, config.loss, self.autoencoder)
                network.load_state_dict(state["network"])
            return network, Progress(int(state["step"]), int(state["crops"]), float(state["seconds"]))
        if config.init is not None:
            network.load_state_dict(stored_weights(config.init, config).state_dict())
        return network, Progress()

    def _validation(self) -> Tensor | None:
        """Held-out pictures: those of ``val``, or else those that were kept out of training."""
        if not self.accelerator.is_main_process:
            return None
        whole, multiple = self.config.whole, self.task.multiple
        side = self.config.size if whole else max(VALIDATION_SIDE, multiple)
        if not self.config.val:
            crops = self.pictures.held_out_crops(side, multiple)
            return None if crops is None else crops.to(self.accelerator.device)
        skipped: list[str] = []
        crops = centre_crops(
            self.config.val, side, multiple, self.pictures.channels, skipped, pad=self.config.size, whole=whole
        )
        self.skipped = [*self.skipped, *skipped]
        return crops.to(self.accelerator.device)

    def go(self, cancel: CancelToken) -> Outcome:
        """Train until the end of the budget, or until cancelled."""
        self.began, self.first_crop, self.before = time.monotonic(), self.progress.crops, self.progress.seconds
        config = self.config
        chores: tuple[tuple[Callable[[], None], float], ...] = (
            (self._notify, _NOTIFY_SECONDS),
            (self._log, config.report_seconds),
            (self._save, config.checkpoint_seconds),
            (lambda: self._validate(self._finished()), 60 * config.validate_minutes),
            (lambda: self._draw(self._finished()), 60 * config.sheet_minutes),
        )
        done = [self.began] * len(chores)
        if self.accelerator.is_main_process:
            self._notify((*self._skipped(), *self.notes, *self._forecast()))
        with ThreadPoolExecutor(1) as pool:
            waiting = [self._submit(pool, self.progress.step + ahead) for ahead in range(_PREFETCH)]
            while not self._over(cancel):
                waiting.append(self._submit(pool, self.progress.step + _PREFETCH))
                self._step(*waiting.pop(0).result())
                for index, (chore, every) in enumerate(chores):
                    if self.accelerator.is_main_process and time.monotonic() - done[index] >= every:
                        chore()
                        done[index] = time.monotonic()
        if self.accelerator.is_main_process:
            self._finish()
        return Outcome(self.progress.crops, self.progress.seconds, self.cancelled, self.accelerator.is_main_process)

    def _over(self, cancel: CancelToken) -> bool:
        self.progress.seconds = self.before + time.monotonic() - self.began
        signs = torch.tensor([self._fraction(), float(cancel.cancelled)], dtype=torch.float64)
        if self.accelerator.num_processes > 1:
            # Clocks and tokens differ between processes; all must take the last step together.
            gathered = self.accelerator.gather(signs.float().to(self.accelerator.device)).view(-1, 2).cpu()
            signs = gathered.amax(0).double()
        self.spent, self.cancelled = float(signs[0]), bool(signs[1])
        return self.spent >= 1 or self.cancelled

    def _fraction(self) -> float:
        return self.config.spent(self.progress.crops, self.progress.seconds)

    def _submit(self, pool: ThreadPoolExecutor, step: int) -> Future[tuple[Tensor, Tensor]]:
        return pool.submit(self.source.batch, self._index(step), self.config.batch, seed=self.config.seed)

    def _index(self, step: int) -> int:
        return int(step * self.accelerator.num_processes + self.accelerator.process_index)

    def _skipped(self) -> tuple[str, ...]:
        """The files that are not used, or where they are many some of them; skipped.txt lists all."""
        path = self.config.folder / SKIPPED
        if not self.skipped:
            path.unlink(missing_ok=True)
            return ()
        write_text_atomic(path, "".join(f"{printable(sentence)}\n" for sentence in self.skipped))
        more = len(self.skipped) - _SKIPPED_SHOWN
        last = (f"... and {more} more files skipped; {path} lists all of them.",) if more > 0 else ()
        return *self.skipped[:_SKIPPED_SHOWN], *last

    def _forecast(self) -> tuple[str, ...]:
        """How long this will take, before it starts."""
        if self._fraction() >= 1:
            return (
                f"This run is finished: its budget is spent, and its results are written once more; for more training "
                f"ask for more than {self.progress.crops} --crops or {self.progress.seconds / 3600:.2g} --hours.",
            )
        with self.accelerator.autocast():
            return (forecast(self.config, self.task, self.network, self.source, len(self.pictures.names),
                             self.progress, self.accelerator.num_processes),)  # fmt: skip

    def _step(self, batch: Tensor, labels: Tensor) -> None:
        device = self.accelerator.device
        x_0 = self.task.learned(batch.to(device)).contiguous(memory_format=torch.channels_last)
        # Noise follows the batch number, so that a resumed run sees what an uninterrupted one would have seen.
        seed = self.config.seed * 1_000_003 + self._index(self.progress.step)
        losses = self.task.losses(self.wrapped, x_0, labels.to(device), seed)
        self.accelerator.backward(losses.weighed.mean())
        self.optimizers.step(rate_factor(self.progress.step, self.spent, self.config.decay))
        self.ema.update(self.network, self.progress.step)
        self.progress.step += 1
        self.progress.crops += self.config.batch * self.accelerator.num_processes
        self.loss_sum += losses.plain.detach().mean()
        self.loss_count += 1

    def _loss(self) -> float | None:
        if self.loss_count:
            self.loss = float(self.loss_sum) / self.loss_count
        if self.loss is not None and not self.loss < float("inf"):
            raise PriorError("The training loss is no longer finite; resume from the checkpoint with a smaller --lr.")
        return self.loss

    def _notify(self, notes: tuple[str, ...] = (), psnr: dict[str, float] | None = None) -> None:
        self.progress.seconds = self.before + time.monotonic() - self.began
        here = self.progress.seconds - self.before
        new = self.progress.crops - self.first_crop
        self.rate = new / max(here, 1e-6) if new else None
        crops, seconds, fraction = self.progress.crops, self.progress.seconds, min(1.0, self._fraction())
        left = self.config.seconds_left(crops, seconds, self.rate or 0.0)
        self.on_progress(Report(crops, seconds, fraction, self._loss(), self.rate, left, psnr, notes))

    def _log(self, psnr: dict[str, float] | None = None) -> None:
        self._notify(psnr=psnr)
        line: dict[str, Any] = {"crops": self.progress.crops, "seconds": round(self.progress.seconds, 1)}
        for name, value, digits in (("loss", self._loss(), 5), ("crops_per_second", self.rate, 2)):
            line |= {} if value is None else {name: round(value, digits)}
        line |= {} if psnr is None else {"psnr": {level: round(value, 3) for level, value in psnr.items()}}
        path = self.config.folder / "log.jsonl"
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror}); check the folder and its disk.") from None
        self.loss_sum.zero_()
        self.loss_count = 0

    def _save(self) -> None:
        self._loss()  # a diverged state must not replace a good one
        self.progress.seconds = self.before + time.monotonic() - self.began
        state = {
            "network": self.network.state_dict(),
            "ema": self.ema.network.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            "balance": torch.ones(0) if self.task.balance is None else self.task.balance.means,
            "autoencoder": self.autoencoder,
            "config": asdict(self.config),
            "held_out": self.hold_out,
        }
        save_checkpoint(self.config.folder / CHECKPOINT, state, self.progress)

    def _validate(self, network: Any) -> None:
        if self.validation is not None:
            self.psnr = self.task.psnr(network, self.validation)
            self._log(self.psnr)
        self._export(network)

    def _export(self, network: Any) -> None:
        facts = self.config.facts() | {
            "crops": self.progress.crops,
            "seconds": round(self.progress.seconds),
            "pictures": len(self.pictures.names),
            **({"pictures_held_out": held} if (held := self.pictures.num_held_out) else {}),
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "held_out_psnr_db": self.psnr,
        }
        path, names = self.config.folder / WEIGHTS, self.pictures.class_names
        self.task.save(path, network, facts, names)
        pictures = self._crops() if self.validation is None else self.validation
        figures = self.task.figures(path, pictures[:_VERIFIED])
        if figures is not None:  # of the file as it is read, so that it has to be written first
            self.task.save(path, network, {**facts, FIGURES: figures}, names)
        self.denoises = figures is None or figures["denoises"]

    def _finished(self) -> Any:
        """The averaged network as it is used."""
        return self.task.finished(self.ema.network, self._crops())

    def _crops(self) -> Tensor:
        """Some training crops, always the same."""
        crops, _ = self.pictures.batch(0, _MEASURED, seed=self.config.seed)
        return to_float(crops.to(self.accelerator.device))

    def _draw(self, network: Any) -> None:
        sheet = self.task.sheet(network, self.validation, self._crops())
        save_picture(sheet, self.config.folder / "samples.png")

    def _finish(self) -> None:
        self._notify(("Saving the checkpoint.",))
        self._save()
        network = self._finished()
        if self.cancelled:
            self._notify(("Writing the weights.",))
            self._export(network)
            return
        self._notify(("Drawing samples.png.",))
        self._draw(network)
        held_out = "" if self.validation is None else f"Measuring {len(self.validation)} held-out pictures, and w"
        self._notify((f"{held_out or 'W'}riting the weights.",))
        self._validate(network)
        if self.validation is None:
            self._log()
        if not self.denoises:
            sentence = "Warning: the prior does not find noise as a trained denoiser does; train it longer."
            self._notify((sentence,), self.psnr)
