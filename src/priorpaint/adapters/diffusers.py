"""diffusers: a pipeline that is in memory becomes one that inpaints, without a copy of its weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..errors import CancelToken, UsageError
from ..inpainting.api import inpaint
from ..inpainting.events import Step
from ..inpainting.inputs import Source
from ..inpainting.method import choose_solver
from ..inpainting.plans import Stopped
from ..inpainting.result import Result
from ..priors import Prior
from ..priors.readers.diffusers import loaded
from ..priors.readers.diffusers_folder import libraries
from ..solvers import Solver

_SEEDS = 2**48
_OUTPUTS = ("pil", "np", "pt")
# (pipeline, steps done - 1, steps left, what it may look at) -> ignored; diffusers' own signature.
OnStepEnd = Callable[["PriorpaintInpaintPipeline", int, int, dict[str, Any]], Any]


class PriorpaintInpaintPipeline:
    """Inpainting by posterior sampling with the networks of a pipeline of diffusers.

    The pipeline itself stays as it is: its parts are shared, hooks such as those of ``enable_model_cpu_offload`` bring
    them to the device as before, and after a call its weights have the gradients' flags and modes that they had.

    Attributes:
        prior: the prior that the pipeline is here.
        result: of the last call, with seeds, uncertainty and everything that reproduces it; None before.
    """

    def __init__(self, prior: Prior, pipe: Any, method: str | Solver | None, settings: Mapping[str, Any]) -> None:
        self.prior = prior
        self.result: Result | None = None
        self._pipe, self._method, self._settings = pipe, method, dict(settings)
        self._interrupt = False  # as in diffusers: a callback sets it to stop

    @classmethod
    def from_pipe(
        cls,
        pipe: Any,
        method: str | Solver | None = None,
        *,
        flags: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> PriorpaintInpaintPipeline:
        """Of a pipeline that is in memory.

        Args:
            pipe: any ``DiffusionPipeline`` whose networks priorpaint reads from folders: UNet2DModel, latent diffusion,
                Stable Diffusion 1.x, 2.x, XL and 3, Flux, DiT.
            method: a key of ``priorpaint.SOLVERS``, or a solver; None is the default.
            flags: as for a folder of diffusers, such as ``{"image_size": "any"}``.
            settings: of the method.

        Raises:
            UsageError: no such method, setting or flag.
            CheckpointError: a pipeline with parts of another kind.
            MissingExtra: diffusers or transformers are not installed.
        """
        libraries("a pipeline of diffusers")
        choose_solver(method, settings)
        network = pipe.components.get("unet") or pipe.components.get("transformer")
        dtype = torch.float32 if network is None else network.dtype
        with _as_it_was(pipe):
            prior = loaded(pipe, torch.device(pipe._execution_device), dtype, flags or {})
        return cls(prior, pipe, method, settings)

    def __call__(
        self,
        prompt: str | None = None,
        image: Source | None = None,
        mask_image: Source | None = None,
        *,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        num_images_per_prompt: int = 1,
        class_labels: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        callback_on_step_end: OnStepEnd | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        **options: Any,
    ) -> Any:
        """Draw completions of a picture; known pixels stay bit for bit.

        Args:
            prompt: what the picture shows, for a pipeline that takes text.
            image: what `priorpaint.inpaint` takes: a PIL image, array or path, of any size.
            mask_image: white where it is repainted.
            negative_prompt: what it does not show.
            guidance_scale: None is the pipeline's own default with a prompt or class, and 1 without.
            num_inference_steps: the ``steps`` of the method; None is its default.
            num_images_per_prompt: how many completions.
            class_labels: the class, for a pipeline that knows classes.
            generator: one for each completion, or one for all; each gives a seed, and moves on. None is torch's own.
            callback_on_step_end: called as callback(pipeline, step, steps left, {"preview": function that draws a
                picture}); it stops the run by setting ``pipeline._interrupt`` to True.
            output_type: "pil"; "np", (N, H, W, C) in [0, 1]; or "pt", (N, C, H, W) in [0, 1].
            return_dict: whether ``.images`` holds them, or a tuple.
            options: of `priorpaint.inpaint`, such as ``grow``, ``fit`` and ``batch_size``.

        Returns:
            diffusers' ``ImagePipelineOutput``, or a tuple with its images; of an interrupted run those that were
            finished.

        Raises:
            UsageError: arguments that do not fit.
            Stopped: interrupted before the first completion was finished.
        """
        if output_type not in _OUTPUTS:
            raise UsageError(f"output_type is one of {', '.join(_OUTPUTS)}, not {output_type!r}")
        if image is None or mask_image is None:
            raise UsageError("give the picture as image and what is to be repainted, in white, as mask_image.")
        if isinstance(prompt, (list, tuple)):
            raise UsageError("prompt is one text; num_images_per_prompt draws several completions of it.")
        scale = self._guidance(prompt is not None or class_labels is not None, guidance_scale)
        seeds, cancel = _seeds(generator, num_images_per_prompt), CancelToken()
        steps = {} if num_inference_steps is None else {"steps": num_inference_steps}
        self._interrupt = False

        def on_event(event: Any) -> None:
            if isinstance(event, Step) and callback_on_step_end is not None:
                callback_on_step_end(self, event.done - 1, event.total - event.done, {"preview": event.preview})
                if self._interrupt:
                    cancel.cancel()

        with _as_it_was(self._pipe):
            try:
                self.result = inpaint(
                    image,
                    mask_image,
                    self.prior,
                    self._method,
                    num_images_per_prompt,
                    seeds,
                    on_event=on_event,
                    cancel=cancel,
                    label=class_labels,
                    prompt=prompt,
                    negative_prompt=negative_prompt,
                    guidance_scale=scale,
                    **{**self._settings, **steps, **options},
                )
            except Stopped as stopped:
                if stopped.result is None:
                    raise
                self.result = stopped.result
        images = _output(self.result.images, output_type)
        if not return_dict:
            return (images,)
        from diffusers import ImagePipelineOutput

        return ImagePipelineOutput(images=images)

    def _guidance(self, asked: bool, scale: float | None) -> float:
        """The scale, or the default of the pipeline's own call; a Flux that is told its guidance takes no other."""
        network = self._pipe.components.get("transformer")
        if network is not None and network.config.get("guidance_embeds", False):
            if scale is not None:
                raise UsageError("this model is told its guidance: give flags={'guidance': 3.5} to from_pipe instead.")
            return 1.0
        told = inspect.signature(type(self._pipe).__call__).parameters.get("guidance_scale")
        return scale if scale is not None else float(told.default) if asked and told is not None else 1.0


def _seeds(generator: torch.Generator | Sequence[torch.Generator] | None, count: int) -> list[int]:
    """One seed for each completion, each drawn from its generator."""
    if isinstance(generator, Sequence):
        if len(generator) != count:
            raise UsageError(
                f"{len(generator)} generators were given for {count} completions; give one for each, or one for all."
            )
        generators: list[torch.Generator | None] = list(generator)
    else:
        generators = [generator] * count
    return [
        int(torch.randint(_SEEDS, (1,), generator=one, device="cpu" if one is None else one.device))
        for one in generators
    ]


def _output(images: list[Any], kind: str) -> Any:
    if kind == "pil":
        return images
    pixels = np.stack([np.asarray(image.convert("RGB"), dtype=np.float32) / 255 for image in images])
    return pixels if kind == "np" else torch.from_numpy(pixels).permute(0, 3, 1, 2)


@contextmanager
def _as_it_was(pipe: Any) -> Iterator[None]:
    """Inside, the networks may be frozen and set to evaluate; afterwards they are what they were."""
    networks = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    modes = [(module, module.training) for network in networks for module in network.modules()]
    flags = [(weight, weight.requires_grad) for network in networks for weight in network.parameters()]
    for network in networks:
        network.requires_grad_(False).eval()
    try:
        yield
    finally:
        pipe.maybe_free_model_hooks()
        for module, training in modes:
            module.training = training
        for weight, wanted in flags:
            weight.requires_grad_(wanted)
