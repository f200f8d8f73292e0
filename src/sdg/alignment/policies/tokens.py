"""Families whose latents are packed into tokens: FLUX.1, FLUX.2, LongCat-Image, Qwen-Image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdg.alignment.flow_sde import to_grid
from sdg.alignment.policies.base import FlowPolicy
from sdg.alignment.policies.text_cache import TextFeatures
from sdg.alignment.recipe import PolicyRecipe
from sdg.errors import SdgError


class TokenPolicy(FlowPolicy):
    """Latents are (B, L, C), one token a location, into which pipelines pack 2×2 latent pixels."""

    channel_dim: ClassVar[int] = -1

    def _pixels_a_location(self) -> int:
        return 2 * int(self.pipeline.vae_scale_factor)

    def _latent_shape(self) -> tuple[int, int, int]:
        height, width = self.grid
        return self.transformer.config.in_channels // 4, 2 * height, 2 * width

    def _pack(self, latents: Tensor) -> Tensor:
        packed: Tensor = self.pipeline._pack_latents(latents, *latents.shape)
        return packed

    def _unpack(self, x: Tensor) -> Tensor:
        latents: Tensor = self.pipeline._unpack_latents(
            x, self.recipe.height, self.recipe.width, self.pipeline.vae_scale_factor
        )
        return latents

    def _location_log_prob(self, log_prob: Tensor) -> Tensor:
        return to_grid(log_prob, self.grid)

    def _fed_guidance(self, x: Tensor) -> Tensor | None:
        """Guidance (B,) for a model that takes it as an input; None for any other."""
        if not self.transformer.config.guidance_embeds:
            return None
        return torch.full((len(x),), self.recipe.guidance, device=x.device, dtype=torch.float32)


class FluxPolicy(TokenPolicy):
    """FLUX.1, a FluxPipeline: guidance is fed to the model; the grid is H/16 × W/16 of the picture."""

    pipeline_name: ClassVar[str] = "FluxPipeline"

    @property
    def uses_cfg(self) -> bool:
        """Only for models without a guidance embedding, where guidance is above 1."""
        return not self.transformer.config.guidance_embeds and super().uses_cfg

    @staticmethod
    def text_features(pipeline: Any, recipe: PolicyRecipe, prompt: str, device: torch.device) -> TextFeatures:
        """T5's tokens, and the pooled ones of CLIP."""
        tokens, pooled, _ = pipeline.encode_prompt(
            prompt=prompt, prompt_2=None, device=device, max_sequence_length=recipe.max_sequence_length
        )
        return {"tokens": tokens, "pooled": pooled}

    @classmethod
    def text_shapes(cls, config: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """Tokens, and the pooled ones."""
        return {"tokens": (tokens, config.joint_attention_dim), "pooled": (config.pooled_projection_dim,)}

    def _inputs(self, x: Tensor, text: TextFeatures) -> dict[str, Any]:
        return {
            "guidance": self._fed_guidance(x),
            "pooled_projections": text["pooled"],
            "txt_ids": torch.zeros(text["tokens"].shape[1], 3, device=x.device, dtype=x.dtype),
            "img_ids": self.pipeline._prepare_latent_image_ids(1, *self.grid, x.device, x.dtype),
        }


class Flux2Policy(TokenPolicy):
    """FLUX.2 dev, a Flux2Pipeline: latents are normalised by the autoencoder's statistics.

    The grid is H/16 × W/16 of the picture.
    """

    pipeline_name: ClassVar[str] = "Flux2Pipeline"

    def _mu(self, steps: int, tokens: int) -> float:
        """By resolution and number of steps."""
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        return compute_empirical_mu(tokens, steps)

    @property
    def uses_cfg(self) -> bool:
        """Never: guidance is fed to the model."""
        return False

    def _latent_shape(self) -> tuple[int, int, int]:
        return self.transformer.config.in_channels, *self.grid

    def _pack(self, latents: Tensor) -> Tensor:
        return latents.flatten(2).transpose(1, 2)

    def _unpack(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).unflatten(2, self.grid)

    @staticmethod
    def text_features(pipeline: Any, recipe: PolicyRecipe, prompt: str, device: torch.device) -> TextFeatures:
        """Tokens of the prompt in the pipeline's template, from three layers of its language model."""
        tokens, _ = pipeline.encode_prompt(
            prompt=prompt, device=device, max_sequence_length=recipe.max_sequence_length
        )
        return {"tokens": tokens}

    def _inputs(self, x: Tensor, text: TextFeatures) -> dict[str, Any]:
        return {
            "guidance": self._fed_guidance(x),
            "txt_ids": self.pipeline._prepare_text_ids(text["tokens"][:1]).to(x.device),
            "img_ids": self.pipeline._prepare_latent_ids(x.new_empty(1, 1, *self.grid)).to(x.device),
        }

    def _unscaled(self, latents: Tensor) -> Tensor:
        statistics = self.pipeline.vae.bn
        mean, variance = (
            values.to(latents.dtype).view(1, -1, 1, 1)
            for values in (statistics.running_mean, statistics.running_var)
        )
        std = (variance + self.pipeline.vae.config.batch_norm_eps).sqrt()
        unpacked: Tensor = self.pipeline._unpatchify_latents(latents * std + mean)
        return unpacked


class Flux2KleinPolicy(Flux2Policy):
    """A Flux2KleinPipeline as a policy: distilled, or a base model with classifier-free guidance."""

    pipeline_name: ClassVar[str] = "Flux2KleinPipeline"

    @property
    def uses_cfg(self) -> bool:
        """Where guidance is above 1, unless the model is distilled."""
        return self.recipe.guidance > 1 and not self.pipeline.config.is_distilled


class LongCatImagePolicy(TokenPolicy):
    """LongCat-Image, a LongCatImagePipeline: guidance lets no token grow longer; the grid is H/16 × W/16.

    Prompts are taken as they are, as the pipeline does with `enable_prompt_rewrite=False`.
    """

    @classmethod
    def pipeline_class(cls) -> Any:
        """diffusers.LongCatImagePipeline, with the loader of adapters that it lacks."""
        from diffusers import LongCatImagePipeline
        from diffusers.loaders import SanaLoraLoaderMixin  # for any pipeline whose transformer alone has one

        return type("LongCatImagePipeline", (LongCatImagePipeline, SanaLoraLoaderMixin), {})

    @staticmethod
    def text_features(pipeline: Any, recipe: PolicyRecipe, prompt: str, device: torch.device) -> TextFeatures:
        """Qwen2.5-VL's tokens of the prompt in the pipeline's template, filled up to its own length."""
        if recipe.max_sequence_length != pipeline.tokenizer_max_length:
            raise SdgError(
                f"LongCat-Image takes {pipeline.tokenizer_max_length} text tokens, not "
                f"{recipe.max_sequence_length}; change policy.max_sequence_length."
            )
        tokens, _ = pipeline.encode_prompt(prompt)
        return {"tokens": tokens}

    def _inputs(self, x: Tensor, text: TextFeatures) -> dict[str, Any]:
        from diffusers.pipelines.longcat_image.pipeline_longcat_image import prepare_pos_ids

        start, (height, width) = self.pipeline.tokenizer_max_length, self.grid
        text_ids = prepare_pos_ids(modality_id=0, type="text", num_token=text["tokens"].shape[1])
        image_ids = prepare_pos_ids(1, "image", (start, start), height=height, width=width)
        return {"txt_ids": text_ids.to(x.device), "img_ids": image_ids.to(x.device)}

    def _guided(self, unprompted: Tensor, prompted: Tensor) -> Tensor:
        guided = super()._guided(unprompted, prompted)
        shorter = prompted.norm(dim=-1, keepdim=True) / (guided.norm(dim=-1, keepdim=True) + 1e-8)
        return guided * shorter.clamp(max=1)


class QwenImagePolicy(TokenPolicy):
    """Qwen-Image, a QwenImagePipeline with a video autoencoder; the grid is H/16 × W/16 of the picture.

    Guidance, the pipeline's `true_cfg_scale`, keeps each token's length.
    """

    pipeline_name: ClassVar[str] = "QwenImagePipeline"
    unprompted: ClassVar[str] = " "
    masked: ClassVar[bool] = True

    @staticmethod
    def text_features(pipeline: Any, recipe: PolicyRecipe, prompt: str, device: torch.device) -> TextFeatures:
        """Qwen2.5-VL's tokens of the prompt in the pipeline's template, as many as there are."""
        tokens, _ = pipeline.encode_prompt(
            prompt=prompt, device=device, max_sequence_length=recipe.max_sequence_length
        )
        return {"tokens": tokens, "mask": torch.ones(tokens.shape[:2], dtype=torch.bool)}

    @staticmethod
    def idle_layers(transformer: Any) -> list[str]:
        """The last block's, of its text."""
        last = f"transformer_blocks.{len(transformer.transformer_blocks) - 1}"
        return [f"{last}.{name}" for name in ("attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2")]

    def _inputs(self, x: Tensor, text: TextFeatures) -> dict[str, Any]:
        mask = None if text["mask"].all() else text["mask"]
        return {"encoder_hidden_states_mask": mask, "img_shapes": [[(1, *self.grid)]] * len(x)}

    def _guided(self, unprompted: Tensor, prompted: Tensor) -> Tensor:
        guided = super()._guided(unprompted, prompted)
        return guided * (prompted.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))

    def _unscaled(self, latents: Tensor) -> Tensor:
        mean, std = (
            latents.new_tensor(values).view(1, -1, 1, 1, 1)
            for values in (self.pipeline.vae.config.latents_mean, self.pipeline.vae.config.latents_std)
        )
        return latents * std + mean  # (B, C, 1, H, W)
