"""What a run ends with, against what it began with: the comparison, and the weights that follow from it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from train_runs import not_ended
from transformers import TrainerState

from sdg import Defect, Diagnosis, render_response
from sdg.errors import SdgError
from sdg.models.vlm import Answer
from sdg.prompting import PromptProfile
from sdg.training.evaluate import Outcome, Validation, score
from sdg.training.grpo import grpo
from sdg.training.sft import sft

METRIC = "BoxF1@0.5"


def state(start: float | None, best: float | None) -> TrainerState:
    """A trainer's state as after evaluations of the start and of two checkpoints, the second one better."""
    log = [] if start is None else [{f"eval_{METRIC}": start, "step": 0}]
    if best is None:
        return TrainerState(log_history=log)
    log += [{"loss": 1.0, "step": 10}, {f"eval_{METRIC}": best / 2, "step": 10}]
    log += [{f"eval_{METRIC}": best, "step": 20}]
    return TrainerState(log_history=log, best_metric=best, best_model_checkpoint="runs/a/checkpoint-20")


@pytest.mark.parametrize(
    ("start", "best", "weights", "sentence"),
    [
        (
            0.5,
            0.4,
            "start",
            "No checkpoint is better than the start, so the final detector is the start's: "
            "BoxF1@0.5 was 0.5000 at the start and is 0.4000 at best, in checkpoint-20.",
        ),
        (
            0.25,
            0.4,
            "checkpoint-20",
            "The final detector is the best checkpoint: BoxF1@0.5 was 0.2500 at the start and is 0.4000 at "
            "best, in checkpoint-20.",
        ),
        (
            0.4,
            0.4,
            "checkpoint-20",
            "The final detector is the best checkpoint: BoxF1@0.5 was 0.4000 at the start and is 0.4000 at "
            "best, in checkpoint-20.",
        ),
        (None, 0.4, "checkpoint-20", None),
        (0.5, None, "last step", None),
        (None, None, "last step", None),
    ],
)
def test_only_a_start_that_scored_above_every_checkpoint_is_kept(start, best, weights, sentence):
    outcome = Outcome.of(state(start, best), METRIC)
    assert (outcome.weights, outcome.start, outcome.best) == (weights, start, best)
    assert outcome.sentence() == sentence
    assert Outcome.of(state(start, best), "artifact_BoxF1@0.1").start is None


@pytest.mark.slow
@pytest.mark.usefixtures("graded")
@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_run_that_only_got_worse_ends_with_the_weights_it_began_with(
    kind, sft_recipe, grpo_recipe, toy, tmp_path, monkeypatch, capsys
):
    train, recipe = {"sft": (sft, sft_recipe), "grpo": (grpo, grpo_recipe)}[kind]
    recipe = replace(
        recipe,
        optimizer=replace(recipe.optimizer, max_steps=2),
        evaluation=replace(recipe.evaluation, first=True, every=1),
    )
    scores = iter((0.5, 0.4, 0.3, 0.2))
    monkeypatch.setattr("sdg.training.evaluate.score", lambda *_: {METRIC: next(scores), "reward": 0.0})
    monkeypatch.setattr("sdg.training.evaluate.answer_rows", lambda model, processor, profile, rows, _: rows)
    out = tmp_path / "run"

    def check() -> None:
        assert "No checkpoint is better than the start" in capsys.readouterr().err
        final = json.loads((out / "manifest.json").read_text())["final"]
        assert final == {"weights": "start", "metric": METRIC, "best": 0.4, "start": 0.5}
        begun, ended = (load_file(at / "model.safetensors") for at in (toy / "checkpoint", out / "final"))
        assert begun.keys() == ended.keys()
        assert all(torch.equal(begun[name], ended[name]) for name in begun)
        assert PromptProfile.load(out / "final") == recipe.profile

    train(recipe, out)
    check()
    if kind == "sft":
        trained = load_file(out / "checkpoint-2" / "model.safetensors")
        assert any(
            not torch.equal(trained[name], value)
            for name, value in load_file(out / "final" / "model.safetensors").items()
        )

    # The start's score is known to a run that goes on from a checkpoint, too.
    (out / "checkpoint-2" / "trainer_state.json").unlink()
    (out / "final" / "model.safetensors").unlink()
    not_ended(out)
    train(recipe, out, resume=True)
    check()


BOX = (100, 100, 300, 300)
TRUTH = (Diagnosis((Defect(BOX, "artifact", "torn", 80),), "Torn."), Diagnosis((), "Fine."))


def answers(*found: Diagnosis | str) -> list[Answer]:
    return [
        Answer("", error=one) if isinstance(one, str) else Answer(render_response(one), whole=True)
        for one in found
    ]


def test_a_row_that_could_not_be_asked_counts_for_nothing(profile):
    perfect = score(answers(*TRUTH), TRUTH, profile, None)
    refused = score(answers(TRUTH[0], TRUTH[1], "It is gone."), (*TRUTH, TRUTH[0]), profile, None)
    assert refused == perfect
    assert perfect["BoxF1@0.5"] == perfect["well_formed"] == 1
    assert "reward" not in score(answers("It is gone."), TRUTH[:1], profile, None)


def test_a_mean_is_over_the_types_of_the_truth_whatever_is_invented(profile):
    invented = Diagnosis((*TRUTH[0].defects, Defect(BOX, "misalignment", "not red", 50)), "Torn.")
    more, fewer = (score(answers(one, TRUTH[1]), TRUTH, profile, None) for one in (invented, TRUTH[0]))
    assert more["BoxF1@0.5"] == fewer["BoxF1@0.5"] == 1
    assert more["misalignment_BoxF1@0.5"] == 0
    assert more["ClnAcc"] < fewer["ClnAcc"]


@pytest.mark.parametrize("best", ["misalignment_BoxF1@0.5", "artifact_ClnAcc", "BoxF1@0.5", "reward"])
def test_a_metric_that_the_truth_leaves_undefined_is_refused_at_once(best, profile):
    rows = tuple({"truth": json.dumps(one.to_dict())} for one in TRUTH)
    if best.startswith("misalignment"):
        with pytest.raises(SdgError, match=r"is misalignment_BoxF1@0\.5, which is undefined"):
            Validation(rows, profile, 1, best)
    else:
        Validation(rows, profile, 1, best)
    if best == "BoxF1@0.5":
        with pytest.raises(SdgError, match="undefined"):
            Validation(rows[1:], profile, 1, best)
