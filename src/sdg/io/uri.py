"""Addresses of models: `scheme:place?option=value&…`, their options, and the functions that `python:` names.

A detector, an editor, a scorer, a generator or a set of prompts can be `python:MODULE.FUNCTION?key=value`,
the door for whatever is not built in. `testbed` is an alias of such functions.
"""

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from sdg.errors import SdgError, described, first_line, path_end, quoted, shortened
from sdg.io.files import is_folder

T = TypeVar("T")

PYTHON: Final = "python"
ALIASES: Final = {"testbed": "sdg.testbed.entry"}
"""Name -> module: `testbed` is `python:sdg.testbed.entry.detector` as a detector, `….editor` as an editor."""

PROMPT_SETS: Final = "bench"
"""Scheme of the published prompt sets: `bench:NAME?path=…`, read by the function named below."""
_PROMPT_SETS: Final = "sdg.bench.prompts.prompts"

SERVED: Final[Mapping[str, frozenset[str]]] = {
    "openai": frozenset({"concurrency", "timeout", "attempts", "key"}),
    "unified-reward": frozenset({"parallel", "timeout"}),
    "remote": frozenset({"batch", "timeout", "attempts"}),
}
"""Scheme of what a server answers -> the options that say how it is asked, and on which no answer depends."""

_OTHER_FORMATS: Final = frozenset({".jsonl", ".json", ".tsv", ".csv", ".parquet"})
"""Suffixes of files whose lines are no prompts."""

_WHOLE: Final = re.compile("-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Uri:
    """A URI taken apart: `place` is what stands between the scheme and the options."""

    scheme: str
    place: str
    options: Mapping[str, str]

    def __str__(self) -> str:
        options = "&".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.scheme}:{self.place}" + (f"?{options}" if options else "")


def parse_uri(uri: str, what: str, forms: Mapping[str, str], folder: str = "") -> Uri:
    """Take a URI apart; options stand before or after the `#MODEL` of an address.

    what: "detector", "editor" or "scorer". forms: scheme or alias -> how such URIs are written. folder: the
    scheme of a bare path where a folder is. An alias gives the `python:` URI that it stands for, with what
    follows a colon as the option `folder`.
    Raises SdgError, naming the nearest scheme or else all forms, for anything else.
    """
    address, options = split_options(uri)
    scheme, _, place = address.partition(":")
    if scheme in ALIASES and scheme in forms:
        return _aliased(scheme, what, options | ({"folder": place} if place else {}))
    if folder and uri and is_folder(uri):  # also where its name holds a question mark
        return Uri(folder, uri, {})
    if folder and address and is_folder(address):
        return Uri(folder, address, options)
    if scheme not in forms:
        raise _unknown(uri, scheme, what, forms, folder)
    if not place and ":" in forms[scheme]:
        raise SdgError(f"{quoted(uri)} does not say which one; {what}s are {', '.join(forms.values())}.")
    return Uri(scheme, place, options)


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """An address without its options, and these, which stand before or after its `#MODEL`.

    Raises SdgError for an option that is given twice.
    """
    options: dict[str, str] = {}
    parts = []
    for part in text.split("#", 1):
        place, _, query = part.partition("?")
        parts.append(place)
        # A plus sign is itself, as in names of files, and no blank as in a form.
        for name, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
            if name in options:
                raise SdgError(f"{quoted(text)} gives the option {quoted(name)} twice.")
            options[name] = value
    return "#".join(parts), options


def answering(uri: str) -> str:
    """What of a URI answers depend on: of a server's its model and wording, not its address or time limits.

    Example: `openai:http://node17:8000/v1?timeout=900&profile=release#M` gives `openai:#M?profile=release`.
    """
    scheme = uri.partition(":")[0]
    if scheme not in SERVED:
        return uri
    address, options = split_options(uri)
    model = address.partition("#")[2]
    kept = {name: value for name, value in sorted(options.items()) if name not in SERVED[scheme]}
    return str(Uri(scheme, f"#{model}" if model else "", kept))


def require_place(place: str, otherwise: str) -> None:
    """Raise SdgError where a place can only be a path and no folder is there; a hub's names are ORG/NAME.

    otherwise: how the sentence goes on after the path, such as "; check the path."
    """
    is_path = place.startswith(("/", ".", "~")) or place.count("/") > 1 or "\\" in place
    if is_path and not is_folder(place):
        raise SdgError(f"There is no folder {shortened(place, 80)}{otherwise}")


def _unknown(uri: str, scheme: str, what: str, forms: Mapping[str, str], folder: str) -> SdgError:
    near = difflib.get_close_matches(scheme[:80], forms, n=1)
    if near:
        return SdgError(f"{quoted(uri)} is no {what}; did you mean {near[0]!r}?")
    if folder and ("/" in uri or uri.startswith(".")):
        return SdgError(
            f"{shortened(uri, 80)} is no folder; name a checkpoint folder that exists, "
            f"or one on a hub as {folder}:ORG/NAME."
        )
    return SdgError(f"{quoted(uri)} is no {what}; {what}s are {', '.join(forms.values())}.")


def _aliased(name: str, what: str, options: Mapping[str, str]) -> Uri:
    return Uri(PYTHON, f"{ALIASES[name]}.{what}", options)


def is_python(uri: str) -> bool:
    """Whether a URI names a function."""
    return uri.startswith(f"{PYTHON}:")


def named_function(uri: Uri | str, called_with: int = 0) -> Callable[..., Any]:
    """The function that a `python:` URI names; its options become keyword arguments, whole numbers as int.

    called_with: how many arguments it gets by position. Raises SdgError where the module or its function
    does not exist, and where the function does not take these arguments.
    """
    function = _imported(uri := _taken_apart(uri))
    if reason := _refusal(function, called_with):
        raise SdgError(f"{quoted(str(uri))} cannot be called with what it gets here: {reason}.")
    return function


def made_by(uri: Uri, takes: int, wrap: Callable[[Callable[..., Any]], T], method: str, **offered: Any) -> T:
    """What a `python:` URI stands for where an object with a certain `method` is needed.

    A function of `takes` arguments by position does the work itself, and is wrapped. A class, or a function
    of keyword arguments alone, makes the object: out of the URI's options, and of what is `offered` as far as
    it has parameters of these names. Raises SdgError where neither comes of it.
    """
    function, works = _resolved(uri, takes, offered)
    if works:
        return wrap(function)
    made: Any = _called(uri, function, lambda made: made)
    if not hasattr(made, method):
        raise SdgError(
            f"{quoted(str(uri))} takes neither {takes} arguments nor makes what has `{method}`, "
            f"but {type(made).__name__}."
        )
    return made


def require_made(uri: Uri, takes: int, **offered: Any) -> None:
    """Raise SdgError where `made_by` would have nothing to call; nothing is called here."""
    _resolved(uri, takes, offered)


def read_prompts(source: str) -> list[str]:
    """The prompts of a text file, one a line, of a published set or of a named function.

    Raises SdgError if there are none, and for a file in another format, such as JSON Lines or CSV.
    """
    if source.startswith(f"{PROMPT_SETS}:"):
        name, options = split_options(source.removeprefix(f"{PROMPT_SETS}:"))
        known = _imported(Uri(PYTHON, _PROMPT_SETS, {}))
        for option in options:
            _require_option(option, [*inspect.signature(known).parameters][1:], f"{PROMPT_SETS}:{name}")
        uri = Uri(PYTHON, _PROMPT_SETS, {"name": name, **options})
        prompts = _called(source, named_function(uri), list)
    elif is_python(source):
        prompts = _called(source, named_function(source), list)
    else:
        if Path(source).suffix.lower() in _OTHER_FORMATS:
            raise _other_format(source)
        try:
            # Other separators, such as U+2028, may stand within a prompt.
            lines = Path(source).read_text(encoding="utf-8-sig").split("\n")
        except (OSError, ValueError) as error:  # of bytes that are not UTF-8, of NUL in the name
            reason = getattr(error, "strerror", None) or shortened(str(error), 80)
            raise SdgError(
                f"{path_end(source)} cannot be read ({reason}); give a text file of one prompt a line."
            ) from None
        prompts = [line.strip() for line in lines if line.strip()]
        if prompts and prompts[0].startswith("{"):
            raise _other_format(source)
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise SdgError(f"{path_end(source)} holds no prompts; give one a line.")
    return prompts


def _other_format(source: str) -> SdgError:
    return SdgError(
        f"{path_end(source)} is no list of prompts, one a line; give a text file, or "
        f"{PROMPT_SETS}:NAME?path={path_end(source)} for a published list."
    )


def model_location(model: str) -> str:
    """A generator's folder or hub id: as written, or what a named function or an alias returns."""
    address, options = split_options(model)
    if address in ALIASES:
        model = str(_aliased(address, "generator", options))
    return _called(model, named_function(model), os.fspath) if is_python(model) else model


def _taken_apart(uri: Uri | str) -> Uri:
    return uri if isinstance(uri, Uri) else Uri(PYTHON, *split_options(uri.removeprefix(f"{PYTHON}:")))


def _imported(uri: Uri) -> Callable[..., Any]:
    """The function of a URI with its options, whatever it takes beside them."""
    module, _, name = uri.place.rpartition(".")
    try:
        if not all(part.isidentifier() for part in uri.place.split(".")) or not module:
            raise ValueError("it is no dotted name")
        function = getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # a module may raise whatever it likes while it is imported
        reason = shortened(first_line(error), 100)
        raise SdgError(
            f"{quoted(str(uri))} names no function ({reason}); write python:MODULE.FUNCTION."
        ) from error
    if not callable(function):
        raise SdgError(f"{quoted(str(uri))} names {type(function).__name__}, not a function.")
    arguments = {
        k: int(v) if isinstance(v, str) and _WHOLE.fullmatch(v) else v for k, v in uri.options.items()
    }
    return partial(function, **arguments) if arguments else function


def _resolved(uri: Uri, takes: int, offered: Mapping[str, Any]) -> tuple[Callable[..., Any], bool]:
    """The function of a URI, and whether it does the work itself; if not, it makes the object as it is."""
    function = _imported(uri)
    itself = function.func if isinstance(function, partial) else function  # without the URI's options
    works = not inspect.isclass(itself)
    if works and not (reason := _refusal(function, takes)):
        return function, True
    try:
        parameters = {
            name: one for name, one in inspect.signature(itself).parameters.items() if name not in uri.options
        }
    except ValueError:
        parameters = {}
    maker = partial(function, **{name: value for name, value in offered.items() if name in parameters})
    if refusal := _refusal(maker, 0):
        if works and not _refusal(itself, takes):  # its options are what does not fit
            refusal = reason
        elif works and any(map(_is_required, parameters.values())):  # it may be meant for either
            refusal = f"with {takes} argument{'s' * (takes != 1)}, {reason}; with none, {refusal}"
        raise SdgError(f"{quoted(str(uri))} cannot be called with what it gets here: {refusal}.")
    return maker, False


def _is_required(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is given by position, and has to be."""
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return parameter.kind in by_position and parameter.default is inspect.Parameter.empty


def _refusal(function: Callable[..., Any], called_with: int) -> str:
    """Why a function does not take so many arguments by position; "" where it does."""
    arguments: dict[str, Any] = {}
    if isinstance(function, partial):  # whose own signature leaves out what it must not be given
        arguments = function.keywords
        function = function.func
    try:
        inspect.signature(function).bind(*[None] * called_with, **arguments)
    except TypeError as error:
        return shortened(str(error), 100)
    except ValueError:  # of some functions written in C, nobody knows what they take
        pass
    return ""


def _called(uri: Uri | str, function: Callable[[], Any], kind: Callable[[Any], T]) -> T:
    """What a function returns, as a `kind`; raises SdgError, naming it, whatever it raises."""
    if reason := _refusal(function, 0):
        raise SdgError(f"{quoted(str(uri))} cannot be called with what it gets here: {reason}.")
    try:
        return kind(function())
    except SdgError:
        raise
    except (Exception, SystemExit) as error:
        reason = shortened(described(error), 160)
        raise SdgError(f"{quoted(str(uri))} does not return what it should here ({reason}).") from error


def read_options(
    uri: Uri, known: Mapping[str, Callable[[str], Any]], what: str = "detector"
) -> dict[str, Any]:
    """The options as values; `known` maps each name to what reads its text, raising ValueError if it cannot.

    what: "detector", "editor" or "scorer", for the sentence. Raises SdgError for an option the scheme does
    not have, naming the nearest one, and for a bad value.
    """
    values: dict[str, Any] = {}
    for name, text in uri.options.items():
        _require_option(name, known, f"The {uri.scheme} {what}")
        try:
            values[name] = known[name](text)
        except ValueError as error:
            raise SdgError(
                f"The {uri.scheme} {what}'s option {name} is {error}, not {quoted(text)}."
            ) from None
    return values


def _require_option(name: str, known: Iterable[str], whose: str) -> None:
    """Raise SdgError, naming the nearest one, for an option that is not among those known."""
    if name not in (known := list(known)):
        near = difflib.get_close_matches(name[:80], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}."
        raise SdgError(f"{shortened(whose, 80)} has no option {quoted(name)}; {hint}")


def count(text: str) -> int:
    """A whole number from 1."""
    if not (text.isdecimal() and len(text) < 10 and int(text) >= 1):
        raise ValueError("a whole number from 1")
    return int(text)


def _number(what: str, holds: Callable[[float], bool]) -> Callable[[str], float]:
    """What reads a number of which something holds; what: it in words."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not holds(value):
            raise ValueError(what)
        return value

    return read


seconds: Final = _number("a number of seconds above 0", lambda value: 0 < value < math.inf)
share: Final = _number("a number from 0 to below 1", lambda value: 0 <= value < 1)
positive_share: Final = _number("a number above 0, at most 1", lambda value: 0 < value <= 1)
temperature: Final = _number("a number of at least 0", lambda value: 0 <= value < math.inf)


def text(value: str) -> str:
    """A text that is not empty."""
    if not value:
        raise ValueError("a text that is not empty")
    return value


def switch(value: str) -> bool:
    """true or false."""
    if (known := {"true": True, "false": False}.get(value.lower())) is None:
        raise ValueError("true or false")
    return known


def variable(value: str) -> str:
    """The name of an environment variable."""
    if not (value.isascii() and value.isidentifier()):
        raise ValueError("the name of an environment variable")
    return value


def one_of(*names: str) -> Callable[[str], str]:
    """What reads one of the given names."""

    def read(value: str) -> str:
        if value not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return value

    return read
