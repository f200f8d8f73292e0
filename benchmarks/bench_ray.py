"""Rows a second and memory of `sdg diagnose --ray local`, as the number of rows grows; and what it wrote.

    python benchmarks/bench_ray.py 20000 80000
    python benchmarks/bench_ray.py 100000 1000000
    python benchmarks/bench_ray.py --detector testbed 2000

The detector is a stub that looks at one pixel, so that what is measured is everything else. Memory is the
largest resident size of the driver and of any worker, seen a few times a second. Then the manifest is held
against the inputs, the parts against the rows, each of which is there once and in its place, and SDG-Eval's
counts of the parts, added up, against those of the whole.

With --detector: pictures a second of `sdg diagnose` by two processes, --jobs 2, and by two actors, --ray
local, as whole commands, and whether both have found the same.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sdg import Defect, Diagnosis, evaluate
from sdg.data.formats import read_records
from sdg.detectors.on_ray import MANIFEST, run_on_ray

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


def truth(number: int) -> Diagnosis:
    """What is to be found in a row: of nine bright ones one is missed and one is elsewhere."""
    if number % 2 == 0:
        return Diagnosis((Defect((0, 0, 99, 99), "misalignment", "", 20),) if number % 18 == 0 else ())
    box = (0, 0, 9, 12) if number % 9 else (500, 500, 600, 600)
    return Diagnosis((Defect(box, "artifact", "", 1 + number % 100),))


def check(files: list[Path], out: Path, rows: int) -> None:
    """Raise AssertionError unless manifest and parts are right, and the parts' counts are the whole's."""
    manifest = json.loads((out / MANIFEST).read_text())
    counts = [min(A_FILE, rows - first) for first in range(0, rows, A_FILE)]
    assert manifest["inputs"] == dict(zip(map(str, files), counts, strict=True))
    parts = sorted(out.glob("part-*.parquet"))
    assert len(parts) == sum(-(-count // manifest["block"]) for count in counts)
    number, total, true, found = 0, [], [], []
    for part in parts:
        records = list(read_records(part))
        assert [record.filepath for record in records] == [
            f"{at}.png" for at in range(number, number + len(records))
        ]
        true.append([truth(at) for at in range(number, number + len(records))])
        found.append([record.diagnosis for record in records])
        total.append(evaluate(true[-1], found[-1]).counts)
        number += len(records)
    assert number == rows
    whole = evaluate(list(chain(*true)), list(chain(*found)))
    shards = sum(total)
    assert shards.images == whole.counts.images
    assert np.allclose(shards.sums, whole.counts.sums, rtol=1e-12)
    scores = shards.metrics()
    for kind, metrics in whole.metrics.items():
        assert all(
            np.isclose(value, scores[kind][name]) for name, value in metrics.items() if value is not None
        )
    print(
        f"{rows:>9,} rows in {len(parts):,} parts: manifest, order and counts are right; "
        f"BoxF1@0.5 {scores['artifact']['BoxF1@0.5']:.4f}"
    )


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
        check(files, Path(place) / "found", rows)
    return rows / took, watch.driver, watch.worker


def drawn(folder: Path, count: int) -> list[Path]:
    """Parquet files of embedded pictures with injected defects."""
    from sdg.testbed.injection.sample import sample

    rng = np.random.default_rng(0)
    files = []
    for first in range(0, count, 500):
        columns: dict[str, list[object]] = {"filepath": [], "prompt": [], "image": []}
        for number in range(first, min(first + 500, count)):
            one, stream = sample(rng, split="test"), io.BytesIO()
            Image.fromarray(one.picture).save(stream, "PNG")
            columns["filepath"].append(f"{number}.png")
            columns["prompt"].append(one.prompt)
            columns["image"].append(stream.getvalue())
        files.append(folder / f"{first:06d}.parquet")
        pq.write_table(pa.table(columns), files[-1], row_group_size=100)
    return files


def against_jobs(detector: str, count: int) -> None:
    """Print both rates, their ratio, and how many answers are equal."""
    ways = {"--jobs 2": ["--out", "jobs.parquet"], "--ray local": ["--ray", "local", "--out", "ray"]}
    took, found = {}, {}
    with tempfile.TemporaryDirectory() as place:
        files = drawn(Path(place), count)
        for name, how in ways.items():
            command = [sys.executable, "-m", "sdg", "diagnose", *map(str, files), "--detector", detector]
            began = time.monotonic()
            subprocess.run([*command, "--jobs", "2", *how], cwd=place, check=True, stdout=subprocess.DEVNULL)
            took[name] = time.monotonic() - began
            parts = sorted(Path(place, how[-1]).glob("part-*.parquet")) or [Path(place, how[-1])]
            records = [record for part in parts for record in read_records(part)]
            found[name] = {record.filepath: record.diagnosis for record in records}
            print(f"{name:<12} {count} pictures in {took[name]:.0f} s: {count / took[name]:.2f} a second")
    one, other = found.values()
    equal = sum(other.get(path) == diagnosis for path, diagnosis in one.items())
    ratio = took["--jobs 2"] / took["--ray local"]
    print(f"Ray has {ratio:.2f} × the rate of --jobs; {equal} of {len(one)} answers are equal")


def main() -> None:
    if find_spec("ray") is None:
        print("Ray is not installed: pip install 'structured-defect-grounding[ray,parquet]'")
        return
    if sys.argv[1:2] == ["--detector"]:
        against_jobs(sys.argv[2], int(sys.argv[3]))
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
