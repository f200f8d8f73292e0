"""Two files read side by side by several processes: what is theirs, and what is left to one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdg.data import line_pairs
from sdg.data.line_pairs import Lines, begin_reading

ITEM = {"box_2d": [1, 2, 30, 40], "label": "artifact", "description": "x", "importance": 40}


@pytest.fixture(autouse=True)
def small_files_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_pairs, "SMALLEST", 0)
    monkeypatch.setattr(line_pairs, "_SHARES", 2)
    monkeypatch.setattr(line_pairs, "can_fork", lambda: True)  # whatever tests that ran here before began


def files(folder: Path, images: int = 12, **found: object) -> tuple[Path, Path]:
    """Every third image is not annotated, by way of our own key; every fourth has no answer."""
    truth, predictions = folder / "truth.jsonl", folder / "found.jsonl"
    answer = f"<think>So.</think>\n<answer>{json.dumps([ITEM])}</answer>"
    true_rows, rows = [], []
    for number in range(images):
        path = {"filepath": f"{number}.png", "caption": "a cat"}
        stored = {} if number % 3 else {"_diagnosis": {"status": "failed"}}
        items = [ITEM] * (number % 3)
        true_rows.append({**path, "ann_translated_bboxes": items or (None if stored else []), **stored})
        rows.append({**path, "response": answer if number % 4 else None, **found})
    for file, lines in ((truth, true_rows), (predictions, rows)):
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return truth, predictions


def read(truth: Path, predictions: Path, processes: int) -> list[Lines]:
    reading = begin_reading(truth, predictions, processes=processes)
    assert reading is not None
    assert (reading.truth, reading.predictions, reading.processes) == (truth, predictions, processes)
    lines = reading.lines()
    assert lines is not None
    return lines


@pytest.mark.parametrize("processes", [2, 3])
def test_every_line_is_read_once_and_in_order(tmp_path: Path, processes: int) -> None:
    parts = read(*files(tmp_path), processes)
    assert len(parts) == 2 * processes
    assert [path for part in parts for path in part.paths] == [f"{number}.png" for number in range(12)]
    assert sum(part.unknown for part in parts) == 4
    answered = [number for number in range(12) if number % 3 and number % 4]
    assert sum(len(part.truth.kinds) for part in parts) == sum(number % 3 for number in answered)
    assert sum(len(part.predicted.kinds) for part in parts) == len(answered)
    assert [sum(part.statuses[name] for part in parts) for name in ("ok", "failed")] == [9, 3]


def test_other_files_are_left_to_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, predictions = files(tmp_path)
    assert begin_reading(tmp_path / "nowhere.jsonl", predictions, processes=2) is None
    assert begin_reading(predictions, truth, processes=2) is None
    assert begin_reading(truth, truth, processes=2) is None
    assert begin_reading(truth, tmp_path, processes=2) is None
    assert begin_reading(truth, predictions, processes=1) is None
    assert begin_reading(truth, predictions, processes=7) is None  # more parts than lines
    for name, value in (("SMALLEST", 1 << 30), ("can_fork", lambda: False), ("cores", lambda: 1)):
        with monkeypatch.context() as patch:
            patch.setattr(line_pairs, name, value)
            assert begin_reading(truth, predictions) is None, name


def test_where_no_process_can_be_begun_one_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("os.pipe", refuse)
    assert begin_reading(*files(tmp_path), processes=2) is None


def test_a_fault_in_a_line_ends_the_reading(tmp_path: Path) -> None:
    truth, predictions = files(tmp_path)
    lines = predictions.read_text().splitlines(keepends=True)
    for fault in ("{\n", lines[0], json.dumps({"filepath": "5.png", "response": 7}) + "\n"):
        predictions.write_text("".join([*lines[:5], fault, *lines[6:]]))
        reading = begin_reading(truth, predictions, processes=2)
        assert reading is not None
        assert reading.lines() is None
