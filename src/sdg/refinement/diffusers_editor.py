"""Editing by a pipeline of diffusers: inpainting, graded where it can be, or image-to-image."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from sdg.errors import SdgError, first_line, loading_errors
from sdg.refinement.base import EditResult
from sdg.refinement.masks import as_picture
from sdg.refinement.request import EditRequest

STEPS: Final = 28
_MASK: Final = "mask"
"""What diffusers' inpainting pipelines call the mask they blend latents by."""


class DiffusersEditor:
    """Any inpainting or image-to-image pipeline of diffusers, told the prompt and where to work how strongly.

    Such a model was trained on descriptions of pictures, so it gets the prompt and not the instruction.
    Where the pipeline lays the picture's own latents over those outside of the mask at every step, the
    strength is graded (differential diffusion, arXiv 2306.00950): a pixel of strength s takes part in the
    last s of the steps, so an object that a box cuts through is redrawn whole. A model that was given the
    mask in training gets it as it is, and image-to-image the strength alone.
    stochastic: each step goes to the clean picture as the model sees it, and back with noise drawn anew. What
    is redrawn can then come to fit what is kept, as a model that was never trained to inpaint needs
    (after RePaint, arXiv 2201.09865); for flow-matching pipelines alone.
    The same request gives the same picture, whatever else is in the call.
    Raises SdgError for a pipeline that takes no picture, or whose scheduler cannot do what `stochastic` asks.
    """

    concurrency: Final = 1

    def __init__(
        self, pipeline: Any, *, steps: int = STEPS, guidance: float | None = None, stochastic: bool = False
    ) -> None:
        self._known = inspect.signature(pipeline.__call__).parameters
        if "image" not in self._known:
            raise SdgError(f"{type(pipeline).__name__} edits no pictures; give an inpainting pipeline.")
        if steps < 1:
            raise ValueError(f"An edit takes at least one step, not {steps}.")
        self._pipeline, self._steps, self._guidance = pipeline, steps, guidance
        if stochastic:
            # One of its own: pipelines made of one another share theirs.
            pipeline.scheduler = _stochastic(pipeline.scheduler)
        self._grades = _blends(pipeline)
        if self._grades:
            # What a callback may ask for is a list of the pipeline's; a mask of two values has no grades.
            pipeline._callback_tensor_inputs = [*pipeline._callback_tensor_inputs, _MASK]
            pipeline.mask_processor.register_to_config(do_binarize=False)
        pipeline.set_progress_bar_config(disable=True)  # one bar an edit says nothing about a run

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        return [self._edit(request) for request in requests]

    def _edit(self, request: EditRequest) -> EditResult:
        import torch

        size = _fitting(request.picture.size, 2 * getattr(self._pipeline, "vae_scale_factor", 8))
        # Diffusers rounds steps · strength down, and no step at all is an error.
        strength = max(request.strength, 1 / self._steps)
        grades = request.strengths / max(float(request.strengths.max()), 1e-6)
        mask = as_picture(grades if self._grades else (request.mask > 0).astype(np.float64))
        settings: dict[str, Any] = {
            "prompt": request.prompt,
            "image": request.picture.resize(size, Image.Resampling.LANCZOS),
            "mask_image": mask.resize(size, Image.Resampling.NEAREST),
            "width": size[0],
            "height": size[1],
            "strength": strength,
            "num_inference_steps": self._steps,
            "generator": torch.Generator("cpu").manual_seed(request.seed),
        }
        if self._grades:
            schedule = _Schedule(strength * self._steps)
            settings["callback_on_step_end"] = schedule
            settings["callback_on_step_end_tensor_inputs"] = [_MASK]
        if self._guidance is not None:
            settings["guidance_scale"] = self._guidance
        if (length := self._text_length()) is not None:
            settings["max_sequence_length"] = length
        try:
            # A scheduler's own noise is torch's global one, for pipelines hand it no generator.
            with torch.no_grad(), torch.random.fork_rng(range(torch.cuda.device_count())):
                torch.manual_seed(request.seed)
                output = self._pipeline(**{k: v for k, v in settings.items() if k in self._known})
        except torch.OutOfMemoryError:
            return EditResult(None, f"The memory is too small for an edit of {size[0]} × {size[1]} pixels.")
        except Exception as error:  # whatever a pipeline raises costs this picture alone
            why = " ".join(str(error).split())[:200] or type(error).__name__
            return EditResult(None, f"The pipeline failed: {why}")
        picture = output.images[0].resize(request.picture.size, Image.Resampling.LANCZOS)
        # What took part in one step or more is the edit's, and less is a soft edge.
        reached = np.clip(grades * strength * self._steps, 0, 1) if self._grades else None
        return EditResult(picture, mask=reached)

    def _text_length(self) -> int | None:
        """Tokens a prompt may take; small tokenizers know fewer than a pipeline's default of 512."""
        tokenizer = getattr(self._pipeline, "tokenizer_2", None)
        return None if tokenizer is None else min(int(tokenizer.model_max_length), 512)


class _Schedule:
    """A callback that lets a pipeline's mask grow from step to step, as strength is graded.

    The pipeline lays the picture over what lies outside of its mask after each step. Its mask, of the
    latents' shape, comes as shares of the largest strength; a value v takes part in the last v · `steps`
    steps, rounded, for it comes as one of 256. Nothing is lost by the first step, which blends by v itself:
    what is not free is laid over again, with the same noise.
    """

    def __init__(self, steps: float) -> None:
        self._steps = steps
        self._grades: Any = None

    def __call__(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        mask = tensors[_MASK]
        if self._grades is None:
            self._grades = mask.clone()
        left = pipeline.num_timesteps - step - 2  # after the step to come
        mask.copy_(self._grades * self._steps > max(left, 0) + 0.5)
        return {}


def _stochastic(scheduler: Any) -> Any:
    """The scheduler with noise of its own at each step; SdgError where it has none."""
    if "stochastic_sampling" not in scheduler.config:
        raise SdgError(f"{type(scheduler).__name__} has no stochastic sampling; leave that option out.")
    return type(scheduler).from_config(scheduler.config, stochastic_sampling=True)


def _blends(pipeline: Any) -> bool:
    """Whether a pipeline blends latents by a mask of its own that a callback can reach."""
    call = inspect.unwrap(type(pipeline).__call__)
    known = {"mask_image", "callback_on_step_end", "callback_on_step_end_tensor_inputs"}
    reachable = known <= set(inspect.signature(call).parameters) and {_MASK, "init_mask"} <= set(
        call.__code__.co_varnames
    )
    counted = hasattr(type(pipeline), "num_timesteps") and hasattr(pipeline, "mask_processor")
    return reachable and counted and not _takes_masks(pipeline)


def _takes_masks(pipeline: Any) -> bool:
    """Whether its model was given masks in training: latents, the picture's latents and a mask at once."""
    model = getattr(pipeline, "unet", None) or pipeline.transformer
    latents = getattr(pipeline.vae.config, "latent_channels", None)  # other autoencoders name it otherwise
    return latents is not None and model.config.in_channels == 2 * latents + 1


def load_pipeline(folder: str, device: str, dtype: str) -> Any:
    """The inpainting pipeline in a folder, or where its family has none the image-to-image one.

    dtype: "auto" is bfloat16, on a CPU float32. Raises SdgError where it cannot be loaded.
    """
    import torch
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

    if not (Path(folder) / "model_index.json").is_file():  # diffusers would look it up on the hub
        raise SdgError(
            f"{folder} holds no pipeline (model_index.json is missing); "
            "check the path, or download the pipeline into a folder first."
        )
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    settings = {"dtype": getattr(torch, dtype), "use_safetensors": True}
    try:
        try:
            pipeline = AutoPipelineForInpainting.from_pretrained(folder, **settings)
        except ValueError:  # of this family there is no inpainting
            pipeline = AutoPipelineForImage2Image.from_pretrained(folder, **settings)
    except loading_errors() as error:
        raise SdgError(f"{folder} cannot be loaded as an editor ({first_line(error)}).") from error
    try:
        return pipeline.to(device)
    except torch.OutOfMemoryError:
        raise SdgError(
            f"The memory of {device} is too small for {folder} in {dtype}; "
            "take a device with more of it, or a smaller pipeline."
        ) from None


def _fitting(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The size with both sides rounded up to what the pipeline can pack into tokens."""
    width, height = (-(-side // multiple) * multiple for side in size)
    return width, height
