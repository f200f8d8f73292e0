"""Joining truth and predictions by file path, in whatever order the two files are.

What is missing, extra or there twice is reported, never dropped in silence.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sdg.defects import Diagnosis
from sdg.records import Record

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Joined:
    """Images that truth and predictions share, in the truth's order, and every path that did not pair up.

    missing: without a prediction. extra: without a truth. duplicated: there more than once on either side;
    the first line counts. unannotated: the truth's line holds no annotation.
    """

    paths: tuple[str, ...]
    prompts: tuple[str, ...]
    generators: tuple[str | None, ...]
    truth: tuple[Diagnosis, ...]
    predicted: tuple[Diagnosis, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    duplicated: tuple[str, ...] = ()
    unannotated: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every path has exactly one truth and one prediction."""
        return not (self.missing or self.extra or self.duplicated or self.unannotated)

    def unpaired(self) -> dict[str, list[str]]:
        """Every path that did not pair up, by what it is."""
        return {name: list(getattr(self, name)) for name in ("missing", "extra", "duplicated", "unannotated")}

    def mismatch(self) -> str:
        """What did not pair up, in a few words for each kind; "" if all did."""
        kinds = (
            (self.missing, "without a prediction"),
            (self.extra, "without a truth"),
            (self.duplicated, "more than once in one file, where the first line counts"),
            (self.unannotated, "not annotated"),
        )
        return "; ".join(f"{_listed(paths)} {what}" for paths, what in kinds if paths)


def join(truth: Iterable[Record], predictions: Iterable[Record]) -> Joined:
    """Pair records by `filepath`. Reasonings and raw responses are let go of as the records stream by."""
    duplicated: dict[str, None] = {}
    with collector_paused():
        predicted = _by_path(predictions, duplicated)
        true = _by_path(truth, duplicated)
    shared: list[_Shared] = []
    missing, unannotated = [], []
    for path, (prompt, generator, diagnosis) in true.items():
        _, _, other = predicted.pop(path, _ABSENT)
        if other is None:
            missing.append(path)
        elif diagnosis is None:
            unannotated.append(path)
        else:
            shared.append((path, prompt, generator, diagnosis, other))
    columns = zip(*shared, strict=True) if shared else [()] * 5
    others = missing, predicted, duplicated, unannotated
    return Joined(*columns, *map(tuple, others))


_Shared = tuple[str, str, str | None, Diagnosis, Diagnosis]
_Slim = tuple[str, str | None, Diagnosis | None]
_ABSENT: _Slim = ("", None, None)


def _by_path(records: Iterable[Record], duplicated: dict[str, None]) -> dict[str, _Slim]:
    """Prompt, generator and diagnosis of the first record of each path."""
    by_path: dict[str, _Slim] = {}
    for record in records:
        path, diagnosis = record.filepath, record.diagnosis
        if path in by_path:
            duplicated[path] = None
            continue
        by_path[path] = record.prompt, record.generator, None if diagnosis is None else slim(diagnosis)
    return by_path


def slim(diagnosis: Diagnosis) -> Diagnosis:
    """What is evaluated of a diagnosis, without its texts."""
    if not (diagnosis.raw or diagnosis.reasoning):
        return diagnosis
    return Diagnosis(diagnosis.defects, "", diagnosis.status, "", diagnosis.repairs)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without cyclic garbage collection: records form no cycles, and looking for some costs a quarter."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _listed(paths: tuple[str, ...]) -> str:
    shown = ", ".join(paths[:_SHOWN])
    more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
    return f"{len(paths):,} images ({shown}{more})" if len(paths) > 1 else shown
