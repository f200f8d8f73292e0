"""A run on Ray without Ray: what it refuses at once, and what its workers ask of a cluster."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from sdg.detectors import on_ray
from sdg.detectors.on_ray import run_on_ray
from sdg.errors import SdgError


class Cluster:
    """Ray in this process: an actor does what it is told once a node has room for it, without room never.

    nodes: cores and GPUs of each.
    """

    exceptions = SimpleNamespace(RayTaskError=LookupError, RayError=LookupError)

    def __init__(self, *nodes: tuple[int, int]) -> None:
        self.cores = [float(cores) for cores, _ in nodes]
        self.gpus = [[1.0] * gpus for _, gpus in nodes]
        self.begun = 0

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": sum(self.cores), "GPU": float(sum(map(len, self.gpus)))}

    def remote(self, num_gpus: float = 0, **_: int) -> Callable[[Any], Any]:
        return lambda kind: SimpleNamespace(
            options=lambda num_cpus: SimpleNamespace(
                remote=lambda *of: self._actor(kind(*of), num_cpus, num_gpus)
            )
        )

    def _actor(self, actor: Any, cpus: float, gpus: float) -> Any:
        assert cpus > 0
        placed = self._has_room(cpus, gpus)
        self.begun += placed

        def method(name: str) -> Any:
            return SimpleNamespace(
                remote=lambda *of: (getattr(actor, name)(*of),) if placed else (None, "for ever")
            )

        return SimpleNamespace(begun=method("begun"), work=method("work"))

    def _has_room(self, cpus: float, gpus: float) -> bool:
        for node, cores in enumerate(self.cores):
            free = next((n for n, left in enumerate(self.gpus[node]) if left >= gpus), None)
            if cores >= cpus and (free is not None or not gpus):
                self.cores[node] -= cpus
                if free is not None:
                    self.gpus[node][free] -= gpus
                return True
        return False

    def wait(self, refs: Sequence[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        done = next((ref for ref in refs if len(ref) == 1), None)
        assert done is not None, "It waits for ever."
        return [done], []

    def get(self, ref: Any) -> Any:
        return ref[0]

    def shutdown(self) -> None:
        pass


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A Parquet file of twelve pictures, of which one cannot be read, that lie in the folder `pictures`."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = [f"{number}.png" for number in range(12)]
    (tmp_path / "pictures").mkdir()
    for number, name in enumerate(names):
        stream = io.BytesIO()
        Image.new("RGB", (4, 4), (20 * number,) * 3).save(stream, "PNG")
        (tmp_path / "pictures" / name).write_bytes(stream.getvalue() if number else b"no picture")
    pq.write_table(pa.table({"filepath": names, "caption": ["a cup"] * 12}), tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


@pytest.mark.parametrize(
    ("nodes", "workers", "uri", "begun"),
    [
        ([(2, 0)], 4, "python:light.bright", 4),  # more workers than cores share these
        ([(2, 0)], 3, "python:light.bright", 3),
        ([(3, 0), (3, 0)], None, "python:light.bright", 2),  # each node has room for one of two cores
        ([(4, 8)], None, "python:light.bright", 8),  # one a GPU, half a core each
        ([(8, 2)], 3, "python:light.bright", 3),  # two thirds of a GPU would leave a third one out
        ([(16, 0)], None, "python:light.bright", 8),
        ([(1, 0)], None, "python:light.bright", 1),
    ],
)
def test_no_block_waits_for_a_worker_that_finds_no_room(
    rows: Path,
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[tuple[int, int]],
    workers: int | None,
    uri: str,
    begun: int,
) -> None:
    cluster = Cluster(*nodes)
    monkeypatch.setattr(on_ray, "_ray", lambda: cluster)
    monkeypatch.setattr(on_ray, "_connected", lambda address: cluster)
    out = rows.parent / "found"
    seen: list[int] = []
    done = run_on_ray(
        uri,
        [rows],
        out,
        workers=workers,
        images=rows.parent / "pictures",
        block=1,
        on_block=lambda block, number, total: seen.append(number),
    )
    assert (done.images, done.diagnosed, done.failed) == (12, 12, 1)
    assert seen == list(range(1, 13))
    assert len(list(out.glob("part-*.parquet"))) == 12
    assert cluster.begun == begun


def test_workers_are_told_where_the_pictures_lie_whatever_folder_they_run_in(
    rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster((1, 0))
    monkeypatch.chdir(rows.parent)

    def connected(address: str) -> Cluster:
        monkeypatch.chdir("/")
        return cluster

    monkeypatch.setattr(on_ray, "_ray", lambda: cluster)
    monkeypatch.setattr(on_ray, "_connected", connected)
    done = run_on_ray(
        "python:light.bright", [Path("rows.parquet")], rows.parent / "found", images=Path("pictures")
    )
    assert (done.images, done.failed) == (12, 1)


@pytest.mark.parametrize("uri", ["replay:stored.jsonl", "union:ocr|heatmap:maps"])
def test_stored_answers_are_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(SdgError, match=r"^Stored answers are looked up among all images of a run"):
        run_on_ray(uri, [tmp_path / "a.parquet"], tmp_path / "out")
