"""The log of a run: read by one reader, trimmed to a checkpoint, with a line cut short left out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdg.errors import SdgError
from sdg.runs.log import RunLog, append_log, read_log, trim_log


def test_no_log_is_an_empty_one(tmp_path: Path) -> None:
    assert read_log(tmp_path) == []
    trim_log(tmp_path, lambda line: True)
    assert list(tmp_path.iterdir()) == []


def test_lines_after_a_checkpoint_and_one_cut_short_are_gone(tmp_path: Path) -> None:
    for step in range(4):
        append_log(tmp_path, {"step": step, "loss": 0.5})
    whole = (tmp_path / "log.jsonl").read_bytes()
    for cut in range(len(whole) + 1):
        (tmp_path / "log.jsonl").write_bytes(whole[:cut])
        trim_log(tmp_path, lambda line: line["step"] <= 1)
        append_log(tmp_path, {"step": 9})
        lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_bytes().splitlines()]
        assert lines == read_log(tmp_path)
        kept = whole[:cut].splitlines()
        whole_lines = sum(line in whole.splitlines() for line in kept[:2])
        assert [line["step"] for line in lines] == [*range(whole_lines), 9]


@pytest.mark.parametrize("junk", [b"\xff\xfe\n", b"[1]\n", b"{\n", b"[" * 100_000 + b"\n", b"\n"])
def test_what_is_no_line_of_a_log_is_left_out(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n' + junk + b'{"step": 2}\n')
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2]


def test_a_message_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = RunLog(tmp_path, SimpleNamespace(is_main_process=True, log_with=[]), 0)
    log.say("in runs/[seed=1] and [/x]")
    assert capsys.readouterr().err == "in runs/[seed=1] and [/x]\n"


def test_a_log_that_cannot_be_read_or_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(SdgError, match=r"log\.jsonl cannot be read: Is a directory"):
        read_log(tmp_path)
    with pytest.raises(SdgError, match=r"log\.jsonl cannot be written: Is a directory"):
        append_log(tmp_path, {})
