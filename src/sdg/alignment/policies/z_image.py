"""Z-Image and Z-Image-Turbo: (B, C, H, W) latents in patches of 2×2, time that runs from noise to picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdg.alignment.policies.layouts import PixelPolicy
from sdg.alignment.policies.text_cache import TextFeatures
from sdg.alignment.recipe import PolicyRecipe


class ZImagePolicy(PixelPolicy):
    """A ZImagePipeline as a policy; the grid is H/8 × W/8 of the picture."""

    pipeline_name: ClassVar[str] = "ZImagePipeline"

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

    @staticmethod
    def text_shapes(config: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """Tokens and their mask."""
        return {"tokens": (tokens, config.cap_feat_dim), "mask": (tokens,)}

    def _predict(self, transformer: Any, x: Tensor, sigma: float | Tensor, text: TextFeatures) -> Tensor:
        towards_picture = transformer(
            x=list(x.unsqueeze(2)),  # videos of one frame
            t=self._timestep(x, sigma, torch.float32),
            cap_feats=[tokens[mask] for tokens, mask in zip(text["tokens"], text["mask"], strict=True)],
            return_dict=False,
        )[0]
        return -torch.stack(towards_picture).squeeze(2)

    def _guided(self, unprompted: Tensor, prompted: Tensor) -> Tensor:
        return prompted + self.recipe.guidance * (prompted - unprompted)
