"""The detector experiment: its prior-box baseline, its tables, and reading answers that are there already."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sdg import Defect, Diagnosis
from sdg.defects import Status
from sdg.errors import SdgError
from sdg.evaluation import evaluate
from sdg.records import Record

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def experiment() -> ModuleType:
    name = "experiment_detector"
    specification = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # its dataclass looks itself up there
    specification.loader.exec_module(module)
    return module


def record(number: int, *defects: Defect, generator: str = "injected") -> Record:
    return Record(f"{number}.png", "a prompt", Diagnosis(defects), generator=generator)


def artifact(box: tuple[int, int, int, int], reason: str = "A smear.", importance: int = 30) -> Defect:
    return Defect(box, "artifact", reason, importance)


def test_the_prior_predicts_the_box_that_is_there_most_often(experiment):
    often, seldom = (110, 100, 320, 290), (600, 600, 900, 900)
    train = [record(n, artifact(often, importance=20 + n)) for n in range(7)] + [record(9, artifact(seldom))]
    found = experiment.prior_boxes(train, train)
    assert [(d.box, d.reason, d.importance) for d in found.defects] == [
        ((100, 100, 300, 300), "A smear.", 23)
    ]


def test_the_prior_predicts_a_second_box_only_where_that_pays(experiment):
    both = [record(n, artifact((0, 0, 200, 200)), artifact((700, 700, 1000, 1000))) for n in range(5)]
    assert len(experiment.prior_boxes(both, both).defects) == 2


def test_a_box_at_the_edge_stays_inside_and_has_an_area(experiment):
    edge = artifact((990, 0, 1000, 12))
    found = experiment.typical(experiment.rounded(edge), [edge])
    assert found.box == (900, 0, 1000, 100)


def test_the_table_has_a_value_with_its_interval_for_each_column_and_the_share_of_well_formed_answers(
    experiment,
):
    truth = [Diagnosis((artifact((0, 0, 500, 500)),)), Diagnosis()]
    results = {"all": evaluate(truth, truth, bootstrap=10), "none": evaluate(truth, [[], []], bootstrap=10)}
    lines = experiment.table("artifact", results, {"all": 0.5, "none": None})
    cells = lines[2].split(" | ")
    assert cells[1].startswith("1.000 (")
    assert cells[-1] == "50.0 % |"
    assert lines[3].endswith("– |")
    assert "0.000 (" in lines[3]


def test_targets_are_met_or_missed_and_never_met_by_an_undefined_value(experiment):
    clean = evaluate([[], []], [[], []])
    said = "\n".join(experiment.verdicts("X", clean, 0.98))
    assert "artifact BoxF1@0.5 –: target 0.40 missed" in said
    assert "artifact ClnAcc 1.000: target 0.75 met" in said
    assert "well-formed 98.0 %: target 99 % missed" in said


def test_answers_on_disk_are_used_again_and_a_failed_one_is_not_an_empty_diagnosis(experiment, tmp_path):
    test = [record(1), record(2)]
    rows = [
        {"filepath": "1.png", "caption": "a prompt", "response": "<think>a</think><answer>[]</answer>"},
        {"filepath": "2.png", "caption": "a prompt", "response": None, "status": "failed", "error": "Late."},
    ]
    (tmp_path / "sft.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = experiment.answers("SFT", tmp_path / "none", test, tmp_path)
    assert [d.status for d in found.diagnoses] == [Status.OK, Status.FAILED]
    assert found.well_formed([0, 1]) == 0.5
    with pytest.raises(SdgError, match="another test split"):
        experiment.answers("SFT", tmp_path / "none", [record(3)], tmp_path)
