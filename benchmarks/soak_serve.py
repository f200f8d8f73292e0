"""A soak of `sdg serve`: its resident memory over minutes of good, hostile and broken-off requests.

    python benchmarks/soak_serve.py MINUTES [--detector testbed] [--pause 1.0]

Prints the memory and what was answered about every half minute, then the growth from the second quarter to
the last, in medians, of each server. In the middle the server is killed with SIGKILL and begun again on its
port. Exit code 1 where it answered anything unexpected or grew by more than 5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from bench_serve import body, scenes

GROWTH = 0.05
EXPECTED = {200, 400, 413, 415, 429}


def resident(pid: int) -> float:
    """MiB of a process in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def begun(detector: str, port: int) -> tuple[subprocess.Popen[str], str]:
    """The process of a server that answers, and its address."""
    command = [sys.executable, "-m", "sdg", "serve", "--detector", detector, "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if " at http://" in line:
            # What is not read would fill the pipe and hold the server up.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, line.partition(" at ")[2].partition(";")[0].strip()
    raise RuntimeError(f"the server did not start: exit code {process.wait()}")


def status(url: str, content: bytes, kind: str = "application/json") -> int:
    """What a request is answered with."""
    request = urllib.request.Request(url, content, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=600) as response:
            response.read()
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def leave(url: str, content: bytes) -> None:
    """Send half of a request, or all of it, and go without the answer."""
    place = urlsplit(url)
    for part in (content[: len(content) // 2], content):
        with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
            head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
            connection.sendall(head.encode() + f"Content-Length: {len(content)}\r\n\r\n".encode() + part)


def hostile(url: str) -> list[int]:
    """The answers to requests that are none."""
    large = b'{"items": [{"image": "' + b"A" * 4_000_000 + b'", "prompt": ""}]}'
    crowd = json.dumps({"items": [{"image": "", "prompt": ""}] * 65}).encode()
    return [
        status(url, large),
        status(url, crowd),
        status(url, b"no json"),
        status(url, b"[" * 100_000),
        status(url, b"{}", "text/plain"),
    ]


def soak(minutes: float, detector: str, pause: float) -> bool:
    process, address = begun(detector, 0)
    url, port = f"{address}/v1/reward", urlsplit(address).port or 0
    bodies = [body(*pair).replace(b'{"items"', b'{"grid": [16, 16], "items"', 1) for pair in scenes(8)]
    seen: Counter[int] = Counter()
    start = told = time.monotonic()
    sizes: list[list[float]] = [[]]
    try:
        with ThreadPoolExecutor(len(bodies)) as pool:
            while (passed := time.monotonic() - start) < 60 * minutes:
                seen.update(pool.map(lambda one: status(url, one), bodies))
                seen.update(hostile(url))
                leave(url, bodies[0])
                sizes[-1].append(resident(process.pid))
                if time.monotonic() - told >= 30:
                    told = time.monotonic()
                    print(
                        f"{passed:5.0f} s: {sizes[-1][-1]:.0f} MiB, {dict(sorted(seen.items()))}", flush=True
                    )
                if passed > 30 * minutes and len(sizes) == 1:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
                    process, _ = begun(detector, port)
                    sizes.append([])
                    print(f"{passed:5.0f} s: killed, and begun again on its port", flush=True)
                time.sleep(pause)
    finally:
        process.terminate()
        code = process.wait(60)
    grown = []
    for run in sizes:
        quarter = len(run) // 4
        if not quarter:
            raise SystemExit("Too few rounds to compare; soak for longer.")
        early, late = statistics.median(run[quarter : 2 * quarter]), statistics.median(run[-quarter:])
        grown.append(late / early - 1)
        print(
            f"{len(run)} rounds: {early:.1f} MiB in the second quarter, {late:.1f} in the last, "
            f"{grown[-1]:+.2%}"
        )
    print(f"answers {dict(sorted(seen.items()))}; the last server ended with exit code {code}")
    return set(seen) <= EXPECTED and code in (0, -signal.SIGTERM) and max(grown) <= GROWTH


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("minutes", type=float)
    parser.add_argument("--detector", default="testbed")
    parser.add_argument("--pause", type=float, default=1.0, metavar="SECONDS", help="between two rounds")
    given = parser.parse_args()
    sys.exit(0 if soak(given.minutes, given.detector, given.pause) else 1)


if __name__ == "__main__":
    main()
