"""Monitors: what is measured of pictures, when a run stops, which adapter is kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plain_recipe import RECIPE
from scripts import load

from sdg import Defect, Diagnosis, Status
from sdg.alignment.monitors import (
    BY_PROMPT,
    Monitor,
    best_entry,
    defect_measures,
    hacking,
    is_best,
    known_counts,
    mean_measures,
    said_of_best,
)
from sdg.alignment.recipe import JudgeRecipe, MonitorRecipe, compared
from sdg.errors import SdgError
from sdg.recipes import to_document
from sdg.runs.begin import refuse_changes
from sdg.scorers import FunctionScorer
from sdg.scorers.weighted import ScorerRecipe

LEFT = Defect((0, 0, 500, 1000), "artifact", importance=50)


def test_defects_are_measured_by_type_and_unknown_pictures_left_out() -> None:
    mixed = Diagnosis((LEFT, LEFT, replace(LEFT, type="misalignment")))
    rows = [defect_measures("o", d) for d in (mixed, Diagnosis(), Diagnosis(status=Status.FAILED))]
    assert mean_measures(rows, 0.5) == {
        "o/defects": 1.5, "o/artifacts": 1.0, "o/misalignments": 0.5, "o/clean_rate": 0.5,
    }  # fmt: skip
    assert mean_measures(rows[2:], 0.5)["o/defects"] is None
    assert known_counts(rows) == {"o": 2}


@pytest.mark.parametrize("name", ["reward", "picture", "generator", "diversity", "epoch", "known"])
def test_a_measure_is_not_called_as_something_else_in_the_lines_it_stands_in(name: str) -> None:
    for parts in ({"scorers": (ScorerRecipe(name, "clip:x"),)}, {"judges": (JudgeRecipe(name, "testbed"),)}):
        with pytest.raises(ValueError, match=f"^{name} is what a log or a table calls something else"):
            MonitorRecipe(**parts)


def test_a_judge_that_mostly_failed_measures_nothing_and_takes_no_best() -> None:
    answers = [Diagnosis((LEFT,))] * 10, [Diagnosis()] * 2 + [Diagnosis(status=Status.FAILED)] * 8
    history = [
        mean_measures([{**defect_measures("o", d), "ocr": None} for d in found[:9]] + [{
            **defect_measures("o", found[9]), "ocr": 0.5}], 0.2, {"ocr"}) for found in answers
    ]  # fmt: skip
    assert [entry["o/defects"] for entry in history] == [1.0, None]
    assert [entry["ocr"] for entry in history] == [0.5, 0.5]  # which only one prompt has words for
    watch = MonitorRecipe(judges=(JudgeRecipe("o", "testbed"),), best="o/defects")
    assert is_best(history[:1], watch)
    assert not is_best(history, watch)


def test_the_end_of_a_run_says_of_which_epoch_best_is() -> None:
    watch = MonitorRecipe(judges=(JudgeRecipe("o", "testbed"),), best="o/defects", goal="min")
    history = [{"epoch": 4 * place, "o/defects": value} for place, value in enumerate((2.0, 1.0, 1.5))]
    assert said_of_best(history, watch) == "best/ is of epoch 4, by o/defects"
    assert said_of_best(history, replace(watch, goal="max")).endswith(
        "before the first step: best/ is untrained"
    )
    assert said_of_best([], watch) == said_of_best(history, replace(watch, best=None)) == ""


def test_the_monitor_says_of_how_many_pictures_a_measure_is() -> None:
    def half(pictures: list[Image.Image], prompts: list[str]) -> list[float | None]:
        return [1.0 if "0" in prompt else None for prompt in prompts]

    recipe = replace(
        RECIPE, monitor=MonitorRecipe(prompts=4), sampling=replace(RECIPE.sampling, batch_size=4)
    )
    prompts = ["a 0", "b 0", "c", "d"]
    picture = Image.new("RGB", (8, 8))
    policy: Any = SimpleNamespace(
        sample=lambda texts, *_, **__: SimpleNamespace(pictures=[picture] * len(texts))
    )
    for max_failed, mean in ((0.5, 1.0), (0.4, None)):
        allowing = replace(recipe, reward=replace(recipe.reward, max_failed=max_failed))
        found = Monitor(allowing, prompts, FunctionScorer(half), None, "cpu").measure(policy)
        assert (found.means, found.known) == ({"reward": mean}, {"reward": 2})
        assert found.by_prompt == {"reward": [1.0, 1.0, None, None]}


early = load("experiment_early_stop")
WATCH = MonitorRecipe(scorers=(ScorerRecipe("q", "clip:x"),), best="q", goal="max", patience=1)


def run_of(quality: Sequence[float], reward: Sequence[float], noise: float = 0.1) -> list[dict[str, Any]]:
    """A history of 16 prompts around these means."""
    rng = np.random.default_rng(0)
    history: list[dict[str, Any]] = []
    for means in zip(quality, reward, strict=True):
        values = {n: m + noise * rng.normal(size=16) for n, m in zip(("q", "reward"), means, strict=True)}
        history.append({name: float(v.mean()) for name, v in values.items()} | {BY_PROMPT: values})
    return history


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": 32}, r"recipe\.monitor\.prompts was 64 and is 32 now"),
        ({"steps": 4}, r"recipe\.monitor\.steps was 28 and is 4 now"),
        ({"goal": "min"}, r"recipe\.monitor\.goal was .max. and is .min. now"),
        ({"scorers": (ScorerRecipe("q", "clip:x", scale=2.0),)}, r"recipe\.monitor\.scorers\.0\.scale was 1"),
        (
            {"scorers": (ScorerRecipe("p", "clip:x"),), "best": "p"},
            r"recipe\.monitor\.scorers\.0\.name was .q.",
        ),
        ({"every": 3, "patience": 2, "scorers": (ScorerRecipe("q", "remote:http://moved"),)}, None),
    ],
)
def test_a_resumed_run_measures_what_it_measured_wherever_and_however_often(
    changes: dict[str, Any], said: str | None
) -> None:
    prompts = replace(RECIPE.prompts, held_out="held-out.txt")
    begun, now = (
        replace(RECIPE, monitor=watch, prompts=prompts) for watch in (WATCH, replace(WATCH, **changes))
    )
    refusal = nullcontext() if said is None else pytest.raises(SdgError, match=said)
    with refusal:
        refuse_changes("run", {"recipe": to_document(begun)}, {"recipe": to_document(now)}, now.free)


SERVED = replace(
    RECIPE.reward,
    scorers=(ScorerRecipe("u", "unified-reward:http://node1:8001/v1?profile=release#ORG/U"),),
    detector="union:openai:http://node1:8000/v1?profile=release&looks=8#ORG/D|ocr",
)


@pytest.mark.parametrize(
    ("detector", "scorer", "said"),
    [
        (
            "union:openai:https://node17/v1#ORG/D?looks=8&profile=release&timeout=900&concurrency=64|ocr",
            "unified-reward:http://node17:9000/v1#ORG/U?parallel=4&profile=release&timeout=60",
            None,
        ),
        (
            "union:openai:http://node1:8000/v1?profile=release&looks=4#ORG/D|ocr",
            None,
            r"recipe\.reward\.detector was .openai:#ORG/D\?looks=8&profile=release\|ocr. and is .*looks=4",
        ),
        ("union:openai:http://node1:8000/v1?profile=release&looks=8#ORG/E|ocr", None, "reward.detector was"),
        ("openai:http://node1:8000/v1?profile=release&looks=8#ORG/D", None, "reward.detector was"),
        (None, "unified-reward:http://node1:8001/v1?profile=default#ORG/U", "reward.scorers.0.uri was"),
        (None, "remote:http://node1:8001", "reward.scorers.0.uri was"),
    ],
)
def test_a_resumed_run_is_rewarded_by_the_same_models_wherever_their_servers_are(
    detector: str | None, scorer: str | None, said: str | None
) -> None:
    moved = replace(
        SERVED,
        detector=detector or SERVED.detector,
        scorers=(replace(SERVED.scorers[0], uri=scorer or SERVED.scorers[0].uri),),
        max_failed=0.9,
    )
    begun, now = (replace(RECIPE, reward=reward) for reward in (SERVED, moved))
    refusal = nullcontext() if said is None else pytest.raises(SdgError, match=said)
    with refusal:
        documents = [{"recipe": to_document(recipe)} for recipe in (begun, now)]
        refuse_changes("run", *documents, now.free, compared)


@pytest.mark.parametrize(
    ("quality", "reward", "stops"),
    [
        ([1, 3, 2], [0, 1, 2], True),  # far below the best, the reward above it
        ([1, 3, 2.99], [0, 1, 2], False),  # a hundredth is less than the noise of a mean
        ([1, 3, 2, 4], [0, 1, 2, 3], False),  # recovered
        ([1, 3, 2], [0, 1, 1], False),  # the reward did not rise: bad luck, not hacking
        ([3, 2], [0, 1], True),  # base itself was the best
    ],
)
def test_a_run_stops_when_quality_falls_while_the_reward_rises(
    quality: list[float], reward: list[float], stops: bool
) -> None:
    history = run_of(quality, reward)
    assert hacking(history, WATCH, 11) is stops
    assert not hacking(history, replace(WATCH, patience=None), 11)
    upside_down = [
        {**entry, "q": -entry["q"], BY_PROMPT: {**entry[BY_PROMPT], "q": -entry[BY_PROMPT]["q"]}}
        for entry in history
    ]
    assert hacking(upside_down, replace(WATCH, goal="min"), 11) is stops


def test_with_more_patience_it_takes_as_many_measurements_in_a_row() -> None:
    patient = replace(WATCH, patience=2)
    assert not hacking(run_of([1, 3, 2], [0, 1, 2]), patient, 11)
    assert hacking(run_of([1, 3, 2, 2], [0, 1, 2, 3]), patient, 11)


def test_fewer_defects_in_the_detectors_eyes_count_as_a_higher_reward() -> None:
    history = run_of([3, 2], [0, 0])
    assert not hacking(history, WATCH, 11)
    for entry, mean in zip(history, (2.0, 1.0), strict=True):
        entry[BY_PROMPT]["detector/defects"] = mean + 0.1 * np.random.default_rng(1).normal(size=16)
    assert hacking(history, WATCH, 11)


def test_nothing_is_concluded_from_few_prompts_or_from_means_alone() -> None:
    history = run_of([3, 2], [0, 1])
    few = [{**e, BY_PROMPT: {n: [*v[:7], *[None] * 9] for n, v in e[BY_PROMPT].items()}} for e in history]
    assert not hacking(few, WATCH, 11)
    assert not hacking([{k: v for k, v in e.items() if k != BY_PROMPT} for e in history], WATCH, 11)


@pytest.mark.parametrize("course", list(early.SOUND))
def test_sound_runs_are_stopped_in_one_of_twenty_at_most(course: str) -> None:
    ends = early.stopped(early.SOUND[course], 11, early.paired, runs=100)
    assert sum(end is not None for end in ends) <= 5


def test_runs_that_learn_to_please_are_stopped_soon_after_quality_turned() -> None:
    ends = early.stopped(early.hacked(2), 11, early.paired, runs=50)
    found = [end for end in ends if end is not None]
    assert len(found) >= 48
    assert min(found) > 11 // 3  # after the turn, never before
    assert early.stopped(early.hacked(0), 11, early.paired, runs=50).count(None) >= 48


def test_the_best_entry_is_the_earliest_best() -> None:
    history = [{"q": value} for value in (None, 2.0, 1.0, 1.0, 3.0)]
    assert best_entry(history, "q", "min") == 2
    assert best_entry(history, "q", "max") == 4
    assert best_entry(history[:1], "q", "max") is None
