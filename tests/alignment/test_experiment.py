"""The alignment experiment's script: what it says of results, its curves, going on after a stop."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from scripts import forked, load
from toy import small

experiment, plot = load("experiment_alignment"), load("plot_alignment")
JUDGED = "background/clean_rate"


def measures(path: Path, defects: dict[str, list[float]]) -> Path:
    lines = [
        json.dumps({"generator": name, "picture": number, "reward": 2.0, "oracle/defects": value})
        for name, values in defects.items()
        for number, value in enumerate(values)
    ]
    path.write_text("\n".join(lines))
    return path


def test_seeds_are_pooled_prompt_by_prompt_and_boxflow_is_set_against_all_others(tmp_path: Path) -> None:
    # Two prompts: base 4 and 2 (mean 3), BoxFlow 3, 1 and 2, 2 (mean 2), Flow-GRPO 2, 2 and 2, 2.
    path = measures(
        tmp_path / "measures.jsonl",
        {
            "base": [4, 2],
            "boxflow-seed0": [3, 1],
            "boxflow-seed1": [2, 2],
            "flow-grpo-seed0": [2, 2],
            "flow-grpo-seed1": [2, 2],
        },
    )
    rows = experiment.pooled(path, ["boxflow", "flow-grpo"], [0, 1], samples=1)
    assert [row["oracle/defects"] for row in rows["boxflow"]] == [3, 2, 1, 2]
    text = experiment.summary(rows, 1, {"boxflow": [1.25, None], "flow-grpo": [None, None]})
    # Resamples of the two prompts: base 4, 3 or 2, BoxFlow 2.5, 2 or 1.5.
    assert "boxflow against base: -33.3 % defects a picture [-37.5, -25.0]; fewer." in text
    twin = "boxflow against flow-grpo, its scalar twin: +0.0 % defects a picture [-25.0, +25.0]"
    assert f"{twin}; not surely fewer." in text
    assert "Best, boxflow: -33.3 % defects a picture; −35 % is missed." in text
    assert "Base reward: +0.0 %; not lower is met." in text
    assert "- boxflow: 1.2, not reached" in text
    assert "2 held-out prompts, 1 pictures of each from every generator" in text


def test_the_pictures_of_a_prompt_stay_together(tmp_path: Path) -> None:
    path = measures(
        tmp_path / "m.jsonl",
        {"base": [4, 4, 2, 2], "boxflow-seed0": [1, 2, 3, 4], "boxflow-seed1": [5, 6, 7, 8]},
    )
    rows = experiment.pooled(path, ["boxflow"], [0, 1], samples=2)
    assert [row["oracle/defects"] for row in rows["boxflow"]] == [1, 2, 5, 6, 3, 4, 7, 8]
    text = experiment.summary(rows, 2, {})
    # Resamples of the two prompts: base 4, 3 or 2, BoxFlow 3.5, 4.5 or 5.5.
    assert "boxflow against base: +50.0 % defects a picture [-12.5, +175.0]; not surely fewer." in text
    assert "2 held-out prompts, 2 pictures of each from every generator" in text


def test_the_best_spatial_method_is_held_against_the_targets(tmp_path: Path) -> None:
    seen = {"base": (5, 1.0), "boxflow-seed3": (4, 1.0), "boxflow-nft-seed3": (3, 0.9)}
    lines = [
        {"generator": name, "picture": number, "reward": 2.0} | {"oracle/defects": defects, JUDGED: faithful}
        for name, (defects, faithful) in seen.items()
        for number in (0, 1)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = experiment.pooled(tmp_path / "m.jsonl", ["boxflow", "boxflow-nft"], [3], 1)
    text = experiment.summary(rows, 1, {})
    assert "Best, boxflow-nft: -40.0 % defects a picture; −35 % is met." in text
    assert "Backgrounds as asked: -10.0 points; within 3 is missed." in text
    assert "boxflow-nft against boxflow: -25.0 % defects a picture [-25.0, -25.0]; fewer." in text


def test_the_time_to_fewer_defects_is_that_of_the_epochs_before_the_measurement() -> None:
    part = {"sampling_seconds": 30.0, "scoring_seconds": 20.0, "optimizing_seconds": 10.0}
    epoch = {"kind": "train", **part}
    seen = [{"kind": "monitor", experiment.DEFECTS: value} for value in (2.0, 1.7, 1.6)]
    lines = [seen[0], epoch, epoch, seen[1], epoch, seen[2], epoch]
    assert experiment.minutes_to_fewer(lines) == 3
    assert experiment.minutes_to_fewer(lines[:5]) is None
    assert experiment.minutes_to_fewer([{"kind": "monitor", experiment.DEFECTS: None}, epoch]) is None


def test_curves_are_read_by_method_and_seed_and_averaged_where_all_seeds_are(tmp_path: Path) -> None:
    for seed, values in (("0", [3.0, 2.0]), ("1", [5.0])):
        lines = [
            {"kind": "monitor", "epoch": 5 * i, "step": 10 * i, "oracle/defects": value}
            for i, value in enumerate(values)
        ]
        lines.append({"kind": "train", "epoch": 1, "step": 2, "reward": 1.0})
        (tmp_path / f"flow-grpo-seed{seed}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    curves = plot.read_curves(tmp_path)
    assert curves["flow-grpo"]["0"]["oracle/defects"] == {0: 3.0, 10: 2.0}
    assert curves["flow-grpo"]["0"]["reward"] == {}  # of training, which is no measurement
    seeds = [curves["flow-grpo"][seed]["oracle/defects"] for seed in "01"]
    assert plot.mean_curve(seeds) == {0: 4.0}
    plot.draw(curves, tmp_path / "pictures" / "curves.png")
    assert Image.open(tmp_path / "pictures" / "curves.png").width > 1000


@pytest.mark.slow
def test_the_experiment_runs_whole_and_does_nothing_twice(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: dict[str, Any] = {
        "monitor__judges": "[{name: oracle, uri: 'python:toy.detect'}]",
        "monitor__best": "oracle/defects",
        "optimizer__steps": 2,
        "policy__lora__targets": "[to_q, to_k]",
    }
    options = ["--runs", tmp_path / "runs", "--out", tmp_path / "out", "--seeds", 0, "--prompts", 3]
    options += ["--methods", "boxflow", "nft", "--steps", 2]
    options += small(checkpoints, **watched)
    monkeypatch.setattr(sys, "argv", ["experiment_alignment.py", *map(str, options)])

    monkeypatch.setattr(experiment, "subprocess", SimpleNamespace(run=forked))
    experiment.main()
    logs = sorted((tmp_path / "out" / "logs").glob("*.jsonl"))
    assert [path.stem for path in logs] == ["boxflow-seed0", "nft-seed0"]
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "3 held-out prompts" in summary
    assert (tmp_path / "out" / "table.md").exists()

    def refuse(*arguments: object) -> None:
        raise AssertionError("it was done before")

    monkeypatch.setattr(experiment, "sdg", refuse)
    experiment.main()
    (tmp_path / "runs" / "nft-seed0" / experiment.ADAPTER).unlink()
    with pytest.raises(AssertionError, match="done before"):
        experiment.main()
