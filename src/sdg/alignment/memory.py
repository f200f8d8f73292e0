"""GPU memory of an alignment, by part: the models at real size, the adapter, activations, decoding.

Activations and decoding are the most bytes alive at once in one forward and backward pass of the transformer
and in one decoding of the autoencoder. Both count, as CUDA's allocator keeps the blocks of one beside those
of the other. What kernels use beside their outputs is left out, and so is CUDA itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from sdg.alignment.policies.base import FlowPolicy
from sdg.alignment.policies.known import KnownModel
from sdg.alignment.policies.real_size import RealSize
from sdg.alignment.recipe import AlignRecipe
from sdg.io.uri import split_options
from sdg.models.lora import lora_parameters
from sdg.models.meta import Taken, clip_model, vision_language_model

SHORT: Final = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
TRAINED: Final[Mapping[str, int]] = {"weights": 4, "gradients": 4, "Adam's moments": 8, "average": 4}
"""Bytes a trained parameter, all in fp32."""
BUCKETS: Final = 4
"""Bytes a trained parameter of those in which processes add up gradients."""
OLD: Final = 4
"""Bytes a trained parameter of the old policy of training on the forward process."""


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
    shared = {"buckets": BUCKETS} if processes > 1 else {}
    return {**TRAINED, **({"old policy": OLD} if recipe.forward else {}), **shared}


def memory(
    recipe: AlignRecipe, policy: FlowPolicy, known: KnownModel, taken: Passes, processes: int
) -> dict[str, float]:
    """Part -> bytes on each GPU; raises SdgError where a scorer's or detector's size is not to be had."""
    width, short = torch.finfo(policy.weights_dtype).bits // 8, SHORT[recipe.policy.dtype]
    batch, every = recipe.sampling.batch_size, trained_bytes(recipe, processes)
    parts: dict[str, float] = {f"transformer, {short}": width * _frozen(policy.transformer)}
    if recipe.policy.text_cache is None:
        parts[f"text encoders, {short}"] = width * known.text_encoders
    parts[f"autoencoder, {short}"] = width * _frozen(policy.pipeline.vae)
    parts[f"adapter, fp32: {', '.join(every)}"] = trained_parameters(policy) * sum(every.values())
    parts |= in_memory(recipe)
    parts[f"activations of {batch} pictures"] = taken.training.bytes
    parts[f"decoding {batch} pictures"] = taken.decoding.bytes
    return parts


def in_memory(recipe: AlignRecipe) -> dict[str, float]:
    """Scorers and detectors that have weights on each GPU: part -> bytes."""
    scorers = [scorer.uri for scorer in (*recipe.reward.scorers, *recipe.monitor.scorers)]
    judges = [judge.uri for judge in recipe.monitor.judges]
    if recipe.needs_detector and recipe.reward.detector:
        judges.append(recipe.reward.detector)
    # One that is named twice is loaded twice.
    found = {
        "scorers, fp32": sum(_bytes(clip_model(place)) for place in _places(scorers, "clip")),
        "vision-language models, bf16": sum(
            _bytes(vision_language_model(place, torch.bfloat16))
            for place in _places(scorers, "p-real") + _places(judges, "hf")
        ),
    }
    return {name: size for name, size in found.items() if size}


def _places(uris: list[str], scheme: str) -> list[str]:
    parted = [split_options(uri)[0].partition(":") for uri in uris]
    return [place for known, _, place in parted if known == scheme]


def _frozen(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)


def _bytes(model: Any) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())
