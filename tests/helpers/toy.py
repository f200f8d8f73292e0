"""Toy-size checkpoints of the real classes, and scripted scorers and detectors for recipes to name."""

from __future__ import annotations

import os
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from sdg import Defect, Diagnosis, Status

PROMPTS = [
    f"a {colour} {shape}" for colour, shape in product(("red", "blue", "green"), ("cup", "hat", "dog", "car"))
]
WORDS = ("<pad>", "<unk>", "<end>", "a", "red", "blue", "green", "cup", "hat", "dog", "car")
TEXT = 8
HEIGHT, WIDTH = 16, 24  # not square, so that swapped axes cannot pass


def tokenizer() -> PreTrainedTokenizerFast:
    words = {word: i for i, word in enumerate(WORDS)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="<end>", model_max_length=TEXT
    )


def clip_text_config(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(WORDS), hidden_size=width, intermediate_size=width, projection_dim=width,
        num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=TEXT,
        bos_token_id=0, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip


def t5(width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(WORDS),
            d_model=width,
            d_kv=8,
            d_ff=width,
            num_layers=1,
            num_heads=2,
            dropout_rate=0.0,
        )
    )


def vae(channels: int = 4) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=channels, norm_num_groups=4,
        scaling_factor=0.5, shift_factor=0.1, mid_block_add_attention=False,
    )  # fmt: skip


def flux_pipeline(guidance_embeds: bool = True) -> FluxPipeline:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=16,
        guidance_embeds=guidance_embeds, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15),
        vae=vae(),
        text_encoder=CLIPTextModel(clip_text_config(16)),
        tokenizer=tokenizer(),
        text_encoder_2=t5(32),
        tokenizer_2=tokenizer(),
        transformer=transformer,
    )


def sd3_pipeline(channels: int = 4) -> StableDiffusion3Pipeline:
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=channels, out_channels=channels, num_layers=2,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=64, caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=16, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(channels),
        text_encoder=CLIPTextModelWithProjection(clip_text_config(16)),
        tokenizer=tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_text_config(16)),
        tokenizer_2=tokenizer(),
        text_encoder_3=t5(64),
        tokenizer_3=tokenizer(),
    )


def save_clip(folder: Path) -> None:
    torch.manual_seed(1)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    model = CLIPModel(
        CLIPConfig(text_config=clip_text_config(16).to_dict(), vision_config=vision, projection_dim=16)
    )
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    CLIPImageProcessor(
        size={"height": 16, "width": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder)


def _grey(picture: Image.Image) -> Any:
    return np.asarray(picture.convert("L"), dtype=float) / 255


def darkness(pictures: list[Image.Image], prompts: list[str]) -> list[float | None]:
    """A smooth scalar score: how dark a picture is."""
    return [1 - float(_grey(picture).mean()) for picture in pictures]


def detect(picture: Image.Image, prompt: str) -> Diagnosis:
    """Each quadrant brighter than the whole picture is a defect, the more important the brighter."""
    grey = _grey(picture)
    height, width = grey.shape
    defects = []
    for row, column in product((0, 1), repeat=2):
        part = grey[row * height // 2 :, column * width // 2 :][: height // 2, : width // 2]
        if part.mean() > grey.mean():
            box = (500 * column, 500 * row, 500 * column + 500, 500 * row + 500)
            kind = "artifact" if row == column else "misalignment"
            defects.append(
                Defect(box, kind, "It is too bright here.", max(1, round(99 * float(part.mean()))))
            )
    return Diagnosis(tuple(defects))


_CALLS = count()


def detect_or_fail(picture: Image.Image, prompt: str, percent: int = 30) -> Diagnosis:
    """As `detect`, but the given share of calls gets no response."""
    failed = next(_CALLS) * 37 % 100 < percent
    return Diagnosis(status=Status.FAILED) if failed else detect(picture, prompt)


def dark_or_missing(pictures: list[Image.Image], prompts: list[str]) -> list[float | None]:
    """Only what was asked in green cannot be scored: unequal counts on two processes."""
    scores = darkness(pictures, prompts)
    return [
        None if "green" in prompt or "dog" in prompt else s for s, prompt in zip(scores, prompts, strict=True)
    ]


def checkpoint_folder() -> str:
    """A model's folder that a recipe names through a function."""
    return os.environ["TOY_CHECKPOINT"]


RECIPES = Path(__file__).parents[2] / "recipes" / "align"


def small(checkpoints: Path, family: str = "flux", **changes: Any) -> list[str]:
    """--set options that bring a recipe down to paths, sizes and step counts of the toy world."""
    values: dict[str, Any] = {
        "policy.model": checkpoints / family,
        "policy.height": HEIGHT,
        "policy.width": WIDTH,
        "policy.max_sequence_length": TEXT,
        "policy.text_cache": "null",
        "policy.dtype": "float32",
        "precision": "fp32",
        "prompts.train": checkpoints / "train.txt",
        "prompts.held_out": checkpoints / "held-out.txt",
        "sampling.steps": 5,
        "sampling.batch_size": 4,
        "groups.prompts": 4,
        "groups.size": 4,
        "reward.scorers": "[{name: dark, uri: 'python:toy.darkness'}]",
        "reward.detector": "python:toy.detect",
        "optimizer.steps": 4,
        "optimizer.learning_rate": 1e-2,
        "monitor.scorers": f"[{{name: clip, uri: 'clip:{checkpoints / 'clip'}'}}]",
        "monitor.judges": "[{name: judge, uri: 'python:toy.detect'}]",
        "monitor.best": "judge/defects",
        "monitor.goal": "min",
        "monitor.patience": "null",
        "monitor.every": 1,
        "monitor.prompts": 3,
        "monitor.steps": 3,
        "run.pictures_every": 0,
        "run.save_every": 1,
    }
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
