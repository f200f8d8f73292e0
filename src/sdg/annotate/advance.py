"""Moving a study on: read what is on the server, add the tasks that are missing, collect what is finished."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sdg.annotate.api import Server, picture_address
from sdg.annotate.protocol import (
    ADJUDICATION,
    PASS_1,
    PASS_2,
    Chain,
    Need,
    Outcome,
    Project,
    State,
    Task,
    evaluate,
    review_phase,
)
from sdg.annotate.results import ACCEPT, COMMENT, FIX, REJECT, VERDICT
from sdg.annotate.study import FILES, Study, held
from sdg.data.formats.label_studio import header, labelling_config
from sdg.defects import Diagnosis
from sdg.errors import SdgError
from sdg.evaluation.agreement import Agreement, agreement, pair_annotators
from sdg.evaluation.result import cell
from sdg.io.paths import real_path
from sdg.records import Record
from sdg.tables import Table

_ASKED: Final = {
    PASS_1: "Mark everything that is wrong with the picture, or that contradicts its prompt",
    PASS_2: "Your first pass is drawn. Go over the whole picture once more: what did you miss?",
    "review": "Somebody annotated this. Accept it, fix it yourself, or reject it and say why",
    ADJUDICATION: "Two people annotated this and disagree. Keep what is right, mend or delete the rest",
}
_DRAWN: Final = {  # what the regions are called that a task begins with
    PASS_1: "proposals",
    PASS_2: "your first pass",
    "review": "to review",
    ADJUDICATION: "two annotations",
}
_REVIEW: Final = f"""    {header("Verdict on what is drawn")}
    <Choices name="{VERDICT}" toName="image" choice="single" showInline="true" required="true"
             requiredMessage="Accept, fix or reject">
      <Choice value="{ACCEPT}"/>
      <Choice value="{FIX}"/>
      <Choice value="{REJECT}"/>
    </Choices>
    <TextArea name="{COMMENT}" toName="image" rows="2" editable="true" maxSubmissions="1"
              showSubmitButton="false"
              placeholder="Comment; a rejection needs one"/>
"""


@dataclass(frozen=True, slots=True)
class Added:
    """Tasks that were added for one person in one phase; back: of these, what they are to look at again."""

    phase: str
    person: str
    tasks: int
    back: int


def phases(study: Study) -> list[str]:
    """The phases of a study in their order."""
    reviews = [review_phase(number) for number in range(1, study.settings.reviews + 1)]
    return [PASS_1, PASS_2, *reviews, *([ADJUDICATION] if study.settings.share else [])]


def look(study: Study, server: Server) -> State:
    """How far a study is, by what is on the server; nothing is changed.

    Raises SdgError where the server holds none of its projects: it is another one, or a new one.
    """
    return _look(study, server, _begun(study, server))


def advance(study: Study, server: Server, *, begins: bool = False) -> tuple[State, list[Added]]:
    """Add every task that what was entered so far calls for; the state before, and what was added.

    That is the next pass, review or adjudication of each picture, and what goes back to whoever entered it,
    with the reason. begins: whether the server may hold nothing of the study yet.
    Raises SdgError where it holds nothing and may not, where it refuses, or shows no pictures; what was added
    before stays.
    """
    with held(study):
        projects = _projects(study, server) if begins else _begun(study, server)
        state = _look(study, server, projects)
        wanted: dict[Project, list[Need]] = defaultdict(list)
        for need in state.needs:
            wanted[need.phase, need.person].append(need)
        order = phases(study)
        added: list[Added] = []
        for project in sorted(wanted, key=lambda one: (order.index(one[0]), one[1])):
            needs = wanted[project]
            number = projects.get(project) or server.create_project(
                " · ".join(project), _description(study, project), _config(project[0]), _asked(project[0])
            )
            server.serve_pictures(number, real_path(study.folder / FILES / "pictures"))
            tasks = [_task(study, need) for need in needs]
            if not added:
                server.require_picture(tasks[0]["data"]["image"])
            server.add_tasks(number, tasks)
            added.append(Added(*project, len(needs), sum(need.attempt > 1 for need in needs)))
    return state, added


def rows(study: Study, outcomes: Iterable[Outcome]) -> Iterator[Record]:
    """A record for each finished picture, with how it came to be in its metadata."""
    for outcome in outcomes:
        if outcome.diagnosis is None:
            continue
        metadata: dict[str, Any] = {"annotation": [_history(chain) for chain in outcome.chains]}
        if outcome.adjudication is not None:
            metadata["adjudicator"] = outcome.adjudication.person
        if study.settings.proposals:
            metadata["proposals"] = study.settings.proposals
        yield _row(outcome, outcome.diagnosis, outcome.chains[0].annotator, metadata)


def opinions(state: State) -> Iterator[Record]:
    """What each annotator said by themselves of pictures that two annotate: their last pass, unreviewed."""
    for outcome in state.outcomes:
        if len(outcome.chains) > 1:
            for chain in outcome.chains:
                if chain.second is not None:
                    yield _row(outcome, chain.second.diagnosis, chain.annotator, {"pass": 2})


def _row(outcome: Outcome, found: Diagnosis, annotator: str, metadata: dict[str, Any]) -> Record:
    picture = outcome.picture
    return Record(picture.filepath, picture.prompt, found, annotator=annotator, metadata=metadata)


def agreed_so_far(state: State, embedder: Any = None) -> Agreement | None:
    """How far annotators of the same pictures agree before any review; None where no two are done."""
    pairs, skipped = pair_annotators(opinions(state))
    return agreement(pairs, skipped, embedder=embedder) if pairs else None


def progress_table(study: Study, state: State) -> Table:
    """Who has done how much of what, and the minutes each picture took them."""
    lines = []
    for phase in phases(study):
        for person in study.settings.people:
            found = state.progress.get((phase, person))
            if found is None or not found.given:
                continue
            minutes = f"{found.seconds / 60 / found.done:.1f}" if found.done else "–"
            lines.append((phase, person, f"{found.given:,}", f"{found.done:,}", f"{found.back:,}", minutes))
    title = f"{len(state.finished):,} of {len(state.outcomes):,} pictures are finished"
    return Table(title, ("phase", "person", "given", "done", "came back", "minutes a picture"), tuple(lines))


def agreement_table(found: Agreement) -> Table:
    """BoxF1 of the second annotator against the first, by type."""
    scores = found.forward.to_dict()
    names = ("BoxF1@0.1", "BoxF1@0.5", "ImpAcc@0.1")
    lines = tuple((kind, *(cell(scores[kind][name]) for name in names)) for kind in scores)
    return Table(f"Agreement on {len(found.pairs):,} pictures so far", ("type", *names), lines)


def _history(chain: Chain) -> dict[str, Any]:
    """One annotator's way to a result, for a row's metadata."""
    assert chain.first is not None
    assert chain.second is not None
    value: dict[str, Any] = {
        "annotator": chain.annotator,
        "pass": 2,
        "added_in_pass_2": len(chain.second.diagnosis.defects) - len(chain.first.diagnosis.defects),
        "minutes": round((chain.first.seconds + chain.second.seconds) / 60, 2),
        "reviews": [],
    }
    for number, answer in chain.reviews:
        assert answer.review is not None
        entry = {"round": number, "reviewer": answer.person, "verdict": answer.review.verdict}
        if answer.review.comment:
            entry["comment"] = answer.review.comment
        value["reviews"].append(entry)
    return value


def _description(study: Study, project: Project) -> str:
    """What a project of the study is known by on the server."""
    return f"SDG study {study.id}, {project[0]}, {project[1]}"


def _projects(study: Study, server: Server) -> dict[Project, int]:
    known = {
        _description(study, (phase, person)): (phase, person)
        for phase in phases(study)
        for person in study.settings.people
    }
    return {known[text]: number for number, text in server.projects() if text in known}


def _begun(study: Study, server: Server) -> dict[Project, int]:
    projects = _projects(study, server)
    if not projects:
        raise SdgError(
            f"{server.url} holds no project of the study in {study.folder}. Name the server that it was "
            "begun on, with --url or LABEL_STUDIO_URL; or begin it on this one with `sdg annotate start` and "
            "the same arguments."
        )
    return projects


def _look(study: Study, server: Server, projects: Mapping[Project, int]) -> State:
    snapshot = {project: _tasks(server.tasks(number)) for project, number in projects.items()}
    return evaluate(study.pictures, snapshot, server.emails())


def _task(study: Study, need: Need) -> dict[str, Any]:
    path = real_path(study.file(need.picture))
    root = real_path(study.settings.document_root)
    if root not in path.parents:
        raise SdgError(f"{path} does not lie below {root}, which the server serves files from.")
    data: dict[str, Any] = {
        "image": picture_address(path.relative_to(root).as_posix()),
        "prompt": need.picture.prompt,
        "note": need.note or _asked(need.phase),
        "picture": need.picture.id,
        "attempt": need.attempt,
        "source": need.source,
    }
    if need.phase == PASS_1 and study.settings.proposals:
        data["proposals"] = study.settings.proposals
    task: dict[str, Any] = {"data": data}
    if need.seed:
        shown_as = _DRAWN[_kind(need.phase)] if need.attempt == 1 else "to look at again"
        task["predictions"] = [{"model_version": shown_as, "result": list(need.seed)}]
    return task


def _tasks(found: Sequence[Mapping[str, Any]]) -> list[Task]:
    """The tasks that this protocol made; others, which people may add themselves, are left alone."""
    tasks = []
    for one in found:
        data, annotations = one.get("data"), one.get("annotations")
        if not isinstance(data, dict) or not isinstance(annotations, list) or type(one.get("id")) is not int:
            continue
        picture, attempt, source = (data.get(name) for name in ("picture", "attempt", "source"))
        if isinstance(picture, str) and type(attempt) is int and isinstance(source, str):
            entered = tuple(entry for entry in annotations if isinstance(entry, dict))
            tasks.append(Task(one["id"], picture, attempt, source, entered))
    return tasks


def _asked(phase: str) -> str:
    """What a person is to do, in one sentence."""
    return _ASKED[_kind(phase)]


def _config(phase: str) -> str:
    """The labelling configuration (XML); its heading is each task's `note`."""
    return labelling_config(heading="$note", above=_REVIEW if _kind(phase) == "review" else "")


def _kind(phase: str) -> str:
    return "review" if phase.startswith("review") else phase
