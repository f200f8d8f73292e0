"""Several processes that share one run's work, as torchrun starts them: which part is whose, waiting for all.

They speak over the CPU (gloo) at the beginning and the end alone, so one may be hours behind another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from sdg.errors import SdgError

T = TypeVar("T")
_TIMEOUT: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among `count`; rank 0 is the main one, which begins and ends the run."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, work: Sequence[T]) -> Sequence[T]:
        """What of the work is this process's: every `count`-th piece."""
        return work[self.rank :: self.count]

    def from_main(self, value: T | None = None) -> T:
        """The main process's value, for all; each waits for it."""
        held: list[Any] = [value]
        if self.count > 1:
            from torch.distributed import broadcast_object_list

            broadcast_object_list(held)
        found: T = held[0]
        return found

    def wait(self) -> None:
        """Return once every process is here."""
        if self.count > 1:
            from torch.distributed import barrier

            barrier()

    @contextmanager
    def on_main(self, context: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
        """A context that the main process alone enters; all yield what it yields, or raise its SdgError."""
        with ExitStack() as stack:
            found: tuple[T | None, str] = (None, "")
            if self.is_main:
                try:
                    found = (stack.enter_context(context()), "")
                except SdgError as error:
                    found = (None, str(error))
            value, refusal = self.from_main(found)
            if refusal:
                raise SdgError(refusal)
            yield value  # type: ignore[misc]  # None only beside a refusal


def even_share(count: int, rank: int, processes: int) -> list[int]:
    """One process's part of so many pieces of work: as many on each, so that some are done twice.

    Where all work together on each piece, as with sharded weights, none works while another does not.
    """
    return [index % count for index in range(rank, -(-count // processes) * processes, processes)]


ALONE: Final = Processes()


@contextmanager
def shared() -> Iterator[Processes]:
    """The processes of this run; with several on GPUs, `cuda` is from here on this one's own GPU."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count < 2 or "RANK" not in os.environ:
        yield ALONE
        return
    import torch
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    distributed.init_process_group("gloo", timeout=_TIMEOUT)
    try:
        yield Processes(distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()
