"""Rows of the base model: the same ids as the chat template and the processor, one token a word."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from sdg.response import parse_response
from sdg.testbed.injection import sample
from sdg.testbed.models.detector.build import new_processor
from sdg.testbed.models.detector.rows import (
    IGNORED,
    JITTER,
    REQUEST,
    Encoder,
    Lessons,
    base_tokenizer,
    caption,
    embedded_profile,
    number_tokens,
)
from sdg.testbed.world.prompts import parse_prompt
from sdg.training.dataset import target


@pytest.fixture(scope="module")
def tokenizer():
    return base_tokenizer()


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(8)
    return [sample(rng, split="train") for _ in range(40)]


def test_ids_are_those_of_the_processor(tokenizer, samples):
    processor = new_processor(tokenizer)
    for one in samples[:8]:
        said = target(one.diagnosis, embedded_profile().answer)
        ids, labels, _ = Encoder(tokenizer).row(one.prompt, said, said)
        messages = [
            *embedded_profile().render(one.prompt),
            {"role": "assistant", "content": said},
        ]
        text = processor.apply_chat_template(messages, tokenize=False).removesuffix("\n")
        theirs = processor(images=[Image.fromarray(one.picture)], text=[text])["input_ids"][0]
        assert ids == list(theirs)
        learned = [label for label in labels if label != IGNORED]
        assert tokenizer.decode(learned) == said + "<|im_end|>"


def test_a_target_has_a_token_a_word_and_about_a_hundred_of_them(tokenizer, samples):
    lengths = []
    for one in samples:
        for said in (target(one.diagnosis, embedded_profile().answer), caption(one)):
            ids = tokenizer(said, add_special_tokens=False)["input_ids"]
            pieces = [tokenizer.decode([token]) for token in ids]
            assert not [
                piece for piece in pieces if re.fullmatch(r" ?[A-Za-z]", piece) and piece.strip() not in "aA"
            ]
        lengths.append(len(tokenizer(target(one.diagnosis, embedded_profile().answer))["input_ids"]))
    assert max(lengths) <= 250
    assert 70 < np.mean(lengths) < 140


def test_coordinates_are_the_numbers_of_the_boxes_in_order(tokenizer, samples):
    for one in samples:
        said = target(one.diagnosis, embedded_profile().answer)
        _, labels, coordinate = Encoder(tokenizer).row(one.prompt, said, said)
        assert [value for value in coordinate if value >= 0] == [
            value for defect in one.diagnosis.defects for value in defect.box
        ]
        numbers = number_tokens(tokenizer)
        for label, value in zip(labels, coordinate, strict=True):
            assert value < 0 or label == numbers[value]


def test_a_caption_lists_objects_from_left_to_right_and_then_artifacts(samples):
    one = next(s for s in samples if len(s.objects) > 1 and s.diagnosis.defects)
    lines = re.findall(r'\[(\d+), (\d+), (\d+), (\d+)\], "label": "([^"]+)"', caption(one))
    names = [line[4] for line in lines]
    expected = sorted(one.objects, key=lambda o: o.box[0] + o.box[2])
    assert names[: len(expected)] == [f"{o.colour} {o.shape}" for o in expected]
    assert names[len(expected) :] == [d.subtype for d in one.diagnosis.defects if d.type.value == "artifact"]
    for line, thing in zip(lines, expected, strict=False):
        assert np.abs(np.array(line[:4], int) * 0.128 - thing.box).max() < 1


def test_the_request_for_a_caption_is_no_prompt_of_the_world():
    with pytest.raises(ValueError, match="names no coloured shape"):
        parse_prompt(REQUEST)


def test_a_batch_is_drawn_from_its_number_alone_and_captions_grow_rare(tokenizer):
    lessons = Lessons(tokenizer, None, 10, 10, 3)

    def captions(batch):
        texts = [tokenizer.decode(ids) for rows in batch["rows"] for ids in rows.ids]
        return sum(REQUEST in text for text in texts)

    first, again, last = lessons[0], lessons[0], lessons[9]
    for one, other in zip(first["rows"], again["rows"], strict=True):
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.labels, other.labels)
    assert torch.equal(first["pictures"], again["pictures"])
    assert (captions(first), captions(last)) == (5, 1)
    shown = sorted(int(index) for rows in first["rows"] for index in rows.pictures)
    assert shown == list(range(10))
    widths = [rows.ids.shape[1] for rows in first["rows"]]
    assert widths == sorted(widths)


def test_inputs_are_jittered_and_labels_are_not(tokenizer):
    moved = 0
    for rows in Lessons(tokenizer, None, 12, 10, 0)[9]["rows"]:
        for ids, labels in zip(rows.ids, rows.labels, strict=True):
            learned = labels != IGNORED
            said, meant = (
                parse_response(tokenizer.decode(part[learned]).removesuffix("<|im_end|>"))
                for part in (ids, labels)
            )
            for one, other in zip(said.defects, meant.defects, strict=True):
                off = np.abs(np.subtract(one.box, other.box))
                assert off.max() <= JITTER
                moved += int(off.any())
    assert moved > 3
