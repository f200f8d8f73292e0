import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdg.data.formats import coco
from sdg.defects import Defect, Diagnosis
from sdg.errors import SdgError, quoted
from sdg.records import Record

RECORD = Record(
    "a.png", "a cat", Diagnosis((Defect((100, 200, 300, 400), "misalignment", "A dog.", 60, "x"),))
)
IMAGE = {"id": 1, "file_name": "a.png", "width": 1000, "height": 500, "prompt": "a cat"}
ANNOTATION = {"id": 1, "image_id": 1, "category_id": 2, "bbox": [100, 100, 200, 100]}
CATEGORIES = [{"id": 1, "name": "artifact"}, {"id": 2, "name": "misalignment"}, {"id": 3, "name": "dog"}]


def write_document(tmp_path, images=(IMAGE,), annotations=(ANNOTATION,), categories=CATEGORIES):
    path = tmp_path / "coco.json"
    path.write_text(
        json.dumps({"images": list(images), "annotations": list(annotations), "categories": categories})
    )
    return path


@given(
    st.lists(st.from_type(Record), max_size=3),
    st.tuples(st.integers(1, 9000), st.integers(1, 9000)),
)
def test_records_come_back_as_they_were_with_the_size_of_the_image(
    tmp_path_factory, everything, records, size
):
    path = tmp_path_factory.mktemp("coco") / "coco.json"
    width, height = size
    expected = [
        replace(record, metadata={"width": width, "height": height} | record.metadata) for record in records
    ]
    assert coco.write(path, records, size=size) == len(records)
    assert everything(coco.read(path)) == everything(expected)
    # Once the size is known, it need not be given again.
    if all({"width", "height"}.isdisjoint(record.metadata) for record in records):
        coco.write(path, expected)
        assert everything(coco.read(path)) == everything(expected)


def test_the_document_is_what_coco_says_it_is(tmp_path):
    path = tmp_path / "coco.json"
    coco.write(path, [RECORD], size=(1000, 500))
    document = json.loads(path.read_text())
    assert {"info", "images", "annotations", "categories"} == document.keys()
    assert document["images"] == [IMAGE]
    assert document["annotations"] == [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 2,
            "bbox": [100.0, 100.0, 200.0, 100.0],
            "area": 20_000.0,
            "iscrowd": 0,
            "segmentation": [],
            "attributes": {"reason": "A dog.", "importance": 60, "subtype": "x"},
        }
    ]
    assert [(c["id"], c["name"]) for c in document["categories"]] == [(1, "artifact"), (2, "misalignment")]


def test_sizes_come_from_the_headers_of_the_images(tmp_path):
    Image.new("RGB", (64, 32)).save(tmp_path / "a.png")
    coco.write(tmp_path / "coco.json", [RECORD], images=tmp_path)
    [record] = coco.read(tmp_path / "coco.json")
    assert record.metadata == {"width": 64, "height": 32}
    assert record.diagnosis == RECORD.diagnosis


def test_without_a_size_the_error_says_what_to_give(tmp_path):
    with pytest.raises(
        SdgError, match=r"The size of a.png in pixels is not known; give the folder of the images"
    ):
        coco.write(tmp_path / "coco.json", [RECORD])
    assert list(tmp_path.iterdir()) == []


def test_supervision_reads_the_same_boxes(tmp_path):
    supervision = pytest.importorskip("supervision")
    Image.new("RGB", (1000, 500)).save(tmp_path / "a.png")
    coco.write(tmp_path / "coco.json", [RECORD], images=tmp_path)
    dataset = supervision.DetectionDataset.from_coco(str(tmp_path), str(tmp_path / "coco.json"))
    [(_, _, detections)] = list(dataset)
    assert detections.xyxy.tolist() == [[100, 100, 300, 200]]
    assert [dataset.classes[index] for index in detections.class_id] == ["misalignment"]


def test_values_beside_the_standard_keys_are_read_too(tmp_path):
    annotation = ANNOTATION | {"reason": "A dog.", "importance": "60", "id": "7", "image_id": "1"}
    [record] = coco.read(write_document(tmp_path, annotations=[annotation]))
    [defect] = record.diagnosis.defects
    assert (defect.box, defect.reason, defect.importance) == ((100, 200, 300, 400), "A dog.", 60)


def test_the_category_both_is_one_defect_of_each_type(tmp_path):
    path = write_document(tmp_path, categories=[{"id": 2, "name": "both"}])
    [record] = coco.read(path)
    assert [defect.type for defect in record.diagnosis.defects] == ["artifact", "misalignment"]


def test_an_image_without_annotations_is_clean_unless_it_says_otherwise(tmp_path):
    images = [IMAGE, IMAGE | {"id": 2, "annotated": False}]
    clean, unknown = coco.read(write_document(tmp_path, images, annotations=[]))
    assert clean.diagnosis == Diagnosis()
    assert unknown.diagnosis is None


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"images": [3], "annotations": []}, ", image 1: An image is a JSON object, not 3."),
        ({"images": [IMAGE, IMAGE]}, ", image 2: Another image has the same id, 1."),
        ({"annotations": [ANNOTATION | {"image_id": 9}]}, ", annotation 1: There is no image with the id 9."),
        ({"annotations": [ANNOTATION, 5]}, ", annotation 2: An annotation is a JSON object, not 5."),
        (
            {"annotations": [ANNOTATION | {"category_id": 5}]},
            ", image 1: Annotation 1: There is no category with the id 5.",
        ),
        (
            {"annotations": [ANNOTATION | {"category_id": 3}]},
            ", image 1: Annotation 1: The category is 'artifact', 'misalignment' or 'both', not 'dog'.",
        ),
        (
            {"annotations": [ANNOTATION | {"bbox": [900, 0, 200, 10]}]},
            ", image 1: Annotation 1: The box [900, 0, 200, 10] leaves the image, which is 1000 by 500.",
        ),
        (
            {"annotations": [ANNOTATION | {"attributes": {"importance": 0}}]},
            ", image 1: Annotation 1: An importance is an integer from 1 to 100, not 0.",
        ),
        (
            {"annotations": [ANNOTATION | {"attributes": ["x"]}]},
            ", image 1: Annotation 1: 'attributes' is an object, not ['x'].",
        ),
        (
            {"annotations": [ANNOTATION | {"bbox": [0, 0, 1e308, 10]}]},
            ", image 1: Annotation 1: The box [0, 0, 1e+308, 10] leaves the image, which is 1000 by 500.",
        ),
        (
            {"annotations": [ANNOTATION | {"bbox": [0, 0, 10**300, 10]}]},
            f", image 1: Annotation 1: The box {quoted([0, 0, 10**300, 10])} leaves the image, "
            "which is 1000 by 500.",
        ),
        (
            {"images": [IMAGE | {"width": 10**400}]},
            ", image 1: Annotation 1: Its image needs a 'width' and a 'height' in pixels.",
        ),
        (
            {"images": [IMAGE | {"id": ""}], "annotations": [5]},
            ", annotation 1: An annotation is a JSON object, not 5.",
        ),
        (
            {"images": [{"id": 1, "file_name": "a.png"}]},
            ", image 1: Annotation 1: Its image needs a 'width' and a 'height' in pixels.",
        ),
        ({"images": [{"id": 1}], "annotations": []}, ", image 1: 'file_name' is missing."),
    ],
)
def test_a_fault_names_the_file_the_place_and_the_reason(tmp_path, document, reason):
    path = write_document(tmp_path, **document)
    with pytest.raises(SdgError) as error:
        list(coco.read(path))
    assert str(error.value) == f"{path}{reason}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", " is not a COCO file: it has no list of 'images'."),
        ('{\n"images": [}', " is not JSON: Expecting value at line 2, column 12."),
        ('{"images": [], "annotations": 3}', " is not a COCO file: its 'annotations' are no list."),
        ('{"images": [NaN]}', " is not JSON: NaN is not a JSON number; write null."),
        ("", " is empty."),
    ],
)
def test_a_file_that_is_no_coco_document_is_one_sentence(tmp_path, text, reason):
    path = tmp_path / "coco.json"
    path.write_text(text)
    with pytest.raises(SdgError) as error:
        list(coco.read(path))
    assert str(error.value) == f"{path}{reason}"
