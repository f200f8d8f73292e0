"""Numbered tasks shared by processes that `os.fork` makes: whoever is free takes the next one.

On Linux. `multiprocessing` takes longer to load than reading a megabyte of lines.
"""

from __future__ import annotations

import mmap
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, NoReturn, TypeVar

T = TypeVar("T")

MOST_TASKS: Final = 1024
"""Tasks that fit into the smallest pipe, whose numbers lie in one from the start."""
_WIDTH: Final = 4  # bytes of a number


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def can_fork() -> bool:
    """Whether processes can be made here, and safely: not with threads."""
    return hasattr(os, "memfd_create") and threading.active_count() == 1


class Baton:
    """A few bytes that processes hold one after another; who dies with them in hand lays them down.

    Made before the processes that share it.
    """

    def __init__(self, content: bytes) -> None:
        self._lock = os.memfd_create("baton")
        self._content = mmap.mmap(-1, len(content))
        self._content[:] = content

    @contextmanager
    def held(self) -> Iterator[mmap.mmap]:
        """The bytes, to read and to write in place; nobody else has them meanwhile."""
        import fcntl

        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            yield self._content
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give back what it took."""
        os.close(self._lock)
        self._content.close()


class Crew(Generic[T]):
    """Processes that begin with the tasks at once; this process joins them when it asks for the results.

    work: is given the tasks it takes, one by one and in ascending order, and makes one result of them all.
    tasks: 0 to tasks − 1, each given once; up to MOST_TASKS. processes: with this one; fewer where the system
    has no more to give. Raises OSError where it has no pipe for the tasks.
    """

    def __init__(self, work: Callable[[Iterator[int]], T], tasks: int, processes: int) -> None:
        if tasks > MOST_TASKS:
            raise ValueError(f"There are {MOST_TASKS} tasks at most, not {tasks}.")
        self._work = work
        self._queue, writer = os.pipe()
        os.write(writer, b"".join(task.to_bytes(_WIDTH, "little") for task in range(tasks)))
        os.close(writer)
        self._running: list[tuple[int, int]] = []
        for _ in range(processes - 1):
            try:
                self._begin()
            except OSError:
                break

    def results(self) -> list[T | None]:
        """What each process made of its tasks, this one first; None where one came to grief.

        Raises whatever `work` raises in this process.
        """
        found: list[T | None] = []
        try:
            found.append(self._work(self._taken()))
        finally:
            for task in self._running:
                found.append(_result(*task))
            os.close(self._queue)
        return found

    def _begin(self) -> None:
        reader, writer = os.pipe()
        try:
            process = os.fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            raise
        if not process:
            self._answer(writer)
        os.close(writer)
        self._running.append((process, reader))

    def _taken(self) -> Iterator[int]:
        while number := os.read(self._queue, _WIDTH):
            yield int.from_bytes(number, "little")

    def _answer(self, writer: int) -> NoReturn:
        """Write the result and end, without anything that the parent does at its end."""
        try:
            result = pickle.dumps(self._work(self._taken()), pickle.HIGHEST_PROTOCOL)
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(result)
        finally:
            os._exit(0)


def _result(process: int, reader: int) -> Any:
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    os.waitpid(process, 0)
    try:
        return pickle.loads(content)
    except (EOFError, pickle.UnpicklingError):
        return None
