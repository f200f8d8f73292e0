"""DeepSpeed ZeRO-2 by two processes on the CPU: the losses of plain data parallelism, and exact resume.

On the CPU transformers leaves DeepSpeed out. Here two gloo processes pass for a group of GPUs.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from train_runs import command, finish, not_ended, start_two

from sdg.cli import main
from sdg.training.recipe import GrpoRecipe, Recipe, SftRecipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="the extra deepspeed is not installed"),
]

CLOSE = 1e-4
"""Relative: gradients are summed in another order than by DDP."""


def pass_for_gpus() -> None:
    """Make this process one of a group of GPUs, to Accelerate and to DeepSpeed, that computes on the CPU."""

    def set_device(state: Any) -> None:
        state.device = torch.device("cpu")

    os.environ.pop("ACCELERATE_USE_CPU", None)
    os.environ["DS_ACCELERATOR"] = "cpu"
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
    PartialState.set_device = set_device
    import_module("deepspeed.comm")
    # It would compile a library of its own for processes that share memory.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None


def by_zero_two(recipe: Recipe, out: Path) -> None:
    """`sdg train` by two processes under DeepSpeed, with what the test has patched."""
    settings = out.with_suffix(".json")
    settings.write_text(
        json.dumps(
            {
                "bf16": {"enabled": False},
                "zero_optimization": {"stage": 2},
                "gradient_accumulation_steps": "auto",
                "gradient_clipping": "auto",
                "train_batch_size": "auto",
                "train_micro_batch_size_per_gpu": "auto",
            }
        )
    )
    words = command(replace(recipe, run=replace(recipe.run, deepspeed=settings)), out)
    if (out / "manifest.json").exists():
        words.append("--resume")

    def train() -> None:
        pass_for_gpus()
        main([str(word) for word in words])

    finish(processes.torchrun(train, stderr=out.with_suffix(".stderr")), out)


def steps(out: Path) -> dict[int, dict[str, Any]]:
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return {line["step"]: line for line in lines if "loss" in line}


def is_as_plain_and_resumes(recipe: Recipe, folder: Path, names: set[str], monkeypatch: Any) -> None:
    plain, sharded = folder / "plain", folder / "sharded"
    finish(start_two(recipe, plain), plain)
    monkeypatch.setattr("sdg.training.run.on_cpu", lambda recipe: False)
    by_zero_two(recipe, sharded)
    assert json.loads((sharded / "manifest.json").read_text())["processes"] == 2
    shards = sorted(file.name for file in (sharded / "checkpoint-2").rglob("*optim_states.pt"))
    assert len(shards) == 2, "half of the optimizer's state each"
    before = steps(sharded)
    for step, expected in steps(plain).items():
        for name in names:
            assert before[step][name] == pytest.approx(expected[name], rel=CLOSE, abs=1e-7)

    (sharded / "checkpoint-2" / "trainer_state.json").unlink()
    not_ended(sharded)
    by_zero_two(recipe, sharded)
    for name in names:
        assert steps(sharded)[2][name] == pytest.approx(before[2][name], rel=CLOSE, abs=1e-7)
    assert (sharded / "final" / "model.safetensors").exists()

    # Killed after its last checkpoint, and before the final model.
    final = sharded / "final" / "model.safetensors"
    whole = load_file(final)
    final.unlink()
    not_ended(sharded)
    by_zero_two(recipe, sharded)
    torch.testing.assert_close(load_file(final), whole, rtol=CLOSE, atol=1e-7)


def test_sft(sft_recipe: SftRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(
        sft_recipe,
        optimizer=replace(sft_recipe.optimizer, max_steps=2),
        evaluation=replace(sft_recipe.evaluation, every=1),
    )
    is_as_plain_and_resumes(recipe, tmp_path, {"loss", "grad_norm"}, monkeypatch)


@pytest.mark.usefixtures("graded")
def test_grpo(grpo_recipe: GrpoRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_as_plain_and_resumes(grpo_recipe, tmp_path, {"reward", "grad_norm", "kl"}, monkeypatch)
