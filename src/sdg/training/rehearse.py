"""The dry run of a detector's training: data, profile, model at real size, memory, disk and hours.

Nothing is loaded but configurations, so a laptop without weights or GPU does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch.nn import functional

from sdg.data.formats import read_records
from sdg.models.meta import Taken, measured, vision_language_model
from sdg.models.vlm import LETTERS
from sdg.prompting import PromptProfile
from sdg.runs.rehearsal import GB, GPUS, Rehearsal
from sdg.training.dataset import require_file
from sdg.training.model import (
    checkpoint_weights,
    load_profile,
    lora_config,
    run_bytes,
    vision_encoder,
    zero_stage,
)
from sdg.training.recipe import GrpoRecipe, Recipe

ANSWER: Final = 1024
"""Tokens of an answer with its reasoning, as SDG-30K's have at most, about."""
CAPTION: Final = 300
"""Letters of a caption."""


def rehearse(
    recipe: Recipe, *, gpu: str, processes: int, tokens: int = ANSWER, out: Path | None = None
) -> Rehearsal:
    """Check a training of so many processes, one a GPU; hours and memory are estimates.

    tokens: of an answer or completion, to reckon with; a row has those of the largest picture and of the
    wording besides. out: the run's folder, for the disk it is on.
    """
    page = Rehearsal(gpu, processes)
    grpo = recipe if isinstance(recipe, GrpoRecipe) else None
    profile = page.check(
        "profile", lambda: load_profile(recipe), lambda one: f"{one.name}, {one.digest[:12]}"
    )
    rows = page.check("data.train", lambda: _count(recipe.data.train), lambda n: f"{n:,} rows")
    page.check("data.validation", lambda: _count(recipe.data.validation), lambda n: f"{n:,} rows")
    if (deepspeed := recipe.run.deepspeed) is not None:
        page.check("run.deepspeed", lambda: zero_stage(deepspeed), lambda stage: f"ZeRO stage {stage}")
    if grpo is not None:
        _check_groups(page, grpo, rows)
    model = page.check(
        "model", lambda: _model(recipe), lambda found: f"{found.num_parameters() / 1e9:.2f} B parameters"
    )
    if model is None:
        return page
    adapter = page.check(
        "model.lora",
        lambda: lora_config(recipe.model, model),
        lambda found: "none: all but frozen layers are trained" if found is None else f"rank {found.r}",
    )
    if profile is None or not page.holds("model.lora"):
        return page
    answer = min(tokens, grpo.rollout.max_tokens) if grpo else tokens
    picture, words = _question(profile, model)
    length = min(picture + words + answer, recipe.data.max_length + (answer if grpo else 0))
    most = getattr(model.config.get_text_config(), "max_position_embeddings", length)
    page.require(
        "tokens",
        picture + words < recipe.data.max_length and length <= most,
        f"about {length:,} a row: picture {picture:,} at most, words {words:,}, answer {answer:,} "
        f"(--tokens); data.max_length is {recipe.data.max_length:,}",
    )
    size, most = run_bytes(recipe.run, model, adapter)
    page.require_disk(f"a checkpoint takes {size / GB:.1f} GB, the run up to {most / GB:.0f}", most, out)
    trained = sum(count for count, _, learns in checkpoint_weights(model, adapter) if learns)
    taken = _pass(recipe, model, length, answer, adapter)
    _memory(page, recipe, model, trained, taken)
    page.require_memory()
    if rows:
        _hours(page, recipe, min(rows, recipe.data.limit or rows), taken)
    return page


def _count(path: Path) -> int:
    require_file(path)
    return sum(1 for _ in read_records(path))


def _check_groups(page: Rehearsal, recipe: GrpoRecipe, rows: int | None) -> None:
    optimizer, group = recipe.optimizer, recipe.rollout.group
    batch = optimizer.batch_size * optimizer.accumulate * page.processes
    page.require(
        "groups",
        batch % group == 0,
        f"batch_size × accumulate × processes is {batch}, to be divided into groups of {group}",
    )
    if rows is not None and page.holds("groups"):
        page.check(
            "a step",
            lambda: recipe.require_step(min(rows, recipe.data.limit or rows), page.processes),
            lambda _: f"{recipe.prompts_a_step(page.processes):,} rows",
        )


def _model(recipe: Recipe) -> Any:
    model = vision_language_model(
        recipe.model.checkpoint, getattr(torch, recipe.model.dtype), recipe.model.revision
    )
    if recipe.model.freeze_vision:
        vision_encoder(model).requires_grad_(False)
    return model


def _question(profile: PromptProfile, model: Any) -> tuple[int, int]:
    """Tokens of the largest picture that the profile lets through, and about those of its words."""
    vision = model.config.vision_config
    side = vision.patch_size * getattr(vision, "spatial_merge_size", 1)
    width, height = profile.image.fit(10_000, 10_000)
    words = sum(len(str(message["content"])) for message in profile.render("x" * CAPTION))
    return (width // side) * (height // side), words // LETTERS


def _pass(recipe: Recipe, model: Any, length: int, answer: int, adapter: Any) -> Taken:
    """One forward and backward pass of a process's batch through the language model, gradients left out."""
    from trl.trainer.utils import selective_log_softmax

    batch, config = recipe.optimizer.batch_size, model.config.get_text_config()
    grpo = recipe if isinstance(recipe, GrpoRecipe) else None
    kept = answer if grpo else length
    if adapter is not None:
        model.requires_grad_(False)
    if recipe.model.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    language = next(part for name, part in model.named_modules() if name.endswith("language_model"))

    def compute() -> None:
        with torch.device("meta"):
            inputs = torch.empty(batch, length, config.hidden_size, dtype=model.dtype, requires_grad=True)
            positions = torch.zeros(3, batch, length, dtype=torch.long)
            hidden = language(inputs_embeds=inputs, position_ids=positions, use_cache=False)[0]
            logits = model.get_output_embeddings()(hidden[:, -kept:])
            truth = torch.zeros(batch, kept, dtype=torch.long)
            if grpo is not None:  # as TRL does, row by row
                selective_log_softmax(logits / grpo.rollout.temperature, truth).sum().backward()
            else:
                functional.cross_entropy(logits.float().flatten(0, 1), truth.flatten()).backward()
        for parameter in model.parameters():
            parameter.grad = None

    taken = measured(compute)
    gradients = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    return Taken(max(taken.bytes - gradients, 0), taken.flop)


def _memory(page: Rehearsal, recipe: Recipe, model: Any, trained: int, taken: Taken) -> None:
    """Parts of a GPU's memory; ZeRO-2 shares gradients and the optimizer's state among the processes."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    each = 4 if recipe.model.lora is not None else torch.empty(0, dtype=model.dtype).element_size()
    parts = page.memory
    parts["weights"] = weights
    if recipe.run.deepspeed is not None:
        parts["gradients, shared out"] = each * trained / page.processes
        parts["optimizer, fp32, shared out"] = 12 * trained / page.processes
    else:
        parts["gradients"] = each * trained
        parts["Adam's moments"] = 2 * each * trained
        if page.processes > 1:
            parts["buckets, in which processes add up gradients"] = each * trained
    if isinstance(recipe, GrpoRecipe):
        if recipe.beta > 0 and recipe.model.lora is None:
            parts["the model before training, for the KL term"] = weights
        if recipe.rollout.engine == "vllm" and not recipe.rollout.vllm_sleep:
            parts["vLLM (rollout.vllm_memory)"] = recipe.rollout.vllm_memory * GPUS[page.gpu].memory * GB
    parts[f"activations of {recipe.optimizer.batch_size} rows"] = taken.bytes


def _hours(page: Rehearsal, recipe: Recipe, rows: int, taken: Taken) -> None:
    optimizer = recipe.optimizer
    together = optimizer.batch_size * optimizer.accumulate * page.processes
    group = recipe.rollout.group if isinstance(recipe, GrpoRecipe) else 1
    steps = optimizer.max_steps or -(-int(rows * group * optimizer.epochs) // together)
    page.numbers |= {"steps": steps, "TFLOP a pass": taken.flop / 1e12}
    page.say_time(
        f"{steps:,} steps of {together} rows, {taken.flop / 1e12:,.0f} TFLOP a pass",
        steps * optimizer.accumulate * taken.flop,
        "roll-outs and validation come on top" if group > 1 else "validation comes on top",
    )
