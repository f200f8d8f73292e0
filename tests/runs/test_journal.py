"""The journal: rows that wait together are one sync, and whatever goes wrong, what was written stays."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sdg.errors import SdgError
from sdg.runs.journal import BATCH, journal


def rows(path: Path) -> list[int]:
    return [json.loads(line)["row"] for line in path.read_bytes().splitlines()]


def test_rows_are_on_disk_in_their_order_and_told_only_then(tmp_path: Path) -> None:
    path, told = tmp_path / "deep" / "rows", []

    def on_row(row: dict[str, Any]) -> None:
        assert rows(path)[len(told)] == row["row"]
        told.append(row["row"])

    with journal(path, on_row) as append:
        for number in range(500):
            append({"row": number})
    assert told == rows(path) == list(range(500))


def test_what_waits_while_the_disk_is_busy_is_one_sync_and_never_more_than_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, groups, handed_on = threading.Event(), [], []

    def sync(_: int) -> None:
        groups.append(len(rows(tmp_path / "rows")) - sum(groups))
        assert busy.wait(60)

    monkeypatch.setattr(os, "fsync", sync)

    def work() -> None:
        with journal(tmp_path / "rows") as append:
            for number in range(2 * BATCH):
                append({"row": number})
                handed_on.append(number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=1)
    assert thread.is_alive()  # the disk is waited for
    assert len(handed_on) == BATCH - 1
    busy.set()
    thread.join(timeout=60)
    assert rows(tmp_path / "rows") == list(range(2 * BATCH))
    assert len(groups) < 20
    assert max(groups) <= BATCH


def test_a_process_that_is_gone_at_once_has_lost_no_row_that_it_handed_on(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from sdg.runs.journal import journal
os.fsync = lambda file: __import__("time").sleep(60)  # a slow disk: nothing is synced
with journal(Path(sys.argv[1])) as append:
    for number in range(50):
        append({"row": number})
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "rows"], check=False)
    assert rows(tmp_path / "rows") == list(range(50))


def test_one_by_one_a_row_is_told_before_the_next(tmp_path: Path) -> None:
    told: list[Any] = []
    with journal(tmp_path / "rows", told.append, batch=1) as append:
        for number in range(20):
            append({"row": number})
            assert len(told) == number + 1


def test_a_line_cut_off_is_gone_before_the_next(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b'{"row": 1}\n{"row": 2')
    with journal(tmp_path / "rows") as append:
        append({"row": 3})
    assert rows(tmp_path / "rows") == [1, 3]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("good", [0, 1, 3])
def test_a_disk_that_refuses_is_one_sentence_and_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, good: int
) -> None:
    real, told = os.fsync, []

    def sync(file: int) -> None:
        if len(told) >= good:
            raise OSError(code, os.strerror(code))
        real(file)

    monkeypatch.setattr(os, "fsync", sync)

    def run() -> None:
        with journal(tmp_path / "rows", told.append) as append:
            for number in range(100):
                append({"row": number})

    with pytest.raises(SdgError) as refused:
        run()
    assert str(refused.value) == f"{tmp_path / 'rows'} cannot be written: {os.strerror(code)}."
    assert [row["row"] for row in told] == rows(tmp_path / "rows")[: len(told)]
    assert len(told) >= good
    monkeypatch.undo()
    with journal(tmp_path / "rows") as append:
        append({"row": -1})
    assert rows(tmp_path / "rows")[-1] == -1


def test_a_full_disk_in_the_middle_of_a_line_is_one_sentence_and_a_resumed_run_has_every_row(
    tmp_path: Path,
) -> None:
    """A real limit, on the size of a file: the write ends within a line."""
    code = """
import sys
from pathlib import Path
from sdg.errors import SdgError
from sdg.runs.journal import journal
try:
    with journal(Path(sys.argv[1]), lambda row: print(row["row"])) as append:
        for number in range(1000):
            append({"row": number, "text": "x" * 100})
except SdgError as error:
    sys.exit(str(error))
"""
    path = tmp_path / "rows"
    full = subprocess.run(
        [sys.executable, "-c", code, path],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_050, 10_050)),
    )
    assert full.returncode == 1
    assert full.stderr == f"{path} cannot be written: File too large.\n"
    told = [int(line) for line in full.stdout.splitlines()]
    whole = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert len(path.read_bytes()) == 10_050
    assert told == list(range(len(told)))
    assert len(told) <= len(whole) == 10_050 // len(whole[0])


@pytest.mark.parametrize("error", [ValueError("no"), BrokenPipeError(errno.EPIPE, "no")])
def test_what_the_listener_raises_ends_the_run_and_its_row_is_kept(tmp_path: Path, error: Exception) -> None:
    def on_row(row: dict[str, Any]) -> None:
        raise error

    with pytest.raises(type(error), match="no"), journal(tmp_path / "rows", on_row) as append:
        append({"row": 0})
    assert rows(tmp_path / "rows") == [0]


def test_a_row_that_no_json_holds_is_refused_alone(tmp_path: Path) -> None:
    with journal(tmp_path / "rows") as append:
        append({"row": 0})
        with pytest.raises(ValueError, match="cannot be written as JSON"):
            append({"row": object()})
        append({"row": 1})
    assert rows(tmp_path / "rows") == [0, 1]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    with pytest.raises(SdgError, match="rows cannot be written: Is a directory"), journal(tmp_path / "rows"):
        pass
