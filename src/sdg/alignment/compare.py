"""Base and aligned generators on the same prompts and noise, by every scorer and judge (SDG Table 5).

Intervals are bootstrapped over prompts, and changes are paired: both generators see the same resample.
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from sdg.alignment.figures import picture_grid
from sdg.alignment.measures import measure_journal
from sdg.alignment.monitors import Measures, measure_pictures
from sdg.alignment.policies import FAMILIES, FlowPolicy, fill_text_cache, load_pipeline, needed_parts
from sdg.alignment.policies.trained import holds_transformer, require_trained, trained_digest
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.rollout import Purpose, noise_seed
from sdg.detectors import load_detector
from sdg.errors import SdgError
from sdg.evaluation.resampling import bootstrap_sums, interval
from sdg.images import save_image
from sdg.io.files import write_text
from sdg.io.uri import read_prompts
from sdg.models.lora import changes_nothing
from sdg.recipes import to_document
from sdg.runs.processes import ALONE, Processes
from sdg.scorers.weighted import load_reward, load_scaled
from sdg.tables import Table

BASE = "base"
GRID_ROWS = 8
DIVERSITY = "diversity"
_SIDE = 64
"""Pictures are compared for diversity with so many pixels a side."""
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
        rows = []
        for name, row in self.cells.items():
            average = _percent(self.averages[name], self.average_intervals[name]) if name != BASE else "–"
            rows.append((name, *(_cell(row[m]) for m in measures), average))
        return Table("generator", ("generator", *measures, "Avg"), tuple(rows)).markdown()


def parse_adapters(texts: Sequence[str]) -> dict[str, Path]:
    """NAME=FOLDER pairs; raises SdgError for a folder that holds neither an adapter nor a transformer."""
    adapters: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder or name == BASE or name in adapters:
            raise SdgError(f"--lora {text}: write NAME=FOLDER, each name once and none of them {BASE!r}.")
        adapters[name] = require_trained(folder)
    if not adapters:
        raise SdgError("Nothing to compare; add --lora NAME=FOLDER.")
    return adapters


def untrained(adapters: Mapping[str, Path]) -> list[str]:
    """The names of adapters whose weights change nothing; those that cannot be read are left to who loads."""
    found = []
    for name, folder in adapters.items():
        with suppress(SdgError):
            if not holds_transformer(folder) and changes_nothing(folder):
                found.append(name)
    return found


def compare_generators(
    recipe: AlignRecipe,
    adapters: Mapping[str, Path],
    out: Path,
    *,
    samples: int = 1,
    bootstrap: int = 2000,
    device: str | None = None,
    resume: bool = False,
    processes: Processes = ALONE,
) -> Comparison:
    """Draw, measure and tabulate; writes table.md, comparison.json, measures.jsonl and grid.png to `out`.

    The prompts are all held-out ones; noise depends on prompt and sample alone, so that generators are
    compared picture by picture. Several samples of a prompt are also measured against each other, by
    `diversity`. One generator is in memory at a time. `resume` keeps what an earlier call had measured, and
    takes further adapters after those. Of several `processes` each draws and measures its share, with the
    whole generator. With a `text_cache` the prompts are encoded into it first, together. Raises SdgError
    where there are no held-out prompts, or where the settings have changed.
    """
    import torch

    if recipe.prompts.held_out is None:
        raise SdgError("prompts.held_out is missing from the recipe; name the prompts to compare on.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    prompts = read_prompts(recipe.prompts.held_out)
    generators: dict[str, Path | None] = {BASE: None, **adapters}
    scorers = {scorer.name: load_scaled(scorer, device) for scorer in recipe.monitor.scorers}
    judges = {judge.name: load_detector(judge.uri) for judge in recipe.monitor.judges}
    if recipe.reward.detector is not None:
        judges = {"detector": load_detector(recipe.reward.detector)} | judges
    expected = [scorer.name for scorer in recipe.monitor.scorers if not scorer.sparse]
    expected += [f"{name}/defects" for name in judges]
    if not any(scorer.sparse for scorer in recipe.reward.scorers):
        expected.append("reward")
    everything = {"reward": load_reward(recipe.reward.scorers, device)} | scorers

    work = [(index, sample) for index in range(len(prompts)) for sample in range(samples)]
    size = recipe.sampling.batch_size
    size -= size % min(samples, size)  # whole prompts, wherever the samples of one fit into a batch
    settings = {
        "recipe": to_document(recipe),
        "prompts": prompts,
        "samples": samples,
    }
    digests = {
        name: None if folder is None else trained_digest(folder) for name, folder in generators.items()
    }
    with measure_journal(
        out, digests, settings, total=len(work), batch=size, resume=resume, processes=processes
    ) as journal:
        fill_text_cache(recipe.policy, device, prompts)
        missing: Counter[str] = Counter()
        planned = len(generators) * len(work) // processes.count
        for name, folder in generators.items():
            if not (starts := journal.todo(name)):
                continue
            policy = _generator(recipe, folder, device)
            for start in track(starts, description=escape(name), console=Console(stderr=True)):
                part = work[start : start + size]
                texts = [prompts[index] for index, _ in part]
                seeds = [noise_seed(recipe.seed, Purpose.MONITOR, 1, *pair) for pair in part]
                pictures = policy.sample(texts, seeds, steps=recipe.monitor.steps).pictures
                rows = measure_pictures(pictures, texts, everything, judges)
                check_missing(missing, rows, expected, recipe.reward.max_failed, planned)
                if samples > 1:
                    far = diversity(pictures, [index for index, _ in part])
                    rows = [row | {DIVERSITY: value} for row, value in zip(rows, far, strict=True)]
                drawn = zip(part, pictures, strict=True)
                shown = {i: picture for (i, sample), picture in drawn if i < GRID_ROWS and sample == 0}
                journal.add(name, start, rows, shown)
            del policy
            gc.collect()  # a pipeline is full of cycles, and a GPU may have no room for the next beside it
            torch.cuda.empty_cache()
        processes.wait()
        if processes.is_main:
            averaged = list(scorers) or ["reward"]
            result = tabulate(journal.rows(), averaged, samples, bootstrap, recipe.seed)
            write_text(out / "table.md", result.table() + "\n")
            write_text(out / "comparison.json", json.dumps(asdict(result), indent=1) + "\n")
            few = min(GRID_ROWS, len(prompts))
            columns = [(name, journal.shown(name, few)) for name in generators]
            save_image(picture_grid(columns, prompts[:few]), out / "grid.png")
        return processes.from_main(result if processes.is_main else None)


def diversity(pictures: Sequence[Image.Image], prompts: Sequence[int]) -> list[float | None]:
    """How far each picture is from the others of its prompt: a generator that collapses draws one picture.

    prompts: each picture's prompt, by number. The mean over the others of the root mean square difference of
    pixels, from 0 to 1; None where there is no other.
    """
    small = [
        np.asarray(picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX))
        for picture in pictures
    ]
    pixels = np.stack(small).reshape(len(pictures), -1).astype(np.float64) / 255
    of = np.asarray(prompts)
    means: list[float | None] = []
    for place in range(len(pictures)):
        others = pixels[(of == of[place]) & (np.arange(len(of)) != place)]
        distances = np.sqrt(np.mean((others - pixels[place]) ** 2, 1))
        means.append(float(distances.mean()) if len(distances) else None)
    return means


def check_missing(
    missing: Counter[str], rows: Sequence[Measures], names: Sequence[str], max_failed: float, planned: int
) -> None:
    """Count pictures that a scorer gave nothing for, by its name, and all pictures so far, under "".

    planned: pictures of the whole comparison. Raises SdgError where more than `max_failed` of them have no
    score. A batch that a scorer says nothing about at all is a server that is gone rather than pictures that
    it cannot score: there the share is that of the pictures so far.
    """
    missing[""] += len(rows)
    for name in names:
        unknown = sum(row[name] is None for row in rows)
        missing[name] += unknown
        of = missing[""] if unknown == len(rows) else planned
        if missing[name] > max_failed * of:
            raise SdgError(
                f"{name} gave nothing for {missing[name]} of {of} pictures, more than the share of "
                f"{max_failed:g} that reward.max_failed allows; see to its server, then --resume."
            )


def tabulate(
    measures: Mapping[str, Sequence[Measures]],
    averaged: Sequence[str],
    samples: int = 1,
    bootstrap: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Means, paired changes and intervals; measures: generator -> one row a picture, prompt by prompt.

    A change is over the prompts of which both the generator and the base have a known value. samples:
    pictures of a prompt by the base; another generator may have more, of several seeds. averaged: the
    measures whose relative changes are averaged into Avg, more being better in each.
    """
    names, generators = list(measures[BASE][0]), list(measures)
    prompts, base = len(measures[BASE]) // samples, generators.index(BASE)
    # Whole prompts are resampled, the same for all: (prompts, generators, measures, sum and count).
    known = np.stack([_sums(rows, names, prompts) for rows in measures.values()], 1)
    both = (known[..., 1:] > 0) & (known[:, base, None, :, 1:] > 0)
    table = np.stack([known, known * both, known[:, base, None] * both], -2).reshape(prompts, -1)
    drawn = np.concatenate([table.sum(0, keepdims=True), bootstrap_sums(table, bootstrap, seed)])
    # First what was measured, then its resamples.
    drawn = drawn.reshape(-1, len(generators), len(names), 3, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        means, after, before = np.moveaxis(drawn[..., 0] / drawn[..., 1], -1, 0)
        changes = (after - before) / np.abs(before)
    changes[~np.isfinite(changes)] = np.nan
    average = changes[..., [names.index(name) for name in averaged]].mean(-1)
    cells: dict[str, dict[str, Cell]] = {generator: {} for generator in generators}
    for (g, generator), (n, name) in product(enumerate(generators), enumerate(names)):
        count = int(drawn[0, g, n, 0, 1])
        cells[generator][name] = Cell(*_estimate(means[:, g, n]), *_estimate(changes[:, g, n]), count)
    averages = {generator: _estimate(average[:, g]) for g, generator in enumerate(generators)}
    return Comparison(
        prompts,
        samples,
        cells,
        {generator: value for generator, (value, _) in averages.items()},
        {generator: bounds for generator, (_, bounds) in averages.items()},
    )


def _generator(recipe: AlignRecipe, folder: Path | None, device: str) -> FlowPolicy:
    pipeline = load_pipeline(recipe.policy, parts=needed_parts(recipe.policy), trained=folder)
    pipeline.to(device)
    return FAMILIES[recipe.policy.family](pipeline, recipe.policy, recipe.precision)


def _sums(rows: Sequence[Measures], names: Sequence[str], prompts: int) -> NDArray[np.float64]:
    """Sum and count of the known values of each measure over a prompt's pictures: (prompts, measures, 2)."""
    values = np.array([[row[name] for name in names] for row in rows], np.float64)  # NaN: unknown
    values = values.reshape(prompts, -1, len(names))
    return np.stack([np.nansum(values, 1), np.isfinite(values).sum(1)], -1)


def _estimate(samples: NDArray[np.float64]) -> tuple[float | None, Interval | None]:
    """What was measured, the first, and the interval of its resamples, the others; None where unknown."""
    if np.isnan(samples[0]):
        return None, None
    low, high = map(float, interval(samples[1:]))
    return float(samples[0]), None if np.isnan(low) else (low, high)


def _cell(cell: Cell) -> str:
    if cell.mean is None or cell.interval is None:
        return "–"
    text = f"{cell.mean:.3f} [{cell.interval[0]:.3f}, {cell.interval[1]:.3f}]"
    return text if not cell.change else f"{text} ({100 * cell.change:+.1f} %)"


def _percent(value: float | None, interval: Interval | None) -> str:
    if value is None or interval is None:
        return "–"
    return f"{100 * value:+.1f} % [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]"
