"""Generators that alignment trains, one class a family of models, through diffusers' own pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from torch.distributed.device_mesh import DeviceMesh

from sdg.alignment.policies.base import FlowPolicy, Rollout, Transitions
from sdg.alignment.policies.pixels import SanaPolicy, Sd3Policy, ZImagePolicy
from sdg.alignment.policies.text_cache import TextCache, TextFeatures
from sdg.alignment.policies.tokens import (
    Flux2KleinPolicy,
    Flux2Policy,
    FluxPolicy,
    LongCatImagePolicy,
    QwenImagePolicy,
)
from sdg.alignment.policies.trained import (
    holds_transformer,
    load_transformer,
    prepare_training,
    require_trained,
)
from sdg.alignment.recipe import PolicyRecipe
from sdg.errors import SdgError, first_line, loading, shortened
from sdg.io.files import replace_folder, writing
from sdg.io.uri import model_location
from sdg.models.device import Precision, autocast_precision
from sdg.models.lora import load_lora, start_from
from sdg.models.sharding import convert, is_sharded, shard

__all__ = [
    "FlowPolicy",
    "FluxPolicy",
    "Rollout",
    "Sd3Policy",
    "Transitions",
    "fill_text_cache",
    "load_pipeline",
    "load_policy",
    "merge",
    "needed_parts",
    "require_family",
]

_TEXT = ("text_encoder", "tokenizer")
_UNUSED = {"text_processor"}
"""Parts of pipelines that rewrite prompts, which policies take as they are."""
FAMILIES: dict[str, type[FlowPolicy]] = {
    "flux": FluxPolicy,
    "flux2": Flux2Policy,
    "flux2-klein": Flux2KleinPolicy,
    "longcat-image": LongCatImagePolicy,
    "qwen-image": QwenImagePolicy,
    "sana": SanaPolicy,
    "sd3": Sd3Policy,
    "z-image": ZImagePolicy,
}


def load_pipeline(
    recipe: PolicyRecipe,
    parts: Literal["all", "text", "image", "unused as well"] = "all",
    trained: Path | None = None,
) -> Any:
    """The diffusers pipeline of a recipe, frozen, on the CPU; raises SdgError where it cannot be read.

    parts: "all" that a policy uses; "text" is the text encoders and tokenizers alone, "image" all but these.
    trained: the folder of an adapter to put on it, or of a transformer in place of its own.
    """
    location = model_location(recipe.model)
    pipeline_class = FAMILIES[recipe.family].pipeline_class()
    known = signature(pipeline_class).parameters.keys()
    text = {name for name in known if name.startswith(_TEXT)}
    left_out = {"text": {"transformer", "vae"}, "image": text}.get(parts, set())
    left_out |= set() if parts == "unused as well" else _UNUSED & known
    given: dict[str, Any] = dict.fromkeys(left_out)
    dtype = getattr(torch, recipe.dtype)
    if trained is not None and holds_transformer(require_trained(trained)):
        given |= {"transformer": load_transformer(trained, dtype)}
    failure = f"{location} cannot be loaded as a {pipeline_class.__name__}"
    with loading(failure, "check policy.model and policy.family"):
        index = pipeline_class.load_config(location)
    require_family(location, recipe.family, index)
    with loading(failure, "check policy.model and policy.family"):
        pipeline = pipeline_class.from_pretrained(location, dtype=dtype, use_safetensors=True, **given)
    pipeline.set_progress_bar_config(disable=True)
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(False).eval()
    if trained is not None and not holds_transformer(trained):
        load_lora(pipeline, trained, recipe.model)
    return pipeline


def require_family(location: str, family: str, index: Mapping[str, Any]) -> None:
    """Raise SdgError where a pipeline is none that a family trains, by its `model_index.json`.

    Of a pipeline that no family is named after, such as one that edits, the transformer's class decides.
    """
    stored, (*_, transformer) = index.get("_class_name"), index.get("transformer") or [None]
    own = next((name for name, one in FAMILIES.items() if one.pipeline_class().__name__ == stored), None)
    if own == family:
        return
    if own is not None:
        raise SdgError(f"{location} is of the family {own}, not {family}; change policy.family.")
    trained = signature(FAMILIES[family].pipeline_class()).parameters["transformer"].annotation
    if transformer != trained.__name__:
        raise SdgError(
            f"{location} is a {shortened(str(stored), 80)}, which family {family} cannot train; "
            "check policy.model and policy.family."
        )


def load_policy(
    recipe: PolicyRecipe,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    seed: int = 0,
    prompts: Iterable[str] = (),
    mesh: DeviceMesh | None = None,
) -> FlowPolicy:
    """A generator with the recipe's adapter, a fresh one or that which it names, or to be trained whole.

    A fresh adapter changes nothing until it is trained. What is trained is in float32.

    precision: of autocast, see `autocast_precision`. prompts: all that it will be given, where the recipe
    has a `text_cache`; then no text encoder stays in memory. mesh: the processes that share the transformer's
    weights, each of which has to take part in all that is drawn. Raises SdgError where checkpoint and recipe
    do not fit.
    """
    family = FAMILIES[recipe.family]
    fill_text_cache(recipe, device, prompts)
    pipeline = load_pipeline(recipe, needed_parts(recipe))
    transformer = pipeline.transformer
    prepare_training(transformer, recipe, seed, family.idle_layers(transformer))
    if recipe.adapter is not None:
        start_from(transformer, type(pipeline), recipe.adapter)
    if recipe.attention is not None:
        set_attention(transformer, recipe.family, recipe.attention)
    if recipe.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    kept = None if recipe.lora is not None else torch.float32
    if mesh is not None:
        half = kept and autocast_precision(precision, torch.device(device).type) == "bf16"
        shard(transformer, mesh, kept=kept, computed=torch.bfloat16 if half else None)
    elif kept is not None:
        convert(transformer, kept)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module) and not is_sharded(part):
            part.to(device)
    return family(pipeline, recipe, precision)


def fill_text_cache(recipe: PolicyRecipe, device: torch.device | str, prompts: Iterable[str]) -> None:
    """Encode prompts into the recipe's `text_cache`, and that of guidance; nothing where it names none.

    The text encoders are loaded where a prompt is missing, and freed again. The processes of a machine share
    the prompts among them.
    """
    if recipe.text_cache is None:
        return
    family = FAMILIES[recipe.family]

    def encoder() -> Callable[[str], TextFeatures]:
        texts = load_pipeline(recipe, "text").to(device)
        return torch.no_grad()(
            lambda prompt: family.text_features(texts, recipe, prompt, torch.device(device))
        )

    TextCache(recipe).fill([family.unprompted, *prompts], encoder)


def needed_parts(recipe: PolicyRecipe) -> Literal["all", "image"]:
    """Which parts of its pipeline a policy draws with: no text encoder where `text_cache` has the prompts."""
    return "all" if recipe.text_cache is None else "image"


def set_attention(transformer: Any, family: str, backend: str) -> None:
    """Let a transformer attend by one of diffusers' backends, and no other model of this process.

    Raises SdgError where this machine does not have it, and as `require_choice` does.
    """
    from diffusers.models.attention_dispatch import attention_backend

    require_choice(transformer, family, backend)
    try:
        with attention_backend(backend):  # what is set for the whole process is as before afterwards
            transformer.set_attention_backend(backend)
    except (RuntimeError, ImportError, ValueError) as error:
        raise SdgError(f"policy.attention {backend} cannot be used here ({first_line(error)}).") from error


def require_choice(transformer: Any, family: str, backend: str) -> None:
    """Raise SdgError for a transformer that has no choice of attention, or masks what the backend cannot."""
    processors = [module.processor for module in transformer.modules() if hasattr(module, "processor")]
    if not any(hasattr(processor, "_attention_backend") for processor in processors):
        raise SdgError(f"{type(transformer).__name__} has no choice of attention; set policy.attention=null.")
    if backend == "_native_flash" and FAMILIES[family].masked:
        raise SdgError(
            f"policy.attention {backend} takes no masks, which {family} needs for prompts of unequal length; "
            "set policy.attention=null."
        )


def merge(recipe: PolicyRecipe, adapter: Path, out: Path) -> None:
    """Write the recipe's pipeline with an adapter added into its weights to a folder, whole or not at all.

    Where a run trained all of the transformer, its folder is that instead of an adapter's. Raises SdgError
    where it does not fit.
    """
    if out.exists():
        raise SdgError(f"{out} exists already; name another folder.")
    # diffusers loads no pipeline that lacks a part.
    pipeline = load_pipeline(recipe, "unused as well", adapter)
    if not holds_transformer(adapter):
        pipeline.transformer.fuse_lora()
        pipeline.transformer.unload_lora()
    with writing(out):
        replace_folder(out, pipeline.save_pretrained)
