"""Sections of a recipe that every trainer has: LoRA, optimizer, run; a trainer adds keys in a subclass."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sdg.errors import SdgError

Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine"]
"""The learning rate's course, by its name in transformers and diffusers."""


@dataclass(frozen=True)
class LoraRecipe:
    """The adapter that is trained."""

    r: int = 64  # rank
    alpha: int = 128  # the adapter is scaled by alpha ÷ r
    targets: tuple[str, ...] = ()  # names of layers, or the ends of names; of none, the attention layers

    def __post_init__(self) -> None:
        positive(self, "r", "alpha")


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """AdamW, and the course of its learning rate."""

    learning_rate: float  # AdamW's, at its highest
    schedule: Schedule  # linear and cosine fall to 0
    weight_decay: float = 0.0  # AdamW's
    betas: tuple[float, ...] = (0.9, 0.999)  # AdamW's
    grad_norm: float = 1.0  # gradients are clipped to this norm

    def __post_init__(self) -> None:
        positive(self, "learning_rate", "grad_norm")
        if self.weight_decay < 0:
            raise ValueError("weight_decay is not negative.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas are two numbers, at least 0 and below 1.")


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    """What a run keeps, and whom it tells."""

    keep: int = 2  # newest checkpoints that stay; of a detector beside the best one
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()  # where log.jsonl's numbers go as well

    def __post_init__(self) -> None:
        positive(self, "keep")


def positive(section: object, *names: str) -> None:
    """Raise ValueError for the first of these keys whose value is 0 or less; None is left out."""
    for name in names:
        value = getattr(section, name)
        if value is not None and value <= 0:
            raise ValueError(f"{name} is above 0, not {value}.")


def check_seed(seed: int) -> None:
    """Raise ValueError for a negative seed, which numpy would refuse later."""
    if seed < 0:
        raise ValueError("seed is not negative.")


def check_name(name: str) -> None:
    """Raise ValueError for what cannot name a measure in logs and tables."""
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"name is letters, digits, - and _, not {name!r}.")


def require_trackers(trackers: Iterable[str]) -> None:
    """Raise SdgError where a recipe's tracker is not installed."""
    for tracker in trackers:
        if importlib.util.find_spec(tracker) is None:
            raise SdgError(f"run.trackers names {tracker}, which is not installed; pip install {tracker}.")
