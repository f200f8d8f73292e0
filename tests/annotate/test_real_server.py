"""The whole protocol on a real Label Studio: three people, both passes, both reviews, adjudication, rows."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sdg.annotate.api import Server
from sdg.annotate.serve import find_label_studio, read_login
from sdg.data.formats.label_studio import write_regions
from sdg.data.formats.sdg30k import read_annotations
from sdg.defects import Defect, Diagnosis
from sdg.errors import SdgError

pytestmark = [pytest.mark.annotate, pytest.mark.slow]

PEOPLE = ("ann@lab.org", "bob@lab.org", "eva@lab.org")
SIZE = (160, 120)


def sdg(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdg", "annotate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


class Served:
    """`sdg annotate serve`, which can be killed with its server and started again."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.folder, self.program = folder, program
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "sdg", "annotate", "serve", "--project", str(self.folder)]
        command += ["--port", str(self.port), "--label-studio", str(self.program)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "runs at" in line:
                return
        raise AssertionError((self.folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):
    try:
        program = find_label_studio()
    except SdgError as error:
        pytest.skip(str(error))
    server = Served(tmp_path_factory.mktemp("annotate") / "study", program)
    server.start()
    yield server
    server.stop()


def truth(picture: int, person: str) -> list[Defect]:
    """What this person sees in a picture: on pictures of two, the same but for one place in each third."""
    if picture % 4 == 3:
        return []
    by = 40 if picture % 3 == 2 and person == PEOPLE[1] else 0
    at = 30 * picture
    return [
        Defect(
            (at, 100, at + 200, 300),
            "artifact",
            f"The hand of figure {picture} has six fingers.",
            70,
            "anatomy",
        ),
        Defect((500, 400 + 5 * by, 700, 500 + 5 * by), "misalignment", f"The hat of {picture} is blue.", 35),
    ]


def regions(defects: list[Defect]) -> list:
    return write_regions(Diagnosis(tuple(defects)), "drawn", SIZE)


def test_three_people_annotate_review_and_adjudicate(served: Served, tmp_path: Path) -> None:
    from label_studio import Person, seeded, verdict

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rows = []
    for number in range(12):
        Image.new("RGB", SIZE, (20 * number, 80, 120)).save(pictures / f"flux-{number}.png")
        rows.append({"filepath": f"flux-{number}.png", "caption": f"A figure, number {number}"})
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = served.folder
    begin = ("start", pictures, "--prompts", tmp_path / "prompts.jsonl", "--annotators", ",".join(PEOPLE))
    begin += ("--share", 0.5, "--project", study)
    done = sdg(*begin)
    assert done.returncode == 0, done.stderr
    assert "12 pictures, 3 annotators" in done.stderr
    login = read_login(study)
    assert login is not None
    invitation = next(line.split()[-1] for line in done.stderr.splitlines() if "sign up" in line)
    people = {email: Person(login.url, invitation, email) for email in PEOPLE}

    known = {row["picture"]: row for row in map(json.loads, (study / "pictures.jsonl").open())}
    number_of = {name: int(row["filepath"].rpartition("-")[2].split(".")[0]) for name, row in known.items()}
    faults = {  # of the first attempts at pass 1: what somebody enters, and what it comes back with
        0: ("importance", "importance is an integer from 1 to 100"),
        1: ("nothing", "No box is drawn"),
        3: ("skipped", "It was skipped"),
        4: ("reason", "has no reason"),
    }
    came_back: dict[int, str] = {}
    fixed, rejected = 5, 6

    def work(person: Person) -> int:
        tasks = person.open_tasks()
        for phase, task in tasks:
            data = task["data"]
            number, first = number_of[data["picture"]], data["attempt"] == 1
            sees = truth(number, person.email)
            assert "flux" not in json.dumps(task["data"])  # which generator it was would tell
            if phase == "pass-1":
                assert not seeded(task) or not first
                if not first:
                    came_back[number] = data["note"]
                kind = faults[number][0] if number in faults and first else ""
                drawn = regions(sees[:1])
                if kind == "importance":
                    next(r for r in drawn if r["type"] == "number")["value"]["number"] = 55.5
                if kind == "reason":
                    drawn = [r for r in drawn if r["type"] != "textarea"]
                person.submit(task, [] if kind == "nothing" else drawn, skip=kind == "skipped")
            elif phase == "pass-2":
                assert {r["id"].rpartition("-defect-")[0] for r in seeded(task)} <= {
                    "pass-1",
                    "pass-2",
                    "pass-1-placeholder",
                    "",
                }
                if not first:
                    assert data["note"] == "Review 1 asks for another look: The hat is missing."
                    person.submit(task, regions(sees))
                elif number == rejected:
                    person.submit(task, seeded(task))
                else:
                    person.submit(task, seeded(task) + regions(sees)[4:] if sees else seeded(task))
            elif phase.startswith("review"):
                drawn = seeded(task)
                if number == rejected and len(drawn) < 6:
                    person.submit(task, drawn + verdict("reject", "The hat is missing."))
                elif number == fixed and phase == "review-1":
                    next(r for r in drawn if r["type"] == "number")["value"]["number"] = 71
                    person.submit(task, drawn + verdict("fix", "Seventy-one."))
                else:
                    person.submit(task, drawn + verdict("accept"))
            else:
                assert phase == "adjudication"
                person.submit(task, [r for r in seeded(task) if r["id"].startswith("first")])
        return len(tasks)

    assert all(work(person) for person in people.values())
    # The server dies with everything that was saved.
    served.kill()
    served.start()
    for _ in range(12):
        done = sdg("next", "--project", study)
        assert done.returncode == 0, done.stderr
        if not sum(work(person) for person in people.values()):
            break
    assert "nothing new" in done.stderr
    assert all(came_back[number].startswith("This came back: ") for number in faults)
    assert all(words in came_back[number] for number, (_, words) in faults.items())

    out, opinions = tmp_path / "rows.jsonl", tmp_path / "opinions.jsonl"
    done = sdg("collect", "--project", study, "--out", out, "--opinions", opinions)
    assert done.returncode == 0, done.stderr
    collected = list(read_annotations(out))
    assert len(collected) == 12
    shared = 0
    for record in collected:
        number = int(record.filepath.rpartition("-")[2].split(".")[0])
        row = next(row for row in known.values() if row["filepath"] == record.filepath)
        first = row["annotators"][0]
        shared += len(row["annotators"]) == 2
        expected = truth(number, first)
        if number == fixed:
            expected = [
                Defect(d.box, d.type, d.reason, 71 if at == 0 else d.importance, d.subtype)
                for at, d in enumerate(expected)
            ]
        assert record.diagnosis is not None
        assert Diagnosis(record.diagnosis.defects).to_dict() == Diagnosis(tuple(expected)).to_dict()
        assert record.annotator == first
        assert record.prompt == f"A figure, number {number}"
        disagree = (
            len(row["annotators"]) == 2 and number % 3 == 2 and expected and PEOPLE[1] in row["annotators"]
        )
        assert record.metadata.get("adjudicator") == (row["adjudicator"] if disagree else None)
        for chain in record.metadata["annotation"]:
            verdicts = [(one["round"], one["reviewer"], one["verdict"]) for one in chain["reviews"]]
            rounds = [(at, who, "accept") for at, who in enumerate(row["reviewers"], start=1)]
            if number == fixed:
                rounds[0] = (1, row["reviewers"][0], "fix")
            if number == rejected:
                rounds.insert(0, (1, row["reviewers"][0], "reject"))
            assert verdicts == rounds
            assert chain["minutes"] >= 3.0  # twice 90 s
    assert shared == 6
    assert len(list(read_annotations(opinions))) == 12

    done = sdg("status", "--project", study, "--json", "-")
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert (status["finished"], status["waiting"], status["agreement"]["pairs"]) == (12, 0, 6)
    assert all(one["given"] == one["done"] for one in status["progress"])

    server = Server(login.url, login.token).connect()
    projects = [number for number, text in server.projects() if "pass-2" in text or "review-1" in text]
    assert len(projects) == 6
    for project in projects:
        for kind in ("JSON", "COCO", "YOLO"):
            path = f"/api/projects/{project}/export?exportType={kind}&download_all_tasks=true"
            answer = people[PEOPLE[0]].get(path)
            assert answer.status_code == 200, (kind, answer.text[:500])
            assert len(answer.content) > 200
