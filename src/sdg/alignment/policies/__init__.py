"""Generators that alignment trains: FLUX.1 and Stable Diffusion 3.5, through diffusers' own pipelines."""

from __future__ import annotations

from typing import Any

import torch

from sdg.alignment.policies.base import FlowPolicy, Rollout, Transitions
from sdg.alignment.policies.flux import FluxPolicy
from sdg.alignment.policies.sd3 import Sd3Policy
from sdg.alignment.recipe import FewStepRecipe, PolicyRecipe
from sdg.errors import SdgError, first_line, loading_errors
from sdg.io.uri import model_location
from sdg.models.device import Precision
from sdg.models.lora import add_lora

__all__ = ["FlowPolicy", "FluxPolicy", "Rollout", "Sd3Policy", "Transitions", "load_pipeline", "load_policy"]

FAMILIES: dict[str, type[FlowPolicy]] = {"flux": FluxPolicy, "sd3": Sd3Policy}


def load_pipeline(recipe: PolicyRecipe) -> Any:
    """The diffusers pipeline of a recipe, frozen, on the CPU; raises SdgError where it cannot be read."""
    location = model_location(recipe.model)
    pipeline_class = FAMILIES[recipe.family].pipeline_class()
    try:
        pipeline = pipeline_class.from_pretrained(
            location, torch_dtype=getattr(torch, recipe.dtype), use_safetensors=True
        )
    except loading_errors() as error:
        reason = first_line(error)
        raise SdgError(
            f"{location} cannot be loaded as a {pipeline_class.__name__} ({reason}); "
            "check policy.model and policy.family."
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(False).eval()
    return pipeline


def load_policy(
    recipe: PolicyRecipe,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    seed: int = 0,
    few_step: FewStepRecipe | None = None,
) -> FlowPolicy:
    """A generator with a fresh adapter, which changes nothing until it is trained.

    precision: of autocast, see `autocast_precision`. Raises SdgError where checkpoint and recipe do not fit.
    """
    few = few_step or FewStepRecipe()
    pipeline = load_pipeline(recipe)
    add_lora(pipeline.transformer, recipe.lora, seed, init=few.lora_init, above=few.lora_above)
    if recipe.gradient_checkpointing:
        pipeline.transformer.enable_gradient_checkpointing()
    pipeline.to(device)
    return FAMILIES[recipe.family](pipeline, recipe, precision, few.lora_above)
