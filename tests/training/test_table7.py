"""The script of the ablations: grounded traces, means over seeds, signs of differences; whole on a toy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from scripts import forked, load

from sdg import Defect, Diagnosis, evaluate
from sdg.bench.detection import OVERRIDES
from sdg.data.formats.sdg30k import read_annotations
from sdg.errors import SdgError
from sdg.evaluation import PAPER_METRICS, compare
from sdg.response import format_fault, parse_response, render_response

alignment = load("experiment_alignment")
experiment = load("experiment_table7")

SMEAR = Defect((10, 20, 30, 40), "artifact", "A smear.", 30)
MISSING = Defect((0, 0, 1000, 1000), "misalignment", "No star.", 60)
TRACE = (
    "Step 1: The caption asks for a star. Box 9: no heading.\nArtifact: smear.\nStep 3:\n"
    "Box 1: star left, right.\nBox 2 (misalignment): whole picture."
)


def test_a_grounded_trace_names_each_box_with_the_answers_coordinates() -> None:
    plain = Diagnosis((SMEAR, MISSING), TRACE)
    found = experiment.grounded(plain)
    assert found.reasoning.splitlines()[-2:] == [
        "Box 1 [10, 20, 30, 40]: star left, right.",
        "Box 2 (misalignment) [0, 0, 1000, 1000]: whole picture.",
    ]
    assert found.reasoning.splitlines()[:-2] == TRACE.splitlines()[:-2]
    text = render_response(found)
    assert format_fault(text) is None
    assert parse_response(text) == found
    assert found.defects == plain.defects


def test_a_clean_picture_has_nothing_to_ground_and_a_trace_without_a_box_is_refused() -> None:
    clean = Diagnosis((), "Step 1: a star.\nStep 3: No box.")
    assert experiment.grounded(clean) == clean
    for reasoning in ("", TRACE, TRACE.replace("Box 2", "Box 1")):
        with pytest.raises(SdgError, match=r"names the boxes .* of 1 defects"):
            experiment.grounded(Diagnosis((SMEAR,), reasoning))


def test_traces_of_the_testbed_can_be_grounded(toy: Path, tmp_path: Path) -> None:
    experiment.write_grounded(toy / "train.jsonl", tmp_path / "grounded.jsonl")
    for record in read_annotations(tmp_path / "grounded.jsonl"):
        assert record.diagnosis is not None
        for number, defect in enumerate(record.diagnosis.defects, start=1):
            assert f"\nBox {number} {list(defect.box)}: " in record.diagnosis.reasoning


def test_the_grounded_trace_learns_as_many_tokens_in_fewer_steps(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--corpus", toy, "--base", toy / "checkpoint", "--runs", tmp_path, "--steps", 1000]
    words += ["--set-sft", "data.max_length=900"]
    monkeypatch.setattr(sys, "argv", ["experiment_table7.py", *map(str, words)])
    whole = experiment.Experiment(experiment.parse())
    experiment.write_grounded(toy / "train.jsonl", whole.grounded_train)
    plain, grounded = (
        whole.recipe(whole.overrides(experiment.Training(name, "sft", ("data.jitter=0",)), 0))
        for name in (experiment.PLAIN, experiment.GROUNDED)
    )
    assert plain.optimizer.max_steps == 1000
    tokens = [recipe.optimizer.max_steps * experiment.target_tokens(recipe) for recipe in (plain, grounded)]
    assert grounded.optimizer.max_steps < 1000
    assert tokens[1] == pytest.approx(tokens[0], rel=1e-3)
    for recipe in (plain, grounded):  # each is measured as often, and at its end
        assert recipe.optimizer.max_steps - experiment.MEASUREMENTS * recipe.evaluation.every in range(4)


def test_what_the_numbers_depend_on_is_held_by_its_content(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, base = tmp_path / "corpus", tmp_path / "base"
    shutil.copytree(toy, corpus, ignore=shutil.ignore_patterns("checkpoint"))
    shutil.copy(toy / "validation.jsonl", corpus / "test.jsonl")
    base.mkdir()
    words = ["experiment_table7.py", "--corpus", str(corpus), "--base", str(base), "--runs", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    whole = experiment.Experiment(experiment.parse())
    with pytest.raises(SdgError, match=r"base has no weights; give the checkpoint"):
        whole.identity()
    (base / "model.safetensors").write_bytes(b"one")
    first = whole.identity()
    assert whole.identity() == first
    (base / "model.safetensors").write_bytes(b"other")
    assert whole.identity() != first
    (corpus / "test.jsonl").unlink()
    with pytest.raises(SdgError, match=r"test.jsonl cannot be read"):
        whole.identity()


@pytest.mark.parametrize("jobs", [1, 2])
def test_after_ctrl_c_no_training_is_begun(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    words = ["--corpus", toy, "--base", toy / "checkpoint", "--runs", tmp_path, "--jobs", jobs]
    monkeypatch.setattr(sys, "argv", ["experiment_table7.py", *map(str, words)])
    whole = experiment.Experiment(experiment.parse())
    begun: list[str] = []

    def train(training: object, seed: int) -> None:
        begun.append(f"{training} {seed}")
        if len(begun) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
        else:
            time.sleep(0.05)

    monkeypatch.setattr(whole, "train", train)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    try:
        with pytest.raises(KeyboardInterrupt):
            whole.train_all()
    finally:
        signal.signal(signal.SIGINT, before)
    assert 3 <= len(begun) < 2 * sum(training.start is None for training in experiment.TRAININGS)


def test_a_mean_over_seeds_is_undefined_where_one_of_them_is_and_counts_add_up() -> None:
    one, other = (
        evaluate([[SMEAR], []], [said, []], bootstrap=0).to_document() for said in ([SMEAR], [MISSING])
    )
    mean = experiment.averaged([one, other])
    assert mean["metrics"]["artifact"]["BoxF1@0.5"] == pytest.approx(0.5)
    assert mean["metrics"]["artifact"]["ImpAcc@0.1"] is None  # of the second, which matched nothing
    assert mean["status"]["evaluated"] == 4


def test_a_sign_counts_only_where_all_seeds_have_it() -> None:
    keys = [("no-jitter", "artifact", metric) for metric in PAPER_METRICS[:5]]
    sure, unsure = (-0.2, (-0.3, -0.1)), (-0.2, (-0.5, 0.1))
    ours = dict(
        zip(
            keys,
            [[sure, sure], [sure, unsure], [sure, (0.1, (0.0, 0.2))], [sure, None], [sure, sure]],
            strict=True,
        )
    )
    published = dict(zip(PAPER_METRICS, [-0.1, 0.1, -0.1, -0.1, None, -0.1], strict=True))
    numbers = {"no-jitter": {"artifact": {"published": published}}}
    lines = experiment.difference_lines(ours, numbers, [0, 1])
    assert lines[0] == (
        "Of 3 differences that the paper has, 2 have one sign in all seeds, 1 of them the paper's. "
        "Of the 1 whose intervals leave out 0 in all seeds, 1 have it."
    )
    assert lines[4].endswith("| -0.200 (-0.300 to -0.100) | -0.200 (-0.300 to -0.100) | -0.100 |")
    assert len({line.count("|") for line in lines[2:-1]}) == 1


def test_a_difference_is_that_of_the_comparison(toy: Path) -> None:
    base, worse = (evaluate([[SMEAR], []], [said, []], bootstrap=0) for said in ([SMEAR], []))
    found = experiment.differences({"no-jitter": [compare(worse, base, resamples=10)]})
    assert len(found) == 2 * len(PAPER_METRICS)
    ((value, bounds),) = found["no-jitter", "artifact", "BoxF1@0.5"]
    assert value == -1
    assert bounds[0] <= value <= bounds[1]
    assert found["no-jitter", "artifact", "ImpAcc@0.1"] == [None]


@pytest.mark.slow
@pytest.mark.usefixtures("graded")
def test_all_of_it_runs_on_a_toy_and_does_nothing_twice(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, runs, out = (tmp_path / name for name in ("corpus", "runs", "out"))
    shutil.copytree(toy, corpus, ignore=shutil.ignore_patterns("checkpoint"))
    shutil.copy(toy / "validation.jsonl", corpus / "test.jsonl")
    both = ["data.max_length=900", "data.workers=0", "optimizer.batch_size=4", "evaluation.batch_size=4"]
    both += ["run.precision=fp32"]
    sft = [*both, "profile.generation.max_new_tokens=16"]
    grpo = [*both, "rollout.max_tokens=8", "rollout.group=4", "guards.malformed=1.0", "guards.spread=0"]
    words = ["--corpus", corpus, "--base", toy / "checkpoint", "--runs", runs, "--out", out, "--seeds", 0]
    words += ["--steps", 2, "--grpo-steps", 1, "--embedder", "token-f1"]
    words += [word for one in sft for word in ("--set-sft", one)]
    words += [word for one in grpo for word in ("--set-grpo", one)]

    def run(*more: object) -> str:
        monkeypatch.setattr(sys, "argv", ["experiment_table7.py", *map(str, (*words, *more))])
        experiment.main()
        return capsys.readouterr().out

    monkeypatch.setattr(alignment, "subprocess", SimpleNamespace(run=forked))
    said = run("--trial", 1)
    assert "9 × SFT and 2 × GRPO, 1 at a time: about" in said
    assert not runs.exists()
    said = run()
    assert "Ablations of the detector (SDG Table 7)" in said
    recipes = {
        name: json.loads((runs / f"{name}-seed0" / "manifest.json").read_text())["recipe"]
        for name in ("sft", *(name for name in OVERRIDES), "grounded-trace", "sft-no-think", "grpo")
    }
    for name, recipe in recipes.items():
        assert recipe["model"]["freeze_vision"] == (name != "unfrozen-vision")
    assert recipes["no-step-1"]["profile"]["answer"]["steps"] == [2, 3]
    assert recipes["grpo-no-think"]["model"]["checkpoint"] == str(runs / "sft-no-think-seed0" / "final")
    assert recipes["grounded-trace"]["data"]["jitter"] == 0
    assert {recipes[name]["optimizer"]["max_steps"] for name in OVERRIDES if name != "grpo-no-think"} == {2}
    table = json.loads((out / "table7.json").read_text())
    assert set(table["numbers"]["differences"]) == set(OVERRIDES)
    scores = json.loads((out / "scores.json").read_text())
    assert set(scores) == {"sft", "grpo", "grounded-trace", *OVERRIDES}
    logs = {f"{name}-seed0" for name in (*scores, "sft-no-think")}
    assert {path.stem for path in (out / "logs").glob("*.jsonl")} == logs
    page = (out / "summary.md").read_text()
    assert "## The grounded trace" in page
    assert "| grpo-no-think | 0 | 1 |" in page

    def refuse(*arguments: object) -> None:
        raise AssertionError("it was done before")

    monkeypatch.setattr(experiment, "sdg", refuse)
    run()
    assert (out / "summary.md").read_text() == page
    with pytest.raises(SystemExit, match=r"steps\.sft was 2 and is 3 now"):
        run("--steps", 3)
    monkeypatch.setattr(experiment, "sdg", alignment.sdg)
    shutil.rmtree(runs / "grpo-seed0" / "final")  # as if killed before its end
    run()
    assert (out / "summary.md").read_text() == page
