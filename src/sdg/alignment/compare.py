"""Base and aligned generators on the same prompts and noise, by every scorer and judge (SDG Table 5).

Intervals are bootstrapped over prompts, and changes are paired: both generators see the same resample.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from sdg.alignment.monitors import Measures, measure_pictures
from sdg.alignment.named import read_prompts
from sdg.alignment.pictures import picture_grid
from sdg.alignment.plan import Purpose, noise_seed
from sdg.alignment.policies import FAMILIES, FlowPolicy, load_pipeline
from sdg.alignment.policies.lora import WEIGHTS
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.rewards.weighted import load_reward, load_scaled
from sdg.alignment.scoring import load_judge
from sdg.errors import SdgError
from sdg.images import save_image

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
) -> Comparison:
    """Draw, measure and tabulate; writes table.md, comparison.json, measures.jsonl and grid.png to `out`.

    The prompts are all held-out ones; noise depends on prompt and sample alone, so that generators are
    compared picture by picture. Raises SdgError where the recipe names no held-out prompts.
    """
    import torch

    if recipe.prompts.held_out is None:
        raise SdgError("prompts.held_out is missing from the recipe; name the prompts to compare on.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    prompts = read_prompts(recipe.prompts.held_out)
    scorers = {scorer.name: load_scaled(scorer, device) for scorer in recipe.monitor.scorers}
    scored = ["reward", *scorers]
    judges = {judge.name: load_judge(judge.uri) for judge in recipe.monitor.judges}
    if recipe.reward.detector is not None:
        judges = {"detector": load_judge(recipe.reward.detector)} | judges
    everything = {"reward": load_reward(recipe.reward.scorers, device)} | scorers

    measures: dict[str, list[Measures]] = {}
    shown: list[tuple[str, list[Image.Image]]] = []
    console = Console(stderr=True)
    for name, folder in {BASE: None, **adapters}.items():
        policy = _generator(recipe, folder, device)
        rows: list[Measures] = []
        first: list[Image.Image] = []
        work = [(index, sample) for index in range(len(prompts)) for sample in range(samples)]
        size = recipe.sampling.batch_size
        for start in track(range(0, len(work), size), description=name, console=console):
            part = work[start : start + size]
            texts = [prompts[index] for index, _ in part]
            seeds = [noise_seed(recipe.seed, Purpose.MONITOR, 1, *pair) for pair in part]
            pictures = policy.sample(texts, seeds, steps=recipe.monitor.steps).pictures
            rows += measure_pictures(pictures, texts, everything, judges)
            first += [picture for picture, (_, sample) in zip(pictures, part, strict=True) if sample == 0]
        measures[name] = rows
        shown.append((name, first[:GRID_ROWS]))
    result = tabulate(measures, scored[1:] or scored, samples, bootstrap, recipe.seed)
    _write(out, result, measures)
    save_image(picture_grid(shown, prompts[:GRID_ROWS]), out / "grid.png")
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
        try:
            pipeline.load_lora_weights(folder, weight_name=WEIGHTS)
        except (ValueError, RuntimeError, KeyError) as error:
            raise SdgError(f"{folder} does not fit {recipe.policy.model} ({error}).") from error
    pipeline.to(device)
    return FAMILIES[recipe.policy.family](pipeline, recipe.policy, recipe.precision)


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


def _write(out: Path, result: Comparison, measures: Mapping[str, Sequence[Measures]]) -> None:
    rows = [
        json.dumps({"generator": name, "picture": index, **row})
        for name, pictures in measures.items()
        for index, row in enumerate(pictures)
    ]
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("table.md", result.table() + "\n"),
        ("comparison.json", json.dumps(asdict(result), indent=1) + "\n"),
        ("measures.jsonl", "\n".join(rows) + "\n"),
    ):
        fresh = out / f".{name}.writing"
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(out / name)
