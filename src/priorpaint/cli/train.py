"""``priorpaint train``: a prior from a folder of pictures."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from priorpaint.errors import UsageError

from .options import Threads, use_threads, with_options
from .terminal import echo

if TYPE_CHECKING:
    from priorpaint.priors.native.weights_file import Config
    from priorpaint.training.config import TrainConfig
    from priorpaint.training.machine import Defaults

_NETWORKS = ("unet", "mlp")


@dataclass(frozen=True)
class TrainOptions:
    """What was asked for; None is what a checkpoint has, or the usual. Fields that `TrainConfig` has mean the same.

    Raises:
        UsageError: some that do not go together.
    """

    data: Annotated[
        list[Path],
        Option(metavar="PATH", help="Folder, picture, tar file of pictures, or idx file; repeatable."),
    ]
    out: Annotated[Path, Option(metavar="FOLDER", help="Folder for checkpoint, weights, samples and log.")]
    val: Annotated[list[Path] | None, Option(metavar="PATH", help="Held-out pictures; repeatable.")] = None
    hold_out: Annotated[bool, Option(help="Without --val, keep one in 50 of 200 or more from training.")] = True
    size: Annotated[int, Option(metavar="PIXELS", help="Side of the crops in pixels.")] = 64
    whole: Annotated[
        bool | None,
        Option(
            "--whole/--parts",
            help="Learn whole pictures, shrunk to --size, or parts; default: parts (idx files: whole).",
        ),
    ] = None
    wide: Annotated[
        int, Option(metavar="PIXELS", help="Side of the wide crops of every 4th batch in pixels; 0 = none.")
    ] = 0
    grey: Annotated[bool | None, Option("--grey/--colour", help="Default: colour (idx files: grey).")] = None
    classes: Annotated[
        str, Option(metavar="auto|none", help="auto: subfolders and idx labels are classes; none: never.")
    ] = "auto"
    label_dropout: Annotated[float, Option(metavar="SHARE", help="Share of crops whose class is hidden.")] = 0.5
    augment: Annotated[
        str,
        Option(
            metavar="auto|photo|flip|none",
            help="photo (mirror, transpose), flip, none; auto: photo; classes and wholes: flip; idx and mlp: none.",
        ),
    ] = "auto"
    channels: Annotated[
        str | None,
        Option(metavar="C,C,...", help="Width of each level, such as 48,80,128,192; default: chosen for this machine."),
    ] = None
    blocks: Annotated[str | None, Option(metavar="N,N,...", help="Residual blocks per level, such as 2,2,2,2.")] = None
    network: Annotated[
        str | None, Option(metavar="unet|mlp", help="unet, or mlp for small aligned whole pictures; default: unet.")
    ] = None
    dense: Annotated[
        str | None,
        Option(
            metavar="WIDTH,WIDTH,...",
            help="For aligned whole pictures: widths of blocks that join all positions, such as 512,512,512.",
        ),
    ] = None
    width: Annotated[int | None, Option(metavar="N", help="mlp: features between its blocks; default: 768.")] = None
    cell: Annotated[
        int | None, Option(metavar="PIXELS", help="mlp: side of a pixel-art cell in pixels; default: 1.")
    ] = None
    batch: Annotated[int | None, Option(metavar="N", help="Crops per batch; default: chosen for this machine.")] = None
    crops: Annotated[int | None, Option(metavar="N", help="Budget in crops.")] = None
    hours: Annotated[
        float | None,
        Option(metavar="HOURS", help="Budget in hours, over all resumptions; default: 8, on a GPU 4 (autoencoder: 2)."),
    ] = None
    loss: Annotated[
        str,
        Option(
            metavar="edm|simple|hybrid|vlb", help="edm, simple (DDPM), hybrid (learned variance) or vlb (the bound)."
        ),
    ] = "edm"
    betas: Annotated[
        str, Option(metavar="linear|cosine|scaled_linear", help="Noise schedule of simple, hybrid and vlb.")
    ] = "linear"
    lr: Annotated[float, Option(metavar="RATE", help="Learning rate of Muon.")] = 0.01
    adam_lr: Annotated[
        float, Option(metavar="RATE", help="Learning rate of Adam (all but the inner convolutions).")
    ] = 1e-3
    decay: Annotated[
        float,
        Option(
            metavar="SHARE", help="Share of the budget, at its end, over which the learning rates fall; 1 with --init."
        ),
    ] = 0.4
    ema: Annotated[float, Option(metavar="DECAY", help="Largest decay of the moving average.")] = 0.999
    ema_power: Annotated[
        float, Option(metavar="WIDTH", help="Width of a power-function average to use instead, such as 0.1; 0 = none.")
    ] = 0.0
    sigma_min: Annotated[
        float | None,
        Option(metavar="SIGMA", help="Smallest noise level, pictures being in [-1, 1]; default: 0.01, latents 0.02."),
    ] = None
    sigma_max: Annotated[
        float | None,
        Option(metavar="SIGMA", help="Largest noise level; default: 8, for whole pictures and latents 80."),
    ] = None
    p_mean: Annotated[
        float | None, Option(metavar="MEAN", help="Mean of ln sigma in training; default: -1.2, for latents -0.5.")
    ] = None
    p_std: Annotated[float, Option(metavar="STD", help="Standard deviation of ln sigma in training.")] = 1.3
    balance: Annotated[bool, Option(help="Give every noise level the same weight in the loss.")] = True
    precision: Annotated[str, Option(metavar="auto|bf16|float32", help="Floating-point precision.")] = "auto"
    seed: Annotated[int, Option(metavar="N", help="Seed of weights, crops and noise.")] = 0
    resume: Annotated[bool, Option(help="Continue from OUT/checkpoint.pt where it exists.")] = True
    init: Annotated[Path | None, Option(metavar="WEIGHTS", help="Weights file to start from.")] = None
    threads: Threads = None
    validate_minutes: Annotated[float, Option(metavar="MINUTES", help="Minutes between validations and exports.")] = (
        10.0
    )
    autoencoder: Annotated[
        bool, Option("--autoencoder", help="Train an autoencoder, the first half of a latent prior.")
    ] = False
    factor: Annotated[
        int | None,
        Option(metavar="PIXELS", help="Autoencoder: side of a latent cell in pixels, a power of 2; default: 8."),
    ] = None
    latent_channels: Annotated[
        int | None, Option(metavar="N", help="Autoencoder: channels of a latent; default: 8.")
    ] = None
    latent_noise: Annotated[
        float | None,
        Option(metavar="STD", help="Autoencoder: noise on its latents of deviation 1 in training; default: 0.1."),
    ] = None
    latent: Annotated[
        Path | None,
        Option(metavar="PATH", help="Folder or file of an autoencoder: learn its latents, for a latent prior."),
    ] = None

    def __post_init__(self) -> None:
        if not self.autoencoder and {self.factor, self.latent_channels, self.latent_noise} != {None}:
            raise UsageError("--factor, --latent-channels and --latent-noise are for --autoencoder.")
        if self.autoencoder and not (self.network is None and self.dense is None):
            raise UsageError(
                "--network and --dense are for denoisers; an autoencoder is convolutional, for pictures of any size."
            )
        if self.latent is not None and self.grey is not None:
            raise UsageError(
                "The autoencoder of --latent says whether pictures are grey; leave --grey and --colour out."
            )
        if self.network not in (None, *_NETWORKS):
            raise UsageError(f"--network is {' or '.join(_NETWORKS)}; got {self.network!r}.")


@with_options(TrainOptions)
def train(options: TrainOptions) -> None:
    """Train a denoising prior on pictures. Stop it at any time; the same command continues from there.

    The folder OUT is then a prior: priorpaint inpaint ... --prior OUT. A latent prior takes two runs: its autoencoder
    (--autoencoder --out AE), and the denoiser of its latents (--latent AE --out OUT).
    """
    from priorpaint.training.loop import train as run_training
    from priorpaint.training.machine import end_process

    from .progress import TrainingDisplay, clock
    from .stopping import signals

    use_threads(options.threads)
    config = _config(options)
    with signals() as cancel, TrainingDisplay() as display:
        outcome = run_training(config, display, cancel)
    if outcome.cancelled:
        if outcome.speaks:
            echo(f"Stopped after {outcome.crops} crops; the same command continues from there.", err=True)
        end_process(cancel.exit_code)
        raise typer.Exit(cancel.exit_code)
    if outcome.speaks:
        out, seconds = options.out, clock(outcome.seconds)
        echo(f"Trained on {outcome.crops} crops in {seconds}; weights: {out / 'weights.safetensors'}")
        use = f"Use it with: priorpaint inpaint PICTURE MASK --prior {out}"
        if options.autoencoder:
            use = f"Now the denoiser of its latents: priorpaint train --latent {out} --data ... --out ..."
        echo(use, err=True)
    end_process(0)


def _config(options: TrainOptions) -> TrainConfig:
    """What is asked for, and for the rest what suits pictures, network and machine."""
    from priorpaint.imaging.idx import is_idx
    from priorpaint.priors.native.mlp import MLPConfig
    from priorpaint.training.checkpoint import CHECKPOINT, stored_network
    from priorpaint.training.config import TrainConfig, noise_levels
    from priorpaint.training.machine import MLP_BATCH, autoencoder_defaults, defaults, latent_defaults
    from priorpaint.training.tasks import load_autoencoder

    side, idx = options.size, any(map(is_idx, options.data))
    planes = 1 if (idx if options.grey is None else options.grey) else 3
    usual = autoencoder_defaults() if options.autoencoder else defaults(side)
    if options.latent is not None and not options.autoencoder:
        frozen = load_autoencoder(options.latent).network
        side, planes = side // frozen.factor, frozen.channels
        usual = latent_defaults(side)
    checkpoint = options.out / CHECKPOINT
    stored = stored_network(checkpoint) if options.resume and checkpoint.exists() else None
    shape = _network(options, stored, usual, side, planes)
    dense = isinstance(shape, MLPConfig)
    whole = (idx or dense) if options.whole is None else options.whole
    budget = {"hours": usual.hours} if options.crops is None else {}
    names = {one.name for one in fields(TrainConfig)}
    asked = {key: _plain(value) for key, value in vars(options).items() if key in names and value is not None}
    suited: dict[str, Any] = {**noise_levels(whole=whole, latent=options.latent is not None), **budget}
    suited |= {"batch": MLP_BATCH if dense else usual.batch, "sheet_minutes": options.validate_minutes, **asked}
    loss = "reconstruction" if options.autoencoder else options.loss
    return TrainConfig(**{**suited, "network": shape, "whole": whole, "loss": loss})


def _network(asked: TrainOptions, stored: Config | None, usual: Defaults, side: int, planes: int) -> Config:
    """The network for ``side`` pixels, or cells of latents, and ``planes`` channels, beside what a checkpoint has."""
    from priorpaint.priors.native.autoencoder import AutoencoderConfig
    from priorpaint.priors.native.mlp import MLPConfig
    from priorpaint.priors.native.unet import UNetConfig, parse_counts

    convolutions = not (asked.channels is None and asked.blocks is None)
    mlp = asked.network == "mlp" or (asked.network is None and isinstance(stored, MLPConfig) and not convolutions)
    if mlp and convolutions:
        raise UsageError("--channels and --blocks are for convolutions; --network mlp has --width and --dense.")
    if not (mlp or asked.autoencoder or (asked.width is None and asked.cell is None)):
        raise UsageError("--width and --cell are for --network mlp.")
    channels = usual.channels if asked.channels is None else parse_counts(asked.channels, "--channels")
    blocks = usual.blocks if asked.blocks is None else parse_counts(asked.blocks, "--blocks")
    dense = None if asked.dense is None else parse_counts(asked.dense, "--dense")
    shape: Config
    further: dict[str, Any]
    stored = None if convolutions else stored
    if asked.autoencoder:
        further = {"factor": asked.factor, "latent_channels": asked.latent_channels}
        shape = stored if isinstance(stored, AutoencoderConfig) else AutoencoderConfig(8, 8, channels, blocks)
    elif mlp:
        further = {"hidden": dense, "width": asked.width, "cell": asked.cell, "side": side, "classes": 0}
        shape = stored if isinstance(stored, MLPConfig) else MLPConfig(side)
    else:
        further = {"dense": dense, "side": None if dense is None else side, "classes": 0}
        further["learned_variance"] = asked.loss == "hybrid"
        shape = stored if isinstance(stored, UNetConfig) else UNetConfig(channels, blocks)
    return replace(shape, in_channels=planes, **{key: value for key, value in further.items() if value is not None})


def _plain(value: Any) -> Any:
    """Paths as texts."""
    if isinstance(value, list):
        return tuple(map(str, value))
    return str(value) if isinstance(value, Path) else value
