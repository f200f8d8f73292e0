import numpy as np
import pytest

from sdg import evaluate
from sdg.defects import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.evaluation.agreement import agreement, pair_annotators, pair_files
from sdg.records import Record

LEFT = Defect((0, 0, 500, 1000), "artifact", "Six fingers.", 80)
TOP = Defect((0, 0, 500, 500), "artifact", "A melted hand.", 60)  # IoU 0.5 with LEFT
DOG = Defect((600, 600, 900, 900), "misalignment", "A dog.", 40)


def record(path, *defects, annotator=None, status="ok"):
    return Record(path, "", Diagnosis(defects, "thoughts", status), annotator=annotator)


FIRST = [record("a", LEFT, DOG), record("b"), record("c", DOG), record("only first")]
SECOND = [record("c"), record("b"), record("a", TOP), record("only second")]


def test_the_second_file_is_scored_against_the_first_and_the_other_way_round():
    pairs, skipped = pair_files(FIRST, SECOND)
    assert sorted(skipped) == ["only first", "only second"]
    result = agreement(pairs, skipped)
    one = [(LEFT, DOG), (), (DOG,)]
    other = [(TOP,), (), ()]
    assert result.forward.to_dict() == evaluate(one, other).to_dict()
    assert result.backward.to_dict() == evaluate(other, one).to_dict()
    forward, backward = result.forward.to_dict(), result.backward.to_dict()
    assert forward["misalignment"]["BoxRe@0.1"] == 0
    assert backward["misalignment"]["BoxPr@0.1"] == 0
    assert forward["artifact"]["BoxF1@0.5"] == backward["artifact"]["BoxF1@0.5"] == 1


def test_each_image_has_its_own_agreement():
    rows = list(agreement(*pair_files(FIRST, SECOND)).per_image())
    assert rows == [
        {
            "filepath": "a",
            "annotators": ["first", "second"],
            "artifact": {"boxes": [1, 1], "BoxF1@0.1": 1.0, "BoxF1@0.5": 1.0},
            "misalignment": {"boxes": [1, 0], "BoxF1@0.1": 0.0, "BoxF1@0.5": 0.0},
        },
        {
            "filepath": "b",
            "annotators": ["first", "second"],
            "artifact": {"boxes": [0, 0], "BoxF1@0.1": None, "BoxF1@0.5": None},
            "misalignment": {"boxes": [0, 0], "BoxF1@0.1": None, "BoxF1@0.5": None},
        },
        {
            "filepath": "c",
            "annotators": ["first", "second"],
            "artifact": {"boxes": [0, 0], "BoxF1@0.1": None, "BoxF1@0.5": None},
            "misalignment": {"boxes": [1, 0], "BoxF1@0.1": 0.0, "BoxF1@0.5": 0.0},
        },
    ]


def test_annotators_of_one_file_are_compared_two_by_two():
    records = [
        record("a", LEFT, annotator="x"),
        record("b", annotator="x"),
        record("a", TOP, annotator="y"),
        record("a", annotator="z"),
        record("a", DOG, annotator="z"),
    ]
    pairs, skipped = pair_annotators(records)
    assert [pair.annotators for pair in pairs] == [("x", "y"), ("x", "z"), ("x", "z"), ("y", "z"), ("y", "z")]
    assert {pair.filepath for pair in pairs} == {"a"}
    assert skipped == ["b"]


def test_an_annotation_that_says_nothing_is_left_out_not_taken_for_clean():
    pairs, skipped = pair_files(
        [record("a", DOG), record("b")], [record("a", status="failed"), Record("b", "")]
    )
    assert (pairs, sorted(skipped)) == ([], ["a", "b"])


def test_without_a_pair_there_is_no_agreement():
    with pytest.raises(SdgError, match="No image has annotations by two annotators"):
        agreement(*pair_annotators([record("a"), record("a")]))


def test_reasons_are_compared_with_an_embedder():
    result = agreement(*pair_files(FIRST, SECOND), embedder="token-f1", bootstrap=10)
    assert result.forward.to_dict()["artifact"]["DescCos@0.1"] == 0
    assert result.forward.intervals is not None
    assert result.to_document()["second_against_first"]["settings"]["bootstrap"] == 10


def test_intervals_resample_images_with_all_of_their_pairs():
    """Five annotators agree on some images and on the others not at all: what varies is the image."""
    records = []
    for image in range(24):
        for one in range(5):
            at = 190 * one if image % 2 else 0
            records.append(
                record(str(image), Defect((at, at, at + 100, at + 100), "artifact"), annotator=str(one))
            )
    result = agreement(*pair_annotators(records), bootstrap=400)
    low, high = result.forward.intervals["artifact"]["BoxF1@0.1"]
    draws = np.random.default_rng(0).binomial(24, 0.5, 4000) / 24  # BoxF1 is the share of easy images
    assert (low, high) == pytest.approx(np.quantile(draws, (0.025, 0.975)), abs=0.05)
    assert result.forward.metrics["artifact"]["BoxF1@0.1"] == 0.5
    document = result.to_document()
    assert (document["pairs"], document["images"]) == (240, 24)
    assert "240 pairs of annotations compared, of 24 images" in str(result.backward)
    assert "400 resamples of images" in str(result.backward)


def test_of_one_pair_an_image_the_intervals_are_those_of_evaluate():
    pairs, _ = pair_files(FIRST, SECOND)
    found = evaluate([pair.first for pair in pairs], [pair.second for pair in pairs], bootstrap=50, seed=3)
    assert agreement(pairs, bootstrap=50, seed=3).forward.intervals == found.intervals


def test_two_annotations_of_an_image_by_one_annotator_would_count_twice():
    said = r"a has two annotations{} in one file, and would count twice; leave one out, or name who made each"
    twice = [record("a"), record("a", Defect((0, 0, 9, 9), "artifact"))]
    with pytest.raises(SdgError, match=said.format("")):
        pair_files(twice, [record("a")])
    named = [record("a", annotator="x"), record("a", annotator="x"), record("a", annotator="y")]
    with pytest.raises(SdgError, match=said.format(" by 'x'")):
        pair_files([record("a")], named)
    assert len(pair_files(named[1:], [record("a")])[0]) == 2
