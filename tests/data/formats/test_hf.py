import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdg.data.formats import hf
from sdg.defects import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.records import NAMES, Record

CLEAN = Record("test_run/a.png", "a cat", Diagnosis(), split="test")
DEFECTIVE = Record(
    "train/test.PNG",
    "a dog",
    Diagnosis((Defect((0, 0, 9, 9), "artifact", "A sixth finger.", 45, "anatomy"),), "thoughts"),
    generator="FLUX.2-dev",
    split="train",
    metadata={"seed": 3},
)
UNKNOWN = Record("new.png", "2020-01-01")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for index, record in enumerate((CLEAN, DEFECTIVE, UNKNOWN)):
        path = folder / record.filepath
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (index, 0, 0)).save(path)
    return folder


placed = st.builds(
    lambda record, path, split: replace(record, filepath=path, split=split),
    st.from_type(Record),
    st.sampled_from([record.filepath for record in (CLEAN, DEFECTIVE, UNKNOWN)]),
    st.none() | st.sampled_from(hf.SPLITS),
)


@settings(max_examples=50)
@given(st.lists(placed, min_size=1, max_size=4))
def test_records_come_back_as_they_were_split_by_split(tmp_path_factory, everything, images, records):
    folder = tmp_path_factory.mktemp("hf") / "dataset"
    assert hf.write(folder, records, images=images) == len(records)
    in_order = sorted(records, key=lambda record: hf.SPLITS.index(record.split or "train"))
    assert everything(hf.read(folder)) == everything(in_order)


def test_images_are_numbered_in_their_split_and_go_back_to_where_they_were(tmp_path, images):
    folder = tmp_path / "dataset"
    hf.write(folder, [CLEAN, DEFECTIVE, UNKNOWN], images=images)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "test/00000001.png",
        "test/metadata.jsonl",
        "train/00000002.png",
        "train/00000003.png",
        "train/metadata.jsonl",
    ]
    assert hf.restore_images(folder, tmp_path / "back") == 3
    assert hf.restore_images(folder, tmp_path / "back") == 3  # what is there already may stay
    for record in (CLEAN, DEFECTIVE, UNKNOWN):
        assert (tmp_path / "back" / record.filepath).read_bytes() == (images / record.filepath).read_bytes()


@pytest.mark.slow
def test_datasets_loads_each_split_with_its_images(tmp_path, images, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "test-data"  # a name that must not be taken for a split
    hf.write(folder, [CLEAN, DEFECTIVE, UNKNOWN], images=images)
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 2, "test": 1}
    [clean] = loaded["test"]
    defective, unknown = loaded["train"]
    assert [row["image"].getpixel((0, 0))[0] for row in (clean, defective, unknown)] == [0, 1, 2]
    assert (clean["filepath"], clean["prompt"], clean["defects"]) == ("test_run/a.png", "a cat", "[]")
    assert (defective["generator"], defective["reasoning"]) == ("FLUX.2-dev", "thoughts")
    assert json.loads(defective["defects"])[0]["box"] == [0, 0, 9, 9]
    assert json.loads(unknown["defects"]) is None


def test_a_folder_of_somebody_else_gives_its_prompts(tmp_path, images):
    row = {"file_name": "a.png", "text": "a cat", "score": 0.5, "generator": "SANA"}
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metadata.jsonl").write_text(json.dumps(row))
    assert list(hf.read(tmp_path)) == [
        Record("train/a.png", "a cat", generator="SANA", metadata={"score": 0.5})
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (replace(CLEAN, split="pool"), "is in the split 'pool'; imagefolder has"),
        (replace(CLEAN, filepath="none.png"), "none.png does not exist; check the folder of the images."),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, images, record, reason):
    with pytest.raises(SdgError, match=reason):
        hf.write(tmp_path / "dataset", [DEFECTIVE, record], images=images)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_not_written_into(tmp_path, images):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SdgError, match=r"exists already; name a folder that is new or empty\.$"):
        hf.write(tmp_path, [CLEAN], images=images)
    (tmp_path / "notes.txt").unlink()
    assert hf.write(tmp_path, [CLEAN], images=images) == 1


def test_no_records_are_no_dataset(tmp_path, images):
    with pytest.raises(SdgError, match="no records"):
        hf.write(tmp_path / "dataset", [], images=images)


@pytest.mark.parametrize("name", ["file_name", "filepath"])
@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd"])
def test_restoring_never_leaves_the_two_folders(tmp_path, images, name, path):
    folder = tmp_path / "dataset"
    hf.write(folder, [CLEAN], images=images)
    metadata = folder / "test" / "metadata.jsonl"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {name: path}))
    with pytest.raises(SdgError, match="leaves the folder"):
        hf.restore_images(folder, tmp_path / "back")


def test_another_image_in_the_way_is_not_replaced(tmp_path, images):
    folder = tmp_path / "dataset"
    hf.write(folder, [UNKNOWN], images=images)
    (tmp_path / "new.png").write_bytes(b"precious")
    with pytest.raises(SdgError, match=r"new\.png exists already"):
        hf.restore_images(folder, tmp_path)
    assert (tmp_path / "new.png").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"defects": "[}"}, "'defects' is not JSON."),
        ({"defects": '[{"box": [0, 0, 0, 0], "type": "artifact"}]'}, "Defect 1: A box needs"),
        ({"metadata": "[]"}, "'metadata' is a JSON object, not []."),
        ({"repairs": "{}"}, "Repairs are a list of names, not {}."),
        ({"status": 1}, "'status' is text, not 1."),
    ],
)
def test_a_fault_names_file_line_and_reason(tmp_path, images, changes, reason):
    folder = tmp_path / "dataset"
    hf.write(folder, [CLEAN], images=images)
    metadata = folder / "test" / "metadata.jsonl"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | changes))
    with pytest.raises(SdgError) as error:
        list(hf.read(folder))
    assert str(error.value).startswith(f"{metadata}, line 1: {reason}")


def test_a_folder_without_metadata_is_one_sentence(tmp_path):
    with pytest.raises(
        SdgError, match=r"holds no metadata.jsonl, neither itself nor in train, validation or"
    ):
        list(hf.read(tmp_path))
    with pytest.raises(SdgError, match="is not a folder"):
        list(hf.read(tmp_path / "none"))


def test_the_names_a_record_has_are_columns(tmp_path, images):
    hf.write(tmp_path / "dataset", [CLEAN], images=images)
    row = json.loads((tmp_path / "dataset" / "test" / "metadata.jsonl").read_text())
    assert all(isinstance(value, str) for value in row.values())
    assert set(NAMES) <= row.keys()
