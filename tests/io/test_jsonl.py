import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.errors import SdgError
from sdg.io import jsonl
from sdg.records import Record


def read(path):
    return list(jsonl.read_objects(path))


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1}\n{"a": 2}\n',
        b'{"a": 1}\n{"a": 2}',
        b'{"a": 1}\r\n{"a": 2}\r\n',
        b'\n{"a": 1}\n  \n\t\n{"a": 2}\n\n',
        b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n',
        b'\xef\xbb\xbf\r\n{"a": 1}\r\n {"a": 2} \r\n',
    ],
)
def test_byte_order_marks_line_ends_and_blank_lines_do_not_matter(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert read(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "This is not JSON: Expecting ',' delimiter at character 8."),
        (b'{"a": "b', "This is not JSON: Unterminated string starting at character 7."),
        (b'{"a": "\t"}', "This is not JSON: Invalid control character at character 8."),
        (b"hello", "This is not JSON: Expecting value at character 1."),
        (b'{"a": 1} {"a": 2}', "This is not JSON: Extra data at character 10."),
        (b"[1, 2]", 'A line holds one JSON object, such as {"filepath": "a.png", …}.'),
        (b'{"a": "\xe9"}', "This is not UTF-8 text; save the file as UTF-8."),
        (b'{"a": NaN}', "NaN is not a JSON number; write null."),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number; write null."),
        (b'{"a": ' + b"[" * 100_000, "This is JSON nested too deeply to be read."),
    ],
)
def test_a_malformed_line_17_of_40_is_named_with_its_reason(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' * 16 + line + b"\n" + b'{"a": 1}\n' * 23)
    with pytest.raises(SdgError) as error:
        read(path)
    assert str(error.value) == f"{path}, line 17: {reason}"


def test_blank_lines_count(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n\n{}\n\nx\n")
    with pytest.raises(SdgError, match="line 5: "):
        read(path)


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_an_empty_file_is_one_sentence(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(SdgError) as error:
        read(path)
    assert str(error.value) == f"{path} is empty; one JSON object a line is needed."


def test_a_missing_file_and_a_folder_are_one_sentence_each(tmp_path):
    with pytest.raises(SdgError, match=r"none.jsonl does not exist; check the path\.$"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(SdgError, match=r" is a folder, but a file is needed here\.$"):
        read(tmp_path)


def test_utf16_is_not_utf8(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"a": 1}\n'.encode("utf-16"))
    with pytest.raises(SdgError, match="line 1: This is not UTF-8 text"):
        read(path)


def test_a_conversion_that_fails_names_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 0}\n')

    def convert(value):
        if not value["a"]:
            raise ValueError("a is 0.")
        return value["a"]

    values = jsonl.read_with(path, convert)
    assert next(values) == 1
    with pytest.raises(SdgError, match=r"a.jsonl, line 2: a is 0\.$"):
        next(values)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.text(), json_values), min_size=1, max_size=4))
def test_objects_come_back_as_they_were(tmp_path_factory, objects):
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    assert jsonl.write_objects(path, objects) == len(objects)
    assert read(path) == objects
    # The independent reader: the lines are plain JSON.
    assert [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] == objects


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x"])
def test_what_json_cannot_hold_is_not_written(tmp_path, value):
    path = tmp_path / "a.jsonl"
    with pytest.raises(SdgError, match=r"a\.jsonl, record 2: This cannot be written as JSON: "):
        jsonl.write_objects(path, [{"a": 1}, {"a": value}])
    assert list(tmp_path.iterdir()) == []


def test_reading_and_writing_hold_one_line_at_a_time(tmp_path):
    source, target = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    line = {"a": "x" * 1000}
    tracemalloc.start()
    try:
        jsonl.write_objects(source, (line for _ in range(5000)))
        jsonl.write_objects(target, jsonl.read_objects(source))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert source.stat().st_size == target.stat().st_size > 5_000_000
    assert peak < 500_000


@pytest.mark.parametrize(
    "line",
    [
        '{"filepath": "a.png", "seed": 123456789012345678901234567890}',  # beyond 64 bits
        '{"filepath": "a.png", "deep": {"seed": [18446744073709551616]}}',
        '{"filepath": "\\ud83d", "seed": 1}',  # half of a surrogate pair
        '{"filepath": "a.png", "x": 1e400}',
        '{"filepath": "a.png", "filepath": "b.png"}',
        '{"filepath": "\\u0000\\u2028é😀"}',
    ],
)
def test_records_are_read_as_exactly_as_objects(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n", encoding="utf-8")

    def convert(value):
        return Record(value["filepath"], "", metadata={k: v for k, v in value.items() if k != "filepath"})

    assert list(jsonl.read_records(path, convert)) == list(jsonl.read_with(path, convert))


@pytest.mark.parametrize(
    "line", ['{"filepath": NaN}', "[1]", "{", '{"a": "\t"}', '{"filepath": 3}', "[" * 3000]
)
def test_records_are_refused_in_the_same_words(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    words = []
    for reader in (jsonl.read_records, jsonl.read_with):
        with pytest.raises(SdgError, match="line 1") as caught:
            list(reader(path, lambda value: Record(value.get("filepath"), "")))
        words.append(str(caught.value))
    assert words[0] == words[1]


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
