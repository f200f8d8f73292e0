"""URIs that name a Python function, python:MODULE.FUNCTION?key=value: the door for anything not built in.

A recipe may name one wherever it names a model, a set of prompts, a scorer or a judge.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from sdg.errors import SdgError, first_line, path_end, quoted, shortened

T = TypeVar("T")
SCHEME = "python:"


def named_function(uri: str, called_with: int = 0) -> Callable[..., Any]:
    """The function a URI names; what follows "?" becomes keyword arguments, whole numbers as int.

    called_with: how many arguments it gets by position. Raises SdgError where the module or its function
    does not exist, and where the function does not take these arguments.
    """
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    module, _, name = path.rpartition(".")
    try:
        if not all(part.isidentifier() for part in path.split(".")) or not module:
            raise ValueError("it is no dotted name")
        function = getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # a module may raise whatever it likes while it is imported
        reason = shortened(first_line(error), 100)
        raise SdgError(
            f"{quoted(uri)} names no function ({reason}); write python:MODULE.FUNCTION."
        ) from error
    if not callable(function):
        raise SdgError(f"{quoted(uri)} names {type(function).__name__}, not a function.")
    whole = re.compile("-?[0-9]{1,18}")
    arguments = {k: int(v) if whole.fullmatch(v) else v for k, v in parse_qsl(query)}
    try:
        inspect.signature(function).bind(*[None] * called_with, **arguments)
    except TypeError as error:
        reason = shortened(str(error), 100)
        raise SdgError(f"{quoted(uri)} cannot be called with what it gets here: {reason}.") from None
    except ValueError:  # of some functions written in C, nobody knows what they take
        pass
    return partial(function, **arguments) if arguments else function


def _called(uri: str, kind: Callable[[Any], T]) -> T:
    """What a named function returns, as a `kind`; raises SdgError, naming it, whatever it raises."""
    function = named_function(uri)
    try:
        return kind(function())
    except SdgError:
        raise
    except (Exception, SystemExit) as error:
        reason = shortened(f"{type(error).__name__}: {first_line(error)}", 100)
        raise SdgError(f"{quoted(uri)} does not return what it should here ({reason}).") from error


def read_prompts(source: str) -> list[str]:
    """The prompts of a text file, one a line, or of a named function; raises SdgError if there are none."""
    if source.startswith(SCHEME):
        prompts = _called(source, list)
    else:
        try:
            lines = Path(source).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:  # of bytes that are not UTF-8, of NUL in the name
            reason = getattr(error, "strerror", None) or shortened(str(error), 80)
            raise SdgError(
                f"{path_end(source)} cannot be read ({reason}); give a text file of one prompt a line."
            ) from None
        prompts = [line.strip() for line in lines if line.strip()]
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise SdgError(f"{path_end(source)} holds no prompts; give one a line.")
    return prompts


def model_location(model: str) -> str:
    """A checkpoint's folder or hub id: as written, or what a named function returns."""
    return _called(model, os.fspath) if model.startswith(SCHEME) else model
