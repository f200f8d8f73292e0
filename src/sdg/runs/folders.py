"""The checkpoints of a from-scratch training: whole or not at all, and exactly what an undisturbed run had.

OUT/checkpoint/state.safetensors (weights, their average, optimizers)    OUT/checkpoint/progress.json
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdg.errors import SdgError
from sdg.io.files import write_text

STATE: Final = "state.safetensors"
META: Final = "progress.json"


def open_run(out: Path, resume: bool) -> Path:
    """The folder of a run's checkpoint, which need not exist yet.

    A save that was killed between its two renames is completed. Raises SdgError where a checkpoint lies
    there although the run is not to be resumed, or the folder cannot be made.
    """
    folder = out / "checkpoint"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SdgError(f"{out} cannot be made: {error.strerror or error}.") from error
    restore_folder(folder)
    if folder.exists() and not resume:
        raise SdgError(
            f"{folder} holds an earlier run: add --resume to go on with it, or name another folder."
        )
    return folder


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    average: dict[str, Tensor],
    optimizers: list[torch.optim.Optimizer],
    step: int,
    seed: int,
) -> None:
    """Write everything that `load_checkpoint` needs in place of what `folder` held."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for index, optimizer in enumerate(optimizers):
        for key, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}.{name}": torch.as_tensor(v) for name, v in state.items()}
    tensors = {k: v.detach().clone().contiguous() for k, v in tensors.items()}

    def write(fresh: Path) -> None:
        save_file(tensors, fresh / STATE)
        (fresh / META).write_text(json.dumps({"step": step, "seed": seed}))

    replace_folder(folder, write)


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    average: dict[str, Tensor],
    optimizers: list[torch.optim.Optimizer],
    seed: int,
) -> int:
    """Fill model, average and optimizers from a checkpoint; returns the steps they have seen.

    Raises SdgError where the checkpoint was made with another seed, or is that of another model.
    """
    progress = json.loads((folder / META).read_text())
    if progress.get("seed", seed) != seed:
        raise SdgError(f"{folder} was trained with seed {progress['seed']}, not {seed}: name that seed.")
    tensors = load_file(folder / STATE)
    try:
        model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    except RuntimeError as error:
        raise SdgError(f"{folder} holds a run of another model; name another folder.") from error
    for name in average:
        average[name].copy_(tensors[f"average.{name}"])
    for index, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        prefix = f"optimizer.{index}."
        for key, value in tensors.items():
            if key.startswith(prefix):
                number, name = key[len(prefix) :].split(".", 1)
                state.setdefault(int(number), {})[name] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(progress["step"])


def trim_log(log: Path, step: int) -> None:
    """Drop what was reported after the checkpoint: those steps are taken, and reported, again."""
    if log.exists():
        lines = log.read_text("utf-8").splitlines(keepends=True)
        # A line that a kill cut short has no end, and comes after every whole one.
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        write_text(log, "".join(kept))


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Fill a new folder by `write` and put it in the place of `folder`, so that a kill never leaves half.

    The one moment at which `folder` does not exist leaves its contents under `.old`; see `restore_folder`.
    """
    fresh, old = _beside(folder, ".writing"), _beside(folder, ".old")
    restore_folder(folder)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    if folder.exists():
        folder.replace(old)
    fresh.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Tidy up after a `replace_folder` that was killed: the folder is what it was before, or the new one."""
    old = _beside(folder, ".old")
    if not folder.exists() and old.exists():
        old.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(folder.name + ending)
