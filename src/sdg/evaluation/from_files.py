"""SDG-Eval of files: joined by path, scored, compared and sliced; as tables, and as one document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdg._version import __version__
from sdg.data.formats import guess_format, read_records
from sdg.data.line_pairs import Reading
from sdg.defects import Diagnosis, Status
from sdg.errors import SdgError
from sdg.evaluation.comparison import Comparison, compare
from sdg.evaluation.in_parts import evaluate_in_parts
from sdg.evaluation.join import Joined, join
from sdg.evaluation.published import PUBLISHED
from sdg.evaluation.result import Scores, describe_status
from sdg.evaluation.scoring import Matching
from sdg.evaluation.sdg_eval import evaluate
from sdg.evaluation.slices import Slice, SliceBy, slices
from sdg.evaluation.tables import comparison_tables, evaluation_tables, slice_tables
from sdg.records import Record
from sdg.response.strict import BoxOrder
from sdg.tables import Table

if TYPE_CHECKING:
    from sdg.embeddings import Embedder

Say = Callable[[str], object]
"""Is told what a reader of the numbers has to know, a sentence at a time."""


@dataclass(frozen=True, slots=True)
class JoinedFiles:
    """Two files and what they share; box_order: of the predictions; allow_missing: they may differ."""

    truth: Path
    predictions: Path
    joined: Joined
    box_order: BoxOrder
    allow_missing: bool


@dataclass(frozen=True, slots=True)
class FileEvaluation:
    """Predictions scored against the truth, and what was asked for beside it.

    other: the predictions that `comparison` holds these against; other_status: how those were read. parts:
    slices by name. published: whether the paper's rows belong beside it.
    """

    files: JoinedFiles
    result: Scores
    other: Path | None
    comparison: Comparison | None
    other_status: Mapping[str, Any] | None
    parts: Mapping[SliceBy, tuple[Slice, ...]]
    published: bool

    def tables(self) -> list[Table]:
        """Everything as tables, one a type each."""
        first = self.files.predictions.stem
        tables = [*evaluation_tables(self.result, first, PUBLISHED if self.published else ())]
        if self.comparison is not None and self.other is not None:
            second = self.other.stem
            second = second if second != first else f"{second} (other)"
            tables += comparison_tables(self.comparison, first, second)
        for part in self.parts.values():
            tables += slice_tables(part)
        return tables

    def statuses(self) -> list[str]:
        """How the answers were read, one sentence a file of predictions."""
        told = [describe_status({**self.result.status, **self.files.joined.unpaired()})]
        if self.other is not None and self.other_status is not None:
            told.append(f"{self.other}: {describe_status(self.other_status)}")
        return told

    def to_document(self) -> dict[str, Any]:
        """Everything as JSON values."""
        document = self.result.to_document()
        document["status"] |= self.files.joined.unpaired()
        document["settings"] |= {
            "truth": str(self.files.truth),
            "predictions": str(self.files.predictions),
            "version": __version__,
        }
        if self.parts:
            document["slices"] = {name: [part.to_dict() for part in of] for name, of in self.parts.items()}
        if self.comparison is not None:
            about = {"with": str(self.other), "status": self.other_status}
            document["comparison"] = about | self.comparison.to_dict()
        if self.published:
            document["published"] = {row.model: row.metrics for row in PUBLISHED}
        return document


def join_files(
    truth: Path,
    predictions: Path,
    *,
    box_order: BoxOrder = "xyxy",
    allow_missing: bool = False,
    say: Say = print,
) -> JoinedFiles:
    """Read truth and predictions in any known formats; raises SdgError for faults, and where paths differ."""
    format = guess_format(truth)
    if format == "predictions":
        say(f"{truth} holds raw responses, not annotations: it is read leniently.")
    joined = join(read_records(truth, format), read_records(predictions, box_order=box_order))
    _check(joined, truth, predictions, allow_missing, say)
    return JoinedFiles(truth, predictions, joined, box_order, allow_missing)


def evaluate_quickly(
    reading: Reading,
    *,
    matching: Matching = "hungarian",
    bootstrap: int = 1000,
    seed: int = 0,
    published: bool = False,
) -> FileEvaluation | None:
    """As `join_files` and `evaluate_files` for the numbers alone, on all cores; None where only they can."""
    scores = evaluate_in_parts(reading, matching=matching, bootstrap=bootstrap, seed=seed)
    if scores is None:
        return None
    nothing = Joined((), (), (), (), ())
    files = JoinedFiles(reading.truth, reading.predictions, nothing, reading.box_order, False)
    return FileEvaluation(files, scores, None, None, None, {}, published)


def evaluate_files(
    files: JoinedFiles,
    *,
    embedder: Embedder | None = None,
    matching: Matching = "hungarian",
    bootstrap: int = 1000,
    seed: int = 0,
    other: Path | None = None,
    by: Sequence[SliceBy] = (),
    published: bool = False,
    say: Say = print,
) -> FileEvaluation:
    """Score the predictions; other: a file of further ones to compare with; by: what to slice by.

    Raises SdgError for a fault in the other file, and where its paths differ.
    """
    joined = files.joined
    options: dict[str, Any] = {"embedder": embedder, "matching": matching}
    result = evaluate(joined.truth, joined.predicted, bootstrap=bootstrap, seed=seed, **options)
    comparison = other_status = None
    if other is not None:
        scored = evaluate(joined.truth, _rejoined(files, other, say), **options)
        comparison = compare(result, scored, resamples=bootstrap, seed=seed)
        other_status = dict(scored.status)
    parts = {name: slices(result, name, joined.generators) for name in by}
    for name in (name for name, part in parts.items() if not part):
        say(f"No slices by {name}: the truth names none.")
    return FileEvaluation(files, result, other, comparison, other_status, parts, published)


def _check(joined: Joined, truth: Path, predictions: Path, allow_missing: bool, say: Say) -> None:
    """Every path has one truth and one prediction, or the user knows that some have not."""
    if not joined.paths:
        raise SdgError(
            f"{truth} and {predictions} share no image: {joined.mismatch()}. "
            "Paths pair them as they are written; `sdg diagnose` keeps those of an annotation file."
        )
    if joined.is_complete:
        return
    found = f"{truth} and {predictions} do not match: {joined.mismatch()}"
    if not allow_missing:
        raise SdgError(
            f"{found}; correct the files, or evaluate the {len(joined.paths):,} images they share "
            "with --allow-missing."
        )
    say(f"{found}; evaluated are the {len(joined.paths):,} images they share.")


def _rejoined(files: JoinedFiles, other: Path, say: Say) -> list[Diagnosis]:
    """The other predictions of the same images; those it lacks count as failed, so both leave them out."""
    joined = files.joined
    pairs = zip(joined.paths, joined.truth, strict=True)
    records = read_records(other, box_order=files.box_order)
    second = join((Record(path, "", diagnosis) for path, diagnosis in pairs), records)
    _check(second, files.predictions, other, files.allow_missing, say)
    found = dict(zip(second.paths, second.predicted, strict=True))
    return [found.get(path) or Diagnosis(status=Status.FAILED) for path in joined.paths]
