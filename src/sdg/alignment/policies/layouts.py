"""How families keep their latents: as the autoencoder's own pixels, or packed into tokens."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from sdg.alignment.flow_sde import to_grid
from sdg.alignment.policies.base import FlowPolicy


class PixelPolicy(FlowPolicy):
    """Latents are (B, C, H, W), one latent pixel a location."""

    channel_dim: ClassVar[int] = 1

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
