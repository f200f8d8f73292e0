"""Families whose latents are the autoencoder's own pixels: Stable Diffusion 3, SANA, Z-Image."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdg.alignment.policies.base import FlowPolicy
from sdg.alignment.policies.text_cache import TextFeatures
from sdg.alignment.recipe import PolicyRecipe


class PixelPolicy(FlowPolicy):
    """Latents are (B, C, H, W), one latent pixel a location."""

    channel_dim: ClassVar[int] = 1
    timestep_dtype: ClassVar[torch.dtype | None] = torch.float32

    def _pixels_a_location(self) -> int:
        return int(self.pipeline.vae_scale_factor)

    def _latent_shape(self) -> tuple[int, int, int]:
        return self.transformer.config.in_channels, *self.grid

    def _pack(self, latents: Tensor) -> Tensor:
        return latents

    def _unpack(self, x: Tensor) -> Tensor:
        return x

    def _location_log_prob(self, log_prob: Tensor) -> Tensor:
        return log_prob


class Sd3Policy(PixelPolicy):
    """Stable Diffusion 3 and 3.5, a StableDiffusion3Pipeline; the grid is H/8 × W/8 of the picture."""

    pipeline_name: ClassVar[str] = "StableDiffusion3Pipeline"
    timesteps: ClassVar[tuple[float, float]] = (0, 1000)
    uniform: ClassVar[bool] = False

    def _pixels_a_patch(self) -> int:
        return self._pixels_a_location() * int(self.transformer.config.patch_size)

    @staticmethod
    def text_features(pipeline: Any, recipe: PolicyRecipe, prompt: str, device: torch.device) -> TextFeatures:
        """The tokens of both CLIPs and of T5, one after the other, and the pooled ones of the CLIPs."""
        tokens, _, pooled, _ = pipeline.encode_prompt(
            prompt=prompt,
            prompt_2=None,
            prompt_3=None,
            device=device,
            do_classifier_free_guidance=False,
            max_sequence_length=recipe.max_sequence_length,
        )
        return {"tokens": tokens, "pooled": pooled}

    @classmethod
    def text_shapes(cls, config: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """The 77 tokens that both CLIPs share the width of, T5's, and the pooled ones."""
        return {
            "tokens": (77 + tokens, config.joint_attention_dim),
            "pooled": (config.pooled_projection_dim,),
        }

    def _inputs(self, x: Tensor, text: TextFeatures) -> dict[str, Any]:
        return {"pooled_projections": text["pooled"]}


class SanaPolicy(PixelPolicy):
    """SANA and SANA-1.5, a SanaPipeline; the grid is H/32 × W/32 of the picture.

    It draws at the recipe's size, as the pipeline does with `use_resolution_binning=False`. Levels are those
    of the pipeline's scheduler, steps are Euler's: with a DPM-Solver that is its first order.
    """

    pipeline_name: ClassVar[str] = "SanaPipeline"
    timesteps: ClassVar[tuple[float, float]] = (0, 1000)
    text_width: ClassVar[str] = "caption_channels"
    masked: ClassVar[bool] = True
    uniform: ClassVar[bool] = False

    @staticmethod
    def text_features(pipeline: Any, recipe: PolicyRecipe, prompt: str, device: torch.device) -> TextFeatures:
        """Gemma's tokens of the prompt behind the pipeline's instruction; of the empty prompt, without it."""
        instruction = signature(type(pipeline).__call__).parameters["complex_human_instruction"].default
        tokens, mask, _, _ = pipeline.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            device=device,
            max_sequence_length=recipe.max_sequence_length,
            complex_human_instruction=instruction if prompt else None,
        )
        return {"tokens": tokens, "mask": mask.bool()}

    def _inputs(self, x: Tensor, text: TextFeatures) -> dict[str, Any]:
        tokens = text["tokens"].to(x.dtype)
        return {"encoder_hidden_states": tokens, "encoder_attention_mask": text["mask"]}

    def _unscaled(self, latents: Tensor) -> Tensor:
        return latents / self.pipeline.vae.config.scaling_factor


class ZImagePolicy(PixelPolicy):
    """Z-Image and Z-Image-Turbo, a ZImagePipeline: patches of 2×2, time runs from noise to picture.

    The grid is H/8 × W/8 of the picture.
    """

    pipeline_name: ClassVar[str] = "ZImagePipeline"
    timesteps: ClassVar[tuple[float, float]] = (1, 0)
    text_width: ClassVar[str] = "cap_feat_dim"
    masked: ClassVar[bool] = True

    @property
    def uses_cfg(self) -> bool:
        """Where guidance is above 0: the pipeline adds it to the velocity with the prompt."""
        return self.recipe.guidance > 0

    def _pixels_a_patch(self) -> int:
        return 2 * self._pixels_a_location()

    @staticmethod
    def text_features(pipeline: Any, recipe: PolicyRecipe, prompt: str, device: torch.device) -> TextFeatures:
        """Qwen3's tokens of the prompt as a chat message, as many as there are."""
        (tokens,), _ = pipeline.encode_prompt(
            prompt=prompt,
            device=device,
            do_classifier_free_guidance=False,
            max_sequence_length=recipe.max_sequence_length,
        )
        return {"tokens": tokens[None], "mask": torch.ones(1, len(tokens), dtype=torch.bool)}

    def _predict(self, transformer: Any, x: Tensor, sigma: float | Tensor, text: TextFeatures) -> Tensor:
        towards_picture = transformer(
            x=list(x.unsqueeze(2)),  # videos of one frame
            t=self._timestep(x, sigma),
            cap_feats=[tokens[mask] for tokens, mask in zip(text["tokens"], text["mask"], strict=True)],
            return_dict=False,
        )[0]
        return -torch.stack(towards_picture).squeeze(2)

    def _guided(self, unprompted: Tensor, prompted: Tensor) -> Tensor:
        return prompted + self.recipe.guidance * (prompted - unprompted)
