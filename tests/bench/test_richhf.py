"""RichHF-18K's files: both ways to store a map, and every way a file can be wrong."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tfrecords
from hypothesis import given
from hypothesis import strategies as st

from sdg.bench.richhf import read_richhf
from sdg.bench.tfrecord import LONGEST, read_examples
from sdg.defects import DefectType
from sdg.errors import SdgError

ARTIFACT, MISALIGNMENT = DefectType.ARTIFACT, DefectType.MISALIGNMENT


def features(uid: str = "0a1b-2c", artifact: float = 0.5, side: int = 8, **changes: Any) -> dict[str, Any]:
    """An example in the published layout, its maps stored row by row as floats."""
    artifact_map, misalignment_map = np.zeros((2, side, side), np.float32)
    artifact_map[1, 2], misalignment_map[3, 3] = artifact, 0.2
    values: dict[str, Any] = {
        "filename": f"train/{uid}.png".encode(),
        "aesthetics_score": [0.75],
        "artifact_score": [0.25],
        "misalignment_score": [0.5],
        "overall_score": [1.0],
        "artifact_map": artifact_map.ravel(),
        "misalignment_map": misalignment_map.ravel(),
        "prompt_misalignment_label": b"1 0 1",
    }
    return values | changes


def test_an_example_in_the_published_layout(tmp_path: Path) -> None:
    (read,) = read_richhf([tfrecords.write(tmp_path / "a.tfrecord", [features()])])
    assert read.uid == "0a1b-2c"
    assert read.maximum == {ARTIFACT: 0.5, MISALIGNMENT: pytest.approx(0.2)}
    assert read.has(ARTIFACT, 0.33)
    assert read.has(MISALIGNMENT, 0.1)
    assert not read.has(MISALIGNMENT, 0.33)


@pytest.mark.parametrize("stored", ["float32", "uint8"])
def test_maps_stored_as_one_tensor_read_the_same(tmp_path: Path, stored: str) -> None:
    values = np.linspace(0, 0.8, 64, dtype=np.float32).reshape(8, 8)
    array = (values * 255).round().astype(np.uint8) if stored == "uint8" else values
    file = tfrecords.write(tmp_path / "a", [features(artifact_map=tfrecords.tensor(array))])
    (read,) = read_richhf([file])
    assert read.maximum[ARTIFACT] == pytest.approx(0.8, abs=1e-6)


def test_a_constant_map_stored_as_one_value(tmp_path: Path) -> None:
    constant = (
        b"\x08\x01" + b"\x12\x08\x12\x02\x08\x08\x12\x02\x08\x08" + b"\x2a\x04" + struct.pack("<f", 0.25)
    )
    (read,) = read_richhf([tfrecords.write(tmp_path / "a", [features(artifact_map=constant)])])
    assert read.maximum[ARTIFACT] == 0.25


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"artifact_map": [1.5, 0.0]}, "between 0 and 1"),
        ({"artifact_map": [float("nan")]}, "between 0 and 1"),
        ({"artifact_map": b"no tensor"}, "TensorProto|type"),
        ({"artifact_map": tfrecords.tensor(np.zeros((2, 2), np.float32))[:-1]}, "TensorProto|elements"),
        ({"artifact_map": b"\x08\x04\x12\x04\x12\x02\x08\x01\x3a\x02\xac\x02"}, "beyond"),  # 300 in 8 bits
        ({"filename": b""}, "'filename' is one text"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_record(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    file = tfrecords.write(tmp_path / "a", [features("first"), features("second", **changes)])
    with pytest.raises(SdgError, match=rf"a, record 2: .*({said})"):
        list(read_richhf([file]))


def test_a_missing_map_and_a_picture_that_comes_twice(tmp_path: Path) -> None:
    part = features()
    del part["misalignment_map"]
    with pytest.raises(SdgError, match="'misalignment_map' is missing"):
        list(read_richhf([tfrecords.write(tmp_path / "a", [part])]))
    twice = tfrecords.write(tmp_path / "b", [features(), features()])
    with pytest.raises(SdgError, match="has been there before"):
        list(read_richhf([twice]))


def test_damage_is_never_read_as_data(tmp_path: Path) -> None:
    whole = tfrecords.write(tmp_path / "a", [features()]).read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x40
        (tmp_path / "b").write_bytes(damaged)
        with pytest.raises(SdgError, match="record 1"):
            list(read_examples(tmp_path / "b"))
    for end in range(1, len(whole), 11):
        (tmp_path / "b").write_bytes(whole[:end])
        with pytest.raises(SdgError, match="cut off"):
            list(read_examples(tmp_path / "b"))


def test_a_length_beyond_the_bound_is_refused_before_it_is_read(tmp_path: Path) -> None:
    length = struct.pack("<Q", LONGEST + 1)
    (tmp_path / "a").write_bytes(length + struct.pack("<I", tfrecords.masked_crc32c(length)))
    with pytest.raises(SdgError, match="more than"):
        list(read_examples(tmp_path / "a"))


@given(st.binary(max_size=80))
def test_any_payload_is_an_example_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, payload: bytes
) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "a"
    file.write_bytes(tfrecords.record(payload))
    said = ""
    try:
        list(read_richhf([file]))
    except SdgError as error:
        said = str(error)
    assert len(said) < 500
