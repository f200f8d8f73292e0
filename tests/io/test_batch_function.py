"""Rows in columns: every kind of image, one bad row, pickling, and one load a process."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdg import Defect, Diagnosis, Status
from sdg.detectors import BatchDiagnoser
from sdg.errors import SdgError
from sdg.io import batch_function
from sdg.scorers.weighted import BatchScorer

LOADED: list[str] = []


def bright(picture: Image.Image, prompt: str) -> Diagnosis:
    """An artifact where the picture is bright; nothing to say of a prompt `?`."""
    if prompt == "?":
        return Diagnosis(status=Status.UNPARSEABLE, raw="hm")
    level = round(float(np.asarray(picture).mean()))
    return Diagnosis((Defect((0, 0, 10, 10), "artifact", prompt, level),) if level else ())


def mean(pictures: Any, prompts: Any) -> list[float]:
    LOADED.append("asked")
    return [float(np.asarray(picture).mean()) for picture in pictures]


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (4, 3), (level, level, level))


def content(level: int) -> bytes:
    stream = io.BytesIO()
    grey(level).save(stream, "PNG")
    return stream.getvalue()


def images(folder: Path) -> list[Any]:
    """Seven ways to give a picture, of brightness 1 to 7."""
    grey(2).save(folder / "two.png")
    return [
        content(1),
        str(folder / "two.png"),
        np.full((3, 4, 3), 3, np.uint8),
        grey(4),
        {"bytes": content(5), "path": None},
        memoryview(content(6)),
        {"bytes": None, "path": folder / "two.png"},
    ]


def test_every_kind_of_image_is_read_and_other_columns_stay(tmp_path: Path) -> None:
    given = images(tmp_path)
    batch = {"image": given, "prompt": [str(i) for i in range(7)], "id": np.arange(7)}
    found = BatchDiagnoser(f"python:{__name__}.bright")(batch)
    assert list(found) == ["image", "prompt", "id", "response", "status", "error", "defects"]
    assert [defects[0]["importance"] for defects in found["defects"]] == [1, 2, 3, 4, 5, 6, 2]
    assert found["defects"][3] == [
        {"box": [0, 0, 10, 10], "type": "artifact", "reason": "3", "importance": 4}
    ]
    assert found["id"] == list(range(7))
    assert set(found["status"]) == {"ok"}
    assert set(found["error"]) == {None}
    assert all("artifact" in response for response in found["response"])


def test_a_table_of_pyarrow_is_a_batch(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    given = [{"bytes": content(5), "path": "a.png"}, {"bytes": content(0), "path": None}, None]
    table = pyarrow.table({"image": given, "prompt": ["a", "b", "c"], "id": [7, 8, 9]})
    for batch in (table, *table.to_batches()):
        found = BatchDiagnoser(f"python:{__name__}.bright")(batch)
        assert [defects if not defects else len(defects) for defects in found["defects"]] == [1, [], None]
        assert found["id"] == [7, 8, 9]
    with pytest.raises(SdgError, match=r"this one has .?prompt.?"):
        BatchDiagnoser(f"python:{__name__}.bright")(table.select(["prompt"]))


def test_a_column_that_the_results_would_replace_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BatchDiagnoser, "_load", lambda self: pytest.fail("loaded"))
    batch = {"image": [content(1)], "prompt": ["a"], "id": [1], "status": ["draft"]}
    diagnose = BatchDiagnoser(f"python:{__name__}.bright")
    with pytest.raises(SdgError, match=r"has a column 'status' already, which the results would replace"):
        diagnose(batch)
    pytest.importorskip("datasets")
    with pytest.raises(SdgError, match=r"has a column 'status' already"):
        diagnose.features(batch)


def test_rows_of_an_array_of_pixels_are_pictures() -> None:
    pixels = np.stack([np.full((3, 4, 3), level, np.uint8) for level in (0, 9)])
    found = BatchDiagnoser(f"python:{__name__}.bright")({"image": pixels, "prompt": np.array(["a", "b"])})
    assert [defects and defects[0]["importance"] for defects in found["defects"]] == [[], 9]


def test_a_row_that_cannot_be_read_costs_itself_alone_and_is_never_clean() -> None:
    bad = [b"no picture", None, 7, "nowhere.png", content(8), content(9), content(0)]
    prompts = ["a", "b", "c", "d", None, "?", "e"]
    found = BatchDiagnoser(f"python:{__name__}.bright")({"image": bad, "prompt": prompts})
    assert found["status"] == ["failed"] * 5 + ["unparseable", "ok"]
    assert found["defects"] == [None] * 6 + [[]]
    assert [error is None for error in found["error"]] == [False] * 5 + [True, True]
    assert found["error"][3] == "nowhere.png does not exist; check the path of the image."
    assert found["response"] == [None] * 5 + ["hm", found["response"][6]]


def test_copies_in_other_processes_load_for_themselves() -> None:
    diagnose = BatchDiagnoser(f"python:{__name__}.bright")
    diagnose({"image": [content(1)], "prompt": ["a"]})
    assert diagnose._loaded is not None
    again = pickle.loads(pickle.dumps(diagnose))
    assert again._loaded is None
    assert again({"image": [], "prompt": []})["defects"] == []
    assert again({"image": [content(5)], "prompt": ["a"]})["defects"][0][0]["importance"] == 5


def test_copies_in_one_process_share_what_the_first_of_them_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = BatchDiagnoser._load

    def counted(self: BatchDiagnoser) -> Any:
        loads.append(self.uri)
        return load(self)

    monkeypatch.setattr(BatchDiagnoser, "_load", counted)
    functions = [BatchDiagnoser(f"python:{__name__}.bright") for _ in range(6)]
    batch = {"image": [content(1)], "prompt": ["a"]}
    for function in functions:
        for _ in range(3):  # as Ray does for each task
            pickle.loads(pickle.dumps(function))(batch)
    assert len(loads) == len(functions)
    assert len(batch_function._LOADED_BY_COPIES) <= 4  # a process that lives long holds no more
    functions[0](batch)
    functions[0](batch)
    pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(functions[5]))))(batch)
    assert len(loads) == len(functions) + 1


def test_a_hugging_face_dataset_keeps_its_types_whatever_its_first_rows_are(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [content(0), content(0), b"no picture", content(7)]
    dataset = datasets.Dataset.from_dict({"image": rows, "prompt": list("abcd")})
    diagnose = BatchDiagnoser(f"python:{__name__}.bright")
    options = {"batched": True, "batch_size": 2, "writer_batch_size": 1, "load_from_cache_file": False}
    found = dataset.map(diagnose, features=diagnose.features(dataset.features), **options)
    assert found["status"] == ["ok", "ok", "failed", "ok"]
    assert found["defects"][:3] == [[], [], None]
    box = {"box": [0, 0, 10, 10], "type": "artifact", "reason": "d", "importance": 7, "subtype": None}
    assert found["defects"][3] == [box]
    score = BatchScorer(f"python:{__name__}.mean")
    scored = dataset.map(score, features=score.features(dataset.features), **options)
    assert scored["score"] == [0, 0, None, 7]


def test_scores_are_scaled_and_missing_where_a_picture_is() -> None:
    LOADED.clear()
    score = BatchScorer(f"python:{__name__}.mean", scale=0.5)
    found = score({"image": [content(4), b"x", content(8)], "prompt": ["a", "b", "c"]})
    assert found["score"] == [2.0, None, 4.0]
    assert [error is None for error in found["error"]] == [True, False, True]
    assert LOADED == ["asked"]  # once for the batch, without the bad row


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        ({"picture": [], "prompt": []}, "columns `image` and `prompt`; this one has 'picture', 'prompt'"),
        ({"image": [b""], "prompt": []}, "one length"),
    ],
)
def test_columns_that_do_not_fit_are_refused(batch: Any, sentence: str) -> None:
    with pytest.raises(SdgError, match=sentence):
        BatchDiagnoser(f"python:{__name__}.bright")(batch)
