"""Qwen-Image: packed latents, guidance that keeps each token's length, a video autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdg.alignment.policies.layouts import TokenPolicy
from sdg.alignment.policies.text_cache import TextFeatures
from sdg.alignment.recipe import PolicyRecipe


class QwenImagePolicy(TokenPolicy):
    """A QwenImagePipeline as a policy; the grid is H/16 × W/16 of the picture.

    Guidance is the pipeline's `true_cfg_scale`.
    """

    pipeline_name: ClassVar[str] = "QwenImagePipeline"
    unprompted: ClassVar[str] = " "

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

    @staticmethod
    def text_shapes(config: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """Tokens and their mask."""
        return {"tokens": (tokens, config.joint_attention_dim), "mask": (tokens,)}

    def _predict(self, transformer: Any, x: Tensor, sigma: float | Tensor, text: TextFeatures) -> Tensor:
        velocity: Tensor = transformer(
            hidden_states=x,
            timestep=self._timestep(x, sigma, x.dtype),
            encoder_hidden_states=text["tokens"],
            encoder_hidden_states_mask=None if text["mask"].all() else text["mask"],
            img_shapes=[[(1, *self.grid)]] * len(x),
            return_dict=False,
        )[0]
        return velocity

    def _guided(self, unprompted: Tensor, prompted: Tensor) -> Tensor:
        guided = super()._guided(unprompted, prompted)
        return guided * (prompted.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))

    def _unscaled(self, latents: Tensor) -> Tensor:
        mean, std = (
            latents.new_tensor(values).view(1, -1, 1, 1, 1)
            for values in (self.pipeline.vae.config.latents_mean, self.pipeline.vae.config.latents_std)
        )
        return latents * std + mean  # (B, C, 1, H, W)
