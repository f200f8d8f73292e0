"""Lines before a server: what callers that hang up leave behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import wait
from contextlib import asynccontextmanager

from PIL import Image

from sdg.images import Pair
from sdg.io.asking import Ask
from sdg.serve.lanes import ServerLane

PICTURE = Image.new("RGB", (2, 2))


class Slow:
    """A server that answers one prompt and keeps every other one waiting."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.out = 0

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Ask[str]]:
        yield self.ask

    async def ask(self, pair: Pair, number: int) -> str:
        self.begun.append(pair[1])
        self.out += 1
        try:
            while pair[1] != "answered":
                await asyncio.sleep(0.001)
            return pair[1]
        finally:
            self.out -= 1


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_who_hangs_up_leaves_the_line_and_gives_their_place_to_the_next() -> None:
    slow = Slow()
    lane = ServerLane(slow.connected, at_once=2)
    for _ in range(3):  # each time as many as the line has places for, and more
        begun = len(slow.begun)
        left = [lane.submit((PICTURE, "waiting")) for _ in range(6)]
        until(lambda begun=begun: len(slow.begun) == begun + 2)
        for future in reversed(left):  # those that wait first, or they would begin meanwhile
            lane.give_up(future)
        wait(left, 30)
        until(lambda: slow.out == 0)
    assert lane.submit((PICTURE, "answered")).result(30) == "answered"
    assert slow.begun == ["waiting"] * 6 + ["answered"]
    lane.close()
