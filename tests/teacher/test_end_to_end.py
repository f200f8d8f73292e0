"""From the testbed's annotations, cut down to a few words, to a detector trained on a teacher's texts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from teacher import BAD, breaks_down, drops_a_box, first, is_slow, shortened, tag, teacher, well

from sdg.data.formats import read_records, sdg30k
from sdg.response import format_fault
from sdg.teacher.enrich import ACCEPTED, LEFT, UNANSWERED, enrich, left_of
from sdg.teacher.plan import Plan, prepare
from sdg.testbed.datasets.injected import generate

ROOT = Path(__file__).parents[2]
STEPS = 6
WORDS = (8, 45)  # the small world's reasons are shorter than people's


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of the testbed, of which short.jsonl holds the training pictures' short annotations."""
    folder = tmp_path_factory.mktemp("end") / "shapes"
    generate(folder, 70)
    records = list(read_records(folder / "train.jsonl"))
    for index, record in enumerate(records):
        tag(folder / record.filepath, index)
    sdg30k.write_annotations(folder / "short.jsonl", map(shortened, records))
    return folder


@pytest.fixture(scope="module")
def enriched(shapes: Path) -> Path:
    """enriched.jsonl, by a teacher that misbehaves in every way and breaks down in the middle."""
    records = list(read_records(shapes / "train.jsonl"))
    rights = [record.diagnosis for record in records]
    ways = [*map(first, BAD.values()), is_slow, well, breaks_down]
    defective = [index for index, right in enumerate(rights) if right.defects]
    behave = {index: ways[at % len(ways)] for at, index in enumerate(defective)}
    stubborn = behave[defective[-1]] = drops_a_box  # and stays so
    out = shapes / "enriched.jsonl"
    given, unknown = prepare(read_records(shapes / "short.jsonl"), shapes)
    assert not unknown
    with teacher(rights, lambda index: behave.get(index, well)) as server:
        plan = Plan(f"openai:{server.url}?attempts=1&timeout=30#vlm", words=WORDS)
        result = enrich(given, out, plan)
    down = sum(way is breaks_down for way in behave.values())
    assert down > 1
    assert result.statuses == {ACCEPTED: len(given) - down - 1, UNANSWERED: down, LEFT: 1}
    assert not out.exists()
    badly = Counter(way for way in behave.values() if way not in (is_slow, well, breaks_down, stubborn))
    assert sum(result.faults.values()) == badly.total() + plan.tries
    kinds = {"count", "box", "label", "coordinates", "annotation", "language", "cut off", "length", "tier"}
    assert result.faults.keys() == kinds | {"unreadable"}
    with teacher(rights, lambda index: stubborn if index == defective[-1] else well) as server:
        plan = Plan(f"openai:{server.url}?attempts=1&timeout=30#vlm", words=WORDS)
        result = enrich(given, out, plan, resume=True)
        assert server.asked.total() == down
    assert result.statuses == {ACCEPTED: len(given) - 1, LEFT: 1}
    return out


def test_nothing_wrong_is_accepted_and_nothing_right_is_lost(shapes: Path, enriched: Path) -> None:
    right = {record.filepath: record.diagnosis for record in read_records(shapes / "train.jsonl")}
    kept = {record.filepath: record.diagnosis for record in read_records(enriched)}
    left = {record.filepath: record.diagnosis for record in read_records(left_of(enriched))}
    assert kept == {path: right[path] for path in right if path not in left}
    [(path, diagnosis)] = left.items()
    assert [defect.box for defect in diagnosis.defects] == [defect.box for defect in right[path].defects]
    for line in enriched.read_text().splitlines():
        assert format_fault(json.loads(line)["ann_response"]) is None


@pytest.mark.slow
def test_a_detector_learns_from_what_the_teacher_wrote(shapes: Path, enriched: Path) -> None:
    from sdg.recipes import parse_recipe
    from sdg.testbed.models.packaged import DETECTOR, packaged
    from sdg.training.recipe import SftRecipe
    from sdg.training.sft import sft

    document = yaml.safe_load((ROOT / "recipes" / "detector" / "sft-testbed.yaml").read_text())
    document["model"]["checkpoint"] = str(packaged(DETECTOR))
    document["data"] |= {"train": str(enriched), "images": str(shapes), "workers": 0}
    document["data"] |= {"limit": 8, "jitter": 0}  # the same rows each time, so that what falls is no chance
    document["data"] |= {"validation": str(shapes / "validation.jsonl"), "validation_limit": 2}
    document["optimizer"] |= {"max_steps": STEPS, "batch_size": 8}
    document["evaluation"] |= {"every": STEPS, "batch_size": 2}
    document["run"] |= {"log_every": 1}
    out = shapes.parent / "sft"
    final = sft(parse_recipe(SftRecipe, document, "recipe"), out)
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert len(losses) == STEPS
    assert losses[-1] < 0.8 * losses[0], losses  # it knew the world before, in other words
    assert (final / "sdg_profile.toml").is_file()
