"""Data sets of injected pictures: layout, the same bytes always, interruptions, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdg.data.formats.sdg30k import read_annotations
from sdg.errors import SdgError
from sdg.response import parse_response
from sdg.testbed.datasets import injected as dataset
from sdg.testbed.datasets.injected import InjectedSettings, draw, generate
from sdg.testbed.world.prompts import parse_prompt, split_of


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every file."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    return folder, generate(folder, 250, seed=5, size=96)


def test_it_holds_images_settings_and_one_annotation_file_a_split(written):
    folder, counts = written
    assert {path.name for path in folder.iterdir()} == {
        "images",
        "settings.json",
        "train.jsonl",
        "validation.jsonl",
        "test.jsonl",
    }
    assert sum(counts.values()) == 250
    assert counts["train"] > 3 * counts["test"] > 0
    for split, count in counts.items():
        assert len((folder / f"{split}.jsonl").read_bytes().splitlines()) == count


def test_records_say_what_was_drawn(written):
    folder, counts = written
    seen = set()
    for split in counts:
        for record in read_annotations(folder / f"{split}.jsonl"):
            number = int(Path(record.filepath).stem)
            drawn = draw(InjectedSettings(250, 5, "core", 96), number)
            seen.add(number)
            assert record.prompt == drawn.prompt
            assert record.diagnosis == drawn.diagnosis
            for kept, meant in zip(record.diagnosis.defects, drawn.diagnosis.defects, strict=True):
                assert kept.subtype == meant.subtype
            assert record.generator == "injected"
            assert record.split == split
            with Image.open(folder / record.filepath) as image:
                np.testing.assert_array_equal(np.asarray(image), drawn.picture)
    assert seen == set(range(250))


def test_each_line_has_the_released_keys_and_a_target_that_says_the_same(written):
    folder, _ = written
    for line in (folder / "train.jsonl").read_text("utf-8").splitlines():
        value = json.loads(line)
        assert {"filepath", "caption", "ann_translated_bboxes", "ann_response"} <= value.keys()
        target = parse_response(value["ann_response"])
        assert [list(defect.box) for defect in target.defects] == [
            item["box_2d"] for item in value["ann_translated_bboxes"]
        ]


def test_splits_share_no_prompt(written):
    folder, counts = written
    keys = {}
    for split in counts:
        for record in read_annotations(folder / f"{split}.jsonl"):
            request = parse_prompt(record.prompt)
            assert split_of(request) == split
            assert keys.setdefault(request.key, split) == split


def test_the_bytes_do_not_depend_on_the_number_of_workers(written, tmp_path):
    folder, counts = written
    assert generate(tmp_path / "again", 250, seed=5, size=96, workers=2) == counts
    assert contents(tmp_path / "again") == contents(folder)


def test_another_seed_gives_other_pictures(written, tmp_path):
    folder, _ = written
    generate(tmp_path / "other", 10, seed=6, size=96)
    assert contents(tmp_path / "other")["images/000000.png"] != contents(folder)["images/000000.png"]


def test_an_interrupted_call_is_taken_up_where_it_stopped(written, tmp_path, monkeypatch):
    folder, _ = written
    out = tmp_path / "shapes"
    drawn = []

    def counting(settings, number):
        if number == 130 and not interrupted:
            interrupted.append(number)
            raise KeyboardInterrupt
        drawn.append(number)
        return draw(settings, number)

    interrupted: list[int] = []
    monkeypatch.setattr(dataset, "draw", counting)
    with pytest.raises(KeyboardInterrupt):
        generate(out, 250, seed=5, size=96)
    assert not out.exists()
    drawn.clear()
    told = []
    generate(out, 250, seed=5, size=96, on_progress=told.append)
    assert drawn == list(range(100, 250))  # the first hundred were complete
    assert told == [100, 200, 250]
    assert contents(out) == contents(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_an_unfinished_data_set_of_other_settings_is_not_mixed_in(tmp_path, monkeypatch):
    def failing(settings, number):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(dataset, "draw", failing)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path / "out", 3, seed=1)
    with pytest.raises(SdgError, match="was begun with other settings"):
        generate(tmp_path / "out", 3, seed=2)


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(SdgError, match="is not empty"):
        generate(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(SdgError, match="is a file"):
        generate(tmp_path / "mine.txt", 3)


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    generate(tmp_path / "empty", 3)
    assert len(list((tmp_path / "empty" / "images").iterdir())) == 3


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SdgError, match="cannot be written: Not a directory"):
        generate(tmp_path / "file" / "out", 3)


@pytest.mark.parametrize(("count", "workers"), [(0, 1), (3, 0)])
def test_nothing_to_draw_or_nobody_to_draw_it_is_misuse(tmp_path, count, workers):
    with pytest.raises(ValueError, match="at least one"):
        generate(tmp_path / "out", count, workers=workers)
