"""The protocol as a function of what is on the server: what holds, what is missing, what goes back to whom.

Two passes by each annotator, rounds of review, and adjudication where two annotators disagree (SDG §3.3,
App. A). Nothing is remembered between calls: whatever a person saved settles the next task, so a server or a
command that dies in between loses nothing and asks for nothing twice.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sdg.annotate.assignment import Assignment
from sdg.annotate.results import REJECT, Review, read_annotation, read_review, salvaged
from sdg.data.formats.label_studio import write_regions
from sdg.defects import Diagnosis
from sdg.errors import reasons
from sdg.matching import same_defects

PASS_1: Final = "pass-1"
PASS_2: Final = "pass-2"
ADJUDICATION: Final = "adjudication"
AGREED: Final = 0.5
"""IoU from which two annotators mean the same defect."""


def review_phase(number: int) -> str:
    """The phase of a round of review, from 1."""
    return f"review-{number}"


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the study: its name there, which tells nothing, path, prompt, file, size and people."""

    id: str
    filepath: str
    prompt: str
    file: str
    size: tuple[int, int]
    people: Assignment
    proposal: Diagnosis | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A task on the server. source: what it shows, "" where that is the picture alone."""

    id: int
    picture: str
    attempt: int
    source: str
    annotations: Sequence[Mapping[str, Any]]


Project = tuple[str, str]
"""Phase and person."""
Snapshot = Mapping[Project, Sequence[Task]]
"""All tasks of a study."""


@dataclass(frozen=True, slots=True)
class Need:
    """A task that has to be on the server and is not. note: why it came back. seed: what is drawn already."""

    phase: str
    person: str
    picture: Picture
    attempt: int
    source: str
    note: str
    seed: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody entered, and it is sound. key: of the annotation and what it says; seconds: of work."""

    person: str
    key: str
    attempt: int
    diagnosis: Diagnosis
    seconds: float
    review: Review | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """One annotator's way to a result: both passes, and every review. diagnosis: None until it holds."""

    annotator: str
    first: Answer | None
    second: Answer | None
    reviews: tuple[tuple[int, Answer], ...] = ()
    diagnosis: Diagnosis | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a picture is; diagnosis: None until it is finished."""

    picture: Picture
    chains: tuple[Chain, ...]
    adjudication: Answer | None
    diagnosis: Diagnosis | None


@dataclass(slots=True)
class Progress:
    """One person in one phase: tasks given, done, and of the open ones those that came back; seconds."""

    given: int = 0
    done: int = 0
    back: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class State:
    """All that a snapshot says."""

    outcomes: tuple[Outcome, ...]
    needs: tuple[Need, ...]
    progress: Mapping[Project, Progress] = field(repr=False)

    @property
    def finished(self) -> tuple[Outcome, ...]:
        """The pictures that went the whole way."""
        return tuple(one for one in self.outcomes if one.diagnosis is not None)


def evaluate(pictures: Iterable[Picture], snapshot: Snapshot, emails: Mapping[int, str]) -> State:
    """What holds and what is needed. emails: of the server's users, by number."""
    reader = _Reader(snapshot, emails)
    outcomes = tuple(reader.outcome(picture) for picture in pictures)
    return State(outcomes, tuple(reader.needs), reader.progress)


def agree(one: Diagnosis, other: Diagnosis) -> bool:
    """Whether two annotators mean the same defects: each has its partner of the same type, IoU ≥ AGREED."""
    same = same_defects(one.defects, other.defects, AGREED)
    return len(one.defects) == len(other.defects) == len(same)


class _Reader:
    def __init__(self, snapshot: Snapshot, emails: Mapping[int, str]) -> None:
        self._emails = emails
        self._tasks: dict[tuple[str, str, str, str], dict[int, list[Task]]] = defaultdict(dict)
        for (phase, person), tasks in snapshot.items():
            for task in tasks:
                attempts = self._tasks[phase, person, task.picture, task.source]
                attempts.setdefault(task.attempt, []).append(task)
        self.needs: list[Need] = []
        self.progress: dict[Project, Progress] = defaultdict(Progress)

    def outcome(self, picture: Picture) -> Outcome:
        people = picture.people
        chains = tuple(self._chain(picture, person) for person in people.annotators)
        results = [chain.diagnosis for chain in chains if chain.diagnosis is not None]
        if len(results) < len(chains):
            return Outcome(picture, chains, None, None)
        if len(results) == 1 or agree(*results):
            return Outcome(picture, chains, None, results[0])
        assert people.adjudicator is not None, "two annotators have an adjudicator"
        seed = [
            region
            for name, result in zip(("first", "second"), results, strict=True)
            for region in write_regions(result, name, picture.size)
        ]
        source = _digest([result.to_dict() for result in results])
        answer = self._answer(ADJUDICATION, people.adjudicator, picture, source, seed)
        return Outcome(picture, chains, answer, None if answer is None else answer.diagnosis)

    def _chain(self, picture: Picture, person: str) -> Chain:
        proposed = write_regions(picture.proposal, "proposal", picture.size)
        first = self._answer(PASS_1, person, picture, "", proposed)
        if first is None:
            return Chain(person, None, None)
        seed = write_regions(first.diagnosis, "pass-1", picture.size)
        second = self._answer(PASS_2, person, picture, "", seed)
        earlier = self._earlier(PASS_2, person, picture)
        entries = [
            entry
            for answer in earlier
            if second is None or answer.key != second.key
            for entry in self._reviews(picture, answer, needed=False)
        ]
        if second is None:
            return Chain(person, first, None, tuple(entries))
        reviews = self._reviews(picture, second, needed=True)
        entries += reviews
        if len(reviews) == len(picture.people.reviewers) and not _rejected(reviews):
            last = reviews[-1][1] if reviews else second
            return Chain(person, first, second, tuple(entries), last.diagnosis)
        if _rejected(reviews):
            number, rejection = reviews[-1]
            assert rejection.review is not None
            note = f"Review {number} asks for another look: {rejection.review.comment}"
            seed = write_regions(second.diagnosis, "pass-2", picture.size)
            self.needs.append(Need(PASS_2, person, picture, second.attempt + 1, "", note, seed))
        return Chain(person, first, second, tuple(entries))

    def _reviews(self, picture: Picture, shown: Answer, needed: bool) -> list[tuple[int, Answer]]:
        """The rounds that a pass has been through, in order, up to the first that rejects it."""
        found: list[tuple[int, Answer]] = []
        for number, reviewer in enumerate(picture.people.reviewers, start=1):
            seed = write_regions(shown.diagnosis, "shown", picture.size)
            answer = self._answer(
                review_phase(number), reviewer, picture, shown.key, seed, shown.diagnosis, needed=needed
            )
            if answer is None:
                break
            found.append((number, answer))
            if _rejected(found):
                break
            shown = answer
        return found

    def _answer(
        self,
        phase: str,
        person: str,
        picture: Picture,
        source: str,
        seed: Sequence[Any],
        shown: Diagnosis | None = None,
        *,
        needed: bool = True,
    ) -> Answer | None:
        """The last attempt where it is sound; otherwise None, and if `needed` the task that is missing."""
        attempts = self._tasks.get((phase, person, picture.id, source), {})
        progress = self.progress[phase, person] if attempts or needed else Progress()
        if not attempts:
            if needed:
                self.needs.append(Need(phase, person, picture, 1, source, "", seed))
            return None
        last = max(attempts)
        given = {attempt: self._entered(tasks, person) for attempt, tasks in attempts.items()}
        seconds = sum(_seconds(one) for entries in given.values() for one in entries)
        annotation = _latest(given[last])
        progress.given += 1
        progress.seconds += seconds
        if annotation is None:
            progress.back += last > 1
            return None
        try:
            answer = self._read(annotation, person, last, seconds, shown)
        except ValueError as error:
            progress.back += 1
            if needed:
                note = "This came back: " + " ".join(reasons(error))
                own = self._is_by(annotation, person)
                kept = salvaged(annotation.get("result") if own else None)
                again = write_regions(kept, "kept", picture.size) if kept.defects else seed
                self.needs.append(Need(phase, person, picture, last + 1, source, note, again))
            return None
        progress.done += 1
        return answer

    def _earlier(self, phase: str, person: str, picture: Picture) -> list[Answer]:
        """The sound answers of all attempts but the last."""
        attempts = self._tasks.get((phase, person, picture.id, ""), {})
        found = []
        for attempt in sorted(attempts)[:-1]:
            annotation = _latest(self._entered(attempts[attempt], person))
            try:
                if annotation is not None:
                    found.append(self._read(annotation, person, attempt, 0.0, None))
            except ValueError:
                continue
        return found

    def _entered(self, tasks: Iterable[Task], person: str) -> list[Mapping[str, Any]]:
        """What the task's person entered; where that is nothing, what others did, which will not hold."""
        entries = [one for task in tasks for one in task.annotations]
        return [one for one in entries if self._is_by(one, person)] or entries

    def _is_by(self, annotation: Mapping[str, Any], person: str) -> bool:
        return self._who(annotation).casefold() == person.casefold()

    def _who(self, annotation: Mapping[str, Any]) -> str:
        return self._emails.get(_number(annotation.get("completed_by")), "somebody unknown")

    def _read(
        self,
        annotation: Mapping[str, Any],
        person: str,
        attempt: int,
        seconds: float,
        shown: Diagnosis | None,
    ) -> Answer:
        if not self._is_by(annotation, person):
            raise ValueError(f"It was entered by {self._who(annotation)}, and it is the task of {person}.")
        if annotation.get("was_cancelled"):
            raise ValueError("It was skipped; a picture without defects gets one box with 'no problem'.")
        results = annotation.get("result")
        review = None
        if shown is None:
            diagnosis = read_annotation(results)
        else:
            review, diagnosis = read_review(results, shown)
        key = f"{annotation.get('id')}-{_digest(diagnosis.to_dict())}"
        return Answer(person, key, attempt, diagnosis, seconds, review)


def _rejected(reviews: Sequence[tuple[int, Answer]]) -> bool:
    last = reviews[-1][1].review if reviews else None
    return last is not None and last.verdict == REJECT


def _latest(annotations: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """What was entered last; something skipped counts only where nothing else is there."""
    return max(
        annotations, key=lambda one: (not one.get("was_cancelled"), _number(one.get("id"))), default=None
    )


def _seconds(annotation: Mapping[str, Any]) -> float:
    """The time somebody took, as Label Studio's page measures it."""
    value = annotation.get("lead_time")
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6
    return float(value) if known else 0.0  # type: ignore[arg-type]


def _number(value: object) -> int:
    if isinstance(value, Mapping):  # a user in full
        value = value.get("id")
    return value if type(value) is int else 0


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
