"""Defects gathered without objects, and the arrays made of them, against those of the objects."""

from __future__ import annotations

import numpy as np

from sdg.data.gathering import Gathering
from sdg.defects import Defect
from sdg.evaluation.columns import Columns, columns, unpacked

FIRST = (Defect((1, 2, 3, 4), "artifact", "x", 7), Defect((0, 0, 1000, 1000), "misalignment"))
SECOND = (Defect((5, 6, 700, 800), "artifact", "", 100),)


def same(one: Columns, other: Columns) -> None:
    for name in ("boxes", "kind", "image", "importance"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == "importance")
        assert getattr(one, name).dtype == getattr(other, name).dtype


def test_parts_are_one_after_the_other() -> None:
    images = [FIRST, (), SECOND, ()]
    parts = [Gathering() for _ in range(3)]
    for part, some in zip(parts, (images[:1], [], images[1:]), strict=True):
        for defects in some:
            part.add(defects)
    assert [len(part) for part in parts] == [1, 0, 3]
    same(unpacked([part.packed() for part in parts]), columns(images))
    same(unpacked([Gathering().packed()]), columns([]))


def test_an_image_taken_back_leaves_nothing() -> None:
    gathered = Gathering()
    plain = {"box_2d": [1, 2, 3, 4], "label": "artifact"}
    assert gathered.add_plain([plain, plain])
    before = unpacked([gathered.packed()])
    assert gathered.add_plain([plain])
    assert not gathered.add_plain([plain, plain | {"label": "both"}])
    gathered.drop()
    same(unpacked([gathered.packed()]), before)
    gathered.drop()
    assert len(gathered) == 0
    assert len(unpacked([gathered.packed()]).boxes) == 0
