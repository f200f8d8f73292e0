"""Requests that go out one by one, as what they are about comes up, each with a future of its own.

An event loop in a thread of its own keeps the connections open from one request to the next.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, Protocol, Self, TypeVar, runtime_checkable

from sdg.io.http import SHARING

R = TypeVar("R")
T = TypeVar("T")
Ask = Callable[..., Awaitable[R]]
"""One request, over connections that are open."""

FILES: Final = 256
"""Open files that are left for everything that is no connection to a server."""
MOST: Final = 1 << 12
"""Requests at a time, however many files the system allows."""


@asynccontextmanager
async def asked_over(
    opened: AbstractAsyncContextManager[T], answer: Callable[..., Awaitable[R]]
) -> AsyncIterator[Ask[R]]:
    """What asks over the connections of a context while that lasts: `answer`, which gets them first."""
    async with opened as connections:
        yield partial(answer, connections)


@runtime_checkable
class Askable(Protocol):
    """What a server answers, and so may be asked about many pictures at once."""

    @property
    def at_once(self) -> int | None:
        """Requests at a time that the user allows; None for as many as there are."""
        ...

    def connected(self) -> AbstractAsyncContextManager[Ask[Any]] | None:
        """Connections to ask over while the context lasts; None where no server answers, but a model here.

        It may be called several times, for connections of their own.
        """
        ...


@dataclass(slots=True, eq=False)
class _Line(Generic[R]):
    """Connections of one context, and how many requests are out over them."""

    ask: Ask[R]
    out: int = 0


class Asking(Generic[R]):
    """Sends each request as soon as it is submitted, whatever became of those before it.

    connected: see `Askable`; called again for every SHARING requests that are out. at_once: requests at a
    time, None for as many as the system has files for. Leaving the context gives up what is still out.
    """

    def __init__(
        self, connected: Callable[[], AbstractAsyncContextManager[Ask[R]]], at_once: int | None = None
    ) -> None:
        self._connected, self._connections = connected, AsyncExitStack()
        self._room = asyncio.Semaphore(min(at_once or MOST, free_sockets()))
        self._lines: list[_Line[R]] = []
        self._choosing = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: None)  # of connections torn down
        self._thread = threading.Thread(target=self._run, name="sdg-asking", daemon=True)
        self._thread.start()

    def submit(self, *arguments: Any) -> Future[R]:
        """Send a request, and return at once; the future has what `ask(*arguments)` returns or raises."""
        return asyncio.run_coroutine_threadsafe(self._answer(arguments), self._loop)

    def close(self) -> None:
        """Give up what is still out, which is cancelled, so that nobody waits for it in vain."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()

    async def _answer(self, arguments: tuple[Any, ...]) -> R:
        async with self._room:
            line = await self._line()
            try:
                return await line.ask(*arguments)
            finally:
                line.out -= 1

    async def _line(self) -> _Line[R]:
        """Connections with room for one more request, which counts as being out over them from now on."""
        async with self._choosing:
            line = min(self._lines, key=lambda line: line.out, default=None)
            if line is None or line.out >= SHARING:
                line = _Line(await self._connections.enter_async_context(self._connected()))
                self._lines.append(line)
            line.out += 1
            return line

    async def _end(self) -> None:
        out = asyncio.all_tasks() - {asyncio.current_task()}
        for task in out:
            task.cancel()
        await asyncio.gather(*out, return_exceptions=True)
        try:
            await self._connections.aclose()
        finally:
            self._loop.stop()


def free_sockets() -> int:
    """Connections that each of two servers may have, after asking the system for all files it allows."""
    try:
        import resource
    except ImportError:  # not on Windows
        return FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST + FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        except (OSError, ValueError):
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else max(1, min(MOST, (soft - FILES) // 2))
