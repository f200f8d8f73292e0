"""The adapter that alignment trains: adding it, averaging it, and files that reload with their alpha."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from sdg.errors import SdgError, loading
from sdg.models.sharding import whole
from sdg.sections import LoraRecipe

WEIGHTS = "pytorch_lora_weights.safetensors"
"""The name by which `pipeline.load_lora_weights(folder)` finds an adapter."""

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers that an adapter trains where a recipe names none: those of attention."""


def matching_layers(layers: Iterable[str], target: str, key: str) -> list[str]:
    """Those of a model's linear layers whose name is `target` or ends in it.

    Raises SdgError where there is none; `key`: where the recipe names the target.
    """
    found = [layer for layer in layers if layer == target or layer.endswith(f".{target}")]
    if not found:
        raise SdgError(
            f"{key} names {target}, but no linear layer that can be trained is called so; take it out or "
            "correct it."
        )
    return found


def add_lora(transformer: Any, lora: LoraRecipe, seed: int, *, idle: Iterable[str] = ()) -> None:
    """Add a PEFT LoRA in float32 to a diffusers transformer; it changes nothing until it is trained.

    idle: layers that are left out, because nothing comes of what they say.
    Raises SdgError for a target the model has no layer for.
    """
    from peft import LoraConfig

    targets = list(lora.targets or ATTENTION)
    layers = [name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]
    found = [matching_layers(layers, target, "policy.lora.targets") for target in targets]
    if left_out := set(idle):
        targets = [layer for names in found for layer in names if layer not in left_out]
    torch.manual_seed(seed)  # the same first weights on every process
    transformer.add_adapter(LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=targets))
    for parameter in lora_parameters(transformer).values():
        parameter.data = parameter.data.float()


def lora_parameters(transformer: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters by name, in the model's order: an adapter's, or those of a whole model."""
    return {name: p for name, p in transformer.named_parameters() if p.requires_grad}


def save_lora(policy: Any, folder: Path, *, write: bool = True) -> Path:
    """Write the adapter's present weights to folder/pytorch_lora_weights.safetensors, whole or not at all.

    The file carries rank and alpha, so that `pipeline.load_lora_weights(folder)` gives the same pictures.
    write: whether this process does; of sharded weights all have to take part.
    """
    from diffusers.training_utils import _collate_lora_metadata
    from peft.utils import get_peft_model_state_dict

    present = get_peft_model_state_dict(policy.transformer)
    layers = {name: whole(value, keep=write) for name, value in present.items()}
    if not write:
        return folder / WEIGHTS
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        policy.pipeline_class().save_lora_weights(
            temporary,
            transformer_lora_layers={k: v.contiguous() for k, v in layers.items() if v is not None},
            **_collate_lora_metadata({"transformer": policy.transformer}),
        )
        return (Path(temporary) / WEIGHTS).replace(folder / WEIGHTS)


def require_lora(folder: Path | str) -> Path:
    """The file of the adapter in a folder; raises SdgError where there is none that can be used."""
    if not (file := Path(folder) / WEIGHTS).is_file():
        raise SdgError(f"{folder} holds no adapter ({WEIGHTS} is missing); check the path.")
    with loading(f"{file} cannot be read as an adapter"), safe_open(file, "pt") as opened:
        limited = "sdg_above" in (opened.metadata() or {})
    if limited:  # by version 0.1's policy.lora.above
        raise SdgError(f"{folder} acts at some noise levels alone, which 0.1 could; train it anew.")
    return file


def changes_nothing(folder: Path | str) -> bool:
    """Whether a folder holds an adapter that was never trained; raises SdgError as `require_lora` does."""
    file = require_lora(folder)
    with loading(f"{file} cannot be read as an adapter"), safe_open(file, "pt") as opened:
        outer = [name for name in opened.keys() if ".lora_B." in name]  # noqa: SIM118 - it is no mapping
        return bool(outer) and not any(opened.get_tensor(name).any() for name in outer)


def start_from(transformer: Any, pipeline_class: Any, folder: str) -> None:
    """Give the adapter that `add_lora` made the weights of one that `save_lora` wrote.

    Raises SdgError where the folder holds none, or one of another rank, alpha, layers or model.
    """
    from peft.utils import set_peft_model_state_dict

    file = require_lora(folder)
    with loading(f"{file} cannot be read as an adapter"):
        state, metadata = pipeline_class.lora_state_dict(
            Path(folder), weight_name=file.name, return_lora_metadata=True
        )
    stored = {name.removeprefix("transformer."): value for name, value in state.items()}
    known = {
        name.replace(".default.", "."): tuple(parameter.shape)
        for name, parameter in lora_parameters(transformer).items()
    }
    own = transformer.peft_config["default"]
    alpha = (metadata or {}).get("transformer.lora_alpha", own.r)
    if {name: tuple(value.shape) for name, value in stored.items()} != known or alpha != own.lora_alpha:
        raise SdgError(
            f"{folder} holds an adapter of another rank, alpha or layers than policy.lora says; write there "
            "what it was trained with."
        )
    set_peft_model_state_dict(transformer, stored, adapter_name="default")


def load_lora(pipeline: Any, folder: Path | str, named: str) -> None:
    """Put an adapter that `save_lora` wrote on a pipeline, which errors call `named`.

    Raises SdgError where the folder holds none, or one of another model.
    """
    require_lora(folder)  # diffusers would look it up on the hub
    with loading(f"{folder} does not fit {named}"):
        pipeline.load_lora_weights(folder, weight_name=WEIGHTS)


class Ema:
    """An exponential moving average of parameters, kept beside them in their own type."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], limit: float) -> None:
        self.parameters, self.limit = dict(parameters), limit
        self.average: dict[str, Tensor] = {k: p.detach().clone() for k, p in parameters.items()}

    def update(self, time: int) -> None:
        """Move towards the present weights with decay min(limit, (1+t)/(10+t)), t counting from 0."""
        self.move(min(self.limit, (1 + time) / (10 + time)))

    @torch.no_grad()
    def move(self, decay: float) -> None:
        """Keep the share `decay` of the average, and take the rest from the present weights."""
        for name, parameter in self.parameters.items():
            self.average[name].lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with averaged weights inside, and with its own again afterwards.

        The two change places, so that no third copy is needed; `average` is not to be read inside.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            own = parameter.detach().clone()
            parameter.copy_(self.average[name])
            self.average[name].copy_(own)
