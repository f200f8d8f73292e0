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
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from sdg import Record, render_response
from sdg.data.sdg30k import write_annotations
from sdg.prompting import Generation, PromptProfile
from sdg.recipes import parse_recipe
from sdg.testbed.detector.build import new_processor, new_tokenizer
from sdg.testbed.injection import sample
from sdg.training.recipe import GrpoRecipe, SftRecipe

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
    processor = new_processor(tokenizer)
    processor.image_processor.size = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    ids = tokenizer.convert_tokens_to_ids
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "max_position_embeddings": 1024,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [2, 3, 3],
                },
                "tie_word_embeddings": True,
                "pad_token_id": tokenizer.pad_token_id,
                "eos_token_id": tokenizer.eos_token_id,
            },
            vision_config={
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_heads": 2,
                "patch_size": 8,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "out_hidden_size": 64,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [],
            },
            image_token_id=ids("<|image_pad|>"),
            video_token_id=ids("<|video_pad|>"),
            vision_start_token_id=ids("<|vision_start|>"),
            vision_end_token_id=ids("<|vision_end|>"),
            tie_word_embeddings=True,
        )
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


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
        "optimiser": {"learning_rate": 3e-3, "max_steps": 4, "batch_size": 8},
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
    document["optimiser"] |= {"max_steps": 2}
    document["evaluation"] |= {"every": 1}
    document["guards"] = {"malformed": 1.0, "spread": 0.0}
    return parse_recipe(GrpoRecipe, document | extra)
