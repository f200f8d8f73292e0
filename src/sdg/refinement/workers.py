"""The same work on many things, several at a time in threads, each result handed out as it comes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def as_completed(work: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[R]:
    """The result of `work` for each task; one worker takes them in order, in the caller's own thread.

    Several take them in order, and finish as they finish. What `work` raises is raised here, and no
    further task is begun then, nor once the iterator is closed. Their threads are daemons: one that waits for
    a server keeps no process alive that was told to stop.
    """
    if workers == 1:
        yield from map(work, tasks)
        return
    waiting, stop = deque(tasks), threading.Event()
    done: SimpleQueue[Future[R]] = SimpleQueue()

    def run() -> None:
        while not stop.is_set():
            try:
                task = waiting.popleft()
            except IndexError:
                return
            result: Future[R] = Future()
            try:
                result.set_result(work(task))
            except BaseException as error:  # handed to the caller's thread, which raises it
                result.set_exception(error)
            done.put(result)

    for _ in range(min(workers, len(tasks))):
        threading.Thread(target=run, name="sdg-refine", daemon=True).start()
    try:
        for _ in tasks:
            yield done.get().result()
    finally:
        stop.set()
