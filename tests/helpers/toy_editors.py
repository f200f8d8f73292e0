"""Toy-size pipelines of the real editing classes of diffusers, untrained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import toy
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinInpaintPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxKontextInpaintPipeline,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    LongCatImageEditPipeline,
    LongCatImageTransformer2DModel,
    QwenImageEditInpaintPipeline,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImageImg2ImgPipeline,
    QwenImageInpaintPipeline,
    QwenImageTransformer2DModel,
    SanaSprintImg2ImgPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    UNet2DConditionModel,
    ZImageImg2ImgPipeline,
    ZImageInpaintPipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
)

MARKS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
         "[IMG]", "[IMG_BREAK]", "[IMG_END]")  # fmt: skip
CHAT = "{% for m in messages %}{{ m['role'] }} {% if m['content'] is string %}{{ m['content'] }}" \
       "{% else %}{% for part in m['content'] %}{{ part.get('text', '[IMG]') }} {% endfor %}{% endif %}" \
       "{% endfor %}"  # fmt: skip
WIDTH = 32  # of text encoders


def tokenizer(most: int = 512) -> PreTrainedTokenizerFast:
    """Words of the toy world; whatever else is one unknown word each."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(toy.WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="<end>", model_max_length=most
    )
    made.add_special_tokens({"additional_special_tokens": list(MARKS)})
    made.chat_template = CHAT
    return made


def shifting() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)


def coarse_vae(blocks: int = 6) -> AutoencoderKL:
    """An autoencoder whose latents are so coarse that a picture of a megapixel is few tokens."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks, up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(4,) * blocks, layers_per_block=1, latent_channels=4, norm_num_groups=2,
        scaling_factor=0.5, shift_factor=0.1, mid_block_add_attention=False,
    )  # fmt: skip


def flux(kind: type, **changes: Any) -> Any:
    """FLUX.1 as `kind`, with a text encoder that reads whole instructions."""
    parts = toy.flux_pipeline().components
    parts = {name: part for name, part in parts.items() if part is not None} | changes
    return kind(**parts)


def fill() -> FluxFillPipeline:
    """FLUX.1 Fill: its transformer reads latents, the masked picture's, and the mask's pixels."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16 + 16 + 16, out_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=16, guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return flux(FluxFillPipeline, transformer=transformer)


def kontext(kind: type = FluxKontextPipeline) -> Any:
    torch.manual_seed(0)
    return flux(kind, vae=coarse_vae(), tokenizer_2=tokenizer(64))


def flux2_parts() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "scheduler": shifting(),
        "vae": AutoencoderKLFlux2(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4,
            mid_block_add_attention=False,
        ),
        "transformer": Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=3 * WIDTH, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4),
        ),
    }  # fmt: skip


def klein(kind: type = Flux2KleinPipeline) -> Any:
    parts, words = flux2_parts(), tokenizer()
    config = Qwen3Config(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=27,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    return kind(**parts, text_encoder=Qwen3ForCausalLM(config), tokenizer=words, is_distilled=False)


def flux2() -> Flux2Pipeline:
    parts, words = flux2_parts(), tokenizer()
    text = {"model_type": "mistral", "vocab_size": len(words), "hidden_size": WIDTH, "num_hidden_layers": 30,
            "intermediate_size": WIDTH, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 16}  # fmt: skip
    vision = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 16, "patch_size": 8}  # fmt: skip
    config = Mistral3Config(
        text_config=text, vision_config=vision, image_token_index=words.convert_tokens_to_ids("[IMG]")
    )
    processor = PixtralProcessor(PixtralImageProcessor(), words, patch_size=8, chat_template=CHAT)
    return Flux2Pipeline(**parts, text_encoder=Mistral3ForConditionalGeneration(config), tokenizer=processor)


def qwen_text() -> dict[str, Any]:
    """The text encoder of Qwen-Image and LongCat-Image, with its tokenizer and processor."""
    torch.manual_seed(0)
    words = tokenizer()
    ids = words.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(words), "hidden_size": WIDTH, "intermediate_size": WIDTH,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": 8,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": WIDTH, "window_size": 32,
            "fullatt_block_indexes": [0],
        },
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    limits = {"patch_size": 8, "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(**limits), words, Qwen2VLVideoProcessor(**limits), chat_template=CHAT
    )
    encoder = Qwen2_5_VLForConditionalGeneration(config)
    return {"text_encoder": encoder, "tokenizer": words, "processor": processor}


def qwen(kind: type) -> Any:
    """Qwen-Image as `kind`."""
    parts = qwen_text()
    if kind in (QwenImageInpaintPipeline, QwenImageImg2ImgPipeline):
        del parts["processor"]
    vae = AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    transformer = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    pipeline = kind(scheduler=shifting(), vae=vae, transformer=transformer, **parts)
    if "processor" not in parts:
        pipeline.prompt_template_encode_start_idx = 4  # a toy's template has fewer tokens
    return pipeline


def longcat() -> LongCatImageEditPipeline:
    parts = qwen_text()
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4,) * 4, layers_per_block=1, latent_channels=16, norm_num_groups=2,
        scaling_factor=0.5, shift_factor=0.1, mid_block_add_attention=False,
    )  # fmt: skip
    transformer = LongCatImageTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=[4, 6, 6],
    )  # fmt: skip
    return LongCatImageEditPipeline(
        scheduler=shifting(), vae=vae, text_encoder=parts["text_encoder"], tokenizer=parts["tokenizer"],
        text_processor=parts["processor"], transformer=transformer,
    )  # fmt: skip


def sana() -> SanaSprintImg2ImgPipeline:
    torch.manual_seed(0)
    words = tokenizer(300)
    blocks = {"block_types": "ResBlock", "block_out_channels": (8,) * 6, "layers_per_block": (1,) * 6,
              "qkv_multiscales": ((),) * 6}  # fmt: skip
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in blocks.items()}
    config = Gemma2Config(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    transformer = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16,
        caption_channels=WIDTH, sample_size=32, guidance_embeds=True, qk_norm="rms_norm_across_heads",
    )  # fmt: skip
    return SanaSprintImg2ImgPipeline(
        tokenizer=words, text_encoder=Gemma2Model(config), transformer=transformer, scheduler=SCMScheduler(),
        vae=AutoencoderDC(latent_channels=4, **sides),
    )  # fmt: skip


def sdxl() -> StableDiffusionXLInpaintPipeline:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), block_out_channels=(8, 16), norm_num_groups=4,
        layers_per_block=1, cross_attention_dim=32, attention_head_dim=(1, 2), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )  # fmt: skip
    return StableDiffusionXLInpaintPipeline(
        vae=coarse_vae(4), unet=unet, scheduler=EulerDiscreteScheduler(), tokenizer=toy.tokenizer(),
        tokenizer_2=toy.tokenizer(), text_encoder=CLIPTextModel(toy.clip_text_config(16)),
        text_encoder_2=CLIPTextModelWithProjection(toy.clip_text_config(16)),
    )  # fmt: skip


def sd(kind: type = StableDiffusionInpaintPipeline) -> Any:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), block_out_channels=(8, 16), norm_num_groups=4,
        layers_per_block=1, cross_attention_dim=16, attention_head_dim=2,
    )  # fmt: skip
    return kind(
        vae=coarse_vae(4), unet=unet, scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        tokenizer=toy.tokenizer(),
        text_encoder=CLIPTextModel(toy.clip_text_config(16)), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def z_image(kind: type) -> Any:
    torch.manual_seed(0)
    words = tokenizer()
    config = Qwen3Config(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
        axes_dims=[4, 6, 6], axes_lens=[1024, 64, 64],
    )  # fmt: skip
    return kind(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=toy.vae(), transformer=transformer,
        text_encoder=Qwen3ForCausalLM(config), tokenizer=words,
    )  # fmt: skip


MADE: dict[str, Callable[[], Any]] = {
    "FluxInpaintPipeline": lambda: flux(FluxInpaintPipeline),
    "FluxImg2ImgPipeline": lambda: flux(FluxImg2ImgPipeline),
    "FluxFillPipeline": fill,
    "FluxKontextPipeline": kontext,
    "FluxKontextInpaintPipeline": lambda: kontext(FluxKontextInpaintPipeline),
    "Flux2Pipeline": flux2,
    "Flux2KleinPipeline": klein,
    "Flux2KleinInpaintPipeline": lambda: klein(Flux2KleinInpaintPipeline),
    "QwenImageInpaintPipeline": lambda: qwen(QwenImageInpaintPipeline),
    "QwenImageImg2ImgPipeline": lambda: qwen(QwenImageImg2ImgPipeline),
    "QwenImageEditPipeline": lambda: qwen(QwenImageEditPipeline),
    "QwenImageEditPlusPipeline": lambda: qwen(QwenImageEditPlusPipeline),
    "QwenImageEditInpaintPipeline": lambda: qwen(QwenImageEditInpaintPipeline),
    "LongCatImageEditPipeline": longcat,
    "SanaSprintImg2ImgPipeline": sana,
    "ZImageInpaintPipeline": lambda: z_image(ZImageInpaintPipeline),
    "ZImageImg2ImgPipeline": lambda: z_image(ZImageImg2ImgPipeline),
    "StableDiffusion3InpaintPipeline": lambda: StableDiffusion3InpaintPipeline.from_pipe(
        toy.sd3_pipeline(16)
    ),
    "StableDiffusion3Img2ImgPipeline": lambda: StableDiffusion3Img2ImgPipeline.from_pipe(
        toy.sd3_pipeline(16)
    ),
    "StableDiffusionXLInpaintPipeline": sdxl,
    "StableDiffusionXLImg2ImgPipeline": lambda: StableDiffusionXLImg2ImgPipeline.from_pipe(sdxl()),
    "StableDiffusionInpaintPipeline": sd,
    "StableDiffusionImg2ImgPipeline": lambda: sd(StableDiffusionImg2ImgPipeline),
}
"""Class -> what builds a toy of it."""
