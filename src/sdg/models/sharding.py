"""Weights that lie in shards over processes (torch's FSDP2), and whole tensors out of shards and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def process_mesh(device: torch.device) -> DeviceMesh:
    """All processes of the run in one row, by the process group that is there, with its time-out.

    Each pass waits for the slowest process, which may wait for its servers.
    """
    world = distributed.group.WORLD
    assert world is not None, "there is no process group"
    return DeviceMesh.from_group(world, device.type)


def blocks(transformer: nn.Module) -> Iterator[nn.Module]:
    """The layers that a transformer runs one after the other: those of its lists of modules."""
    for child in transformer.children():
        if isinstance(child, nn.ModuleList):
            yield from child


def shard(
    transformer: nn.Module,
    mesh: DeviceMesh,
    *,
    kept: torch.dtype | None = None,
    computed: torch.dtype | None = None,
) -> None:
    """Leave each process its share of every weight, on the mesh's device; block by block, from the CPU.

    A pass gathers one block after the other, and every process has to take part in it. kept: in which type
    shards are kept, by default as they are. computed: in which they are gathered; gradients are added up in
    the type of what is trained.
    """
    policy = MixedPrecisionPolicy(param_dtype=computed, reduce_dtype=kept, cast_forward_inputs=False)
    for part in [*blocks(transformer), transformer]:
        if kept is not None:
            convert(part, kept)
        # Also those of the root: what is read or written between passes are shards.
        fully_shard(part, mesh=mesh, reshard_after_forward=True, mp_policy=policy)


def convert(module: nn.Module, dtype: torch.dtype) -> None:
    """Parameters, and not buffers, to another type; those that are sharded already stay."""
    for parameter in module.parameters():
        if not isinstance(parameter, DTensor):
            parameter.data = parameter.data.to(dtype)


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` was called on it."""
    return isinstance(module, FSDPModule)


def plain_class(module: nn.Module) -> Any:
    """The class that a module had before it was sharded."""
    return next(kind for kind in type(module).__mro__ if not issubclass(kind, FSDPModule))


def whole(tensor: Tensor, *, keep: bool = True) -> Tensor | None:
    """A tensor on the CPU, gathered where it is sharded, for which every process has to call this.

    keep: whether this process wants it; None otherwise.
    """
    gathered = tensor.detach()
    if isinstance(gathered, DTensor):
        gathered = gathered.full_tensor()
    return gathered.cpu() if keep else None


def share_of(value: Tensor, like: Tensor) -> Tensor:
    """What of a whole tensor belongs where `like` is: its shard, if that is one of a tensor of this shape.

    No process hears of another.
    """
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Scale gradients so that the norm of all, over all processes' shards, is at most the limit.

    Returns the norm that it was.
    """
    norm = nn.utils.clip_grad_norm_(list(parameters), limit)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
