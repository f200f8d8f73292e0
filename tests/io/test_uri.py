"""URIs: how they are taken apart, and whatever a `python:` one names, a fault is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy

from sdg import load_detector
from sdg.errors import SdgError
from sdg.io.uri import (
    SERVED,
    Uri,
    answering,
    model_location,
    named_function,
    parse_uri,
    read_prompts,
    require_made,
)
from sdg.scorers import require_scorer


def test_a_function_gets_what_its_uri_says() -> None:
    assert named_function("python:builtins.dict?a=1&b=x&c=-5")() == {"a": 1, "b": "x", "c": -5}
    assert named_function("python:os.path.join", called_with=2)("a", "b") == "a/b"
    assert named_function(f"python:builtins.dict?a={'9' * 5000}")() == {"a": "9" * 5000}
    assert read_prompts("python:string.capwords?s=x") == ["X"]
    assert model_location("python:os.getcwd") == str(Path.cwd())
    assert model_location("ORG/NAME") == "ORG/NAME"


def parse(uri: str, what: str = "detector") -> Uri:
    schemes = ("testbed", "hf", "openai", "heatmap", "replay", "python")
    return parse_uri(uri, what, {scheme: f"{scheme}:…" for scheme in schemes}, folder="hf")


@pytest.mark.parametrize(
    ("uri", "scheme", "place", "options"),
    [
        ("testbed", "python", "sdg.testbed.entry.detector", {}),
        ("testbed?batch_size=4", "python", "sdg.testbed.entry.detector", {"batch_size": "4"}),
        ("testbed:out/generator", "python", "sdg.testbed.entry.detector", {"folder": "out/generator"}),
        ("python:a.b.c?x=1&y=", "python", "a.b.c", {"x": "1", "y": ""}),
        ("hf:P1n3/sdg-detector-sft", "hf", "P1n3/sdg-detector-sft", {}),
        ("hf:a/b?dtype=float32&device=cuda:1", "hf", "a/b", {"dtype": "float32", "device": "cuda:1"}),
        ("openai:http://h:8000/v1#org/m", "openai", "http://h:8000/v1#org/m", {}),
        ("openai:http://h/v1?attempts=2#m", "openai", "http://h/v1#m", {"attempts": "2"}),
        ("openai:http://h/v1#m:7b?attempts=2", "openai", "http://h/v1#m:7b", {"attempts": "2"}),
        ("heatmap:maps?threshold=0.1", "heatmap", "maps", {"threshold": "0.1"}),
        ("replay:a b/out.jsonl", "replay", "a b/out.jsonl", {}),
        ("hf:a/b?profile=c+d%20e.toml", "hf", "a/b", {"profile": "c+d e.toml"}),
    ],
)
def test_a_uri_is_taken_apart(uri: str, scheme: str, place: str, options: dict[str, str]) -> None:
    assert parse(uri) == Uri(scheme, place, options)


@pytest.mark.parametrize(
    ("uri", "left"),
    [
        ("openai:http://h:8000/v1?timeout=9&key=K&looks=8#org/m", "openai:#org/m?looks=8"),
        ("openai:http://h/v1#org/m?profile=release&agree=0.5", "openai:#org/m?agree=0.5&profile=release"),
        ("unified-reward:http://h/v1#m?parallel=2&timeout=1", "unified-reward:#m"),
        ("remote:http://localhost:9101?batch=4&attempts=1", "remote:"),
        ("hf:a/b?dtype=float32&device=cuda:1", "hf:a/b?dtype=float32&device=cuda:1"),
        ("python:a.b?timeout=3", "python:a.b?timeout=3"),
    ],
)
def test_answers_depend_on_a_servers_model_and_wording_alone(uri: str, left: str) -> None:
    assert answering(uri) == left


def test_options_of_servers_that_change_no_answer_are_options_they_have() -> None:
    values = {"key": "PATH"}
    plain = load_detector("openai:http://h/v1?profile=default#m").identity
    for name in SERVED["openai"]:
        other = f"openai:http://g/v1?profile=default&{name}={values.get(name, 3)}#m"
        assert load_detector(other).identity == plain
    for scheme, place in (("unified-reward", "http://h/v1#m"), ("remote", "http://h")):
        for name in SERVED[scheme]:
            require_scorer(f"{scheme}:{place}?{name}=3")


@pytest.mark.parametrize("uri", ["one:a?b=1&c=2&b=3", "one:http://a?b=1#M?b=1"])
def test_an_option_that_is_given_twice_is_refused(uri: str) -> None:
    with pytest.raises(SdgError, match=r"gives the option 'b' twice"):
        parse_uri(uri, "thing", {"one": "one:PLACE"})


def test_a_folder_needs_no_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "grpo?x=1").mkdir()
    (tmp_path / "testbed").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse(str(tmp_path)) == Uri("hf", str(tmp_path), {})
    assert parse(f"{tmp_path}?device=cpu") == Uri("hf", str(tmp_path), {"device": "cpu"})
    assert parse("grpo?x=1") == Uri("hf", "grpo?x=1", {})
    assert parse("testbed").place == "sdg.testbed.entry.detector"


def test_an_alias_is_only_one_where_it_is_named() -> None:
    assert parse("testbed", "editor").place == "sdg.testbed.entry.editor"
    with pytest.raises(SdgError, match="'testbed' is no scorer; scorers are clip:FOLDER"):
        parse_uri("testbed", "scorer", {"clip": "clip:FOLDER"})
    assert model_location("testbed") == model_location("python:sdg.testbed.entry.generator")


@pytest.fixture
def raising(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of modules that each fail in their own way when they are imported."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "raising_modules"
    folder.mkdir()
    texts = {
        "syntax": "def f(:",
        "exits": "raise SystemExit",
        "recursion": "def f():\n    return f()\nf()",
        "odd": "class Odd(Exception):\n    pass\nraise Odd('\\x1b[31m' + 'y' * 5000)",
        "fails": "def f():\n    raise KeyError('k' * 5000)\ndef leaves():\n    raise SystemExit\n",
    }
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    return "python:raising_modules"


@pytest.mark.parametrize(
    ("text", "takes", "reason"),
    [
        ("picture", 2, "with 2 arguments, too many positional arguments; with none, missing a required"),
        ("request, extra", 1, "with 1 argument, missing a required argument: 'extra'; with none, missing"),
        ("folder, device", 2, ""),
        ("*, folder", 2, ": missing a required argument: 'folder'."),
        ("*, folder, device", 2, ": missing a required argument: 'folder'."),
    ],
)
def test_a_function_of_other_arguments_is_told_what_it_is_called_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, takes: int, reason: str
) -> None:
    module = f"takes_{len(text)}_{takes}"  # each is imported once
    (tmp_path / f"{module}.py").write_text(f"def f({text}): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    uri = Uri("python", f"{module}.f", {})
    if not reason:
        require_made(uri, takes, device="cpu")
        return
    with pytest.raises(SdgError) as caught:
        require_made(uri, takes, device="cpu")
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", ["syntax.f", "exits.f", "recursion.f", "odd.f", "nothing.f", "fails.g"])
def test_a_module_that_cannot_be_imported_is_said(raising: str, name: str) -> None:
    with pytest.raises(SdgError, match="names no function") as caught:
        named_function(f"{raising}.{name}")
    assert len(str(caught.value)) <= 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "uri",
    [
        "python:os.getpid",
        "python:os.getpid?a=1",
        "python:os.nothing",
        "python:time.sleep",
        "fails.f",
        "fails.leaves",
    ],
)
def test_a_function_that_gives_no_prompts_or_no_model_is_said(raising: str, uri: str) -> None:
    uri = uri if uri.startswith("python:") else f"{raising}.{uri}"
    for read in (read_prompts, model_location):
        with pytest.raises(SdgError) as caught:
            read(uri)
        assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("name", ["\0", "a\0b", "x" * 300, "\ud800", "."])
def test_a_file_of_prompts_that_cannot_be_is_said(name: str) -> None:
    with pytest.raises(SdgError, match="cannot be read") as caught:
        read_prompts(name)
    assert len(str(caught.value)) <= 300
    assert str(caught.value).isprintable()


def test_prompts_come_from_lines_or_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.txt").write_text("a red cup\n\n  a hat \n")
    assert read_prompts(str(tmp_path / "p.txt")) == ["a red cup", "a hat"]
    monkeypatch.setattr(
        toy, "some", lambda count, start="a": [f"{start} {i}" for i in range(count)], raising=False
    )
    assert read_prompts("python:toy.some?count=2&start=the") == ["the 0", "the 1"]
    assert read_prompts("python:toy.some?count=2&start=--5") == ["--5 0", "--5 1"]
    (tmp_path / "p.txt").write_bytes("\ufeffa red cup\n".encode())
    assert read_prompts(str(tmp_path / "p.txt")) == ["a red cup"]
    (tmp_path / "p.txt").write_bytes("a red cup\u2028on a table\r\na dog\x85in rain\n".encode())
    assert read_prompts(str(tmp_path / "p.txt")) == ["a red cup\u2028on a table", "a dog\x85in rain"]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(SdgError, match="holds no prompts"):
        read_prompts(str(tmp_path / "empty.txt"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("geneval.jsonl", b'{"prompt": "a cup"}'),
        ("Parti.TSV", b"Prompt\tCategory\na cup\tx"),
        ("d.csv", b"Prompts\na cup"),
        ("d.parquet", b"PAR1\xff"),
        ("d.json", b'["a cup"]'),
        ("d.txt", b'\n {"prompt": "a cup"}\n'),
    ],
)
def test_a_file_in_another_format_is_no_list_of_prompts(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SdgError, match=r"is no list of prompts, one a line; .* bench:NAME") as caught:
        read_prompts(str(tmp_path / name))
    assert len(str(caught.value)) <= 300
