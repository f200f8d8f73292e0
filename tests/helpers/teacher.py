"""A teacher on 127.0.0.1 that knows what is right, and answers well or in one of many bad ways."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bad_server import Reply, Server, completion, error
from PIL import Image

from sdg import Defect, Diagnosis, render_response
from sdg.records import Record

PICTURES = 12


def right(index: int) -> Diagnosis:
    """What there is to say about picture `index`: every third is clean, others have one or two defects."""
    steps = "Step 1: The caption asks for a cat on a red chair.\nStep 2: "
    if index % 3 == 0:
        return Diagnosis((), f"{steps}A cat sits on a red chair, and everything fits.\nStep 3: No box.")
    defects = [
        Defect(
            (100 + index, 200, 400, 500 + index),
            "artifact",
            "The left front paw of the cat is melted into the seat of the chair, so that its toes cannot be "
            f"told apart from the cloth around them in view {'abcdefghijkl'[index]}.",
            30 + index,
        ),
        Defect(
            (600, 610, 900, 950),
            "misalignment",
            "The chair under the cat is painted in a plain green, while the caption asks for a red one, and "
            "nothing else in the picture is red.",
            70,
        ),
    ]
    lines = ["Box 1 (artifact): the left paw, small", "Box 2 (misalignment): the chair, large"]
    kept = index % 3
    text = f"{steps}A cat on a chair; the paw is melted, and the chair may be green.\nStep 3:\n"
    return Diagnosis(tuple(defects[:kept]), text + "\n".join(lines[:kept]))


RIGHT = [right(index) for index in range(PICTURES)]


Behaviour = Callable[[Diagnosis, int], Reply]
"""From what is right and how often it was asked, counted from 1, to what the server does."""


def said(diagnosis: Diagnosis, finish: str = "stop") -> Reply:
    return completion(render_response(diagnosis), finish)


def well(right: Diagnosis, attempt: int) -> Reply:
    return said(right)


def drops_a_box(right: Diagnosis, attempt: int) -> Reply:
    return said(replace(right, defects=right.defects[1:]))


def moves_a_box(right: Diagnosis, attempt: int) -> Reply:
    x0, y0, x1, y1 = right.defects[-1].box
    moved = (x0 - 1, y0, x1, y1) if x0 else (x0, y0, x1 - 1, y1)
    return said(replace(right, defects=(*right.defects[:-1], replace(right.defects[-1], box=moved))))


def changes_a_label(right: Diagnosis, attempt: int) -> Reply:
    first, *rest = right.defects
    other = "misalignment" if first.type == "artifact" else "artifact"
    return said(replace(right, defects=(Defect(first.box, other, first.reason, first.importance), *rest)))


def names_coordinates(right: Diagnosis, attempt: int) -> Reply:
    return said(replace(right, reasoning=f"{right.reasoning} Its box is {list(right.defects[-1].box)}."))


def names_the_annotation(right: Diagnosis, attempt: int) -> Reply:
    return said(replace(right, reasoning=f"{right.reasoning} This agrees with the annotation."))


def writes_german(right: Diagnosis, attempt: int) -> Reply:
    german = (
        "Der Umriss der Form unten rechts ist an mehreren Stellen ausgefranst, und daneben liegt noch "
        "ein kleines Stück, das dort nicht hingehört."
    )
    return said(replace(right, defects=tuple(replace(defect, reason=german) for defect in right.defects)))


def is_cut_off(right: Diagnosis, attempt: int) -> Reply:
    text = render_response(right)
    return completion(text[: len(text) * 3 // 4], "length")


def is_brief(right: Diagnosis, attempt: int) -> Reply:
    return said(replace(right, defects=tuple(replace(defect, reason="Broken.") for defect in right.defects)))


def contradicts_its_tier(right: Diagnosis, attempt: int) -> Reply:
    text = render_response(right)
    return completion(re.sub(r'("importance": \d+)', r'\1, "tier": "impossible"', text))


def refuses(right: Diagnosis, attempt: int) -> Reply:
    return completion("I cannot help with that.")


BAD: Mapping[str, Behaviour] = {
    one.__name__: one
    for one in (
        drops_a_box,
        moves_a_box,
        changes_a_label,
        names_coordinates,
        names_the_annotation,
        writes_german,
        is_cut_off,
        is_brief,
        contradicts_its_tier,
        refuses,
    )
}
"""Whatever the attempt, an answer that must not be accepted of a picture with a defect."""


def breaks_down(right: Diagnosis, attempt: int) -> Reply:
    return error(500)


def is_slow(right: Diagnosis, attempt: int) -> Reply:
    return replace(well(right, attempt), delay=0.3)


def first(behaviour: Behaviour) -> Behaviour:
    """Behaves so at the first attempt, and well from then on."""
    return lambda right, attempt: (behaviour if attempt == 1 else well)(right, attempt)


def teacher(rights: Sequence[Diagnosis], behaviours: Callable[[int], Behaviour]) -> Server:
    """A server that knows picture number i, see `tag`, and treats it as `behaviours(i)` says."""
    return Server(lambda index, attempt: behaviours(index)(rights[index], attempt))


def tag(file: Path, index: int) -> None:
    """Make a picture's first pixel say its number, by which the server knows it."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    picture.putpixel((0, 0), (index, 7, 9))
    picture.save(file)


def shortened(record: Record) -> Record:
    """A record as annotators leave it: boxes, labels and a few words; no importance, no trace."""
    assert record.diagnosis is not None
    defects = tuple(
        Defect(defect.box, defect.type, " ".join(defect.reason.split()[:4]), subtype=defect.subtype)
        for defect in record.diagnosis.defects
    )
    return replace(record, diagnosis=Diagnosis(defects))


def question(body: Mapping[str, object]) -> str:
    """The text of a request."""
    return json.dumps(body["messages"], ensure_ascii=False)
