"""A detector over Parquet files on a Ray cluster, resumably.

The rows are cut into blocks, each of which is a bulk run of its own with a part of the output. So a worker
that dies costs at most the batch it was at, and a run that is begun again asks for what is missing alone.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sdg.detectors import answers_by_path, answers_depend_on, load_detector, names_server
from sdg.detectors.bulk import Shard, run
from sdg.errors import SdgError, described, first_line, installed
from sdg.io.jsonl import is_parquet
from sdg.io.parquet import row_count
from sdg.io.uri import SERVED
from sdg.runs.begin import begin
from sdg.runs.inputs import Item, gather

SMALLEST: Final = 100
LARGEST: Final = 1000
"""Rows of a block, which a worker holds at a time."""
_BLOCKS: Final = 64  # so that workers are busy about equally long
MANIFEST: Final = "run.json"
_RETRIES: Final = 3  # of a block whose worker died
_LOCAL: Final = "local"
_STORED: Final = (
    "Stored answers are looked up among all images of a run, which no worker on Ray sees; leave --ray out."
)


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a file's rows, and the part of the output that is theirs."""

    file: Path
    shard: Shard
    part: Shard


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a block: images in it, how many of them were asked for now, how many have no answer."""

    images: int
    diagnosed: int
    failed: int


def run_on_ray(
    uri: str,
    sources: Sequence[Path],
    out: Path,
    *,
    address: str = _LOCAL,
    workers: int | None = None,
    resume: bool = False,
    prompt: str | None = None,
    images: Path | None = None,
    allow_outside: bool = False,
    options: Mapping[str, object] | None = None,
    block: int | None = None,
    on_block: Callable[[Done, int, int], None] | None = None,
) -> Done:
    """Diagnose every row of Parquet files; writes `out`/part-K-of-N.parquet, one a block, and `out`/run.json.

    address: of a cluster, or "local" for one on this machine. workers: processes that each load the detector,
    by default one a GPU of the cluster, else one for every two cores; one without room is left out.
    prompt, images, allow_outside: as for `gather`, whose paths have to be the same on every machine, as has
    `out`. on_block: is told of each block, and how many of how many are done. block: rows of one, by default
    a 64th of all, from SMALLEST to LARGEST.
    Memory of a worker is a block, and the paths and prompts of a file.
    Raises SdgError as `sdg.detectors.bulk.run` does, for stored answers, and where a block's worker failed or
    died several times.
    """
    if answers_by_path(uri):
        raise SdgError(_STORED)
    rows = _rows(sources)
    if not any(rows.values()):
        raise SdgError("There are no images to diagnose.")
    block = block or min(LARGEST, max(SMALLEST, sum(rows.values()) // _BLOCKS))
    blocks = _blocks(rows, block)
    _ray()  # before there is a folder
    options = {name: value for name, value in (options or {}).items() if value is not None}
    settings = {
        "detector": {"uri": uri, **{name: str(value) for name, value in options.items()}},
        "inputs": {str(source): count for source, count in rows.items()},
        "block": block,
    }
    folder = images and images.absolute()  # a worker has a current folder of its own
    reading = {"prompt": prompt, "images": folder, "allow_outside": allow_outside}
    work = list(out.glob("part-*")) if out.is_dir() else []
    free = [f"detector.{name}" for name in SERVED["openai"]]  # as the blocks, which are runs of their own
    with begin(out, out / MANIFEST, settings, resume=resume, work=work, free=free, compared=_answering):
        ray = _connected(address)
        try:
            pool = _workers(ray, workers, uri, options, out, reading)
            return _all(ray, pool, blocks, on_block)
        finally:
            ray.shutdown()


class _Worker:
    """Runs blocks, one after another, with a detector that is loaded once, in the folder `here`."""

    def __init__(
        self, uri: str, options: Mapping[str, Any], out: Path, reading: Mapping[str, Any], here: Path
    ) -> None:
        with suppress(OSError):
            os.chdir(here)  # which names like out/grpo and --profile mine.toml are relative to
        self.uri, self.options, self.out, self.reading = uri, options, out, reading
        self.detector: Any = None
        self.gathered: tuple[Path | None, list[Item]] = (None, [])

    def begun(self) -> None:
        """Answers as soon as the worker has a place in the cluster."""

    def work(self, block: Block) -> Done | str:
        """The block's summary, or a sentence on what is wrong with every block."""
        try:
            if self.detector is None:
                self.detector = load_detector(self.uri, **self.options)
                if self.detector.stored:
                    return _STORED
            if self.gathered[0] != block.file:  # once for all blocks of a file, as it reads every row's names
                self.gathered = block.file, gather([block.file], embedded=True, **self.reading)
            path = self.out / f"{block.part.stem}.parquet"
            summary = run(self.detector, self.gathered[1], path, resume=True, shard=block.shard)
        except SdgError as error:
            return str(error)
        return Done(summary.images, summary.diagnosed, len(summary.failed))


def _answering(name: str, value: Any) -> Any:
    return answers_depend_on(value) if name == "detector.uri" else value


def _rows(sources: Sequence[Path]) -> dict[Path, int]:
    if others := [source for source in sources if not is_parquet(source)]:
        raise SdgError(f"{others[0]} is no Parquet file; a run on Ray takes those alone.")
    return {source: row_count(source) for source in sources}


def _blocks(rows: Mapping[Path, int], size: int) -> list[Block]:
    counts = [math.ceil(count / size) for count in rows.values()]
    total = sum(counts)
    made: list[Block] = []
    for source, count in zip(rows, counts, strict=True):
        for number in range(1, count + 1):
            made.append(Block(source.absolute(), Shard(number, count), Shard(len(made) + 1, total)))
    return made


def _ray() -> Any:
    with installed("A run on Ray needs it", "ray,parquet", "without it, --shard K/N and --jobs N"):
        import ray
    return ray


def _connected(address: str) -> Any:
    ray = _ray()
    local: dict[str, Any] = {"include_dashboard": False} if address == _LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except Exception as error:  # Ray has no class of its own for a node that is slow to start
        raise SdgError(f"Ray cannot be reached at {address} ({first_line(error)}).") from error
    return ray


def _workers(
    ray: Any, count: int | None, uri: str, options: Mapping[str, Any], out: Path, reading: Mapping[str, Any]
) -> list[Any]:
    resources = ray.cluster_resources()
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    on_gpu = gpus > 0 and not names_server(uri)
    count = count or (gpus if on_gpu else max(1, cores // 2))
    share = {"num_gpus": _fraction(1, math.ceil(count / gpus))} if on_gpu else {}  # a part of one GPU each
    actor = ray.remote(max_restarts=_RETRIES, max_task_retries=_RETRIES, **share)(_Worker)
    cpus = cores // count or _fraction(cores, count)  # Ray tells torch to use as many threads
    return [
        actor.options(num_cpus=cpus).remote(uri, options, out.absolute(), reading, Path.cwd())
        for _ in range(count)
    ]


def _fraction(whole: int, count: int) -> float:
    """One of so many equal parts, never more, as exactly as Ray counts."""
    return whole if count == 1 else whole * 10_000 // count / 10_000


def _all(
    ray: Any, pool: Sequence[Any], blocks: Sequence[Block], on_block: Callable[[Done, int, int], None] | None
) -> Done:
    """Every block, each on the next worker that is free.

    A worker for which no machine has room, now or ever, is free once it says that it has begun.
    """
    waiting, running = list(reversed(blocks)), {worker.begun.remote(): worker for worker in pool}
    images = diagnosed = failed = done = 0
    while done < len(blocks):
        ready, _ = ray.wait(list(running), num_returns=1)
        worker = running.pop(ready[0])
        try:
            found = ray.get(ready[0])
        except ray.exceptions.RayTaskError as error:  # of the code that the worker ran
            why = described(error.cause)
            raise SdgError(
                f"A worker failed ({why}); what is answered is kept: go on with --resume."
            ) from error
        except ray.exceptions.RayError as error:
            raise SdgError(
                f"A worker died {_RETRIES + 1} times at one block ({first_line(error)}); what is answered is "
                "kept: go on with --resume and fewer workers."
            ) from error
        if isinstance(found, str):
            raise SdgError(found)
        if waiting:
            running[worker.work.remote(waiting.pop())] = worker
        if found is None:
            continue
        images, diagnosed, failed = images + found.images, diagnosed + found.diagnosed, failed + found.failed
        done += 1
        if on_block is not None:
            on_block(found, done, len(blocks))
    return Done(images, diagnosed, failed)
