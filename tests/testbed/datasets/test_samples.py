"""Folders of generated pictures: what was asked for is written beside them, and a stop loses one batch."""

import pytest
from PIL import Image

from sdg.data.formats import read_records
from sdg.errors import SdgError
from sdg.testbed.datasets.samples import BATCH, check_prompts, draw_folder
from sdg.testbed.models.generator import sampling

PROMPTS = [f"{number} red rings" for number in ("Two", "Three", "Four")] * 7  # more than one batch


@pytest.fixture
def asked(monkeypatch):
    """Numbers of the pictures that the generator was asked for."""
    numbers_asked = []

    def sample_pictures(pipeline, prompts, *, steps, seed, numbers):
        numbers_asked.extend(numbers)
        return [Image.new("RGB", (4, 4), (number, steps, seed)) for number in numbers]

    monkeypatch.setattr(sampling, "sample_pictures", sample_pictures)
    return numbers_asked


def test_pictures_and_what_was_asked_for_lie_in_the_folder(tmp_path, asked):
    told = []
    assert draw_folder(None, PROMPTS, tmp_path, steps=3, seed=9, on_progress=told.append) == len(PROMPTS)
    assert told == [BATCH, len(PROMPTS)]
    records = list(read_records(tmp_path / "pictures.jsonl"))
    assert [record.prompt for record in records] == PROMPTS
    for number, record in enumerate(records):
        assert record.generator == "testbed-3"
        with Image.open(tmp_path / record.filepath) as picture:
            assert picture.getpixel((0, 0)) == (number, 3, 9)


def test_resumed_it_draws_only_the_batches_that_are_missing(tmp_path, asked):
    draw_folder(None, PROMPTS, tmp_path, steps=3, seed=9)
    (tmp_path / "000018.png").unlink()
    asked.clear()
    draw_folder(None, PROMPTS, tmp_path, steps=3, seed=9, resume=True)
    assert asked == list(range(BATCH, len(PROMPTS)))
    assert (tmp_path / "000018.png").exists()


def test_out_of_time_it_returns_how_far_it_came(tmp_path, asked):
    assert draw_folder(None, PROMPTS, tmp_path, steps=3, seed=9, max_minutes=0) == 0
    assert not asked
    assert draw_folder(None, PROMPTS, tmp_path, steps=3, seed=9, resume=True) == len(PROMPTS)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, asked):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(SdgError, match=r"has no settings\.json"):
        draw_folder(None, PROMPTS, tmp_path, steps=3, seed=9)
    with pytest.raises(SdgError, match=r"has no settings\.json"):
        draw_folder(None, PROMPTS, tmp_path, steps=3, seed=9, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert not asked


def test_pictures_of_another_seed_are_not_mixed_in(tmp_path, asked):
    draw_folder(None, PROMPTS, tmp_path, steps=3, seed=9)
    with pytest.raises(SdgError, match="exists already; go on with --resume"):
        draw_folder(None, PROMPTS, tmp_path, steps=3, seed=9)
    with pytest.raises(SdgError, match="seed was 9 and is 8 now"):
        draw_folder(None, PROMPTS, tmp_path, steps=3, seed=8, resume=True)
    with pytest.raises(SdgError, match='lora was null and is "12ab" now'):
        draw_folder(None, PROMPTS, tmp_path, steps=3, seed=9, weights={"lora": "12ab"}, resume=True)


def test_prompts_of_another_world_are_a_sentence():
    check_prompts(["Two blue stars on a white background"])
    with pytest.raises(SdgError, match=r"cannot read the prompt 'A ballerina'.*Say it as in"):
        check_prompts(["Two blue stars", "A ballerina"])
