"""`sdg study`: from two folders to a table, and one sentence for what cannot be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from kills import kill_and_resume
from PIL import Image

from sdg.cli import main
from sdg.cli.study import study
from sdg.study.make import KEY, PAGE, read_key


@pytest.fixture
def run(capfd, monkeypatch, tmp_path: Path):
    """Run `sdg study …` in a folder of its own; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            main(["study", *arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def made(run, tmp_path: Path) -> dict:
    """The key of a study of five inputs, of which one is left as it was and one failed."""
    for system, colour in {"mine": (200, 0, 0), "fixed": (0, 0, 200)}.items():
        rows = []
        for number in range(5):
            Image.new("RGB", (24, 24), (9, 9, 9)).save(tmp_path / f"{number}.png")
            after = None if number == 3 else f"pictures/{number}.png"
            if after:
                (tmp_path / system / "pictures").mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (24, 24), colour).save(tmp_path / system / after)
            status = "failed" if (number, system) == (4, "mine") else "clean"
            row = {"id": f"{number}.png", "prompt": "a cat", "before": f"../{number}.png", "after": after}
            rows.append(json.dumps(row | {"status": status}))
        (tmp_path / system / "refinements.jsonl").write_text("\n".join(rows))
    code, out, err = run("make", "--a", "sdg=mine/", "--b", "fixed=fixed", "--images", ".", "--out", "study")
    assert (code, out) == (0, "")
    assert err.splitlines()[0] == (
        "4 pairs: 3 to rate, 1 identical, which count as Same. Left out: 0 inputs with one result only, "
        "1 that a system failed on."
    )
    return json.loads((tmp_path / "study" / "key.json").read_text())


def rate(path: Path, key: dict, annotator: str, *sides: str) -> str:
    """Ratings of the pairs that are shown: "a", "b" or "same" of each."""
    shown = [pair for pair in key["pairs"] if not pair["identical"]]
    ratings = [
        {"pair": one["id"], "better": one.get(side, side)} for one, side in zip(shown, sides, strict=True)
    ]
    path.write_text(json.dumps({"study": key["study"], "annotator": annotator, "ratings": ratings}))
    return path.name


@pytest.mark.parametrize("command", ["make", "count"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(study, [command, "--help"])
    assert result.exit_code == 0
    assert f"sdg study {command}" in result.output


def test_ratings_become_the_table_and_the_same_numbers_as_json(run, made, tmp_path: Path) -> None:
    ann = rate(tmp_path / "1.json", made, "Ann", "a", "a", "same")
    bob = rate(tmp_path / "2.json", made, "[/b]", "a", "b", "same")
    code, out, err = run("count", "study", ann, bob, "--json", "gsb.json")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert ["Ann", "50.00", "%", "50.00", "%", "0.00", "%", "0.500"] in rows
    assert ["[/b]", "25.00", "%", "50.00", "%", "25.00", "%", "1.000"] in rows
    assert ["all", "37.50", "%", "50.00", "%", "12.50", "%", "1.000"] in rows
    assert ["Ann", "and", "[/b]", "66.67", "%", "0.500"] in rows
    assert "Same holds 1 identical pairs that were not shown." in out
    numbers = json.loads((tmp_path / "gsb.json").read_text())
    assert numbers["pooled"]["counts"] == {"good": 3, "same": 4, "bad": 1}
    assert (numbers["a"], numbers["b"], numbers["pairs"], numbers["identical"]) == ("sdg", "fixed", 4, 1)
    code, out, err = run("count", "study", ann, bob, "--json", "-")
    assert (code, json.loads(out), err) == (0, numbers, "")


def test_what_does_not_fit_is_one_sentence(run, made, tmp_path: Path) -> None:
    ann = rate(tmp_path / "1.json", made, "Ann", "a", "a", "same")
    other = rate(tmp_path / "2.json", made | {"study": "another"}, "Bob", "a", "a", "a")

    def failed(why: str, *arguments: str) -> None:
        code, out, err = run(*arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert why in err

    failed("2.json holds ratings of another study, 'another'", "count", "study", ann, other)
    failed("2 of the files hold ratings by Ann", "count", "study", ann, ann)
    failed("1.json is an input, and would be replaced", "count", "study", ann, "--json", ann)
    failed("key.json is an input, and would", "count", "study", ann, "--json", "study/key.json")
    failed("key.json does not exist", "count", "elsewhere", ann)
    failed("key.json is there already", "make", "--a", "x=mine", "--b", "y=fixed", "--out", "study")
    failed("mine2 does not exist", "make", "--a", "x=mine2", "--b", "y=fixed", "--out", "new")


@pytest.mark.parametrize(
    ("a", "b"), [("mine", "y=fixed"), ("=mine", "y=fixed"), ("x=", "y=fixed"), ("x=mine", "x=fixed")]
)
def test_systems_need_names_that_differ(run, made, a: str, b: str) -> None:
    code, out, _ = run("make", "--a", a, "--b", b, "--out", "new")
    assert (code, out) == (2, "")


@pytest.mark.slow
@pytest.mark.kill
def test_killed_at_any_moment_there_is_a_whole_study_or_none(tmp_path: Path) -> None:
    for system, level in (("mine", 0), ("fixed", 128)):
        (tmp_path / system).mkdir()
        rows = []
        for number in range(40):
            noise = Image.effect_noise((256, 256), 40 + number).point(
                lambda grey, level=level: grey // 2 + level
            )
            noise.save(tmp_path / system / f"{number}.png")
            rows.append(json.dumps({"filepath": f"{number}.png", "caption": f"prompt {number}"}))
        (tmp_path / system / "in.jsonl").write_text("\n".join(rows))

    def command(out: Path) -> list[str]:
        sources = [f"{system}={tmp_path / system / 'in.jsonl'}" for system in ("mine", "fixed")]
        return ["study", "make", "--a", sources[0], "--b", sources[1], "--out", str(out)]

    def assert_same(killed: Path, whole: Path) -> None:
        keys = [read_key(out / KEY) for out in (killed, whole)]
        asked = [[(pair.filepath, pair.prompt, pair.identical) for pair in key.pairs] for key in keys]
        assert sorted(asked[0]) == sorted(asked[1])
        assert len(asked[0]) == 40
        page = (killed / PAGE).read_text()
        assert keys[0].study in page
        assert all(
            page.count(pair.id) == 1 for pair in keys[0].shown
        )  # the ids are drawn anew for each study

    kill_and_resume(
        "study make", command, tmp_path, assert_same, again=(), ended=lambda out: (out / KEY).exists()
    )
