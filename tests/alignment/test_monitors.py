"""Monitors: what is measured of pictures, when a run stops, which adapter is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdg import Defect, Diagnosis, Status
from sdg.alignment.monitors import best_entry, defect_measures, hacking, mean_measures
from sdg.alignment.recipe import MonitorRecipe
from sdg.scorers.weighted import ScorerRecipe

LEFT = Defect((0, 0, 500, 1000), "artifact", importance=50)


def test_defects_are_measured_by_type_and_unknown_pictures_left_out() -> None:
    mixed = Diagnosis((LEFT, LEFT, replace(LEFT, type="misalignment")))
    rows = [defect_measures("o", d) for d in (mixed, Diagnosis(), Diagnosis(status=Status.FAILED))]
    assert mean_measures(rows) == {
        "o/defects": 1.5, "o/artifacts": 1.0, "o/misalignments": 0.5, "o/clean_rate": 0.5,
    }  # fmt: skip
    assert mean_measures(rows[2:])["o/defects"] is None


WATCH = MonitorRecipe(scorers=(ScorerRecipe("q", "clip:x"),), best="q", goal="max", patience=2)


@pytest.mark.parametrize(
    ("quality", "reward", "stops"),
    [
        ([1, 3, 2, 2], [0, 1, 2, 3], True),  # two in a row below the best, the reward above it
        ([1, 3, 2], [0, 1, 2], False),  # too early
        ([1, 3, 2, 4], [0, 1, 2, 3], False),  # recovered
        ([1, 3, 2, 2], [0, 1, 1, 0], False),  # the reward did not rise: bad luck, not hacking
        ([3, 2, 2], [0, 1, 1], True),  # base itself was the best
        ([None, None, None], [0, 1, 2], False),
    ],
)
def test_a_run_stops_when_quality_falls_while_the_reward_rises(
    quality: list[float | None], reward: list[float], stops: bool
) -> None:
    history = [{"q": q, "reward": r} for q, r in zip(quality, reward, strict=True)]
    assert hacking(history, WATCH) is stops
    assert not hacking(history, replace(WATCH, patience=None))


def test_fewer_defects_in_the_detectors_eyes_count_as_a_higher_reward() -> None:
    history = [{"q": q, "reward": 1.0, "detector/defects": d} for q, d in ((3, 2.0), (2, 1.0), (2, 0.5))]
    assert hacking(history, WATCH)


def test_the_best_entry_is_the_earliest_best() -> None:
    history = [{"q": value} for value in (None, 2.0, 1.0, 1.0, 3.0)]
    assert best_entry(history, "q", "min") == 2
    assert best_entry(history, "q", "max") == 4
    assert best_entry(history[:1], "q", "max") is None
