"""Train the generator from scratch by rectified flow on clean scenes (`sdg testbed train-generator`).

x_σ = (1−σ)·x + σ·ε, and the transformer learns the velocity ε − x; text encoders learn along with it.
Afterwards it can learn to do in one pass what classifier-free guidance does in two (`distil-generator`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline
from numpy.typing import NDArray
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdg.models.device import cpu_autocast
from sdg.runs.folders import open_run, replace_folder
from sdg.testbed.models.generator.build import TEXT_LENGTH, new_pipeline
from sdg.testbed.models.generator.sampling import sample_grid
from sdg.testbed.models.generator.vae import load_vae, to_tensor
from sdg.testbed.models.loop import Budget, SeededBatches, fit
from sdg.testbed.world.layout import sample_scene
from sdg.testbed.world.renderer import render

UNPROMPTED: Final = 0.08
"""Share of training pictures whose prompt is left out, for classifier-free guidance."""


class TextToVelocity(nn.Module):
    """What is trained: the transformer and both text encoders of a pipeline, in one module."""

    def __init__(self, pipeline: FluxPipeline) -> None:
        super().__init__()
        self.transformer, self.clip, self.t5 = (
            pipeline.transformer,
            pipeline.text_encoder,
            pipeline.text_encoder_2,
        )

    def forward(
        self, tokens: Tensor, sigma: Tensor, clip_ids: Tensor, t5_ids: Tensor, grid: Tensor
    ) -> Tensor:
        """Velocity of packed latents (B, L, C) at noise levels (B,); ids (B, TEXT_LENGTH), grid (L, 3)."""
        velocity: Tensor = self.transformer(
            hidden_states=tokens,
            timestep=sigma,
            encoder_hidden_states=self.t5(t5_ids)[0],
            pooled_projections=self.clip(clip_ids).pooler_output,
            img_ids=grid,
            txt_ids=torch.zeros(t5_ids.shape[1], 3),
            guidance=None,
            return_dict=False,
        )[0]
        return velocity


def pack(latents: Tensor) -> Tensor:
    """(B, C, H, W) latents to (B, H/2·W/2, 4C) tokens, as FLUX packs them."""
    return FluxPipeline._pack_latents(latents, *latents.shape)


def encode_scenes(vae: AutoencoderKL, count: int, seed: int, cache: Path) -> tuple[Tensor, list[str]]:
    """Latents (count, L, 4C) half precision and prompts of training scenes; made once and kept in `cache`."""
    prompts: list[str] = []
    rng = np.random.default_rng((seed, 77))
    if cache.exists():
        tokens = load_file(cache)["tokens"]
        for _ in range(count):
            prompts.append(sample_scene(rng, split="train")[1])
        if len(tokens) == count:
            return tokens, prompts
        prompts, rng = [], np.random.default_rng((seed, 77))
    chunks = []
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor
    for start in track(range(0, count, 64), description="encoding scenes"):
        pictures: list[NDArray[np.uint8]] = []
        for _ in range(min(64, count - start)):
            _, prompt, scene = sample_scene(rng, split="train")
            prompts.append(prompt)
            pictures.append(render(scene))
        with torch.no_grad(), cpu_autocast():
            latents = vae.encode(to_tensor(np.stack(pictures))).latent_dist.mean
        chunks.append(pack((latents.float() - shift) * scale).half())
    tokens = torch.cat(chunks)
    fresh = cache.with_name(f".{cache.name}.writing")
    save_file({"tokens": tokens}, fresh)
    fresh.replace(cache)
    return tokens, prompts


def velocity_loss(model: TextToVelocity, batch: dict[str, Tensor], grid: Tensor) -> dict[str, Tensor]:
    """Mean squared error of the velocity at logit-normal noise levels, shifted as the sampler's are."""
    clean = batch["tokens"].float()
    noisy, sigma, noise = _noised(clean)
    with cpu_autocast():
        velocity = model(noisy, sigma, batch["clip_ids"], batch["t5_ids"], grid)
    return {"loss": (velocity.float() - (noise - clean)).square().mean()}


def guided_loss(
    student: TextToVelocity,
    teacher: TextToVelocity,
    batch: dict[str, Tensor],
    empty: tuple[Tensor, Tensor],
    grid: Tensor,
    scale: float,
) -> dict[str, Tensor]:
    """Mean squared distance of the student's velocity from the teacher's guided one, v∅ + scale·(v − v∅).

    empty: the ids (TEXT_LENGTH,) of the empty prompt, for CLIP and T5. `shift`: how far guidance moves the
    teacher's velocity, in the same unit; the loss of a student that has learned nothing.
    """
    clean = batch["tokens"].float()
    noisy, sigma, _ = _noised(clean)
    ids = batch["clip_ids"], batch["t5_ids"]
    blank = tuple(each.expand_as(known) for each, known in zip(empty, ids, strict=True))
    with cpu_autocast():
        with torch.no_grad():
            both = [torch.cat(pair) for pair in zip(ids, blank, strict=True)]
            asked = teacher(noisy.repeat(2, 1, 1), sigma.repeat(2), *both, grid).float()
        prompted, unprompted = asked.chunk(2)
        velocity = student(noisy, sigma, *ids, grid)
    guided = unprompted + scale * (prompted - unprompted)
    return {
        "loss": (velocity.float() - guided).square().mean(),
        "shift": (prompted - guided).square().mean(),
    }


def _noised(clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Tokens at logit-normal noise levels, the levels (B,), and the noise.
    noise = torch.randn_like(clean)
    odds = torch.exp(torch.randn(len(clean)) + 0.47)
    sigma = odds / (1 + odds)
    level = sigma[:, None, None]
    return (1 - level) * clean + level * noise, sigma, noise


def train_generator(
    vae_folder: Path,
    out: Path,
    *,
    steps: int,
    batch_size: int = 64,
    scenes: int = 48_000,
    seed: int = 0,
    resume: bool = False,
    max_minutes: float | None = None,
    learning_rate: float = 1.5e-3,
) -> FluxPipeline:
    """Train and save the pipeline to out/pipeline, with a grid of held-out prompts beside each checkpoint.

    vae_folder: what `train_vae` wrote to out/vae. Raises SdgError where it holds none, and as `fit`.
    """
    vae = load_vae(vae_folder)
    open_run(out, resume)  # a run in the way is said before scenes are encoded for minutes
    pipeline = new_pipeline(vae, seed)
    known = _encoded(pipeline, scenes, seed, out)

    def draw(rng: np.random.Generator) -> dict[str, Tensor]:
        batch = known.draw(rng, batch_size)
        unprompted = torch.from_numpy(rng.random(batch_size) < UNPROMPTED)[:, None]
        for name, empty in zip(("clip_ids", "t5_ids"), known.empty, strict=True):
            batch[name] = torch.where(unprompted, empty, batch[name])
        return batch

    model = TextToVelocity(pipeline)
    budget = Budget(
        steps=steps,
        learning_rate=learning_rate,
        warmup=300,
        ema=0.999,
        save_every=500,
        report_every=50,
        max_minutes=max_minutes,
    )
    data = SeededBatches(draw, seed, steps)

    def loss_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return velocity_loss(model, batch, known.grid)

    return _fit(pipeline, model, loss_of, data, out, budget, seed, resume)


def distil_guidance(
    pipeline: FluxPipeline,
    out: Path,
    *,
    scale: float,
    steps: int,
    batch_size: int = 64,
    scenes: int = 16_000,
    seed: int = 0,
    resume: bool = False,
    max_minutes: float | None = None,
    learning_rate: float = 3e-4,
) -> FluxPipeline:
    """Teach a trained pipeline to do without guidance what it does with guidance of `scale`.

    So is FLUX.1-dev made: pictures follow the prompt better, and a step takes one pass. The result is saved
    to out/pipeline; the given pipeline stays as it is. Raises SdgError as `fit`.
    """
    open_run(out, resume)
    known = _encoded(pipeline, scenes, seed, out)
    teacher = TextToVelocity(pipeline).requires_grad_(False).eval()
    student = copy.deepcopy(teacher).requires_grad_(True)
    budget = Budget(
        steps=steps,
        learning_rate=learning_rate,
        warmup=min(50, steps // 4 + 1),
        decay=0.8,
        ema=0.99,
        save_every=100,
        report_every=20,
        max_minutes=max_minutes,
    )
    data = SeededBatches(lambda rng: known.draw(rng, batch_size), seed, steps)

    def loss_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return guided_loss(student, teacher, batch, known.empty, known.grid, scale)

    return _fit(pipeline, student, loss_of, data, out, budget, seed, resume)


@dataclass(frozen=True)
class _Encoded:
    """Scenes as the transformer has them: tokens (N, L, 4C), ids (N, TEXT_LENGTH), those of no prompt."""

    tokens: Tensor
    clip_ids: Tensor
    t5_ids: Tensor
    empty: tuple[Tensor, Tensor]
    grid: Tensor

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        rows = torch.from_numpy(rng.integers(0, len(self.tokens), count))
        return {"tokens": self.tokens[rows], "clip_ids": self.clip_ids[rows], "t5_ids": self.t5_ids[rows]}


def _encoded(pipeline: FluxPipeline, scenes: int, seed: int, out: Path) -> _Encoded:
    tokens, prompts = encode_scenes(pipeline.vae, scenes, seed, out / "latents.safetensors")
    clip_ids, t5_ids = (_tokenize(t, prompts) for t in (pipeline.tokenizer, pipeline.tokenizer_2))
    empty = _tokenize(pipeline.tokenizer, [""])[0], _tokenize(pipeline.tokenizer_2, [""])[0]
    side = int(tokens.shape[1] ** 0.5)
    grid = FluxPipeline._prepare_latent_image_ids(1, side, side, "cpu", torch.float32)
    return _Encoded(tokens, clip_ids, t5_ids, empty, grid)


def _fit(
    pipeline: FluxPipeline,
    model: TextToVelocity,
    loss_of: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    data: SeededBatches,
    out: Path,
    budget: Budget,
    seed: int,
    resume: bool,
) -> FluxPipeline:
    """Train, saving the averaged pipeline and a grid of held-out prompts with each checkpoint."""

    def save(averaged: nn.Module, step: int) -> None:
        assert isinstance(averaged, TextToVelocity)
        finished = _with_weights(pipeline, averaged)
        replace_folder(out / "pipeline", finished.save_pretrained)
        sample_grid(finished).save(out / f"grid-{step:06d}.png")

    averaged = fit(
        model, loss_of, data, out, budget, seed=seed, resume=resume, workers=0, muon=True, on_save=save
    )
    assert isinstance(averaged, TextToVelocity)
    return _with_weights(pipeline, averaged)


def _tokenize(tokenizer: Any, prompts: list[str]) -> Tensor:
    encoded = tokenizer(
        prompts, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
    )
    ids: Tensor = encoded.input_ids
    return ids


def _with_weights(pipeline: FluxPipeline, model: TextToVelocity) -> FluxPipeline:
    components = dict(pipeline.components)
    components |= {"transformer": model.transformer, "text_encoder": model.clip, "text_encoder_2": model.t5}
    return FluxPipeline(**{k: v for k, v in components.items() if v is not None})
