"""What a library raises for a checkpoint, and what of it is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from sdg.errors import (
    SdgError,
    described,
    first_line,
    installed,
    loading,
    loading_errors,
    path_end,
    quoted,
    shortened,
)


def test_damaged_weights_are_among_the_errors_of_loading(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(loading_errors()):
        load_file(tmp_path / "a.safetensors")
    assert not issubclass(KeyboardInterrupt, loading_errors())


def test_what_cannot_be_loaded_is_said_with_the_library_s_reason_and_what_to_do() -> None:
    said = r"^a cannot be loaded \(no such layer\); check b\.$"
    with pytest.raises(SdgError, match=said), loading("a cannot be loaded", "check b"):
        raise RuntimeError("no such layer\nat 0x7f")
    with pytest.raises(KeyboardInterrupt), loading("a cannot be loaded"):
        raise KeyboardInterrupt


def test_what_is_not_installed_is_said_with_the_extra_that_brings_it() -> None:
    said = r"^A needs b: pip install 'structured-defect-grounding\[c\]'\.$"
    with pytest.raises(SdgError, match=said), installed("A needs b", "c"):
        import_module("no_such_module")
    with pytest.raises(SdgError, match=r"\]'; or take d\.$"), installed("A needs b", "c", "or take d"):
        import_module("no_such_module")


def test_what_a_user_s_function_raised_is_said_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import json\ndef f(text):\n    return json.loads(text)\n")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), names)

    def said(function: Callable[[str], object]) -> str:
        with pytest.raises(ValueError, match="Expecting value") as caught:
            function("x")
        error = caught.value
        # From where it was caught on, as in the package: without this test's own lines.
        assert error.__traceback__ is not None
        return described(error.with_traceback(error.__traceback__.tb_next))

    plain = "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"
    assert said(names["f"]) == f"{plain} at {path_end(str(file))}:3"
    assert said(json.loads) == plain  # a library's lines are nobody's to mend
    assert described(SdgError("This is wrong.")) == "This is wrong."


@pytest.mark.parametrize(("text", "said"), [("\n one\ntwo", "one"), ("", "OSError"), (" \n", "OSError")])
def test_the_first_line_of_an_error_or_its_name(text: str, said: str) -> None:
    assert first_line(OSError(text)) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a", "'a'"),
        ("y" * 100, "'" + "y" * 8 + "…"),
        ("\x1b[31m\n", "'\\x1b[31m…"),
        (7, "7"),
        pytest.param(16**5000, "a value too large to show (int)", id="huge"),
        ([1, 2, 3, 4, 5], "[1, 2, 3,…"),
        (None, "None"),
    ],
)
def test_a_value_is_quoted_within_bounds(value, said):
    assert quoted(value, 10) == said


def test_nesting_without_end_is_quoted_too():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert quoted(deep) == "a value too large to show (list)"


def test_a_text_is_shortened_into_one_printable_line():
    assert shortened("a\nb", 10) == "a\\nb"
    assert shortened("\x1b" * 9, 10) == "\\x1b\\x1b\\…"
    assert shortened("naïve 😀", 8) == "naïve 😀"
    assert shortened("naïve 😀", 6) == "naïve…"


def test_a_hub_that_cannot_be_reached_is_said_whatever_a_library_makes_of_it() -> None:
    def load(inner: Exception) -> None:
        try:
            raise inner
        except type(inner):
            raise OSError("a/b does not appear to have a file named model_index.json.")  # noqa: B904

    with pytest.raises(SdgError, match=r"^It fails \(the hub cannot be reached\)\.$"), loading("It fails"):
        load(ConnectionError("refused"))
    with pytest.raises(SdgError, match="model_index"), loading("It fails"):
        load(KeyError("x"))
