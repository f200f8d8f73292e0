"""FLUX.2, dev and klein: packed latents, normalised by the autoencoder's statistics."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from sdg.alignment.policies.layouts import TokenPolicy
from sdg.alignment.policies.text_cache import TextFeatures
from sdg.alignment.recipe import PolicyRecipe


class Flux2Policy(TokenPolicy):
    """A Flux2Pipeline as a policy; the grid is H/16 × W/16 of the picture."""

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

    def _predict(self, transformer: Any, x: Tensor, sigma: float | Tensor, text: TextFeatures) -> Tensor:
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = torch.full((len(x),), self.recipe.guidance, device=x.device, dtype=torch.float32)
        velocity: Tensor = transformer(
            hidden_states=x,
            timestep=self._timestep(x, sigma, x.dtype),
            guidance=guidance,
            encoder_hidden_states=text["tokens"],
            txt_ids=self.pipeline._prepare_text_ids(text["tokens"][:1]).to(x.device),
            img_ids=self.pipeline._prepare_latent_ids(x.new_empty(1, 1, *self.grid)).to(x.device),
            return_dict=False,
        )[0]
        return velocity

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
