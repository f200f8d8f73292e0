"""GPU memory of aligning FLUX.1-dev by boxflow-flux1-dev.yaml, by part, worked out on the meta device.

Run: python benchmarks/alignment_memory.py [BATCH_SIZE]
The models are built at their real size, without weights. Activations and decoding are the most bytes alive at
once in one forward and backward pass of the transformer, and in one decoding of the autoencoder, in bf16.
What kernels use beside their outputs is left out, and so is CUDA itself (about 1 GB).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from peft import LoraConfig
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from sdg.alignment.policies.known import known_models
from sdg.alignment.recipe import AlignRecipe
from sdg.models.lora import lora_parameters
from sdg.models.meta import Peak
from sdg.recipes import load_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "align" / "boxflow-flux1-dev.yaml"
GB = 1e9
BF16, FP32 = 2, 4
ADAPTER = {"weights": 4, "gradients": 4, "Adam's moments": 8, "average": 4, "buckets": 4}
"""Bytes a parameter of the adapter, all in fp32; buckets are those in which processes add up gradients."""


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _layers(width: int, layers: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
    }


def models() -> dict[str, Any]:
    """FLUX.1-dev's parts and the monitor's scorers, at real size on the meta device."""
    base = {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    vit_l = _layers(1024, 24)
    vit_h, text_h = _layers(1280, 32), _layers(1024, 24)
    t5 = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    with torch.device("meta"):
        return {
            "transformer": known_models()["black-forest-labs/FLUX.1-dev"].on_meta().to(torch.bfloat16),
            "vae": AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16,
                use_quant_conv=False, use_post_quant_conv=False,
            ).to(torch.bfloat16),
            "T5": T5EncoderModel(T5Config(**t5, feed_forward_proj="gated-gelu")),
            "CLIP": CLIPTextModel(CLIPTextConfig(**base, num_hidden_layers=12)),
            "PickScore": CLIPModel(
                CLIPConfig(text_config=text_h, vision_config={**vit_h, "patch_size": 14}, projection_dim=1024)
            ),
            "CLIPScore": CLIPModel(
                CLIPConfig(text_config=base, vision_config={**vit_l, "patch_size": 14}, projection_dim=768)
            ),
        }  # fmt: skip


def activations(transformer: Any, recipe: AlignRecipe, batch: int) -> int:
    """Bytes of one pass forward and backward, gradients of the adapter left out."""
    policy = recipe.policy
    tokens = policy.height * policy.width // 16**2
    transformer.enable_gradient_checkpointing()
    transformer.train()

    def made(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta", dtype=torch.bfloat16)

    inputs = {
        "hidden_states": made(batch, tokens, 64),
        "encoder_hidden_states": made(batch, policy.max_sequence_length, 4096),
        "pooled_projections": made(batch, 768),
        "timestep": made(batch),
        "guidance": made(batch),
        "img_ids": made(tokens, 3),
        "txt_ids": made(policy.max_sequence_length, 3),
    }
    with Peak() as alive:
        transformer(**inputs, return_dict=False)[0].sum().backward()
    return alive.most - BF16 * sum(p.numel() for p in lora_parameters(transformer).values())


def decoding(vae: Any, recipe: AlignRecipe, batch: int) -> int:
    """Bytes of decoding a batch."""
    height, width = recipe.policy.height // 8, recipe.policy.width // 8
    with torch.no_grad(), Peak() as alive:
        vae.decode(torch.empty(batch, 16, height, width, device="meta", dtype=torch.bfloat16))
    return alive.most


def parts(recipe: AlignRecipe, batch: int) -> dict[str, float]:
    """Part -> GB on each GPU."""
    built = models()
    transformer = built["transformer"]
    frozen = BF16 * size(transformer)
    lora = recipe.policy.lora
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=list(lora.targets)))
    for parameter in lora_parameters(transformer).values():  # as autocast computes with it
        parameter.data = parameter.data.to(torch.bfloat16)
    adapter = sum(parameter.numel() for parameter in lora_parameters(transformer).values())
    print(f"The adapter has {adapter / 1e6:.1f} M parameters.")
    found = {
        "transformer, bf16": frozen,
        "text encoders, bf16": BF16 * (size(built["T5"]) + size(built["CLIP"])),
        "autoencoder, bf16": BF16 * size(built["vae"]),
        f"adapter, fp32: {', '.join(ADAPTER)}": adapter * sum(ADAPTER.values()),
        "PickScore and CLIPScore, fp32": FP32 * (size(built["PickScore"]) + size(built["CLIPScore"])),
        f"activations of {batch} pictures": activations(transformer, recipe, batch),
        f"decoding {batch} pictures": decoding(built["vae"], recipe, batch),
    }
    return {name: value / GB for name, value in found.items()}


def table(found: Mapping[str, float]) -> str:
    lines = ["| part | GB |", "|---|---|", *(f"| {name} | {value:.1f} |" for name, value in found.items())]
    total = sum(found.values())
    cached = total - found["text encoders, bf16"]
    return "\n".join([*lines, f"| all | {total:.1f} |", f"| all, with `policy.text_cache` | {cached:.1f} |"])


def main(arguments: Sequence[str] = ()) -> None:
    recipe = load_recipe(AlignRecipe, RECIPE)
    batch = int(arguments[0]) if arguments else recipe.sampling.batch_size
    print(table(parts(recipe, batch)))


if __name__ == "__main__":
    main(sys.argv[1:])
