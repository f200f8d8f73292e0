"""Bulk runs: what is on disk at every moment, and what a resumed run asks for again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from bad_server import CLEAN, Reply, Server, completion, error, tagged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kills import KILLS, kill_and_resume

import sdg
from sdg import Diagnosis
from sdg.data.formats import read_records
from sdg.detectors import bulk
from sdg.detectors.base import StreamingDetector, failed
from sdg.detectors.bulk import Shard, run
from sdg.detectors.replay import ReplayDetector
from sdg.detectors.union import UnionDetector
from sdg.errors import SdgError
from sdg.images import Pair, StoredImage
from sdg.runs.inputs import Item

ITEMS = [Item(f"{place}.png", f"prompt {place}", Path(f"{place}.png")) for place in range(7)]


class Fake(StreamingDetector):
    """Answers backwards; fails or dies where it is told to, and remembers what it was asked."""

    def __init__(self, broken: Collection[str] = (), dies_after: int = 99, name: str = "fake") -> None:
        self.broken, self.dies_after, self.name = broken, dies_after, name
        self.asked: list[str] = []

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {"detector": self.name, "batch_size": 2}

    def stream(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Diagnosis]]:
        for index in reversed(range(len(pairs)) if wanted is None else sorted(wanted)):
            if len(self.asked) >= self.dies_after:
                raise KeyboardInterrupt
            name = str(pairs[index][0])
            self.asked.append(name)
            if name in self.broken:
                yield index, failed(f"{name} is broken.")
            else:
                diagnosis = Diagnosis(reasoning=f"of {name}")
                yield index, Diagnosis((), diagnosis.reasoning, raw=sdg.render_response(diagnosis))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_output_is_in_the_order_of_the_images_and_in_the_released_layout(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out.jsonl"
    seen: list[tuple[str, int]] = []
    summary = run(
        Fake(["2.png"]), ITEMS, out, on_result=lambda row, left: seen.append((row["filepath"], left))
    )
    assert [row["filepath"] for row in rows(out)] == [item.filepath for item in ITEMS]
    assert rows(out)[1] == {
        "filepath": "1.png",
        "caption": "prompt 1",
        "response": "<think>\nof 1.png\n</think>\n<answer>\n[]\n</answer>",
        "status": "ok",
    }
    assert rows(out)[2] == {
        "filepath": "2.png",
        "caption": "prompt 2",
        "response": None,
        "status": "failed",
        "error": "2.png is broken.",
    }
    assert (summary.images, summary.diagnosed, len(summary.failed)) == (7, 7, 1)
    assert seen == [(f"{place}.png", place) for place in reversed(range(7))]
    read = list(read_records(out))
    assert [record.diagnosis.status.value for record in read if record.diagnosis].count("failed") == 1
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.jsonl", "out.jsonl.run.json"]


@pytest.mark.parametrize("dies_after", range(8))
def test_a_run_that_died_goes_on_and_ends_as_if_it_had_not(tmp_path: Path, dies_after: int) -> None:
    run(Fake(), ITEMS, tmp_path / "whole.jsonl")
    out, dying = tmp_path / "out.jsonl", Fake(dies_after=dies_after)
    try:
        run(dying, ITEMS, out)
        assert dies_after == 7
    except KeyboardInterrupt:
        assert not out.exists()
        assert len(rows(tmp_path / "out.jsonl.partial")) == dies_after
    second = Fake()
    run(second, ITEMS, out, resume=True)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert sorted(dying.asked + second.asked) == [item.filepath for item in ITEMS]


def test_only_what_failed_or_is_missing_is_asked_for_again(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run(Fake(["2.png", "5.png"]), ITEMS, out)
    again = Fake(["5.png"])
    assert len(run(again, ITEMS, out, resume=True).failed) == 1
    assert sorted(again.asked) == ["2.png", "5.png"]
    last = Fake()
    more = [*ITEMS, Item("new.png", "?", Path("new.png"))]
    assert run(last, more, out, resume=True).failed == ()
    assert sorted(last.asked) == ["5.png", "new.png"]
    idle = Fake()
    run(idle, more, out, resume=True)
    assert idle.asked == []
    assert [row["filepath"] for row in rows(out)] == [item.filepath for item in more]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.data())
def test_a_journal_cut_anywhere_loses_at_most_the_line_it_was_writing(tmp_path: Path, data: Any) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    with pytest.raises(KeyboardInterrupt):
        run(Fake(dies_after=5), ITEMS, out)
    journal = partial.read_bytes()
    cut = data.draw(st.integers(0, len(journal)))
    partial.write_bytes(journal[:cut])
    second = Fake()
    run(second, ITEMS, out, resume=True)
    assert len(second.asked) == 7 - journal[:cut].count(b"\n")
    assert [row["response"] for row in rows(out)] == [
        f"<think>\nof {item.filepath}\n</think>\n<answer>\n[]\n</answer>" for item in ITEMS
    ]


def test_an_output_is_never_overwritten_by_a_new_run(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run(Fake(), ITEMS, out)
    before = out.read_bytes()
    with pytest.raises(SdgError, match="exists already; go on with --resume"):
        run(Fake(), ITEMS, out)
    assert out.read_bytes() == before


def test_a_run_is_not_resumed_with_another_detector_or_other_images(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run(Fake(), ITEMS, out)
    with pytest.raises(SdgError, match=r'detector\.detector was "fake" and is "other" now'):
        run(Fake(name="other"), ITEMS, out, resume=True)
    with pytest.raises(SdgError, match="holds results for 2 images that are not given now"):
        run(Fake(), ITEMS[2:], out, resume=True)
    other = [replace(ITEMS[0], prompt="another"), *ITEMS[1:]]
    with pytest.raises(SdgError, match="for 1 images with other prompts than are given now") as caught:
        run(Fake(), other, out, resume=True)
    assert f"{ITEMS[0].filepath}, had {ITEMS[0].prompt!r} and has 'another' now." in str(caught.value)
    with pytest.raises(SdgError, match="holds results for 2 images that are not given now"):
        run(Fake(), [other[0], *ITEMS[2:]], out, resume=True)
    (tmp_path / "out.jsonl.run.json").write_text("{")
    with pytest.raises(SdgError, match="is damaged"):
        run(Fake(), ITEMS, out, resume=True)
    (tmp_path / "out.jsonl.run.json").unlink()
    with pytest.raises(SdgError, match=r"has no out\.jsonl\.run\.json"):
        run(Fake(), ITEMS, out, resume=True)


def test_images_given_twice_or_not_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SdgError, match=r"3\.png is there 2 times"):
        run(Fake(), [*ITEMS, ITEMS[3]], tmp_path / "out.jsonl")
    with pytest.raises(SdgError, match="no images"):
        run(Fake(), [], tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_one_image_with_two_prompts_is_two_images(tmp_path: Path) -> None:
    twins = [Item("a.png", "one", Path("a.png")), Item("a.png", "two", Path("a.png"))]
    run(Fake(), twins, tmp_path / "out.jsonl")
    assert [row["caption"] for row in rows(tmp_path / "out.jsonl")] == ["one", "two"]


@dataclass(frozen=True)
class Inside(StoredImage):
    """A picture that a file holds, at a path of its own."""

    name: str

    def content(self) -> bytes:
        return b""


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("union", [False, True])
def test_an_answer_that_fits_images_of_two_shards_or_chunks_is_of_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool, union: bool
) -> None:
    monkeypatch.setattr(bulk, "CHUNK", 2)
    stored = tmp_path / "stored.jsonl"
    stored.write_text(json.dumps({"filepath": "1.png", "caption": "", "response": CLEAN}))
    names = ["a/1.png", "a/2.png", "b/2.png", "b/1.png"]
    items = [Item(name, "p", Inside(name) if inside else Path(name)) for name in names]
    detector: StreamingDetector = ReplayDetector(stored)
    other = Fake()
    if union:
        detector = UnionDetector([detector, other])
    for number, name in ((1, "a/1.png"), (2, "b/1.png")):
        out = tmp_path / f"{number}.jsonl"
        assert run(detector, items, out, shard=Shard(number, 2)).images == 2
        row = next(row for row in rows(out) if row["filepath"] == name)
        assert (row["status"], row["response"]) == ("failed", None)
        assert "More than one image here may be 1.png" in row["error"]
    assert len(other.asked) == (4 if union else 0)  # each shard's own alone
    run(detector, items, tmp_path / "all.jsonl")
    assert [row["status"] for row in rows(tmp_path / "all.jsonl")] == ["failed"] * 4


def test_a_part_of_a_union_with_stored_answers_is_given_its_own_images_alone() -> None:
    class Counting(Fake):
        def stream(
            self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
        ) -> Iterator[tuple[int, Diagnosis]]:
            assert [str(image) for image, _ in pairs] == ["1.png", "3.png"]
            return super().stream(pairs, wanted)

    class Stored(Fake):
        stored = True

    union = UnionDetector([Stored(), Counting()])
    pairs: list[Pair] = [(item.file, item.prompt) for item in ITEMS]
    assert {index for index, _ in union.stream(pairs, {1, 3})} == {1, 3}


def test_two_processes_do_not_write_the_same_output(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"

    class Nested(Fake):
        def stream(self, *args: Any) -> Iterator[tuple[int, Diagnosis]]:
            with pytest.raises(SdgError, match="being written by another process"):
                run(Fake(), ITEMS, out, resume=True)
            yield from super().stream(*args)

    run(Nested(), ITEMS, out)
    assert len(rows(out)) == 7


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SdgError, match="file is a file; name a folder"):
        run(Fake(), ITEMS, tmp_path / "file" / "out.jsonl")
    with pytest.raises(SdgError, match="cannot be written"):
        run(Fake(), ITEMS, tmp_path / "file" / "deeper" / "out.jsonl")


def wait_for(check: Any, seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < limit, "the process did not get there"
        time.sleep(0.01)


@pytest.mark.slow
def test_kill_9_in_mid_run_then_resume_gives_the_output_of_an_undisturbed_run(tmp_path: Path) -> None:
    count = 40
    for index in range(count):
        tagged(index).save(tmp_path / f"{index:02}.png")
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"filepath": f"{i:02}.png", "caption": f"p {i}"}) + "\n" for i in range(count))
    )

    def behave(index: int, attempt: int) -> Reply:
        if index == 5 and attempt == 1:
            return error(400, "not now")
        reply = completion(CLEAN.replace("Nothing", f"{index} : nothing"))
        reply.delay = 0.05
        return reply

    def command(server: Server, out: str, *more: str) -> list[str]:
        uri = f"openai:{server.url}?concurrency=4#toy"
        source = str(tmp_path / "in.jsonl")
        return [sys.executable, "-m", "sdg", "diagnose", source, "--detector", uri, "--out", out, *more]

    whole, out = str(tmp_path / "whole.jsonl"), tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.partial"
    with Server(behave) as server:
        assert subprocess.run(command(server, whole), capture_output=True).returncode == 1
        assert subprocess.run(command(server, whole, "--resume"), capture_output=True).returncode == 0
    with Server(behave) as server:
        for least in (8, 20):
            process = subprocess.Popen(
                command(server, str(out), "--resume"), stderr=subprocess.DEVNULL, start_new_session=True
            )
            wait_for(lambda least=least: partial.exists() and partial.read_bytes().count(b"\n") >= least)
            os.killpg(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            assert not out.exists()
        lines = [line for line in partial.read_bytes().splitlines(True) if line.endswith(b"\n")]
        kept = [json.loads(line) for line in lines]
        answered = {int(row["filepath"][:2]) for row in kept if row["status"] != "failed"}
        assert len(answered) >= 19
        before = server.asked.copy()
        last = subprocess.run(command(server, str(out), "--resume"), capture_output=True)
        assert last.returncode == 0, last.stderr
        again = server.asked - before
    assert out.read_bytes() == Path(whole).read_bytes()
    assert set(again) == set(range(count)) - answered


@pytest.mark.slow
@pytest.mark.kill
def test_killed_at_any_moment_nothing_that_is_on_disk_is_asked_again(tmp_path: Path) -> None:
    count = 60
    for index in range(count):
        tagged(index).save(tmp_path / f"{index:02}.png")
    source = tmp_path / "in.jsonl"
    source.write_text(
        "".join(json.dumps({"filepath": f"{i:02}.png", "caption": "p"}) + "\n" for i in range(count))
    )

    def behave(index: int, attempt: int) -> Reply:
        reply = completion(CLEAN.replace("Nothing", f"{index} : nothing"))
        reply.delay = 0.05
        return reply

    def assert_same(killed: Path, whole: Path) -> None:
        assert killed.read_bytes() == whole.read_bytes()
        assert len(rows(killed)) == count

    with Server(behave) as server:
        uri = f"openai:{server.url}?concurrency=4#toy"
        runs = kill_and_resume(
            "diagnose, a server",
            lambda out: ["diagnose", source, "--detector", uri, "--out", out],
            tmp_path,
            assert_same,
            suffix=".jsonl",
        )
    # The undisturbed run asks once for each; a kill costs what four requests at a time had not brought home
    # and what was waiting for the disk.
    assert sum(server.asked.values()) <= count * (1 + runs) + 8 * KILLS


def hears_ctrl_c() -> None:
    """In a process that begins: SIGINT interrupts it, also where whoever runs the tests ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_at_ctrl_c_every_answer_that_was_asked_for_is_in_the_journal(tmp_path: Path) -> None:
    count = 200
    for index in range(count):
        tagged(index).save(tmp_path / f"{index:03}.png")
    names = [{"filepath": f"{index:03}.png", "caption": "p"} for index in range(count)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(name) + "\n" for name in names))

    def behave(index: int, attempt: int) -> Reply:
        reply = completion(CLEAN)
        reply.delay = 0.1
        return reply

    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    with Server(behave) as server:
        uri = f"openai:{server.url}?concurrency=32#toy"
        command = [sys.executable, "-m", "sdg", "diagnose", str(tmp_path / "in.jsonl"), "--detector", uri]
        command += ["--out", str(out)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c)
        wait_for(lambda: partial.exists() and partial.read_bytes().count(b"\n") >= 20)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 1
        assert "Stopped. What is done so far is kept" in said
        assert "never retrieved" not in said
        done = {int(row["filepath"][:3]) for row in rows(partial)}
        assert done == set(server.asked)
        assert 20 <= len(done) < count
        last = subprocess.run([*command, "--resume"], capture_output=True, check=False)
        assert last.returncode == 0, last.stderr
        assert server.asked == dict.fromkeys(range(count), 1)  # nothing was asked for twice
    assert len(rows(out)) == count


def test_at_ctrl_c_a_server_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    tagged(0).save(tmp_path / "a.png")

    def behave(index: int, attempt: int) -> Reply:
        reply = completion(CLEAN)
        reply.delay = 600.0
        return reply

    with Server(behave) as server:
        command = [sys.executable, "-m", "sdg", "diagnose", str(tmp_path / "a.png"), "--prompt", "p"]
        command += ["--detector", f"openai:{server.url}#toy", "--out", str(tmp_path / "out.jsonl")]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c)
        wait_for(lambda: server.asked)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "Stopped. What is done so far is kept" in said
    assert (tmp_path / "out.jsonl.partial").read_bytes() == b""


def test_of_two_runs_that_start_together_one_goes_on_and_the_other_leaves_no_trace(tmp_path: Path) -> None:
    tagged(0).save(tmp_path / "a.png")
    both: list[subprocess.Popen[str]] = []

    def behave(index: int, attempt: int) -> Reply:
        wait_for(lambda: any(process.poll() is not None for process in both), seconds=300)
        return completion(CLEAN)

    out = tmp_path / "runs" / "out.jsonl"
    with Server(behave) as server:
        command = [sys.executable, "-m", "sdg", "diagnose", str(tmp_path / "a.png"), "--prompt", "p"]
        command += ["--out", str(out), "--detector"]
        for name in ("one", "two"):
            uri = f"openai:{server.url}#{name}"
            both.append(subprocess.Popen([*command, uri], stderr=subprocess.PIPE, text=True))
        said = [process.communicate(timeout=300)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 1]
    won = codes.index(0)
    assert said[1 - won].splitlines()[-1] == (
        f"sdg: {out} is being written by another process; wait for it or stop it, or name another output."
    )
    assert json.loads(Path(f"{out}.run.json").read_text())["detector"]["model"] == ("one", "two")[won]
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.jsonl", "out.jsonl.run.json"]
