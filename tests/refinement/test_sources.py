"""Stored heat maps go to the pictures they belong to; drawn ones tell the two types apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdg import Defect, Diagnosis
from sdg.alignment.reward_map import drawn_heat
from sdg.errors import SdgError
from sdg.refinement.sources import StoredHeat
from sdg.runs.inputs import Item

PICTURE = Image.new("RGB", (32, 16))


def test_maps_are_read_for_the_item_they_belong_to(tmp_path: Path) -> None:
    for kind, level in (("artifact", 0.75), ("misalignment", 0.25)):
        (tmp_path / kind).mkdir()
        np.save(tmp_path / kind / "a.npy", np.full((2, 3), level))
    one, other = (Item(name, "a cup", Path("images", name)) for name in ("a.png", "b.png"))
    source = StoredHeat(tmp_path, [one, other])
    artifact, misalignment = source.of(one)(PICTURE, "a cup", Diagnosis())
    assert (artifact == 0.75).all()
    assert (misalignment == 0.25).all()
    with pytest.raises(SdgError, match=r"holds no artifact map for images.b\.png"):
        source.of(other)(PICTURE, "a cup", Diagnosis())
    with pytest.raises(SdgError, match="nowhere is no folder"):
        StoredHeat("nowhere", [one])


def test_a_map_that_may_be_of_two_pictures_is_of_none(tmp_path: Path) -> None:
    for kind in ("artifact", "misalignment"):
        np.save(tmp_path / f"a.{kind}.npy", np.zeros((2, 3)))
    one, other = (Item(f"{folder}/a.png", "a cup", Path(folder, "a.png")) for folder in "xy")
    with pytest.raises(SdgError, match="more than one of these images"):
        StoredHeat(tmp_path, [one, other]).of(one)(PICTURE, "a cup", Diagnosis())


def test_detections_are_drawn_on_the_map_of_their_type() -> None:
    found = (Defect((0, 0, 500, 1000), "artifact", "", 80), Defect((0, 0, 1000, 500), "misalignment", "", 30))
    artifact, misalignment = drawn_heat(PICTURE, "a cup", Diagnosis(found))
    assert artifact == pytest.approx(np.array([[0.8, 0.8, 0, 0]] * 2))
    assert misalignment == pytest.approx(np.array([[0.3] * 4, [0] * 4]))
