"""Several looks at one picture: what they agree on, how sure it is, and what a lost look does."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from sdg.data.formats import read_records
from sdg.defects import DROPPED_ITEM, Defect, DefectType, Diagnosis, Status
from sdg.detectors import Pair, StreamingDetector, load_detector
from sdg.detectors.base import failed
from sdg.detectors.bulk import run
from sdg.detectors.consensus import ConsensusDetector, merged
from sdg.errors import SdgError
from sdg.prompting import Generation
from sdg.response import parse_response
from sdg.runs.inputs import Item
from sdg.testbed.models.detector.rows import embedded_profile

CLEAN = Diagnosis(reasoning="nothing")
PICTURE = Image.new("RGB", (32, 32))


def artifact(*box: int, importance: int | None = 80, reason: str = "torn") -> Defect:
    return Defect((box[0], box[1], box[2], box[3]), DefectType.ARTIFACT, reason, importance)


def look(*defects: Defect, reasoning: str = "") -> Diagnosis:
    return Diagnosis(defects, reasoning)


def test_a_worked_example() -> None:
    looks = [
        look(artifact(100, 100, 300, 300, importance=80, reason="a"), reasoning="one"),
        look(artifact(110, 100, 310, 300, importance=60, reason="b"), reasoning="two"),
        look(
            artifact(120, 100, 320, 300, importance=70, reason="c"),
            artifact(700, 700, 900, 900, importance=90, reason="seen once"),
            reasoning="three",
        ),
        CLEAN,
    ]
    found = merged(looks, agree=0.5)
    # 80 + 60 + 70 over four looks, of which one has none; the middle box is the most like the others.
    assert found.defects == (artifact(110, 100, 310, 300, importance=52, reason="b"),)
    assert (found.reasoning, found.status) == ("one", Status.OK)
    once = artifact(700, 700, 900, 900, importance=22, reason="seen once")
    assert merged(looks, agree=0.25).defects == (*found.defects, once)
    assert merged(looks, agree=0.8) == Diagnosis(reasoning="nothing")


@pytest.mark.parametrize(
    ("agree", "looks", "least"), [(0.28, 25, 7), (0.55, 20, 11), (0.375, 8, 3), (1, 3, 3)]
)
def test_a_share_of_the_looks_is_reached_whatever_floats_make_of_it(
    agree: float, looks: int, least: int
) -> None:
    seen, cut, pair = look(artifact(0, 0, 100, 100)), Diagnosis(status=Status.TRUNCATED), (PICTURE, "p")
    for some in (least, least - 1):
        found = merged([seen] * some + [CLEAN] * (looks - some), agree)
        assert bool(found.defects) == (some == least)
        if 2 * some < looks:
            detector = ConsensusDetector(Scripted([CLEAN] * (looks - some) + [cut] * some), looks, agree)
            [(_, outcome)] = detector.stream([pair])
            assert outcome.is_clean == (some < least)


def test_types_and_boxes_of_one_look_are_kept_apart() -> None:
    twice = artifact(0, 0, 500, 500), artifact(0, 0, 500, 490, importance=20)
    other = Defect((0, 0, 500, 500), DefectType.MISALIGNMENT, "not red", 40)
    found = merged([look(*twice, other), look(*twice, other)], agree=1)
    assert set(found.defects) == {*twice, other}
    assert [defect.importance for defect in found.defects] == [80, 40, 20]


def test_without_importance_there_is_none_and_where_some_lack_it_it_is_the_middle() -> None:
    box = (0, 0, 100, 100)
    bare = look(artifact(*box, importance=None))
    assert merged([bare, bare]).defects[0].importance is None
    assert merged([bare, look(artifact(*box, importance=100))]).defects[0].importance == 75


@st.composite
def several_looks(draw: st.DrawFn) -> list[Diagnosis]:
    side = st.integers(0, 9)

    def defect() -> Defect:
        (x0, x1), (y0, y1) = (sorted((draw(side), draw(side))) for _ in range(2))
        box = 100 * x0, 100 * y0, 100 * x1 + 100, 100 * y1 + 100
        return Defect(box, draw(st.sampled_from(list(DefectType))), "", draw(st.integers(1, 100)))

    return [look(*(defect() for _ in range(draw(st.integers(0, 4))))) for _ in range(draw(st.integers(1, 4)))]


@given(several_looks())
def test_nothing_is_invented_and_severity_is_the_mean(looks: list[Diagnosis]) -> None:
    found = merged(looks, agree=1e-6)
    total = sum(defect.importance or 0 for one in looks for defect in one.defects)
    # Each merged importance is rounded, and at least 1.
    assert abs(sum(defect.importance or 0 for defect in found.defects) - total / len(looks)) <= len(
        found.defects
    )
    most = max(len(one.defects) for one in looks)
    assert most <= len(found.defects) <= sum(len(one.defects) for one in looks)
    given_boxes = np.array([defect.box for one in looks for defect in one.defects]).reshape(-1, 4)
    for defect in found.defects:
        assert (given_boxes.min(0) <= defect.box).all()
        assert (defect.box <= given_boxes.max(0)).all()


@given(several_looks())
def test_looks_that_are_all_the_same_come_to_that_one(looks: list[Diagnosis]) -> None:
    one = looks[0]
    found = merged([one] * 3, agree=1)
    assert sorted(found.defects, key=repr) == sorted(one.defects, key=repr)


def test_the_order_of_the_looks_does_not_matter() -> None:
    looks = [look(artifact(10 * n, 0, 300 + 10 * n, 300, importance=10 + n)) for n in range(4)]
    boxes = {merged(order).defects[0].box for order in itertools.permutations(looks)}
    assert boxes == {(15, 0, 315, 300)}


class Scripted(StreamingDetector):
    """Answers from a list, the last first, as a server may."""

    def __init__(self, outcomes: Sequence[Diagnosis]) -> None:
        self.outcomes = outcomes

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {"detector": "scripted"}

    def stream(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Diagnosis]]:
        assert len(pairs) == len(self.outcomes)
        for place in sorted(range(len(pairs)) if wanted is None else wanted, reverse=True):
            yield place, self.outcomes[place]


def test_each_pair_gets_its_own_looks_however_they_come() -> None:
    seen = look(artifact(0, 0, 100, 100))
    detector = ConsensusDetector(Scripted([seen, seen, CLEAN, CLEAN]), 2)
    pairs = [(PICTURE, "one"), (PICTURE, "two")]
    assert [len(one.defects) for one in detector.diagnose(pairs)] == [1, 0]
    assert [index for index, _ in detector.stream(pairs, {1})] == [1]
    assert detector.identity == {"detector": "scripted", "looks": 2, "agree": 0.375}


class Batched(Scripted):
    """Says what its batches are: neighbours, from the last to the first."""

    def __init__(self, size: int) -> None:
        super().__init__([])
        self.size = size

    def batches(self, pairs: Sequence[Pair]) -> list[list[int]]:
        places = list(reversed(range(len(pairs))))
        return [places[start : start + self.size] for start in range(0, len(places), self.size)]


@pytest.mark.parametrize(
    ("looks", "size", "groups"),
    [
        (4, 8, [[6, 5], [4, 3], [2, 1], [0]]),  # 28 looks from the end: 8, 8, 8 and 4
        (8, 8, [[6], [5], [4], [3], [2], [1], [0]]),
        (3, 2, [[6, 5], [4, 3], [2, 1], [0]]),  # the third of one and the first of the next are one batch
        (2, 64, [[6, 5, 4, 3, 2, 1, 0]]),
    ],
)
def test_pairs_whose_looks_share_a_batch_stay_together(
    looks: int, size: int, groups: list[list[int]]
) -> None:
    found = ConsensusDetector(Batched(size), looks).batches([(PICTURE, "p")] * 7)
    assert [sorted(group) for group in found] == [sorted(group) for group in groups]


@given(st.integers(2, 9), st.integers(1, 9), st.integers(0, 20), st.randoms())
def test_no_batch_of_looks_is_in_two_groups_and_no_pair_either(
    looks: int, size: int, count: int, random: Random
) -> None:
    places = list(range(looks * count))
    random.shuffle(places)
    batches = [places[start : start + size] for start in range(0, len(places), size)]
    inner = Scripted([])
    inner.batches = lambda pairs: batches  # type: ignore[method-assign]
    groups = ConsensusDetector(inner, looks).batches([(PICTURE, "p")] * count)
    assert sorted(index for group in groups for index in group) == list(range(count))
    for batch in batches:
        assert sum(bool({place // looks for place in batch} & set(group)) for group in groups) == 1


@pytest.mark.parametrize(
    "lost",
    [
        failed("The server is down."),
        Diagnosis(status=Status.UNPARSEABLE),
        Diagnosis((artifact(0, 0, 9, 9),), status=Status.TRUNCATED),
        Diagnosis((artifact(0, 0, 9, 9),), status=Status.REPAIRED, repairs=(DROPPED_ITEM,)),
    ],
)
def test_a_lost_look_never_counts_as_clean(lost: Diagnosis) -> None:
    seen, pair = look(artifact(0, 0, 100, 100)), (PICTURE, "p")
    [found] = ConsensusDetector(Scripted([seen, lost, seen]), 3).diagnose([pair])
    assert found.defects == seen.defects
    [(_, outcome)] = ConsensusDetector(Scripted([seen, lost]), 2).stream([pair])
    assert outcome.status is Status.FAILED
    assert outcome.error.startswith("Only 1 of 2 looks gave a whole answer.")
    assert outcome.error.endswith(lost.error)


def test_lost_looks_that_could_have_agreed_on_a_defect_leave_clean_unproven() -> None:
    cut, clean, pair = Diagnosis(status=Status.TRUNCATED), CLEAN, (PICTURE, "p")
    [found] = ConsensusDetector(Scripted([clean] * 6 + [cut] * 2), 8).diagnose([pair])
    assert found.is_clean
    [(_, outcome)] = ConsensusDetector(Scripted([clean] * 5 + [cut] * 3), 8).stream([pair])
    assert outcome.status is Status.FAILED
    seen = look(artifact(0, 0, 100, 100))
    [found] = ConsensusDetector(Scripted([seen] * 5 + [cut] * 3), 8).diagnose([pair])
    assert found.defects == seen.defects


def test_the_embedded_detector_looks_several_times_differently() -> None:
    picture = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(picture).rectangle((20, 60, 60, 100), fill="red")
    pairs = [(picture, "a red circle and a blue square on a white background")] * 2
    short = dataclasses.replace(embedded_profile(), generation=Generation(max_new_tokens=48))
    several = load_detector("testbed?looks=3&temperature=2&agree=1", profile=short)
    assert several.diagnose(pairs) == several.diagnose(pairs)
    single = list(load_detector("testbed?temperature=2", profile=short).stream(pairs * 3))
    assert len({outcome.raw for _, outcome in single}) > 1
    assert several.identity["looks"] == 3
    greedy = load_detector("testbed").identity
    assert load_detector("testbed?looks=1").identity == greedy
    assert load_detector("testbed?looks=2").identity["profile"] != greedy["profile"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("looks=0", "looks is a whole number from 1"),
        ("looks=3&temperature=0", "At temperature 0 all looks are the same"),
        ("temperature=warm", "temperature is a number of at least 0"),
        ("looks=3&agree=0", "agree is a number above 0, at most 1"),
        ("agree=0.5", "`agree` is a share of several looks"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: str, sentence: str) -> None:
    with pytest.raises(SdgError, match=sentence):
        load_detector(f"testbed?{options}")


def test_one_look_is_no_consensus() -> None:
    with pytest.raises(ValueError, match="two looks or more"):
        ConsensusDetector(Scripted([]), 1)
    with pytest.raises(ValueError, match="at least one"):
        merged([])


def test_a_file_of_predictions_holds_what_the_looks_agreed_on(tmp_path: Path) -> None:
    defect = artifact(100, 100, 300, 300, importance=80)
    found = merged([look(defect, reasoning="Torn."), look(defect, reasoning="Torn.")])
    assert parse_response(found.raw) == found
    assert parse_response(merged([CLEAN, CLEAN]).raw).is_clean
    detector = ConsensusDetector(Scripted([look(defect), CLEAN]), 2, 0.5)
    out = tmp_path / "found.jsonl"
    run(detector, [Item("a.png", "a cup", tmp_path / "a.png")], out)
    (record,) = read_records(out)
    assert record.diagnosis.defects == (artifact(100, 100, 300, 300, importance=40),)
