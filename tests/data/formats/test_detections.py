from dataclasses import asdict
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.data.formats.detections import from_detections, to_detections
from sdg.defects import Defect, Diagnosis

pytestmark = pytest.mark.skipif(find_spec("supervision") is None, reason="supervision is not installed")

sizes = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))


@given(st.from_type(Diagnosis), sizes)
def test_a_diagnosis_comes_back_as_it_was(diagnosis, size):
    assert asdict(from_detections(to_detections(diagnosis, size), size)) == asdict(diagnosis)


def test_boxes_are_pixels_and_classes_have_names():
    defects = (Defect((0, 0, 500, 1000), "misalignment", "x", 7), Defect((250, 500, 750, 1000), "artifact"))
    detections = to_detections(Diagnosis(defects), (1024, 512))
    assert detections.xyxy.tolist() == [[0, 0, 512, 512], [256, 256, 768, 512]]
    assert detections.class_id.tolist() == [1, 0]
    assert detections.data["class_name"].tolist() == ["misalignment", "artifact"]
    assert detections.data["importance"].tolist() == [7, None]


def test_what_supervision_filters_is_still_a_diagnosis():
    defects = (Defect((0, 0, 500, 1000), "misalignment", "x", 7), Defect((0, 0, 9, 9), "artifact", "y", 8))
    detections = to_detections(Diagnosis(defects, "thoughts"), (100, 100))
    kept = detections[detections.class_id == 0]
    assert from_detections(kept, (100, 100)) == Diagnosis(defects[1:], "thoughts")


def test_detections_of_another_tool_need_only_boxes_and_classes():
    import supervision

    detections = supervision.Detections(xyxy=np.array([[10, 20, 30.2, 40]]), class_id=np.array([1]))
    assert from_detections(detections, (100, 100)).defects == (Defect((100, 200, 302, 400), "misalignment"),)


@pytest.mark.parametrize(
    ("class_id", "data", "reason"),
    [
        (None, {}, "Detection 1 has no class name, and its id is not 0 or 1."),
        ([2], {}, "Detection 1 has no class name, and its id is not 0 or 1."),
        ([0], {"class_name": np.array(["dog"])}, "'artifact' or 'misalignment', not 'dog'"),
        ([0], {"importance": np.array([0])}, "An importance is an integer from 1 to 100"),
    ],
)
def test_other_classes_are_refused(class_id, data, reason):
    import supervision

    ids = None if class_id is None else np.array(class_id)
    detections = supervision.Detections(xyxy=np.array([[0, 0, 9, 9]]), class_id=ids, data=data)
    with pytest.raises(ValueError, match=reason):
        from_detections(detections, (10, 10))
