"""How a run that trains an adapter begins, is refused, or is gone on with."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor

from sdg.errors import SdgError
from sdg.runs.checkpoint import latest_checkpoint, load_checkpoint
from sdg.runs.log import refuse_changes


class Checkpoint(NamedTuple):
    """What a run goes on from: its tensors, and JSON of where it was."""

    tensors: dict[str, Tensor]
    progress: dict[str, Any]


def start_accelerator(trackers: Sequence[str], out: Path) -> Accelerator:
    """Accelerate for plain data parallelism, with these trackers; raises SdgError for any other setup."""
    for tracker in trackers:
        if importlib.util.find_spec(tracker) is None:
            raise SdgError(f"run.trackers names {tracker}, which is not installed; pip install {tracker}.")
    # The policy applies autocast itself, in roll-out and training alike, so Accelerate must not.
    accelerator = Accelerator(mixed_precision="no", log_with=list(trackers) or None, project_dir=str(out))
    plain = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    if accelerator.distributed_type not in plain:
        raise SdgError(
            "Alignment trains an adapter by plain data parallelism; start it with torchrun or with an "
            "accelerate configuration without DeepSpeed and FSDP."
        )
    return accelerator


def resume_point(
    out: Path, settings: Mapping[str, Any], *, resume: bool, free: Collection[str], epochs: int
) -> Checkpoint | None:
    """The newest checkpoint of a run that is gone on with; None where a run begins.

    settings: JSON of what the run depends on, which its checkpoints' progress holds; `free` are dotted names
    of what may differ. Raises SdgError where there is a run and `resume` is not asked for, or another run
    than this, or one of more than `epochs`.
    """
    folder = latest_checkpoint(out)
    if folder is None:
        return None
    if not resume:
        raise SdgError(f"{out} holds an earlier run; add --resume to go on with it, or name another folder.")
    tensors, progress = load_checkpoint(folder)
    refuse_changes({name: progress.get(name, now) for name, now in settings.items()}, settings, free)
    if progress["epoch"] > epochs:
        raise SdgError(
            f"{out} holds {progress['epoch']} epochs already and the recipe has {epochs}; "
            "raise optimizer.steps, or name another folder."
        )
    return Checkpoint(tensors, progress)
