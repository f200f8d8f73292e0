"""An untrained FluxPipeline of the testbed's size: FLUX's own classes, 7.8M parameters in all."""

from __future__ import annotations

from typing import Any, Final

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from sdg.testbed.world.prompts import prompt_vocabulary

TEXT_LENGTH: Final = 24
"""Longest prompt in tokens; a core prompt has at most 22 words and marks."""
_SPECIAL: Final = ("<pad>", "<unk>", "<start>", "<end>")


def new_tokenizer(start: bool) -> PreTrainedTokenizerFast:
    """Word-level tokenizer of the prompt grammar; `start` adds <start> before the words (CLIP's slot)."""
    words = [*_SPECIAL, *prompt_vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>" if start else "$A <end>",
        special_tokens=[(mark, words.index(mark)) for mark in ("<start>", "<end>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<start>" if start else None,
        eos_token="<end>",
        model_max_length=TEXT_LENGTH,
    )


def tokenize(tokenizer: Any, prompts: list[str]) -> Tensor:
    """Prompts to ids (N, TEXT_LENGTH)."""
    ids: Tensor = tokenizer(
        prompts, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def new_pipeline(vae: AutoencoderKL, seed: int = 0) -> FluxPipeline:
    """A pipeline around a trained autoencoder; transformer and text encoders are untrained."""
    torch.manual_seed(seed)
    clip_tokenizer, t5_tokenizer = new_tokenizer(start=True), new_tokenizer(start=False)
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_tokenizer),
            hidden_size=128,
            intermediate_size=256,
            projection_dim=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=clip_tokenizer.bos_token_id,
            eos_token_id=clip_tokenizer.eos_token_id,
            pad_token_id=clip_tokenizer.pad_token_id,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer),
            d_model=128,
            d_kv=32,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=24,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=t5_tokenizer.pad_token_id,
            eos_token_id=t5_tokenizer.eos_token_id,
        )
    )
    transformer = FluxTransformer2DModel(
        in_channels=4 * vae.config.latent_channels,
        num_layers=2,
        num_single_layers=5,
        attention_head_dim=64,
        num_attention_heads=3,
        joint_attention_dim=128,
        pooled_projection_dim=128,
        guidance_embeds=False,
        axes_dims_rope=(8, 28, 28),
    )
    _start_as_identity(transformer)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
    return FluxPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
    )


def _start_as_identity(transformer: FluxTransformer2DModel) -> None:
    # Zero modulation and output (adaLN-Zero): each block begins as the identity, which trains faster. What
    # modulation is made from, noise level and pooled text, does not: no gradient would ever reach the two.
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and (name == "proj_out" or name.endswith(".linear")):
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
