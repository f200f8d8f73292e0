"""The guard against reward hacking: held-out prompts, measured by what is not the reward.

The reward's own parts are measured on the same pictures, so that "the reward rose while quality fell" can
be read off one line, and ends the run if the recipe says so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdg.alignment.evidence import quality_fell, rose
from sdg.alignment.policies import FlowPolicy
from sdg.alignment.recipe import AlignRecipe, MonitorRecipe
from sdg.alignment.rollout import Purpose, gather_rows, noise_seed
from sdg.defects import Diagnosis
from sdg.detectors import load_detector
from sdg.detectors.base import Detector
from sdg.runs.processes import even_share
from sdg.scorers import Scorer
from sdg.scorers.weighted import load_scaled

Measures = dict[str, float | None]
"""Name of a measure -> its value, or its mean over pictures; None where it is not known."""

BY_PROMPT: Final = "by_prompt"
"""Where an entry of a run's history holds measures of each prompt."""
KNOWN: Final = "known"
"""Where it, and its line in the log, hold of how many pictures each scorer and judge said something."""
MEASURES: Final = "measures.json"
"""In the folder of the best weights: what was measured of them."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured of the held-out prompts' pictures, of how many, and what `hacking` looks at."""

    means: Measures
    known: dict[str, int]  # by scorer and judge
    by_prompt: dict[str, list[float | None]]


def defect_measures(name: str, diagnosis: Diagnosis) -> Measures:
    """One picture's defects, by type, and whether it is clean; all None where nothing is known."""
    if not diagnosis.is_informative:
        kinds = ("defects", "artifacts", "misalignments", "clean_rate")
        return {f"{name}/{kind}": None for kind in kinds}
    artifacts = float(len(diagnosis.of_type("artifact")))
    misalignments = float(len(diagnosis.of_type("misalignment")))
    return {
        f"{name}/defects": artifacts + misalignments,
        f"{name}/artifacts": artifacts,
        f"{name}/misalignments": misalignments,
        f"{name}/clean_rate": float(diagnosis.is_clean),
    }


def measure_pictures(
    pictures: Sequence[Image.Image],
    prompts: Sequence[str],
    scorers: Mapping[str, Scorer],
    judges: Mapping[str, Detector],
) -> list[Measures]:
    """Every scorer's and judge's view of each picture."""
    rows: list[Measures] = [{} for _ in pictures]
    for name, scorer in scorers.items():
        for row, score in zip(rows, scorer.score(pictures, prompts), strict=True):
            row[name] = score
    for name, judge in judges.items():
        pairs = list(zip(pictures, prompts, strict=True))
        for row, diagnosis in zip(rows, judge.diagnose(pairs), strict=True):
            row.update(defect_measures(name, diagnosis))
    return rows


def mean_measures(rows: Sequence[Measures], max_failed: float, sparse: Collection[str] = ()) -> Measures:
    """Means over the pictures where a measure is known, None where too few are known to compare by.

    Those are too few where more than the share `max_failed` are unknown, or all. sparse: measures that may
    have nothing to say of most pictures, for which one is enough.
    """
    means: Measures = {}
    for name in rows[0] if rows else ():
        known = [value for row in rows if (value := row[name]) is not None]
        enough = name in sparse or len(rows) - len(known) <= max_failed * len(rows)
        means[name] = sum(known) / len(known) if known and enough else None
    return means


def known_counts(rows: Sequence[Measures]) -> dict[str, int]:
    """Of how many pictures each scorer and judge said something, by its name."""
    names = rows[0] if rows else ()
    return {name.partition("/")[0]: sum(row[name] is not None for row in rows) for name in names}


class Monitor:
    """Draws the held-out prompts, always with the same noise, and measures what comes out."""

    def __init__(
        self,
        recipe: AlignRecipe,
        prompts: Sequence[str],
        reward: Scorer,
        detector: Detector | None,
        device: str,
    ) -> None:
        self.recipe, self.prompts = recipe, list(prompts)[: recipe.monitor.prompts]
        self.scorers: dict[str, Scorer] = {"reward": reward}
        self.judges: dict[str, Detector] = {} if detector is None else {"detector": detector}
        self.scorers |= {scorer.name: load_scaled(scorer, device) for scorer in recipe.monitor.scorers}
        self.judges |= {judge.name: load_detector(judge.uri) for judge in recipe.monitor.judges}
        self.sparse = {scorer.name for scorer in recipe.monitor.scorers if scorer.sparse}
        if any(scorer.sparse for scorer in recipe.reward.scorers):
            self.sparse.add("reward")

    def due(self, epoch: int) -> bool:
        """Whether the pictures are measured before this epoch, or after the last."""
        return epoch % self.recipe.monitor.every == 0 or epoch == self.recipe.epochs

    def measure(self, policy: FlowPolicy, rank: int = 0, processes: int = 1) -> Measurement:
        """What comes out for all held-out prompts, the same on every process; each draws its share."""
        own = even_share(len(self.prompts), rank, processes)
        rows: list[Measures] = []
        size = self.recipe.sampling.batch_size
        for start in range(0, len(own), size):
            part = own[start : start + size]
            prompts = [self.prompts[index] for index in part]
            seeds = [noise_seed(self.recipe.seed, Purpose.MONITOR, 0, index, 0) for index in part]
            pictures = policy.sample(prompts, seeds, steps=self.recipe.monitor.steps).pictures
            rows += measure_pictures(pictures, prompts, self.scorers, self.judges)
        gathered = gather_rows(own, rows, processes)
        kept = {self.recipe.monitor.best, "reward", "detector/defects"} & set(gathered[0])
        by_prompt = {name: [row[name] for row in gathered] for name in kept if name is not None}
        means = mean_measures(gathered, self.recipe.reward.max_failed, self.sparse)
        return Measurement(means, known_counts(gathered), by_prompt)


def is_best(history: Sequence[Mapping[str, Any]], recipe: MonitorRecipe) -> bool:
    """Whether the last entry is the best so far, by the measure that the recipe names."""
    return recipe.best is not None and best_entry(history, recipe.best, recipe.goal) == len(history) - 1


def best_entry(history: Sequence[Mapping[str, Any]], name: str, goal: Literal["min", "max"]) -> int | None:
    """Index of the earliest entry that is best by one measure; None where it was never known."""
    known = [i for i, entry in enumerate(history) if entry.get(name) is not None]
    sign = 1 if goal == "min" else -1
    return min(known, key=lambda i: sign * history[i][name], default=None)


def standing_best(folder: Path, start: int, monitor: Monitor) -> list[dict[str, Any]]:
    """What `folder`/measures.json says of the best so far, if the checkpoint of epoch `start` does not know.

    Such is the measurement after the last epoch of a run that is continued with more of them: it came after
    the checkpoint, and that epoch is not measured again. Otherwise, or where nothing can be read, [].
    """
    try:
        entry = json.loads((folder / MEASURES).read_text())
        later = entry["epoch"] >= start and not monitor.due(entry["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [entry] if later else []


def said_of_best(history: Sequence[Mapping[str, Any]], recipe: MonitorRecipe) -> str:
    """Of which epoch best/ is, in a sentence; "" where there is none."""
    best = None if recipe.best is None else best_entry(history, recipe.best, recipe.goal)
    if best is None:
        return ""
    if (epoch := history[best]["epoch"]) == 0:
        return "no measurement was better than before the first step: best/ is untrained"
    return f"best/ is of epoch {epoch}, by {recipe.best}"


def hacking(history: Sequence[Mapping[str, Any]], recipe: MonitorRecipe, measurements: int) -> bool:
    """Whether to stop: by each of the last `patience` measurements quality fell while the reward rose.

    Both are compared, prompt by prompt, with when quality was best: a prompt's noise is always the same. The
    reward rose where its base part did, or where its detector saw fewer defects, by a t-test at 5 %. Quality
    fell where `quality_fell` says so. measurements: planned for the whole run.
    """
    if recipe.patience is None or recipe.best is None:
        return False
    best = best_entry(history, recipe.best, recipe.goal)
    if best is None or len(history) - 1 - best < recipe.patience:
        return False
    since = history[best:]
    if any(recipe.best not in entry.get(BY_PROMPT, {}) for entry in since):
        return False
    sign = -1.0 if recipe.goal == "min" else 1.0
    quality = sign * np.stack([_by_prompt(entry, recipe.best) for entry in since])
    rewards = {"reward": 1.0, "detector/defects": -1.0}
    return all(
        quality_fell(quality[: now + 1], measurements)
        and any(_rose(since[0], since[now], name, way) for name, way in rewards.items())
        for now in range(len(since) - recipe.patience, len(since))
    )


def _rose(before: Mapping[str, Any], after: Mapping[str, Any], name: str, way: float) -> bool:
    """Whether a part of the reward is better after than before, by a paired t-test at 5 %."""
    if any(name not in entry.get(BY_PROMPT, {}) for entry in (before, after)):
        return False
    return rose(way * (_by_prompt(after, name) - _by_prompt(before, name)))


def _by_prompt(entry: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    """A measure of each prompt, NaN where it is unknown."""
    return np.array(entry[BY_PROMPT][name], np.float64)
