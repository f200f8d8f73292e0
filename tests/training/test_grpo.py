"""GRPO: the reward sees what the model wrote, its parts are logged, and guards stop a run gone wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from kills import kill_and_resume
from train_runs import CLOSE, assert_same_weights, command, finish, not_ended, start_two
from trl.trainer.utils import RepeatSampler

from sdg import parse_response, render_response
from sdg.embeddings import TokenF1
from sdg.errors import SdgError
from sdg.prompting import AnswerParts, Generation, PromptProfile
from sdg.training.dataset import RowReader, target, truths
from sdg.training.grpo import LENGTH, EpochSampler, Guards, grpo, grpo_arguments
from sdg.training.model import load_processor
from sdg.training.recipe import GuardsRecipe, RolloutRecipe
from sdg.training.reward import MALFORMED_SHARE, SPREAD, Reward, reward_function
from sdg.training.run import check_environment, join_processes, trainer_arguments


def entries(out) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


TRUTH = parse_response(
    '<think>\nx\n</think>\n<answer>[{"box_2d": [0, 0, 500, 500], "label": "artifact", '
    '"description": "torn edge", "importance": 50}]</answer>'
)


def rewarded(texts, truths, profile, group) -> tuple[list[float], dict[str, list[float]]]:
    """Rewards of completions, and each value that was handed to the log."""
    logged = defaultdict(list)
    rewards = reward_function(profile, TokenF1().similarity, group)(
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        truth=[json.dumps(truth.to_dict()) for truth in truths],
        log_metric=lambda name, value: logged[name].append(value),
        prompts=None,
    )
    return rewards, dict(logged)


def test_tags_are_still_there_after_decoding_without_special_tokens(grpo_recipe, toy, profile):
    processor = load_processor(grpo_recipe.model)
    rows = RowReader(profile, processor, 900).read(toy / "train.jsonl", None, targets=False)
    found = truths(rows.rows)
    ids = [processor.tokenizer(target(t, profile.answer) + "<|im_end|>")["input_ids"] for t in found]
    texts = processor.batch_decode(ids, skip_special_tokens=True)
    rewards, logged = rewarded(texts, found, profile, group=2)
    assert rewards == [pytest.approx(1.0 if truth.defects else 0.18) for truth in found]
    assert set(logged[MALFORMED_SHARE]) == {0.0}


def test_malformed_completions_are_counted_and_kept_out_of_the_means_of_the_parts(profile):
    rewards, logged = rewarded([render_response(TRUTH), "no idea"], [TRUTH] * 2, profile, group=2)
    assert rewards == [pytest.approx(1.0), -1.0]
    assert logged == {
        MALFORMED_SHARE: [0.0, 1.0],
        "sdg/location": [pytest.approx(1.0)],
        "sdg/description": [pytest.approx(1.0)],
        "sdg/importance": [pytest.approx(1.0)],
        SPREAD: [pytest.approx(2**0.5)],  # of 1 and −1, with n − 1
    }


def test_constant_groups_have_no_spread_however_far_they_are_apart(profile):
    good, bad = render_response(TRUTH), "no idea"
    rewards, logged = rewarded([good, good, bad, bad], [TRUTH] * 4, profile, group=2)
    assert rewards == pytest.approx([1, 1, -1, -1])
    assert logged[SPREAD] == [0.0]
    stopped = Guards(GuardsRecipe(spread=0.005, patience=1)).look({SPREAD: 0.0, "reward_std": 1.15})
    assert stopped == (
        "The reward's spread within groups is 0.0000, below guards.spread, so nothing is learned, "
        "for 1 log entries in a row."
    )
    assert rewarded([good, bad, good, good], [TRUTH] * 4, profile, group=2)[1][SPREAD] == [
        pytest.approx(2**0.5 / 2)
    ]


@pytest.mark.parametrize(
    ("answer", "best", "parts"),
    [
        (AnswerParts(think=False), 1.0, {"location", "description", "importance"}),
        (AnswerParts(description=False), 0.75, {"location", "importance"}),
        (AnswerParts(importance=False), 0.85, {"location", "description"}),
    ],
)
def test_ablated_answers_are_rewarded_for_what_is_asked_and_for_nothing_else(answer, best, parts):
    profile = PromptProfile(answer=answer)
    rewards, logged = rewarded([target(TRUTH, answer), render_response(TRUTH)], [TRUTH] * 2, profile, group=2)
    assert rewards == [pytest.approx(best)] * 2
    assert {name for name in logged if name not in (MALFORMED_SHARE, SPREAD)} == {
        f"sdg/{part}" for part in parts
    }


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({MALFORMED_SHARE: 0.6}, "malformed"),
        ({SPREAD: 0.001}, "spread"),
        ({LENGTH: 400.0}, "400 tokens"),
        ({LENGTH: 20.0}, "20 tokens"),
    ],
)
def test_a_guard_stops_after_so_many_bad_entries_in_a_row(bad, word):
    good = {MALFORMED_SHARE: 0.1, SPREAD: 0.2, LENGTH: 100.0}
    guards = Guards(GuardsRecipe(malformed=0.5, spread=0.01, length=3.0, patience=3))
    for logs in (good, good | bad, good | bad, good, good | bad, {"eval_reward": 1.0}, good | bad):
        assert guards.look(logs) is None
    assert word in guards.look(good | bad)


def test_a_batch_without_whole_groups_is_refused_in_a_sentence(grpo_recipe, tmp_path):
    uneven = replace(grpo_recipe, optimizer=replace(grpo_recipe.optimizer, batch_size=6))
    with pytest.raises(SdgError, match=r"multiple of rollout\.group 8"):
        grpo_arguments(uneven, trainer_arguments(uneven, tmp_path, resumed=False), PromptProfile())


def test_the_papers_values_reach_the_trainer(grpo_recipe, tmp_path):
    shared = trainer_arguments(grpo_recipe, tmp_path, resumed=False)
    arguments = grpo_arguments(grpo_recipe, shared, PromptProfile())
    assert (arguments.num_generations, arguments.beta, arguments.top_p) == (8, 0.01, 0.85)
    assert (arguments.temperature, arguments.loss_type) == (1.0, "grpo")


def test_the_reference_is_of_the_policys_revision(grpo_recipe, tmp_path):
    shared = trainer_arguments(grpo_recipe, tmp_path, resumed=False)
    assert grpo_arguments(grpo_recipe, shared, PromptProfile()).model_init_kwargs is None
    pinned = replace(grpo_recipe, model=replace(grpo_recipe.model, revision="abc"))
    assert grpo_arguments(pinned, shared, PromptProfile()).model_init_kwargs == {"revision": "abc"}


@pytest.mark.parametrize(("engine", "mode"), [("vllm", "colocate"), ("vllm-server", "server")])
def test_an_engine_has_room_for_the_longest_prompt_and_the_longest_answer(
    grpo_recipe, tmp_path, engine, mode
):
    rollout = RolloutRecipe(engine=engine, server="http://node1:9000", vllm_sleep=True, max_tokens=16)
    recipe = replace(grpo_recipe, rollout=rollout)
    profile = PromptProfile(generation=Generation(max_new_tokens=77))
    arguments = grpo_arguments(recipe, trainer_arguments(recipe, tmp_path, resumed=False), profile)
    assert (arguments.use_vllm, arguments.vllm_mode) == (True, mode)
    assert arguments.vllm_server_base_url == "http://node1:9000"
    assert arguments.vllm_enable_sleep_mode
    assert arguments.vllm_max_model_length == recipe.data.max_length + 77


def test_missing_vllm_is_said_before_anything_is_loaded(grpo_recipe, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_environment(grpo_recipe)
    for engine in ("vllm", "vllm-server"):
        with pytest.raises(SdgError, match=rf"engine is {engine}, but vLLM is not installed: .*\[gpu\]"):
            check_environment(replace(grpo_recipe, rollout=RolloutRecipe(engine=engine)))


@pytest.fixture
def installed(monkeypatch):
    """Says which version of vLLM is installed, to TRL as well."""

    def install(version: str) -> None:
        available = import_module("trl.import_utils")
        monkeypatch.setattr(available, "_is_package_available", lambda name, **_: (True, version))
        monkeypatch.setattr("importlib.util.find_spec", lambda name: object())

    return install


@pytest.mark.parametrize(("version", "right"), [("0.21.0", False), ("0.31.0+cpu", True), ("0.33.0", False)])
def test_a_vllm_that_trl_does_not_know_is_refused_in_a_sentence(grpo_recipe, installed, version, right):
    installed(version)
    recipe = replace(grpo_recipe, rollout=RolloutRecipe(engine="vllm"))
    if right:
        return check_environment(recipe)
    with pytest.raises(SdgError) as error:
        check_environment(recipe)
    assert str(error.value) == (
        "rollout.engine is vllm, and the wrong vLLM is installed: TRL currently supports vLLM versions from "
        f"0.22.0 to 0.31.0. You have version {version} installed; `pip install "
        '"structured-defect-grounding[gpu]"` brings one that works, or --set rollout.engine=transformers.'
    )


def test_a_server_cannot_get_its_weights_from_a_cpu(grpo_recipe, installed):
    installed("0.31.0")
    with pytest.raises(SdgError, match="gets the weights from a GPU"):
        check_environment(replace(grpo_recipe, rollout=RolloutRecipe(engine="vllm-server")))


def test_a_first_batch_without_a_well_formed_completion_ends_the_run(profile):
    reward = reward_function(profile, TokenF1().similarity, 2)
    call = {"truth": [json.dumps(TRUTH.to_dict())] * 2, "log_metric": lambda name, value: None}

    def completions(*texts):
        return [[{"role": "assistant", "content": text}] for text in texts]

    with pytest.raises(SdgError) as error:
        reward(completions=completions("no \x1bidea", "none"), **call)
    assert str(error.value).startswith("The run stopped before its first step, for every completion")
    assert "'no \\x1bidea'" in str(error.value)
    good = render_response(TRUTH)
    reward = reward_function(profile, TokenF1().similarity, 2)
    reward(completions=completions("no idea", good), **call)
    reward(completions=completions("no idea", "none"), **call)  # later, the guards count


def test_deepspeed_on_a_cpu_is_refused_because_it_would_be_left_out(grpo_recipe):
    sharded = replace(grpo_recipe, run=replace(grpo_recipe.run, deepspeed=Path("zero2.json")))
    with pytest.raises(SdgError, match=r"run\.deepspeed is set, but this run is on the CPU"):
        check_environment(sharded)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '{"zero_optimization": {"stage": 3}}',
            "has ZeRO stage 3; detectors are trained with",
        ),
        ("{}", r"is no configuration of DeepSpeed with a zero_optimization\.stage"),
    ],
)
def test_a_configuration_that_cannot_be_trained_with_is_refused_before_anything_is_loaded(
    grpo_recipe, tmp_path, monkeypatch, text, reason
):
    (file := tmp_path / "zero.json").write_text(text)
    monkeypatch.setattr("sdg.training.run.on_cpu", lambda recipe: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(SdgError, match=reason):
        check_environment(replace(grpo_recipe, run=replace(grpo_recipe.run, deepspeed=file)))


def test_one_process_that_sees_several_gpus_is_told_how_to_start(grpo_recipe, monkeypatch):
    monkeypatch.setattr("sdg.training.run.on_cpu", lambda recipe: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    state = SimpleNamespace(distributed_type=DistributedType.NO)
    monkeypatch.setattr("sdg.training.run.PartialState", lambda **given: state)
    with pytest.raises(SdgError, match=r"One process sees 2 GPUs: start it with `accelerate launch"):
        join_processes(grpo_recipe)
    state.distributed_type = DistributedType.MULTI_GPU  # also of one process, which torchrun has started
    assert join_processes(grpo_recipe) is state
    state.distributed_type = DistributedType.NO
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert join_processes(grpo_recipe) is state


def test_without_a_gpu_an_automatic_device_is_the_cpu(grpo_recipe, tmp_path, monkeypatch):
    automatic = replace(grpo_recipe, run=replace(grpo_recipe.run, device="auto", precision="bf16"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = trainer_arguments(automatic, tmp_path, resumed=False)
    assert (arguments["use_cpu"], arguments["bf16"], arguments["dataloader_pin_memory"]) == (
        True,
        True,
        False,
    )


@pytest.mark.parametrize(("reward", "validation", "loads"), [("t", "t", 1), ("t", "v", 2), ("t", None, 1)])
def test_embedders_are_loaded_once_by_processes_that_have_their_device(
    grpo_recipe, tmp_path, monkeypatch, reward, validation, loads
):
    loaded = []

    class Stop(Exception):
        pass

    def load(spec):
        assert PartialState._shared_state, "what is loaded before goes to the first GPU"
        loaded.append(spec)
        return TokenF1()

    def trainer(**_):
        raise Stop

    AcceleratorState._reset_state(reset_partial_state=True)
    for module in ("grpo", "run"):
        monkeypatch.setattr(f"sdg.training.{module}.load_embedder", load)
    monkeypatch.setattr("sdg.training.grpo.GrpoTrainer", trainer)
    evaluation = replace(grpo_recipe.evaluation, embedder=validation)
    with pytest.raises(Stop):
        grpo(replace(grpo_recipe, similarity=reward, evaluation=evaluation), tmp_path / "run")
    assert len(loaded) == loads
    assert set(loaded) == {reward, validation} - {None}


def test_an_epoch_has_the_order_that_trl_gives_it_wherever_a_run_is_resumed():
    shape = {"mini_repeat_count": 2, "batch_size": 3, "repeat_count": 2, "seed": 5}
    undisturbed = RepeatSampler(range(10), **shape)
    orders = [list(undisturbed) for _ in range(4)]
    assert orders[0] != orders[1]
    for epoch in (0, 3, 1, 1, 2):
        resumed = EpochSampler(range(10), **shape)
        resumed.epoch = epoch
        assert list(resumed) == orders[epoch]


@pytest.mark.usefixtures("graded")
def test_a_run_of_several_epochs_goes_on_with_the_order_of_the_one_it_is_in(
    grpo_recipe, tmp_path, monkeypatch
):
    began = []

    def order(self):
        began.append(self.epoch)
        yield from RepeatSampler.__iter__(self)

    monkeypatch.setattr(EpochSampler, "__iter__", order)
    optimizer = replace(grpo_recipe.optimizer, max_steps=3)
    recipe = replace(grpo_recipe, optimizer=optimizer, data=replace(grpo_recipe.data, limit=1))
    grpo(recipe, tmp_path / "run")
    assert began == [0, 1, 2]
    shutil.rmtree(tmp_path / "run" / "checkpoint-3")
    not_ended(tmp_path / "run")
    grpo(recipe, tmp_path / "run", resume=True)
    assert began == [0, 1, 2, 2]


def test_fewer_rows_than_a_step_asks_about_are_refused_before_the_model_loads(
    grpo_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr("sdg.training.run.load_model", None)
    optimizer = replace(grpo_recipe.optimizer, batch_size=16)
    recipe = replace(grpo_recipe, optimizer=optimizer, data=replace(grpo_recipe.data, limit=1))
    with pytest.raises(SdgError, match=r"A step asks about 2 rows .* and data\.train has 1; lower the batch"):
        grpo(recipe, tmp_path / "run")


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_loaded(grpo_recipe, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tracked = replace(grpo_recipe, run=replace(grpo_recipe.run, trackers=("wandb",)))
    with pytest.raises(SdgError, match=r"run\.trackers names wandb, which is not installed"):
        check_environment(tracked)


@pytest.mark.slow
@pytest.mark.usefixtures("graded")
def test_two_steps_log_the_parts_and_a_resumed_run_repeats_the_second(grpo_recipe, tmp_path):
    out = tmp_path / "run"
    final = grpo(grpo_recipe, out)
    assert (final / "sdg_profile.toml").exists()
    steps = {entry["step"]: entry for entry in entries(out) if "loss" in entry}
    assert set(steps) == {1, 2}
    parts = (MALFORMED_SHARE, "sdg/location", "sdg/description", "sdg/importance")
    assert [steps[1][part] for part in parts] == [0.0, 0.5, 0.25, 0.125]
    assert steps[2]["grad_norm"] > 0
    assert steps[2][SPREAD] > 0
    assert "kl" in steps[2]
    assert any("eval_BoxF1@0.5" in entry for entry in entries(out))

    assert grpo(grpo_recipe, out, resume=True) == final
    assert len([entry for entry in entries(out) if "loss" in entry]) == 2, "what has ended trains no further"
    whole = entries(out)
    not_ended(out)  # killed after its last checkpoint: there is nothing left to train
    # What ran out of memory in an evaluation goes on with smaller batches of it.
    smaller = replace(grpo_recipe, evaluation=replace(grpo_recipe.evaluation, batch_size=2))
    assert grpo(smaller, out, resume=True) == final
    assert entries(out) == whole
    (out / "checkpoint-2" / "trainer_state.json").unlink()
    not_ended(out)
    grpo(grpo_recipe, out, resume=True)
    again = next(entry for entry in entries(out) if "loss" in entry and entry["step"] == 2)
    for name in ("reward", "entropy", "grad_norm", "kl"):
        assert again[name] == pytest.approx(steps[2][name], rel=CLOSE)


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.usefixtures("graded")
def test_killed_at_any_moment_it_goes_on_as_if_it_had_not_been(grpo_recipe, tmp_path):
    recipe = replace(  # two epochs of two steps
        grpo_recipe,
        optimizer=replace(grpo_recipe.optimizer, max_steps=4),
        data=replace(grpo_recipe.data, limit=2),
    )

    def assert_same(killed, whole):
        names = {"reward", "entropy", "grad_norm", "kl", "eval_reward"}
        assert [entry["step"] for entry in entries(killed)] == [entry["step"] for entry in entries(whole)]
        for again, before in zip(entries(killed), entries(whole), strict=True):
            assert again.keys() == before.keys()
            for name in again.keys() & names:
                assert again[name] == pytest.approx(before[name], rel=CLOSE, abs=1e-9)
        assert len({entry["grad_norm"] for entry in entries(whole) if "grad_norm" in entry}) > 1
        assert_same_weights(killed / "checkpoint-4", whole / "checkpoint-4")
        assert_same_weights(killed / "final", whole / "final")

    kill_and_resume("train grpo", lambda out: command(recipe, out), tmp_path, assert_same)


@pytest.mark.slow
def test_a_run_that_a_guard_stops_ends_with_its_sentence(grpo_recipe, tmp_path, monkeypatch):
    scores = iter((0.5, 0.4))
    monkeypatch.setattr("sdg.training.evaluate.score", lambda *_: {"BoxF1@0.5": next(scores)})
    strict = replace(
        grpo_recipe,
        guards=GuardsRecipe(malformed=0.5, patience=1),
        evaluation=replace(grpo_recipe.evaluation, first=True),
    )

    def grade(responses, truths, similarity, **gate):
        return [Reward(-1.0, 0.0, 0.0, 0.0, format_valid=not place) for place in range(len(responses))]

    monkeypatch.setattr("sdg.training.reward.composite_rewards", grade)
    with pytest.raises(SdgError) as error:
        grpo(strict, tmp_path / "run")
    assert str(error.value) == (
        "The run stopped at step 1: 88% of the completions are malformed, above guards.malformed, "
        "for 1 log entries in a row. Lower the learning rate or start from a better checkpoint; "
        f"the best checkpoint is {tmp_path}/run/checkpoint-1, and scored below {strict.model.checkpoint}."
    )


@pytest.mark.slow
def test_the_log_is_of_all_processes_also_where_one_has_no_well_formed_completion(
    grpo_recipe, tmp_path, monkeypatch
):
    optimizer = replace(grpo_recipe.optimizer, max_steps=1, batch_size=4)  # a group across both processes
    out = tmp_path / "two"

    def grade(responses, truths, similarity, **gate):
        if os.environ["RANK"] == "1":
            return [Reward(-1.0, 0.0, 0.0, 0.0, format_valid=False) for _ in responses]
        return [Reward(1.0, 0.1 * place, 0.25, 0.125, format_valid=True) for place in range(len(responses))]

    monkeypatch.setattr("sdg.training.reward.composite_rewards", grade)
    finish(start_two(replace(grpo_recipe, optimizer=optimizer), out), out)
    assert json.loads((out / "manifest.json").read_text())["processes"] == 2
    [step] = [entry for entry in entries(out) if "loss" in entry]
    assert step[MALFORMED_SHARE] == pytest.approx(0.5)
    parts = [step[f"sdg/{part}"] for part in ("location", "description", "importance")]
    assert parts == pytest.approx([0.15, 0.25, 0.125])
    assert step[SPREAD] == pytest.approx((8 / 7) ** 0.5)  # four of 1 and four of −1
