"""FLUX.1: packed latents, one token of 64 channels a location, guidance fed to the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdg.alignment.flow_sde import to_grid
from sdg.alignment.policies.base import FlowPolicy
from sdg.alignment.policies.text_cache import TextFeatures
from sdg.alignment.recipe import PolicyRecipe


class FluxPolicy(FlowPolicy):
    """A FluxPipeline as a policy; latents are (B, L, C) tokens, the grid H/16 × W/16 of the picture."""

    channel_dim = -1

    @staticmethod
    def pipeline_class() -> Any:
        """diffusers.FluxPipeline."""
        from diffusers import FluxPipeline

        return FluxPipeline

    def sigmas(self, steps: int) -> Tensor:
        """The pipeline's levels, with its shift by resolution."""
        return self._image_sigmas(steps, self.grid[0] * self.grid[1], uniform=True)

    @property
    def uses_cfg(self) -> bool:
        """Only for models without a guidance embedding, where guidance is above 1."""
        return not self.transformer.config.guidance_embeds and self.recipe.guidance > 1

    def _pixels_a_location(self) -> int:
        return 2 * int(self.pipeline.vae_scale_factor)  # FLUX packs 2×2 latents into one token

    def _latent_shape(self) -> tuple[int, int, int]:
        height, width = self.grid
        return self.transformer.config.in_channels // 4, 2 * height, 2 * width

    def _pack(self, latents: Tensor) -> Tensor:
        packed: Tensor = self.pipeline._pack_latents(latents, *latents.shape)
        return packed

    @staticmethod
    def text_features(pipeline: Any, recipe: PolicyRecipe, prompt: str, device: torch.device) -> TextFeatures:
        """T5's tokens, and the pooled ones of CLIP."""
        tokens, pooled, _ = pipeline.encode_prompt(
            prompt=prompt, prompt_2=None, device=device, max_sequence_length=recipe.max_sequence_length
        )
        return tokens, pooled

    def _predict(self, transformer: Any, x: Tensor, sigma: float | Tensor, text: TextFeatures) -> Tensor:
        tokens, pooled = text
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = torch.full((len(x),), self.recipe.guidance, device=x.device, dtype=torch.float32)
        image_ids = self.pipeline._prepare_latent_image_ids(1, *self.grid, x.device, x.dtype)
        velocity: Tensor = transformer(
            hidden_states=x,
            timestep=self._timestep(x, sigma, 1, x.dtype),  # FLUX multiplies by 1000
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=tokens,
            txt_ids=torch.zeros(tokens.shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=image_ids,
            return_dict=False,
        )[0]
        return velocity

    def _location_log_prob(self, log_prob: Tensor) -> Tensor:
        return to_grid(log_prob, self.grid)

    def _vae_latents(self, x: Tensor) -> Tensor:
        latents: Tensor = self.pipeline._unpack_latents(
            x, self.recipe.height, self.recipe.width, self.pipeline.vae_scale_factor
        )
        return latents
