"""The testbed's alignment experiment: base, Flow-GRPO, DenseFlow-GRPO, BoxFlow-GRPO, the oracle as judge.

    python benchmarks/experiment_alignment.py             # everything; the same again goes on after a stop
    python benchmarks/experiment_alignment.py --set optimizer.steps=600 --runs runs/longer --out longer
    python benchmarks/experiment_alignment.py --trial 2   # two epochs a method: what all of it will take
    python benchmarks/plot_alignment.py                   # the learning curves, at any time

Every method has the same prompts, noise, roll-outs and optimizer steps; early stopping is off, so that the
budgets stay equal. The adapters compared are those of the last step: none is chosen by the oracle. With
--adapter best they are those that each run's monitor chose on validation prompts. Runs are kept in --runs;
logs, tables and pictures go to --out. Each of --parallel runs has one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from sdg.alignment.compare import BASE, Comparison, tabulate
from sdg.alignment.recipe import AlignRecipe
from sdg.errors import SdgError
from sdg.io.files import write_text
from sdg.recipes import load_recipe
from sdg.runs.log import read_log

ROOT: Final = Path(__file__).resolve().parents[1]
RECIPE: Final = ROOT / "recipes/align/boxflow-testbed.yaml"
METHODS: Final = ("boxflow", "denseflow", "flow-grpo")
"""The slowest first."""
PROMPTS: Final = "prompts.held_out=python:sdg.testbed.entry.prompts?split=test&count={count}"
DEFECTS: Final = "oracle/defects"
TARGET: Final = 0.25  # fewer defects a picture than base, as a share
ADAPTER: Final = "final/pytorch_lora_weights.safetensors"

Row = Mapping[str, float | None]


def run_name(method: str, seed: int) -> str:
    """What a run's folder, log and row in the table are called."""
    return f"{method}-seed{seed}"


def sdg(arguments: Sequence[str], console: Path, threads: int = 1) -> None:
    """Run `sdg …`, all it says into a file; raises SdgError with the last line if it fails."""
    console.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    with console.open("a", encoding="utf-8") as messages:
        command = [sys.executable, "-m", "sdg", *arguments]
        done = subprocess.run(command, stdout=messages, stderr=messages, env=environment)
    if done.returncode:
        last = console.read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise SdgError(f"sdg {' '.join(arguments[:2])} failed ({' '.join(last)}); see {console}.")


def settings(overrides: Sequence[str]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def align_once(method: str, seed: int, runs: Path, overrides: Sequence[str]) -> None:
    """One run, begun or gone on with; nothing where it has had all its steps."""
    folder = runs / run_name(method, seed)
    chosen = ["monitor.patience=null", *overrides, f"method={method}", f"seed={seed}"]
    steps = load_recipe(AlignRecipe, RECIPE, chosen).optimizer.steps
    if (folder / ADAPTER).is_file() and read_log(folder)[-1]["step"] >= steps:
        print(f"{folder.name}: done before", flush=True)
        return
    began = time.monotonic()
    arguments = ["align", str(RECIPE), *settings(chosen), "--out", str(folder), "--resume"]
    sdg(arguments, runs / f"{folder.name}.txt")
    print(f"{folder.name}: {(time.monotonic() - began) / 60:.0f} minutes", flush=True)


def align_all(
    methods: Sequence[str], seeds: Sequence[int], runs: Path, overrides: Sequence[str], parallel: int
) -> None:
    """All runs, `parallel` at a time; the first failure is raised once the others have ended."""
    with ThreadPoolExecutor(parallel) as pool:
        work = [
            pool.submit(align_once, method, seed, runs, overrides) for seed in seeds for method in methods
        ]
    for future in work:
        future.result()


def trial(epochs: int, runs: Path, overrides: Sequence[str], seeds: int, parallel: int) -> None:
    """Time a few epochs of each method and say what the experiment will take."""
    total = 0.0
    for method in METHODS:
        own = [*overrides, f"method={method}"]
        recipe = load_recipe(AlignRecipe, RECIPE, own)
        steps = f"optimizer.steps={epochs * recipe.optimizer.steps_per_epoch}"
        folder = runs / "trial" / method
        shutil.rmtree(folder, ignore_errors=True)
        chosen = [*own, steps, "monitor.prompts=1", "monitor.steps=1", "run.pictures_every=0"]
        sdg(["align", str(RECIPE), *settings(chosen), "--out", str(folder)], runs / "trial" / f"{method}.txt")
        lines = [line for line in read_log(folder) if line["kind"] == "train"]
        parts = {
            part: min(line[f"{part}_seconds"] for line in lines)
            for part in ("sampling", "scoring", "optimizing")
        }
        epoch = sum(parts.values())
        total += seeds * recipe.epochs * epoch
        told = ", ".join(f"{part} {value:.1f} s" for part, value in parts.items())
        print(f"{method}: {epoch:.1f} s an epoch ({told}); {recipe.epochs * epoch / 60:.0f} minutes a run")
    print(f"{3 * seeds} runs, {parallel} at a time: about {total / parallel / 3600:.1f} hours, and monitors")


def compare(methods: Sequence[str], seeds: Sequence[int], runs: Path, out: Path, options: Any) -> None:
    """Base and every adapter on prompts of the test split; nothing where that is done."""
    if (out / "comparison.json").is_file():
        return
    names = [run_name(method, seed) for method in methods for seed in seeds]
    adapters = [part for name in names for part in ("--lora", f"{name}={runs / name / options.adapter}")]
    chosen = [*options.overrides, PROMPTS.format(count=options.prompts)]
    arguments = ["align", "compare", str(RECIPE), *settings(chosen), *adapters, "--out", str(out)]
    arguments += ["--samples", str(options.samples), "--resume"]
    sdg(arguments, runs / "compare.txt", threads=os.cpu_count() or 1)


def pooled(
    measures: Path, methods: Sequence[str], seeds: Sequence[int], samples: int
) -> dict[str, list[Row]]:
    """Base and each method -> rows, prompt by prompt, a prompt's pictures of all seeds together."""
    rows: dict[str, list[Row]] = {}
    for line in measures.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows.setdefault(row.pop("generator"), []).append({k: v for k, v in row.items() if k != "picture"})
    together: dict[str, list[Row]] = {BASE: rows[BASE]}
    for method in methods:
        of_seeds = [rows[run_name(method, seed)] for seed in seeds]
        starts = range(0, len(rows[BASE]), samples)
        together[method] = [
            row for start in starts for one in of_seeds for row in one[start : start + samples]
        ]
    return together


def summary(rows: Mapping[str, list[Row]], samples: int) -> str:
    """The table over seeds, and what it says of BoxFlow-GRPO's defects against all others."""
    plain = {name: [dict(row) for row in of_name] for name, of_name in rows.items()}
    prompts = len(plain[BASE]) // samples
    lines = [
        tabulate(plain, ["reward"], samples).table(),
        "",
        f"{prompts} held-out prompts, {samples} pictures of each from every generator, the seeds of a method "
        "pooled; intervals are over prompts, 95 %.",
        "",
    ]
    for other in rows:
        if other != "boxflow":
            pair = {BASE: plain[other], "boxflow": plain["boxflow"]}
            lines.append(sentence(other, tabulate(pair, ["reward"], samples=len(plain[other]) // prompts)))
    return "\n".join(lines) + "\n"


def sentence(other: str, table: Comparison) -> str:
    """BoxFlow-GRPO's defects against those of another generator, which the table calls base."""
    cell = table.cells["boxflow"][DEFECTS]
    if cell.change is None or cell.change_interval is None:
        return f"- Against {other}: no defects to compare."
    low, high = (f"{100 * end:+.1f}" for end in cell.change_interval)
    said = f"- Against {other}: {100 * cell.change:+.1f} % defects a picture [{low}, {high}]"
    if other == BASE:
        return (
            f"{said}; the target of −{100 * TARGET:.0f} % is {'met' if cell.change <= -TARGET else 'missed'}."
        )
    return f"{said}; {'fewer' if cell.change_interval[1] < 0 else 'not surely fewer'}."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/alignment"))
    parser.add_argument(
        "--out",
        type=Path,
        help="default: docs/experiments/alignment, with --adapter best runs/alignment-best",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--adapter", choices=["final", "best"], default="final", help="what is compared")
    parser.add_argument("--prompts", type=int, default=200, help="held-out prompts of the table")
    parser.add_argument("--samples", type=int, default=5, help="pictures of each from every generator")
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--trial", type=int, metavar="EPOCHS", help="only time so many epochs a method")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    if options.out is None:  # one table's folder is never taken for the other's
        best = options.adapter == "best"
        options.out = ROOT / ("runs/alignment-best" if best else "docs/experiments/alignment")
    try:
        if options.trial:
            trial(options.trial, options.runs, options.overrides, len(options.seeds), options.parallel)
            return
        align_all(METHODS, options.seeds, options.runs, options.overrides, options.parallel)
        for method in METHODS:
            for seed in options.seeds:
                name = run_name(method, seed)
                log = (options.runs / name / "log.jsonl").read_text(encoding="utf-8")
                write_text(options.out / "logs" / f"{name}.jsonl", log)
        compare(METHODS, options.seeds, options.runs, options.out, options)
    except SdgError as error:
        sys.exit(f"Error: {error}")
    rows = pooled(options.out / "measures.jsonl", METHODS, options.seeds, options.samples)
    text = summary(rows, options.samples)
    write_text(options.out / "summary.md", text)
    print(text)


if __name__ == "__main__":
    main()
