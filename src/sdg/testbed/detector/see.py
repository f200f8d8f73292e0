"""The detector's base model, first stage: its vision tower learns dense targets.

Trained on injected pictures of the train split; the language model waits until there is something to see.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration

from sdg.testbed.detector.dense import DenseReader, dense_loss, dense_targets
from sdg.testbed.injection import sample
from sdg.testbed.loop import Budget, SeededBatches, fit


def sample_dense(rng: np.random.Generator, count: int) -> dict[str, np.ndarray[Any, Any]]:
    """A batch of injected pictures (count, SIZE, SIZE, 3) and their dense targets, by name."""
    samples = [sample(rng, split="train") for _ in range(count)]
    targets = [dense_targets(one) for one in samples]
    batch = {name: np.stack([target[name] for target in targets]) for name in targets[0]}
    return {"pictures": np.stack([one.picture for one in samples]), **batch}


def train_vision(
    model: Qwen3VLForConditionalGeneration,
    out: Path,
    *,
    steps: int,
    batch_size: int = 48,
    learning_rate: float = 2e-3,
    seed: int = 0,
    resume: bool = False,
    max_minutes: float | None = None,
    workers: int = 1,
) -> Qwen3VLForConditionalGeneration:
    """Train the vision tower; returns the model with the averaged tower, also saved to out/seeing."""
    reader = DenseReader(model)

    def draw(rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
        return sample_dense(rng, batch_size)

    def loss_of(batch: dict[str, Any]) -> dict[str, Tensor]:
        return dense_loss(reader, {name: torch.as_tensor(value) for name, value in batch.items()})

    def save(averaged: nn.Module, step: int) -> None:
        assert isinstance(averaged, DenseReader)
        _take_over(model, averaged).save_pretrained(out / "seeing")

    budget = Budget(
        steps=steps,
        learning_rate=learning_rate,
        warmup=200,
        weight_decay=0.02,
        ema=0.998,
        save_every=500,
        max_minutes=max_minutes,
    )
    data = SeededBatches(draw, seed, steps)
    averaged = fit(
        reader, loss_of, data, out, budget, seed=seed, resume=resume, workers=workers, muon=True, on_save=save
    )
    assert isinstance(averaged, DenseReader)
    return _take_over(model, averaged)


def _take_over(
    model: Qwen3VLForConditionalGeneration, reader: DenseReader
) -> Qwen3VLForConditionalGeneration:
    # A copy of the model with the averaged tower; training goes on with the model's own.
    twin = copy.deepcopy(model)
    twin.model.visual.load_state_dict(reader.visual.state_dict())
    return twin
