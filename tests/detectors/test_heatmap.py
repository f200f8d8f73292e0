"""Heat maps to boxes, against a flood fill written here; files that are no heat maps; finding the files."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import sdg
from sdg import DefectType
from sdg.detectors.heatmap import HeatFolder, HeatmapDetector, heat_defects, read_heat
from sdg.errors import SdgError

ART, MIS = DefectType.ARTIFACT, DefectType.MISALIGNMENT


def flood(heat: np.ndarray, threshold: float) -> list[set[tuple[int, int]]]:
    """Regions of pixels above the threshold, corners touching, by a plain flood fill."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(heat > threshold), strict=True)}
    regions = []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += near
        regions.append(region)
    return regions


LEVELS = st.sampled_from([0.0, 0.05, 0.1, 0.33, 0.4, 0.75, 1.0])
MAPS = arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=LEVELS.map(lambda v: float(np.float32(v))),
)


@given(MAPS, st.sampled_from([0.1, 0.33]))
def test_boxes_are_those_of_a_flood_fill(heat: np.ndarray, threshold: float) -> None:
    height, width = heat.shape
    expected = []
    for region in flood(heat, threshold):
        ys, xs = [y for y, _ in region], [x for _, x in region]
        box = (
            math.floor(min(xs) * 1000 / width),
            math.floor(min(ys) * 1000 / height),
            math.ceil((max(xs) + 1) * 1000 / width),
            math.ceil((max(ys) + 1) * 1000 / height),
        )
        mean = 100 * sum(float(heat[pixel]) for pixel in region) / len(region)
        expected.append((box, mean))
    found = heat_defects(heat, ART, threshold, min_area=0)
    assert sorted(d.box for d in found) == sorted(box for box, _ in expected)
    for defect in found:
        means = [mean for box, mean in expected if box == defect.box]
        assert any(abs((defect.importance or 0) - max(1, mean)) <= 0.5 + 1e-6 for mean in means)
    assert [d.importance for d in found] == sorted((d.importance for d in found), reverse=True)


@given(MAPS, st.sampled_from([0.1, 0.33]), st.floats(0, 0.9))
def test_there_is_a_defect_exactly_where_the_maximum_exceeds_the_threshold(
    heat: np.ndarray, threshold: float, min_area: float
) -> None:
    found = heat_defects(heat, MIS, threshold, min_area)
    assert bool(found) == bool(heat.max() > threshold)
    assert all(defect.type is MIS and defect.reason == "" for defect in found)


def test_a_worked_map() -> None:
    heat = np.zeros((4, 8), np.float32)
    heat[1:3, 2:4] = 0.5
    heat[0, 7] = 0.9
    speck, blob = heat_defects(heat, ART, 0.33, min_area=0)
    assert (speck.box, speck.importance) == ((875, 0, 1000, 250), 90)
    assert (blob.box, blob.importance) == ((250, 250, 500, 750), 50)
    heat[0, 7] = 0.4
    assert [d.box for d in heat_defects(heat, ART, 0.33, min_area=0.05)] == [blob.box]


def put(folder: Path, name: str, values: np.ndarray) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


BLOB = np.zeros((10, 10), np.float32)
BLOB[2:5, 3:9] = 0.8
NONE = np.zeros((10, 10), np.float32)


def test_both_maps_make_one_diagnosis_that_can_be_stored(tmp_path: Path) -> None:
    put(tmp_path, "artifact/a.npy", BLOB)
    put(tmp_path, "misalignment/a.png", (255 * NONE).astype(np.uint8))
    (found,) = sdg.load_detector(f"heatmap:{tmp_path}").diagnose([("images/a.jpg", "?")])
    assert [(d.box, d.type, d.importance) for d in found.defects] == [((300, 200, 900, 500), ART, 80)]
    assert found.status == "ok"
    assert sdg.parse_response(found.raw) == found


@pytest.mark.parametrize(
    ("art", "mis"),
    [
        ("artifact/x/a.npy", "misalignment/x/a.npy"),
        ("x/a.artifact.npy", "x/a.misalignment.npy"),
        ("a_artifact.npy", "a_misalignment.npy"),
    ],
)
def test_maps_are_found_under_as_much_of_the_path_as_is_kept(tmp_path: Path, art: str, mis: str) -> None:
    put(tmp_path, art, BLOB)
    put(tmp_path, mis, NONE)
    for path in ("/data/x/a.png", "x/a.png", "../data/x/a.webp"):
        (found,) = HeatmapDetector(tmp_path).diagnose([(path, "?")])
        assert len(found.defects) == 1


def test_maps_that_may_be_of_two_images_are_of_none(tmp_path: Path) -> None:
    put(tmp_path, "artifact/a.npy", BLOB)
    put(tmp_path, "misalignment/a.npy", NONE)
    two = dict(HeatmapDetector(tmp_path).stream([("x/a.png", "?"), ("y/a.png", "?"), ("x/a.png", "!")]))
    assert {outcome.status.value for outcome in two.values()} == {"failed"}
    assert "more than one of these images" in two[0].error


def test_a_missing_map_is_a_failure_and_never_clean(tmp_path: Path) -> None:
    put(tmp_path, "artifact/a.npy", NONE)
    ((_, outcome),) = HeatmapDetector(tmp_path).stream([("a.png", "?")])
    assert outcome.status == "failed"
    assert outcome.error == f"{tmp_path} holds no misalignment map for a.png."
    ((_, memory),) = HeatmapDetector(tmp_path).stream([(Image.new("RGB", (4, 4)), "?")])
    assert memory.status == "failed"


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 51], [102, 255]], np.uint8),
        np.array([[0, 13107], [26214, 65535]], np.uint16),
        np.array([[0, 13107], [26214, 65535]], ">u2"),
        np.array([[0, 0.2], [0.4, 1]], np.float32),
        np.array([[[0, 0.2], [0.4, 1]]], np.float64),
        np.array([[0, 0.2], [0.4, 1]], np.float16),
    ],
)
def test_every_depth_is_scaled_to_one(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "m.npy", values)
    assert read_heat(tmp_path / "m.npy") == pytest.approx(np.array([[0, 0.2], [0.4, 1]]), abs=1e-3)
    if values.dtype.kind == "u" and values.dtype.isnative:
        Image.fromarray(values).save(tmp_path / "m.png")
        assert read_heat(tmp_path / "m.png") == pytest.approx(np.array([[0, 0.2], [0.4, 1]]), abs=1e-6)


class Trap:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return (Path.touch, (self.path,))


def test_what_is_no_heat_map_is_refused_and_pickles_are_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "nan.npy", np.full((2, 2), np.nan))
    np.save(tmp_path / "high.npy", np.full((2, 2), 1.5))
    np.save(tmp_path / "negative.npy", np.full((2, 2), -0.1))
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    np.save(tmp_path / "complex.npy", np.zeros((2, 2), complex))
    np.save(tmp_path / "empty.npy", np.zeros((0, 2)))
    np.save(tmp_path / "objects.npy", np.array([[Trap(tmp_path / "sprung")]]), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    (tmp_path / "nothing.npy").write_bytes(b"")
    np.savez(tmp_path / "archive.npz", a=np.zeros((2, 2)))
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    whole = (tmp_path / "cube.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(whole[:-3])
    (tmp_path / "head.npy").write_bytes(whole[:30])
    (tmp_path / "zip.npy").write_bytes(b"PK\x03\x04")
    Image.fromarray(np.dstack([BLOB * 255, NONE, NONE]).astype(np.uint8)).save(tmp_path / "colour.png")
    Image.new("RGBA", (4, 4)).save(tmp_path / "alpha.png")
    (tmp_path / "junk.png").write_bytes(b"no picture")
    files = [path for path in tmp_path.iterdir() if path.suffix in (".npy", ".png")]
    assert len(files) == 16
    for file in files:
        with pytest.raises(SdgError, match=file.name):
            read_heat(file)
    with pytest.raises(SdgError, match="holds NaN, which is no number"):
        read_heat(tmp_path / "nan.npy")
    assert not (tmp_path / "sprung").exists()


def test_a_grey_map_saved_in_colour_is_grey(tmp_path: Path) -> None:
    grey = np.dstack([BLOB * 255] * 3).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "m.png")
    assert read_heat(tmp_path / "m.png").max() == pytest.approx(0.8)


def test_a_path_longer_than_names_may_be_costs_its_image_alone(tmp_path: Path) -> None:
    assert HeatFolder(tmp_path, ["a" * 300 + ".png"])
