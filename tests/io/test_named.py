"""`python:` URIs: whatever they name, a fault is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdg.errors import SdgError
from sdg.io.named import model_location, named_function, read_prompts


def test_a_function_gets_what_its_uri_says() -> None:
    assert named_function("python:builtins.dict?a=1&b=x&c=-5")() == {"a": 1, "b": "x", "c": -5}
    assert named_function("python:os.path.join", called_with=2)("a", "b") == "a/b"
    assert named_function(f"python:builtins.dict?a={'9' * 5000}")() == {"a": "9" * 5000}
    assert read_prompts("python:string.capwords?s=x") == ["X"]
    assert model_location("python:os.getcwd") == str(Path.cwd())
    assert model_location("ORG/NAME") == "ORG/NAME"


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
