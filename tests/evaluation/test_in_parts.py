"""Files scored in parts by several processes against the same files scored by one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdg.data import line_pairs
from sdg.data.line_pairs import begin_reading
from sdg.errors import SdgError
from sdg.evaluation import in_parts, resampling
from sdg.evaluation.from_files import FileEvaluation, evaluate_files, evaluate_quickly, join_files
from sdg.evaluation.scoring import Matching

ITEM = {"label": "artifact", "description": "Six fingers.", "importance": 40}


def lines(count: int) -> tuple[list[dict], list[dict]]:
    """Annotations and predictions with answers of every status."""
    rng = np.random.default_rng(5)
    true, found = [], []
    for number in range(count):
        boxes = [sorted(rng.choice(900, 2, replace=False).tolist()) for _ in range(rng.integers(4))]
        items = [{**ITEM, "box_2d": [a, a, b, b]} for a, b in boxes]
        answer = json.dumps([{**item, "box_2d": [v + 9 for v in item["box_2d"]]} for item in items[1:]])
        response: str | None = f"<think>I looked.</think><answer>{answer}</answer>"
        if number % 7 == 3:
            response = [None, "nothing", answer, f"```json\n{answer}\n```"][number % 4]
        if number % 11 == 5:  # what the strict reader takes, too
            items = [{**item, "label": "both"} for item in items] + [
                {**ITEM, "box_2d": [1, 2, 3, 4], "desc": "x"}
            ]
        path = {"filepath": f"é/{number}.png", "caption": "a cat", "seed": number}
        true.append(path | {"ann_translated_bboxes": items, "ann_response": "<think>So.</think>"})
        found.append(path | {"response": response})
    return true, found


def write(folder: Path, true: list[dict], found: list[dict]) -> tuple[Path, Path]:
    paths = folder / "truth.jsonl", folder / "found.jsonl"
    for path, rows in zip(paths, (true, found), strict=True):
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return paths


@pytest.fixture(autouse=True)
def small_files_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_pairs, "SMALLEST", 0)
    monkeypatch.setattr(line_pairs, "_SHARES", 2)
    monkeypatch.setattr(line_pairs, "can_fork", lambda: True)  # whatever tests that ran here before began


def quickly(truth: Path, found: Path, processes: int = 2, **options: Any) -> FileEvaluation | None:
    reading = begin_reading(truth, found, processes=processes)
    return None if reading is None else evaluate_quickly(reading, **options)


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("matching", ["hungarian", "greedy"])
def test_parts_give_what_one_process_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, matching: Matching
) -> None:
    monkeypatch.setattr(resampling, "_CHUNK", 43 * 6)  # nine chunks of resamples
    paths = write(tmp_path, *lines(43))
    quick = quickly(*paths, processes, matching=matching, bootstrap=50, seed=3)
    whole = evaluate_files(join_files(*paths), matching=matching, bootstrap=50, seed=3)
    assert quick is not None
    assert quick.to_document() == whole.to_document()
    assert quick.result.counts.to_dict() == whole.result.counts.to_dict()
    assert len(whole.result.status["repairs"]) > 0
    assert whole.result.status["failed"] > 0 < whole.result.status["unparseable"]
    assert [str(one) for one in quick.tables()] == [str(one) for one in whole.tables()]


@pytest.mark.parametrize("change", [{"response": None, "error": "no"}, {"response": "I cannot."}])
def test_there_may_be_nothing_to_score(tmp_path: Path, change: dict[str, Any]) -> None:
    true, found = lines(9)
    paths = write(tmp_path, true, [row | change for row in found])
    quick = quickly(*paths, bootstrap=20)
    whole = evaluate_files(join_files(*paths), bootstrap=20)
    assert quick is not None
    assert quick.to_document() == whole.to_document()


def test_whatever_is_out_of_the_ordinary_is_left_to_one_process(tmp_path: Path) -> None:
    true, found = lines(20)

    def quick(true: list[dict], found: list[dict]) -> object:
        return quickly(*write(tmp_path, true, found), bootstrap=0)

    assert quick(true, found) is not None
    assert quick(true, found[::-1]) is None
    assert quick(true, found[:-1]) is None
    assert quick(true[:19] + true[:1], found[:19] + found[:1]) is None  # twice, in two parts
    assert quick([*true[:19], {"filepath": "a.png"}], found) is None
    assert quick([*true[:19], true[19] | {"ann_translated_bboxes": None}], found) is None
    assert quick([*true[:19], true[19] | {"ann_translated_bboxes": [{"box_2d": [1]}]}], found) is None
    with pytest.raises(SdgError, match=r"truth.jsonl, line 20: "):
        join_files(tmp_path / "truth.jsonl", tmp_path / "found.jsonl")


def test_a_process_that_was_killed_leaves_it_to_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, own = write(tmp_path, *lines(20)), os.getpid()

    def dies(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if os.getpid() != own:
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)  # until the other has taken a task
            return function(*arguments)

        return call

    for module, name in ((line_pairs, "_add_plain"), (in_parts, "pair"), (in_parts, "bootstrap_sums")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, dies(getattr(module, name)))
            assert quickly(*paths, bootstrap=9) is None, name
    assert quickly(*paths, bootstrap=9) is not None
