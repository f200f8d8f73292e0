"""Table 3 on TFRecords written here byte by byte, against arithmetic of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tfrecords
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sdg.bench.image_level import presence, table3
from sdg.cli import cli
from sdg.errors import SdgError

# uid -> (hottest artifact, hottest misalignment) of people
HEAT = {"u1": (0.5, 0.0), "u2": (0.2, 0.4), "u3": (0.05, 0.2), "u4": (0.0, 0.0), "u5": (0.34, 0.11)}
# uid -> what a detector names; None: it failed
NAMED: dict[str, tuple[bool, bool] | None] = {
    "u1": (True, False),
    "u2": (True, True),
    "u3": (True, False),
    "u4": (False, True),
    "u5": None,
}


def example(uid: str, side: int = 512) -> dict[str, object]:
    maps = np.zeros((2, side * side), np.float32)
    maps[0, 7], maps[1, -1] = HEAT[uid]
    scores = {f"{name}_score": [0.5] for name in ("aesthetics", "artifact", "misalignment", "overall")}
    return {
        "filename": f"test/{uid}.png".encode(),
        **scores,
        "artifact_map": maps[0],
        "misalignment_map": tfrecords.tensor(maps[1].reshape(side, side)),
        "prompt_misalignment_label": b"1 0",
    }


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("richhf")
    tfrecords.write(folder / "test.tfrecord-00000", [example("u1"), example("u2"), example("u3")])
    tfrecords.write(folder / "test.tfrecord-00001", [example("u4", 64), example("u5", 64)])
    return folder


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    lines = []
    for uid, named in NAMED.items():
        items = [
            {"box_2d": [0, 0, 9, 9], "label": kind, "description": "x", "importance": 5}
            for kind, there in zip(("artifact", "misalignment"), named or (), strict=False)
            if there
        ]
        response = (
            None if named is None else f"<think>\n.\n</think>\n<answer>\n{json.dumps(items)}\n</answer>"
        )
        lines.append({"filepath": f"pics/{uid}.png", "caption": "x", "response": response})
    lines.append({"filepath": "pics/other.png", "caption": "x", "response": "nothing"})
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "p.jsonl"


@pytest.mark.parametrize("threshold", [0.10, 0.33])
@pytest.mark.parametrize("kind", [0, 1])
def test_as_counted_by_hand(records: Path, predictions: Path, threshold: float, kind: int) -> None:
    table = table3([records], {"ours": predictions}, {})
    name = ("artifact", "misalignment")[kind]
    found = table.numbers["rows"][f"ours@{threshold:.2f}"][name]
    known = [uid for uid, named in NAMED.items() if named is not None]
    truth = {uid for uid in known if HEAT[uid][kind] > threshold}
    said = {uid for uid in known if (NAMED[uid] or ())[kind]}
    assert found["precision"] == pytest.approx(len(truth & said) / len(said))
    assert found["recall"] == pytest.approx(len(truth & said) / len(truth))
    assert (found["pictures"], found["present"]) == (4, len(truth))
    assert any("ours: 1 of 5 pictures are left out" in note for note in table.notes)
    assert ("SDG (published)", "0.970", "0.698", "0.812", "", "") in table.tables[0].rows


def test_heat_maps_are_held_against_the_same_threshold(records: Path, tmp_path: Path) -> None:
    for uid, of in HEAT.items():
        for kind, hottest in zip(("artifact", "misalignment"), of, strict=True):
            (tmp_path / kind).mkdir(exist_ok=True)
            np.save(tmp_path / kind / f"{uid}.npy", np.full((4, 4), hottest, np.float32))
    rows = table3([records], {}, {"people": tmp_path}).numbers["rows"]
    assert all(of[kind]["f1"] == 1 for of in rows.values() for kind in ("artifact", "misalignment"))


def test_a_name_is_that_of_one_row(records: Path, predictions: Path, tmp_path: Path) -> None:
    with pytest.raises(SdgError, match="ours names predictions and heat maps"):
        table3([records], {"ours": predictions}, {"ours": tmp_path})


def test_what_does_not_fit_is_refused(records: Path, predictions: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text(predictions.read_text().splitlines()[0] + "\n")
    with pytest.raises(SdgError, match="has nothing for 4 pictures, such as u2"):
        table3([records], {"ours": few}, {})
    assert table3([records], {"ours": few}, {}, allow_missing=True).numbers["rows"]["ours@0.10"]["artifact"]
    twice = tmp_path / "twice.jsonl"
    twice.write_text("\n".join([*predictions.read_text().splitlines(), few.read_text()]))
    with pytest.raises(SdgError, match="has the picture u1 more than once"):
        table3([records], {"ours": twice}, {})
    with pytest.raises(SdgError, match="nothing to measure"):
        table3([records], {}, {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(SdgError, match="holds no file with 'tfrecord'"):
        table3([tmp_path / "empty"], {"ours": few}, {})


def test_the_command_writes_all_three_files(records: Path, predictions: Path, tmp_path: Path) -> None:
    arguments = ["bench", "table3", str(records), "--predictions", f"ours={predictions}"]
    result = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"table3.json", "table3.md", "table3.tex"}


def test_by_hand():
    found = presence([True, True, True, False, False], [True, False, True, True, False])
    assert (found.precision, found.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found.f1 == pytest.approx(2 / 3)
    assert (found.pictures, found.present, found.found) == (5, 3, 3)


def test_what_is_undefined_is_none_and_not_zero():
    nothing = presence([False, False], [False, False])
    assert (nothing.precision, nothing.recall, nothing.f1) == (None, None, None)
    assert set(nothing.intervals.values()) == {None}
    missed = presence([True, False], [False, False])
    assert (missed.precision, missed.recall, missed.f1) == (None, 0.0, 0.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_as_a_loop_counts_and_within_its_intervals(pairs):
    truth, said = zip(*pairs, strict=True)
    found = presence(truth, said)
    right = sum(a and b for a, b in pairs)
    if right:
        assert found.precision == pytest.approx(right / sum(said))
        assert found.recall == pytest.approx(right / sum(truth))
        assert found.f1 == pytest.approx(2 / (1 / found.precision + 1 / found.recall))
    for bounds in found.intervals.values():
        assert bounds is None or 0 <= bounds[0] <= bounds[1] <= 1


def test_sides_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="as many pictures"):
        presence([True], [True, False])
    with pytest.raises(ValueError, match="as many pictures"):
        presence([], [])
