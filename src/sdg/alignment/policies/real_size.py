"""A generator at real size without weights, on the meta device, and what its passes take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdg.alignment.policies import FAMILIES, require_choice
from sdg.alignment.policies.base import LATENT_DTYPE, FlowPolicy
from sdg.alignment.policies.known import KnownModel
from sdg.alignment.policies.text_cache import TextFeatures
from sdg.alignment.policies.trained import prepare_training
from sdg.alignment.recipe import FewStepRecipe, PolicyRecipe
from sdg.models.lora import lora_parameters
from sdg.models.meta import Taken, measured


def policy_on_meta(recipe: PolicyRecipe, known: KnownModel) -> FlowPolicy:
    """A policy with its adapter as `load_policy` makes it, or to be trained whole, without text encoders.

    What is trained is in the weights' own type, in which autocast computes. Raises SdgError where recipe and
    model do not fit.
    """
    family = FAMILIES[recipe.family]
    pipeline = known.pipeline_on_meta(family.pipeline_class(), getattr(torch, recipe.dtype))
    transformer = pipeline.transformer
    with torch.device("meta"):
        prepare_training(transformer, recipe, FewStepRecipe(), 0, family.idle_layers(transformer))
    for parameter in lora_parameters(transformer).values():
        parameter.data = parameter.data.to(getattr(torch, recipe.dtype))
    if recipe.attention is not None:
        require_choice(transformer)
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
