"""The refinement experiment's script: its numbers, what it says of targets, going on after a stop."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdg import Defect, Diagnosis
from sdg.data.formats.sdg30k import write_annotations
from sdg.detectors.base import StreamingDetector
from sdg.errors import SdgError
from sdg.images import Pair, rgb_picture, save_image
from sdg.io.jsonl import write_objects
from sdg.records import Record
from sdg.refinement import EditRequest, EditResult
from sdg.testbed.models.generator.sampling import held_out_prompts
from sdg.testbed.oracle import diagnose
from sdg.testbed.world.layout import place
from sdg.testbed.world.prompts import parse_prompt
from sdg.testbed.world.renderer import render

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "experiment_refinement.py"
specification = importlib.util.spec_from_file_location("experiment_refinement", SCRIPT)
assert specification is not None
assert specification.loader is not None
experiment = importlib.util.module_from_spec(specification)
sys.modules["experiment_refinement"] = experiment  # where its dataclasses look for their annotations
specification.loader.exec_module(experiment)


def rows(before: Sequence[int], after: Sequence[int], **others: Sequence[Any]) -> list[dict[str, Any]]:
    """Artifacts only, 50 important each, which the detector sees as the oracle does."""
    out = []
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        row: dict[str, Any] = {"status": "improved", "pixels_changed": 0.5}
        for when, count in (("before", old), ("after", new)):
            row |= {f"{when}/{kind}": float(count) for kind in ("defects", "artifacts")}
            row |= {f"{when}/misalignments": 0.0, f"{when}/clean_rate": float(count == 0)}
            row |= {f"{when}/severity": 50 * count, f"{when}/detector": 50 * count}
        out.append(row | {key: values[number] for key, values in others.items()})
    return out


def test_changes_are_of_the_sums_and_their_intervals_of_resampled_pictures() -> None:
    # Resamples of two pictures with 4 → 2 and 2 → 2 defects: the first twice, either once, the second twice.
    assert experiment.change(rows([4, 2], [2, 2]), "defects").text("+.1f") == "-33.3 [-50.0, +0.0]"
    assert experiment.mean(rows([4, 2], [2, 2]), "before/defects").text() == "3.00 [2.00, 4.00]"


def test_differences_are_paired() -> None:
    one, other = rows([9, 9], [1, 4]), rows([9, 9], [2, 5])
    assert experiment.difference(one, other, "after/defects").text("+.2f") == "-1.00 [-1.00, -1.00]"


def test_the_interval_is_that_of_a_mean_of_many_pictures() -> None:
    counts = np.random.default_rng(0).poisson(2, 400)
    found = experiment.mean(rows(counts, counts), "after/defects")
    error = 1.96 * counts.std() / 20
    assert (found.low, found.high) == pytest.approx((counts.mean() - error, counts.mean() + error), abs=0.03)


def test_what_is_undefined_is_no_number() -> None:
    assert experiment.change(rows([0, 0], [1, 0]), "defects").text() == "–"
    unseen = rows([1], [1]) + rows([1], [1])
    for row in unseen:
        row["after/detector"] = None
    assert experiment.mean(unseen, "after/detector").text() == "–"
    unseen[0]["after/detector"] = 30
    assert experiment.mean(unseen, "after/detector").value == 30


def test_each_target_is_met_or_missed() -> None:
    clean = rows([0] * 20, [0] * 19 + [2], pixels_changed=[0.0] * 19 + [0.25])
    said = experiment.verdicts(rows([5, 5], [3, 3]), rows([5, 5], [4, 4]), clean)
    assert said[0] == "- Defects after `sdg`: -40.0 [-40.0, -40.0] %; the target of −40 % is met."
    assert "-1.00 [-1.00, -1.00] defects a picture; the target, fewer beyond chance, is met." in said[1]
    # Wilson's interval of 19 in 20.
    assert "left alone: 95.0 [76.4, 99.1] % of 20 (Wilson's interval); the target of 95 % is met." in said[2]
    assert "they have 0.10 [0.00, 0.30] defects a picture." in said[2]
    clean[0]["pixels_changed"] = 0.01
    said = experiment.verdicts(rows([5, 5], [4, 3]), rows([5, 5], [3, 4]), clean)
    assert all("is missed." in sentence for sentence in said)


def test_a_detector_that_is_fooled_is_seen_to_be() -> None:
    fooled = rows([2, 2, 2], [0, 1, 2], **{"after/detector": [0, 0, 40]})
    failed = rows([2, 2, 2], [2, 2, 2], status=["failed", "no better", "no better"])
    text = experiment.report({"fixed": failed, "sdg": fooled, "clean": rows([0], [0])})
    table = text[text.index("| severity") :].splitlines()
    assert table[2].startswith("| fixed | 100.0 [100.0, 100.0] | 100.0 [100.0, 100.0] |")
    assert table[2].endswith("| 0 of 0 |")
    assert "| 13.3 [0.0, 40.0] |" in table[3]  # 0, 0 and 40 by the detector
    assert "| 50.0 [0.0, 100.0] |" in table[3]  # 0, 50 and 100 by the oracle
    assert table[3].endswith("| 1 of 2 |")
    assert "| fixed | 2.00 [2.00, 2.00] |" in text
    assert "| 50.0 [50.0, 50.0] | 2 | 1 |" in text


def draw_pictures(folder: Path, *, prompts: int, seeds: int, steps: int, seed: int) -> None:
    """Stands in for `measure_generator`: scenes of the prompts, every third number blank."""
    if (folder / "test.jsonl").exists():
        return
    records = []
    for number, prompt in enumerate(held_out_prompts(prompts, seed)):
        scene = scene_of(prompt)
        shown = np.full_like(scene, 240) if number % 3 == 0 else scene
        path = f"images/{number:06d}.png"
        save_image(Image.fromarray(shown), folder / path)
        records.append(Record(path, prompt, diagnose(shown, prompt)))
    write_annotations(folder / "test.jsonl", records)


def scene_of(prompt: str) -> np.ndarray:
    return render(place(parse_prompt(prompt), np.random.default_rng(0)))


class Oracle(StreamingDetector):
    """Guides what it will judge, which no experiment should."""

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {"detector": "oracle"}

    def stream(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Diagnosis]]:
        for index, (image, prompt) in enumerate(pairs):
            yield index, diagnose(rgb_picture(image), prompt)


class Attentive:
    """Draws what the prompt asks for if it is told what is wrong, and repeats the picture otherwise."""

    concurrency = 1

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        return [EditResult(self._one(request)) for request in requests]

    def _one(self, request: EditRequest) -> Image.Image:
        told = "Correct these defects" in request.instruction
        return Image.fromarray(scene_of(request.prompt)) if told else request.picture


def test_pictures_are_drawn_until_there_are_enough_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def annotate(folder: Path, *, prompts: int, seeds: int, steps: int, seed: int) -> None:
        drawn.append(seed)
        flawed = Diagnosis((Defect((0, 0, 9, 9), "artifact"),))
        found = [Diagnosis() if number % 3 else flawed for number in range(prompts)]
        write_annotations(
            folder / "test.jsonl", (Record(f"{n}.png", "a cup", one) for n, one in enumerate(found))
        )

    monkeypatch.setattr(experiment, "measure_generator", annotate)
    defective, clean = experiment.draw(tmp_path, 3, 5)
    # Of six pictures two are defective, so that six more are drawn with the next seed.
    assert drawn == [5, 6]
    assert [one.item.filepath for one in defective] == [f"pictures-{n}.png" for n in ("0/0", "0/3", "1/0")]
    assert [one.item.filepath for one in clean] == [f"pictures-0/{n}.png" for n in (1, 2, 4)]
    assert defective[2].item.file == tmp_path / "pictures-1" / "0.png"
    assert [one.diagnosis.is_clean for one in [*defective, *clean]] == [False] * 3 + [True] * 3
    monkeypatch.setattr(experiment, "MOST_DRAWS", 1)
    with pytest.raises(SdgError, match="Only 4 pictures are clean and 2 defective; lower --count"):
        experiment.draw(tmp_path, 3, 5)


def test_the_experiment_runs_whole_and_edits_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "measure_generator", draw_pictures)
    monkeypatch.setattr(experiment, "load_detector", lambda uri: Oracle())
    monkeypatch.setattr(experiment, "load_editor", lambda uri, steps: Attentive())
    options = ["--count", 2, "--candidates", 1, "--runs", tmp_path / "runs", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["experiment_refinement.py", *map(str, options)])
    experiment.main()
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "- Defects after `sdg`: -100.0 [-100.0, -100.0] %; the target of −40 % is met." in text
    assert "fewer beyond chance, is met." in text
    assert "100.0 [34.2, 100.0] % of 2 (Wilson's interval)" in text
    assert "| change of a picture's defects, % |" in text
    assert "Detector testbed?looks=8&agree=0.1&batch_size=16, editor testbed, 20 steps, 3 rounds of" in text
    assert "    python benchmarks/experiment_refinement.py --count 2 --candidates 1 " in text
    lines = [json.loads(line) for line in (tmp_path / "out" / "measures.jsonl").read_text().splitlines()]
    assert [line["run"] for line in lines] == ["fixed"] * 2 + ["heatmap"] * 2 + ["sdg"] * 2 + ["clean"] * 2
    assert {line["status"] for line in lines if line["run"] == "sdg"} == {"clean"}
    assert {line["status"] for line in lines if line["run"] == "fixed"} == {"no better"}
    assert {line["status"] for line in lines if line["run"] == "clean"} == {"already clean"}
    assert all(line["before/detector"] == line["before/severity"] for line in lines)
    width, height = Image.open(tmp_path / "out" / "grid.png").size
    assert width > 3 * 256
    assert height > 2 * 256

    def refuse(self: object, requests: object) -> None:
        raise AssertionError("it was edited before")

    monkeypatch.setattr(Attentive, "edit", refuse)
    experiment.main()
    assert (tmp_path / "out" / "summary.md").read_text() == text
    (tmp_path / "runs" / "fixed" / "refinements.jsonl").unlink()
    with pytest.raises(AssertionError, match="edited before"):
        experiment.main()


def test_runs_of_several_seeds_are_pooled(tmp_path: Path) -> None:
    mine = {"sdg": [{"run": "sdg", "id": "a"}]}
    write_objects(tmp_path / "measures.jsonl", [{"run": "fixed", "id": "b"}, {"run": "sdg", "id": "c"}])
    assert [row["id"] for row in experiment.pool(mine, [tmp_path, tmp_path])["sdg"]] == ["a", "c", "c"]
    assert len(mine["sdg"]) == 1
    with pytest.raises(SdgError, match="has no pictures of run 'heatmap'"):
        experiment.pool({"heatmap": []}, [tmp_path])
