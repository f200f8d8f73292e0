"""`sdg serve` against the detector itself: throughput with 64 callers, and waits under overload.

Run: python benchmarks/bench_serve.py [--pictures 128] [--rounds 3]
Overload is tried on a detector of a known pace. The embedded detector, loaded once, is asked directly and
through HTTP in turns; callers are a process of their own. Where the cores are shared with others, the
pictures a CPU second compare the two ways. For memory over time see soak_serve.py.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from sdg import Diagnosis, load_detector
from sdg.detectors.base import StreamingDetector
from sdg.images import Pair, load_image_bytes
from sdg.serve.app import Service
from sdg.serve.models import Measures, Models
from sdg.serve.server import listening, server_of
from sdg.testbed.injection.sample import sample

CALLERS = 64
QUEUE = 64
OVERLOAD = 256


async def ask(host: str, port: int, body: bytes) -> tuple[float, float]:
    """Seconds of one request, and those after which to come back where it was refused, else 0."""
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(
            f"POST /v1/diagnose HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        writer.write(body)
        head, _, content = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    seconds = time.perf_counter() - begun
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    if status.split()[1] == "429":
        return seconds, float(headers["retry-after"])
    (item,) = json.loads(content)["items"]
    assert item["defects"] is not None, item["error"]
    return seconds, 0.0


async def call(url: str, callers: int, bodies: list[bytes]) -> None:
    """Print the seconds of each answer, how many were refused, and how long all took.

    Whoever is refused comes back when told to, until everything is answered.
    """
    place = urlsplit(url)
    assert place.hostname is not None
    assert place.port is not None
    refused, waits, waiting = 0, [], iter(bodies)

    async def caller() -> None:
        nonlocal refused
        for body in waiting:
            seconds, after = await ask(place.hostname, place.port, body)
            while after:
                refused += 1
                await asyncio.sleep(after)
                seconds, after = await ask(place.hostname, place.port, body)
            waits.append(seconds)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    whole = time.perf_counter() - begun
    print(json.dumps({"waits": waits, "refused": refused, "whole": whole}))


async def crowd(url: str, callers: int, body: bytes) -> None:
    """Print the longest that one of so many waits for its refusal when all come at once to a full server."""
    place = urlsplit(url)
    assert place.hostname is not None
    assert place.port is not None
    longest = []
    for _ in range(5):
        asked = await asyncio.gather(*(ask(place.hostname, place.port, body) for _ in range(callers)))
        assert all(after for _, after in asked)
        longest.append(max(seconds for seconds, _ in asked))
    print(json.dumps({"longest": statistics.median(longest)}))


def called(url: str, callers: int, bodies: list[bytes], *options: str) -> dict:
    """What `call` prints, or `crowd` by the option --crowd, by a process of its own."""
    command = [sys.executable, __file__, "--call", url, "--callers", str(callers), *options]
    text = b"\n".join(bodies)
    done = subprocess.run(command, input=text, capture_output=True, check=True)
    return json.loads(done.stdout)


def scenes(count: int) -> list[tuple[bytes, str]]:
    """Pictures of the testbed's world as PNG files, and their prompts."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        drawn, file = sample(rng), io.BytesIO()
        Image.fromarray(drawn.picture).save(file, "PNG")
        pairs.append((file.getvalue(), drawn.prompt))
    return pairs


def body(content: bytes, prompt: str) -> bytes:
    item = {"image": base64.b64encode(content).decode(), "prompt": prompt}
    return json.dumps({"items": [item]}).encode()


class Slow(StreamingDetector):
    """Finds nothing in any picture, at a known pace: a batch takes as long as it says."""

    batch_size = 8
    identity = MappingProxyType({"detector": "slow"})

    def stream(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Diagnosis]]:
        time.sleep(0.1)
        yield from ((index, Diagnosis()) for index in range(len(pairs)))


@contextmanager
def served(detector: StreamingDetector, queue: int = QUEUE) -> Iterator[str]:
    """The address of a server in a thread."""
    measures = Measures()
    with listening("127.0.0.1", 0, None) as place:
        service = Service(Models(detector, [], queue, measures), measures, "it", None, local=True)
        server = server_of(service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{place.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def compare(pictures: int, rounds: int) -> None:
    detector, pairs = load_detector("testbed"), scenes(pictures)
    bodies = [body(*pair) for pair in pairs]

    def alone() -> float:
        begun = time.perf_counter()
        detector.diagnose([(load_image_bytes(content, "it"), prompt) for content, prompt in pairs])
        return pictures / (time.perf_counter() - begun)

    with served(detector) as url:
        called(url, 8, bodies[:8])  # warm

        def through() -> float:
            return pictures / called(url, CALLERS, bodies)["whole"]

        ratios = []
        for number in range(rounds):
            # In turns, and the other way round each time: whatever else runs here slows both.
            order = (alone, through) if number % 2 == 0 else (through, alone)
            pace, work = {}, {}
            for way in order:
                begun = time.process_time()
                pace[way] = way()
                work[way] = time.process_time() - begun  # of the model and the server, not of the callers
            ratios.append(pace[through] / pace[alone])
            print(
                f"alone {pace[alone]:.2f}/s, {CALLERS} callers {pace[through]:.2f}/s: {ratios[-1]:.3f}; "
                f"pictures a CPU second {pictures / work[alone]:.2f} and {pictures / work[through]:.2f}: "
                f"{work[alone] / work[through]:.3f}",
                flush=True,
            )
        print(f"median {statistics.median(ratios):.3f}", flush=True)


def overload() -> None:
    """Print how long callers wait where many more come than are let in, and what bounds that.

    A picture that is let in has those of the queue and the running batch before it. One that comes in a crowd
    also waits until the server has taken in the requests of all the others, most of which it refuses: that is
    measured apart, on a server that is full.
    """
    bodies = [body(*pair) for pair in scenes(8)] * 64
    with served(Slow(), queue=0) as url:
        taking_in = called(url, OVERLOAD, bodies[:1], "--crowd")["longest"]
    with served(Slow()) as url:
        found = called(url, OVERLOAD, bodies)
    waits = sorted(found["waits"])
    pace = len(waits) / found["whole"]
    p50, p99 = waits[len(waits) // 2], waits[int(0.99 * (len(waits) - 1))]
    queue = (QUEUE + Slow.batch_size) / pace
    print(
        f"{OVERLOAD} callers, queue {QUEUE}: {len(waits)} answered, {found['refused']} refused; "
        f"p50 {p50:.2f} s, p99 {p99:.2f} s; bound {queue + taking_in:.2f} s: (queue + a batch)/throughput "
        f"{queue:.2f} s, and {taking_in:.2f} s in which {OVERLOAD} requests at once are taken in",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--call", help=argparse.SUPPRESS)
    parser.add_argument("--callers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--crowd", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--overload", action="store_true", help="only the waits under overload")
    given = parser.parse_args()
    if given.crowd:
        asyncio.run(crowd(given.call, given.callers, sys.stdin.buffer.read()))
    elif given.call:
        asyncio.run(call(given.call, given.callers, sys.stdin.buffer.read().split(b"\n")))
    else:
        overload()
        if not given.overload:
            compare(given.pictures, given.rounds)


if __name__ == "__main__":
    main()
