"""What `/v1/reward` says of each picture, and the adapters of `sdg.integrations` where no server is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdg.alignment.arrays import severity_of, weight_maps
from sdg.defects import Diagnosis


@dataclass(frozen=True, slots=True)
class Rewarded:
    """The scalar reward of a picture; None where it is not known, and then why."""

    reward: float | None
    error: str = ""


def reward_rows(
    diagnoses: Sequence[Diagnosis], rewards: Sequence[Rewarded], grid: tuple[int, int] | None
) -> list[dict[str, Any]]:
    """Reward, number of defects, severity, maps on the grid and error of each picture, None where not known.

    rewards: the base rewards R; none at all where R is minus the severity.
    """
    sets = [diagnosis.defects if diagnosis.is_informative else None for diagnosis in diagnoses]
    maps = weight_maps(sets, grid) if grid is not None else None
    rows = []
    for place, (diagnosis, defects) in enumerate(zip(diagnoses, sets, strict=True)):
        severity = None if defects is None else severity_of(defects)
        scalar = rewards[place] if rewards else Rewarded(None if severity is None else -severity)
        rows.append(
            {
                "reward": scalar.reward,
                "defects": None if defects is None else len(defects),
                "severity": severity,
                "maps": None
                if maps is None or defects is None
                else {
                    kind: weights[place].tolist()
                    for kind, weights in zip(("artifact", "misalignment"), maps, strict=True)
                },
                "error": why_unknown(diagnosis) or scalar.error or None,
            }
        )
    return rows


def why_unknown(diagnosis: Diagnosis) -> str | None:
    """Why nothing is known of a picture, in one sentence; None where something is."""
    if diagnosis.is_informative:
        return None
    return diagnosis.error or "The detector's answer cannot be read."
