"""Shards become one file only where they are whole and of one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sdg.cli import cli
from sdg.data.formats import read_records
from sdg.detectors.bulk import Shard
from sdg.errors import SdgError
from sdg.io import jsonl
from sdg.runs.journal import manifest_of, partial_of
from sdg.runs.merge import Merged, merge


def part(folder: Path, number: int, count: int, paths: str, detector: str = "x") -> Path:
    out = folder / f"part-{number:05d}-of-{count:05d}.jsonl"
    lines: list[dict[str, Any]] = [
        {"filepath": path, "caption": "a", "response": None if path == "z" else "[]", "status": "ok"}
        for path in paths
    ]
    for line in lines:
        if line["response"] is None:
            line["status"] = "failed"
    jsonl.write_objects(out, lines)
    manifest_of(out).write_text(json.dumps({"version": "1", "detector": {"model": detector}}))
    return out


def test_parts_are_written_in_their_order_and_failures_counted(tmp_path: Path) -> None:
    parts = [part(tmp_path, 1, 2, "ab"), part(tmp_path, 2, 2, "zc")]
    merged = merge(parts, tmp_path / "all.jsonl", [(path, "a") for path in "zcab"])
    assert merged == Merged(lines=4, failed=1, unknown=0)
    assert [row["filepath"] for row in jsonl.read_objects(tmp_path / "all.jsonl")] == list("abzc")
    with pytest.raises(SdgError, match="exists already"):
        merge(parts, tmp_path / "all.jsonl")


@pytest.mark.parametrize("name", ["all.jsonl", "all.parquet"])
def test_a_line_that_reads_as_failed_is_counted_and_stays_so(tmp_path: Path, name: str) -> None:
    clean = {"caption": "a", "response": "<think>\n</think>\n<answer>\n[]\n</answer>"}
    ends = ({"finish_reason": "length"}, {"refusal": "No."}, {"finish_reason": "content_filter"}, {})
    lines = [{"filepath": f"{place}.png", **clean, **end} for place, end in enumerate(ends)]
    jsonl.write_objects(tmp_path / "part.jsonl", lines)
    assert merge([tmp_path / "part.jsonl"], tmp_path / name) == Merged(lines=4, failed=2, unknown=1)
    found = [record.diagnosis for record in read_records(tmp_path / name)]
    assert [one.status.value for one in found if one] == ["truncated", "failed", "failed", "ok"]
    assert [one.is_clean for one in found if one] == [False, False, False, True]


def test_parts_without_their_settings_are_counted_and_the_others_still_compared(tmp_path: Path) -> None:
    parts = [part(tmp_path, number, 3, name, name) for number, name in enumerate("aab", 1)]
    for one in (parts[1], parts[2]):
        jsonl.write_objects(one, [{"filepath": one.name, "caption": "a", "response": "[]", "status": "ok"}])
    manifest_of(parts[1]).unlink()
    with pytest.raises(SdgError, match="was begun with other settings"):
        merge(parts, tmp_path / "all.jsonl")
    manifest_of(parts[2]).unlink()
    done = CliRunner().invoke(cli, ["data", "merge", *map(str, parts), "--out", str(tmp_path / "all.jsonl")])
    assert (done.exit_code, "Not compared: 2 of 3 parts have no PART.run.json" in done.output) == (0, True)


def test_what_is_not_one_whole_run_is_refused_and_nothing_written(tmp_path: Path) -> None:
    one, two = part(tmp_path, 1, 2, "ab"), part(tmp_path, 2, 2, "bc")
    out = tmp_path / "all.jsonl"
    other = part(tmp_path, 1, 3, "q")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    changed = part(foreign, 2, 2, "c", detector="y")
    for parts, expected, sentence in (
        ([one], None, "Of 2 parts 2 is missing"),
        ([one, other], None, "not parts of one set"),
        ([one, manifest_of(one)], None, "run.json holds settings and is no part"),
        ([one, one], None, "2 is missing"),
        ([one, two], None, "'b' is twice"),
        ([one, changed], None, "was begun with other settings"),
    ):
        with pytest.raises(SdgError, match=sentence):
            merge(parts, out, expected)
    two = part(tmp_path, 2, 2, "c")
    for expected, sentence in ((("a", "b"), "'c' has a line, but is no input"), ("abcd", "'d' has no line")):
        with pytest.raises(SdgError, match=sentence):
            merge([one, two], out, [(path, "a") for path in expected])
    partial_of(two).write_text("{}")
    with pytest.raises(SdgError, match=r"part-00002-of-00002\.jsonl is unfinished"):
        merge([one, two], out)
    (tmp_path / "lines.jsonl").write_text('{"filepath": "a"}\n')
    with pytest.raises(SdgError, match="holds no predictions"):
        merge([tmp_path / "lines.jsonl"], out)
    assert not out.exists()


@given(st.integers(0, 50), st.integers(1, 12))
def test_shards_are_neighbours_that_cover_everything_once(length: int, count: int) -> None:
    everything = list(range(length))
    parts = [everything[Shard(number, count).of(length)] for number in range(1, count + 1)]
    assert [place for one in parts for place in one] == everything
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
