"""`sdg serve` against the detector itself: throughput with 64 callers, waits when overloaded, memory over time.

Run: python benchmarks/bench_serve.py [--pictures 128] [--rounds 3] [--soak MINUTES]
The embedded detector, loaded once, is asked in turns directly and through HTTP; callers are a process of
their own. --soak starts `sdg serve` instead, and prints its resident memory every minute.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

CALLERS = 64
QUEUE = 64
OVERLOAD = 256


def ask(url: str, body: bytes) -> tuple[float, int]:
    """Seconds and status of one request."""
    begun = time.perf_counter()
    request = urllib.request.Request(f"{url}/v1/diagnose", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=600) as response:
            (item,) = json.load(response)["items"]
            assert item["defects"] is not None, item["error"]
            return time.perf_counter() - begun, 200
    except urllib.error.HTTPError as error:
        return time.perf_counter() - begun, error.code


def call(url: str, callers: int, bodies: list[bytes], patient: bool) -> None:
    """Print the seconds of each answer, how many were refused, and how long all took.

    patient: whoever is refused asks again at once, until everything is answered.
    """
    refused = 0

    def until_answered(body: bytes) -> float:
        nonlocal refused
        while True:
            seconds, status = ask(url, body)
            if status == 200:
                return seconds
            refused += 1
            if not patient:
                return float("nan")
            time.sleep(0.5)

    begun = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        waits = list(pool.map(until_answered, bodies))
    whole = time.perf_counter() - begun
    print(json.dumps({"waits": [wait for wait in waits if wait == wait], "refused": refused, "whole": whole}))


def called(url: str, callers: int, bodies: list[bytes]) -> dict:
    """What `call` prints, by a process of its own."""
    command = [sys.executable, __file__, "--call", url, "--callers", str(callers)]
    text = b"\n".join(bodies)
    done = subprocess.run(command, input=text, capture_output=True, check=True)
    return json.loads(done.stdout)


def scenes(count: int) -> list[tuple[bytes, str]]:
    """Pictures of the testbed's world as PNG files, and their prompts."""
    from PIL import Image

    from sdg.testbed.injection.sample import sample

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


def compare(pictures: int, rounds: int) -> None:
    from sdg import load_detector
    from sdg.images import load_image_bytes
    from sdg.serve.app import Service
    from sdg.serve.measures import Measures
    from sdg.serve.models import Models
    from sdg.serve.server import listening, server_of

    detector, pairs = load_detector("testbed"), scenes(pictures)
    bodies = [body(*pair) for pair in pairs]

    def direct() -> float:
        begun = time.perf_counter()
        detector.diagnose([(load_image_bytes(content, "it"), prompt) for content, prompt in pairs])
        return pictures / (time.perf_counter() - begun)

    measures = Measures()
    with listening("127.0.0.1", 0, None) as place:
        models = Models(detector, [], QUEUE, measures)
        server = server_of(Service(models, measures, "testbed", None, local=True))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{place.getsockname()[1]}"
        called(url, 8, bodies[:8])  # warm
        ratios = []
        for number in range(rounds):
            # In turns, and the other way round each time: whatever else runs here slows both.
            if number % 2:
                served = pictures / called(url, CALLERS, bodies)["whole"]
                alone = direct()
            else:
                alone = direct()
                served = pictures / called(url, CALLERS, bodies)["whole"]
            ratios.append(served / alone)
            print(f"alone {alone:.2f}/s, {CALLERS} callers {served:.2f}/s: {served / alone:.3f}", flush=True)
        print(f"median {statistics.median(ratios):.3f}")
        found = called(url, OVERLOAD, (bodies * 8)[: 2 * OVERLOAD])
        waits = sorted(found["waits"])
        pace = len(waits) / found["whole"]
        p50, p99 = waits[len(waits) // 2], waits[int(0.99 * (len(waits) - 1))]
        bound = (QUEUE + detector.batch_size) / pace
        print(
            f"{OVERLOAD} callers, queue {QUEUE}: {len(waits)} answered, {found['refused']} refused; "
            f"p50 {p50:.1f} s, p99 {p99:.1f} s, queue/throughput {bound:.1f} s"
        )
        server.should_exit = True
        thread.join()


def resident(pid: int) -> float:
    """MiB of a process in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def soak(minutes: float) -> None:
    command = [sys.executable, "-m", "sdg", "serve", "--detector", "testbed", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        url = said.partition(" at ")[2].partition(";")[0]
        bodies = [body(*pair) for pair in scenes(64)]
        bodies += [
            b'{"items": [{"image": "AAAA", "prompt": ""}]}'.replace(b"AAAA", b"A" * 400_000),
            b"no json",
        ]
        ending, answered = time.monotonic() + 60 * minutes, 0
        due = 0.0
        with ThreadPoolExecutor(16) as pool:
            while time.monotonic() < ending:
                for _ in pool.map(lambda one: _any(url, one), bodies):
                    answered += 1
                if time.monotonic() >= due:
                    due = time.monotonic() + 60
                    print(f"{answered} requests, {resident(process.pid):.0f} MiB", flush=True)
        print(f"{answered} requests, {resident(process.pid):.0f} MiB at the end")
    finally:
        process.terminate()
        process.wait(60)


def _any(url: str, content: bytes) -> None:
    request = urllib.request.Request(f"{url}/v1/diagnose", content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=600) as response:
            response.read()
    except urllib.error.HTTPError as error:
        assert error.code in (400, 429), error.code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    parser.add_argument("--callers", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.call:
        call(given.call, given.callers, sys.stdin.buffer.read().split(b"\n"), patient=True)
    elif given.soak:
        soak(given.soak)
    else:
        compare(given.pictures, given.rounds)


if __name__ == "__main__":
    main()
