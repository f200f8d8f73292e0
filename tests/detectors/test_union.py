"""A union of detectors: every defect once, failures never clean, and streams that go on in turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import boxes

import sdg
from sdg import Defect, Diagnosis
from sdg.defects import Status
from sdg.detectors import load_detector
from sdg.detectors.base import StreamingDetector, failed
from sdg.detectors.union import UnionDetector, united
from sdg.errors import SdgError
from sdg.geometry import iou
from sdg.images import Pair
from sdg.io.asking import Ask
from sdg.io.predictions import read_prediction, write_prediction
from sdg.records import Record
from sdg.serve.chat import completion

PAIRS: list[Pair] = [("a.png", "a"), ("b.png", "b"), ("c.png", "c")]


class Scripted(StreamingDetector):
    """Gives what it is told, in the order it is told."""

    def __init__(self, name: str, outcomes: Mapping[int, Diagnosis], log: list[str] | None = None) -> None:
        self.name, self.outcomes, self.log = name, outcomes, [] if log is None else log

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {"detector": self.name}

    def stream(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Diagnosis]]:
        for index, outcome in self.outcomes.items():
            self.log.append(f"{self.name}{index}")
            yield index, outcome


def defect(x: int, type: str = "artifact", reason: str = "r", importance: int | None = 40) -> Defect:
    return Defect((x, 0, x + 100, 100), type, reason, importance)


def test_a_defect_that_two_find_is_told_once_by_the_first_with_the_higher_importance() -> None:
    one = Diagnosis((defect(0, reason="fused fingers"), defect(500)), "first")
    other = Diagnosis((defect(20, reason="a hand", importance=90), defect(0, "misalignment")), "second")
    found = united([one, other])
    assert found.reasoning == "first"
    assert [(d.box[0], str(d.type), d.reason, d.importance) for d in found.defects] == [
        (0, "artifact", "fused fingers", 90),
        (500, "artifact", "r", 40),
        (0, "misalignment", "r", 40),
    ]
    assert sdg.parse_response(found.raw).defects == found.defects


def test_one_box_takes_one_partner_only() -> None:
    wide = Defect((0, 0, 200, 100), "artifact", "wide", 10)
    found = united([Diagnosis((wide,)), Diagnosis((defect(0), defect(100)))])
    assert len(found.defects) == 2  # the other half is a defect of its own


def test_the_worst_status_counts() -> None:
    assert united([Diagnosis(), Diagnosis(status="truncated")]).status is Status.TRUNCATED
    assert united([Diagnosis(), Diagnosis()]).is_clean


def test_what_one_has_lost_stays_lost_through_files_and_servers() -> None:
    read = sdg.parse_response(
        '<think>t</think><answer>[{"box_2d":[1,2,30,40],"label":"artifact","description":"x","importance":3},'
        '{"box_2d":"?","label":"artifact"}]</answer>'
    )
    assert (read.status, read.is_whole) == (Status.REPAIRED, False)
    found = united([Diagnosis(), read])
    assert (found.status, found.is_whole) == (Status.TRUNCATED, False)
    stored = read_prediction(write_prediction(Record("a.png", "p", found), found.raw)).diagnosis
    assert stored == found
    assert stored is not None
    assert not stored.is_whole
    assert completion(found, "m")["choices"][0]["finish_reason"] == "length"


SOME = st.builds(Defect, boxes(), st.sampled_from(["artifact", "misalignment"]), st.just("r"), st.just(40))


@given(st.lists(st.lists(SOME, max_size=4), min_size=1, max_size=3))
def test_nothing_is_lost_and_nothing_comes_from_nowhere(sets: list[list[Defect]]) -> None:
    found = united([Diagnosis(tuple(one)) for one in sets]).defects
    everything = [one for part in sets for one in part]
    assert max(map(len, sets)) <= len(found) <= len(everything)
    assert {(d.box, d.type) for d in found} <= {(d.box, d.type) for d in everything}
    for one in everything:  # each is there itself, or one of its type overlaps it
        assert any(
            o.type == one.type and (o.box == one.box or iou([o.box], [one.box])[0, 0] >= 0.1) for o in found
        )


def test_streams_go_in_turns_and_a_failure_is_no_clean_picture() -> None:
    log: list[str] = []
    first = Scripted("a", {n: Diagnosis((defect(0),)) for n in (0, 1, 2)}, log)
    second = Scripted("b", {2: Diagnosis(), 0: failed("It was late."), 1: Diagnosis()}, log)
    found = dict(UnionDetector([first, second]).stream(PAIRS))
    assert log == ["a0", "b2", "a1", "b0", "a2", "b1"]
    assert sorted(found) == [0, 1, 2]
    assert (found[0].status, found[0].error) == (Status.FAILED, "b: It was late.")
    assert len(found[1].defects) == 1
    unread = Scripted("c", {0: Diagnosis(status="unparseable", raw="?")})
    (outcome,) = dict(UnionDetector([first, unread]).stream(PAIRS[:1])).values()
    assert (outcome.status, outcome.error) == (Status.FAILED, "c: its answer cannot be read.")


def test_a_detector_that_is_stopped_gives_what_both_have() -> None:
    first = Scripted("a", {n: Diagnosis() for n in (0, 1, 2)})
    second = Scripted("b", {1: Diagnosis()})
    assert [index for index, _ in UnionDetector([first, second]).stream(PAIRS)] == [1]


class Asked(Scripted):
    """A server, of which single pairs are asked; says how many are out at once over all of its kind."""

    out, most = 0, 0

    def connected(self) -> AbstractAsyncContextManager[Ask[Diagnosis]]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Ask[Diagnosis]]:
            self.log.append(f"open {self.name}")
            yield self.ask
            self.log.append(f"close {self.name}")

        return opened()

    async def ask(self, pair: Pair, index: int) -> Diagnosis:
        Asked.out += 1
        Asked.most = max(Asked.most, Asked.out)
        await asyncio.sleep(0.001)
        Asked.out -= 1
        return self.outcomes[index]


def test_servers_are_asked_about_single_pairs_all_at_once() -> None:
    log: list[str] = []
    first = Asked("a", {0: Diagnosis((defect(0),)), 1: Diagnosis()}, log)
    second = Asked("b", {0: Diagnosis((defect(500),)), 1: failed("It was late.")}, log)
    union = UnionDetector([first, second])

    async def ask() -> list[Diagnosis]:
        connected = union.connected()
        assert connected is not None
        async with connected as one:
            return await asyncio.gather(*(one(pair, index) for index, pair in enumerate(PAIRS[:2])))

    found, lost = asyncio.run(ask())
    assert Asked.most == 4  # two pairs, of two servers each
    assert [one.box[0] for one in found.defects] == [0, 500]
    assert (lost.status, lost.error) == (Status.FAILED, "b: It was late.")
    assert log == ["open a", "open b", "close b", "close a"]
    assert UnionDetector([first, Scripted("c", {})]).connected() is None


def test_a_union_takes_as_many_at_once_as_its_parts_allow() -> None:
    server = "openai:http://localhost:1/v1#m?profile=default"
    one = "python:sdg.testbed.oracle.diagnose"
    uris = {
        f"union:{server}|{server}": None,
        f"union:{server}&concurrency=5|{server}|{server}&concurrency=3": 3,
    }
    for uri, at_once in uris.items():
        assert load_detector(uri).at_once == at_once
    assert load_detector(f"union:{one}|{server}").batch_size == 8  # a batch keeps the server as busy as alone
    assert load_detector(f"union:{server}&concurrency=20|{one}").batch_size == 20


def test_its_batches_are_the_largest_of_its_parts() -> None:
    class Batched(Scripted):
        def __init__(self, size: int) -> None:
            super().__init__("batched", {})
            self.size = size

        def batches(self, pairs: Sequence[Pair]) -> list[list[int]]:
            return [
                list(range(at, min(at + self.size, len(pairs)))) for at in range(0, len(pairs), self.size)
            ]

    union = UnionDetector([Scripted("one by one", {}), Batched(1), Batched(2)])
    assert union.batches(PAIRS) == [[0, 1], [2]]
    assert Scripted("one by one", {}).batches(PAIRS) == [[0], [1], [2]]


def test_it_is_named_by_its_parts() -> None:
    one = "python:sdg.testbed.oracle.diagnose"
    assert load_detector(f"union:{one}|{one}").identity["2.function"] == one
    with pytest.raises(SdgError, match="does not name two detectors"):
        load_detector("union:testbed")
    with pytest.raises(SdgError, match=r"A union takes no batch_size; write it behind its own URI"):
        load_detector("union:ocr|testbed", batch_size=4)
    with pytest.raises(SdgError, match="is no detector"):
        load_detector("union:ocrr|testbed")
