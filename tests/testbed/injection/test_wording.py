"""Reasons, traces, vocabulary and importance of injected pictures."""

import re
from itertools import pairwise

import numpy as np
import pytest

from sdg.defects import DefectType, Tier
from sdg.response import parse_response, render_response
from sdg.testbed.injection import ARTIFACTS, MISALIGNMENTS, sample, vocabulary
from sdg.testbed.world.prompts import noun, place, side, with_article
from sdg.testbed.world.scene import COLOURS, SHAPES


@pytest.fixture(scope="module", params=["core", "rich"])
def drawn(request):
    rng = np.random.default_rng(11)
    return [sample(rng, request.param) for _ in range(250)]


def texts(item):
    return [item.diagnosis.reasoning, *(defect.reason for defect in item.diagnosis.defects)]


def tokens(text):
    """Words, numbers, punctuation marks; a full stop at the end of a line is one with the line's end."""
    return re.findall(r"[A-Za-z-]+|\d+|\.?\n|[^\sA-Za-z\d]", text)


def test_a_reason_has_8_to_25_words_and_is_one_sentence(drawn):
    for item in drawn:
        for defect in item.diagnosis.defects:
            assert 8 <= len(defect.reason.split()) <= 25
            assert re.fullmatch(r"[A-Z][^.{}\"]+\.", defect.reason)


def test_a_reason_names_something_that_is_asked_for_or_in_the_picture(drawn):
    for item in drawn:
        named = {o.shape for o in item.objects} | {g.shape for g in item.request.groups}
        named |= {"word", "text", "background"}
        for defect in item.diagnosis.defects:
            assert any(name in defect.reason for name in named)


def test_reasons_of_a_subtype_are_worded_in_several_ways():
    rng = np.random.default_rng(1)
    wordings = {}
    names = "|".join((*COLOURS, *SHAPES, "crosses", *(shape + "s" for shape in SHAPES)))
    for _ in range(500):
        for defect in sample(rng, "rich", size=64).diagnosis.defects:
            skeleton = re.sub(rf"\b({names}|upper|lower|left|right|top|bottom|middle)\b", "", defect.reason)
            wordings.setdefault(defect.subtype, set()).add(skeleton)
    assert set(wordings) == {*ARTIFACTS["rich"], *MISALIGNMENTS["rich"]}
    assert all(len(found) >= 2 for found in wordings.values())


def test_every_word_is_in_the_vocabulary_and_that_is_small(drawn):
    known = set(vocabulary())
    assert len(known) < 600
    for item in drawn:
        for text in (item.prompt, *texts(item)):
            assert set(re.findall(r"[A-Za-z-]+", text)) <= known


def test_a_trace_has_three_steps_and_a_line_a_box_without_coordinates(drawn):
    for item in drawn:
        trace, defects = item.diagnosis.reasoning, item.diagnosis.defects
        assert re.findall(r"^Step (\d):", trace, re.MULTILINE) == ["1", "2", "3"]
        assert re.findall(r"^Box (\d):", trace, re.MULTILINE) == [str(i + 1) for i in range(len(defects))]
        assert max((int(n) for n in re.findall(r"\d+", trace)), default=0) <= 4
        named = re.findall(r"^(Misalignment|Artifact):", trace, re.MULTILINE)
        assert [name.lower() for name in named] == [defect.type.value for defect in defects]
        if not defects:
            assert len(trace.split()) <= 60


def test_a_trace_lists_every_object_in_the_picture(drawn):
    for item in drawn:
        seen = re.search(r"Seen from left: (.*?)\.", item.diagnosis.reasoning).group(1).split(", ")
        objects = sorted(noun(o.colour, o.shape) for o in item.objects)
        assert (
            sorted(name for name in seen if not name.startswith("the word") and name != "nothing") == objects
        )


def test_the_target_fits_the_token_budget_and_survives_the_wire():
    rng = np.random.default_rng(12)
    lengths = []
    for _ in range(400):
        diagnosis = sample(rng, size=64).diagnosis
        assert parse_response(render_response(diagnosis)) == diagnosis
        # An item of the answer: four numbers, three commas, seven more pieces of JSON, label and importance.
        answer = sum(14 + len(tokens(defect.reason)) for defect in diagnosis.defects)
        lengths.append(8 + len(tokens(diagnosis.reasoning)) + answer)
    assert max(lengths) <= 250
    assert 100 <= np.mean(lengths) <= 130


def test_misalignments_come_first_and_each_type_from_left_to_right(drawn):
    for item in drawn:
        keys = [(d.type is DefectType.ARTIFACT, d.box[0] + d.box[2]) for d in item.diagnosis.defects]
        # Boxes are rounded outwards to 0–1000 after sorting by pixels: equal to within two units.
        assert all(a[0] < b[0] or (a[0] == b[0] and a[1] <= b[1] + 2) for a, b in pairwise(keys))


def test_importance_is_mostly_moderate_and_larger_for_what_matters_more(drawn):
    by_subtype = {}
    for item in drawn:
        for defect in item.diagnosis.defects:
            by_subtype.setdefault(defect.subtype, []).append(defect.importance)
    scores = np.concatenate(list(by_subtype.values()))
    assert np.mean((scores >= 30) & (scores <= 80)) > 0.8
    means = {name: np.mean(values) for name, values in by_subtype.items()}
    assert means["missing object"] > means["wrong colour"] > means["extra object"]
    assert means["missing chunk"] > means["noise texture"]
    tiers = {defect.tier for item in drawn for defect in item.diagnosis.defects}
    assert tiers >= {Tier.MODERATE, Tier.MAJOR, Tier.CRITICAL}


def test_names_of_places_and_sides():
    assert place(0.1, 0.1) == "at the top left"
    assert place(0.5, 0.5) == "in the middle"
    assert place(0.9, 0.5) == "on the right"
    assert side(1, 0) == "right side"
    assert side(-1, -1) == "upper left side"
    assert side(0.05, 0.05) == "middle"
    assert with_article(noun("orange", "cross")) == "an orange cross"
    assert noun("red", "cross", 2) == "red crosses"
