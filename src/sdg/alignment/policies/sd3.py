"""Stable Diffusion 3 and 3.5: (B, C, H, W) latents, one latent pixel a location, classifier-free guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdg.alignment.policies.layouts import PixelPolicy
from sdg.alignment.policies.text_cache import TextFeatures
from sdg.alignment.recipe import PolicyRecipe


class Sd3Policy(PixelPolicy):
    """A StableDiffusion3Pipeline as a policy; the grid is H/8 × W/8 of the picture."""

    pipeline_name: ClassVar[str] = "StableDiffusion3Pipeline"
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

    @staticmethod
    def text_shapes(config: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """The 77 tokens that both CLIPs share the width of, T5's, and the pooled ones."""
        return {
            "tokens": (77 + tokens, config.joint_attention_dim),
            "pooled": (config.pooled_projection_dim,),
        }

    def _predict(self, transformer: Any, x: Tensor, sigma: float | Tensor, text: TextFeatures) -> Tensor:
        velocity: Tensor = transformer(
            hidden_states=x,
            timestep=self._timestep(x, sigma, torch.float32),
            encoder_hidden_states=text["tokens"],
            pooled_projections=text["pooled"],
            return_dict=False,
        )[0]
        return velocity
