"""Files scored in parts by several processes against the same files scored by one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.errors import SdgError
from sdg.evaluation import in_parts
from sdg.evaluation.from_files import evaluate_files, evaluate_quickly, join_files
from sdg.io import jsonl

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
    monkeypatch.setattr(in_parts, "SMALLEST", 0)
    monkeypatch.setattr(in_parts.threading, "active_count", lambda: 1)  # of tests that ran here before


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("matching", ["hungarian", "greedy"])
def test_parts_give_what_one_process_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, matching: str
) -> None:
    monkeypatch.setattr(in_parts, "_cores", lambda: processes)
    paths = write(tmp_path, *lines(43))
    options = {"matching": matching, "bootstrap": 50, "seed": 3}
    quick = evaluate_quickly(*paths, **options)  # type: ignore[arg-type]
    whole = evaluate_files(join_files(*paths), **options)  # type: ignore[arg-type]
    assert quick is not None
    assert quick.to_document() == whole.to_document()
    assert quick.result.counts.to_dict() == whole.result.counts.to_dict()
    assert len(whole.result.status["repairs"]) > 0
    assert whole.result.status["failed"] > 0 < whole.result.status["unparseable"]
    assert [str(one) for one in quick.tables()] == [str(one) for one in whole.tables()]


def test_whatever_is_out_of_the_ordinary_is_left_to_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_parts, "_cores", lambda: 2)
    true, found = lines(20)

    def quick(true: list[dict], found: list[dict]) -> object:
        return evaluate_quickly(*write(tmp_path, true, found), bootstrap=0)

    assert quick(true, found) is not None
    assert quick(true, found[::-1]) is None
    assert quick(true, found[:-1]) is None
    assert quick(true[:19] + true[:1], found[:19] + found[:1]) is None  # twice, in two parts
    assert quick([*true[:19], {"filepath": "a.png"}], found) is None
    assert quick([*true[:19], true[19] | {"ann_translated_bboxes": None}], found) is None
    assert quick([*true[:19], true[19] | {"ann_translated_bboxes": [{"box_2d": [1]}]}], found) is None
    with pytest.raises(SdgError, match=r"truth.jsonl, line 20: "):
        join_files(tmp_path / "truth.jsonl", tmp_path / "found.jsonl")
    assert evaluate_quickly(tmp_path / "nowhere.jsonl", tmp_path / "found.jsonl") is None
    monkeypatch.setattr(in_parts, "SMALLEST", 1 << 30)
    assert quick(true, found) is None


def test_a_process_that_comes_to_grief_has_no_result() -> None:
    def work(number: int) -> int:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return 60 // (number - 2)

    assert in_parts._forked(work, [0, 1, 2, 3]) == [-30, None, None, 60]


@given(
    st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=20), st.integers(1, 6)
)
def test_spans_are_whole_lines_shared_evenly(tmp_path_factory: pytest.TempPathFactory, rows, parts) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    content = b"".join(row + b"\n" for row in rows)
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_BLOCK", 7)
        count, spans = jsonl.spans(path, parts)
    assert count == len(rows)
    pieces = [content[span.start : span.stop] for span in spans]
    assert b"".join(pieces) == content
    numbers = [piece.count(b"\n") for piece in pieces]
    assert max(numbers) - min(numbers) <= 1
    assert all(piece.endswith(b"\n") for piece in pieces if piece)
    for span, piece in zip(spans, pieces, strict=True):
        kept = [line + b"\n" for line in piece.split(b"\n")[:-1] if line and not line.isspace()]
        if kept and not piece.startswith(b"\xef"):
            assert [line for _, line in jsonl.read_lines(path, span)] == kept
