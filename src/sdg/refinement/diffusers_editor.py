"""Editing by a pipeline of diffusers: inpainting, graded where it can be, image-to-image, or instructed."""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import groupby
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
from PIL import Image

from sdg.errors import SdgError
from sdg.refinement.masks import Mask, as_picture
from sdg.refinement.pipelines import editing_of, require_together, steps_of
from sdg.refinement.request import EditRequest, EditResult

_Waiting = tuple[EditRequest, Future[EditResult]]
"""A request that a thread waits for."""
_MASK: Final = "mask"
"""What diffusers' inpainting pipelines call the mask they blend latents by."""
_AROUND: Final = 96
"""Tokens that a pipeline puts around a text by itself, at most."""


class DiffusersEditor:
    """A pipeline that `sdg.refinement.pipelines` knows, told what to do and where to work how strongly.

    A model that was trained on descriptions of pictures gets the prompt. One that was trained on instructions
    gets that of the request, without the detector's reasoning where its text encoder would cut it off, and
    the pictures that the request shows, as many as it takes.
    Where the pipeline lays the picture's own latents over those outside of the mask at every step, the
    strength is graded (differential diffusion, arXiv 2306.00950): a pixel of strength s takes part in the
    last s of the steps, so an object that a box cuts through is redrawn whole. A model that was given the
    mask in training gets it as it is, and image-to-image the strength alone.
    steps, guidance: None takes what the pipeline's authors sample with. batch_size: requests that may share
    a call, of this thread's and of others', where the pipeline takes several and they have one size and
    number of steps; `concurrency` then says how many threads are worth while. What fails together is edited
    one by one.
    stochastic: each step goes to the clean picture as the model sees it, and back with noise drawn anew. What
    is redrawn can then come to fit what is kept, as a model that was never trained to inpaint needs
    (after RePaint, arXiv 2201.09865); for flow-matching pipelines alone, and one picture at a time.
    The same request gives the same picture, whatever else is in the call, up to rounding in a batch.
    Raises SdgError for a pipeline that is not known, and where `stochastic` or `batch_size` cannot be.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 1,
        stochastic: bool = False,
    ) -> None:
        self._editing = editing_of(pipeline)
        self._known = inspect.signature(pipeline.__call__).parameters
        require_together(type(pipeline).__name__, self._editing, batch_size, stochastic=stochastic)
        self._steps = steps_of(pipeline) if steps is None else steps
        if self._steps < 1 or batch_size < 1:
            raise ValueError("An edit takes at least one step, of at least one picture.")
        self._pipeline, self._guidance, self.concurrency = pipeline, guidance, batch_size
        self._lock, self._waiting = threading.Lock(), SimpleQueue[_Waiting]()
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
        waiting: list[_Waiting] = [(request, Future()) for request in requests]
        for one in waiting:
            self._waiting.put(one)
        with self._lock:  # whoever has it edits what other threads have brought meanwhile, too
            self._edit_all([self._waiting.get() for _ in range(self._waiting.qsize())])
        return [result.result() for _, result in waiting]

    def _edit_all(self, waiting: Sequence[_Waiting]) -> None:
        try:
            for group in self._groups([request for request, _ in waiting]):
                for place, result in zip(group, self._edit([waiting[i][0] for i in group]), strict=True):
                    waiting[place][1].set_result(result)
        except BaseException as error:
            for _, result_of in waiting:
                if not result_of.done():
                    result_of.set_exception(error)
            raise

    def _groups(self, requests: Sequence[EditRequest]) -> Iterator[tuple[int, ...]]:
        """Places of the requests that share a call."""
        kinds = [self._kind(request) for request in requests]
        order = sorted(range(len(requests)), key=lambda i: kinds.index(kinds[i]))
        for _, places in groupby(order, key=lambda i: kinds[i]):
            same = tuple(places)
            for start in range(0, len(same), self.concurrency):
                yield same[start : start + self.concurrency]

    def _kind(self, request: EditRequest) -> Hashable:
        """What requests of one call have in common: size, number of steps, whether from noise alone."""
        steps = self._reach(request)
        return self._size(request), math.floor(steps), math.ceil(steps), request.strength == 1

    def _edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """The results of one call."""
        import torch

        texts = [self._text(request) for request in requests]
        settings: dict[str, Any] = {
            "prompt": texts,
            "generator": [torch.Generator("cpu").manual_seed(request.seed) for request in requests],
            **self._editing.also,
            **self._pictures(requests),
        }
        settings = {name: self._batch(value, len(requests)) for name, value in settings.items()}
        settings |= {"strength": self._strength(requests[0]), "num_inference_steps": self._steps}
        if self._grades:
            settings["callback_on_step_end"] = _Schedule([self._reach(request) for request in requests])
            settings["callback_on_step_end_tensor_inputs"] = [_MASK]
        if self._guidance is not None:
            settings[self._editing.guidance] = self._guidance
        if (length := self._text_length()) is not None:
            settings["max_sequence_length"] = length
        why = ""
        try:
            # A scheduler's own noise is torch's global one, for pipelines hand it no generator.
            with torch.no_grad(), torch.random.fork_rng(range(torch.cuda.device_count())):
                torch.manual_seed(requests[0].seed)
                output = self._pipeline(**{k: v for k, v in settings.items() if k in self._known})
        except torch.OutOfMemoryError:
            width, height = requests[0].picture.size
            why = f"The memory is too small for an edit of {width} × {height} pixels."
        except Exception as error:  # whatever a pipeline raises costs one picture alone
            why = f"The pipeline failed: {' '.join(str(error).split())[:200] or type(error).__name__}"
        if why and len(requests) > 1:
            return [result for request in requests for result in self._edit([request])]
        if why:
            return [EditResult(None, why)]
        blackened = getattr(output, "nsfw_content_detected", None) or [False] * len(requests)
        return [
            EditResult(None, "The pipeline's safety checker refused the edit.")
            if black
            else EditResult(
                picture.resize(request.picture.size, Image.Resampling.LANCZOS),
                # What took part in one step or more is the edit's, and less is a soft edge.
                mask=np.clip(_grades(request) * self._reach(request), 0, 1) if self._grades else None,
            )
            for request, picture, black in zip(requests, output.images, blackened, strict=True)
        ]

    def _pictures(self, requests: Sequence[EditRequest]) -> Mapping[str, Any]:
        """The arguments that are pictures or say how large these are, a list of each."""
        if self._editing.instructed:  # these bring pictures to the sizes they were trained on by themselves
            most = self._editing.views or None
            shown = [[view.convert("RGB") for _, view in one.shown[:most]] for one in requests]
            images: list[Any] = [views if most is None else views[0] for views in shown]
            return {"image": images, "mask_image": [self._mask(one) for one in requests]}
        size = self._size(requests[0])
        return {
            "image": [one.picture.resize(size, Image.Resampling.LANCZOS) for one in requests],
            "mask_image": [self._mask(one).resize(size, Image.Resampling.NEAREST) for one in requests],
            "width": size[0],
            "height": size[1],
        }

    def _batch(self, value: Any, count: int) -> Any:
        """An argument of a call: one value where it holds one picture, else a list of them."""
        if isinstance(value, list):
            return value[0] if count == 1 else value
        return [value] * count if isinstance(value, str) and count > 1 else value

    def _mask(self, request: EditRequest) -> Image.Image:
        return as_picture(_grades(request) if self._grades else (request.mask > 0).astype(np.float64))

    def _strength(self, request: EditRequest) -> float:
        """Diffusers rounds steps · strength down, and no step at all is an error."""
        return max(request.strength, 1 / self._steps)

    def _reach(self, request: EditRequest) -> float:
        """Steps that the most strongly edited pixel takes part in."""
        return self._strength(request) * self._steps

    def _size(self, request: EditRequest) -> tuple[int, int]:
        """Both sides rounded up to what the pipeline can pack into tokens."""
        multiple = 2 * getattr(self._pipeline, "vae_scale_factor", 8)
        width, height = (-(-side // multiple) * multiple for side in request.picture.size)
        return width, height

    def _text(self, request: EditRequest) -> str:
        """What the model is told; of an instruction that is too long, what matters least is left out."""
        if not self._editing.instructed:
            return request.prompt
        if (length := self._text_length()) is None:
            return request.instruction
        left = max(length - _AROUND, length // 2)
        if self._tokens(request.instruction) <= left:
            return request.instruction
        text = request.summary or request.instruction
        return text if (tokens := self._tokens(text)) <= left else text[: len(text) * left // tokens]

    def _text_length(self) -> int | None:
        """Tokens a text may take; small tokenizers know fewer than a pipeline's default."""
        if self._editing.text is None:
            return None
        name, most = self._editing.text
        tokenizer = getattr(self._pipeline, name, None)
        return None if tokenizer is None else min(getattr(tokenizer, "model_max_length", most), most)

    def _tokens(self, text: str) -> int:
        assert self._editing.text is not None
        tokenizer = getattr(self._pipeline, self._editing.text[0])
        return len(getattr(tokenizer, "tokenizer", tokenizer)(text, verbose=False)["input_ids"])


def _grades(request: EditRequest) -> Mask:
    """Strengths as shares of the largest."""
    return request.strengths / max(float(request.strengths.max()), 1e-6)


class _Schedule:
    """A callback that lets a pipeline's mask grow from step to step, as strength is graded.

    The pipeline lays the picture over what lies outside of its mask after each step. Its mask, of the
    latents' shape, comes as shares of the largest strength; a value v takes part in the last v · `steps`
    steps, rounded, for it comes as one of 256. Nothing is lost by the first step, which blends by v itself:
    what is not free is laid over again, with the same noise.
    """

    def __init__(self, steps: Sequence[float]) -> None:
        self._steps = steps  # one a picture
        self._grades: Any = None

    def __call__(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        mask = tensors[_MASK]
        if self._grades is None:  # guidance has the masks twice, one picture after the other
            grades = mask.float()
            steps = grades.new_tensor(self._steps).repeat(len(mask) // len(self._steps))
            self._grades = grades * steps.view(-1, *[1] * (mask.ndim - 1))
        left = pipeline.num_timesteps - step - 2  # after the step to come
        mask.copy_(self._grades > max(left, 0) + 0.5)
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
    reachable = known <= set(inspect.signature(call).parameters) and {_MASK, "init_latents_proper"} <= set(
        call.__code__.co_varnames
    )
    counted = hasattr(type(pipeline), "num_timesteps") and hasattr(pipeline, "mask_processor")
    return reachable and counted and not _takes_masks(pipeline)


def _takes_masks(pipeline: Any) -> bool:
    """Whether its model was given masks in training: latents, the picture's latents and a mask at once."""
    model = getattr(pipeline, "unet", None) or pipeline.transformer
    latents = getattr(pipeline.vae.config, "latent_channels", None)  # other autoencoders name it otherwise
    return latents is not None and model.config.in_channels == 2 * latents + 1
