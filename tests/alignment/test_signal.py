"""Between scoring and optimizing: plans, validity, advantages, monitors, checkpoints and tables."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import toy
from PIL import Image

from sdg import Defect, Diagnosis, Status
from sdg.alignment.compare import parse_adapters, tabulate
from sdg.alignment.drawing import roll_out
from sdg.alignment.monitors import best_entry, defect_measures, hacking, mean_measures
from sdg.alignment.pictures import picture_grid, signal_figure
from sdg.alignment.plan import Purpose, Row, epoch_prompts, group_rows, noise_seed, sde_steps, share
from sdg.alignment.policies import FlowPolicy, Rollout, Transitions
from sdg.alignment.recipe import (
    AlignRecipe,
    GroupsRecipe,
    MonitorRecipe,
    OptimizerRecipe,
    PolicyRecipe,
    PromptsRecipe,
    RewardRecipe,
    SamplingRecipe,
    ScorerRecipe,
)
from sdg.alignment.scoring import Score, Scoring, check_failures
from sdg.alignment.signals import epoch_values, training_signal
from sdg.detectors.function import FunctionDetector
from sdg.errors import SdgError
from sdg.io.uri import read_prompts
from sdg.runs.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)

REWARD = RewardRecipe(scorers=(ScorerRecipe("a", "clip:x"),), detector="testbed", c_artifact=1.0)
RECIPE = AlignRecipe(
    policy=PolicyRecipe("flux", "x"),
    prompts=PromptsRecipe("x"),
    reward=REWARD,
    groups=GroupsRecipe(prompts=6, size=4),
    sampling=SamplingRecipe(batch_size=2),
)
LEFT = Defect((0, 0, 500, 1000), "artifact", importance=50)


# --- plan ----------------------------------------------------------------------------------------------


def test_every_pass_draws_each_prompt_once_in_another_order() -> None:
    prompts = [str(i) for i in range(10)]
    drawn = [p for epoch in range(5) for p in epoch_prompts(prompts, 4, epoch, seed=3)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == prompts
    assert drawn[:10] != drawn[10:]
    assert epoch_prompts(prompts, 4, 2, seed=3) == drawn[8:12]  # whatever was drawn before


def test_noise_differs_in_everything_it_depends_on() -> None:
    base = (0, Purpose.TRAINING, 1, 2, 3)
    others = [(1, *base[1:]), (0, Purpose.MONITOR, 1, 2, 3), (0, Purpose.TRAINING, 2, 2, 3),
              (0, Purpose.TRAINING, 1, 3, 3), (0, Purpose.TRAINING, 1, 2, 4)]  # fmt: skip
    seeds = {noise_seed(*key) for key in (base, *others)}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_prompt_drawn_twice_in_an_epoch_makes_two_groups() -> None:
    rows = group_rows(["a", "a"], 2, seed=0, purpose=Purpose.TRAINING, epoch=0)
    assert [row.group for row in rows] == [0, 0, 1, 1]
    assert len({row.seed for row in rows}) == 4


def test_a_shared_start_is_one_for_a_group_and_no_other() -> None:
    rows = group_rows(["a", "a"], 2, seed=0, purpose=Purpose.TRAINING, epoch=0, shared_start=True)
    later = group_rows(["a"], 2, seed=0, purpose=Purpose.TRAINING, epoch=1, shared_start=True)
    starts = [row.start for row in (*rows, *later)]
    assert starts[0] == starts[1] != starts[2] == starts[3]
    assert starts[4] == starts[5]
    assert len(set(starts)) == 3
    assert not {row.seed for row in rows} & set(starts)
    plain = group_rows(["a", "a"], 2, seed=0, purpose=Purpose.TRAINING, epoch=0)
    assert [row.seed for row in rows] == [row.seed for row in plain]
    assert {row.start for row in plain} == {None}


def test_mirrored_samples_are_pairs_of_one_seed_and_opposite_signs() -> None:
    options = {"seed": 0, "purpose": Purpose.TRAINING, "epoch": 0}
    plain, rows = group_rows(["a", "b"], 4, **options), group_rows(["a", "b"], 4, **options, mirrored=True)
    assert [row.sign for row in rows] == [1, -1] * 4
    assert [row.seed for row in rows[::2]] == [row.seed for row in rows[1::2]]
    assert [row.seed for row in rows[::2]] == [row.seed for row in plain[::2]]
    assert {row.sign for row in plain} == {1}


def test_stochastic_steps_are_drawn_from_those_allowed() -> None:
    drawn = [sde_steps(RECIPE, epoch) for epoch in range(60)]
    assert {step for steps in drawn for step in steps} == {1, 2, 3}
    assert all(len(steps) == 1 for steps in drawn)
    assert sde_steps(RECIPE, 7) == drawn[7]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_step_trains_on_the_same_groups_however_many_processes_share_it(processes: int) -> None:
    shares = [share(RECIPE, rank, processes) for rank in range(processes)]
    for step, expected in enumerate((range(12), range(12, 24))):
        together = [index for own in shares for index in own[step]]
        assert together == list(expected)


def test_numbers_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SdgError, match=r"12 samples .* which 4 process"):
        share(RECIPE, 0, 4)


# --- signal --------------------------------------------------------------------------------------------


def test_spatial_advantages_by_hand() -> None:
    # Two samples: R = 1 and 3, σ_R = √2; the second has an artifact of weight 0.5 on its left half.
    scores = [Score(1.0, Diagnosis()), Score(3.0, Diagnosis((LEFT,)))]
    signal = training_signal("boxflow", scores, torch.tensor([7, 7]), (1, 2), REWARD, OptimizerRecipe())
    assert signal.maps is not None
    assert torch.allclose(signal.maps[:, 0], torch.tensor([[1.0, 1.0], [3 - 2**0.5 / 2, 3.0]]))
    assert torch.allclose(
        signal.advantages[:, 0], torch.tensor([[-1.0, -1.0], [1.0, 1.0]]) / 2**0.5, atol=1e-5
    )


def test_with_a_reach_neighbours_of_a_box_pay_as_well() -> None:
    scores = [Score(1.0, Diagnosis()), Score(3.0, Diagnosis((LEFT,)))]
    reach = replace(REWARD, reach=0.25)
    signal = training_signal("boxflow", scores, torch.tensor([7, 7]), (1, 4), reach, OptimizerRecipe())
    assert signal.maps is not None
    low = 3 - 2**0.5 / 2
    assert torch.allclose(signal.maps[:, 0], torch.tensor([[1.0, 1.0, 1.0, 1.0], [low, low, low, 3.0]]))


@pytest.mark.parametrize("method", ["boxflow", "flow-grpo", "denseflow"])
def test_a_sample_that_was_not_scored_takes_no_part(method: Any) -> None:
    known = [Score(1.0, Diagnosis()), Score(3.0, Diagnosis((LEFT,)))]
    unknown = [Score(None, Diagnosis()), Score(99.0, None)]
    groups = torch.tensor([0, 0, 0, 0])
    alone = training_signal(method, known, groups[:2], (2, 2), REWARD, OptimizerRecipe())
    # Flow-GRPO asks no detector, so only the missing reward counts there.
    extra = unknown[:1] if method == "flow-grpo" else unknown
    signal = training_signal(
        method, known + extra, groups[: 2 + len(extra)], (2, 2), REWARD, OptimizerRecipe()
    )
    assert signal.valid.tolist() == [True, True] + [False] * len(extra)
    assert torch.equal(signal.advantages[:2], alone.advantages)
    assert (signal.advantages[2:] == 0).all()
    if method == "denseflow":
        assert signal.heat is not None
        assert torch.equal(signal.heat[1], torch.tensor([[0.5, 0.0], [0.5, 0.0]]))
        assert signal.heat.isfinite().all()


def test_a_failed_detection_never_counts_as_clean() -> None:
    scores = [Score(1.0, None), Score(1.5, Diagnosis((LEFT,))), Score(2.0, Diagnosis((LEFT,)))]
    values = epoch_values(
        training_signal(
            "boxflow", scores, torch.zeros(3, dtype=torch.long), (2, 2), REWARD, OptimizerRecipe()
        ),
        scores,
    )
    assert (values["defects"], values["valid"], values["failed_detector"], values["failed_reward"]) == (
        1.0,
        2,
        1,
        0,
    )


# --- scoring -------------------------------------------------------------------------------------------


def test_scoring_overlaps_with_whoever_submits_and_keeps_order() -> None:
    running = threading.Event()

    class Slow:
        def score(self, pictures: Any, prompts: Any) -> list[float | None]:
            running.set()
            time.sleep(0.05)
            return [float(prompt) for prompt in prompts]

    statuses = {"1": Status.FAILED, "2": Status.UNPARSEABLE, "3": Status.TRUNCATED}

    def diagnosis(picture, prompt):
        return Diagnosis(status=statuses.get(prompt, Status.OK))

    detector = FunctionDetector("python:diagnosis", diagnosis)
    picture = Image.new("RGB", (2, 2))
    with Scoring(Slow(), detector) as scoring:
        began = time.monotonic()
        first, second = scoring.submit([picture] * 2, ["0", "1"]), scoring.submit([picture] * 2, ["2", "3"])
        assert time.monotonic() - began < 0.04
        assert running.wait(1)
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
            return Rollout(pictures, Transitions(tuple(prompts), 0.7, "flow-sde", *[()] * 7))

    recipe = replace(
        RECIPE, sampling=SamplingRecipe(batch_size=4), reward=replace(REWARD, batch_size=together)
    )
    rows = [Row(number, 0, str(number), number) for number in range(10)]
    with Scoring(Recorder(), None) as scoring:
        drawn = roll_out(recipe, cast(FlowPolicy, Painter()), scoring, rows, [])
        assert [score.reward for score in drawn.scores()] == list(range(10))
    assert [len(prompts) for prompts in asked] == chunks
    assert [len(transitions.prompts) for transitions in drawn.transitions] == [4, 4, 2]


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


# --- monitors ------------------------------------------------------------------------------------------


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


# --- checkpoints ---------------------------------------------------------------------------------------


def test_an_optimizer_goes_on_as_if_never_saved(tmp_path: Path) -> None:
    def steps(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, values: list[float]) -> None:
        for value in values:
            parameter.grad = torch.full_like(parameter, value)
            optimizer.step()

    whole = torch.nn.Parameter(torch.ones(3))
    first = torch.optim.AdamW([whole], lr=0.1)
    steps(whole, first, [1.0, -2.0])
    save_checkpoint(tmp_path, 1, {"p": whole.detach(), **optimizer_tensors(first)}, {"epoch": 1})
    tensors, progress = load_checkpoint(tmp_path / "checkpoints" / "epoch-000001")
    assert progress == {"epoch": 1}
    again = torch.nn.Parameter(tensors["p"])
    second = torch.optim.AdamW([again], lr=0.1)
    restore_optimizer(second, tensors)
    for parameter, optimizer in ((whole, first), (again, second)):
        steps(parameter, optimizer, [0.5, 0.1])
    assert torch.equal(whole, again)


def test_the_newest_whole_checkpoint_counts_and_old_ones_go(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for epoch in (1, 2, 10):
        save_checkpoint(tmp_path, epoch, {"p": torch.ones(1)}, {"epoch": epoch}, keep=2)
    (tmp_path / "checkpoints" / ".writing-epoch-000011").mkdir()  # killed while writing
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "epoch-000010"
    assert len(list((tmp_path / "checkpoints").glob("epoch-*"))) == 2
    (newest / "state.safetensors").write_bytes(b"x")
    with pytest.raises(SdgError, match="is damaged"):
        load_checkpoint(newest)


# --- comparison ----------------------------------------------------------------------------------------


def test_changes_are_relative_to_base_and_averaged_over_scorers() -> None:
    base = [{"a": 10.0, "b": -2.0, "d": 3.0}, {"a": 20.0, "b": -2.0, "d": 1.0}]
    other = [{"a": 12.0, "b": -1.0, "d": None}, {"a": 21.0, "b": -1.0, "d": 1.0}]
    result = tabulate({"base": base, "x": other}, ["a", "b"], bootstrap=200)
    cells = result.cells["x"]
    assert cells["a"].mean == 16.5
    assert cells["a"].change == pytest.approx(0.1)
    assert cells["b"].change == pytest.approx(0.5)  # towards 0 from below is more
    assert (cells["d"].mean, cells["d"].known) == (1.0, 1)
    assert result.averages["x"] == pytest.approx(0.3)
    assert result.averages["base"] == 0
    # Both resamples of two prompts, paired: +20 % and +5 %.
    assert cells["a"].change_interval == pytest.approx((0.05, 0.2))
    assert "16.500 [12.000, 21.000] (+10.0 %)" in result.table()


def test_an_interval_holds_the_mean_and_narrows_with_more_prompts() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for count in (20, 500):
        rows = [{"a": float(value)} for value in rng.normal(5, 1, count)]
        cell = tabulate({"base": rows}, ["a"], bootstrap=500).cells["base"]["a"]
        assert cell.interval is not None
        assert cell.mean is not None
        assert cell.interval[0] < cell.mean < cell.interval[1]
        widths.append(cell.interval[1] - cell.interval[0])
    assert widths[1] == pytest.approx(2 * 1.96 / 500**0.5, rel=0.25)
    assert widths[1] < widths[0] / 3


def test_samples_of_one_prompt_are_resampled_together() -> None:
    # Within a prompt samples are equal, so two of each tell no more than one.
    values = [0.0, 1.0, 2.0, 3.0]
    once = tabulate({"base": [{"a": v} for v in values]}, ["a"], bootstrap=400)
    twice = tabulate({"base": [{"a": v} for v in values for _ in (0, 1)]}, ["a"], samples=2, bootstrap=400)
    assert once.cells["base"]["a"].interval == twice.cells["base"]["a"].interval


@pytest.mark.parametrize("text", ["x", "=a", "base=a", "x=/nowhere"])
def test_adapters_are_named_folders(text: str) -> None:
    with pytest.raises(SdgError):
        parse_adapters([text])


# --- pictures and prompts ------------------------------------------------------------------------------


def test_a_figure_shows_four_tiles_a_sample_and_advantages_by_colour() -> None:
    pictures = [Image.new("RGB", (24, 16), "grey")] * 2
    advantages = torch.tensor([[[1.0, -1.0]], [[0.0, 0.0]]])
    figure = signal_figure(pictures, [Diagnosis((LEFT,)), None], ["a", "b"], advantages, advantages)
    assert figure.width == 4 * 256 + 3 * 4
    x, y = 3 * 260, 22 + 80
    assert figure.getpixel((x + 20, y)) == (255, 0, 0)
    assert figure.getpixel((x + 236, y)) == (0, 0, 255)
    assert figure.getpixel((x + 20, figure.height - 80)) == (255, 255, 255)
    # The reward map is white where nothing is taken off, black where most is.
    assert figure.getpixel((520 + 20, y)) == (255, 255, 255)
    assert figure.getpixel((520 + 236, y)) == (0, 0, 0)
    assert figure.getpixel((520 + 236, figure.height - 80)) == (255, 255, 255)
    scalar = signal_figure(pictures, [None, None], ["a", "b"], None, torch.tensor([1.0, -1.0]))
    assert scalar.width == 3 * 256 + 2 * 4


def test_a_grid_has_a_column_a_generator_and_a_row_a_prompt() -> None:
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    grid = picture_grid([("base", [red, red]), ("x", [blue, blue])], ["one", "two"])
    assert grid.width == 2 * 256 + 4
    assert grid.getpixel((128, 200)) == (255, 0, 0)
    assert grid.getpixel((388, grid.height - 100)) == (0, 0, 255)


def test_prompts_come_from_lines_or_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.txt").write_text("a red cup\n\n  a hat \n")
    assert read_prompts(str(tmp_path / "p.txt")) == ["a red cup", "a hat"]
    monkeypatch.setattr(
        toy, "some", lambda count, start="a": [f"{start} {i}" for i in range(count)], raising=False
    )
    assert read_prompts("python:toy.some?count=2&start=the") == ["the 0", "the 1"]
    assert read_prompts("python:toy.some?count=2&start=--5") == ["--5 0", "--5 1"]
    (tmp_path / "p.txt").write_bytes("\ufeffa red cup\n".encode())
    assert read_prompts(str(tmp_path / "p.txt")) == ["a red cup"]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(SdgError, match="holds no prompts"):
        read_prompts(str(tmp_path / "empty.txt"))
