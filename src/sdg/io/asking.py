"""Requests that go out one by one, as what they are about comes up, each with a future of its own.

An event loop in a thread of its own keeps the connections open from one request to the next.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar, runtime_checkable

from sdg.io.http import SHARING

R = TypeVar("R")
Ask = Callable[..., Awaitable[R]]
"""One request, over connections that are open."""

FILES: Final = 256
"""Open files that are left for everything that is no connection to a server."""
MOST: Final = 1 << 12
"""Requests at a time, however many files the system allows."""


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
        self._connected, self._at_once = connected, min(at_once or MOST, free_sockets())
        self._inbox: asyncio.Queue[tuple[tuple[Any, ...], Future[R]]] = asyncio.Queue()
        self._waiting: set[Future[R]] = set()
        self._serving: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="sdg-asking", daemon=True)
        self._thread.start()
        started.wait()

    def submit(self, *arguments: Any) -> Future[R]:
        """Send a request, and return at once; the future has what `ask(*arguments)` returns or raises."""
        future: Future[R] = Future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        self._loop.call_soon_threadsafe(self._inbox.put_nowait, (arguments, future))
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._serving is not None
        self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join()

    def _run(self, started: threading.Event) -> None:
        async def serve() -> None:
            self._serving = asyncio.current_task()
            self._loop.set_exception_handler(lambda loop, context: None)  # of connections torn down
            started.set()
            await self._serve()

        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(serve())
        except asyncio.CancelledError:  # the way this ends
            pass
        finally:
            for future in list(self._waiting):  # nobody is left to wait for in vain
                future.cancel()

    async def _serve(self) -> None:
        room = asyncio.Semaphore(self._at_once)
        lines: list[_Line[R]] = []
        tasks: set[asyncio.Task[None]] = set()

        async def answer(line: _Line[R], arguments: tuple[Any, ...], future: Future[R]) -> None:
            try:
                result = await line.ask(*arguments)
            except Exception as error:  # which whoever waits for the future raises
                future.set_exception(error)
            else:
                future.set_result(result)
            finally:
                line.out -= 1
                room.release()

        async with AsyncExitStack() as stack:
            try:
                while True:
                    arguments, future = await self._inbox.get()
                    await room.acquire()
                    line = min(lines, key=lambda line: line.out, default=None)
                    if line is None or line.out >= SHARING:
                        try:
                            line = _Line(await stack.enter_async_context(self._connected()))
                        except Exception as error:
                            future.set_exception(error)
                            room.release()
                            continue
                        lines.append(line)
                    line.out += 1
                    task = asyncio.create_task(answer(line, arguments, future))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


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
