"""Base and aligned generators on the same prompts and noise, by every scorer and judge (SDG Table 5).

Intervals are bootstrapped over prompts, and changes are paired: both generators see the same resample.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from sdg.alignment.measures import MeasureJournal
from sdg.alignment.monitors import Measures, measure_pictures
from sdg.alignment.pictures import picture_grid
from sdg.alignment.plan import Purpose, noise_seed
from sdg.alignment.policies import FAMILIES, FlowPolicy, load_pipeline
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.scoring import load_judge
from sdg.errors import SdgError
from sdg.images import save_image
from sdg.io.files import write_text
from sdg.io.named import read_prompts
from sdg.models.lora import WEIGHTS, load_lora
from sdg.recipes import to_document
from sdg.scorers.weighted import load_reward, load_scaled

BASE = "base"
GRID_ROWS = 8
Interval = tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """One measure of one generator; None where it is unknown or, for the change, base is 0."""

    mean: float | None
    interval: Interval | None  # 95 % of the resamples
    change: float | None  # relative to base: 0.1 is 10 % more
    change_interval: Interval | None
    known: int  # pictures it could be measured on


@dataclass(frozen=True)
class Comparison:
    """All cells: generator -> measure -> cell; average: mean relative change over the scorers, as Table 5."""

    prompts: int
    samples: int
    cells: Mapping[str, Mapping[str, Cell]]
    averages: Mapping[str, float | None]
    average_intervals: Mapping[str, Interval | None]

    def table(self) -> str:
        """The comparison as a Markdown table: mean [interval] (change)."""
        measures = list(self.cells[BASE])
        lines = ["| generator | " + " | ".join(measures) + " | Avg |", "|---" * (len(measures) + 2) + "|"]
        for name, row in self.cells.items():
            average = _percent(self.averages[name], self.average_intervals[name]) if name != BASE else "–"
            lines.append(f"| {name} | " + " | ".join(_cell(row[m]) for m in measures) + f" | {average} |")
        return "\n".join(lines)


def parse_adapters(texts: Sequence[str]) -> dict[str, Path]:
    """NAME=FOLDER pairs; raises SdgError for a folder without an adapter."""
    adapters: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder or name == BASE or name in adapters:
            raise SdgError(f"--lora {text}: write NAME=FOLDER, each name once and none of them {BASE!r}.")
        if not (Path(folder) / WEIGHTS).is_file():
            raise SdgError(f"{folder} holds no adapter ({WEIGHTS}); name a run's best/ or final/ folder.")
        adapters[name] = Path(folder)
    if not adapters:
        raise SdgError("Nothing to compare; add --lora NAME=FOLDER.")
    return adapters


def compare_generators(
    recipe: AlignRecipe,
    adapters: Mapping[str, Path],
    out: Path,
    *,
    samples: int = 1,
    bootstrap: int = 2000,
    device: str | None = None,
    resume: bool = False,
) -> Comparison:
    """Draw, measure and tabulate; writes table.md, comparison.json, measures.jsonl and grid.png to `out`.

    The prompts are all held-out ones; noise depends on prompt and sample alone, so that generators are
    compared picture by picture. One generator is in memory at a time. `resume` keeps what an earlier call
    had measured. Raises SdgError where there are no held-out prompts, or where the settings have changed.
    """
    import torch

    if recipe.prompts.held_out is None:
        raise SdgError("prompts.held_out is missing from the recipe; name the prompts to compare on.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    prompts = read_prompts(recipe.prompts.held_out)
    generators: dict[str, Path | None] = {BASE: None, **adapters}
    scorers = {scorer.name: load_scaled(scorer, device) for scorer in recipe.monitor.scorers}
    judges = {judge.name: load_judge(judge.uri) for judge in recipe.monitor.judges}
    if recipe.reward.detector is not None:
        judges = {"detector": load_judge(recipe.reward.detector)} | judges
    everything = {"reward": load_reward(recipe.reward.scorers, device)} | scorers

    work = [(index, sample) for index in range(len(prompts)) for sample in range(samples)]
    size = recipe.sampling.batch_size
    settings = {
        "recipe": to_document(recipe),
        "prompts": prompts,
        "samples": samples,
        "adapters": [[name, _digest(folder)] for name, folder in adapters.items()],
    }
    journal = MeasureJournal(out, generators, settings, total=len(work), batch=size, resume=resume)
    for name, folder in generators.items():
        if len(journal.rows[name]) == len(work):
            continue
        policy = _generator(recipe, folder, device)
        starts = range(len(journal.rows[name]), len(work), size)
        for start in track(starts, description=name, console=Console(stderr=True)):
            part = work[start : start + size]
            texts = [prompts[index] for index, _ in part]
            seeds = [noise_seed(recipe.seed, Purpose.MONITOR, 1, *pair) for pair in part]
            pictures = policy.sample(texts, seeds, steps=recipe.monitor.steps).pictures
            rows = measure_pictures(pictures, texts, everything, judges)
            drawn = zip(part, pictures, strict=True)
            shown = {i: picture for (i, sample), picture in drawn if i < GRID_ROWS and sample == 0}
            journal.add(name, rows, shown)
        del policy
        gc.collect()  # a pipeline is full of cycles, and a GPU may have no room for the next beside it
        torch.cuda.empty_cache()
    result = tabulate(journal.rows, list(scorers) or ["reward"], samples, bootstrap, recipe.seed)
    write_text(out / "table.md", result.table() + "\n")
    write_text(out / "comparison.json", json.dumps(asdict(result), indent=1) + "\n")
    few = min(GRID_ROWS, len(prompts))
    columns = [(name, journal.shown(name, few)) for name in generators]
    save_image(picture_grid(columns, prompts[:few]), out / "grid.png")
    return result


def tabulate(
    measures: Mapping[str, Sequence[Measures]],
    averaged: Sequence[str],
    samples: int = 1,
    bootstrap: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Means, paired changes and intervals; measures: generator -> one row a picture, prompt by prompt.

    averaged: the measures whose relative changes are averaged into Avg, more being better in each.
    """
    names = list(measures[BASE][0])
    prompts = len(measures[BASE]) // samples
    draws = np.random.default_rng(seed).integers(0, prompts, (bootstrap, prompts))  # whole prompts
    cells: dict[str, dict[str, Cell]] = {}
    averages: dict[str, float | None] = {}
    intervals: dict[str, Interval | None] = {}
    base = {name: _values(measures[BASE], name, prompts) for name in names}
    for generator, rows in measures.items():
        cells[generator] = {}
        changes: list[tuple[float | None, NDArray[np.float64]]] = []
        for name in names:
            values = _values(rows, name, prompts)
            means, before = _resampled(values, draws), _resampled(base[name], draws)
            mean, old = _mean(values), _mean(base[name])
            with np.errstate(divide="ignore", invalid="ignore"):
                change_draws = (means - before) / np.abs(before)
            change = None if mean is None or not old else (mean - old) / abs(old)
            known = int(np.isfinite(values).sum())
            cells[generator][name] = Cell(
                mean, _interval(means), change, _interval(change_draws) if change is not None else None, known
            )
            if name in averaged:
                changes.append((change, change_draws))
        known_changes = [change for change, _ in changes if change is not None]
        complete = bool(changes) and len(known_changes) == len(changes)
        averages[generator] = sum(known_changes) / len(changes) if complete else None
        intervals[generator] = _interval(np.mean([draw for _, draw in changes], axis=0)) if complete else None
    return Comparison(prompts, samples, cells, averages, intervals)


def _generator(recipe: AlignRecipe, folder: Path | None, device: str) -> FlowPolicy:
    pipeline = load_pipeline(recipe.policy)
    if folder is not None:
        load_lora(pipeline, folder, recipe.policy.model)
    pipeline.to(device)
    return FAMILIES[recipe.policy.family](pipeline, recipe.policy, recipe.precision)


def _digest(folder: Path) -> str:
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _values(rows: Sequence[Measures], name: str, prompts: int) -> NDArray[np.float64]:
    """(prompts, samples), NaN where unknown."""
    flat = [np.nan if (value := row[name]) is None else value for row in rows]
    return np.array(flat, dtype=np.float64).reshape(prompts, -1)


def _resampled(values: NDArray[np.float64], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of each resample of prompts, (bootstrap,), over the pictures that are known."""
    total, count = np.nansum(values, axis=1), np.isfinite(values).sum(axis=1)
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = total[draws].sum(axis=1) / count[draws].sum(axis=1)
    return means


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _interval(draws: NDArray[np.float64]) -> Interval | None:
    known = draws[np.isfinite(draws)]
    if not known.size:
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _cell(cell: Cell) -> str:
    if cell.mean is None or cell.interval is None:
        return "–"
    text = f"{cell.mean:.3f} [{cell.interval[0]:.3f}, {cell.interval[1]:.3f}]"
    return text if not cell.change else f"{text} ({100 * cell.change:+.1f} %)"


def _percent(value: float | None, interval: Interval | None) -> str:
    if value is None or interval is None:
        return "–"
    return f"{100 * value:+.1f} % [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]"
