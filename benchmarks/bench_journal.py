"""`sdg diagnose` of a server that answers at once: answers a second, with rows synced in groups or singly.

Run: python benchmarks/bench_journal.py [PICTURES]
The server is a process of its own on this machine, so with two cores it takes a share of them, too.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

from PIL import Image

import sdg
from sdg.detectors import bulk
from sdg.runs.inputs import Item
from sdg.runs.journal import BATCH, journal

CONCURRENCY = 128
SIDE = 128
ANSWER = "<think>\nNothing is wrong .\n</think>\n<answer>\n[]\n</answer>"


def serve(port: Connection) -> None:
    """Answer every request on a free port with the same chat completion, as soon as it is read."""
    message = {"role": "assistant", "content": ANSWER}
    body = json.dumps({"choices": [{"finish_reason": "stop", "message": message}]}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(request.split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(head.encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**22)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def measured(uri: str, items: list[Item], folder: Path, batch: int) -> tuple[float, float, int]:
    """Answers a second, seconds of this process's CPU an answer, and calls of fsync."""
    calls, sync = [0], os.fsync

    def counted(file: int) -> None:
        calls[0] += 1
        sync(file)

    detector = sdg.load_detector(uri, profile="default", concurrency=CONCURRENCY)
    grouped = partial(journal, batch=batch)
    with mock.patch.object(bulk, "journal", grouped), mock.patch.object(os, "fsync", counted):
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        summary = bulk.run(detector, items, folder / f"{batch}-{time.monotonic_ns()}.jsonl")
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    assert not summary.failed, summary.failed[0]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return len(items) / seconds, cpu / len(items), calls[0]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there,), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = Image.effect_noise((SIDE, SIDE), 64).convert("RGB")
        picture.save(folder / "a.png")
        items = [Item(f"{number}.png", "a red ring", folder / "a.png") for number in range(count)]
        uri = f"openai:http://127.0.0.1:{here.recv()}/v1#stub"
        measured(uri, items[:200], folder, BATCH)  # imports, warm
        print(f"{count:,} pictures of {SIDE} px, {CONCURRENCY} requests at a time")
        rates = {}
        for batch, title in ((1, "one row a sync"), (BATCH, "rows in groups")) * 2:
            rate, cpu, calls = measured(uri, items, folder, batch)
            rates[batch] = max(rate, rates.get(batch, 0.0))
            print(f"{title}: {rate:5.0f} answers/s, {1e3 * cpu:.2f} ms of CPU each, {calls:,} syncs")
        print(f"in groups {rates[BATCH] / rates[1]:.1f} times as many")
    server.terminate()


if __name__ == "__main__":
    main()
