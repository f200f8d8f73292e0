"""FLUX.1: packed latents, one token of 64 channels a location, guidance fed to the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdg.alignment.policies.layouts import TokenPolicy
from sdg.alignment.policies.text_cache import TextFeatures
from sdg.alignment.recipe import PolicyRecipe


class FluxPolicy(TokenPolicy):
    """A FluxPipeline as a policy; the grid is H/16 × W/16 of the picture."""

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

    @staticmethod
    def text_shapes(config: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """Tokens, and the pooled ones."""
        return {"tokens": (tokens, config.joint_attention_dim), "pooled": (config.pooled_projection_dim,)}

    def _predict(self, transformer: Any, x: Tensor, sigma: float | Tensor, text: TextFeatures) -> Tensor:
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = torch.full((len(x),), self.recipe.guidance, device=x.device, dtype=torch.float32)
        image_ids = self.pipeline._prepare_latent_image_ids(1, *self.grid, x.device, x.dtype)
        velocity: Tensor = transformer(
            hidden_states=x,
            timestep=self._timestep(x, sigma, x.dtype),
            guidance=guidance,
            pooled_projections=text["pooled"],
            encoder_hidden_states=text["tokens"],
            txt_ids=torch.zeros(text["tokens"].shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=image_ids,
            return_dict=False,
        )[0]
        return velocity
