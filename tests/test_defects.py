import json
from dataclasses import asdict

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from sdg.defects import DROPPED_ITEM, Defect, DefectType, Diagnosis, Status, Tier, importance_tier
from sdg.errors import Faults

coordinates = st.integers(-2, 1002)


@given(st.tuples(*[coordinates] * 4), st.none() | st.integers(-1, 102))
def test_a_defect_exists_exactly_where_box_and_importance_are_in_their_domains(box, importance):
    x0, y0, x1, y1 = box
    valid = 0 <= x0 < x1 <= 1000 and 0 <= y0 < y1 <= 1000
    valid = valid and (importance is None or 1 <= importance <= 100)
    # Exact types take a shorter way through the constructor than lists and numpy integers do.
    for same in (box, list(box), np.array(box)):
        for kind in (DefectType.ARTIFACT, "artifact"):
            if valid:
                defect = Defect(same, kind, "x", importance)
                assert defect == Defect(box, DefectType.ARTIFACT, "x", importance)
                assert type(defect.box) is tuple
                assert {type(coordinate) for coordinate in defect.box} == {int}
                assert type(defect.type) is DefectType
            else:
                with pytest.raises(ValueError, match=r"box|importance"):
                    Defect(same, kind, "x", importance)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"box": (0, 0, 5)}, "four integers"),
        ({"box": (0, 0, 5.0, 5)}, "four integers"),
        ({"box": (False, 0, 5, 5)}, "four integers"),
        ({"type": "blur"}, "'artifact' or 'misalignment', not 'blur'"),
        ({"reason": None}, "A reason is text, not None"),
        ({"importance": 5.0}, "from 1 to 100, not 5.0"),
        ({"importance": True}, "from 1 to 100, not True"),
        ({"subtype": 3}, "'subtype' is text, not 3"),
        ({"box": None}, "four integers"),
    ],
)
def test_what_is_no_defect_is_refused_in_a_sentence(changes, reason):
    with pytest.raises(ValueError, match=reason):
        Defect(**{"box": (0, 0, 5, 5), "type": "artifact", "reason": "x", "importance": 5} | changes)


def test_a_subtype_is_not_part_of_equality():
    assert Defect((0, 0, 5, 5), "artifact", subtype="anatomy") == Defect((0, 0, 5, 5), "artifact")


def test_tiers_are_those_of_the_rubric():
    floors = {90: Tier.CRITICAL, 70: Tier.MAJOR, 40: Tier.MODERATE, 15: Tier.MINOR, 1: Tier.NEGLIGIBLE}
    for importance in range(1, 101):
        expected = floors[max(floor for floor in floors if floor <= importance)]
        assert importance_tier(importance) is expected
        assert Defect((0, 0, 1, 1), "artifact", importance=importance).tier is expected
    assert Defect((0, 0, 1, 1), "artifact").tier is None


DEFECT = Defect((0, 0, 5, 5), "artifact")


@pytest.mark.parametrize(
    ("diagnosis", "is_clean", "is_informative"),
    [
        (Diagnosis(), True, True),
        (Diagnosis([DEFECT]), False, True),
        (Diagnosis(status="failed"), False, False),
        (Diagnosis(status="unparseable"), False, False),
        (Diagnosis(status="truncated"), False, False),
        (Diagnosis([DEFECT], status="truncated"), False, True),
        (Diagnosis(status="repaired"), True, True),
        (Diagnosis(status="repaired", repairs=[DROPPED_ITEM]), False, False),
        (Diagnosis([DEFECT], status="repaired", repairs=[DROPPED_ITEM]), False, True),
    ],
)
def test_clean_is_what_is_known_to_be_empty(diagnosis, is_clean, is_informative):
    assert (diagnosis.is_clean, diagnosis.is_informative) == (is_clean, is_informative)
    assert (diagnosis.known_defects() == []) is is_clean
    assert (diagnosis.known_defects() is None) is not is_informative


@pytest.mark.parametrize("status", ["failed", "unparseable"])
def test_a_diagnosis_that_knows_nothing_holds_no_defects(status):
    with pytest.raises(ValueError, match="knows no defects"):
        Diagnosis((DEFECT,), status=status)


def test_other_values_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="Defect objects only"):
        Diagnosis(("x",))
    with pytest.raises(ValueError, match="one of ok, repaired, truncated, unparseable, failed, not 'fine'"):
        Diagnosis(status="fine")
    with pytest.raises(ValueError, match="are text"):
        Diagnosis(reasoning=None)


def test_raw_text_and_repairs_are_not_part_of_equality():
    assert Diagnosis((DEFECT,), raw="a", repairs=("x",)) == Diagnosis((DEFECT,), raw="b")
    assert type(Diagnosis(status="ok").status) is Status


def test_defects_are_told_apart_by_type():
    other = Defect((0, 0, 5, 5), "misalignment")
    assert Diagnosis((DEFECT, other, DEFECT)).of_type("artifact") == (DEFECT, DEFECT)


@given(strategies.diagnoses)
def test_a_diagnosis_comes_back_whole_from_json(diagnosis):
    again = Diagnosis.from_dict(json.loads(json.dumps(diagnosis.to_dict())))
    assert asdict(again) == asdict(diagnosis)  # with all that `==` leaves out
    assert [type(defect.type) for defect in again.defects] == [DefectType] * len(diagnosis.defects)


def test_the_dict_of_a_diagnosis_has_the_fields_names():
    assert Diagnosis().to_dict() == {"defects": []}
    whole = Diagnosis((Defect((0, 0, 5, 5), "artifact", "x", 7, "edges"),), "r", "repaired", "raw", ("a",))
    assert whole.to_dict() == {
        "defects": [
            {"box": [0, 0, 5, 5], "type": "artifact", "reason": "x", "importance": 7, "subtype": "edges"}
        ],
        "reasoning": "r",
        "status": "repaired",
        "raw": "raw",
        "repairs": ["a"],
    }


@given(strategies.json_values)
def test_any_other_json_is_refused_in_a_sentence(value):
    for kind in (Defect, Diagnosis):
        with pytest.raises(ValueError, match=r".") as caught:
            kind.from_dict(value)
        assert "\n" not in str(caught.value)


@given(strategies.diagnoses, st.data())
def test_a_changed_value_is_read_or_refused_but_never_an_error(diagnosis, data):
    value = diagnosis.to_dict()
    where = data.draw(st.sampled_from([value, *value["defects"]]))
    where[data.draw(st.sampled_from([*where, "other"]))] = data.draw(strategies.json_values)
    try:
        read = Diagnosis.from_dict(value)
    except ValueError as error:
        said = str(error)
    else:
        assert Diagnosis.from_dict(read.to_dict()) == read
        return
    assert "\n" not in said


def test_every_bad_defect_is_named():
    good, bad = DEFECT.to_dict(), DEFECT.to_dict() | {"importance": 0}
    with pytest.raises(Faults) as caught:
        Diagnosis.from_dict({"defects": [bad, good, good | {"colour": "red"}]})
    assert caught.value.reasons == (
        "Defect 1: An importance is an integer from 1 to 100, not 0.",
        "Defect 3: A defect has no key 'colour'; anything else belongs into a record's 'metadata'.",
    )
