"""Published generators whose transformers can be built at real size without weights: `configs/*.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import torch


@dataclass(frozen=True)
class KnownModel:
    """A published generator: its family, its id on the hub, and its transformer's configuration."""

    family: str
    model: str
    transformer: dict[str, Any]

    def on_meta(self) -> Any:
        """Its diffusers transformer on the meta device: shapes and names, without weights."""
        import diffusers

        settings = dict(self.transformer)
        with torch.device("meta"):
            transformer = getattr(diffusers, settings.pop("_class_name"))(**settings)
        return transformer.requires_grad_(False)


@cache
def known_models() -> dict[str, KnownModel]:
    """The published generators by their ids on the hub."""
    folder = files("sdg.alignment.policies") / "configs"
    found = [
        KnownModel(**json.loads(file.read_text("utf-8")))
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".json")
    ]
    return {known.model: known for known in found}
