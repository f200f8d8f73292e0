"""Training state on disk: safetensors and JSON in one folder a checkpoint, there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdg.errors import SdgError
from sdg.io.files import remove_folder, replace_folder, tidy, writing

TENSORS, PROGRESS = "state.safetensors", "progress.json"
FOLDER: Final = "checkpoints"


class Checkpoint(NamedTuple):
    """What a run goes on from: its tensors, and JSON of where it was."""

    tensors: dict[str, Tensor]
    progress: dict[str, Any]


def save_checkpoint(
    out: Path, number: int, tensors: Mapping[str, Tensor], progress: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write out/checkpoints/000012 and remove all but the newest `keep`; raises SdgError if the disk refuses.

    number: of the step or epoch that the state was reached with. A kill at any moment leaves the checkpoint
    before or the new one.
    """
    folder = out / FOLDER / f"{number:06d}"
    state = _apart(tensors)

    def write(fresh: Path) -> None:
        save_file(state, fresh / TENSORS)
        (fresh / PROGRESS).write_text(json.dumps(progress, indent=1), encoding="utf-8")

    with writing(folder):
        tidy(out / FOLDER)
        replace_folder(folder, write)
        for old in _checkpoints(out)[:-keep]:
            remove_folder(old)
    return folder


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU that share no memory, as safetensors wants; copied only where need be."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        held = value.detach().cpu().contiguous()
        storage = held.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != held.nbytes:
            held = held.clone()
        seen.add(held.untyped_storage().data_ptr())
        state[name] = held
    return state


def latest_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint of a run's folder, or None."""
    tidy(out / FOLDER)
    found = _checkpoints(out)
    return found[-1] if found else None


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and progress of a checkpoint; raises SdgError where it is damaged."""
    try:
        return load_file(folder / TENSORS), json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise SdgError(f"{folder} is damaged ({error}); remove it to resume from the one before.") from error


def resume_point(out: Path, epochs: int) -> Checkpoint | None:
    """The newest checkpoint of a run that is gone on with; None where it has none yet.

    Raises SdgError where it is damaged, or of more epochs than the run is to have.
    """
    folder = latest_checkpoint(out)
    if folder is None:
        return None
    tensors, progress = load_checkpoint(folder)
    if progress["epoch"] > epochs:
        raise SdgError(
            f"{out} holds {progress['epoch']} epochs already and the recipe has {epochs}; "
            "raise optimizer.steps, or name another folder."
        )
    return Checkpoint(tensors, progress)


def _checkpoints(out: Path) -> list[Path]:
    found = (path for path in (out / FOLDER).glob("*") if path.name.isdecimal())
    return sorted(found, key=lambda path: int(path.name))


def optimizer_tensors(optimizer: torch.optim.Optimizer, name: str = "optimizer") -> dict[str, Tensor]:
    """An optimizer's state as flat tensors, "NAME.PARAMETER.KEY"; name: without a dot, one an optimizer."""
    state = optimizer.state_dict()["state"]
    return {
        f"{name}.{number}.{key}": torch.as_tensor(value)
        for number, values in state.items()
        for key, value in values.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    name: str = "optimizer",
    place: Callable[[Tensor, Tensor], Tensor] = lambda value, parameter: value,
) -> None:
    """The inverse of `optimizer_tensors`, on an optimizer of the same parameters.

    place: makes of a tensor and the parameter it belongs to what the optimizer is to have of it here.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for full, value in tensors.items():
        if full.startswith(f"{name}."):
            _, number, key = full.split(".", 2)
            state.setdefault(int(number), {})[key] = place(value, parameters[int(number)])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
