import json
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdg.data.formats import label_studio
from sdg.defects import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.records import Record

DEFECT = Defect((100, 200, 305, 400), "misalignment", "A dog.", 60, "wrong relation")


def rectangle(region="r1", labels=("artifact",), **value):
    box = {"x": 10, "y": 20, "width": 20.5, "height": 20, "rotation": 0, "rectanglelabels": list(labels)}
    return {
        "id": region,
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": 1024,
        "original_height": 1024,
        "value": box | value,
    }


def control(region, name, kind, **value):
    return {"id": region, "from_name": name, "to_name": "image", "type": kind, "value": value}


def read(tmp_path, *annotations, **data):
    path = tmp_path / "export.json"
    data = {"image": "/data/local-files/?d=sub/a%20b.png", "prompt": "a cat"} | data
    path.write_text(json.dumps([{"id": 4, "data": data, "annotations": list(annotations)}]))
    return list(label_studio.read(path))


@given(st.lists(st.from_type(Record), max_size=4))
def test_records_come_back_as_they_were(tmp_path_factory, everything, records):
    path = tmp_path_factory.mktemp("label_studio") / "tasks.json"
    label_studio.write(path, records)
    assert everything(label_studio.read(path)) == everything(records)


@given(
    st.from_type(Record),
    st.lists(st.tuples(st.none() | st.from_type(Diagnosis), st.text(min_size=1)), min_size=1, max_size=3),
)
def test_several_annotators_of_one_image_share_a_task(tmp_path_factory, everything, record, opinions):
    records = [
        Record(
            record.filepath,
            record.prompt,
            diagnosis,
            record.generator,
            record.split,
            annotator,
            record.metadata,
        )
        for diagnosis, annotator in opinions
    ]
    path = tmp_path_factory.mktemp("label_studio") / "tasks.json"
    assert label_studio.write(path, records) == 1
    assert everything(label_studio.read(path)) == everything(records)


def test_a_task_is_what_label_studio_imports(tmp_path):
    path = tmp_path / "tasks.json"
    label_studio.write(path, [Record("sub/a b.png", "a cat", Diagnosis((DEFECT,)), annotator="7")])
    [task] = json.loads(path.read_text())
    assert task["data"] == {
        "image": "/data/local-files/?d=sub/a%20b.png",
        "filepath": "sub/a b.png",
        "prompt": "a cat",
    }
    [annotation] = task["annotations"]
    assert annotation["completed_by"] == 7
    box = {"x": 10.0, "y": 20.0, "width": 20.5, "height": 20.0, "rotation": 0}
    assert [
        (result["id"], result["from_name"], result["type"], result["value"])
        for result in annotation["result"]
    ] == [
        ("annotation-1-defect-1", "label", "rectanglelabels", box | {"rectanglelabels": ["misalignment"]}),
        ("annotation-1-defect-1", "reason", "textarea", box | {"text": ["A dog."]}),
        ("annotation-1-defect-1", "importance", "number", box | {"number": 60}),
        ("annotation-1-defect-1", "subtype", "choices", box | {"choices": ["wrong relation"]}),
    ]


def test_the_configuration_takes_no_other_files_place(tmp_path):
    other, path = tmp_path / "annotations.xml", tmp_path / "annotations.json"
    other.write_text('<?xml version="1.0"?>\n<annotations/>')
    with pytest.raises(SdgError, match=r"annotations\.xml exists and is no labelling configuration, which"):
        label_studio.write(path, [Record("a.png", "")])
    with pytest.raises(
        SdgError, match=r"tasks\.xml would be the labelling configuration; name a \.json file"
    ):
        label_studio.write(tmp_path / "tasks.xml", [Record("a.png", "")])
    assert [file.name for file in tmp_path.iterdir()] == ["annotations.xml"]
    assert other.read_text().endswith("<annotations/>")
    other.unlink()
    for _ in range(2):
        label_studio.write(path, [Record("a.png", "")])
    assert other.read_text().startswith("<View")


@pytest.mark.parametrize(
    ("metadata", "options", "pixels"),
    [
        ({}, {}, (1000, 1000)),
        ({}, {"size": (640, 480)}, (640, 480)),
        ({}, {"images": True, "size": (640, 480)}, (30, 20)),
        ({"width": 64, "height": 32}, {"images": True, "size": (640, 480)}, (64, 32)),
        ({"width": "64", "height": 0}, {}, (1000, 1000)),
    ],
)
def test_its_own_coco_export_finds_every_box_in_pixels(tmp_path, metadata, options, pixels):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    if "images" in options:
        options = options | {"images": tmp_path}
    records = [
        Record("a.png", "a cat", found, metadata=metadata) for found in (Diagnosis((DEFECT,)), Diagnosis())
    ]
    label_studio.write(tmp_path / "tasks.json", records, **options)
    [task] = json.loads((tmp_path / "tasks.json").read_text())
    boxes = []
    for result in (result for annotation in task["annotations"] for result in annotation["result"]):
        assert result["image_rotation"] == 0
        # As that export reckons, of each region that has labels.
        if result["type"] == "rectanglelabels":
            wide, high, value = result["original_width"], result["original_height"], result["value"]
            assert (wide, high) == pixels
            sides = (value["x"] * wide, value["y"] * high, value["width"] * wide, value["height"] * high)
            boxes.append([side / 100 for side in sides])
    wide, high = pixels
    assert boxes == [
        pytest.approx([0.1 * wide, 0.2 * high, 0.205 * wide, 0.2 * high]),
        pytest.approx([0, 0, wide, high]),
    ]


def test_a_size_is_not_read_from_a_file_outside_of_the_images(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    records = [Record("../a.png", "a cat", Diagnosis())]
    with pytest.raises(SdgError, match="leaves the folder"):
        label_studio.write(tmp_path / "tasks.json", records, images=tmp_path / "images")
    assert not (tmp_path / "tasks.json").exists()


def test_every_result_names_a_control_and_a_choice_of_the_configuration(tmp_path):
    path = tmp_path / "tasks.json"
    odd = Defect((0, 0, 1, 1), "artifact", "x", 1, 'six "fingers" & <toes>')
    label_studio.write(
        path, [Record("a.png", "", Diagnosis((DEFECT, odd))), Record("b.png", "", Diagnosis())]
    )
    config = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    controls = {node.get("name"): node for node in config.iter() if node.get("toName") == "image"}
    tags = {
        "rectanglelabels": "RectangleLabels",
        "textarea": "TextArea",
        "number": "Number",
        "choices": "Choices",
    }
    variables = {node.get("value") for node in config.iter()} - {None}
    results = [
        result
        for task in json.loads(path.read_text())
        for annotation in task["annotations"]
        for result in annotation["result"]
    ]
    assert len(results) == 9
    for result in results:
        node = controls[result["from_name"]]
        assert node.tag == tags[result["type"]]
        for name in result["value"].get("rectanglelabels", []) + result["value"].get("choices", []):
            assert name in {child.get("value") for child in node}
    assert {"$image", "$prompt"} <= variables


def test_blind_tasks_show_nobody_what_is_known(tmp_path):
    path = tmp_path / "tasks.json"
    own = Defect((0, 0, 9, 9), "artifact", "A toe.", 5, "sixth finger")
    records = [
        Record(
            "a.png",
            "a cat",
            Diagnosis((DEFECT, own), "think"),
            "FLUX",
            "test",
            name,
            {"reviews": [f"missed by {name}"]},
        )
        for name in "ab"
    ]
    assert label_studio.write(path, [*records, Record("b.png", "a cow")], blind=True) == 2
    image = "/data/local-files/?d="
    assert json.loads(path.read_text()) == [
        {"data": {"image": f"{image}a.png", "filepath": "a.png", "prompt": "a cat"}, "annotations": []},
        {"data": {"image": f"{image}b.png", "filepath": "b.png", "prompt": "a cow"}, "annotations": []},
    ]
    config = (tmp_path / "tasks.xml").read_text()
    assert config == label_studio.labelling_config()
    assert "sixth finger" not in config
    assert list(label_studio.read(path)) == [Record("a.png", "a cat"), Record("b.png", "a cow")]


def test_a_placeholder_box_with_the_no_problem_tag_is_a_clean_image(tmp_path):
    for tag in ("no problem", "No-Problem", "NO_PROBLEM"):
        [record] = read(
            tmp_path, {"result": [rectangle(labels=[tag])], "completed_by": {"id": 3, "email": "a@b.c"}}
        )
        assert record == Record("sub/a b.png", "a cat", Diagnosis(), annotator="a@b.c")


def test_an_annotation_without_a_region_says_nothing(tmp_path):
    [record] = read(tmp_path, {"result": [], "completed_by": 3})
    assert (record.diagnosis, record.annotator) == (None, "3")


@pytest.mark.parametrize("said", [{"status": "repaired"}, {"repairs": ("quotes",)}])
def test_an_emptied_annotation_is_not_clean_whatever_the_answer_before_was_like(tmp_path, said):
    path = tmp_path / "tasks.json"
    label_studio.write(path, [Record("a.png", "a cat", Diagnosis((DEFECT,), **said))])
    [task] = json.loads(path.read_text())
    task["annotations"][0]["result"] = []
    path.write_text(json.dumps([task]))
    [record] = label_studio.read(path)
    assert record.diagnosis is None


def test_a_skipped_annotation_and_a_task_without_any_leave_the_image_unknown(tmp_path):
    [record] = read(tmp_path, {"result": [rectangle()], "was_cancelled": True, "completed_by": 3})
    assert record == Record("sub/a b.png", "a cat")
    assert read(tmp_path) == [record]


def test_an_export_of_two_annotators_becomes_two_records(tmp_path):
    first = {
        "result": [
            rectangle("r2", ["misalignment"]),
            control("r1", "reason", "textarea", text=["A dog."]),
            rectangle("r1"),
            control("r1", "importance", "number", number=45.0),
            control("r1", "subtype", "choices", choices=["anatomy"]),
            control("elsewhere", "comment", "textarea", text=["Not about a box."]),
        ],
        "completed_by": 3,
    }
    second = {"result": [rectangle(labels=["no problem"])], "completed_by": 4}
    one, two = read(tmp_path, first, second, generator="FLUX.2-dev", seed=5)
    boxes = {"box": (100, 200, 305, 400)}
    assert one.diagnosis.defects == (
        Defect(type="misalignment", **boxes),
        Defect(type="artifact", reason="A dog.", importance=45, **boxes),
    )
    assert one.diagnosis.defects[1].subtype == "anatomy"
    assert two.diagnosis.is_clean
    assert {(r.annotator, r.generator, r.metadata["seed"]) for r in (one, two)} == {
        ("3", "FLUX.2-dev", 5),
        ("4", "FLUX.2-dev", 5),
    }


def test_controls_of_other_names_are_known_by_their_type(tmp_path):
    result = [
        rectangle("r"),
        control("r", "why", "textarea", text=["One.", "Two."]),
        control("r", "n", "number", number=9),
    ]
    [record] = read(tmp_path, {"result": result})
    assert record.diagnosis.defects[0].reason == "One.\nTwo."
    empty = [rectangle("r"), control("r", "reason", "textarea", text=None)]
    assert read(tmp_path, {"result": empty})[0].diagnosis.defects[0].reason == ""
    assert record.diagnosis.defects[0].importance == 9


PLACE = {"x": 50, "y": 20, "width": 20.5, "height": 20}


def test_boxes_without_an_id_are_each_a_defect_with_what_is_said_at_their_place(tmp_path):
    said = [
        control(None, "reason", "textarea", text=["A dog."], **PLACE),
        control(None, "importance", "number", number=80, **PLACE),
    ]
    [record] = read(tmp_path, {"result": [rectangle(None), rectangle(None, x=50), *said]})
    one, other = record.diagnosis.defects
    assert (one.reason, one.importance) == ("", None)
    assert (other.reason, other.importance) == ("A dog.", 80)
    [record] = read(
        tmp_path, {"result": [rectangle(None), control(None, "reason", "textarea", text=["A dog."])]}
    )
    assert record.diagnosis.defects[0].reason == "A dog."


def test_regions_of_other_controls_are_let_be(tmp_path):
    others = [
        control("k", "eyes", "keypoint", x=1, y=2, width=0.4, keypointlabels=["eye"]),
        control("c", "crop", "rectangle", **PLACE),
        control("v", "outline", "vector", vertices=[{"x": 1, "y": 2}]),
    ]
    [record] = read(tmp_path, {"result": [rectangle(), *others]})
    assert [defect.type for defect in record.diagnosis.defects] == ["artifact"]


def test_relations_between_regions_are_let_be(tmp_path):
    relation = {"from_id": "r1", "to_id": "r2", "type": "relation", "direction": "right"}
    [record] = read(tmp_path, {"result": [rectangle(), relation, rectangle("r2", x=50)]})
    assert len(record.diagnosis.defects) == 2
    assert read(tmp_path, {"result": [relation]})[0].diagnosis is None
    with pytest.raises(SdgError, match="Two boxes have the id 'r1'"):
        read(tmp_path, {"result": [rectangle(), rectangle() | {"type": "relation"}]})
    with pytest.raises(SdgError, match="A result is a JSON object with a 'value'"):
        read(tmp_path, {"result": [rectangle(), relation | {"type": "pairing"}]})


def test_a_region_with_both_labels_is_one_defect_of_each_type(tmp_path):
    for labels in (["artifact", "misalignment"], ["both"]):
        [record] = read(tmp_path, {"result": [rectangle(labels=labels)]})
        assert [defect.type for defect in record.diagnosis.defects] == ["artifact", "misalignment"]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "An annotation is a JSON object with a list 'result'."),
        ([3], "A result is a JSON object with a 'value'."),
        (
            [rectangle(labels=[])],
            "Region 1: A box is labelled 'artifact', 'misalignment' or 'no problem', not [].",
        ),
        ([rectangle(labels=["blur"])], "not ['blur']."),
        ([{"id": "r", "value": {"rectanglelabels": 3}}], "The labels of a region are a list, not 3."),
        ([rectangle(), rectangle("r2", width=0)], "Region 2: A box needs a width and a height above 0"),
        ([rectangle(x=90)], "leaves the image, which is 100 by 100."),
        ([rectangle(width=10**400)], "leaves the image, which is 100 by 100."),
        ([rectangle(rotation=12)], "Region 1: The box is turned; draw it upright."),
        ([rectangle(), rectangle("r2", ["no problem"])], "It carries the tag 'no problem' beside defects"),
        ([rectangle(), control("r1", "importance", "number", number=0)], "from 1 to 100, not 0."),
        (
            [
                rectangle("r2", ["no problem"]),
                control("r", "label", "rectangle", x=1, y=1, width=9, height=9),
            ],
            "Annotation 2: A box has no label; say whether it is an artifact or a misalignment.",
        ),
        (
            [control("r", "reason", "textarea", text=["A dog."], x=1, y=1, width=9, height=9)],
            "Annotation 2: A box has no label; say whether it is an artifact or a misalignment.",
        ),
        (
            [
                rectangle(),
                control("p", "label", "polygonlabels", points=[[1, 2]], polygonlabels=["artifact"]),
            ],
            "Annotation 2: A region of type 'polygonlabels' is no box; draw a rectangle.",
        ),
        (
            [control("e", "label", "labels", x=1, y=2, radiusX=3, radiusY=4, labels=["artifact"])],
            "Annotation 2: A region of type 'labels' is no box; draw a rectangle.",
        ),
        (
            [control("b", "label", "brushlabels", format="rle", rle=[1], brushlabels=["artifact"])],
            "Annotation 2: A region of type 'brushlabels' is no box; draw a rectangle.",
        ),
        (
            [rectangle("r2", ["no problem"]), control("m", "label", "bitmask", bitmasklabels=["Artifact"])],
            "Annotation 2: A region of type 'bitmask' is no box; draw a rectangle.",
        ),
        (
            [rectangle(), control("l", "label", "polygon", points=[[1, 2]])],
            "Annotation 2: A box has no label; say whether it is an artifact or a misalignment.",
        ),
        ([rectangle(), rectangle(labels=["misalignment"])], "Two boxes have the id 'r1'; give each its own."),
        (
            [rectangle(None), rectangle(None, x=50), control(None, "reason", "textarea", text=["A dog."])],
            "Which of the boxes without an id is meant cannot be told; give each an id.",
        ),
    ],
)
def test_a_fault_names_task_annotation_and_reason(tmp_path, result, reason):
    with pytest.raises(SdgError) as error:
        read(tmp_path, {"result": [rectangle()]}, {"result": result})
    assert str(error.value).startswith(f"{tmp_path / 'export.json'}, task 4: Annotation 2: ")
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "is not a Label Studio file: it holds no list of tasks; export as JSON."),
        (
            '[{"image": "a.png", "label": []}]',
            "task 1: A task is a JSON object with 'data'; export as JSON, not as JSON-MIN. Rows that are not "
            "Label Studio's stand one a line in a .jsonl.",
        ),
        ('[{"data": {"image": "a"}, "annotations": 3}]', "task 1: 'annotations' is a list, not 3."),
        ('[{"data": {"prompt": "a"}}]', "task 1: 'image' is missing."),
    ],
)
def test_other_exports_are_refused_in_a_sentence(tmp_path, text, reason):
    path = tmp_path / "export.json"
    path.write_text(text)
    with pytest.raises(SdgError) as error:
        list(label_studio.read(path))
    assert reason in str(error.value)


def through_label_studio(path):
    """An export of the tasks of a file: of annotations, keys that the platform does not know are lost."""
    known = {"result", "completed_by", "was_cancelled", "lead_time"}
    tasks = json.loads(path.read_text())
    for number, task in enumerate(tasks, start=1):
        task["id"] = number
        for annotation in task["annotations"]:
            for key in annotation.keys() - known:
                del annotation[key]
    path.write_text(json.dumps(tasks))
    return path


@given(st.lists(st.from_type(Record), max_size=4))
def test_think_texts_come_back_from_the_platform(tmp_path_factory, everything, records):
    path = tmp_path_factory.mktemp("label_studio") / "tasks.json"
    label_studio.write(path, records)
    assert everything(label_studio.read(through_label_studio(path))) == everything(records)


def test_a_think_text_stays_with_its_annotation_whatever_others_draw_or_delete(tmp_path):
    path = tmp_path / "tasks.json"
    records = [
        Record("a.png", "a cat", Diagnosis((DEFECT,), f"{name} thinks"), annotator=name) for name in "ab"
    ]
    label_studio.write(path, records)
    [task] = json.loads(path.read_text())
    theirs = {"result": [rectangle("xYz1")], "completed_by": 9}
    path.write_text(json.dumps([{**task, "annotations": [theirs, task["annotations"][1]]}]))
    new, kept = label_studio.read(path)
    assert (new.annotator, new.diagnosis.reasoning) == ("9", "")
    assert (kept.annotator, kept.diagnosis) == ("b", records[1].diagnosis)


def test_a_faulty_annotation_goes_back_to_its_annotator_and_the_rest_is_read(tmp_path):
    half = [rectangle(), control("r1", "importance", "number", number=55.5)]
    good = {"result": [rectangle()], "completed_by": {"email": "c@d.e"}}
    path = tmp_path / "export.json"
    tasks = [
        {"id": 7, "data": {"image": "a"}, "annotations": [{"result": half, "completed_by": 3}, good]},
        {"id": 8, "data": {"image": "b"}, "annotations": [{"result": half, "completed_by": {"id": 4}}]},
        {"id": 9, "data": {"image": "c"}, "annotations": [good]},
    ]
    path.write_text(json.dumps(tasks))
    faults = []
    records = list(label_studio.read(path, faults.append))
    assert [(record.filepath, record.annotator) for record in records] == [
        ("a", "c@d.e"),
        ("b", None),
        ("c", "c@d.e"),
    ]
    assert records[1].diagnosis is None
    assert [str(fault) for fault in faults] == [
        f"{path}, task {task}: Annotation 1 by {person}: Region 1: "
        "An importance is an integer from 1 to 100, not 55.5."
        for task, person in ((7, 3), (8, 4))
    ]
    with pytest.raises(SdgError, match="task 7: Annotation 1 by 3"):
        list(label_studio.read(path))
