"""URIs that name a Python function, python:MODULE.FUNCTION?key=value: the door for anything not built in.

A recipe may name one wherever it names a model, a set of prompts, a scorer or a judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from sdg.errors import SdgError

SCHEME = "python:"


def named_function(uri: str) -> Callable[..., Any]:
    """The function a URI names; what follows "?" becomes keyword arguments, whole numbers as int.

    Raises SdgError where the module or its function does not exist.
    """
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    module, _, name = path.rpartition(".")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SdgError(f"{uri} names no function ({error}); write python:MODULE.FUNCTION.") from None
    if not callable(function):
        raise SdgError(f"{uri} names {type(function).__name__}, not a function.")
    arguments = {k: int(v) if re.fullmatch(r"-?[0-9]+", v) else v for k, v in parse_qsl(query)}
    return partial(function, **arguments) if arguments else function


def read_prompts(source: str) -> list[str]:
    """The prompts of a text file, one a line, or of a named function; raises SdgError if there are none."""
    if source.startswith(SCHEME):
        prompts = list(named_function(source)())
    else:
        try:
            lines = Path(source).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SdgError(
                f"{source} cannot be read ({reason}); give a text file of one prompt a line."
            ) from None
        prompts = [line.strip() for line in lines if line.strip()]
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise SdgError(f"{source} holds no prompts; give one a line.")
    return prompts


def model_location(model: str) -> str:
    """A checkpoint's folder or hub id: as written, or what a named function returns."""
    return str(named_function(model)()) if model.startswith(SCHEME) else model
