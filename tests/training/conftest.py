"""A toy checkpoint and sixteen generated pictures, made once for all tests of training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_qwen3vl import tiny_model, tiny_processor

from sdg import Record, render_response
from sdg.data.formats.sdg30k import write_annotations
from sdg.prompting import Generation, PromptProfile
from sdg.recipes import parse_recipe
from sdg.testbed.injection import sample
from sdg.testbed.models.detector.build import new_tokenizer
from sdg.training.recipe import GrpoRecipe, SftRecipe
from sdg.training.reward import Reward

PROFILE: dict[str, Any] = {
    "name": "toy",
    "system": "",
    "template": "{caption}",
    "image": {"max_pixels": 64 * 64},
    "generation": {"max_new_tokens": 24},
}


@pytest.fixture(scope="session")
def profile() -> PromptProfile:
    return PromptProfile(system="", template="{caption}", generation=Generation(max_new_tokens=24))


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `checkpoint/` (2 layers, 64 wide), `train.jsonl` (16 rows), `validation.jsonl` (4)."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("toy")
    records = []
    for number in range(20):
        kind = ("both", "artifact", "misalignment", "clean")[number % 4]
        drawn = sample(np.random.default_rng(number), size=64, kind=kind)  # type: ignore[arg-type]
        Image.fromarray(drawn.picture).save(folder / f"{number}.png")
        records.append(Record(f"{number}.png", drawn.prompt, drawn.diagnosis))
    write_annotations(folder / "train.jsonl", records[:16])
    write_annotations(folder / "validation.jsonl", records[16:])
    _save_checkpoint(folder / "checkpoint", records)
    return folder


def _save_checkpoint(folder: Path, records: list[Record]) -> None:
    texts = [render_response(record.diagnosis) for record in records if record.diagnosis]
    tokenizer = new_tokenizer([*texts, *(record.prompt for record in records)])
    tiny_model(tokenizer).save_pretrained(folder)
    tiny_processor(tokenizer).save_pretrained(folder)


@pytest.fixture
def document(toy: Path) -> dict[str, Any]:
    """A recipe of four steps, as plain values, that both kinds of training take."""
    return {
        "model": {
            "checkpoint": str(toy / "checkpoint"),
            "dtype": "float32",
            "gradient_checkpointing": False,
        },
        "data": {
            "train": str(toy / "train.jsonl"),
            "validation": str(toy / "validation.jsonl"),
            "max_length": 900,
            "workers": 0,
        },
        "optimizer": {"learning_rate": 3e-3, "max_steps": 4, "batch_size": 8},
        "profile": PROFILE,
        "evaluation": {"every": 2, "batch_size": 4},
        "run": {"device": "cpu", "precision": "fp32", "log_every": 1},
    }


@pytest.fixture
def sft_recipe(document: dict[str, Any]) -> SftRecipe:
    return parse_recipe(SftRecipe, document)


@pytest.fixture
def grpo_recipe(document: dict[str, Any]) -> GrpoRecipe:
    extra = {"rollout": {"max_tokens": 16}, "similarity": "token-f1"}
    document["optimizer"] |= {"max_steps": 2}
    document["evaluation"] |= {"every": 1}
    document["guards"] = {"malformed": 1.0, "spread": 0.0}
    return parse_recipe(GrpoRecipe, document | extra)


@pytest.fixture
def graded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewards an untrained model can differ in: the more kinds of letters, the better."""

    def grade(responses: Any, truths: Any, similarity: Any, **gate: Any) -> list[Reward]:
        return [Reward(len(set(text)) / 100, 0.5, 0.25, 0.125, format_valid=True) for text in responses]

    monkeypatch.setattr("sdg.training.reward.composite_rewards", grade)
