"""The stages of a teacher's run: which model is asked which jobs, one after another, for each picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sdg.defects import Diagnosis
from sdg.detectors import StreamingDetector, load_detector
from sdg.errors import SdgError, quoted
from sdg.io.paths import data_path
from sdg.io.uri import split_options
from sdg.prompting.teaching import JOBS, WORDS, Job, Question
from sdg.records import Record
from sdg.runs.journal import Key


@dataclass(frozen=True, slots=True)
class Given:
    """An annotated picture as it was given, and the file it lies in."""

    record: Record
    diagnosis: Diagnosis
    file: Path

    @property
    def key(self) -> Key:
        """What tells the pictures of a run apart."""
        return self.record.filepath, self.record.prompt

    @property
    def source(self) -> str:
        """Twelve hexadecimal digits of what was given, so that what has changed since is asked for anew."""
        text = json.dumps(self.record.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Stage:
    """One request for each picture: to whom, what; whether it votes on importance only."""

    name: str
    uri: str
    question: Question
    votes: bool = False

    @property
    def model(self) -> str:
        """What provenance and manifests call the model: without its server's address and its options."""
        place = split_options(self.uri)[0]
        return place.partition("#")[2] or place

    def asks(self, one: Given) -> bool:
        """Whether there is anything to ask about a picture: about a clean one, its trace alone."""
        return bool(one.diagnosis.defects) or "think" in self.question.jobs

    def load(self) -> StreamingDetector:
        """The model, asked in the question's own wording; raises SdgError as `load_detector` does."""
        options = split_options(self.uri)[1]
        if "profile" in options:
            raise SdgError(
                f"A teacher is asked in wording of its own; leave profile out of {quoted(self.uri)}."
            )
        own = self.uri.startswith(("python:", "replay:"))  # whose words are their own affair
        return load_detector(self.uri) if own else load_detector(self.uri, profile=self.question.profile)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do.

    teacher: a detector's URI. jobs: of `JOBS`; apart: a request for each instead of one for all. words: of a
    reason, from and to. voters: further models that score the importance, of which the median is kept.
    tries: how often a picture is asked about in a stage until its answer is accepted. max_requests: of the
    whole run, those of earlier beginnings included. Raises SdgError for settings that fit no run.
    """

    teacher: str
    jobs: tuple[Job, ...] = JOBS
    apart: bool = False
    words: tuple[int, int] = WORDS
    voters: tuple[str, ...] = ()
    tries: int = 3
    max_requests: int | None = None

    def __post_init__(self) -> None:
        if not self.jobs or set(self.jobs) - set(JOBS):
            raise SdgError(f"A teacher's jobs are {', '.join(JOBS)}, not {', '.join(self.jobs) or 'none'}.")
        if not 1 <= self.words[0] <= self.words[1]:
            raise SdgError(f"A reason has from 1 word up, such as 18 to 45, not {self.words}.")
        if self.voters and "importance" not in self.jobs:
            raise SdgError("Others vote on the importance; have the teacher score it too.")
        names = [stage.model for stage in self.stages if stage.votes]
        if len({self.stages[0].model, *names}) <= len(names):
            raise SdgError("Teacher and voters have to be different models.")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in order."""
        jobs = tuple(job for job in JOBS if job in self.jobs)
        groups = [(job,) for job in jobs] if self.apart else [jobs]
        asked = [Stage("+".join(group), self.teacher, Question(group, self.words)) for group in groups]
        scores = Question(("importance",), self.words)
        votes = [
            Stage(f"vote {number}", uri, scores, votes=True)
            for number, uri in enumerate(self.voters, start=1)
        ]
        return (*asked, *votes)

    def settings(self) -> dict[str, object]:
        """What the results depend on, for the run's manifest."""
        return {
            "enrich": [
                {"stage": stage.name, "model": stage.model, "wording": stage.question.digest}
                for stage in self.stages
            ]
        }


def prepare(
    records: Iterable[Record], images: Path, *, allow_outside: bool = False
) -> tuple[list[Given], list[Record]]:
    """The annotated pictures, and the records of which nothing is known.

    images: the folder that paths are relative to. Raises SdgError where a path leads out of it.
    """
    given: list[Given] = []
    unknown: list[Record] = []
    for record in records:
        if record.diagnosis is None or not record.diagnosis.is_whole:
            unknown.append(record)
            continue
        file = data_path(record.filepath, images, allow_outside=allow_outside)
        given.append(Given(record, record.diagnosis, file))
    return given, unknown
