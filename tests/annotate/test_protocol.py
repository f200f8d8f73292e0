"""The protocol without a server: what holds, what is needed next, what goes back, from tasks alone."""

from __future__ import annotations

import random

import pytest
from label_studio import verdict

from sdg.annotate.assignment import Assignment
from sdg.annotate.protocol import ADJUDICATION, PASS_1, PASS_2, Need, Picture, State, Task, agree, evaluate
from sdg.data.formats.label_studio import write_regions
from sdg.defects import Defect, Diagnosis

SIZE = (100, 50)
ANN, BOB, EVA = "ann@lab.org", "bob@lab.org", "eva@lab.org"
EMAILS = {1: ANN, 2: BOB, 3: EVA}
HAND = Defect((100, 200, 300, 400), "artifact", "The hand has six fingers.", 70)
HAT = Defect((500, 500, 700, 640), "misalignment", "The hat is blue.", 35)
ONE, BOTH, CLEAN = Diagnosis((HAND,)), Diagnosis((HAND, HAT)), Diagnosis()


class World:
    """A server in memory: it holds the tasks, and people enter something into the open ones."""

    def __init__(self, *pictures: Picture) -> None:
        self.pictures = pictures
        self.tasks: dict[tuple[str, str], list[Task]] = {}
        self.entered = 0

    def state(self) -> State:
        return evaluate(self.pictures, self.tasks, EMAILS)

    def next(self) -> tuple[Need, ...]:
        needs = self.state().needs
        for need in needs:
            number = 1 + sum(map(len, self.tasks.values()))
            task = Task(number, need.picture.id, need.attempt, need.source, ())
            self.tasks.setdefault((need.phase, need.person), []).append(task)
        assert self.state().needs == ()  # nothing is asked for twice
        return needs

    def enter(self, phase: str, person: str, results: list, *, skip: bool = False, by: str = "") -> None:
        """Into this person's newest task of a phase."""
        self.entered += 1
        number = next(number for number, email in EMAILS.items() if email == (by or person))
        annotation = {"id": self.entered, "completed_by": number, "result": results, "lead_time": 30.0}
        old = self.tasks[phase, person].pop()
        new = (*old.annotations, annotation | ({"was_cancelled": True} if skip else {}))
        self.tasks[phase, person].append(Task(old.id, old.picture, old.attempt, old.source, new))


def picture(annotators=(ANN,), reviewers=(BOB, EVA), adjudicator=None) -> Picture:
    return Picture(
        "000001", "a.png", "a ballerina", "000001.png", SIZE, Assignment(annotators, reviewers, adjudicator)
    )


def regions(diagnosis: Diagnosis) -> list:
    return write_regions(diagnosis, "drawn", SIZE)


def asked(needs) -> list[tuple[str, str, int]]:
    return [(need.phase, need.person, need.attempt) for need in needs]


def test_two_passes_and_two_reviews_lead_to_a_row():
    world = World(picture())
    (first,) = world.next()
    assert (first.phase, first.person, first.seed) == (PASS_1, ANN, [])  # nothing is proposed
    world.enter(PASS_1, ANN, regions(ONE))
    (second,) = world.next()
    assert (second.phase, second.person) == (PASS_2, ANN)
    assert second.seed == write_regions(ONE, "pass-1", SIZE)
    world.enter(PASS_2, ANN, regions(BOTH))
    assert asked(world.next()) == [("review-1", BOB, 1)]
    world.enter("review-1", BOB, regions(BOTH) + verdict("accept"))
    assert asked(world.next()) == [("review-2", EVA, 1)]
    world.enter("review-2", EVA, regions(CLEAN) + verdict("fix", "Nothing is wrong."))
    (outcome,) = world.state().finished
    assert outcome.diagnosis == CLEAN
    (chain,) = outcome.chains
    assert [(number, one.person, one.review.verdict) for number, one in chain.reviews] == [
        (1, BOB, "accept"),
        (2, EVA, "fix"),
    ]
    progress = world.state().progress
    assert {key: (one.given, one.done, one.seconds) for key, one in progress.items()} == {
        (PASS_1, ANN): (1, 1, 30.0),
        (PASS_2, ANN): (1, 1, 30.0),
        ("review-1", BOB): (1, 1, 30.0),
        ("review-2", EVA): (1, 1, 30.0),
    }


def test_a_rejection_goes_back_with_its_comment_and_through_all_reviews_again():
    world = World(picture())
    world.next()
    world.enter(PASS_1, ANN, regions(ONE))
    world.next()
    world.enter(PASS_2, ANN, regions(ONE))
    world.next()
    world.enter("review-1", BOB, regions(ONE) + verdict("accept"))
    world.next()
    world.enter("review-2", EVA, verdict("reject", "Look at the hat."))
    (need,) = world.next()
    assert asked([need]) == [(PASS_2, ANN, 2)]
    assert need.note == "Review 2 asks for another look: Look at the hat."
    world.enter(PASS_2, ANN, regions(ONE))  # she stays with it: that is for the reviewers again
    assert asked(world.next()) == [("review-1", BOB, 1)]
    world.enter("review-1", BOB, regions(ONE) + verdict("accept"))
    assert asked(world.next()) == [("review-2", EVA, 1)]
    world.enter("review-2", EVA, regions(ONE) + verdict("accept"))
    (outcome,) = world.state().finished
    history = [(number, one.review.verdict) for number, one in outcome.chains[0].reviews]
    assert history == [(1, "accept"), (2, "reject"), (1, "accept"), (2, "accept")]


def test_what_does_not_hold_goes_back_to_its_author_with_the_reason():
    world = World(picture())
    world.next()
    spoiled = regions(BOTH)
    next(one for one in spoiled if one["type"] == "number")["value"]["number"] = 55.5
    world.enter(PASS_1, ANN, spoiled)
    (need,) = world.next()
    assert asked([need]) == [(PASS_1, ANN, 2)]
    assert need.note == "This came back: Region 1: An importance is an integer from 1 to 100, not 55.5."
    kept = Diagnosis((Defect(HAND.box, HAND.type, HAND.reason), HAT))
    assert need.seed == write_regions(kept, "kept", SIZE)
    world.enter(PASS_1, ANN, [], skip=True)
    (need,) = world.next()
    assert need.attempt == 3
    assert "It was skipped" in need.note
    world.enter(PASS_1, ANN, regions(ONE), by=BOB)
    (need,) = world.next()
    assert "It was entered by bob@lab.org, and it is the task of ann@lab.org." in need.note
    assert need.seed == []  # nothing of his is shown to her
    world.enter(PASS_1, ANN, regions(ONE))
    assert asked(world.next()) == [(PASS_2, ANN, 1)]


def test_a_review_that_contradicts_itself_goes_back_to_the_reviewer():
    world = World(picture(reviewers=(BOB,)))
    world.next()
    world.enter(PASS_1, ANN, regions(ONE))
    world.next()
    world.enter(PASS_2, ANN, regions(ONE))
    world.next()
    world.enter("review-1", BOB, regions(BOTH) + verdict("accept"))
    assert asked(world.next()) == [("review-1", BOB, 2)]
    world.enter("review-1", BOB, regions(BOTH) + verdict("fix"))
    assert world.state().finished[0].diagnosis == BOTH


def test_a_skip_beside_an_annotation_does_not_count():
    world = World(picture(reviewers=()))
    world.next()
    world.enter(PASS_1, ANN, regions(ONE))
    world.enter(PASS_1, ANN, [], skip=True)
    assert asked(world.next()) == [(PASS_2, ANN, 1)]


def test_what_somebody_else_enters_later_changes_nothing():
    world = World(picture(reviewers=()))
    world.next()
    world.enter(PASS_1, ANN, regions(ONE))
    world.enter(PASS_1, ANN, regions(BOTH), by=BOB)
    (second,) = world.next()
    assert (second.phase, second.seed) == (PASS_2, write_regions(ONE, "pass-1", SIZE))
    world.enter(PASS_2, ANN, regions(BOTH), by=BOB)
    world.enter(PASS_2, ANN, regions(ONE))
    world.enter(PASS_2, ANN, regions(BOTH), by=BOB)
    assert world.next() == ()
    assert world.state().finished[0].diagnosis == ONE
    assert world.state().progress[PASS_2, ANN].seconds == 30.0


def test_a_pass_that_is_changed_after_its_review_is_reviewed_again():
    world = World(picture(reviewers=(BOB,)))
    world.next()
    world.enter(PASS_1, ANN, regions(ONE))
    world.next()
    world.enter(PASS_2, ANN, regions(ONE))
    world.next()
    world.enter("review-1", BOB, regions(ONE) + verdict("accept"))
    assert world.state().finished
    world.enter(PASS_2, ANN, regions(BOTH))
    assert world.state().finished == ()
    assert asked(world.next()) == [("review-1", BOB, 1)]


@pytest.mark.parametrize("same", [True, False])
def test_a_third_decides_where_two_disagree(same):
    world = World(picture((ANN, BOB), (EVA,), EVA))
    for phase in (PASS_1, PASS_2):
        assert {need.person for need in world.next()} == {ANN, BOB}
        world.enter(phase, ANN, regions(BOTH))
        world.enter(phase, BOB, regions(BOTH if same else ONE))
    # One task at a time: entering goes into the newest.
    (first, second) = world.state().needs
    assert {first.person, second.person} == {EVA}
    for need in (first, second):
        task = Task(90 + len(world.tasks), need.picture.id, 1, need.source, ())
        world.tasks.setdefault(("review-1", EVA), []).append(task)
        world.enter("review-1", EVA, list(need.seed) + verdict("accept"))
    needs = world.next()
    if same:
        assert needs == ()
        assert world.state().finished[0].diagnosis == BOTH
        return
    (need,) = needs
    assert asked([need]) == [(ADJUDICATION, EVA, 1)]
    assert {one["id"].partition("-")[0] for one in need.seed} == {"first", "second"}
    assert ANN not in str(need.seed)
    world.enter(ADJUDICATION, EVA, [one for one in need.seed if one["id"].startswith("second")])
    (outcome,) = world.state().finished
    assert (outcome.diagnosis, outcome.adjudication.person) == (ONE, EVA)


def test_two_agree_where_each_box_has_its_partner():
    shifted = Diagnosis((Defect((500, 500, 700, 700), HAT.type, "Blue.", 90), HAND))
    other = Diagnosis((Defect(HAT.box, "artifact", "Blue.", 35), HAND))
    assert agree(BOTH, shifted)  # IoU 0.7 whatever the order, the words and the importance
    assert agree(CLEAN, CLEAN)
    assert not agree(BOTH, ONE)
    assert not agree(BOTH, other)  # the type differs
    assert not agree(ONE, Diagnosis((Defect((200, 200, 400, 400), "artifact", "Six.", 70),)))  # IoU 1/3


def test_the_order_of_tasks_and_a_task_made_twice_change_nothing():
    world = World(picture((ANN, BOB), (EVA,), EVA))
    world.next()
    world.enter(PASS_1, ANN, regions(ONE))
    world.enter(PASS_1, BOB, regions(ONE))
    world.next()
    expected = world.state()
    (task,) = world.tasks[PASS_2, ANN]
    world.tasks[PASS_2, ANN].append(Task(99, task.picture, task.attempt, task.source, ()))
    for tasks in world.tasks.values():
        random.Random(3).shuffle(tasks)
    assert world.state().needs == expected.needs == ()
    world.enter(PASS_2, ANN, regions(BOTH))  # into either of the two
    assert [need.phase for need in world.state().needs] == ["review-1"]
