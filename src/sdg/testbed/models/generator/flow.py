"""Train the generator from scratch by rectified flow on clean scenes (`sdg testbed train-generator`).

x_σ = (1−σ)·x + σ·ε, and the transformer learns the velocity ε − x; text encoders learn along with it.
Afterwards it can learn to do in one pass what classifier-free guidance does in two (`distil-generator`).
"""

from __future__ import annotations

import copy
import hashlib
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline, attention_backend
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdg.errors import SdgError, first_line
from sdg.io.files import replace_folder
from sdg.models.device import cpu_autocast, cpu_autocast_dtype
from sdg.testbed.models.generator.cells import CellHead, cell_loss, cell_targets
from sdg.testbed.models.generator.pipeline import new_pipeline, tokenize
from sdg.testbed.models.generator.sampling import sample_grid
from sdg.testbed.models.generator.vae import load_vae, to_tensor
from sdg.testbed.models.loop import Hyperparameters, LossOf, Run, SeededBatches, fit, require_no_run
from sdg.testbed.world.layout import sample_scene
from sdg.testbed.world.renderer import render
from sdg.testbed.world.scene import Scene

CHUNK: Final = 64
"""Scenes that are drawn from one random generator and encoded at once."""
KEPT_EVERY: Final = 64
"""Chunks after which encoded scenes are written to the cache."""
CELL_WEIGHT: Final = 0.05
"""Weight of what cells show against the velocity's error."""
LEVEL_MEAN: Final = 1.2
"""Mean logit of training's noise levels. Half of them lie in .63 to .87, and defects arise in .55 to .9
(`benchmarks/generator_levels.py`)."""
UNPROMPTED: Final = 0.08
"""Share of training pictures whose prompt is left out, for classifier-free guidance."""


class TextToVelocity(nn.Module):
    """What is trained: the transformer and both text encoders of a pipeline, in one module.

    cells: with a head that tells from the tokens in the middle of the transformer what each cell will show.
    """

    def __init__(self, pipeline: FluxPipeline, *, cells: bool = False) -> None:
        super().__init__()
        self.cells = CellHead(pipeline.transformer.inner_dim) if cells else None
        self.transformer, self.clip, self.t5 = (
            pipeline.transformer,
            pipeline.text_encoder,
            pipeline.text_encoder_2,
        )

    def forward(
        self, tokens: Tensor, sigma: Tensor, clip_ids: Tensor, t5_ids: Tensor, grid: Tensor
    ) -> Tensor:
        """Velocity of packed latents (B, L, C) at noise levels (B,); ids (B, TEXT_LENGTH), grid (L, 3)."""
        with _plain_attention():
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

    @property
    def middle(self) -> nn.Module:
        """The block whose image tokens the head for cells sees."""
        blocks = self.transformer.single_transformer_blocks
        return blocks[len(blocks) // 3]

    def compile_blocks(self) -> None:
        """Compile the transformer's blocks, all but `middle`: what it passes on is looked at from outside."""
        blocks = [*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks]
        for block in blocks:
            if block is not self.middle:
                # The pattern matcher would put the fused attention back in.
                block.compile(options={"pattern_matcher": False})

    def velocity_and_cells(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` returns, and what the head tells of each cell (B, L, …)."""
        assert self.cells is not None
        seen: list[Tensor] = []
        own = threading.get_ident()

        def look(module: nn.Module, args: tuple[Tensor, ...], out: tuple[Tensor, Tensor]) -> None:
            if threading.get_ident() == own:  # a step's batches are worked on side by side
                seen.append(out[1])

        with self.middle.register_forward_hook(look):
            velocity = self(*given)
        return velocity, self.cells(seen[0])


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as products in bfloat16, where the CPU has units for it; the settings of torch are put back.

    The backward pass of the CPU's fused attention is slow in bfloat16: plain products take half the time,
    unless they are done in float32 after all. Both settings are the process's.
    """
    if cpu_autocast_dtype() is not torch.bfloat16:
        yield
        return
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with attention_backend("_native_math"):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


def pack(latents: Tensor) -> Tensor:
    """(B, C, H, W) latents to (B, H/2·W/2, 4C) tokens, as FLUX packs them."""
    return FluxPipeline._pack_latents(latents, *latents.shape)


def encode_scenes(
    vae: AutoencoderKL, count: int, seed: int, cache: Path
) -> tuple[Tensor, list[str], list[Scene]]:
    """Latents (count, L, 4C) in half precision, prompts and contents of training scenes.

    The latents are kept in `cache`. One that holds fewer, because it was made for fewer or was interrupted,
    is continued: scene i is the same whatever the count. One of another seed or autoencoder is made anew.
    """
    scenes: list[Scene] = []
    prompts: list[str] = []
    for chunk in range(math.ceil(count / CHUNK)):
        rng = np.random.default_rng((seed, 77, chunk))
        for _ in range(CHUNK):
            _, prompt, scene = sample_scene(rng, split="train")
            prompts.append(prompt)
            scenes.append(scene)
    made = {"made": _origin(vae, seed)}
    parts = [load_file(cache)["tokens"]] if cache.exists() and _notes(cache) in (None, made) else []
    done = len(parts[0]) if parts else 0
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor
    for start in track(range(done, len(scenes), CHUNK), description="encoding scenes", disable=done >= count):
        pictures = to_tensor(np.stack([render(scene) for scene in scenes[start : start + CHUNK]]))
        with torch.no_grad(), cpu_autocast():
            latents = vae.encode(pictures.to(memory_format=torch.channels_last)).latent_dist.mean
        parts.append(pack((latents.float() - shift) * scale).half())
        if len(parts) > KEPT_EVERY or start + CHUNK >= len(scenes):
            parts = [torch.cat(parts)]
            fresh = cache.with_name(f".{cache.name}.writing")
            save_file({"tokens": parts[0]}, fresh, made)
            fresh.replace(cache)
    return parts[0][:count], prompts[:count], scenes[:count]


def _origin(vae: AutoencoderKL, seed: int) -> str:
    """What tells latents of a seed and an autoencoder from others."""
    digest = hashlib.sha256(repr((seed, vae.config.scaling_factor, vae.config.shift_factor)).encode())
    for weight in vae.state_dict().values():
        digest.update(weight.float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _notes(cache: Path) -> dict[str, str] | None:
    with safe_open(cache, "pt") as file:
        notes: dict[str, str] | None = file.metadata()
        return notes


def velocity_loss(model: TextToVelocity, batch: dict[str, Tensor], grid: Tensor) -> dict[str, Tensor]:
    """Mean squared error of the velocity at the batch's noise levels, weighted by `level_weight`.

    A model with a head for cells learns what they show as well, where the batch has it: part `cells`.
    """
    clean, noisy = _noised(batch)
    given = noisy, batch["sigma"], batch["clip_ids"], batch["t5_ids"], grid
    with cpu_autocast():
        if getattr(model, "cells", None) is None:
            velocity, told = model(*given), None
        else:
            velocity, told = model.velocity_and_cells(*given)
    errors = (velocity.float() - (batch["noise"] - clean)).square().mean((1, 2))
    error = (errors * level_weight(batch["sigma"])).mean()
    if told is None:
        return {"loss": error}
    cells = cell_loss(told, batch)
    return {"loss": error + CELL_WEIGHT * cells, "velocity": error, "cells": cells}


_ERRORS: Final = (
    (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1),
    (0.6, 0.32, 0.14, 0.057, 0.038, 0.035, 0.04, 0.057, 0.11, 0.21, 0.36, 0.47, 0.8),
)
"""Noise levels, and the mean squared error of a trained generator's velocity there."""


def level_weight(sigma: Tensor) -> Tensor:
    """Weights of pictures at noise levels (B,): 1/√(the usual error there), 1 at a level of .7.

    What cannot be known, the layout at high levels and the noise at low ones, is most of the error there, and
    would drown what can be learned between them.
    """
    usual = np.interp(sigma.numpy(), *_ERRORS)
    return torch.from_numpy(np.sqrt(0.11 / usual)).float()


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
    sigma, noisy = batch["sigma"], _noised(batch)[1]
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


def _noised(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    # Clean tokens, and what they are at the batch's noise levels.
    clean, level = batch["tokens"].float(), batch["sigma"][:, None, None]
    return clean, (1 - level) * clean + level * batch["noise"]


def random_noise(rng: np.random.Generator, count: int, tokens: int, width: int) -> dict[str, Tensor]:
    """`noise` (count, tokens, width) and its logit-normal levels `sigma` (count,), around `LEVEL_MEAN`.

    Each of `count` equally likely parts of the levels has one picture: that gives a batch's gradient less
    variance.
    """
    quantile = torch.from_numpy((rng.permutation(count) + rng.random(count)) / count).float()
    sigma = torch.sigmoid(torch.special.ndtri(quantile.clamp(1e-4, 1 - 1e-4)) + LEVEL_MEAN)
    noise = torch.from_numpy(rng.standard_normal((count, tokens, width), np.float32))
    return {"noise": noise, "sigma": sigma}


def train_generator(
    vae_folder: Path,
    run: Run,
    *,
    batch_size: int = 64,
    scenes: int = 48_000,
    learning_rate: float = 1.5e-3,
    decay: float = 0.5,
    start_from: FluxPipeline | None = None,
    compiled: bool = False,
) -> FluxPipeline:
    """Train and save the pipeline to run.out/pipeline, with a grid of held-out prompts a checkpoint.

    vae_folder: what `train_vae` wrote to its out/vae. decay: share of the steps, at the end, over which the
    learning rate falls; a resumed run may change it, and the steps. start_from: pipeline of the same shape
    whose transformer and text encoders are trained further. compiled: compile the transformer's blocks first,
    which takes a minute and a C++ compiler. Raises SdgError where there is no autoencoder, and as `fit`.
    """
    vae = load_vae(vae_folder)
    require_no_run(run)  # a run in the way is said before scenes are encoded for minutes
    pipeline = new_pipeline(vae, run.seed) if start_from is None else _trainable(start_from, vae, run.seed)
    known = _encoded(pipeline, scenes, run)
    shards = 1 if compiled else _shards(batch_size)

    def draw(rng: np.random.Generator) -> dict[str, Tensor]:
        batch = known.draw(rng, batch_size // shards)
        unprompted = torch.from_numpy(rng.random(batch_size // shards) < UNPROMPTED)[:, None]
        for name, empty in zip(("clip_ids", "t5_ids"), known.empty, strict=True):
            batch[name] = torch.where(unprompted, empty, batch[name])
        return batch

    model = TextToVelocity(pipeline, cells=True)
    if compiled:
        model.compile_blocks()
    memory = max(1.0, min(1000.0, 0.1 * decay * run.steps))  # of the average: it must not lag behind the fall
    settings = Hyperparameters(
        learning_rate, warmup=300, decay=decay, ema=1 - 1 / memory, shards=shards, muon=True
    )
    return _fit(pipeline, model, partial(velocity_loss, model, grid=known.grid), draw, run, settings)


def distil_guidance(
    pipeline: FluxPipeline,
    run: Run,
    *,
    scale: float,
    batch_size: int = 64,
    scenes: int = 16_000,
    learning_rate: float = 3e-4,
) -> FluxPipeline:
    """Teach a trained pipeline to do without guidance what it does with guidance of `scale`.

    So is FLUX.1-dev made: pictures follow the prompt better, and a step takes one pass. The result is saved
    to run.out/pipeline; the given pipeline stays as it is. Raises SdgError as `fit`.
    """
    require_no_run(run)
    known = _encoded(pipeline, scenes, run)
    teacher = TextToVelocity(pipeline).requires_grad_(False).eval()
    student = copy.deepcopy(teacher).requires_grad_(True)
    shards = _shards(batch_size)
    settings = Hyperparameters(
        learning_rate,
        warmup=min(50, run.steps // 4 + 1),
        decay=0.8,
        ema=0.99,
        save_every=100,
        report_every=20,
        shards=shards,
        muon=True,
    )

    def loss_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return guided_loss(student, teacher, batch, known.empty, known.grid, scale)

    draw = partial(known.draw, count=batch_size // shards)
    return _fit(pipeline, student, loss_of, draw, run, settings)


def _shards(batch_size: int) -> int:
    # Two halves of a batch, a thread each, take a sixth less time than two threads that share every
    # operation. In bfloat16 `_plain_attention` changes settings of the process, not of a thread.
    by_side = cpu_autocast_dtype() is not torch.bfloat16 and torch.get_num_threads() > 1
    return 2 if by_side and batch_size % 2 == 0 else 1


@dataclass(frozen=True)
class _Encoded:
    """Scenes as the transformer has them, by name, and what a batch needs besides.

    tokens (N, L, 4C), clip_ids and t5_ids (N, TEXT_LENGTH), and `cell_targets`; empty: ids of no prompt.
    """

    scenes: dict[str, Tensor]
    empty: tuple[Tensor, Tensor]
    grid: Tensor

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        """Scenes at random with noise and its levels, so that the loss itself draws no random numbers."""
        rows = torch.from_numpy(rng.integers(0, len(self.scenes["tokens"]), count))
        batch = {name: values[rows] for name, values in self.scenes.items()}
        return batch | random_noise(rng, *batch["tokens"].shape)


def _encoded(pipeline: FluxPipeline, count: int, run: Run) -> _Encoded:
    cache = run.out / "latents.safetensors"
    tokens, prompts, scenes = encode_scenes(pipeline.vae, count, run.seed, cache)
    tokenizers = pipeline.tokenizer, pipeline.tokenizer_2
    clip_ids, t5_ids = (tokenize(tokenizer, prompts) for tokenizer in tokenizers)
    side = int(tokens.shape[1] ** 0.5)
    return _Encoded(
        {"tokens": tokens, "clip_ids": clip_ids, "t5_ids": t5_ids, **cell_targets(scenes)},
        empty=(tokenize(tokenizers[0], [""])[0], tokenize(tokenizers[1], [""])[0]),
        grid=FluxPipeline._prepare_latent_image_ids(1, side, side, "cpu", torch.float32),
    )


def _trainable(pipeline: FluxPipeline, vae: AutoencoderKL, seed: int) -> FluxPipeline:
    """The weights of a trained pipeline in a new one around the autoencoder.

    Embedders and modulation that never left zero together would never be reached by a gradient: such
    embedders begin anew.
    """
    fresh = new_pipeline(vae, seed)
    for name in ("transformer", "text_encoder", "text_encoder_2"):
        known = dict(getattr(pipeline, name).state_dict())
        for key, value in known.items():
            if "embed" in key and not value.any():
                known[key] = getattr(fresh, name).state_dict()[key]
        try:
            getattr(fresh, name).load_state_dict(known)
        except RuntimeError as error:
            raise SdgError(f"The {name} to start from is of another shape: {first_line(error)}.") from error
    return fresh


def _fit(
    pipeline: FluxPipeline,
    model: TextToVelocity,
    loss_of: LossOf,
    draw: Callable[[np.random.Generator], dict[str, Tensor]],
    run: Run,
    settings: Hyperparameters,
) -> FluxPipeline:
    """Train, saving the averaged pipeline and a grid of held-out prompts with each checkpoint."""

    def save(averaged: TextToVelocity, step: int) -> None:
        finished = _with_weights(pipeline, averaged)
        replace_folder(run.out / "pipeline", finished.save_pretrained)
        sample_grid(finished).save(run.out / f"grid-{step:06d}.png")

    data = SeededBatches(draw, run.seed)
    averaged = fit(model, loss_of, data, run, settings, workers=0, on_save=save)
    return _with_weights(pipeline, averaged)


def _with_weights(pipeline: FluxPipeline, model: TextToVelocity) -> FluxPipeline:
    components = dict(pipeline.components)
    components |= {"transformer": model.transformer, "text_encoder": model.clip, "text_encoder_2": model.t5}
    return FluxPipeline(**{k: v for k, v in components.items() if v is not None})
