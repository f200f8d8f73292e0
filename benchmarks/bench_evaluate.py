"""Evaluating the training split's size from raw JSONL: seconds and peak memory, on one core.

    python benchmarks/bench_evaluate.py [--images 28945] [--repeats 5]

Writes an annotation and a prediction file as the released ones are (captions, think blocks, answers with
reasons of 18–45 words; about 2.4 boxes an image), then times, each in a process of its own: reading both,
joining, matching and metrics; and what 1,000 bootstrap resamples add. Budget: 2 s, 500 MB and 1.5 s.
First, on all cores and in turns, the whole of `sdg evaluate` against reading both files with orjson alone:
wall time, and CPU seconds of the command's main process, which are its wall time where the cores are free.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORDS = (  # noqa: SIM905
    "the left hand of figure near lower edge shows fused fingers without clear joints while shadow falls "
    "against light and caption asks for two red birds on a wooden fence behind an old house with blurred "
    "texture garbled letters distorted contour missing object instead background surface unnatural"
).split()

CHILD = """
import resource, sys, time
start = time.perf_counter()
import sdg.evaluation.sdg_eval as sdg_eval
from sdg.data.formats import read_records
from sdg.evaluation.join import join
loaded = time.perf_counter()
joined = join(read_records(sys.argv[1]), read_records(sys.argv[2]))
read = time.perf_counter()
result = sdg_eval.evaluate(joined.truth, joined.predicted)
scored = time.perf_counter()
sdg_eval.intervals(result.details.table, 1000, 0)
done = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
boxes = len(result.details.truth.boxes), len(result.details.predicted.boxes)
assert joined.is_complete and "torch" not in sys.modules
print(loaded - start, read - loaded, scored - read, done - scored, peak, *boxes)
"""


def sentence(rng: np.random.Generator, low: int, high: int) -> str:
    words = rng.choice(len(WORDS), rng.integers(low, high + 1))
    return " ".join(WORDS[word] for word in words).capitalize() + "."


def item(rng: np.random.Generator, box: list[int] | None = None) -> dict:
    if box is None:
        x0, y0 = (int(v) for v in rng.integers(0, 800, 2))
        width, height = (int(v) for v in rng.integers(20, 200, 2))
        box = [x0, y0, x0 + width, y0 + height]
    else:
        shift = rng.integers(-15, 16, 4)
        box = [int(v) for v in np.clip(np.array(box) + shift, 0, 1000)]
        box = [min(box[0], 990), min(box[1], 990), max(box[2], box[0] + 5), max(box[3], box[1] + 5)]
    label = "artifact" if rng.random() < 0.75 else "misalignment"
    return {
        "box_2d": box,
        "label": label,
        "description": sentence(rng, 18, 45),
        "importance": int(rng.integers(10, 96)),
    }


def response(rng: np.random.Generator, items: list[dict]) -> str:
    steps = "\n".join(f"### Step {step}\n- " + sentence(rng, 40, 90) for step in (1, 2, 3))
    answer = ",\n".join("  " + json.dumps(item) for item in items)
    return f"<think>\n{steps}\n</think>\n<answer>\n[\n{answer}\n]\n</answer>"


def write_files(folder: Path, images: int) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    truth, predictions = folder / "truth.jsonl", folder / "predictions.jsonl"
    with truth.open("w") as true_file, predictions.open("w") as predicted_file:
        for index in range(images):
            path, caption = f"images/{index:06d}.png", sentence(rng, 8, 25)
            # A quarter of the images are clean; the others have 3.2 defects on average.
            true = [item(rng) for _ in range(0 if rng.random() < 0.25 else 1 + rng.poisson(2.2))]
            found = [item(rng, t["box_2d"]) for t in true if rng.random() < 0.6]
            found += [item(rng) for _ in range(rng.poisson(1.0))]
            line = {"filepath": path, "caption": caption}
            annotated = {"ann_translated_bboxes": true, "ann_response": response(rng, true)}
            true_file.write(json.dumps(line | annotated) + "\n")
            predicted_file.write(json.dumps(line | {"response": response(rng, found)}) + "\n")
    return truth, predictions


FLOOR = """
import sys, orjson
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        for line in file:
            orjson.loads(line)
"""

COMMAND = """
import sys
from sdg.cli import main
main(["evaluate", "--truth", sys.argv[1], "--predictions", sys.argv[2], "--json", sys.argv[3]])
"""

TIMES = "import atexit, os; atexit.register(lambda: print(sum(os.times()[:2]), flush=True))"


def against_floor(truth: Path, predictions: Path, repeats: int) -> None:
    """Print by how much the whole command takes longer than reading its files.

    Modules are compiled once, as in an installed package.
    """
    walls, works = [], []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-m", "sdg", "evaluate", "--help"], env=environment, capture_output=True)
    for _ in range(repeats):
        pair = []
        for code in (FLOOR, COMMAND):
            command = [sys.executable, "-c", TIMES + code, str(truth), str(predictions)]
            command += [str(truth.with_name("scores.json"))] if code is COMMAND else []
            begun = time.perf_counter()
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            pair.append((time.perf_counter() - begun, float(done.stdout.split()[-1])))
        (floor_wall, floor_work), (wall, work) = pair
        walls.append(wall / floor_wall)
        works.append(work / floor_work)
    print(
        f"the whole command, 1,000 resamples: {statistics.median(walls):.1f} × reading with orjson alone; "
        f"CPU of its main process {statistics.median(works):.1f} ×"
    )


def measure(truth: Path, predictions: Path) -> list[float]:
    one_core = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(truth), str(predictions)]
    done = subprocess.run(command, env=os.environ | one_core, capture_output=True, text=True, check=True)
    return [float(value) for value in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=28_945)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        against_floor(*write_files(Path(folder), options.images), options.repeats)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        truth, predictions = write_files(Path(folder), options.images)
        size = (truth.stat().st_size + predictions.stat().st_size) / 1e6
        runs = [measure(truth, predictions) for _ in range(options.repeats)]
    boxes = f"{runs[0][5]:,.0f} and {runs[0][6]:,.0f} boxes"
    print(f"{options.images:,} images, {boxes}, {size:,.0f} MB of JSONL, one core")
    print(f"{'':28}{'median':>9}{'best':>9}{'budget':>9}")
    evaluating = [read + score for _, read, score, *_ in runs]
    for label, values, unit, budget in (
        ("imports", [run[0] for run in runs], "s", None),
        ("reading and joining", [run[1] for run in runs], "s", None),
        ("matching and metrics", [run[2] for run in runs], "s", None),
        ("evaluating, both together", evaluating, "s", 2.0),
        ("1,000 resamples add", [run[3] for run in runs], "s", 1.5),
        ("peak memory", [run[4] for run in runs], "MB", 500.0),
    ):
        digits = 2 if unit == "s" else 0
        limit = "" if budget is None else f"{budget:.{digits}f} {unit}"
        middle, best = statistics.median(values), min(values)
        print(f"{label:28}{f'{middle:.{digits}f} {unit}':>9}{f'{best:.{digits}f} {unit}':>9}{limit:>9}")


if __name__ == "__main__":
    main()
