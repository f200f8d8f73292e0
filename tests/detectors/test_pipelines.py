"""A detector as a function of columns in others' pipelines: Ray Data, Daft, and frames as Spark has them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import light
import pytest
from PIL import Image

from sdg.detectors import BatchDiagnoser

URI = "python:light.bright"
ROWS = 60
BAD = 25


def content(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), (level, level, level)).save(stream, "PNG")
    return stream.getvalue()


def batch() -> dict[str, list[Any]]:
    """The first twenty pictures are clean, so that a block may have no defect at all; one is no picture."""
    levels = [0] * 20 + list(range(100, 100 + ROWS - 20))
    pictures = [b"no picture" if row == BAD else content(level) for row, level in enumerate(levels)]
    return {"image": pictures, "prompt": [f"prompt {row}" for row in range(ROWS)], "id": list(range(ROWS))}


@pytest.fixture
def expected() -> list[dict[str, Any]]:
    found = BatchDiagnoser(URI)(batch())
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


def check(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda row: row["id"])
    assert [row["id"] for row in rows] == list(range(ROWS))
    for row, one in zip(rows, expected, strict=True):
        assert {name: row[name] for name in ("status", "error", "response")} == {
            name: one[name] for name in ("status", "error", "response")
        }
        found = row["defects"]
        if one["defects"] is None:
            assert found is None  # never an empty list, which is a clean picture
        else:
            assert [dict(defect, box=list(defect["box"])) for defect in found] == one["defects"]
    assert rows[BAD]["status"] == "failed"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    ray = pytest.importorskip("ray")
    pytest.importorskip("pandas")  # ray.data loads it
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    folder = tmp_path_factory.mktemp("rows")
    whole = pyarrow.table(batch())
    for part in range(6):
        parquet.write_table(whole.slice(10 * part, 10), folder / f"{part}.parquet")
    with pytest.MonkeyPatch.context() as patch:
        here = str(Path(light.__file__).parent)
        patch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
        yield ray.data.read_parquet(str(folder), override_num_blocks=6)
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("batch_format", ["numpy", "pandas"])
def test_ray_data_takes_the_function(cluster: Any, batch_format: str, expected: list[dict[str, Any]]) -> None:
    found = cluster.map_batches(BatchDiagnoser(URI), batch_size=7, batch_format=batch_format)
    check(found.take_all(), expected)


@pytest.mark.slow
@pytest.mark.ray
def test_ray_data_takes_the_class_for_workers_that_load_once(
    cluster: Any, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = cluster.map_batches(BatchDiagnoser, fn_constructor_args=(URI,), batch_size=7, concurrency=2)
    found.write_parquet(str(tmp_path / "found"))
    import pyarrow.dataset

    check(pyarrow.dataset.dataset(tmp_path / "found").to_table().to_pylist(), expected)


def test_daft_takes_it_in_a_function_of_its_own(expected: list[dict[str, Any]]) -> None:
    daft = pytest.importorskip("daft")
    kinds = daft.DataType
    text, number = kinds.string(), kinds.int64()
    defect = kinds.struct({"box": kinds.list(number), "type": text, "reason": text, "importance": number})
    result = {"response": text, "status": text, "error": text, "defects": kinds.list(defect)}
    function = BatchDiagnoser(URI)

    @daft.func.batch(return_dtype=kinds.struct(result))  # type: ignore[untyped-decorator]
    def diagnose(image: Any, prompt: Any) -> Any:
        found = function({"image": image.to_pylist(), "prompt": prompt.to_pylist()})
        rows = zip(*(found[name] for name in result), strict=True)
        return daft.Series.from_pylist([dict(zip(result, row, strict=True)) for row in rows])

    table = daft.from_pydict(batch())
    rows = table.with_column("found", diagnose(table["image"], table["prompt"])).to_pylist()
    check([{**row, **row["found"]} for row in rows], expected)


def test_frames_as_map_in_pandas_has_them(expected: list[dict[str, Any]]) -> None:
    pandas = pytest.importorskip("pandas")
    diagnose = BatchDiagnoser(URI)

    def frames(parts: Any) -> Any:
        for part in parts:
            yield pandas.DataFrame(diagnose(part.to_dict("list")))

    whole = pandas.DataFrame(batch())
    found = pandas.concat(frames([whole[:7], whole[7:40], whole[40:]]))
    rows = [
        {name: None if value is None or value != value else value for name, value in row.items()}
        for row in found.to_dict("records")
    ]
    check(rows, expected)
