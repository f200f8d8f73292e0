"""The detector's base model, first stage: its vision tower learns dense targets.

Trained on injected pictures of the train split. Some of them pass through the generator's autoencoder, whose
texture the detector meets later; the language model waits until there is something to see.
"""

from __future__ import annotations

import copy
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration

from sdg.io.files import replace_folder
from sdg.models.device import cpu_autocast
from sdg.testbed.injection import sample
from sdg.testbed.models.detector.dense import DenseReader, dense_loss, dense_targets
from sdg.testbed.models.generator.vae import to_tensor
from sdg.testbed.models.loop import Hyperparameters, Run, SeededBatches, fit

# Of both stages.
BATCH: Final = 48
BOTH_STAGES: Final = Hyperparameters(2e-3, weight_decay=0.02, ema=0.998, shards=2, muon=True)
DECODED: Final = 0.25
"""Share of the pictures that pass through the autoencoder, where there is one."""


def sample_dense(
    rng: np.random.Generator, count: int, vae: AutoencoderKL | None = None
) -> dict[str, NDArray[Any]]:
    """A batch of injected pictures (count, SIZE, SIZE, 3) and their dense targets, by name.

    With the generator's autoencoder, the first pictures of the batch are what it decodes from their latents.
    """
    samples = [sample(rng, split="train") for _ in range(count)]
    targets = [dense_targets(one) for one in samples]
    batch = {name: np.stack([target[name] for target in targets]) for name in targets[0]}
    pictures = np.stack([one.picture for one in samples])
    decoded = int(DECODED * count)
    if vae is not None and decoded:
        pictures[:decoded] = round_trip(vae, pictures[:decoded])
    return {"pictures": pictures, **batch}


@torch.no_grad()
def round_trip(vae: AutoencoderKL, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures (B, H, W, 3) as the autoencoder decodes them from their latents' means; in bf16, for speed."""
    images = to_tensor(pictures).to(memory_format=torch.channels_last)
    with cpu_autocast():
        decoded = vae.decode(vae.encode(images).latent_dist.mode()).sample
    return ((decoded.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def train_vision(
    model: Qwen3VLForConditionalGeneration, run: Run, *, vae: AutoencoderKL | None = None
) -> Qwen3VLForConditionalGeneration:
    """Train the vision tower; returns the model with the averaged tower, also saved to run.out/seeing."""
    model.set_attn_implementation("eager")  # see `speak`: faster here than the fused one
    reader = DenseReader(model)

    def draw(rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        return sample_dense(rng, BATCH // BOTH_STAGES.shards, vae)

    def loss_of(batch: dict[str, Any]) -> dict[str, Tensor]:
        return dense_loss(reader, {name: torch.as_tensor(value) for name, value in batch.items()})

    def save(averaged: DenseReader, step: int) -> None:
        replace_folder(run.out / "seeing", _take_over(model, averaged).save_pretrained)

    averaged = fit(reader, loss_of, SeededBatches(draw, run.seed), run, BOTH_STAGES, on_save=save)
    return _take_over(model, averaged)


def _take_over(
    model: Qwen3VLForConditionalGeneration, reader: DenseReader
) -> Qwen3VLForConditionalGeneration:
    # A copy of the model with the averaged tower; training goes on with the model's own.
    twin = copy.deepcopy(model)
    twin.model.visual.load_state_dict(reader.visual.state_dict())
    return twin
