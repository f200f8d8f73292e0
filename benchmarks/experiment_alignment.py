"""The testbed's alignment experiment: base and five methods, the oracle as judge.

    python benchmarks/experiment_alignment.py             # everything; the same again goes on after a stop
    python benchmarks/experiment_alignment.py --methods boxflow-nft nft     # some; others may follow later
    python benchmarks/experiment_alignment.py --set optimizer.steps=600 --runs runs/longer --out longer
    python benchmarks/experiment_alignment.py --trial 2   # two epochs a method: what all of it will take
    python benchmarks/plot_alignment.py                   # the learning curves, at any time

Methods of one recipe have the same prompts, noise, roll-outs and optimizer steps; early stopping is off, so
that the budgets stay equal. The adapters compared are those of the last step: none is chosen by the oracle.
With --adapter best they are those that each run's monitor chose on validation prompts. Runs are kept in
--runs; logs, tables and pictures go to --out. Each of --parallel runs has one thread.
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

from sdg.alignment.compare import BASE, Cell, Comparison, tabulate
from sdg.alignment.recipe import AlignRecipe
from sdg.errors import SdgError
from sdg.io.files import write_text
from sdg.recipes import load_recipe
from sdg.runs.log import read_log

ROOT: Final = Path(__file__).resolve().parents[1]
_GRPO: Final = ROOT / "recipes/align/boxflow-testbed.yaml"
_NFT: Final = ROOT / "recipes/align/boxflow-nft-testbed.yaml"
RECIPES: Final = {
    "boxflow-nft": _NFT,
    "nft": _NFT,
    "boxflow": _GRPO,
    "denseflow": _GRPO,
    "flow-grpo": _GRPO,
}
"""Of each method, the slowest first."""
TWINS: Final = {"boxflow": "flow-grpo", "boxflow-nft": "nft"}
"""Spatial method -> the same with one reward an image."""
JUDGES: Final = (
    "monitor.judges=[{name: oracle, uri: 'python:sdg.testbed.oracle.diagnose'}, "
    "{name: background, uri: 'python:sdg.testbed.entry.background'}, "
    "{name: open, uri: 'python:sdg.testbed.entry.open_background'}]"
)
"""Of the comparison: defects, and the known cheat, light backgrounds: whatever is asked, or where none is."""
PROMPTS: Final = "prompts.held_out=python:sdg.testbed.entry.prompts?split=test&count={count}"
DEFECTS: Final = "oracle/defects"
BACKGROUND: Final = "background/clean_rate"
TARGET: Final = 0.35  # fewer defects a picture than base, as a share, by the best spatial method
REACHED: Final = 0.2  # fewer defects on the monitor's prompts, as a share: the time to it is reported
POINTS: Final = 0.03  # of faithful backgrounds that the best spatial method may lose
PARTS: Final = ("sampling", "scoring", "optimizing")
ADAPTER: Final = "final/pytorch_lora_weights.safetensors"

Row = Mapping[str, float | None]


def run_name(method: str, seed: int) -> str:
    """What a run's folder, log and row in the table are called."""
    return f"{method}-seed{seed}"


def sdg(arguments: Sequence[str], console: Path, processes: int = 1) -> None:
    """Run `sdg …`, all it says into a file; raises SdgError with the last line if it fails."""
    console.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    together = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    with console.open("a", encoding="utf-8") as messages:
        command = [sys.executable, "-m", *(together if processes > 1 else ()), "sdg", *arguments]
        done = subprocess.run(command, stdout=messages, stderr=messages, env=environment)
    if done.returncode:
        last = console.read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise SdgError(f"sdg {' '.join(arguments[:2])} failed ({' '.join(last)}); see {console}.")


def settings(overrides: Sequence[str]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def align_once(method: str, seed: int, runs: Path, overrides: Sequence[str]) -> None:
    """One run, begun or gone on with; nothing where it has had all its steps."""
    folder = runs / run_name(method, seed)
    chosen = [*overrides, f"method={method}", f"seed={seed}"]
    steps = load_recipe(AlignRecipe, RECIPES[method], chosen).optimizer.steps
    if (folder / ADAPTER).is_file() and read_log(folder)[-1]["step"] >= steps:
        print(f"{folder.name}: done before", flush=True)
        return
    began = time.monotonic()
    arguments = ["align", str(RECIPES[method]), *settings(chosen), "--out", str(folder), "--resume"]
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


def trial(
    methods: Sequence[str], epochs: int, runs: Path, overrides: Sequence[str], seeds: int, parallel: int
) -> None:
    """Time a few epochs of each method and say what the experiment will take."""
    total = 0.0
    for method in methods:
        own = [*overrides, f"method={method}"]
        recipe = load_recipe(AlignRecipe, RECIPES[method], own)
        steps = f"optimizer.steps={epochs * recipe.optimizer.steps_per_epoch}"
        folder = runs / "trial" / method
        shutil.rmtree(folder, ignore_errors=True)
        chosen = [*own, steps, "monitor.prompts=1", "monitor.steps=1", "run.pictures_every=0"]
        arguments = ["align", str(RECIPES[method]), *settings(chosen), "--out", str(folder)]
        sdg(arguments, runs / "trial" / f"{method}.txt")
        lines = [line for line in read_log(folder) if line["kind"] == "train"]
        parts = {part: min(line[f"{part}_seconds"] for line in lines) for part in PARTS}
        epoch = sum(parts.values())
        total += seeds * recipe.epochs * epoch
        told = ", ".join(f"{part} {value:.1f} s" for part, value in parts.items())
        print(f"{method}: {epoch:.1f} s an epoch ({told}); {recipe.epochs * epoch / 60:.0f} minutes a run")
    hours = total / parallel / 3600
    print(f"{len(methods) * seeds} runs, {parallel} at a time: about {hours:.1f} hours, and monitors")


def compare(methods: Sequence[str], seeds: Sequence[int], runs: Path, out: Path, options: Any) -> None:
    """Base and every adapter on prompts of the test split; only those that were not measured before."""
    names = [run_name(method, seed) for method in methods for seed in seeds]
    table = out / "comparison.json"
    if table.is_file() and [BASE, *names] == list(json.loads(table.read_text(encoding="utf-8"))["cells"]):
        return
    adapters = [part for name in names for part in ("--lora", f"{name}={runs / name / options.adapter}")]
    chosen = [
        f"monitor.steps={options.steps}",
        JUDGES,
        *options.overrides,
        PROMPTS.format(count=options.prompts),
        "method=nft",  # the one recipe of all, and the oracle needs no detector beside it
        "reward.detector=null",
    ]
    arguments = ["align", "compare", str(RECIPES["nft"]), *settings(chosen), *adapters, "--out", str(out)]
    arguments += ["--samples", str(options.samples), "--resume"]
    sdg(arguments, runs / "compare.txt", processes=options.parallel)


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


def summary(
    rows: Mapping[str, list[Row]], samples: int, minutes: Mapping[str, Sequence[float | None]]
) -> str:
    """The table over seeds, each spatial method against the others, the targets, and the minutes it took."""
    plain = {name: [dict(row) for row in of_name] for name, of_name in rows.items()}
    prompts = len(plain[BASE]) // samples
    table = tabulate(plain, ["reward"], samples)
    lines = [
        table.table(),
        "",
        f"{prompts} held-out prompts, {samples} pictures of each from every generator, the seeds of a method "
        "pooled; intervals are over prompts, 95 %.",
        "",
    ]
    spatial = [name for name in TWINS if name in rows]
    for name in spatial:
        for other in rows:
            if other != name:
                pair = {BASE: plain[other], name: plain[name]}
                ends = tabulate(pair, ["reward"], samples=len(plain[other]) // prompts)
                lines.append(sentence(name, other, ends.cells[name][DEFECTS]))
    known = [name for name in spatial if table.cells[name][DEFECTS].mean is not None]
    if known:
        lines += ["", *targets(table, min(known, key=lambda name: table.cells[name][DEFECTS].mean or 0.0))]
    lines += [
        "",
        f"Minutes of training until the monitor sees {100 * REACHED:.0f} % fewer defects, by seed:",
        "",
    ]
    for name, of_seeds in minutes.items():
        told = ", ".join("not reached" if value is None else f"{value:.1f}" for value in of_seeds)
        lines.append(f"- {name}: {told}")
    return "\n".join(lines) + "\n"


def sentence(name: str, other: str, cell: Cell) -> str:
    """The defects of `name` against those of another generator, which the cell's table calls base."""
    if cell.change is None or cell.change_interval is None:
        return f"- {name} against {other}: no defects to compare."
    low, high = (f"{100 * end:+.1f}" for end in cell.change_interval)
    said = "fewer" if cell.change_interval[1] < 0 else "not surely fewer"
    whom = f"{other}, its scalar twin" if TWINS.get(name) == other else other
    return f"- {name} against {whom}: {100 * cell.change:+.1f} % defects a picture [{low}, {high}]; {said}."


def targets(table: Comparison, best: str) -> list[str]:
    """What the best spatial method had to reach, and whether it did."""
    cells, base = table.cells[best], table.cells[BASE]
    change = cells[DEFECTS].change
    lines = []
    if change is not None:
        met = "met" if change <= -TARGET else "missed"
        lines.append(
            f"- Best, {best}: {100 * change:+.1f} % defects a picture; −{100 * TARGET:.0f} % is {met}."
        )
    if BACKGROUND in cells:
        after, before = cells[BACKGROUND].mean, base[BACKGROUND].mean
        if after is not None and before is not None:
            lines.append(
                f"- Backgrounds as asked: {100 * (after - before):+.1f} points; "
                f"within {100 * POINTS:.0f} is {'met' if after >= before - POINTS else 'missed'}."
            )
    reward = cells["reward"].change
    if reward is not None:
        lines.append(
            f"- Base reward: {100 * reward:+.1f} %; not lower is {'met' if reward >= 0 else 'missed'}."
        )
    return lines


def minutes_to_fewer(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """Minutes of sampling, scoring and training before the monitor saw so many fewer defects; None: never."""
    seconds, first = 0.0, None
    for line in lines:
        if line["kind"] == "train":
            seconds += sum(line[f"{part}_seconds"] for part in PARTS)
        elif line["kind"] == "monitor" and line.get(DEFECTS) is not None:
            first = line[DEFECTS] if first is None else first
            if line[DEFECTS] <= (1 - REACHED) * first and seconds:
                return seconds / 60
    return None


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
    parser.add_argument("--methods", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--train-only", action="store_true", help="leave the comparison for later")
    parser.add_argument("--steps", type=int, default=20, help="sampling steps of the comparison")
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
            seeds = len(options.seeds)
            trial(options.methods, options.trial, options.runs, options.overrides, seeds, options.parallel)
            return
        align_all(options.methods, options.seeds, options.runs, options.overrides, options.parallel)
        if options.train_only:
            return
        for method in options.methods:
            for seed in options.seeds:
                name = run_name(method, seed)
                log = (options.runs / name / "log.jsonl").read_text(encoding="utf-8")
                write_text(options.out / "logs" / f"{name}.jsonl", log)
        compare(options.methods, options.seeds, options.runs, options.out, options)
    except SdgError as error:
        sys.exit(f"Error: {error}")
    rows = pooled(options.out / "measures.jsonl", options.methods, options.seeds, options.samples)
    minutes = {
        method: [minutes_to_fewer(read_log(options.runs / run_name(method, seed))) for seed in options.seeds]
        for method in options.methods
    }
    text = summary(rows, options.samples, minutes)
    write_text(options.out / "summary.md", text)
    print(text)


if __name__ == "__main__":
    main()
