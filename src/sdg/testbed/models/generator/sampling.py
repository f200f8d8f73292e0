"""Pictures by the generator: the prompts it never saw, one picture a prompt, and a sheet to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image

from sdg.testbed.models.generator.pipeline import TEXT_LENGTH
from sdg.testbed.world.prompts import phrase, sample_request, split_of

SIDE = 128
"""Pixels a side of the generator's pictures."""
_NEXT_SEED = 1_000_003  # more pictures than anybody draws with one seed


def held_out_prompts(count: int, seed: int) -> list[str]:
    """Prompts of the test split, never seen in training."""
    rng = np.random.default_rng((seed, 99))
    prompts: list[str] = []
    while len(prompts) < count:
        request = sample_request(rng)
        if split_of(request) == "test":
            prompts.append(phrase(request, rng))
    return prompts


def sample_pictures(
    pipeline: FluxPipeline,
    prompts: Sequence[str],
    *,
    steps: int = 20,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    chunk: int = 64,
) -> list[Image.Image]:
    """One picture of SIDE pixels a prompt; the noise of each comes from the seed and its number alone.

    numbers: of the pictures, by default 0, 1, …; chunk: pictures drawn at a time.
    """
    pipeline.set_progress_bar_config(disable=True)
    numbers = range(len(prompts)) if numbers is None else numbers
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), chunk):
        part = slice(start, start + chunk)
        noise = [torch.Generator().manual_seed(seed * _NEXT_SEED + number) for number in numbers[part]]
        pictures += pipeline(
            prompt=list(prompts[part]),
            height=SIDE,
            width=SIDE,
            num_inference_steps=steps,
            max_sequence_length=TEXT_LENGTH,
            generator=noise,
        ).images
    return pictures


def sample_grid(pipeline: FluxPipeline, columns: int = 6, rows: int = 4) -> Image.Image:
    """A sheet of pictures of fixed held-out prompts."""
    pictures = sample_pictures(pipeline, held_out_prompts(columns * rows, seed=0))
    sheet = Image.new("RGB", (columns * SIDE, rows * SIDE))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % columns * SIDE, index // columns * SIDE))
    return sheet
