"""A study on disk and against a server in memory: begun, gone on with, killed in between, collected."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from fake_label_studio import TOKEN, FakeLabelStudio
from PIL import Image

from sdg.annotate.api import Server
from sdg.annotate.serve import Login, find_label_studio, read_login, require_running, serving
from sdg.cli import main
from sdg.data.formats.label_studio import write_regions
from sdg.data.formats.sdg30k import read_annotations
from sdg.defects import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.response import render_response

ANN, BOB = "ann@lab.org", "bob@lab.org"
DEFECT = Diagnosis((Defect((100, 200, 300, 400), "artifact", "The hand has six fingers.", 70),))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch):
    server = FakeLabelStudio()
    monkeypatch.setenv("LABEL_STUDIO_URL", server.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    yield server
    server.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures; browsers cannot show the second as it is."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (40, 20)).save(folder / "flux-a.png")
    Image.new("RGB", (30, 20)).save(folder / "flux-b.tiff")
    return folder


def sdg(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["annotate", *map(str, arguments)])
    return int(ended.value.code or 0)


def start(pictures: Path, *more: object) -> int:
    study = pictures.parent / "study"
    people = ("--annotators", f"{ANN},{BOB}", "--reviews", 1)
    return sdg("start", pictures, "--prompt", "a cat", *people, "--project", study, *more)


def test_a_study_is_begun_once_and_gone_on_with(fake, pictures, capsys) -> None:
    assert start(pictures) == 0
    assert f"sign up, with their e-mail, at {fake.url}/user/signup/?token=x" in capsys.readouterr().err
    study = pictures.parent / "study"
    assert sorted(path.name for path in (study / "files/pictures").iterdir()) == ["000001.png", "000002.png"]
    assert (study / "files/pictures/000001.png").samefile(pictures / "flux-a.png")
    assert Image.open(study / "files/pictures/000002.png").size == (30, 20)
    assert {one["path"] for one in fake.storages} == {str(study.resolve() / "files/pictures")}
    tasks = [task for phase in fake.tasks.values() for task in phase]
    assert sorted(task["data"]["image"] for task in tasks) == [
        "/data/local-files/?d=pictures/000001.png",
        "/data/local-files/?d=pictures/000002.png",
    ]
    assert all("predictions" not in task and "flux" not in json.dumps(task["data"]) for task in tasks)
    assert start(pictures) == 0
    assert "nothing new" in capsys.readouterr().err
    assert [task for phase in fake.tasks.values() for task in phase] == tasks
    assert start(pictures, "--seed", 4) == 1
    assert "begun with other settings: study.seed was 0 and is 4 now" in capsys.readouterr().err


def test_a_server_that_dies_at_any_request_loses_nothing_and_gets_nothing_twice(
    fake, pictures, capsys
) -> None:
    study = pictures.parent / "study"
    fake.dies_after, failures = 1, 0  # one more thing is written
    while start(pictures):
        assert "503" in capsys.readouterr().err
        fake.dies_after, failures = 1, failures + 1
    assert failures == 5  # for each of two people a project, a storage and tasks
    fake.dies_after = None
    assert start(pictures) == 0
    assert len(fake.projects) == len(fake.storages) == 2
    assert sorted(task["data"]["picture"] for tasks in fake.tasks.values() for task in tasks) == [
        "000001",
        "000002",
    ]
    for person in (ANN, BOB):
        (task,) = fake.project("pass-1", person)
        fake.enter(task, person, write_regions(DEFECT, "drawn", (40, 20)))
    fake.dies_after = 1
    assert sdg("next", "--project", study) == 1
    fake.dies_after = None
    assert sdg("next", "--project", study) == 0
    assert sdg("next", "--project", study) == 0
    for person in (ANN, BOB):
        (task,) = fake.project("pass-2", person)
        assert task["predictions"][0]["model_version"] == "your first pass"


def test_rows_are_collected_as_far_as_they_are_finished(fake, pictures, capsys) -> None:
    study, out = pictures.parent / "study", pictures.parent / "rows.jsonl"
    assert start(pictures) == 0
    for phase, person, other in (("pass-1", ANN, ""), ("pass-2", ANN, ""), ("review-1", BOB, ANN)):
        (task,) = fake.project(phase, person)
        said = [{"from_name": "verdict", "value": {"choices": ["accept"]}}] if other else []
        fake.enter(task, person, write_regions(DEFECT, "drawn", (40, 20)) + said)
        assert sdg("collect", "--project", study, "--out", out) == 0
    assert "1 of 2 pictures are finished" in capsys.readouterr().err
    (record,) = read_annotations(out)
    assert record.annotator == ANN
    assert record.diagnosis is not None
    assert record.diagnosis.defects == DEFECT.defects
    assert record.metadata["annotation"] == [
        {
            "annotator": ANN,
            "pass": 2,
            "added_in_pass_2": 0,
            "minutes": 2.0,
            "reviews": [{"round": 1, "reviewer": BOB, "verdict": "accept"}],
        }
    ]
    assert sdg("status", "--project", study) == 0
    assert "1 of 2 pictures are finished" in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["flux-c.png", "flux-c.tiff"])
def test_nothing_is_begun_with_a_picture_that_cannot_be_read(fake, pictures, capsys, broken) -> None:
    whole = (pictures / "flux-b.tiff").read_bytes()  # browsers show a damaged PNG as far as it goes
    (pictures / broken).write_bytes(whole[:-200] if broken.endswith(".tiff") else b"no picture")
    assert start(pictures) == 1
    assert broken in capsys.readouterr().err
    assert not (pictures.parent / "study/study.json").exists()
    (pictures / broken).unlink()
    assert start(pictures) == 0
    (pictures / "flux-b.tiff").write_bytes(b"")  # the server has its own
    assert start(pictures) == 0


def test_a_server_without_the_study_is_said_and_given_nothing(
    fake, pictures, capsys, monkeypatch, tmp_path
) -> None:
    out = tmp_path / "rows.jsonl"
    assert start(pictures) == 0
    out.write_text("{}\n")
    other = FakeLabelStudio()
    monkeypatch.setenv("LABEL_STUDIO_URL", other.url)
    for command in (("collect", "--out", out), ("next",), ("status", "--json", tmp_path / "numbers.json")):
        assert sdg(*command, "--project", tmp_path / "study") == 1
        assert f"{other.url} holds no project of the study in {tmp_path}" in capsys.readouterr().err
    assert other.projects == []
    assert out.read_text() == "{}\n"
    assert not (tmp_path / "numbers.json").exists()
    assert start(pictures) == 0
    assert len(other.projects) == 2
    other.close()


def test_rows_are_not_replaced_by_none(fake, pictures, capsys) -> None:
    out, opinions = (pictures.parent / name for name in ("rows.jsonl", "opinions.jsonl"))
    collect = ("collect", "--project", pictures.parent / "study", "--out", out, "--opinions", opinions)
    assert start(pictures) == 0
    for file in (out, opinions):
        file.write_text("{}\n")
        assert sdg(*collect) == 1
        assert f"those in {file} would be lost; name another output." in capsys.readouterr().err
        assert file.read_text() == "{}\n"
        file.unlink()
    assert sdg(*collect) == 0
    assert out.read_text() == opinions.read_text() == ""


def test_proposals_are_drawn_and_marked(fake, pictures) -> None:
    study, said = pictures.parent / "study", pictures.parent / "said.jsonl"
    rows = [
        {"filepath": f"{pictures}/flux-{name}", "caption": "a cat", "response": render_response(found)}
        for name, found in (("a.png", DEFECT), ("b.tiff", Diagnosis()))
    ]
    said.write_text("".join(json.dumps(row) + "\n" for row in rows))
    uri = f"replay:{said}"
    alone = ("--annotators", ANN, "--reviews", 0, "--proposals", uri, "--project", study)
    assert sdg("start", pictures, "--prompt", "a cat", *alone) == 0
    first, second = fake.project("pass-1", ANN)
    assert first["data"]["proposals"] == second["data"]["proposals"] == uri
    assert first["predictions"][0]["result"] == write_regions(DEFECT, "proposal", (40, 20))
    for phase in ("pass-1", "pass-2"):
        for task in fake.project(phase, ANN):
            fake.enter(task, ANN, task["predictions"][0]["result"])
        assert sdg("collect", "--project", study, "--out", pictures.parent / "rows.jsonl") == 0
    records = list(read_annotations(pictures.parent / "rows.jsonl"))
    assert [record.metadata["proposals"] for record in records] == [uri, uri]
    assert [record.diagnosis.defects for record in records] == [DEFECT.defects, ()]


def test_a_study_begins_only_once_every_proposal_is_there(fake, pictures, capsys) -> None:
    study, said = pictures.parent / "study", pictures.parent / "said.jsonl"
    found = {"caption": "a cat", "response": render_response(DEFECT)}
    dead = {"caption": "a cat", "response": None, "error": "The server is down."}
    names = [f"{pictures}/flux-{name}" for name in ("a.png", "b.tiff")]

    def begin(*rows: dict) -> int:
        said.write_text("".join(json.dumps(row) + "\n" for row in rows))
        alone = ("--annotators", ANN, "--reviews", 0, "--proposals", f"replay:{said}", "--project", study)
        return sdg("start", pictures, "--prompt", "a cat", *alone)

    assert begin({"filepath": names[0]} | found, {"filepath": names[1]} | dead) == 1
    told = capsys.readouterr().err
    assert "no answer for 1 of 2 pictures, the first because: The server is down. The same command" in told
    assert not any(fake.tasks.values())
    assert begin(*({"filepath": name} | found for name in names)) == 0
    assert all(task["predictions"] for task in fake.project("pass-1", ANN))


def test_a_server_that_shows_no_pictures_is_said_before_any_task_is_there(fake, pictures, capsys) -> None:
    fake.shows_pictures = False
    assert start(pictures) == 1
    assert "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT at the folder" in capsys.readouterr().err
    assert not any(fake.tasks.values())


def test_what_cannot_work_is_one_sentence(fake, pictures, capsys, monkeypatch, tmp_path) -> None:
    assert sdg("next", "--project", tmp_path / "none") == 1
    assert "holds no study" in capsys.readouterr().err
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "wrong")
    assert start(pictures) == 1
    assert "401: Invalid token. Is the token one of this server?" in capsys.readouterr().err
    assert start(pictures, "--annotators", "ann") == 2
    capsys.readouterr()
    for nobody in (",", ""):
        assert start(pictures, "--annotators", nobody) == 2
        assert "Name at least one annotator." in capsys.readouterr().err
    assert not (pictures.parent / "study").exists()
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    assert start(pictures) == 1
    assert "put one into the environment variable LABEL_STUDIO_API_KEY" in capsys.readouterr().err
    with pytest.raises(SdgError, match="is no address of a server"):
        Server("file:///etc/passwd", TOKEN)
    with pytest.raises(SdgError, match="install it into an environment of its own"):
        find_label_studio("no-such-program")


def test_a_program_that_is_no_server_is_told_with_where_it_says_why(tmp_path) -> None:
    program = tmp_path / "label-studio"
    program.write_text("#!/bin/sh\necho no database >&2\nexit 3\n")
    program.chmod(0o755)
    with (
        pytest.raises(SdgError, match=r"The server did not start; .*server\.log says why"),
        serving(tmp_path / "study", program, port=1),
    ):
        pass
    assert "no database" in (tmp_path / "study/server.log").read_text()
    assert (tmp_path / "study/server.json").stat().st_mode & 0o077 == 0


def test_a_server_signs_sessions_with_one_key_however_often_it_starts(tmp_path) -> None:
    program, study = tmp_path / "label-studio", tmp_path / "study"
    program.write_text('#!/bin/sh\necho "$SECRET_KEY" >&2\nexit 3\n')
    program.chmod(0o755)
    for port in (1, 2):
        with pytest.raises(SdgError), serving(study, program, port=port):
            pass
    first, second = (study / "server.log").read_text().split()
    assert first == second
    assert len(bytes.fromhex(first)) == 32  # no sign in it means anything to whoever reads the environment
    login = json.loads((study / "server.json").read_text())
    del login["secret"]  # an earlier version's
    (study / "server.json").write_text(json.dumps(login))
    with pytest.raises(SdgError), serving(study, program, port=1):
        pass
    assert read_login(study).token == login["token"]
    assert (study / "server.log").read_text().split()[2] != first


@pytest.mark.parametrize(
    "login",
    [[], {}, *({"url": url, "username": "o", "password": "w", "token": "t"} for url in (8080, "http://a:b"))],
)
def test_a_login_that_is_none_is_one_sentence(tmp_path, login: object) -> None:
    (tmp_path / "server.json").write_text(json.dumps(login))
    with pytest.raises(SdgError, match=r"server\.json is damaged; remove it and start the server again\.$"):
        read_login(tmp_path)


def test_a_server_that_is_not_up_is_said_to_be_so(tmp_path) -> None:
    with pytest.raises(SdgError, match=r"is not up.*and wait until it says"):
        require_running(tmp_path, Login("http://127.0.0.1:1", "owner", "word", "token"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        require_running(tmp_path, Login(f"http://127.0.0.1:{server.getsockname()[1]}", "owner", "word", "t"))
