"""Toy-size checkpoints of today's generators, all parts of the real classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from diffusers import (
    AutoencoderDC,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2Model,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

MARKS = ("<|im_start|>", "<|im_end|>")
WORDS = (*toy.WORDS, *MARKS, "\n", "user", "system", "assistant")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Words, signs and line ends are a token each, as much of a template as in Qwen's own tokenizer."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.add_special_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|\w+|[^\w\s]+"), "removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="<end>",
        model_max_length=2048, padding_side="right", chat_template=CHAT,
    )  # fmt: skip


def layers(width: int, count: int) -> dict[str, Any]:
    return {
        "vocab_size": len(WORDS), "hidden_size": width, "intermediate_size": width,
        "num_hidden_layers": count, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": width // 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip


def qwen25_vl() -> Qwen2_5_VLForConditionalGeneration:
    text = layers(16, 2) | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    }
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": 16}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def scheduler(**config: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**config)


def flux2_vae() -> AutoencoderKLFlux2:
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        mid_block_add_attention=False,
    )  # fmt: skip
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    return vae


def flux2_transformer(joint: int, guidance_embeds: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=joint, axes_dims_rope=(4, 4, 4, 4), timestep_guidance_channels=16,
        guidance_embeds=guidance_embeds,
    )  # fmt: skip


def flux2_pipeline() -> Flux2Pipeline:
    torch.manual_seed(0)
    vision = {"model_type": "pixtral", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 16, "patch_size": 8}  # fmt: skip
    config = Mistral3Config(
        text_config={"model_type": "mistral"} | layers(8, 30), vision_config=vision, image_token_index=1
    )
    return Flux2Pipeline(
        scheduler=scheduler(use_dynamic_shifting=True),
        vae=flux2_vae(),
        text_encoder=Mistral3ForConditionalGeneration(config),
        tokenizer=tokenizer(),
        transformer=flux2_transformer(24, guidance_embeds=True),
    )


def flux2_klein_pipeline(is_distilled: bool = False) -> Flux2KleinPipeline:
    torch.manual_seed(0)
    return Flux2KleinPipeline(
        scheduler=scheduler(use_dynamic_shifting=True),
        vae=flux2_vae(),
        text_encoder=Qwen3ForCausalLM(Qwen3Config(**layers(8, 27))),
        tokenizer=tokenizer(),
        transformer=flux2_transformer(24, guidance_embeds=False),
        is_distilled=is_distilled,
    )


def qwen_image_pipeline() -> QwenImagePipeline:
    torch.manual_seed(0)
    return QwenImagePipeline(
        scheduler=scheduler(
            use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
            latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.8, 1.0, 1.2],
        ),
        text_encoder=qwen25_vl(),
        tokenizer=tokenizer(),
        transformer=QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, axes_dims_rope=(4, 6, 6),
        ),
    )  # fmt: skip


def z_image_pipeline() -> ZImagePipeline:
    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[4, 6, 6], axes_lens=[64, 32, 32],
    )  # fmt: skip
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(token)
    return ZImagePipeline(
        scheduler=scheduler(shift=3.0),
        vae=toy.vae(),
        text_encoder=Qwen3Model(Qwen3Config(**layers(16, 2))),
        tokenizer=tokenizer(),
        transformer=transformer,
    )


def sana_pipeline() -> SanaPipeline:
    torch.manual_seed(0)
    vae = AutoencoderDC(
        latent_channels=4, attention_head_dim=4, scaling_factor=0.4,
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        encoder_layers_per_block=(1,) * 4, decoder_layers_per_block=(1,) * 4,
        encoder_qkv_multiscales=((),) * 4, decoder_qkv_multiscales=((),) * 4,
    )  # fmt: skip
    return SanaPipeline(
        tokenizer=tokenizer(),
        text_encoder=Gemma2Model(Gemma2Config(**layers(16, 2))),
        vae=vae,
        transformer=SanaTransformer2DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2,
            num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16,
            caption_channels=16, sample_size=32, qk_norm="rms_norm_across_heads",
        ),
        scheduler=scheduler(shift=3.0),
    )  # fmt: skip


def longcat_image_pipeline() -> LongCatImagePipeline:
    torch.manual_seed(0)
    return LongCatImagePipeline(
        scheduler=scheduler(use_dynamic_shifting=True),
        vae=toy.vae(16),
        text_encoder=qwen25_vl(),
        tokenizer=tokenizer(),
        text_processor=Qwen2VLProcessor(
            Qwen2VLImageProcessor(), tokenizer(), Qwen2VLVideoProcessor(), chat_template=CHAT
        ),
        transformer=LongCatImageTransformer2DModel(
            in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=[4, 6, 6],
        ),
    )  # fmt: skip


PIPELINES: dict[str, Callable[[], Any]] = {
    "flux2": flux2_pipeline,
    "flux2-klein": flux2_klein_pipeline,
    "longcat-image": longcat_image_pipeline,
    "qwen-image": qwen_image_pipeline,
    "sana": sana_pipeline,
    "z-image": z_image_pipeline,
}
SIZES = {"sana": (32, 64)}
"""(height, width) where a pipeline does not draw toy's; not square either."""
TEXT = {"flux2": 96, "flux2-klein": 16, "longcat-image": 512, "qwen-image": 16, "sana": 8, "z-image": 16}
"""`max_sequence_length`: enough for the template and the prompt."""


def shorten_text(patch: pytest.MonkeyPatch) -> None:
    """LongCat-Image's pipeline, whose text has 512 tokens whatever is asked, fills up to 32 alone.

    For what is not about that length: attention over 512 tokens is most of a toy's time.
    """
    length = property(lambda pipeline: 32, lambda pipeline, value: None)
    patch.setattr(LongCatImagePipeline, "tokenizer_max_length", length, raising=False)
    patch.setitem(TEXT, "longcat-image", 32)


def save(folder: Path) -> None:
    """All of them, each in a folder named as its family."""
    for family, pipeline in PIPELINES.items():
        pipeline().save_pretrained(folder / family)
