"""LongCat-Image: packed latents, classifier-free guidance that lets no token grow longer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdg.alignment.policies.layouts import TokenPolicy
from sdg.alignment.policies.text_cache import TextFeatures
from sdg.alignment.recipe import PolicyRecipe
from sdg.errors import SdgError


class LongCatImagePolicy(TokenPolicy):
    """A LongCatImagePipeline as a policy; the grid is H/16 × W/16 of the picture.

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

    def _predict(self, transformer: Any, x: Tensor, sigma: float | Tensor, text: TextFeatures) -> Tensor:
        from diffusers.pipelines.longcat_image.pipeline_longcat_image import prepare_pos_ids

        start, (height, width) = self.pipeline.tokenizer_max_length, self.grid
        text_ids = prepare_pos_ids(modality_id=0, type="text", num_token=text["tokens"].shape[1])
        image_ids = prepare_pos_ids(1, "image", (start, start), height=height, width=width)
        velocity: Tensor = transformer(
            hidden_states=x,
            timestep=self._timestep(x, sigma, x.dtype),
            encoder_hidden_states=text["tokens"],
            txt_ids=text_ids.to(x.device),
            img_ids=image_ids.to(x.device),
            return_dict=False,
        )[0]
        return velocity

    def _guided(self, unprompted: Tensor, prompted: Tensor) -> Tensor:
        guided = super()._guided(unprompted, prompted)
        shorter = prompted.norm(dim=-1, keepdim=True) / (guided.norm(dim=-1, keepdim=True) + 1e-8)
        return guided * shorter.clamp(max=1)
