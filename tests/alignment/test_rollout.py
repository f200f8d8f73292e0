"""Roll-outs: what an epoch draws, in which chunks it is scored, and what counts as not scored."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from bad_server import Reply, Server, completion
from PIL import Image
from plain_recipe import RECIPE, REWARD

from sdg import Defect, Diagnosis, Status, load_detector, render_response
from sdg.alignment.policies import FlowPolicy, Rollout, Transitions
from sdg.alignment.recipe import (
    GroupsRecipe,
    SamplingRecipe,
)
from sdg.alignment.rollout import (
    Purpose,
    Row,
    Sampler,
    Score,
    Scoring,
    check_failures,
    epoch_prompts,
    group_rows,
    noise_seed,
    sde_steps,
    share,
)
from sdg.detectors.base import FunctionDetector
from sdg.errors import SdgError
from sdg.scorers import load_scorer
from sdg.scorers.weighted import ScaledScorer, WeightedSum

# --- plan ----------------------------------------------------------------------------------------------


def test_every_pass_draws_each_prompt_once_in_another_order() -> None:
    recipe = replace(RECIPE, seed=3, groups=GroupsRecipe(prompts=4))
    prompts = [str(i) for i in range(10)]
    drawn = [p for epoch in range(5) for p in epoch_prompts(recipe, prompts, epoch)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == prompts
    assert drawn[:10] != drawn[10:]
    assert epoch_prompts(recipe, prompts, 2) == drawn[8:12]  # whatever was drawn before


def test_noise_differs_in_everything_it_depends_on() -> None:
    base = (0, Purpose.TRAINING, 1, 2, 3)
    others = [(1, *base[1:]), (0, Purpose.MONITOR, 1, 2, 3), (0, Purpose.TRAINING, 2, 2, 3),
              (0, Purpose.TRAINING, 1, 3, 3), (0, Purpose.TRAINING, 1, 2, 4)]  # fmt: skip
    seeds = {noise_seed(*key) for key in (base, *others)}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_prompt_drawn_twice_in_an_epoch_makes_two_groups() -> None:
    recipe = replace(RECIPE, groups=GroupsRecipe(prompts=6, size=2))
    rows = group_rows(recipe, ["a", "a"], Purpose.TRAINING, 0)
    assert [row.group for row in rows] == [0, 0, 1, 1]
    assert len({row.seed for row in rows}) == 4


def test_stochastic_steps_are_drawn_from_those_allowed() -> None:
    drawn = [sde_steps(RECIPE, epoch) for epoch in range(60)]
    assert {step for steps in drawn for step in steps} == {1, 2, 3}
    assert all(len(steps) == 1 for steps in drawn)
    assert sde_steps(RECIPE, 7) == drawn[7]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_step_trains_on_the_same_groups_however_many_processes_share_it(processes: int) -> None:
    shares = [share(RECIPE, rank, processes) for rank in range(processes)]
    for step, expected in enumerate((range(12), range(12, 24))):
        together = [index for own in shares for index in own[step].own]
        assert together == list(expected)
        assert all(own[step].everyone == together for own in shares)


def test_numbers_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SdgError, match=r"12 samples .* which 4 process"):
        share(RECIPE, 0, 4)


class Numbers:
    """A scorer in memory, whose scores are the prompts."""

    def score(self, pictures: Any, prompts: Any) -> list[float | None]:
        return [float(prompt) for prompt in prompts]


# --- score ---------------------------------------------------------------------------------------------


def test_scoring_overlaps_with_whoever_submits_and_keeps_order() -> None:
    running, submitted = threading.Event(), threading.Event()

    class Slow:
        def score(self, pictures: Any, prompts: Any) -> list[float | None]:
            running.set()
            assert submitted.wait(60)  # whoever submits is not waiting for this
            return [float(prompt) for prompt in prompts]

    statuses = {"1": Status.FAILED, "2": Status.UNPARSEABLE, "3": Status.TRUNCATED}

    def diagnosis(picture, prompt):
        return Diagnosis(status=statuses.get(prompt, Status.OK))

    detector = FunctionDetector("python:diagnosis", diagnosis)
    picture = Image.new("RGB", (2, 2))
    with Scoring(Slow(), detector) as scoring:
        first, second = scoring.submit([picture] * 2, ["0", "1"]), scoring.submit([picture] * 2, ["2", "3"])
        assert running.wait(60)  # before anybody asks for results
        submitted.set()
        scores = first.result() + second.result()
    assert [score.reward for score in scores] == [0.0, 1.0, 2.0, 3.0]
    assert [score.diagnosis is None for score in scores] == [False, True, True, True]


@pytest.mark.parametrize(
    ("together", "chunks"), [(None, [4, 4, 2]), (3, [3, 3, 3, 1]), (5, [5, 5]), (100, [10])]
)
def test_pictures_are_scored_so_many_at_a_time_each_with_its_own_prompt(
    together: int | None, chunks: list[int]
) -> None:
    asked: list[list[str]] = []

    class Recorder:
        def score(self, pictures: Any, prompts: Any) -> list[float | None]:
            asked.append(list(prompts))
            assert [picture.info["prompt"] for picture in pictures] == list(prompts)
            return [float(prompt) for prompt in prompts]

    class Painter:
        def sample(self, prompts: Any, seeds: Any, **options: Any) -> Rollout:
            pictures = [Image.new("RGB", (2, 2)) for _ in prompts]
            for picture, prompt in zip(pictures, prompts, strict=True):
                picture.info["prompt"] = prompt
            assert options == {"steps": 10, "sde_steps": [2], "noise_level": 0.5, "kind": "cps"}
            nothing = Transitions(tuple(prompts), 0.5, "cps", *[()] * 5, final=torch.zeros(0))
            return Rollout(pictures, nothing)

    recipe = replace(
        RECIPE,
        sampling=SamplingRecipe(batch_size=4, noise_level=0.5, sde="cps"),
        reward=replace(REWARD, batch_size=together),
    )
    rows = [Row(number, 0, str(number), number) for number in range(10)]
    with Scoring(Recorder(), None) as scoring:
        drawn = Sampler(recipe, cast(FlowPolicy, Painter()), scoring).draw(rows, [2])
        assert [score.reward for score in drawn.scores()] == list(range(10))
    assert [len(prompts) for prompts in asked] == chunks
    assert [len(transitions.prompts) for transitions in drawn.transitions] == [4, 4, 2]


def numbered(number: int) -> Image.Image:
    """A picture that the server of these tests knows by its number."""
    return Image.new("RGB", (4, 4), (number, 0, 0))


def test_a_server_has_all_pictures_at_once_and_results_come_in_their_order() -> None:
    everyone = threading.Barrier(24, timeout=20)

    def behave(index: int, attempt: int) -> Reply:
        everyone.wait()  # until all are there; a client that held some back would wait in vain
        defects = () if index % 2 else (Defect((0, 0, 500, 500), "artifact", f"Picture {index}.", 50),)
        return replace(completion(render_response(Diagnosis(defects))), delay=0.001 * (24 - index))

    with Server(behave) as server:
        detector = load_detector(f"openai:{server.url}?profile=default&timeout=30&attempts=1#m")
        with Scoring(Numbers(), detector) as scoring:
            pending = scoring.begin(10)
            for start in range(0, 24, 8):
                numbers = range(start, start + 8)
                pending.add([numbered(n) for n in numbers], [str(n) for n in numbers], last=start == 16)
            scores = pending.result()
    assert [score.reward for score in scores] == list(range(24))
    found = [[defect.reason for defect in score.diagnosis.defects] for score in scores if score.diagnosis]
    assert found == [[] if index % 2 else [f"Picture {index}."] for index in range(24)]


# Without a limit all are asked for before the first is answered, also by a loaded machine.
@pytest.mark.parametrize(("option", "most", "delay"), [("", 12, 3.0), ("&concurrency=3", 3, 0.2)])
def test_the_users_own_limit_of_requests_holds_in_roll_outs(option: str, most: int, delay: float) -> None:
    with Server(lambda *_: replace(completion(render_response(Diagnosis())), delay=delay)) as server:
        detector = load_detector(f"openai:{server.url}?profile=default{option}#m")
        with Scoring(Numbers(), detector) as scoring:
            scoring.submit([numbered(n) for n in range(12)], ["1"] * 12).result()
    assert server.busiest == most


def test_several_looks_at_a_picture_are_merged_as_they_are_in_batches() -> None:
    with Server(lambda *_: completion(render_response(Diagnosis()))) as server:
        detector = load_detector(f"openai:{server.url}?profile=default&looks=3#m")
        with Scoring(Numbers(), detector) as scoring:
            (score,) = scoring.submit([numbered(7)], ["1"]).result()
    assert score.diagnosis == Diagnosis()
    assert len({body["seed"] for body in server.bodies}) == 3


def test_a_sum_asks_servers_one_by_one_and_models_here_in_batches() -> None:
    good = "Alignment Score (1-5): 5\nCoherence Score (1-5): 5\nStyle Score (1-5): 5"
    batches: list[int] = []

    class Counted(Numbers):
        def score(self, pictures: Any, prompts: Any) -> list[float | None]:
            batches.append(len(pictures))
            return super().score(pictures, prompts)

    with Server(lambda index, _: completion(good if index else "No idea.")) as server:
        judge = ScaledScorer(load_scorer(f"unified-reward:{server.url}#m"), 10.0)
        reward = WeightedSum([(judge, 2.0), (ScaledScorer(Counted(), 1.0), 1.0)])
        with Scoring(reward, None) as scoring:
            pending = scoring.begin(4)
            pending.add([numbered(n) for n in range(6)], [str(n) for n in range(6)], last=True)
            scores = [score.reward for score in pending.result()]
    assert scores[0] is None
    assert scores[1:] == pytest.approx([20.0 + n for n in range(1, 6)])
    assert batches == [4, 2]
    assert max(server.asked.values()) == 1


def test_what_a_scorer_raises_reaches_the_run() -> None:
    def broken(pictures: Any, prompts: Any) -> list[float | None]:
        raise SdgError("The key is wrong.")

    class Broken:
        score = staticmethod(broken)

    with Scoring(Broken(), None) as scoring, pytest.raises(SdgError, match="key is wrong"):
        scoring.submit([Image.new("RGB", (2, 2))], ["a"]).result()


def test_the_allowed_share_of_failures_is_allowed() -> None:
    scores = [Score(1.0, None), Score(None, Diagnosis()), Score(1.0, Diagnosis()), Score(1.0, Diagnosis())]
    check_failures(scores, 0.25, detector=True)
    check_failures([Score(1.0, None)] * 4, 0.0, detector=False)
    with pytest.raises(SdgError, match="The base reward gave nothing usable for 1 of 4"):
        check_failures(scores, 0.2, detector=True)
