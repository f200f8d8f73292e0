"""Requests one by one: all out at once, in any order, over connections that stay open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from sdg.errors import SdgError
from sdg.io.asking import Asking, free_sockets
from sdg.io.http import SHARING


class Gate:
    """Answers a number with its double once `open` is set for it; counts who is inside, and connections."""

    def __init__(self) -> None:
        self.inside, self.busiest, self.connections, self.closed = 0, 0, 0, 0
        self.doors: dict[int, threading.Event] = {}
        self.cancelled = 0

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Callable[[int], Awaitable[int]]]:
        self.connections += 1
        try:
            yield self.ask
        finally:
            self.closed += 1

    async def ask(self, number: int) -> int:
        self.inside += 1
        self.busiest = max(self.busiest, self.inside)
        try:
            while (door := self.doors.get(number)) is not None and not door.is_set():
                await asyncio.sleep(0.001)
            if number < 0:
                raise SdgError(f"{number} is negative.")
            return 2 * number
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.inside -= 1


def test_a_late_request_holds_up_no_other_and_errors_stay_with_their_own() -> None:
    gate = Gate()
    gate.doors[0] = threading.Event()
    with Asking(gate.connected) as asking:
        futures = [asking.submit(number) for number in (0, 1, -2, 3)]
        assert [futures[place].result(5) for place in (3, 1)] == [6, 2]
        with pytest.raises(SdgError, match="-2 is negative"):
            futures[2].result(5)
        assert not futures[0].done()
        gate.doors[0].set()
        assert futures[0].result(5) == 0
    assert gate.closed == gate.connections == 1


def test_all_are_out_at_once_and_later_ones_go_over_the_same_connections() -> None:
    gate = Gate()
    shut = threading.Event()
    together = 3 * SHARING
    gate.doors = dict.fromkeys(range(together), shut)
    with Asking(gate.connected) as asking:
        for _ in range(2):
            shut.clear()
            futures = [asking.submit(number) for number in range(together)]
            asking.submit(1000).result(5)  # was sent after all of them
            assert gate.inside == together
            shut.set()
            assert [future.result(5) for future in futures] == [2 * number for number in range(together)]
        assert gate.connections == 4  # of SHARING requests each, and one more
    assert gate.closed == 4


def test_no_more_are_out_than_the_user_allows() -> None:
    gate = Gate()
    with Asking(gate.connected, at_once=2) as asking:
        futures = [asking.submit(number) for number in range(20)]
        assert [future.result(5) for future in futures] == [2 * number for number in range(20)]
    assert gate.busiest <= 2


def test_leaving_gives_up_what_is_out_and_nobody_waits_in_vain() -> None:
    gate = Gate()
    gate.doors = {0: threading.Event()}
    with Asking(gate.connected, at_once=1) as asking:
        out, waiting = asking.submit(0), asking.submit(1)
        while not gate.inside:
            pass
    assert out.cancelled()
    assert waiting.cancelled()
    assert gate.cancelled == 1
    assert gate.closed == 1


def test_connections_that_cannot_be_made_are_an_error_of_the_request() -> None:
    @asynccontextmanager
    async def refused() -> AsyncIterator[Callable[[int], Awaitable[int]]]:
        raise SdgError("Asking a server needs httpx2.")
        yield

    with Asking(refused) as asking, pytest.raises(SdgError, match="needs httpx2"):
        asking.submit(1).result(5)


def test_there_is_room_for_connections_beside_files() -> None:
    assert 1 <= free_sockets() <= 1 << 12
