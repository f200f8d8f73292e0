"""GRPO of the embedded detector with roll-outs by a real vLLM in this process: `roll_out.py RECIPE DATA OUT`.

Writes OUT/seen.json: |ratio - 1| of each completion at its first scoring, and the log. Runs in the
environment that `prepare_vllm.py` makes.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import trl.generation.vllm_generation as vllm_generation
import vllm.model_executor.layers.utils as vllm_layers

from sdg.recipes import load_recipe
from sdg.testbed.models.packaged import DETECTOR
from sdg.training import engine
from sdg.training.grpo import GrpoTrainer, grpo
from sdg.training.recipe import GrpoRecipe


def keep_weights(layer: torch.nn.Module, remove_weight: bool) -> None:
    """In place of vLLM's packing of weights for the CPU, after which they cannot be exchanged."""
    layer.cpu_linear = torch.nn.functional.linear


def main(recipe: Path, data: Path, out: Path) -> None:
    rolled: list[tuple[list[int], list[float]]] = []
    ratios: list[float] = []
    sample, score = engine.sample, GrpoTrainer._get_per_token_logps_and_entropies

    def watched_sample(trainer: Any, prompts: Any, images: Any, group: int) -> Any:
        completions, chances = sample(trainer, prompts, images, group)
        if group > 1:
            pairs = zip(prompts, completions, chances, strict=True)
            rolled[:] = [([*prompt, *own], logs) for prompt, own, logs in pairs]
        return completions, chances

    def watched_score(self: Any, model: Any, ids: Any, mask: Any, *rest: Any, **more: Any) -> Any:
        found = score(self, model, ids, mask, *rest, **more)
        if model is not self.ref_model:
            whole = [tokens for tokens, _ in rolled]
            for row, kept, logs in zip(ids, mask, found[0].detach(), strict=True):
                its = torch.tensor(rolled[whole.index(row[kept.bool()].tolist())][1])
                ratios.append(float((torch.exp(logs[: len(its)] - its) - 1).abs().max()))
        return found

    # It would take bf16, as the packaged weights are stored; in fp32 ratios have no rounding to hide in.
    vllm_generation.LLM = partial(vllm_generation.LLM, dtype="float32")
    vllm_layers.dispatch_cpu_unquantized_gemm = keep_weights
    engine.sample = watched_sample
    GrpoTrainer._get_per_token_logps_and_entropies = watched_score
    overrides = {
        "model.checkpoint": DETECTOR,
        "data.train": data / "train.jsonl",
        "data.validation": data / "validation.jsonl",
        "data.workers": 0,
        "rollout.engine": "vllm",
        "rollout.top_p": 1.0,  # the whole distribution, so that ratios are true ones
        "optimizer.max_steps": 2,
        "optimizer.batch_size": 16,
        "run.log_every": 1,
        "run.precision": "fp32",
        "evaluation.every": 2,
    }
    grpo(load_recipe(GrpoRecipe, recipe, [f"{name}={value}" for name, value in overrides.items()]), out)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    (out / "seen.json").write_text(json.dumps({"ratios": ratios, "log": log}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
