"""Whatever goes wrong with `sdg refine` is one sentence; nothing is lost, and --resume goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from edit_api import Api, failure, halved
from PIL import Image
from servers import detector, pictures, refine, rows

ALONE = "sdg: 1 of 1 images failed (--resume tries them again); the first"
LEVELS = {f"p{number:02}": 40 for number in range(12)}


def asked(api: Api, url: str, *more: str) -> tuple[str, ...]:
    editor = f"openai:{api.url}#painter?attempts=1&per_minute=60000&concurrency=1"
    return (
        "--detector",
        f"openai:{url}#d?attempts=1&profile=default",
        "--editor",
        editor,
        "--out",
        "out",
        *more,
    )


def last_sentence(stderr: str) -> str:
    assert "Traceback" not in stderr, stderr
    assert stderr.count("sdg: ") == 1, stderr
    return stderr.splitlines()[-1]


def test_an_editor_that_is_down_ends_the_run_and_resume_goes_on(tmp_path: Path) -> None:
    pictures(tmp_path, clean=0, **LEVELS)
    with detector() as server, Api(halved, otherwise=failure(503, "out of order")) as api:
        arguments = asked(api, server.url, "--rounds", "1")
        done = refine(tmp_path, *arguments)
        assert done.returncode == 1
        assert last_sentence(done.stderr) == (
            "sdg: 8 pictures in a row could not be edited, the last because: The server answered 503: out of "
            "order (1 attempts). What is done is kept; mend it and add --resume."
        )
        before = (tmp_path / "out" / "refinements.jsonl.partial").read_text()
        assert before.count('"improved"') == 1
        api.replies += [halved] * 11
        done = refine(tmp_path, *arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in rows(tmp_path / "out")] == ["already clean", *["improved"] * 12]
    assert done.stderr.count(".png: improved") == 11  # the first is not done again
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 12


def test_a_detector_that_is_down_ends_the_run_and_resume_goes_on(tmp_path: Path) -> None:
    pictures(tmp_path, **LEVELS)
    with Api(otherwise=halved) as api:
        done = refine(tmp_path, *asked(api, "http://127.0.0.1:9/v1"))
        assert done.returncode == 1
        sentence = last_sentence(done.stderr)
        assert sentence.startswith(
            "sdg: 8 pictures in a row could not be diagnosed, the last because: The input could not be "
            "diagnosed: The connection to the server failed"
        )
        assert sentence.endswith("What is done is kept; mend it and add --resume.")
        assert not api.asked
        done = refine(tmp_path, *asked(api, "http://127.0.0.1:9/v1"), "--dry-run")
        assert done.returncode == 1
        assert last_sentence(done.stderr).startswith("sdg: 8 pictures in a row could not be diagnosed")
        with detector() as server:
            done = refine(tmp_path, *asked(api, server.url, "--resume", "--rounds", "3"))
    assert done.returncode == 0, done.stderr
    assert {row["status"] for row in rows(tmp_path / "out")} == {"improved"}


def test_a_refused_picture_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")

    def moderated(fields):
        if b"of bad" in dict(fields)["prompt"]:
            return failure(400, "Your request was rejected by the safety system, secret-key.")
        return halved(fields)

    pictures(tmp_path, a=40, bad=40, c=40)
    with detector() as server, Api(otherwise=moderated) as api:
        done = refine(tmp_path, *asked(api, server.url))
        assert done.returncode == 1
        assert last_sentence(done.stderr) == (
            "sdg: 1 of 3 images failed (--resume tries them again); the first, bad.png: The server answered "
            "400: Your request was rejected by the safety system, [key]."
        )
        assert [row["status"] for row in rows(tmp_path / "out")] == ["improved", "failed", "improved"]
        sent = len(api.asked)
        done = refine(tmp_path, *asked(api, server.url, "--resume"))
        assert done.returncode == 1
        assert len(api.asked) == sent + 1
    assert "secret-key" not in done.stderr + (tmp_path / "out" / "refinements.jsonl").read_text()


def test_an_edit_that_is_kept_though_a_later_round_failed_says_so(tmp_path: Path) -> None:
    pictures(tmp_path, a=40)
    answers = iter([halved])

    def once(fields):
        return next(answers, lambda _: failure(400, "No more edits today."))(fields)

    with detector() as server, Api(otherwise=once) as api:
        done = refine(tmp_path, *asked(api, server.url, "--rounds", "3"))
    assert done.returncode == 0, done.stderr
    assert (
        "% of pixels; then it stopped: The server answered 400: No more edits today. (0 left)" in done.stderr
    )


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"filepath": "a.png"}', "sdg: in.jsonl, line 1: 'caption' is missing or no text."),
        (
            '{"filepath": "a.png", "caption": " "}',
            f"{ALONE}, a.png: The picture has no prompt, so an editor would not know what it is to show; "
            "give one.",
        ),
        (
            '{"filepath": "small.png", "caption": "a cup"}',
            f"{ALONE}, small.png: The picture has 40 × 8 pixels; give one with at least 16 on each side.",
        ),
        (
            '{"filepath": "none.png", "caption": "a cup"}',
            f"{ALONE}, none.png: none.png does not exist; check the path of the image.",
        ),
    ],
    ids=["no prompt", "empty prompt", "too small", "no picture"],
)
def test_a_picture_that_cannot_be_refined_says_why(tmp_path: Path, line: str, sentence: str) -> None:
    pictures(tmp_path, a=40)
    Image.new("RGB", (40, 8), "gray").save(tmp_path / "small.png")
    (tmp_path / "in.jsonl").write_text(line)
    with detector() as server, Api(otherwise=halved) as api:
        done = refine(tmp_path, *asked(api, server.url))
        assert not api.asked
    assert (done.returncode, done.stdout) == (1, "")
    assert last_sentence(done.stderr) == sentence


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    pictures(tmp_path, a=40)
    (tmp_path / "file").write_text("")
    with detector() as server, Api(otherwise=halved) as api:
        for more in ((), ("--dry-run",)):
            done = refine(tmp_path, *asked(api, server.url, *more), "--out", "file/out")
            assert (done.returncode, done.stderr) == (
                1,
                "sdg: file/out cannot be written: Not a directory.\n",
            )
        assert not server.bodies


def test_heat_maps_from_files_go_to_the_editor_and_a_missing_one_costs_its_picture(tmp_path: Path) -> None:
    pictures(tmp_path, a=40, b=40)
    for kind in ("artifact", "misalignment"):
        (tmp_path / "maps" / kind).mkdir(parents=True)
        Image.new("L", (6, 4), 255).save(tmp_path / "maps" / kind / "a.png")
    with detector() as server, Api(otherwise=halved) as api:
        heat = ("--mode", "heatmap", "--heat", "maps")
        done = refine(tmp_path, *asked(api, server.url, *heat))
        assert done.returncode == 2
        assert "need --mode heatmap and --rounds 1" in done.stderr
        done = refine(tmp_path, *asked(api, server.url, *heat, "--rounds", "1"))
        assert done.returncode == 1
        assert last_sentence(done.stderr).endswith("b.png: maps holds no artifact map for b.png.")
        assert [name for name, _ in api.asked[0]].count("image[]") == 3
        done = refine(
            tmp_path, *asked(api, server.url, "--mode", "heatmap", "--heat", "none", "--rounds", "1")
        )
    assert done.stderr == "sdg: none is no folder; name the one with the heat maps.\n"
    assert [row["status"] for row in rows(tmp_path / "out")] == ["improved", "failed"]
