"""`sdg data enrich`: training targets from short annotations, written by a teacher and checked (SDG App. B).

`OUT.run.json` says with what the run was begun, `OUT.partial` collects what was answered, `OUT` appears once
nothing is left to ask, and `OUT.left.jsonl` holds what no answer was acceptable for, with the reasons.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from sdg.data.formats.sdg30k import to_annotation
from sdg.defects import Diagnosis, Status
from sdg.detectors.bulk import stopping
from sdg.errors import SdgError
from sdg.images import load_image
from sdg.io import jsonl
from sdg.io.files import read_bytes
from sdg.io.http import is_unsent
from sdg.response import format_fault, render_response
from sdg.runs.begin import read_settings, write_settings
from sdg.runs.journal import Key, Row, begin_file, earlier, journal, manifest_of, partial_of, require_once
from sdg.tables import Table
from sdg.teacher.acceptance import IsEnglish, Unacceptable, accepted, english_check
from sdg.teacher.plan import Given, Plan, Stage
from sdg.teacher.votes import Votes, count_votes

PROVENANCE: Final = "teacher"
"""Key of a record's metadata that says who wrote its texts, when, asked how, and what was given."""
OPEN, ACCEPTED, LEFT, UNANSWERED = "open", "accepted", "left", "unanswered"
_LEFT: Final = "left"  # key of the manifest for digests of OUT.left.jsonl as it was written
MOST_OF_AN_ANSWER: Final = 20_000
"""Characters of an unacceptable answer that are kept."""


@dataclass(frozen=True, slots=True)
class Enriched:
    """What a run came to, over all of its beginnings.

    statuses: pictures accepted, left for a person, unanswered and open. faults: why answers were refused, by
    kind. requests: sent so far. exhausted: whether `max_requests` ended it.
    """

    images: int
    statuses: Counter[str]
    faults: Counter[str]
    requests: int
    exhausted: bool
    votes: Votes
    rows: Mapping[Key, Row] = field(repr=False)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to ask."""
        return not (self.statuses[OPEN] or self.statuses[UNANSWERED])

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "images": self.images,
            "accepted": self.statuses[ACCEPTED],
            "left": self.statuses[LEFT],
            "unanswered": self.statuses[UNANSWERED],
            "open": self.statuses[OPEN],
            "requests": self.requests,
            "faults": dict(self.faults.most_common()),
            "votes": self.votes.to_dict(),
        }

    def tables(self) -> list[Table]:
        """The same, to print."""
        counts = [(name, f"{self.statuses[name]:,}") for name in (ACCEPTED, LEFT, UNANSWERED, OPEN)]
        rows = (*counts, ("requests sent", f"{self.requests:,}"))
        tables = [Table("Pictures", ("", "pictures"), rows)]
        if self.faults:
            refused = tuple((kind, f"{count:,}") for kind, count in self.faults.most_common())
            tables.append(Table("Refused answers", ("fault", "answers"), refused))
        return [*tables, self.votes.table()] if self.votes.pairs else tables


def left_of(out: Path) -> Path:
    """Where the annotations are that no acceptable answer came for."""
    return out.with_name(out.name.removesuffix(".jsonl") + ".left.jsonl")


def enrich(
    given: Sequence[Given],
    out: str | os.PathLike[str],
    plan: Plan,
    *,
    resume: bool = False,
    only: Collection[int] | None = None,
    on_row: Callable[[Row], object] | None = None,
) -> Enriched:
    """Have every picture's annotation written out, and write what is accepted to `out`, in the order given.

    Its lines are those of SDG-30K's annotations, with `ann_response` as the target and the provenance under
    `teacher`. Each answer counts once it is in OUT.partial; what was answered is never asked for again, what
    was left only with more `tries` than before. only: indices of the pictures to ask about for now, such as
    a sample's; then `out` is not written. on_row is told of each answer's row.
    Raises SdgError where an output exists already or was begun otherwise, where a picture is there twice,
    where OUT.left.jsonl is not as this run has left it, where the model does not load, and where files
    cannot be written.
    """
    out = Path(out)
    if not given:
        raise SdgError("There are no annotated pictures to enrich.")
    keys = [one.key for one in given]
    require_once(keys, "picture")
    is_english = english_check()
    with begin_file(out, plan.settings(), resume):
        _require_own_left(out)
        stored = earlier(out, _keyed, set(keys), "picture")
        rows = {one.key: _begun(one, stored.get(one.key), plan) for one in given}
        before = sum(row["requests"] for row in rows.values())
        chosen = [given[index] for index in (range(len(given)) if only is None else sorted(only))]
        with journal(partial_of(out), on_row) as append:
            run = _Run(plan, rows, append, is_english, before)
            for stage in plan.stages:
                run.stage(stage, chosen)
        result = _summary(run)
        if result.complete:
            _finish(out, given, rows)
    return result


def choose_sample(given: Sequence[Given], number: int) -> list[int]:
    """Indices of so many pictures, evenly from first to last, the same ones every time."""
    number = min(number, len(given))
    return [index * len(given) // number for index in range(number)]


@dataclass(slots=True)
class _Run:
    """A run while it goes on: the state of each picture, kept in the journal after every answer."""

    plan: Plan
    rows: dict[Key, Row]
    append: Callable[[Row], None]
    is_english: IsEnglish
    requests: int
    exhausted: bool = False

    def stage(self, stage: Stage, given: Sequence[Given]) -> None:
        """Ask about each picture that has come to this stage until its answer is accepted, or left."""
        silent: set[Key] = set()
        model = None
        for _ in range(self.plan.tries):
            self._pass_over(stage, given)
            waiting = [one for one in given if self._is_waiting(one, stage) and one.key not in silent]
            if not waiting:
                return
            while waiting:  # pictures that cannot be read leave room for others
                free = len(waiting)
                if self.plan.max_requests is not None:
                    free = max(0, self.plan.max_requests - self.requests)
                if not free:
                    self.exhausted = True
                    return
                asked, waiting = waiting[:free], waiting[free:]
                model = model or stage.load()
                pairs = [(one.file, self._question(stage, one)) for one in asked]
                with stopping(model):
                    for place, outcome in model.stream(pairs):
                        one = asked[place]
                        self._take(stage, one, outcome)
                        if self.rows[one.key]["status"] == UNANSWERED:
                            silent.add(one.key)

    def _pass_over(self, stage: Stage, given: Sequence[Given]) -> None:
        for one in given:
            if self._is_waiting(one, stage) and not stage.asks(one):
                self._advance(stage, one)
                self.append(self.rows[one.key])

    def _is_waiting(self, one: Given, stage: Stage) -> bool:
        row = self.rows[one.key]
        return row["status"] in (OPEN, UNANSWERED) and row["stage"] == stage.name

    def _question(self, stage: Stage, one: Given) -> str:
        row = self.rows[one.key]
        again = (row["answer"], row["faults"][-1]["fault"]) if row["tries"] else None
        return stage.question.text(one.record.prompt, _so_far(one, row, stage), again)

    def _take(self, stage: Stage, one: Given, found: Diagnosis) -> None:
        row = self.rows[one.key]
        if found.status is not Status.FAILED or (not is_unsent(found.error) and _is_readable(one)):
            self.requests += 1
            row["requests"] += 1
        if found.status is Status.FAILED:
            row |= {"status": UNANSWERED, "error": found.error}
        else:
            row.pop("error", None)
            try:
                self._keep(stage, one, found)
                row.pop("answer", None)
                row["tries"] = 0
                self._advance(stage, one)
            except Unacceptable as error:
                row["faults"].append({"stage": stage.name, "kind": error.kind, "fault": str(error)})
                row["answer"] = found.raw[:MOST_OF_AN_ANSWER]
                row["tries"] += 1
                row["status"] = LEFT if row["tries"] >= self.plan.tries else OPEN
        self.append(row)

    def _keep(self, stage: Stage, one: Given, found: Diagnosis) -> None:
        """Put what an answer brings into the picture's row; raises Unacceptable."""
        row = self.rows[one.key]
        written = accepted(
            found.raw,
            one.diagnosis,
            one.record.prompt,
            stage.question,
            self.is_english,
            cut_off=found.status is Status.TRUNCATED,
        )
        if stage.votes:
            row["votes"][stage.model] = list(written.importances or ())
            return
        row["written"] |= {name: value for name, value in asdict(written).items() if value is not None}
        fault = _target_fault(_so_far(one, row))
        if fault is not None:
            raise Unacceptable("format", fault)

    def _advance(self, stage: Stage, one: Given) -> None:
        """On to the next stage; after the last one the annotation is made."""
        row, names = self.rows[one.key], [stage.name for stage in self.plan.stages]
        after = names[names.index(stage.name) + 1 :]
        row["status"], row["stage"] = (OPEN, after[0]) if after else (ACCEPTED, "")
        if not after:
            row["annotation"] = _annotation(one, row, self.plan)
            del row["written"]


def _is_readable(one: Given) -> bool:
    """Whether there is a picture to send."""
    try:
        load_image(one.file)
    except SdgError:
        return False
    return True


def _begun(one: Given, stored: Row | None, plan: Plan) -> Row:
    """The row of a picture to go on with: an earlier one, or none yet; what was asked of it stays counted."""
    if stored is None or stored["source"] != one.source:
        return {
            "filepath": one.record.filepath,
            "caption": one.record.prompt,
            "source": one.source,
            "status": OPEN,
            "stage": plan.stages[0].name,
            "tries": 0,
            "requests": 0 if stored is None else stored["requests"],
            "faults": [],
            "written": {},
            "votes": {},
        }
    if stored["status"] == LEFT and stored["tries"] < plan.tries:
        return {**stored, "status": OPEN}
    return stored


def _so_far(one: Given, row: Row, stage: Stage | None = None) -> Diagnosis:
    """The annotation with what has been written so far; without `stage`, with what the votes made of it."""
    written = row["written"]
    reasons = written.get("reasons") or [defect.reason for defect in one.diagnosis.defects]
    importances = written.get("importances") or [defect.importance for defect in one.diagnosis.defects]
    if row["votes"] and stage is None:
        scores = zip(importances, *row["votes"].values(), strict=True)
        importances = [int(median(values) + 0.5) for values in scores]
    defects = tuple(
        replace(defect, reason=reason, importance=importance)
        for defect, reason, importance in zip(one.diagnosis.defects, reasons, importances, strict=True)
    )
    return Diagnosis(defects, written.get("reasoning", one.diagnosis.reasoning))


def _target_fault(diagnosis: Diagnosis) -> str | None:
    """What is wrong with the target, as far as it is written; None where it is what training takes."""
    return format_fault(
        render_response(diagnosis),
        require_description=all(defect.reason for defect in diagnosis.defects),
        require_importance=all(defect.importance for defect in diagnosis.defects),
    )


def _annotation(one: Given, row: Row, plan: Plan) -> dict[str, Any]:
    """The line of the output, with its provenance."""
    defects = one.diagnosis.defects
    provenance: dict[str, Any] = {
        "model": plan.stages[0].model,
        "jobs": list(plan.jobs),
        "wording": [stage.question.digest for stage in plan.stages if not stage.votes],
        "date": datetime.now(UTC).date().isoformat(),
        "requests": row["requests"],
        "source": row["source"],
        "given": {"reasons": [d.reason for d in defects], "importances": [d.importance for d in defects]},
    }
    if row["votes"]:
        provenance["votes"] = {provenance["model"]: row["written"]["importances"], **row["votes"]}
    metadata = {**one.record.metadata, PROVENANCE: provenance}
    return to_annotation(replace(one.record, diagnosis=_so_far(one, row), metadata=metadata))


def _finish(out: Path, given: Sequence[Given], rows: Mapping[Key, Row]) -> None:
    """Write what was accepted and what is left; the journal stays as long as anything is left."""
    ordered = [(one, rows[one.key]) for one in given]
    lines = [row["annotation"] for _, row in ordered if row["status"] == ACCEPTED]
    left = [_left(one, row) for one, row in ordered if row["status"] == LEFT]
    digest = _require_own_left(out)  # again: it may have been mended meanwhile
    jsonl.write_objects(out, lines)
    if left:
        written = hashlib.sha256(b"".join(map(jsonl.dump_object, left))).hexdigest()
        # Before the file, for a kill in between; with that of the one that is still there.
        settings = read_settings(out, manifest_of(out))
        write_settings(manifest_of(out), {**settings, _LEFT: [digest, written]})
        jsonl.write_objects(left_of(out), left)
        return
    left_of(out).unlink(missing_ok=True)
    partial_of(out).unlink()


def _require_own_left(out: Path) -> str | None:
    """The digest of OUT.left.jsonl, None without one; SdgError where it is not as this run has written it."""
    left = left_of(out)
    if not left.exists():
        return None
    digest = hashlib.sha256(read_bytes(left)).hexdigest()
    if digest not in read_settings(out, manifest_of(out)).get(_LEFT, ()):
        raise SdgError(
            f"{left} would be replaced, and it was changed by hand or is of another run; "
            "move it elsewhere first."
        )
    return digest


def _left(one: Given, row: Row) -> dict[str, Any]:
    """An annotation as it was given, with why nothing was accepted for it."""
    why = {"left": [fault["fault"] for fault in row["faults"]], "answer": row.get("answer", "")}
    metadata = {**one.record.metadata, PROVENANCE: why}
    return to_annotation(replace(one.record, metadata=metadata))


def _summary(run: _Run) -> Enriched:
    rows = run.rows
    return Enriched(
        images=len(rows),
        statuses=Counter(row["status"] for row in rows.values()),
        faults=Counter(fault["kind"] for row in rows.values() for fault in row["faults"]),
        requests=run.requests,
        exhausted=run.exhausted,
        votes=count_votes(row["annotation"] for row in rows.values() if row["status"] == ACCEPTED),
        rows=rows,
    )


def _keyed(row: Mapping[str, Any]) -> tuple[Key, Row]:
    """Key and row of a line of the journal, or of the output."""
    key = row.get("filepath"), row.get("caption")
    if isinstance(key[0], str) and isinstance(key[1], str):
        if "status" in row and "stage" in row and "source" in row:
            return (key[0], key[1]), dict(row)
        told = row.get(PROVENANCE)
        if isinstance(told, Mapping) and "source" in told and "ann_translated_bboxes" in row:
            kept = {"source": told["source"], "requests": told.get("requests", 0)}
            known = {"filepath": key[0], "caption": key[1], "status": ACCEPTED, "stage": "", "tries": 0}
            return (key[0], key[1]), {**known, **kept, "faults": [], "votes": {}, "annotation": dict(row)}
    raise ValueError("This is no line that `sdg data enrich` wrote.")
