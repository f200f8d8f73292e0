"""What training starts from: the checkpoint's profile, processor and weights, and adapters on its layers.

Also what checkpoints of it take on the disk, said before the first one is written.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import disk_usage
from typing import Any, Final

import torch
from peft import LoraConfig
from rich.filesize import decimal
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig, PreTrainedModel

from sdg.errors import SdgError, loading
from sdg.io.files import read_text, replace_folder, writing
from sdg.io.uri import require_place
from sdg.models.lora import matching_layers
from sdg.models.vlm import rope_not_interleaved, special_tokens
from sdg.prompting import PROFILE_FILE, PromptProfile
from sdg.prompting.chat import checkpoint_profile, given_profile
from sdg.training.recipe import DetectorRun, GrpoRecipe, ModelRecipe, Recipe

ADAPTER: Final = "adapter_config.json"
"""By which peft knows an adapter's folder."""
LANGUAGE: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The layers that adapters train where a recipe names none: attention's and the MLP's."""


def load_profile(recipe: Recipe) -> PromptProfile:
    """The recipe's own profile, that of its file or its name, or that of the checkpoint; raises SdgError.

    A GRPO recipe may set other limits on pictures.
    """
    profile = given_profile(recipe.profile) or checkpoint_profile(
        recipe.model.checkpoint, recipe.model.revision
    )
    if isinstance(recipe, GrpoRecipe) and recipe.image is not None:
        return replace(profile, image=recipe.image)
    return profile


def load_processor(recipe: ModelRecipe) -> Any:
    """The processor of the checkpoint, padding on the left; raises SdgError."""
    require_place(
        recipe.checkpoint, " to start from; train what it comes from first, or set model.checkpoint."
    )
    with loading(f"{recipe.checkpoint} cannot be loaded to be trained"):
        processor = AutoProcessor.from_pretrained(recipe.checkpoint, revision=recipe.revision)
    processor.tokenizer.padding_side = "left"
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    if lost := [tag for tag in special_tokens(processor.tokenizer) if tag in tags]:
        raise SdgError(
            f"The tokenizer of {recipe.checkpoint} has {', '.join(lost)} as special tokens, which decoding "
            "leaves out of every answer; make them ordinary added tokens."
        )
    return processor


def load_model(recipe: ModelRecipe) -> PreTrainedModel:
    """The checkpoint, its vision encoder frozen where the recipe says so; raises SdgError.

    An adapter's folder is none: what a KL term compares with would be the base without it.
    """
    if (Path(recipe.checkpoint) / ADAPTER).is_file():
        raise SdgError(
            f"{recipe.checkpoint} holds an adapter and no whole weights; merge it first: sdg train merge "
            f"{recipe.checkpoint} --out DIR."
        )
    with loading(f"{recipe.checkpoint} cannot be loaded to be trained"):
        model = AutoModelForImageTextToText.from_pretrained(
            recipe.checkpoint,
            revision=recipe.revision,
            dtype=getattr(torch, recipe.dtype),
            attn_implementation=recipe.attention,
            use_safetensors=True,
        )
    assert isinstance(model, PreTrainedModel)
    if rope_not_interleaved(model.config):  # what is saved is for vLLM, too
        model.config.text_config.rope_parameters["mrope_interleaved"] = True
    if recipe.freeze_vision:
        vision_encoder(model).requires_grad_(False)
    # Sampling settings made for chat would be saved with the detector, and refused by a greedy one.
    known = model.generation_config
    model.generation_config = GenerationConfig(
        eos_token_id=known.eos_token_id, pad_token_id=known.pad_token_id, bos_token_id=known.bos_token_id
    )
    return model


def merge_adapter(
    folder: Path, out: Path, base: str | None = None, dtype: str = "bfloat16", wording: str | None = None
) -> None:
    """Write a detector whose weights hold the adapter of a folder, with its processor and profile.

    folder: what peft wrote, such as a checkpoint of a training with `model.lora`; processor and profile are
    its own, or else its base's. base: where that is, if elsewhere than the adapter says. wording: a profile
    in place of theirs, see `given_profile`. Raises SdgError.
    """
    from peft import PeftModel

    if not (folder / ADAPTER).is_file():
        raise SdgError(f"{folder} holds no adapter ({ADAPTER} is missing); check the path.")
    if out.exists():
        raise SdgError(f"{out} exists already; name another folder.")
    revision = None
    try:
        said = json.loads(read_text(folder / ADAPTER))
        start = base or str(said["base_model_name_or_path"])
        if base is None and said.get("revision") is not None:
            revision = str(said["revision"])
    except (ValueError, LookupError, TypeError, AttributeError):
        raise SdgError(f"{folder / ADAPTER} is damaged: it names no base.") from None
    own_profile = (folder / PROFILE_FILE).is_file()
    profile = given_profile(wording) or (
        checkpoint_profile(str(folder)) if own_profile else checkpoint_profile(start, revision)
    )
    recipe = ModelRecipe(start, revision, dtype=dtype, freeze_vision=False)  # type: ignore[arg-type]
    model = load_model(recipe)
    with loading(f"{folder} does not fit {start}"):
        merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    own = (folder / "preprocessor_config.json").is_file() or (folder / "processor_config.json").is_file()
    processor = load_processor(replace(recipe, checkpoint=str(folder), revision=None) if own else recipe)

    def write(fresh: Path) -> None:
        merged.save_pretrained(fresh)
        processor.save_pretrained(fresh)
        profile.save(fresh)

    with writing(out):
        replace_folder(out, write)


def vision_encoder(model: Any) -> torch.nn.Module:
    """The vision encoder of an image-text-to-text model; raises SdgError where it is not to be found."""
    for name in ("visual", "vision_tower", "vision_model"):
        encoder = getattr(model.model, name, None)
        if isinstance(encoder, torch.nn.Module):
            return encoder
    raise SdgError(
        f"{type(model).__name__} has no vision encoder known here, so it cannot be frozen; "
        "set model.freeze_vision=false."
    )


def lora_config(recipe: ModelRecipe, model: PreTrainedModel) -> LoraConfig | None:
    """Adapters on exactly the layers the recipe names, outside of a frozen vision encoder.

    Raises SdgError where a name fits no layer.
    """
    if recipe.lora is None:
        return None
    frozen = set(vision_encoder(model).modules()) if recipe.freeze_vision else set()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module not in frozen
    ]
    chosen = set()
    for target in recipe.lora.targets or LANGUAGE:
        chosen |= set(matching_layers(linear, target, "model.lora.targets"))
    return LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,
        target_modules=sorted(chosen),
        lora_dropout=0.0,
        revision=recipe.revision,  # of the base, for whoever loads or merges it
    )


def zero_stage(path: Path) -> int:
    """The ZeRO stage of DeepSpeed's configuration; raises SdgError for one without, and for stage 3.

    That one divides the weights as well, of which a process alone could neither merge nor save them all.
    """
    try:
        stage = int(json.loads(read_text(path))["zero_optimization"]["stage"])
    except (ValueError, LookupError, TypeError):
        raise SdgError(f"{path} is no configuration of DeepSpeed with a zero_optimization.stage.") from None
    if stage > 2:
        raise SdgError(f"{path} has ZeRO stage {stage}; detectors are trained with stage 2 at most.")
    return stage


def needed(run: DetectorRun, model: PreTrainedModel, adapter: LoraConfig | None, out: Path) -> str:
    """How large a checkpoint is, how many stay, what they take and what is free, in one sentence."""
    size, most = run_bytes(run, model, adapter)
    return (
        f"A checkpoint with its optimizer takes {decimal(size)}; {run.keep} stay, and the best (run.keep), "
        f"so that {out} takes up to {decimal(most)}, and {decimal(disk_usage(out).free)} are free."
    )


def run_bytes(run: DetectorRun, model: PreTrainedModel, adapter: LoraConfig | None) -> tuple[int, int]:
    """Bytes of one checkpoint, and of all that lies in a run's folder at most."""
    size = checkpoint_bytes(model, adapter, run.deepspeed is not None)
    # The best stays, a new one is written before the oldest goes, and at the end there is the whole model.
    return size, (run.keep + 2) * size + sum(weight.nbytes for weight in model.parameters())


def checkpoint_bytes(model: PreTrainedModel, adapter: LoraConfig | None, deepspeed: bool) -> int:
    """Bytes of weights and optimizer state of one checkpoint, whatever the number of processes.

    AdamW keeps two moments of each trained parameter, in the parameter's own type. DeepSpeed keeps them and
    the parameter in fp32, and writes the whole model once more.
    """
    weights = checkpoint_weights(model, adapter)
    whole = sum(count * size for count, size, _ in weights)
    if deepspeed:
        return 2 * whole + sum(12 * count for count, _, trained in weights if trained)
    return whole + sum(2 * count * size for count, size, trained in weights if trained)


def checkpoint_weights(model: PreTrainedModel, adapter: LoraConfig | None) -> list[tuple[int, int, bool]]:
    """What a checkpoint holds: numbers of parameters, bytes of each, and whether they are trained."""
    if adapter is None:
        return [(each.numel(), each.element_size(), each.requires_grad) for each in model.parameters()]
    targets = set(adapter.target_modules or ())
    layers = [module for name, module in model.named_modules() if name in targets]
    return [(adapter.r * sum(layer.weight.shape), 4, True) for layer in layers]  # two matrices each, in fp32
