"""What flow-matching generators share: mixed ODE/SDE sampling that records what training needs.

The transformer is called directly, with latents kept in float32 between steps. Roll-out and training take
the same path, `FlowPolicy.velocity_of`, so that the first likelihood ratio is 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from sdg.alignment.flow_sde import SdeKind, SdeStep, ode_step, sde_step, sigma_schedule
from sdg.alignment.policies.text_cache import TextCache, TextFeatures
from sdg.alignment.recipe import PolicyRecipe
from sdg.errors import SdgError
from sdg.models.device import Precision, autocast_precision

Model = Callable[..., tuple[Tensor, ...]]
"""A transformer as it is called, or the wrapper of data-parallel training: the velocity comes first."""
LATENT_DTYPE = torch.float32
"""In which latents are kept, and so rounded before they are scored."""


@dataclass(frozen=True)
class Transitions:
    """The stochastic steps of B samples: from `x` to `next_x`, and how likely each location's move was.

    x, next_x: T tensors of latents, (B, L, C) or (B, C, H, W), float32; sigma, sigma_next: T noise levels;
    old_log_prob: T tensors (B, H, W) of the policy that drew them. final: the latents of the pictures.
    """

    prompts: tuple[str, ...]
    noise_level: float
    kind: SdeKind
    sigma: tuple[float, ...]
    sigma_next: tuple[float, ...]
    x: tuple[Tensor, ...]
    next_x: tuple[Tensor, ...]
    old_log_prob: tuple[Tensor, ...]
    final: Tensor


@dataclass(frozen=True)
class Rollout:
    """Pictures, one a prompt, and the transitions behind them."""

    pictures: list[Image.Image]
    transitions: Transitions


class FlowPolicy(ABC):
    """A generator seen as a stochastic policy over latents; one subclass a family of models."""

    channel_dim: ClassVar[int]
    """Where a location's channels are in this family's latents."""
    pipeline_name: ClassVar[str]
    """The family's pipeline in diffusers."""
    unprompted: ClassVar[str] = ""
    """The prompt from which classifier-free guidance leads away."""
    uniform: ClassVar[bool] = True
    """Whether the pipeline spaces noise levels evenly, and not its scheduler by itself."""
    text_width: ClassVar[str] = "joint_attention_dim"
    """What the model's configuration calls the channels of a text token."""
    masked: ClassVar[bool] = False
    """Whether `text_features` have a mask."""
    timesteps: ClassVar[tuple[float, float]] = (0, 1)
    """What the transformer is told at σ = 0 and at σ = 1; between them it is linear."""
    timestep_dtype: ClassVar[torch.dtype | None] = None
    """In which the pipeline tells the noise level; None: in that of the latents."""

    def __init__(self, pipeline: Any, recipe: PolicyRecipe, precision: Precision = "fp32") -> None:
        self.pipeline, self.recipe = pipeline, recipe
        self.transformer = pipeline.transformer
        if all(parameter.ndim < 5 for parameter in pipeline.vae.parameters()):  # not a video autoencoder
            pipeline.vae.to(memory_format=torch.channels_last)  # decodes in about three quarters of the time
        self.device = torch.device(pipeline.device)
        self.precision = autocast_precision(precision, self.device.type)
        self.weights_dtype: torch.dtype = getattr(torch, recipe.dtype)
        if recipe.lora is None:  # what is trained is in float32, what is only drawn with is not
            self.weights_dtype = next(self.transformer.parameters()).dtype
        location, multiple = self._pixels_a_location(), self._pixels_a_patch()
        if recipe.height % multiple or recipe.width % multiple:
            raise SdgError(
                f"This model draws pictures whose sides are multiples of {multiple} pixels, not "
                f"{recipe.height}×{recipe.width}; change policy.width and policy.height."
            )
        self.grid = (recipe.height // location, recipe.width // location)
        """(H, W), the locations of this family's latents."""
        # Those not asked for the longest go first; the prompt of guidance is asked for each time.
        self._cached = lru_cache(recipe.prompt_cache)(lambda prompt: self._encode(prompt))
        self._stored = None if recipe.text_cache is None else TextCache(recipe)

    # --- what a family defines -------------------------------------------------------------------------

    @classmethod
    def pipeline_class(cls) -> Any:
        """The diffusers pipeline of this family."""
        import diffusers

        return getattr(diffusers, cls.pipeline_name)

    @property
    def uses_cfg(self) -> bool:
        """Whether a step needs the unconditional velocity as well: by default where guidance is above 1."""
        return self.recipe.guidance > 1

    def _mu(self, steps: int, tokens: int) -> float | None:
        """The shift of the noise levels, where the scheduler's settings do not say it."""
        return None

    @abstractmethod
    def _pixels_a_location(self) -> int: ...

    def _pixels_a_patch(self) -> int:
        """Of what a picture's sides are multiples."""
        return self._pixels_a_location()

    @abstractmethod
    def _latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one picture before packing, in which noise is drawn."""

    @abstractmethod
    def _pack(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) noise as this family's latents."""

    @staticmethod
    @abstractmethod
    def text_features(pipeline: Any, recipe: PolicyRecipe, prompt: str, device: torch.device) -> TextFeatures:
        """Embeddings of one prompt by a pipeline of this family, with its text encoders at least.

        Tensors by the names that `_predict` knows them by: (1, L, …), L free to differ between prompts where
        one of them is a mask (1, L), True at what counts.
        """

    @classmethod
    def text_shapes(cls, config: Any, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """Shapes of one prompt's `text_features`, of at most so many tokens, by the model's configuration."""
        return {"tokens": (tokens, config[cls.text_width])} | ({"mask": (tokens,)} if cls.masked else {})

    @staticmethod
    def idle_layers(transformer: Any) -> list[str]:
        """Layers whose output reaches no picture, so that an adapter there would get no gradient."""
        return []

    def _predict(self, transformer: Model, x: Tensor, sigma: float | Tensor, text: TextFeatures) -> Tensor:
        """The model's velocity, without classifier-free guidance; sigma: one level, or (B,)."""
        level, tokens = self._timestep(x, sigma), text["tokens"]
        inputs = {"hidden_states": x, "timestep": level, "encoder_hidden_states": tokens}
        return transformer(**(inputs | self._inputs(x, text)), return_dict=False)[0]

    def _inputs(self, x: Tensor, text: TextFeatures) -> dict[str, Any]:
        """What the model takes beside latents, noise level and tokens, or in place of these."""
        return {}

    @abstractmethod
    def _location_log_prob(self, log_prob: Tensor) -> Tensor:
        """One value a location, as (B, H, W)."""

    @abstractmethod
    def _unpack(self, x: Tensor) -> Tensor:
        """Latents as (B, C, H, W)."""

    def _unscaled(self, latents: Tensor) -> Tensor:
        """Latents (B, C, H, W) as the autoencoder takes them; by default as AutoencoderKL does."""
        vae = self.pipeline.vae.config
        return latents / vae.scaling_factor + vae.shift_factor

    def _guided(self, unprompted: Tensor, prompted: Tensor) -> Tensor:
        """The velocity of classifier-free guidance, from those without and with the prompt."""
        return unprompted + self.recipe.guidance * (prompted - unprompted)

    # --- sampling --------------------------------------------------------------------------------------

    def sigmas(self, steps: int) -> Tensor:
        """The pipeline's own noise levels, (steps + 1,), from 1 down to 0, with its shift by resolution."""
        patch = self._pixels_a_patch() // self._pixels_a_location()
        tokens = (self.grid[0] // patch) * (self.grid[1] // patch)
        mu = self._mu(steps, tokens)
        levels = sigma_schedule(self.pipeline.scheduler, steps, tokens, uniform=self.uniform, mu=mu)
        if levels.isnan().any():  # one step cannot begin at noise and at the scheduler's `shift_terminal`
            raise SdgError("This model's schedule needs at least 2 sampling steps.")
        return levels

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int,
        sde_steps: Sequence[int] = (),
        noise_level: float = 0.7,
        kind: SdeKind = "flow-sde",
    ) -> Rollout:
        """Draw one picture a prompt: stochastic at `sde_steps` (0-based), by the plain ODE elsewhere.

        All noise of a sample comes from its own seed, on the CPU: the same picture whichever process
        draws it.
        """
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        sigmas = self.sigmas(steps).tolist()
        text = self.encode(prompts)
        x = self.noise(generators)
        before, after, log_probs = [], [], []
        for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
            velocity = self.velocity_of(x, sigma, text)
            if step in sde_steps:
                drawn = sde_step(
                    x,
                    velocity,
                    sigma,
                    sigma_next,
                    noise_level,
                    noise=self.noise(generators),
                    channel_dim=self.channel_dim,
                    store_dtype=LATENT_DTYPE,
                    kind=kind,
                )
                before.append(x)
                after.append(drawn.next_x)
                log_probs.append(self._location_log_prob(drawn.log_prob))
                x = drawn.next_x
            else:
                x = ode_step(x, velocity, sigma, sigma_next, store_dtype=LATENT_DTYPE)
        at = sorted(set(sde_steps))
        return Rollout(
            self._decode(x),
            Transitions(
                tuple(prompts),
                noise_level,
                kind,
                tuple(sigmas[step] for step in at),
                tuple(sigmas[step + 1] for step in at),
                tuple(before),
                tuple(after),
                tuple(log_probs),
                x,
            ),
        )

    def score(self, transitions: Transitions, index: int, transformer: Any = None) -> SdeStep:
        """Step `index` of recorded transitions under the present weights, with gradient.

        `log_prob` is (B, H, W). transformer: the wrapper of data-parallel training, whose forward has to
        be the one that is called; by default the model itself.
        """
        x, sigma = transitions.x[index], transitions.sigma[index]
        velocity = self.velocity(x, sigma, transitions.prompts, transformer)
        scored = sde_step(
            x,
            velocity,
            sigma,
            transitions.sigma_next[index],
            transitions.noise_level,
            next_x=transitions.next_x[index],
            channel_dim=self.channel_dim,
            kind=transitions.kind,
        )
        return scored._replace(log_prob=self._location_log_prob(scored.log_prob))

    def velocity(
        self, x: Tensor, sigma: float | Tensor, prompts: Sequence[str], transformer: Any = None
    ) -> Tensor:
        """The velocity at latents x and one noise level or (B,) under the present weights, as in `score`."""
        return self.velocity_of(x, sigma, self.encode(prompts), transformer)

    def velocity_of(
        self, x: Tensor, sigma: float | Tensor, text: TextFeatures, transformer: Any = None
    ) -> Tensor:
        """The velocity with guidance, given what `encode` makes of prompts; transformer: as in `score`."""
        model = self.transformer if transformer is None else transformer
        with self.autocast():
            model_x = x.to(self.weights_dtype)
            if not self.uses_cfg:
                return self._predict(model, model_x, sigma, text).to(LATENT_DTYPE)
            levels = torch.cat([sigma, sigma]) if isinstance(sigma, Tensor) else sigma
            both = self._predict(model, torch.cat([model_x, model_x]), levels, text)
        return self._guided(*both.to(LATENT_DTYPE).chunk(2))

    def pixels(self, x: Tensor) -> Tensor:
        """Latents as (B, 3, height, width), −1 to 1."""
        vae = self.pipeline.vae
        decoded: Tensor = vae.decode(self._unscaled(self._unpack(x)).to(vae.dtype), return_dict=False)[0]
        return decoded[:, :, 0] if decoded.ndim == 5 else decoded  # a video of one frame

    def noise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Standard normal latents, one a generator on the CPU, float32, on the policy's device."""
        shape = self._latent_shape()
        drawn = [torch.randn(shape, generator=g, dtype=LATENT_DTYPE) for g in generators]
        return self._pack(torch.stack(drawn)).to(self.device)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """Text embeddings of prompts, preceded by as many of `unprompted` where guidance needs them.

        Each prompt is encoded once, by itself, and kept while the cache has room.
        """
        wanted = ([self.unprompted] * len(prompts) if self.uses_cfg else []) + list(prompts)
        features = [self._cached(prompt) for prompt in wanted]
        stacked = {name: _stack([f[name] for f in features]).to(self.device) for name in features[0]}
        if self.recipe.lora is None:
            return {k: v.to(self.weights_dtype) if v.is_floating_point() else v for k, v in stacked.items()}
        return stacked

    @contextmanager
    def reference(self) -> Iterator[None]:
        """The model as it was before training: the adapter is off inside."""
        self.transformer.disable_adapters()
        try:
            yield
        finally:
            self.transformer.enable_adapters()

    def autocast(self) -> AbstractContextManager[None]:
        """The precision in which the transformer runs, in roll-out and training alike."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _encode(self, prompt: str) -> TextFeatures:
        """A prompt's embeddings, on the CPU."""
        if self._stored is not None and prompt in self._stored:
            return self._stored.read(prompt)
        if self.pipeline.text_encoder is None:
            raise SdgError("A prompt is not in policy.text_cache, whose folder has changed; --resume.")
        features = self.text_features(self.pipeline, self.recipe, prompt, self.device)
        if self._stored is not None:
            self._stored.write(prompt, features)
        return {name: value.cpu() for name, value in features.items()}

    def _decode(self, x: Tensor) -> list[Image.Image]:
        pictures: list[Image.Image] = self.pipeline.image_processor.postprocess(
            self.pixels(x).float(), output_type="pil"
        )
        return pictures

    def _timestep(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """(B,) timesteps for the transformer."""
        at_picture, at_noise = self.timesteps
        level = torch.as_tensor(sigma, device=x.device, dtype=torch.float64)
        told = at_picture * (1 - level) + at_noise * level
        return told.to(self.timestep_dtype or x.dtype).expand(len(x))


def _stack(values: Sequence[Tensor]) -> Tensor:
    """(1, L, …) of prompts as one (B, L, …), the shorter ones filled with zeros."""
    longest = max(value.shape[1] for value in values)
    return torch.cat([pad(v, [0, 0] * (v.ndim - 2) + [0, longest - v.shape[1]]) for v in values])
