"""Sections of a recipe that every trainer has: LoRA, optimizer, run; a trainer adds keys in a subclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LoraRecipe:
    """The adapter that is trained. targets: names of layers, or the ends of names; () takes the trainer's."""

    r: int = 64
    alpha: int = 128
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        positive(r=self.r, alpha=self.alpha)


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """AdamW, and the course of its learning rate."""

    learning_rate: float
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"]
    weight_decay: float = 0.0
    betas: tuple[float, ...] = (0.9, 0.999)
    grad_norm: float = 1.0

    def __post_init__(self) -> None:
        positive(learning_rate=self.learning_rate, grad_norm=self.grad_norm)
        if self.weight_decay < 0:
            raise ValueError("weight_decay is not negative.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas are two numbers, at least 0 and below 1.")


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    """What a run keeps, and whom it tells."""

    keep: int = 2  # newest checkpoints
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()

    def __post_init__(self) -> None:
        positive(keep=self.keep)


def positive(**values: float | None) -> None:
    """Raise ValueError for a value that is 0 or less, by its name; None is left out."""
    for name, value in values.items():
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
