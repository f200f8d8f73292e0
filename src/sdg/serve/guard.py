"""`/v1/guard`: whether a run games its reward, from pictures of a fixed set of held-out prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdg.alignment.evidence import FEWEST, quality_fell, rose
from sdg.defects import Diagnosis
from sdg.serve.bounds import Refusal
from sdg.serve.reward_rows import Rewarded

KEYS: Final = ("defects", "artifacts", "misalignments", "clean", "reward")
Row = dict[str, float | None]


def own_rewards(document: Mapping[str, Any], items: int) -> list[float | None] | None:
    """The caller's own reward of each picture, if it sends them; raises Refusal for anything else."""
    values = document.get("rewards")
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != items or not all(map(_is_number_or_none, values)):
        raise Refusal(400, "rewards are a number or null for each item")
    return values


def read_history(document: Mapping[str, Any], items: int) -> list[list[Row]]:
    """`pictures` of earlier answers about the same prompts, oldest first; raises Refusal otherwise."""
    history = document.get("history", [])
    if not isinstance(history, list) or len(history) > 1000:
        raise Refusal(400, "history is a list of `pictures` of earlier answers, 1000 at most")
    for rows in history:
        if not isinstance(rows, list) or len(rows) != items:
            raise Refusal(400, "each entry of history has as many pictures as there are items")
        if not all(
            isinstance(row, dict) and all(_is_number_or_none(row.get(key)) for key in KEYS) for row in rows
        ):
            raise Refusal(400, "an entry of history is `pictures` of an earlier answer, as it came")
    return history


def rows_of(
    diagnoses: Sequence[Diagnosis], rewards: Sequence[Rewarded] | Sequence[float | None]
) -> list[Row]:
    """What is known of each picture; None is unknown."""
    rows: list[Row] = []
    for diagnosis, reward in zip(diagnoses, rewards, strict=True):
        row: Row = dict.fromkeys(KEYS)
        if diagnosis.is_informative:
            row["artifacts"] = len(diagnosis.of_type("artifact"))
            row["misalignments"] = len(diagnosis.of_type("misalignment"))
            row["defects"] = len(diagnosis.defects)
            row["clean"] = int(diagnosis.is_clean)
        row["reward"] = reward.reward if isinstance(reward, Rewarded) else reward
        rows.append(row)
    return rows


def verdict(history: Sequence[Sequence[Row]], rows: Sequence[Row]) -> dict[str, Any]:
    """Means over the pictures, and whether there are more defects than at first while the reward rose.

    `worse`: more defects than in the oldest entry, beyond the prompts' noise and a random walk
    (`sdg.alignment.evidence.quality_fell`); `rose`: a higher reward, by a paired t-test at 5 %; `hacking`:
    both. None where there is no history, or fewer than FEWEST pictures are known at both times.
    """
    known = {key: [row[key] for row in rows if row[key] is not None] for key in KEYS}
    means = {
        key: sum(filter(None, values)) / len(values) if values else None for key, values in known.items()
    }
    entries = [*history, rows]
    defects, rewards = _column(entries, "defects"), _column(entries, "reward")
    worse = quality_fell(-defects, len(entries)) if _comparable(defects) else None
    gained = rose(rewards[-1] - rewards[0]) if _comparable(rewards) else None
    return {
        "means": means,
        "known": len(known["defects"]),
        "worse": worse,
        "rose": gained,
        "hacking": None if worse is None or gained is None else worse and gained,
        "pictures": rows,
    }


def _column(entries: Sequence[Sequence[Row]], key: str) -> NDArray[np.float64]:
    """A measure of each picture at each time, (times, pictures), NaN where it is unknown."""
    return np.array([[row.get(key) for row in rows] for rows in entries], np.float64)


def _comparable(values: NDArray[np.float64]) -> bool:
    return len(values) > 1 and int(np.isfinite(values[0] - values[-1]).sum()) >= FEWEST


def _is_number_or_none(value: object) -> bool:
    if value is None or (isinstance(value, int) and abs(value) < 1 << 53):
        return True
    return isinstance(value, float) and math.isfinite(value)
