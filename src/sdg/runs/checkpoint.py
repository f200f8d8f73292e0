"""Training state on disk: safetensors and JSON in one folder a checkpoint, there whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdg.errors import SdgError

TENSORS, PROGRESS = "state.safetensors", "progress.json"


def save_checkpoint(
    out: Path, epoch: int, tensors: Mapping[str, Tensor], progress: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write out/checkpoints/epoch-000012 and remove all but the newest `keep`."""
    root = out / "checkpoints"
    folder = root / f"epoch-{epoch:06d}"
    fresh = root / f".writing-{folder.name}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}, fresh / TENSORS)
    (fresh / PROGRESS).write_text(json.dumps(progress, indent=1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)
    for old in _checkpoints(out)[:-keep]:
        shutil.rmtree(old)
    return folder


def latest_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint of a run's folder, or None."""
    found = _checkpoints(out)
    return found[-1] if found else None


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and progress of a checkpoint; raises SdgError where it is damaged."""
    try:
        return load_file(folder / TENSORS), json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise SdgError(f"{folder} is damaged ({error}); remove it to resume from the one before.") from error


def _checkpoints(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").glob("epoch-*"))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as flat tensors, "optimizer.PARAMETER.NAME"."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{number}.{name}": torch.as_tensor(value)
        for number, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`, on an optimizer of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
