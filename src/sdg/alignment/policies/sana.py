"""SANA and SANA-1.5: (B, C, H, W) latents of an autoencoder that shrinks pictures by 32."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdg.alignment.policies.layouts import PixelPolicy
from sdg.alignment.policies.text_cache import TextFeatures
from sdg.alignment.recipe import PolicyRecipe


class SanaPolicy(PixelPolicy):
    """A SanaPipeline as a policy; the grid is H/32 × W/32 of the picture.

    It draws at the recipe's size, as the pipeline does with `use_resolution_binning=False`. Levels are those
    of the pipeline's scheduler, steps are Euler's: with a DPM-Solver that is its first order.
    """

    pipeline_name: ClassVar[str] = "SanaPipeline"
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

    @staticmethod
    def text_shapes(config: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """Tokens and their mask."""
        return {"tokens": (tokens, config.caption_channels), "mask": (tokens,)}

    def _predict(self, transformer: Any, x: Tensor, sigma: float | Tensor, text: TextFeatures) -> Tensor:
        velocity: Tensor = transformer(
            hidden_states=x,
            encoder_hidden_states=text["tokens"].to(x.dtype),
            encoder_attention_mask=text["mask"],
            timestep=self._timestep(x, sigma, torch.float32),
            return_dict=False,
        )[0]
        return velocity

    def _unscaled(self, latents: Tensor) -> Tensor:
        return latents / self.pipeline.vae.config.scaling_factor
