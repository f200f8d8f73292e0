"""How the processes of a run start, and how long they wait for one that waits for its servers.

A collective operation that takes longer than the process group's time-out ends the run with a traceback. So
it is set above what the slowest picture may take, after which the run says itself what it lacks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    gather_object,
)

from sdg.alignment.recipe import AlignRecipe
from sdg.detectors import openai, parts_of
from sdg.errors import SdgError
from sdg.io.http import longest_wait
from sdg.io.uri import count, seconds, split_options
from sdg.scorers import remote, unified_reward
from sdg.sections import require_trackers

MARGIN: Final = timedelta(minutes=30)
"""For all else that one process may do while others wait: loading, drawing, figures, checkpoints."""

_SERVERS: Final = {
    "openai": (openai.TIMEOUT, openai.ATTEMPTS, openai.CONCURRENCY, "concurrency"),
    "unified-reward": (
        unified_reward.TIMEOUT,
        unified_reward.ATTEMPTS,
        unified_reward.PARALLEL,
        "parallel",
    ),
    "remote": (remote.TIMEOUT, remote.ATTEMPTS, remote.BATCH, "batch"),
}
"""Scheme -> its defaults, and the option that limits requests at a time, or pictures of one."""


def start_accelerator(
    trackers: Sequence[str], out: Path, timeout: timedelta, *, some_idle: bool = False
) -> Accelerator:
    """Accelerate for plain data parallelism, with these trackers; raises SdgError for any other setup.

    timeout: of the process group, how long one process may keep the others waiting. some_idle: whether a pass
    may leave some of what is trained without a gradient.
    """
    require_trackers(trackers)
    # The policy applies autocast itself, in roll-out and training alike, so Accelerate must not.
    accelerator = Accelerator(
        cpu=torch.backends.mps.is_available(),  # noise levels are in float64, which Apple's GPUs lack
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


def require_same_start(epoch: int, processes: int) -> None:
    """Raise SdgError where the processes would go on from different epochs: they see different folders."""
    if processes > 1 and len(set(gather_object([epoch]))) > 1:
        raise SdgError(
            "The processes of this run see different checkpoints; --out has to be a folder that all machines "
            "see."
        )


def group_timeout(recipe: AlignRecipe) -> timedelta:
    """What the process group's time-out has to be: the longest wait for all servers, one after the other."""
    uris = [uri for _, uri in recipe.scorer_uris]
    uris += [part for _, uri in recipe.detector_uris for part in parts_of(uri)]
    return MARGIN + timedelta(seconds=sum(_longest_wait(uri, recipe) for uri in uris))


def _longest_wait(uri: str, recipe: AlignRecipe) -> float:
    """Seconds that a process may wait for a server's view of an epoch's or the monitor's pictures."""
    address, options = split_options(uri)
    scheme = address.partition(":")[0]
    if scheme not in _SERVERS:
        return 0.0
    timeout, attempts, usual, limit = _SERVERS[scheme]
    looks = _option(options, "looks", count, 1)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    batch = recipe.sampling.batch_size
    watched = ceil(ceil(recipe.monitor.prompts / processes) / batch)  # batches, one after the other
    drawn = ceil(recipe.groups.prompts * recipe.groups.size / processes)
    together = _option(options, limit, count, usual)
    rounds = watched * ceil(batch * looks / together)
    if scheme == "remote":  # its requests come one after the other
        rounds = max(rounds, ceil(drawn / min(batch, together)))
    elif limit in options:  # without it all of an epoch's are out at once
        rounds = max(rounds, ceil(drawn * looks / together))
    one = longest_wait(
        _option(options, "timeout", seconds, timeout), _option(options, "attempts", count, attempts)
    )
    return rounds * one


def _option(options: dict[str, str], name: str, read: Callable[[str], Any], default: Any) -> Any:
    """An option's value; the default where it has none, or one that loading will refuse."""
    try:
        return read(options[name]) if name in options else default
    except ValueError:
        return default
