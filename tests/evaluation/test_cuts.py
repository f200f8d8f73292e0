"""Files cut where they have the same images: every line once, and both files at the same paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.evaluation import cuts as module
from sdg.evaluation.cuts import cuts


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
