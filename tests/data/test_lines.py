"""Files cut where they have the same images: every line once, and both files at the same paths."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.data import lines as module
from sdg.data.formats import line_reader
from sdg.data.gathering import Gathering
from sdg.data.lines import cuts, plain_annotation, plain_prediction
from sdg.defects import Status
from sdg.evaluation.columns import Columns, columns, unpacked
from sdg.records import Record


def write(path: Path, names: list[str], lengths: list[int], escaped: bool = True) -> Path:
    lines = [
        json.dumps({"caption": "x" * length, "filepath": name}, ensure_ascii=escaped)
        for name, length in zip(names, lengths, strict=True)
    ]
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


def paths(path: Path, span: range) -> list[str]:
    return [json.loads(line)["filepath"] for line in path.read_bytes()[span.start : span.stop].splitlines()]


sizes = st.lists(st.integers(0, 60), min_size=6, max_size=25)


@pytest.mark.parametrize("window", [0, 20, 200, 1 << 22])
@given(sizes, st.randoms(use_true_random=False), st.integers(2, 5), st.booleans())
def test_both_files_are_cut_at_the_same_lines(
    tmp_path_factory: pytest.TempPathFactory, window: int, lengths, random, parts, escaped
) -> None:
    folder = tmp_path_factory.mktemp("files")
    names = [f"é{number}.png" for number in range(len(lengths))]
    one = write(folder / "one.jsonl", names, lengths)
    other = write(folder / "other.jsonl", names, random.sample(lengths, len(lengths)), escaped)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW", window)
        found = cuts(one, other, parts)
    assert found is not None
    assert len(found) == parts
    assert all(paths(one, first) == paths(other, second) != [] for first, second in found)
    assert [name for first, _ in found for name in paths(one, first)] == names
    assert [span.start for span, _ in found[1:]] == [span.stop for span, _ in found[:-1]]


def test_a_path_in_another_text_is_no_cut(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(12)]
    one = write(tmp_path / "one.jsonl", names, [50] * 12)
    lines = [json.dumps({"filepath": name, "caption": f'it said "{names[6]}"'}) for name in names]
    (tmp_path / "other.jsonl").write_text("\n".join(lines) + "\n")
    found = cuts(one, tmp_path / "other.jsonl", 2)
    assert found is not None
    assert all(paths(one, first) == paths(tmp_path / "other.jsonl", second) for first, second in found)


def test_lines_are_counted_where_paths_say_nothing_and_must_be_as_many(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", ["a", "b", "c", "d"], [5] * 4)
    (tmp_path / "other.jsonl").write_text('{"filename": "a"}\n' * 4)
    found = cuts(one, tmp_path / "other.jsonl", 2)
    assert found is not None
    assert [len(paths(one, first)) for first, _ in found] == [2, 2]
    (tmp_path / "other.jsonl").write_text('{"filename": "a"}\n' * 5)
    assert cuts(one, tmp_path / "other.jsonl", 2) is None
    assert cuts(one, one, 9) is None


# What is plain, and close to it whatever may stand there.
odd = st.sampled_from(
    [None, True, False, 0, -1, 1000, 1001, 2.0, 2**70, "7", "", "both", [], {}, [1, 2], {"a": 1}]
)
coordinate = st.integers(0, 1000)
boxes = st.tuples(coordinate, coordinate, coordinate, coordinate).map(
    lambda box: [min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])]
)
item = st.fixed_dictionaries(
    {
        "box_2d": boxes | st.lists(coordinate | odd, max_size=5) | odd,
        "label": st.sampled_from(["artifact", "misalignment", "both"]) | odd,
    },
    optional={
        "description": st.just("Six fingers.") | odd,
        "importance": st.integers(1, 100) | odd,
        "subtype": st.just("anatomy") | odd,
        "desc": odd,
    },
)
plain_item = st.fixed_dictionaries(
    {
        "box_2d": st.just([0, 10, 500, 1000]),
        "label": st.sampled_from(["artifact", "misalignment"]),
        "description": st.text(max_size=5),
        "importance": st.integers(1, 100),
    }
)
items = st.lists(plain_item | plain_item | item, max_size=4) | odd
KEYS = ("generator", "split", "annotator", "seed", "_metadata", "_diagnosis", "filename", "error", "refusal")
extras = st.dictionaries(
    st.sampled_from([*KEYS, "finish_reason", "status", "ann_response"]),
    odd | st.sampled_from(["flux", "stop", "length", "ok", "repaired", "truncated", "unparseable", "failed"]),
    max_size=2,
)
filepaths = st.sampled_from(["a.png", 'é/"b".png']) | odd
texts = st.sampled_from(["a cat", "<answer>", "\ud83d"]) | odd


def answers(value: object) -> st.SearchStrategy[object]:
    answer = json.dumps(value)
    think, tagged = "<think>So.</think>", f"<answer>{answer}</answer>"
    odd_ones = (
        f" <think>\n1 < 2\n</think><answer>\n{answer}\n</answer>\n",
        tagged,
        answer,
        f"<think>a <answer> b</think>{tagged}",
        f"{think}<answer>{answer}",
        f"{think}{tagged} Done.",
        f"{think}<answer>{answer[:-1]}</answer>",
    )
    return st.just(f"{think}\n{tagged}") | st.sampled_from(odd_ones)


def line(value: object) -> bytes:
    return json.dumps(value).encode()


def held(
    read: Callable[[bytes], tuple[str, Any] | None], exact: Callable[[bytes], Record], text: bytes
) -> bool:
    """Whether a line is plain; then it has to be what the exact reader finds, and with nothing mended."""
    found, gathered = read(text), Gathering()
    if found is None or not gathered.add_plain(found[1]):
        assert len(gathered) == 0
        assert len(unpacked([gathered.packed()]).boxes) == 0
        return False
    record = exact(text)
    assert record.diagnosis is not None
    assert (record.filepath, record.diagnosis.status, record.diagnosis.repairs) == (found[0], Status.OK, ())
    same(unpacked([gathered.packed()]), columns([record.diagnosis.defects]))
    return True


def same(one: Columns, other: Columns) -> None:
    for name in ("boxes", "kind", "image", "importance"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == "importance")


@given(filepaths, texts, items, extras)
def test_annotations(path: object, caption: object, value: object, others: dict[str, object]) -> None:
    text = line({"filepath": path, "caption": caption, "ann_translated_bboxes": value, **others})
    held(plain_annotation, line_reader("sdg30k"), text)


@given(filepaths, texts, items.flatmap(answers) | odd, extras)
def test_predictions(path: object, caption: object, response: object, others: dict[str, object]) -> None:
    text = line({"filepath": path, "caption": caption, "response": response, **others})
    held(plain_prediction, line_reader("predictions"), text)


@pytest.mark.parametrize("others", [{}, {"seed": 3, "generator": "flux", "split": None, "status": "ok"}])
def test_what_the_release_and_our_runs_write_is_plain(others: dict[str, object]) -> None:
    value = [{"box_2d": [1, 2, 3, 4], "label": "artifact", "description": "Six < five.", "importance": 7}]
    here = {"filepath": "a.png", "caption": "a cat"} | others
    response = f"<think>\nSo.\n</think>\n<answer>{json.dumps(value)}</answer>"
    assert held(plain_prediction, line_reader("predictions"), line({**here, "response": response}))
    annotated = {"ann_translated_bboxes": value, "ann_response": response}
    assert held(plain_annotation, line_reader("sdg30k"), line(here | annotated))
    assert held(
        plain_annotation, line_reader("sdg30k"), line(here | annotated | {"ann_translated_bboxes": []})
    )


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"filepath": ""}', b'{"filepath": "a", "response": NaN}']
)
def test_what_is_no_line_is_not_plain(text: bytes) -> None:
    assert plain_annotation(text) is None
    assert plain_prediction(text) is None
