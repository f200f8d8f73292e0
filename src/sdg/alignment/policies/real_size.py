"""Generators at real size without weights, on the meta device, and what their passes take.

Published ones are known by `configs/*.json`, others by their own configurations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from sdg.alignment.policies import FAMILIES, require_choice, require_family
from sdg.alignment.policies.base import LATENT_DTYPE, FlowPolicy
from sdg.alignment.policies.text_cache import TextFeatures
from sdg.alignment.policies.trained import prepare_training
from sdg.alignment.recipe import PolicyRecipe
from sdg.errors import SdgError, loading
from sdg.models.lora import lora_parameters
from sdg.models.meta import Taken, measured, pipeline_parts

_AUTOENCODER: Final = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
"""What the published `AutoencoderKL`s have in common; a file of `configs` says the rest."""


@dataclass(frozen=True)
class KnownModel:
    """A generator: its family, its folder or id on the hub, and its parts' configurations.

    text_encoders: their parameters. pipeline: further arguments of its pipeline. scheduler: None where it is
    not known.
    """

    family: str
    model: str
    transformer: dict[str, Any]
    vae: dict[str, Any]
    text_encoders: int
    pipeline: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] | None = None

    def on_meta(self) -> Any:
        """Its diffusers transformer on the meta device: shapes and names, without weights."""
        return _built(self.transformer)

    def pipeline_on_meta(self, pipeline_class: Any, dtype: torch.dtype) -> Any:
        """Its pipeline on the meta device, without text encoders and tokenizers."""
        import diffusers

        parts = {
            "transformer": torch.nn.Module.to(self.on_meta(), dtype),
            "vae": torch.nn.Module.to(_built(self.vae), dtype),
            "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),
        }
        if self.scheduler is not None:
            settings = dict(self.scheduler)
            parts["scheduler"] = getattr(diffusers, settings.pop("_class_name")).from_config(settings)
        known = signature(pipeline_class).parameters.values()
        needed = {each.name: None for each in known if each.default is each.empty}
        return pipeline_class(**needed | parts | self.pipeline)


@cache
def known_models() -> dict[str, KnownModel]:
    """The published generators by their ids on the hub."""
    folder = files("sdg.alignment.policies") / "configs"
    configs = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name
    )
    found: dict[str, KnownModel] = {}
    for config in (json.loads(file.read_text("utf-8")) for file in configs):
        if config["vae"]["_class_name"] == "AutoencoderKL":
            config["vae"] = _AUTOENCODER | config["vae"]
        found |= {model: KnownModel(model=model, **config) for model in config.pop("models")}
    return found


def configured(family: str, location: str) -> KnownModel:
    """The generator in a folder or on the hub, by its configurations alone; a published one by ours.

    Raises SdgError where there are none, and for one of another family.
    """
    if location in known_models() and not Path(location).is_dir():
        known = known_models()[location]
        if known.family != family:
            raise SdgError(f"{location} is of the family {known.family}, not {family}; change policy.family.")
        return known
    import diffusers

    parts = pipeline_parts(location)
    failure = f"{location} is no pipeline with a transformer, a vae and a scheduler"
    with loading(failure, "check policy.model and policy.family"):
        index = diffusers.DiffusionPipeline.load_config(location)
    require_family(location, family, index)
    with loading(failure, "check policy.model and policy.family"):
        transformer, vae = (
            diffusers.AutoModel.load_config(location, subfolder=part) for part in ("transformer", "vae")
        )
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler.load_config(location, subfolder="scheduler")
    encoders = sum(count for part, count in parts.items() if part.startswith("text_encoder"))
    plain = {name: value for name, value in index.items() if isinstance(value, bool)}
    return KnownModel(family, location, transformer, vae, encoders, plain, scheduler)


def _built(config: Mapping[str, Any]) -> Any:
    """The diffusers model of a configuration, on the meta device, frozen."""
    import diffusers

    settings = {name: value for name, value in config.items() if name[0] != "_"}
    with torch.device("meta"):
        return getattr(diffusers, config["_class_name"]).from_config(settings).requires_grad_(False)


def policy_on_meta(recipe: PolicyRecipe, known: KnownModel) -> FlowPolicy:
    """A policy with its adapter as `load_policy` makes it, or to be trained whole, without text encoders.

    What is trained is in the weights' own type, in which autocast computes. Raises SdgError where recipe and
    model do not fit.
    """
    family = FAMILIES[recipe.family]
    pipeline = known.pipeline_on_meta(family.pipeline_class(), getattr(torch, recipe.dtype))
    transformer = pipeline.transformer
    with torch.device("meta"):
        prepare_training(transformer, recipe, 0, family.idle_layers(transformer))
    for parameter in lora_parameters(transformer).values():
        parameter.data = parameter.data.to(getattr(torch, recipe.dtype))
    if recipe.attention is not None:
        require_choice(transformer, recipe.family, recipe.attention)
    if recipe.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    return family(pipeline, recipe)


class RealSize:
    """What the passes of a policy on the meta device take, with batches of so many pictures."""

    def __init__(self, policy: FlowPolicy, batch: int) -> None:
        self.policy, self.batch = policy, batch
        rows = 2 * batch if policy.uses_cfg else batch
        self._text = text_on_meta(policy, rows)

    def sampling(self) -> Taken:
        """A step of a roll-out: the velocity, no gradient."""
        return measured(torch.no_grad()(self._velocity))

    def training(self) -> Taken:
        """The velocity and its gradients, the memory of those of what is trained left out."""
        self.policy.transformer.train()  # a transformer on its own checkpoints nothing otherwise
        parameters = lora_parameters(self.policy.transformer).values()

        def compute() -> None:
            self._velocity().sum().backward()
            for parameter in parameters:
                parameter.grad = None

        if self.policy.recipe.lora is not None:
            # At the most, the small gradients of an adapter are all there.
            taken = measured(compute)
            taken = Taken(max(0, taken.bytes - sum(each.nbytes for each in parameters)), taken.flop)
        else:
            hooks = [each.register_post_accumulate_grad_hook(_drop) for each in parameters]
            taken = measured(compute)
            for hook in hooks:
                hook.remove()
        self.policy.transformer.eval()
        return taken

    def decoding(self) -> Taken:
        """Latents to pixels."""
        return measured(torch.no_grad()(lambda: self.policy.pixels(self._latents())))

    def _velocity(self) -> Tensor:
        return self.policy.velocity_of(self._latents(), 0.5, self._text)

    def _latents(self) -> Tensor:
        shape = self.policy._latent_shape()
        return self.policy._pack(torch.empty(self.batch, *shape, dtype=LATENT_DTYPE, device="meta"))


def _drop(parameter: Tensor) -> None:
    parameter.grad = None


def text_on_meta(policy: FlowPolicy, rows: int) -> TextFeatures:
    """Embeddings of so many prompts of full length."""
    shapes = policy.text_shapes(policy.transformer.config, policy.recipe.max_sequence_length)
    made: dict[str, Any] = {
        # What is chosen by a mask has to be known.
        name: torch.ones(rows, *shape, dtype=torch.bool)
        if name == "mask"
        else torch.empty(rows, *shape, dtype=policy.weights_dtype, device="meta")
        for name, shape in shapes.items()
    }
    return made


def text_bytes(policy: FlowPolicy) -> int:
    """Bytes of one prompt's embeddings."""
    return sum(value.nbytes for value in text_on_meta(policy, 1).values())
