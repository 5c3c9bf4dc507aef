"""How long a run will take, measured before it starts."""

from __future__ import annotations

import copy
import time
from datetime import timedelta

import torch

from priorpaint.priors.native.weights_file import Network
from priorpaint.training.checkpoint import Progress
from priorpaint.training.config import TrainConfig
from priorpaint.training.data import Encoded, Pictures
from priorpaint.training.tasks import Task

_TIMED = 2
# Optimizers, moving average and reading of crops, as a share of forward and backward pass.
_REST = 1.25
_LONGEST = 1e10  # seconds, some 300 years


def forecast(
    config: TrainConfig,
    task: Task,
    network: Network,
    source: Pictures | Encoded,
    num_pictures: int,
    progress: Progress,
    processes: int,
) -> str:
    """One sentence: how long the budget in crops takes, or how many crops the budget in hours buys.

    A copy of the network and of the task run a few batches, so nothing of the run itself changes.
    """
    task, network = copy.deepcopy((task, network))
    device = next(network.parameters()).device
    batch, labels = source.batch(0, config.batch, seed=config.seed)
    times = []
    for _ in range(1 + _TIMED):
        begun = time.perf_counter()
        x_0 = task.learned(batch.to(device)).contiguous(memory_format=torch.channels_last)
        losses = task.losses(network, x_0, labels.to(device), 0)
        losses.weighed.mean().backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    rate = config.batch * processes / (_REST * min(times[1:]))
    left = config.seconds_left(progress.crops, progress.seconds, rate)
    crops = round(left * rate)
    passes = (progress.crops + crops) / num_pictures
    gpu = device.type == "cuda"
    machine = torch.cuda.get_device_name(device) if gpu else f"{torch.get_num_threads()} CPU threads"
    return (
        f"About {rate:.0f} crops a second on {machine}: {crops} crops will take about "
        f"{timedelta(seconds=round(min(left, _LONGEST)))}, {passes:.3g} for each picture."
    )
