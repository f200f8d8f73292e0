"""How a run that trains a generator is set up, and where it goes on from."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs
from torch import Tensor

from sdg.errors import SdgError
from sdg.runs.checkpoint import latest_checkpoint, load_checkpoint


class Checkpoint(NamedTuple):
    """What a run goes on from: its tensors, and JSON of where it was."""

    tensors: dict[str, Tensor]
    progress: dict[str, Any]


def start_accelerator(
    trackers: Sequence[str], out: Path, timeout: timedelta, *, some_idle: bool = False
) -> Accelerator:
    """Accelerate for plain data parallelism, with these trackers; raises SdgError for any other setup.

    timeout: of the process group, how long one process may keep the others waiting. some_idle: whether a pass
    may leave some of what is trained without a gradient.
    """
    for tracker in trackers:
        if importlib.util.find_spec(tracker) is None:
            raise SdgError(f"run.trackers names {tracker}, which is not installed; pip install {tracker}.")
    # The policy applies autocast itself, in roll-out and training alike, so Accelerate must not.
    accelerator = Accelerator(
        mixed_precision="no",
        log_with=list(trackers) or None,
        project_dir=str(out),
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=timeout),
            DistributedDataParallelKwargs(find_unused_parameters=some_idle),
        ],
    )
    plain = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    if accelerator.distributed_type not in plain:
        raise SdgError(
            "Alignment does without Accelerate's DeepSpeed and FSDP; start it with torchrun or with an "
            "accelerate configuration that has neither. run.sharding: fsdp shares weights among processes."
        )
    return accelerator


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
