"""At which noise levels do the embedded generator's defects arise? Its training is put where they do.

    python benchmarks/generator_levels.py [--pipeline FOLDER] [--scenes 128] [--steps 20] [--every 2]

Clean pictures of held-out scenes get noise of one level, and the generator draws them from there on in the
steps that are left. From a low level it only finishes what the scene has laid out; the higher the level, the
more of the picture is its own. Each line is one level: what the oracle finds, with 95 % intervals over
prompts. 128 scenes take about six minutes on two AVX2 cores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from sdg.errors import SdgError
from sdg.records import Record
from sdg.testbed.models.generator.flow import pack
from sdg.testbed.models.generator.pipeline import TEXT_LENGTH
from sdg.testbed.models.generator.vae import to_tensor
from sdg.testbed.models.measure import defect_rates
from sdg.testbed.models.packaged import load_generator
from sdg.testbed.oracle import diagnose_all
from sdg.testbed.world.layout import sample_scene
from sdg.testbed.world.renderer import render

CHUNK: Final = 64


def encoded(pipeline: FluxPipeline, scenes: int, seed: int) -> tuple[list[str], Tensor]:
    """Prompts of held-out scenes and the tokens (scenes, L, 4C) of their pictures."""
    rng = np.random.default_rng((seed, 31))
    drawn = [sample_scene(rng, split="test") for _ in range(scenes)]
    pictures = to_tensor(np.stack([render(scene) for _, _, scene in drawn]))
    config = pipeline.vae.config
    with torch.no_grad():
        latents = torch.cat([pipeline.vae.encode(part).latent_dist.mean for part in pictures.split(CHUNK)])
    return [prompt for _, prompt, _ in drawn], pack((latents - config.shift_factor) * config.scaling_factor)


def drawn_on(
    pipeline: FluxPipeline, prompts: list[str], tokens: Tensor, asked: list[float], level: float, seed: int
) -> list[np.ndarray]:
    """The pictures drawn from noise of a level on; asked: the levels as the scheduler is given them."""
    noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(seed))
    noisy = (1 - level) * tokens + level * noise
    pictures: list[np.ndarray] = []
    for start in range(0, len(prompts), CHUNK):
        part = slice(start, start + CHUNK)
        pictures += list(
            pipeline(
                prompt=prompts[part],
                sigmas=asked,
                num_inference_steps=len(asked),
                latents=noisy[part],
                height=128,
                width=128,
                max_sequence_length=TEXT_LENGTH,
                output_type="np",
            ).images
        )
    return [(picture * 255).round().astype(np.uint8) for picture in pictures]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pipeline", type=Path, help="folder of a pipeline [default: the packaged generator]"
    )
    parser.add_argument("--scenes", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--every", type=int, default=2, help="begin at every so many steps")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    pipeline = load_generator(chosen.pipeline)
    prompts, tokens = encoded(pipeline, chosen.scenes, chosen.seed)
    asked = np.linspace(1, 1 / chosen.steps, chosen.steps).tolist()
    scheduler = pipeline.scheduler
    known = scheduler.config
    shift = calculate_shift(
        tokens.shape[1], known.base_image_seq_len, known.max_image_seq_len, known.base_shift, known.max_shift
    )
    scheduler.set_timesteps(sigmas=asked, mu=shift)
    print("| from noise level | clean | artifacts | misalignments |\n|---|---|---|---|")
    for first, level in reversed(list(enumerate(scheduler.sigmas[:-1].tolist()))):
        if first % chosen.every:
            continue
        pictures = drawn_on(pipeline, prompts, tokens, asked[first:], level, chosen.seed)
        diagnoses = diagnose_all(zip(pictures, prompts, strict=True), workers=1)
        records = [
            Record(f"{number}.png", prompt, diagnosis)
            for number, (prompt, diagnosis) in enumerate(zip(prompts, diagnoses, strict=True))
        ]
        rates = {rate.name: rate for rate in defect_rates(records, chosen.seed)}
        clean = rates["clean"]
        counts = " | ".join(f"{rates[kind].per_picture:.2f}" for kind in ("artifact", "misalignment"))
        share = f"{100 * clean.share:.0f} % ({100 * clean.low:.0f}–{100 * clean.high:.0f})"
        print(f"| {level:.2f} | {share} | {counts} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except SdgError as error:
        sys.exit(f"Error: {error}")
