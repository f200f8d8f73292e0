"""Continuous batching: pairs of many callers wait in one line, of which a model takes a batch at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Final, Generic, Protocol, TypeVar

from sdg.images import Pair
from sdg.io.asking import Ask, Asking

R = TypeVar("R")
Connected = Callable[[], AbstractAsyncContextManager[Ask[R]]]
GATHERING: Final = 0.005
"""Seconds for which a batch that is not full waits for callers that have just been answered."""


class Lane(Protocol[R]):
    """A way to one model."""

    def submit(self, pair: Pair) -> Future[R]:
        """Queue a pair, and return at once; the future has the result, or raises why there is none."""
        ...

    def give_up(self, future: Future[R]) -> None:
        """Leave out what nobody waits for any more, if it has not begun, and break off what can be."""
        ...

    def close(self) -> None:
        """End; what still waits is cancelled."""
        ...


class BatchLane(Generic[R]):
    """One thread that hands a model in memory what waits, up to `size` pairs, first come, first served.

    run: one result a pair; where it raises, each pair is run by itself, so that a bad one costs itself alone.
    seen: called with the size of each batch.
    """

    def __init__(
        self, run: Callable[[list[Pair]], Sequence[R]], size: int, seen: Callable[[int], object]
    ) -> None:
        self._run, self._size, self._seen = run, size, seen
        self._line: deque[tuple[Pair, Future[R]]] = deque()
        self._change, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name="sdg-lane", daemon=True)
        self._thread.start()

    def submit(self, pair: Pair) -> Future[R]:
        future: Future[R] = Future()
        with self._change:
            if self._closed:
                future.cancel()
                return future
            self._line.append((pair, future))
            self._change.notify()
        return future

    def give_up(self, future: Future[R]) -> None:
        future.cancel()  # whoever takes it out of the line sees that

    def close(self) -> None:
        with self._change:
            self._closed = True
            for _, future in self._line:
                future.cancel()
            self._line.clear()
            self._change.notify()
        self._thread.join(timeout=30)  # of the batch that is being run

    def _work(self) -> None:
        while batch := self._next():
            self._seen(len(batch))
            self._answer(batch)
            batch.clear()  # pictures must not stay until the next batch comes

    def _next(self) -> list[tuple[Pair, Future[R]]]:
        """The next batch; empty once the lane is closed."""
        batch: list[tuple[Pair, Future[R]]] = []
        with self._change:
            while not batch and not self._closed:
                self._change.wait_for(lambda: self._line or self._closed)
                until = time.monotonic() + GATHERING
                while len(self._line) < self._size and not self._closed:
                    if (left := until - time.monotonic()) <= 0:
                        break
                    self._change.wait(left)
                while self._line and len(batch) < self._size:
                    pair, future = self._line.popleft()
                    if future.set_running_or_notify_cancel():
                        batch.append((pair, future))
        return batch

    def _answer(self, batch: Sequence[tuple[Pair, Future[R]]]) -> None:
        try:
            results = self._run([pair for pair, _ in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(batch)} pairs got {len(results)} results.")
        except Exception as error:  # a model or a function of the user's may raise whatever it likes
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
        else:
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)
            return
        for one in batch:
            self._answer([one])


class ServerLane(Generic[R]):
    """Requests to a server that does its own batching, each sent as soon as it comes."""

    def __init__(self, connected: Connected[R], at_once: int | None) -> None:
        self._asking, self._count = Asking(connected, at_once), 0

    def submit(self, pair: Pair) -> Future[R]:
        self._count += 1
        return self._asking.submit(pair, self._count)

    def give_up(self, future: Future[R]) -> None:
        future.cancel()  # which cancels the request, too, and gives its place to the next

    def close(self) -> None:
        self._asking.close()
