"""Rows a second and memory of `sdg diagnose --ray local`, as the number of rows grows.

    python benchmarks/bench_ray.py 20000 80000

The detector is a stub that looks at one pixel, so that what is measured is everything else. Memory is the
largest resident size of the driver and of any worker, seen a few times a second.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sdg import Defect, Diagnosis
from sdg.detectors.on_ray import run_on_ray

HERE = Path(__file__).parent
A_FILE = 10_000


def look(picture: Image.Image, prompt: str) -> Diagnosis:
    """An artifact where the first pixel is bright."""
    (red, _, _) = picture.getpixel((0, 0))
    return Diagnosis((Defect((0, 0, 9, 9), "artifact", prompt, 50),) if red > 127 else ())


def inputs(folder: Path, rows: int) -> list[Path]:
    """Parquet files with so many rows, pictures inside."""
    shades = []
    for level in (0, 255):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), (level,) * 3).save(stream, "PNG")
        shades.append(stream.getvalue())
    files = []
    for first in range(0, rows, A_FILE):
        numbers = range(first, min(first + A_FILE, rows))
        columns = {
            "image": [shades[number % 2] for number in numbers],
            "filepath": [f"{number}.png" for number in numbers],
            "caption": [f"picture {number}" for number in numbers],
        }
        files.append(folder / f"{first:09d}.parquet")
        pq.write_table(pa.table(columns), files[-1], row_group_size=500)
    return files


class Watch(threading.Thread):
    """The largest resident sizes seen, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.driver = self.worker = 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.3):
            for status in Path("/proc").glob("[0-9]*/status"):
                try:
                    text = status.read_text()
                    name = status.with_name("cmdline").read_bytes()
                except OSError:
                    continue
                found = re.search(r"VmRSS:\s+(\d+)", text)
                size = int(found[1]) / 1e3 if found else 0.0
                if int(status.parent.name) == os.getpid():
                    self.driver = max(self.driver, size)
                elif b"ray::_Worker" in name:
                    self.worker = max(self.worker, size)


def measure(rows: int) -> tuple[float, float, float]:
    """Rows a second, and the two sizes in MB."""
    with tempfile.TemporaryDirectory() as place:
        files = inputs(Path(place), rows)
        watch = Watch()
        watch.start()
        began = time.monotonic()
        done = run_on_ray("python:bench_ray.look", files, Path(place) / "found", workers=2)
        took = time.monotonic() - began
        watch.ended.set()
        assert (done.images, done.failed) == (rows, 0)
    return rows / took, watch.driver, watch.worker


def main() -> None:
    if find_spec("ray") is None:
        print("Ray is not installed: pip install 'structured-defect-grounding[ray,parquet]'")
        return
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    counts = [int(one) for one in sys.argv[1:]] or [20_000, 80_000]
    found = []
    for count in counts:
        found.append(measure(count))
        speed, driver, worker = found[-1]
        print(f"{count:>9,} rows: {speed:6.0f} a second, driver {driver:4.0f} MB, worker {worker:4.0f} MB")
    (_, first, one), (_, last, other) = found[0], found[-1]
    times, more, most = counts[-1] / counts[0], last / first, other / one
    print(f"{times:.0f} times as many rows: {more:.2f} × the driver's memory, {most:.2f} × a worker's")


if __name__ == "__main__":
    main()
