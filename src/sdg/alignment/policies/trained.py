"""What a run trains of a generator's transformer: an adapter, or all of it; and the files of either."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import torch

from sdg.alignment.recipe import PolicyRecipe
from sdg.errors import SdgError, loading
from sdg.io.files import replace_folder, writing
from sdg.models.lora import WEIGHTS, add_lora, save_lora
from sdg.models.sharding import plain_class, whole

CONFIG: Final = "config.json"
"""In a folder of diffusers' for a whole transformer; its weights lie beside it."""


def prepare_training(transformer: Any, recipe: PolicyRecipe, seed: int, idle: Iterable[str]) -> None:
    """Add the recipe's adapter to a frozen transformer, or free all its weights, in the type they have.

    idle: layers of which nothing comes, and which are not trained. Raises SdgError for a target the model
    has no layer for.
    """
    if recipe.lora is not None:
        add_lora(transformer, recipe.lora, seed, idle=idle)
        return
    transformer.requires_grad_(True)
    for name in idle:
        transformer.get_submodule(name).requires_grad_(False)


def save_trained(policy: Any, folder: Path, *, write: bool = True) -> None:
    """Write what is trained, as it is now, to a folder, whole or not at all.

    An adapter becomes `pytorch_lora_weights.safetensors`, see `save_lora`; a transformer a folder of
    diffusers', in the type that the recipe keeps weights in. write: whether this process does; of sharded
    weights all have to take part. Raises SdgError where the disk refuses.
    """
    with writing(folder):
        if policy.recipe.lora is not None:
            save_lora(policy, folder, write=write)
        else:
            _save_transformer(policy, folder, write)


def _save_transformer(policy: Any, folder: Path, write: bool) -> None:
    kept = getattr(torch, policy.recipe.dtype)
    weights = {
        name: value.to(kept) if value.is_floating_point() else value
        for name, part in policy.transformer.state_dict().items()
        if (value := whole(part, keep=write)) is not None
    }
    if not write:
        return
    with torch.device("meta"):
        copy = plain_class(policy.transformer).from_config(policy.transformer.config)
    copy.load_state_dict(weights, assign=True)
    replace_folder(folder, copy.save_pretrained)


def require_trained(folder: Path | str) -> Path:
    """The folder, if it holds an adapter or a transformer; raises SdgError otherwise."""
    if not any((Path(folder) / name).is_file() for name in (WEIGHTS, CONFIG)):
        raise SdgError(
            f"{folder} holds no adapter ({WEIGHTS}) and no transformer ({CONFIG}); name a run's best/ or "
            "final/ folder."
        )
    return Path(folder)


def holds_transformer(folder: Path) -> bool:
    """Whether a folder holds a whole transformer rather than an adapter."""
    return not (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()


def load_transformer(folder: Path, dtype: torch.dtype) -> Any:
    """The transformer that `save_trained` wrote, on the CPU; raises SdgError where it cannot be read."""
    import diffusers

    with loading(f"{folder} cannot be loaded as a transformer"):
        return diffusers.AutoModel.from_pretrained(str(folder), dtype=dtype, use_safetensors=True)


def trained_digest(folder: Path) -> str:
    """SHA-256 of the weights that `save_trained` wrote: their files one after the other."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
