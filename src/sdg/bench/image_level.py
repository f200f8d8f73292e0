"""SDG Table 3: "has this picture a defect of that type?" on RichHF-18K, for detectors and for heat maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdg.bench.bench_table import BenchTable
from sdg.bench.published_rows import TABLE3
from sdg.bench.richhf import THRESHOLDS, RichExample, read_richhf
from sdg.data.formats import read_records
from sdg.defects import DefectType, Diagnosis, Status
from sdg.detectors.heatmap import HeatFolder
from sdg.errors import SdgError, path_end, shortened
from sdg.evaluation.resampling import bootstrap_sums, interval
from sdg.evaluation.result import cell, interval_cell
from sdg.tables import Table

Said = Mapping[DefectType, bool]
_COLUMNS = ("precision", "recall", "F1", "pictures", "with a defect")


def table3(
    records: Iterable[Path],
    predictions: Mapping[str, Path],
    heat: Mapping[str, Path],
    *,
    allow_missing: bool = False,
    seed: int = 0,
) -> BenchTable:
    """Precision, recall and F1 by type at both thresholds, with intervals over pictures (SDG Table 3).

    records: RichHF-18K's TFRecord files, or folders of them. predictions: detectors' files, whose pictures
    are named by the uid of Pick-a-Pic. heat: folders of predicted maps, held against the truth's threshold.
    Raises SdgError where a picture of the truth has no prediction, unless `allow_missing`.
    """
    examples = list(read_richhf(_files(records)))
    if not examples:
        raise SdgError("The TFRecord files hold no example.")
    if not predictions and not heat:
        raise SdgError("There is nothing to measure; name predictions or heat maps as NAME=PATH.")
    if both := sorted(predictions.keys() & heat.keys()):
        raise SdgError(f"{shortened(both[0], 80)} names predictions and heat maps; give each row its name.")
    uids = [example.uid for example in examples]
    said = {name: _of_predictions(path, uids, allow_missing) for name, path in predictions.items()}
    hottest = {name: _of_heat(path, uids, allow_missing) for name, path in heat.items()}
    notes = []
    rows: dict[DefectType, list[tuple[str, ...]]] = {kind: [] for kind in DefectType}
    numbers: dict[str, Any] = {}
    for threshold in THRESHOLDS:
        answers = said | {
            name: {uid: {kind: value > threshold for kind, value in of.items()} for uid, of in maps.items()}
            for name, maps in hottest.items()
        }
        for name, found in answers.items():
            label = f"{name}@{threshold:.2f}"
            numbers[label] = {}
            for kind in DefectType:
                result = _measured(examples, found, kind, threshold, seed)
                numbers[label][kind.value] = asdict(result)
                rows[kind] += _rows(label, result)
    tables = []
    for at, kind in enumerate(DefectType):
        first = len(rows[kind])
        published = [(f"{name} (published)", *map(cell, of[at]), "", "") for name, of in TABLE3.items()]
        all_rows = (*rows[kind], *published)
        tables.append(
            Table(kind.value, (kind.value, *_COLUMNS), all_rows, frozenset(range(first, len(all_rows))))
        )
    known = {name: len(of) for name, of in said.items()} | {name: len(of) for name, of in hottest.items()}
    for name, count in known.items():
        if left := len(uids) - count:
            notes.append(
                f"{name}: {left:,} of {len(uids):,} pictures are left out, as nothing is known of them."
            )
    notes.append("The truth has a type where its map's maximum exceeds the threshold behind the @.")
    return BenchTable(
        "table3",
        "Image-level detection on RichHF-18K (SDG Table 3)",
        tables,
        {"rows": numbers},
        {"thresholds": list(THRESHOLDS), "pictures": len(uids), "seed": seed},
        notes,
    )


def _files(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.is_file() and "tfrecord" in file.name)
            if not inside:
                raise SdgError(f"{path_end(str(path))} holds no file with 'tfrecord' in its name.")
            found += inside
        else:
            found.append(path)
    return found


def _of_predictions(path: Path, uids: Sequence[str], allow_missing: bool) -> dict[str, Said]:
    """Which types a detector names on each picture; a response that cannot be read names none."""
    wanted, found = set(uids), dict[str, Said]()
    failed = set()
    for record in read_records(path):
        uid = PurePosixPath(record.filepath.replace("\\", "/")).stem
        if uid not in wanted:
            continue
        if uid in found or uid in failed:
            raise SdgError(f"{path_end(str(path))} has the picture {shortened(uid, 60)} more than once.")
        diagnosis = record.diagnosis or Diagnosis(status=Status.FAILED)
        if diagnosis.status is Status.FAILED:
            failed.add(uid)
        else:
            found[uid] = {kind: bool(diagnosis.of_type(kind)) for kind in DefectType}
    missing = [uid for uid in uids if uid not in found and uid not in failed]
    if missing and not allow_missing:
        raise SdgError(
            f"{path_end(str(path))} has nothing for {len(missing):,} pictures, such as "
            f"{shortened(missing[0], 60)}; add them, or leave those out with --allow-missing."
        )
    return found


def _of_heat(path: Path, uids: Sequence[str], allow_missing: bool) -> dict[str, Mapping[DefectType, float]]:
    """The hottest value of each predicted map."""
    if not path.is_dir():
        raise SdgError(f"{path_end(str(path))} is no folder of heat maps.")
    folder = HeatFolder(path, uids)
    found: dict[str, Mapping[DefectType, float]] = {}
    for uid in uids:
        try:
            found[uid] = {kind: float(heat.max()) for kind, heat in folder.maps(uid).items()}
        except SdgError:
            if not allow_missing:
                raise
    return found


def _measured(
    examples: Sequence[RichExample], found: Mapping[str, Said], kind: DefectType, threshold: float, seed: int
) -> Presence:
    known = [example for example in examples if example.uid in found]
    if not known:
        raise SdgError("None of the pictures of the truth has an answer.")
    return presence(
        [example.has(kind, threshold) for example in known],
        [found[example.uid][kind] for example in known],
        seed,
    )


def _rows(label: str, found: Presence) -> list[tuple[str, ...]]:
    values = (found.precision, found.recall, found.f1)
    bounds = [interval_cell(found.intervals[name]) for name in ("precision", "recall", "f1")]
    return [
        (label, *map(cell, values), f"{found.pictures:,}", f"{found.present:,}"),
        ("  95 % interval", *bounds, "", ""),
    ]


RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True)
class Presence:
    """Precision, recall and F1 with their 95 % intervals; None where undefined."""

    precision: float | None
    recall: float | None
    f1: float | None
    intervals: dict[str, tuple[float, float] | None]
    pictures: int
    present: int
    found: int


def presence(truth: Sequence[bool], found: Sequence[bool], seed: int = 0) -> Presence:
    """How well `found` (N,) says which of N pictures have a defect; intervals from drawing pictures anew.

    Raises ValueError for sequences of different lengths, or without pictures.
    """
    there, said = np.asarray(truth, bool), np.asarray(found, bool)
    if there.shape != said.shape or there.ndim != 1 or not len(there):
        raise ValueError(
            f"Presence compares as many pictures on both sides, not {there.shape} and {said.shape}."
        )
    counts = np.stack([there & said, said, there], axis=1).astype(float)  # (N, 3): right, found, present
    low, high = interval(_rates(bootstrap_sums(counts, RESAMPLES, seed)))
    bounds = {
        name: None if np.isnan(low[i]) else (float(low[i]), float(high[i]))
        for i, name in enumerate(("precision", "recall", "f1"))
    }
    precision, recall, f1 = (
        None if np.isnan(value) else float(value) for value in _rates(counts.sum(0)[None])[0]
    )
    return Presence(precision, recall, f1, bounds, len(there), int(there.sum()), int(said.sum()))


def _rates(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, 3) sums of right, found and present -> (R, 3) precision, recall and F1, NaN where undefined."""
    right, found, present = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([right / found, right / present, 2 * right / (found + present)], axis=1)
