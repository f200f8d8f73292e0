"""GPU memory of an alignment, by part: the models at real size, what is trained, activations, decoding.

Activations and decoding are the most bytes alive at once in one forward and backward pass of the transformer
and in one decoding of the autoencoder. Both count, as CUDA's allocator keeps the blocks of one beside those
of the other. What kernels use beside their outputs is left out, and so is CUDA itself.

Of sharded weights (`run.sharding`) a GPU keeps its share. A pass has the weights outside blocks whole, and
three times the largest block: that which computes, the next, and the buffer that is being gathered into.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import torch

from sdg.alignment.policies.base import FlowPolicy
from sdg.alignment.policies.real_size import KnownModel, RealSize
from sdg.alignment.recipe import AlignRecipe
from sdg.detectors import checkpoints_of
from sdg.io.uri import split_options
from sdg.models.lora import lora_parameters
from sdg.models.meta import Taken, clip_model, vision_language_model
from sdg.models.sharding import blocks

SHORT: Final = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
TRAINED: Final[Mapping[str, int]] = {"weights": 4, "gradients": 4, "Adam's moments": 8, "average": 4}
"""Bytes a trained parameter, all in fp32."""
BUCKETS: Final = 4
"""Bytes a trained parameter of those in which processes add up gradients."""
OLD: Final = 4
"""Bytes a trained parameter of the old policy of training on the forward process."""
GATHERED: Final = 3
"""Blocks that are whole at a time, where weights are sharded."""
SUMMED: Final = 4
"""Bytes a trained parameter of a block's gradients while processes add them up, in fp32."""


@dataclass(frozen=True, slots=True)
class Passes:
    """What a batch of pictures takes in a step of a roll-out, in training, and in decoding."""

    sampling: Taken
    training: Taken
    decoding: Taken


def passes(policy: FlowPolicy, batch: int) -> Passes:
    """The passes of a policy on the meta device, which takes a minute."""
    sized = RealSize(policy, batch)
    return Passes(sized.sampling(), sized.training(), sized.decoding())


def trained_parameters(policy: FlowPolicy) -> int:
    """How many there are."""
    return sum(parameter.numel() for parameter in lora_parameters(policy.transformer).values())


def trained_bytes(recipe: AlignRecipe, processes: int) -> dict[str, int]:
    """Bytes a trained parameter, by what they are."""
    shared = {"buckets": BUCKETS} if processes > 1 and recipe.run.sharding is None else {}
    return {**TRAINED, **({"old policy": OLD} if recipe.forward else {}), **shared}


def weights(recipe: AlignRecipe, policy: FlowPolicy, processes: int) -> dict[str, float]:
    """The transformer's bytes on each GPU and those of its training, by part."""
    every = trained_bytes(recipe, processes)
    whole = recipe.policy.lora is None
    computed = 4 if recipe.precision == "fp32" else 2  # of what is trained whole, in a pass
    frozen = 4 if whole else getattr(torch, recipe.policy.dtype).itemsize
    short = "fp32" if whole else SHORT[recipe.policy.dtype]
    shares = processes if recipe.run.sharding is not None else 1
    of = "" if shares == 1 else f"its 1/{shares} of the "
    kept, trained = _share(policy.transformer, shares)
    parts: dict[str, float] = {f"{of}transformer, {short}": frozen * kept} if kept else {}
    what = "transformer" if whole else "adapter"
    parts[f"{of}{what}, fp32: {', '.join(every)}"] = trained * sum(every.values())
    if shares > 1:
        widths = (computed, computed) if whole else (frozen, 4)
        gathered, summed = _gathered(policy.transformer, *widths)
        parts["blocks gathered for a pass, and a block's gradients"] = gathered + summed
    elif whole and computed < 4:
        parts["transformer, bf16, for a pass"] = computed * (kept + trained)
    return parts


def _share(transformer: Any, shares: int) -> tuple[int, int]:
    """Frozen and trained parameters on one of so many processes, each weight cut along its first side."""
    sizes = [0, 0]
    for parameter in transformer.parameters():
        share = parameter.numel() // parameter.shape[0] * ceil(parameter.shape[0] / shares)
        sizes[parameter.requires_grad] += share
    return sizes[0], sizes[1]


def _gathered(transformer: Any, frozen: int, trained: int) -> tuple[int, int]:
    """Bytes of weights that are whole in a pass, and of gradients before they are shared out.

    frozen, trained: bytes a parameter.
    """
    every = [_share(part, 1) for part in (transformer, *blocks(transformer))]
    outside = [every[0][kind] - sum(block[kind] for block in every[1:]) for kind in (0, 1)]
    sizes = [still * frozen + moved * trained for still, moved in every[1:]]
    most = max((moved for _, moved in [*every[1:], (0, outside[1])]), default=0)
    return outside[0] * frozen + outside[1] * trained + GATHERED * max(sizes), most * (trained + SUMMED)


def memory(
    recipe: AlignRecipe, policy: FlowPolicy, known: KnownModel, taken: Passes, processes: int
) -> dict[str, float]:
    """Part -> bytes on each GPU; raises SdgError where a scorer's or detector's size is not to be had."""
    width, short = torch.finfo(policy.weights_dtype).bits // 8, SHORT[recipe.policy.dtype]
    parts = weights(recipe, policy, processes)
    if recipe.policy.text_cache is None:
        parts[f"text encoders, {short}"] = width * known.text_encoders
    parts[f"autoencoder, {short}"] = width * _frozen(policy.pipeline.vae)
    parts |= in_memory(recipe)
    batch = recipe.sampling.batch_size
    return parts | {name: batch * size for name, size in of_pictures(recipe, taken).items()}


def of_pictures(recipe: AlignRecipe, taken: Passes) -> dict[str, float]:
    """The parts that grow with `sampling.batch_size`, for one picture of a batch."""
    batch = recipe.sampling.batch_size
    return {
        f"activations of {batch} pictures": taken.training.bytes / batch,
        f"decoding {batch} pictures": taken.decoding.bytes / batch,
    }


def in_memory(recipe: AlignRecipe) -> dict[str, float]:
    """Scorers and detectors that have weights on each GPU: part -> bytes."""
    scorers = recipe.scorer_uris
    # One that is named twice is loaded twice.
    judges = [place for _, uri in recipe.detector_uris for place in checkpoints_of(uri)]
    found = {
        "scorers, fp32": sum(_bytes(clip_model(place)) for place in _places(scorers, "clip")),
        "vision-language models, bf16": sum(
            _bytes(vision_language_model(place, torch.bfloat16))
            for place in _places(scorers, "p-real") + judges
        ),
    }
    return {name: size for name, size in found.items() if size}


def _places(uris: list[tuple[str, str]], scheme: str) -> list[str]:
    parted = [split_options(uri)[0].partition(":") for _, uri in uris]
    return [place for known, _, place in parted if known == scheme]


def _frozen(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)


def _bytes(model: Any) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())
