"""What an app offers: pictures by their address and no others, and what is known of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from app_models import FOUND
from PIL import Image

from sdg.app.offer import Example, Offer, examples_of, known_truth, usual_editors
from sdg.data.formats.sdg30k import write_annotations
from sdg.defects import Diagnosis
from sdg.errors import SdgError
from sdg.records import Record
from sdg.runs.inputs import gather


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("a b.png", "other.png"):
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    return tmp_path


def test_a_picture_of_the_app_is_opened_by_its_address(pictures: Path) -> None:
    file = pictures / "a b.png"
    offer = Offer(examples=(Example("a", "a cat", file), Example("m", "", Image.new("RGB", (9, 9)))))
    assert offer.located(file.as_uri()) == file
    assert offer.located(f" {file} ") == file
    (pictures / "link.png").symlink_to(file)
    assert offer.located(str(pictures / "link.png")) == file


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://example.org/a.png", "not on this machine"),
        ("file://elsewhere/a.png", "not on this machine"),
        ("ftp://localhost/a.png", "not on this machine"),
        ("/etc/passwd", "none of the pictures"),
        ("file:///etc/passwd", "none of the pictures"),
        ("other.png", "none of the pictures"),
        ("", "none of the pictures"),
        ("\0", "none of the pictures"),
        ("http://[", "none of the pictures"),
    ],
)
def test_any_other_address_is_refused(pictures: Path, address: str, reason: str) -> None:
    with pytest.raises(SdgError, match=reason):
        Offer(examples=(Example("a", "a cat", pictures / "a b.png"),)).located(address)


def test_the_sentence_about_other_worlds_stands_where_the_embedded_detector_does() -> None:
    assert "other worlds" in Offer(("hf:a/b", "testbed?looks=8")).note
    assert Offer(("hf:testbed/testbed",)).note == ""
    assert usual_editors(("testbed",)) == ("testbed",)
    assert usual_editors(("openai:http://testbed#a",)) == ()


def test_annotations_bring_their_truth(pictures: Path) -> None:
    file = pictures / "truth.jsonl"
    records = [Record("a b.png", "a cat", Diagnosis(FOUND)), Record("other.png", "a dog", None)]
    write_annotations(file, records)
    examples = examples_of(gather([file]), known_truth([file, pictures]))
    assert [(one.name, one.prompt) for one in examples] == [("a b.png", "a cat"), ("other.png", "a dog")]
    assert [one.truth for one in examples] == [Diagnosis(FOUND), None]


def test_two_pictures_of_one_name_have_each_its_own_truth(pictures: Path) -> None:
    files = [pictures / name / "truth.jsonl" for name in "ab"]
    for file, found in zip(files, (FOUND, ()), strict=True):
        write_annotations(file, [Record("0.png", "a cat", Diagnosis(found))])
    examples = examples_of(gather(files), known_truth(files))
    assert [one.truth for one in examples] == [Diagnosis(FOUND), Diagnosis()]
    elsewhere = gather(files[:1], images=pictures)
    assert examples_of(elsewhere, known_truth(files[:1], pictures))[0].truth == Diagnosis(FOUND)


def test_a_list_of_pictures_and_prompts_brings_no_truth(pictures: Path) -> None:
    file = pictures / "list.jsonl"
    file.write_text('{"filepath": "a b.png", "caption": "a cat"}')
    (example,) = examples_of(gather([file]), known_truth([file]))
    assert (example.prompt, example.truth) == ("a cat", None)
