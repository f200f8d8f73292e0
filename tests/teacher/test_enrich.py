import json
import threading
from collections import Counter
from pathlib import Path

import pytest
from teacher import BAD, PICTURES, RIGHT, breaks_down, first, is_slow, question, refuses, said, teacher, well

from sdg import Diagnosis
from sdg.data.formats import read_records
from sdg.errors import SdgError
from sdg.response import format_fault
from sdg.runs.journal import partial_of
from sdg.teacher.enrich import ACCEPTED, LEFT, OPEN, UNANSWERED, choose_sample, enrich, left_of
from sdg.teacher.plan import Plan, prepare

DEFECTIVE = [index for index in range(PICTURES) if RIGHT[index].defects]


def plan(server, *voters, **options):
    def uri(one, model):
        return f"openai:{one.url}?attempts=1&timeout=20#{model}"

    return Plan(
        uri(server, "vlm-1"),
        voters=tuple(uri(one, f"vlm-{number}") for number, one in enumerate(voters, start=2)),
        **options,
    )


def lines(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def indices(rows):
    return [int(row["filepath"].removesuffix(".png")) for row in rows]


def test_short_annotations_become_targets_that_pass_the_gate(given, tmp_path):
    out = tmp_path / "train.jsonl"
    with teacher(RIGHT, lambda index: well) as server:
        result = enrich(given, out, plan(server))
    assert (result.statuses, result.requests, result.faults) == ({ACCEPTED: PICTURES}, PICTURES, {})
    rows = lines(out)
    for index, (row, record) in enumerate(zip(rows, read_records(out), strict=True)):
        assert format_fault(row["ann_response"]) is None
        assert record.diagnosis == RIGHT[index]
        assert (record.filepath, record.generator) == (f"{index}.png", "g")
        assert record.metadata["seed"] == index
        told = record.metadata["teacher"]
        assert (told["model"], told["requests"]) == ("vlm-1", 1)
        assert told["given"]["reasons"] == [
            " ".join(defect.reason.split()[:4]) for defect in RIGHT[index].defects
        ]
    assert not partial_of(out).exists()
    assert not left_of(out).exists()


@pytest.mark.parametrize("name", BAD)
def test_nothing_wrong_is_accepted_and_what_is_mended_is(given, tmp_path, name):
    out = tmp_path / "train.jsonl"
    # Even pictures are answered badly at first, odd ones always.
    behave = {True: first(BAD[name]), False: BAD[name]}
    with teacher(RIGHT, lambda index: behave[index % 2 == 0] if RIGHT[index].defects else well) as server:
        result = enrich(given, out, plan(server, tries=2))
        asked = Counter(server.asked)
    stubborn = [index for index in DEFECTIVE if index % 2]
    assert indices(lines(out)) == [index for index in range(PICTURES) if index not in stubborn]
    for record in read_records(out):
        assert record.diagnosis == RIGHT[int(record.filepath.removesuffix(".png"))]
    assert indices(lines(left_of(out))) == stubborn
    assert result.statuses == {ACCEPTED: PICTURES - len(stubborn), LEFT: len(stubborn)}
    assert asked == {index: 2 if index in DEFECTIVE else 1 for index in range(PICTURES)}
    assert sum(result.faults.values()) == len(DEFECTIVE) + len(stubborn)
    # What is left is what was given, with the reasons, and the next question names the fault.
    for row, record in zip(lines(left_of(out)), read_records(left_of(out)), strict=True):
        index = int(record.filepath.removesuffix(".png"))
        assert [d.box for d in record.diagnosis.defects] == [d.box for d in RIGHT[index].defects]
        assert all(defect.importance is None for defect in record.diagnosis.defects)
        assert len(row["teacher"]["left"]) == 2
    again = [body for body in server.bodies if "It cannot be used." in question(body)]
    assert len(again) == len(DEFECTIVE)


def test_a_picture_without_an_answer_is_asked_again_at_the_next_beginning_and_no_other(given, tmp_path):
    out = tmp_path / "train.jsonl"
    with teacher(RIGHT, lambda index: breaks_down if index in (1, 5) else well) as server:
        result = enrich(given, out, plan(server))
    assert result.statuses == {ACCEPTED: PICTURES - 2, UNANSWERED: 2}
    assert not out.exists()
    with teacher(RIGHT, lambda index: is_slow) as server:
        result = enrich(given, out, plan(server), resume=True)
        assert server.asked == {1: 1, 5: 1}
    assert (result.statuses, result.requests) == ({ACCEPTED: PICTURES}, PICTURES + 2)
    assert [record.diagnosis for record in read_records(out)] == RIGHT


def test_requests_are_bounded_over_all_beginnings_and_each_answer_is_kept(given, tmp_path):
    out = tmp_path / "train.jsonl"
    with teacher(RIGHT, lambda index: well) as server:
        result = enrich(given, out, plan(server, max_requests=5))
        assert (result.exhausted, server.asked.total()) == (True, 5)
        assert result.statuses == {ACCEPTED: 5, OPEN: PICTURES - 5}
        result = enrich(given, out, plan(server, max_requests=7), resume=True)
        assert (result.exhausted, server.asked.total()) == (True, 7)
        result = enrich(given, out, plan(server), resume=True)
        assert (result.exhausted, server.asked.total()) == (False, PICTURES)
        assert set(server.asked.values()) == {1}
    assert len(lines(out)) == PICTURES


def test_pictures_that_cannot_be_read_use_up_no_requests(given, tmp_path):
    out = tmp_path / "train.jsonl"
    for one in given[:3]:
        one.file.unlink()
    with teacher(RIGHT, lambda index: well) as server:
        result = enrich(given, out, plan(server, max_requests=2, tries=1))
        assert (result.exhausted, result.requests, server.asked.total()) == (True, 2, 2)
        assert result.statuses == {ACCEPTED: 2, UNANSWERED: 3, OPEN: PICTURES - 5}
        result = enrich(given, out, plan(server, max_requests=PICTURES - 3), resume=True)
        assert (result.exhausted, server.asked.total()) == (False, PICTURES - 3)
    assert result.statuses == {ACCEPTED: PICTURES - 3, UNANSWERED: 3}


def test_what_a_server_that_is_down_was_not_asked_uses_up_no_requests(given, tmp_path):
    with teacher(RIGHT, lambda index: breaks_down) as server:
        down = Plan(f"openai:{server.url}?attempts=1&concurrency=1#vlm-1", max_requests=PICTURES - 1)
        result = enrich(given, tmp_path / "train.jsonl", down)
        assert result.requests == server.asked.total() == 10  # of which none was answered
    assert (result.exhausted, result.statuses) == (False, {UNANSWERED: PICTURES})
    assert [row["requests"] for row in lines(partial_of(tmp_path / "train.jsonl"))] == [1] * 10 + [0] * 2


def test_what_is_left_is_asked_again_only_with_more_tries(given, tmp_path):
    out = tmp_path / "train.jsonl"
    with teacher(RIGHT, lambda index: refuses if index == 4 else well) as server:
        enrich(given, out, plan(server, tries=2))
        result = enrich(given, out, plan(server, tries=2), resume=True)
        assert server.asked[4] == 2
    with teacher(RIGHT, lambda index: well) as server:
        result = enrich(given, out, plan(server, tries=3), resume=True)
        assert server.asked == {4: 1}
    assert result.statuses == {ACCEPTED: PICTURES}
    assert len(lines(out)) == PICTURES
    assert not left_of(out).exists()


def test_a_changed_annotation_is_asked_about_anew(given, tmp_path, short):
    out = tmp_path / "train.jsonl"
    with teacher(RIGHT, lambda index: well) as server:
        enrich(given, out, plan(server))
        short.write_text(short.read_text().replace('"seed": 4', '"seed": 44'))
        changed, _ = prepare(read_records(short), short.parent)
        enrich(changed, out, plan(server), resume=True)
        assert server.asked == {index: 2 if index == 4 else 1 for index in range(PICTURES)}
    assert lines(out)[4]["seed"] == 44


def test_requests_for_a_changed_annotation_stay_counted(given, tmp_path, short):
    out = tmp_path / "train.jsonl"
    with teacher(RIGHT, lambda index: well) as server:
        enrich(given[:1], out, plan(server, max_requests=2))
        for seed in (44, 45):
            short.write_text(short.read_text().replace('"seed": ', f'"seed": {seed}', 1))
            changed, _ = prepare(read_records(short), short.parent)
            result = enrich(changed[:1], out, plan(server, max_requests=2), resume=True)
        assert server.asked == {0: 2}
    assert (result.requests, result.exhausted) == (2, True)


def test_what_was_left_and_mended_by_hand_is_not_replaced(given, tmp_path):
    out = tmp_path / "train.jsonl"
    with teacher(RIGHT, lambda index: refuses if index == 4 else well) as server:
        enrich(given, out, plan(server, tries=1))
        enrich(given, out, plan(server, tries=1), resume=True)  # as it was left, it may be written again
        mended = left_of(out).read_text().replace("a cat", "a dog")
        left_of(out).write_text(mended)
        asked = server.asked.total()
        for tries in (1, 2):
            with pytest.raises(SdgError, match=r"train\.left\.jsonl would be replaced.* move it elsewhere"):
                enrich(given, out, plan(server, tries=tries), resume=True)
        assert server.asked.total() == asked
    assert left_of(out).read_text() == mended
    left_of(out).rename(tmp_path / "mended.jsonl")
    with teacher(RIGHT, lambda index: well) as server:
        result = enrich(given, out, plan(server, tries=2), resume=True)
    assert result.statuses == {ACCEPTED: PICTURES}


def test_what_is_mended_while_the_run_goes_on_is_not_replaced(given, tmp_path):
    out = tmp_path / "train.jsonl"
    with teacher(RIGHT, lambda index: refuses if index == 4 else well) as server:
        enrich(given, out, plan(server, tries=1))
        with pytest.raises(SdgError, match="move it elsewhere"):
            enrich(
                given,
                out,
                plan(server, tries=2),
                resume=True,
                on_row=lambda row: left_of(out).write_text("mended"),
            )
    assert left_of(out).read_text() == "mended"


def test_a_file_that_no_run_has_left_is_not_replaced(given, tmp_path, short):
    out = tmp_path / "train.jsonl"
    short.rename(left_of(out))  # the very input
    before = left_of(out).read_text()
    with teacher(RIGHT, lambda index: well) as server:
        for resume in (False, True):
            with pytest.raises(SdgError, match="move it elsewhere"):
                enrich(given, out, plan(server), resume=resume)
        assert not server.asked
    assert left_of(out).read_text() == before
    assert not out.exists()


def test_a_run_is_not_begun_over_another(given, tmp_path):
    out = tmp_path / "train.jsonl"
    with teacher(RIGHT, lambda index: well) as server:
        enrich(given, out, plan(server))
        with pytest.raises(SdgError, match="go on with --resume"):
            enrich(given, out, plan(server))
        with pytest.raises(SdgError, match="was begun with other settings"):
            enrich(given, out, plan(server, words=(10, 50)), resume=True)


def test_a_sample_is_asked_first_and_not_again(given, tmp_path):
    out = tmp_path / "train.jsonl"
    only = choose_sample(given, 3)
    assert only == [0, 4, 8]
    assert choose_sample(given, 99) == list(range(PICTURES))
    with teacher(RIGHT, lambda index: well) as server:
        result = enrich(given, out, plan(server), only=only)
        assert (set(server.asked), result.statuses) == ({0, 4, 8}, {ACCEPTED: 3, OPEN: PICTURES - 3})
        assert not out.exists()
        enrich(given, out, plan(server), resume=True)
        assert set(server.asked.values()) == {1}
    assert len(lines(out)) == PICTURES


def test_jobs_apart_are_one_request_each_and_come_to_the_same(given, tmp_path):
    out = tmp_path / "train.jsonl"

    with teacher(RIGHT, lambda index: well) as server:
        result = enrich(given, out, plan(server, apart=True))
        assert server.asked == {index: 3 if RIGHT[index].defects else 1 for index in range(PICTURES)}
    assert [record.diagnosis for record in read_records(out)] == RIGHT
    assert result.statuses == {ACCEPTED: PICTURES}


def test_a_job_that_is_not_asked_for_leaves_its_part_alone(given, tmp_path):
    out = tmp_path / "train.jsonl"
    with teacher(RIGHT, lambda index: well) as server:
        enrich(given, out, plan(server, jobs=("importance",)))
        assert set(server.asked) == set(DEFECTIVE)
    for one, record in zip(given, read_records(out), strict=True):
        index = int(record.filepath.removesuffix(".png"))
        assert [d.reason for d in record.diagnosis.defects] == [d.reason for d in one.diagnosis.defects]
        assert [d.importance for d in record.diagnosis.defects] == [
            d.importance for d in RIGHT[index].defects
        ]
        assert record.diagnosis.reasoning == ""


def scores(by):
    """Scores every defect higher by so many points than is right."""

    def behave(right, attempt):
        defects = [defect.to_dict() for defect in right.defects]
        for defect in defects:
            defect["importance"] += by
        return said(Diagnosis.from_dict({"defects": defects}))

    return behave


def test_the_median_of_the_votes_is_kept_and_their_agreement_reported(given, tmp_path):
    out = tmp_path / "train.jsonl"
    servers = [teacher(RIGHT, lambda index, by=by: scores(by)) for by in (4, 21)]
    with teacher(RIGHT, lambda index: well) as server, servers[0] as one, servers[1] as two:
        result = enrich(given, out, plan(server, one, two))
        assert set(one.asked) == set(two.asked) == set(DEFECTIVE)
    for record in read_records(out):
        index = int(record.filepath.removesuffix(".png"))
        assert [d.importance for d in record.diagnosis.defects] == [
            d.importance + 4 for d in RIGHT[index].defects
        ]
    votes = lines(out)[1]["teacher"]["votes"]
    assert votes == {"vlm-1": [31], "vlm-2": [35], "vlm-3": [52]}
    first_pair, second_pair = result.votes.pairs
    assert (first_pair.defects, first_pair.agreement, first_pair.difference) == (12, 0.96, 4.0)
    assert (second_pair.agreement, second_pair.difference) == (0.79, 21.0)


def test_many_are_asked_at_once(given, tmp_path):
    with teacher(RIGHT, lambda index: is_slow) as server:
        enrich(given, tmp_path / "train.jsonl", plan(server))
        assert 4 <= server.busiest <= 8


def test_what_is_answered_before_a_kill_is_never_asked_again(given, tmp_path):
    out = tmp_path / "train.jsonl"
    enough = threading.Event()

    class Killed(BaseException):
        pass

    def on_row(row):
        if not enough.is_set():
            enough.set()
            raise Killed

    with teacher(RIGHT, lambda index: well) as server:
        with pytest.raises(Killed):
            enrich(given, out, plan(server), on_row=on_row)
        kept = {row["filepath"] for row in lines(partial_of(out))}
        before = dict(server.asked)
        enrich(given, out, plan(server), resume=True)
        assert kept
        for index in range(PICTURES):
            if f"{index}.png" in kept:
                assert server.asked[index] == before[index]
    assert [record.diagnosis for record in read_records(out)] == RIGHT


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"teacher": "openai:http://127.0.0.1:9/v1?profile=x#m"}, "leave profile out"),
        ({"jobs": ("reason",)}, "A teacher's jobs are reasons, think, importance, not reason"),
        ({"jobs": ()}, "not none"),
        ({"words": (5, 4)}, "A reason has from 1 word up"),
        ({"jobs": ("think",), "voters": ("openai:http://127.0.0.1:9/v1#n",)}, "have the teacher score it"),
        ({"voters": ("openai:http://127.0.0.1:8/v1#m",)}, "different models"),
    ],
)
def test_settings_that_fit_no_run_are_refused_in_a_sentence(given, tmp_path, options, fault):
    with pytest.raises(SdgError, match=fault):
        enrich(given, tmp_path / "o.jsonl", Plan(**{"teacher": "openai:http://127.0.0.1:9/v1#m", **options}))


def test_pictures_of_which_nothing_is_known_are_set_apart(tmp_path, short):
    with short.open("a") as file:
        file.write(json.dumps({"filepath": "x.png", "prompt": "a cat"}) + "\n")
        file.write(
            json.dumps({"filepath": "y.png", "prompt": "a", "diagnosis": {"defects": [], "status": "failed"}})
        )
    pictures, unknown = prepare(read_records(short), short.parent)
    assert (len(pictures), [record.filepath for record in unknown]) == (PICTURES, ["x.png", "y.png"])


def test_a_server_with_structured_outputs_is_held_to_the_answer_of_the_jobs(given, tmp_path):
    with teacher(RIGHT, lambda index: well) as server:
        uri = f"openai:{server.url}?attempts=1&structured=true#vlm-1"
        result = enrich(given, tmp_path / "train.jsonl", Plan(uri, jobs=("reasons", "think")))
        bodies = server.bodies
    assert result.statuses == {ACCEPTED: PICTURES}
    for body in bodies:
        (tag,) = json.loads(body["structured_outputs"]["structural_tag"])["format"]["tags"]
        keys = tag["content"]["json_schema"]["items"]["required"]
        assert keys == ["box_2d", "label", "description"]  # no importance, which was not asked for
