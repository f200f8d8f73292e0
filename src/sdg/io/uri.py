"""Detector URIs: `scheme:place?option=value&…`, and the options each scheme knows."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from sdg.errors import SdgError, quoted, shortened
from sdg.io.files import is_folder

SCHEMES: Final = ("testbed", "hf", "openai", "heatmap", "replay")
_FORMS: Final = (
    "testbed, hf:ORG/NAME, a checkpoint folder, openai:BASE_URL#MODEL, heatmap:FOLDER, replay:FILE"
)


@dataclass(frozen=True, slots=True)
class DetectorUri:
    """A URI taken apart: `place` is what stands between the scheme and the options."""

    scheme: str
    place: str
    options: Mapping[str, str]


def parse_uri(uri: str) -> DetectorUri:
    """Take a detector URI apart; a folder that exists counts as `hf:` also without the scheme.

    The options of an `openai:` URI stand before or after its `#MODEL`. Raises SdgError, naming the forms
    there are, for anything else.
    """
    place, options = _split_options(uri)
    if place == "testbed":
        return DetectorUri(place, "", options)
    if uri and is_folder(uri):  # also where its name holds a question mark
        return DetectorUri("hf", uri, {})
    if place and is_folder(place):
        return DetectorUri("hf", place, options)
    scheme, _, rest = uri.partition(":")
    if scheme not in SCHEMES[1:]:
        raise _unknown(uri, scheme)
    place, options = split_address(rest) if scheme == "openai" else _split_options(rest)
    if not place:
        raise SdgError(f"{quoted(uri)} does not say which one; detectors are {_FORMS}.")
    return DetectorUri(scheme, place, options)


def split_address(text: str) -> tuple[str, dict[str, str]]:
    """`BASE_URL#MODEL` without its options, and these, which stand before or after the `#MODEL`."""
    base, hash_, model = text.partition("#")
    base, before = _split_options(base)
    model, after = _split_options(model)
    return base + hash_ + model, before | after


def is_path(place: str) -> bool:
    """Whether a place can only be a path, as a model hub's names are NAME or ORG/NAME."""
    return place.startswith(("/", ".", "~")) or place.count("/") > 1 or "\\" in place


def _unknown(uri: str, scheme: str) -> SdgError:
    near = difflib.get_close_matches(scheme[:80], SCHEMES, n=1)
    if near:
        return SdgError(f"{quoted(uri)} is no detector; did you mean {near[0]!r}?")
    if "/" in uri or uri.startswith("."):
        return SdgError(
            f"{shortened(uri, 80)} is no folder; name a checkpoint folder that exists, "
            "or one on a hub as hf:ORG/NAME."
        )
    return SdgError(f"{quoted(uri)} is no detector; detectors are {_FORMS}.")


def _split_options(text: str) -> tuple[str, dict[str, str]]:
    place, _, query = text.partition("?")
    return place, dict(parse_qsl(query, keep_blank_values=True))


def read_options(
    uri: DetectorUri, known: Mapping[str, Callable[[str], Any]], what: str = "detector"
) -> dict[str, Any]:
    """The options as values; `known` maps each name to what reads its text, raising ValueError if it cannot.

    what: "detector" or "editor", for the sentence. Raises SdgError for an option the scheme does not have,
    naming the nearest one, and for a bad value.
    """
    values: dict[str, Any] = {}
    for name, text in uri.options.items():
        if name not in known:
            near = difflib.get_close_matches(name[:80], known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}."
            raise SdgError(f"The {uri.scheme} {what} has no option {quoted(name)}; {hint}")
        try:
            values[name] = known[name](text)
        except ValueError as error:
            raise SdgError(
                f"The {uri.scheme} {what}'s option {name} is {error}, not {quoted(text)}."
            ) from None
    return values


def count(text: str) -> int:
    """A whole number from 1."""
    if not (text.isdecimal() and len(text) < 10 and int(text) >= 1):
        raise ValueError("a whole number from 1")
    return int(text)


def seconds(text: str) -> float:
    """A time of more than 0 seconds."""
    if not 0 < (value := _number(text)) < math.inf:
        raise ValueError("a number of seconds above 0")
    return value


def share(text: str) -> float:
    """A number from 0 up to, not including, 1."""
    if not 0 <= (value := _number(text)) < 1:
        raise ValueError("a number from 0 to below 1")
    return value


def positive_share(text: str) -> float:
    """A number above 0, up to 1."""
    if not 0 < (value := _number(text)) <= 1:
        raise ValueError("a number above 0, at most 1")
    return value


def temperature(text: str) -> float:
    """A number of at least 0."""
    if not 0 <= (value := _number(text)) < math.inf:
        raise ValueError("a number of at least 0")
    return value


def _number(text: str) -> float:
    """What a text says, NaN where that is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def text(value: str) -> str:
    """A text that is not empty."""
    if not value:
        raise ValueError("a text that is not empty")
    return value


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
