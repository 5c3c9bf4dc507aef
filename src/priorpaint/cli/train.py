"""``priorpaint train``: a prior from a folder of pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from priorpaint.errors import UsageError

from .options import Threads

if TYPE_CHECKING:
    from priorpaint.priors.native.weights_file import Config
    from priorpaint.training.loop import Outcome

_NETWORKS = ("unet", "mlp")


def train(
    data: Annotated[
        list[Path],
        Option(metavar="PATH", help="Folder, picture, tar file of pictures, or idx file; repeatable."),
    ],
    out: Annotated[Path, Option(metavar="FOLDER", help="Folder for checkpoint, weights, samples and log.")],
    val: Annotated[list[Path] | None, Option(metavar="PATH", help="Held-out pictures; repeatable.")] = None,
    hold_out: Annotated[bool, Option(help="Without --val, keep one in 50 of 200 or more from training.")] = True,
    size: Annotated[int, Option(metavar="PIXELS", help="Side of the crops in pixels.")] = 64,
    whole: Annotated[
        bool | None,
        Option(
            "--whole/--parts",
            help="Learn whole pictures, shrunk to --size, or parts; default: parts (idx files: whole).",
        ),
    ] = None,
    wide: Annotated[
        int, Option(metavar="PIXELS", help="Side of the wide crops of every 4th batch in pixels; 0 = none.")
    ] = 0,
    grey: Annotated[bool | None, Option("--grey/--colour", help="Default: colour (idx files: grey).")] = None,
    classes: Annotated[
        str, Option(metavar="auto|none", help="auto: subfolders and idx labels are classes; none: never.")
    ] = "auto",
    label_dropout: Annotated[float, Option(metavar="SHARE", help="Share of crops whose class is hidden.")] = 0.5,
    augment: Annotated[
        str,
        Option(
            metavar="auto|photo|flip|none",
            help="photo (mirror, transpose), flip, none; auto: photo; classes and wholes: flip; idx and mlp: none.",
        ),
    ] = "auto",
    channels: Annotated[
        str | None,
        Option(metavar="C,C,...", help="Width of each level, such as 48,80,128,192; default: chosen for this machine."),
    ] = None,
    blocks: Annotated[str | None, Option(metavar="N,N,...", help="Residual blocks per level, such as 2,2,2,2.")] = None,
    network: Annotated[
        str | None, Option(metavar="unet|mlp", help="unet, or mlp for small aligned whole pictures; default: unet.")
    ] = None,
    dense: Annotated[
        str | None,
        Option(
            metavar="WIDTH,WIDTH,...",
            help="For aligned whole pictures: widths of blocks that join all positions, such as 512,512,512.",
        ),
    ] = None,
    width: Annotated[int | None, Option(metavar="N", help="mlp: features between its blocks; default: 768.")] = None,
    cell: Annotated[
        int | None, Option(metavar="PIXELS", help="mlp: side of a pixel-art cell in pixels; default: 1.")
    ] = None,
    batch: Annotated[int | None, Option(metavar="N", help="Crops per batch; default: chosen for this machine.")] = None,
    crops: Annotated[int | None, Option(metavar="N", help="Budget in crops.")] = None,
    hours: Annotated[
        float | None,
        Option(metavar="HOURS", help="Budget in hours, over all resumptions; default: 8, on a GPU 4 (autoencoder: 2)."),
    ] = None,
    loss: Annotated[
        str, Option(metavar="edm|simple|hybrid", help="edm, simple (DDPM) or hybrid (learned variance).")
    ] = "edm",
    betas: Annotated[
        str, Option(metavar="linear|cosine|scaled_linear", help="Noise schedule of the losses simple and hybrid.")
    ] = "linear",
    lr: Annotated[float, Option(metavar="RATE", help="Learning rate of Muon.")] = 0.01,
    adam_lr: Annotated[
        float, Option(metavar="RATE", help="Learning rate of Adam (all but the inner convolutions).")
    ] = 1e-3,
    decay: Annotated[
        float,
        Option(
            metavar="SHARE", help="Share of the budget, at its end, over which the learning rates fall; 1 with --init."
        ),
    ] = 0.4,
    ema: Annotated[float, Option(metavar="DECAY", help="Largest decay of the moving average.")] = 0.999,
    ema_power: Annotated[
        float, Option(metavar="WIDTH", help="Width of a power-function average to use instead, such as 0.1; 0 = none.")
    ] = 0.0,
    sigma_min: Annotated[
        float | None,
        Option(metavar="SIGMA", help="Smallest noise level, pictures being in [-1, 1]; default: 0.01, latents 0.02."),
    ] = None,
    sigma_max: Annotated[
        float | None,
        Option(metavar="SIGMA", help="Largest noise level; default: 8, for whole pictures and latents 80."),
    ] = None,
    p_mean: Annotated[
        float | None, Option(metavar="MEAN", help="Mean of ln sigma in training; default: -1.2, for latents -0.5.")
    ] = None,
    p_std: Annotated[float, Option(metavar="STD", help="Standard deviation of ln sigma in training.")] = 1.3,
    balance: Annotated[bool, Option(help="Give every noise level the same weight in the loss.")] = True,
    precision: Annotated[str, Option(metavar="auto|bf16|float32", help="Floating-point precision.")] = "auto",
    seed: Annotated[int, Option(metavar="N", help="Seed of weights, crops and noise.")] = 0,
    resume: Annotated[bool, Option(help="Continue from OUT/checkpoint.pt where it exists.")] = True,
    init: Annotated[Path | None, Option(metavar="WEIGHTS", help="Weights file to start from.")] = None,
    threads: Threads = None,
    validate_minutes: Annotated[
        float, Option(metavar="MINUTES", help="Minutes between validations and exports.")
    ] = 10.0,
    autoencoder: Annotated[
        bool, Option("--autoencoder", help="Train an autoencoder, the first half of a latent prior.")
    ] = False,
    factor: Annotated[
        int | None,
        Option(metavar="PIXELS", help="Autoencoder: side of a latent cell in pixels, a power of 2; default: 8."),
    ] = None,
    latent_channels: Annotated[
        int | None, Option(metavar="N", help="Autoencoder: channels of a latent; default: 8.")
    ] = None,
    latent: Annotated[
        Path | None,
        Option(metavar="PATH", help="Folder or file of an autoencoder: learn its latents, for a latent prior."),
    ] = None,
) -> None:
    """Train a denoising prior on pictures. Stop it at any time; the same command continues from there.

    The folder OUT is then a prior: priorpaint inpaint ... --prior OUT. A latent prior takes two runs: its autoencoder
    (--autoencoder --out AE), and the denoiser of its latents (--latent AE --out OUT).
    """
    import torch

    from priorpaint.imaging.idx import is_idx
    from priorpaint.priors.native.mlp import MLPConfig
    from priorpaint.training.checkpoint import CHECKPOINT, stored_network
    from priorpaint.training.config import TrainConfig, noise_levels
    from priorpaint.training.loop import train as run_training
    from priorpaint.training.machine import MLP_BATCH, end_process
    from priorpaint.training.tasks import load_autoencoder

    from .progress import TrainingDisplay
    from .stopping import signals
    from .train_network import NetworkOptions, usual

    if threads:
        torch.set_num_threads(threads)
    if not autoencoder and not (factor is None and latent_channels is None):
        raise UsageError("--factor and --latent-channels are for --autoencoder.")
    if autoencoder and not (network is None and dense is None):
        raise UsageError(
            "--network and --dense are for denoisers; an autoencoder is convolutional, for pictures of any size."
        )
    if latent is not None and grey is not None:
        raise UsageError("The autoencoder of --latent says whether pictures are grey; leave --grey and --colour out.")
    if network not in (None, *_NETWORKS):
        raise UsageError(f"--network is {' or '.join(_NETWORKS)}; got {network!r}.")
    idx = any(map(is_idx, data))
    frozen = None if latent is None or autoencoder else load_autoencoder(latent).network
    default = usual(size, autoencoder, None if frozen is None else frozen.factor)
    stored = stored_network(out / CHECKPOINT) if resume and (out / CHECKPOINT).exists() else None
    asked = NetworkOptions(network, channels, blocks, dense, width, cell, factor, latent_channels)
    planes = frozen.channels if frozen is not None else 1 if (idx if grey is None else grey) else 3
    side = size if frozen is None else size // frozen.factor
    if autoencoder:
        loss = "reconstruction"
        shape: Config = asked.autoencoder(stored, default, planes)
    elif asked.is_mlp(stored):
        default = replace(default, batch=MLP_BATCH)
        shape = asked.mlp(stored, side, planes)
    else:
        shape = replace(asked.unet(stored, default, side, planes), learned_variance=loss == "hybrid")
    whole = (idx or isinstance(shape, MLPConfig)) if whole is None else whole
    noise = noise_levels(whole=whole, latent=latent is not None)
    config = TrainConfig(
        data=tuple(map(str, data)), out=str(out), val=tuple(map(str, val or ())), size=size, wide=wide,
        batch=default.batch if batch is None else batch, network=shape,
        crops=crops, hours=default.hours if crops is None and hours is None else hours,
        lr=lr, adam_lr=adam_lr, decay=decay, ema=ema, seed=seed, p_std=p_std, sigma_data=noise["sigma_data"],
        p_mean=noise["p_mean"] if p_mean is None else p_mean,
        sigma_min=noise["sigma_min"] if sigma_min is None else sigma_min,
        sigma_max=noise["sigma_max"] if sigma_max is None else sigma_max,
        balance=balance, precision=precision,
        init=None if init is None else str(init), resume=resume, validate_minutes=validate_minutes,
        sheet_minutes=validate_minutes, loss=loss, betas=betas, ema_power=ema_power, classes=classes,
        label_dropout=label_dropout, augment=augment, whole=whole, latent=None if latent is None else str(latent),
        hold_out=hold_out
    )  # fmt: skip
    with signals() as cancel, TrainingDisplay() as display:
        outcome = run_training(config, display, cancel)
    if outcome.cancelled:
        if outcome.speaks:
            typer.echo(f"Stopped after {outcome.crops} crops; the same command continues from there.", err=True)
        end_process(cancel.exit_code)
        raise typer.Exit(cancel.exit_code)
    if outcome.speaks:
        _say_what_next(outcome, out, autoencoder=autoencoder)
    end_process(0)


def _say_what_next(outcome: Outcome, out: Path, *, autoencoder: bool) -> None:
    from .progress import clock

    typer.echo(f"Trained on {outcome.crops} crops in {clock(outcome.seconds)}; weights: {out / 'weights.safetensors'}")
    if autoencoder:
        typer.echo(f"Now the denoiser of its latents: priorpaint train --latent {out} --data ... --out ...", err=True)
    else:
        typer.echo(f"Use it with: priorpaint inpaint PICTURE MASK --prior {out}", err=True)
