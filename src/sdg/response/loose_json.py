"""A total reader of JSON as language models write it: any text gives the containers it can be taken for.

It reads Python literals, single quotes, bare words, trailing or missing commas, unescaped quotes inside
texts, mismatched brackets and text that ends anywhere. It skips what it cannot read, never fails, and
takes time proportional to the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

MAX_DEPTH: Final = 32
"""Deeper nesting is no answer; a bracket beyond this depth is skipped."""

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<mark>[][{}(),:])
      | (?P<quote>["'])
      | (?P<number>[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)
      | (?P<word>[^\W0-9]\w*)
      | (?P<other>\S)
    )""",
    re.VERBOSE,
)
# A quote ends a text only where the JSON can go on after it, so that `the sign reads "STOP" in red` and
# `the woman's hand` stay whole even when nobody escaped their quotes.
_GOES_ON: Final = r"""(?=\s*(?:
        \Z | [][:})]
      | , \s* (?: \Z | ["'\]\[{}()0-9+-] | [^\W0-9]\w{0,40}\s{0,8}[,:\])}] )
      | ["'] [\w\ ]{1,40} ["'] \s{0,8} :
    ))"""
_STRING_END: Final = {
    quote: re.compile(rf"\\. | (?P<end>{quote}){_GOES_ON}", re.VERBOSE | re.DOTALL) for quote in "\"'"
}
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_SURROGATES: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}
_WORDS: Final = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
    "NaN": float("nan"),
    "nan": float("nan"),
    "Infinity": float("inf"),
    "inf": float("inf"),
}
_BRACKET: Final = re.compile(r"[\[{]")
_OPENERS: Final = {"}": dict, "]": list, ")": list}


@dataclass(frozen=True, slots=True)
class Container:
    """A list or dict found in a text, from `start` to `end`.

    open: the containers within it, itself included, that the end of the text left open.
    """

    value: list[Any] | dict[str, Any]
    start: int
    end: int
    open: tuple[list[Any] | dict[str, Any], ...] = ()


def containers(text: str) -> Iterator[Container]:
    """The outermost lists and dicts of a text, in order; only the last one can be open."""
    position = 0
    while start := _BRACKET.search(text, position):
        found = _read(text, start.start())
        yield found
        position = found.end


def _read(text: str, start: int) -> Container:
    """Read the container that begins at `start`, bracket by bracket, without recursion."""
    root: list[Any] | dict[str, Any] = {} if text[start] == "{" else []
    stack = [root]
    keys: list[str | None] = [None]  # of each container: the key that waits for its value
    position = start + 1
    while token := _TOKEN.match(text, position):
        position = token.end()
        kind = token.lastgroup
        if kind == "mark":
            mark = token["mark"]
            if mark in "[({":
                if mark == "{" and isinstance(stack[-1], dict) and stack[-1] and keys[-1] is None:
                    if len(stack) == 1:  # `{"a": 1 {"a": 2}`: the first one was never closed
                        return Container(root, start, token.start("mark"))
                    stack.pop(), keys.pop()
                if len(stack) < MAX_DEPTH:
                    inner: list[Any] | dict[str, Any] = {} if mark == "{" else []
                    _put(stack[-1], keys, inner)
                    stack.append(inner)
                    keys.append(None)
            elif mark in _OPENERS:
                opener = _OPENERS[mark]
                depth = next((d for d in range(len(stack) - 1, -1, -1) if isinstance(stack[d], opener)), None)
                if depth == 0:
                    return Container(root, start, position)
                if depth is not None:
                    del stack[depth:], keys[depth:]
            elif mark == ",":
                keys[-1] = None
            else:
                _leave_list(stack, keys)
        elif kind == "quote":
            string, position = _string(text, token["quote"], position)
            if string is None:
                break
            _put(stack[-1], keys, string)
        elif kind == "number":
            _put(stack[-1], keys, _number(token["number"]))
        elif kind == "word":
            word = token["word"]
            _put(stack[-1], keys, _WORDS.get(word, word))
    return Container(root, start, len(text), tuple(stack))


def _put(container: list[Any] | dict[str, Any], keys: list[str | None], value: Any) -> None:
    """Add a value to a list; to a dict, as the value of the waiting key, or as the key that waits now."""
    if isinstance(container, list):
        container.append(value)
    elif keys[-1] is not None:
        container[keys[-1]] = value
        keys[-1] = None
    elif not isinstance(value, list | dict):
        keys[-1] = str(value)


def _leave_list(stack: list[list[Any] | dict[str, Any]], keys: list[str | None]) -> None:
    """At a colon, a list inside a dict was never closed: `"box_2d": [1, 2, 3, 4, "label": …`."""
    if len(stack) > 1:
        inner, outer = stack[-1], stack[-2]
        if isinstance(inner, list) and isinstance(outer, dict) and inner and isinstance(inner[-1], str):
            del stack[-1], keys[-1]
            keys[-1] = inner.pop()


def _string(text: str, quote: str, position: int) -> tuple[str | None, int]:
    """The text that ends with `quote`, and the position after it; None where it never ends."""
    start = position
    while found := _STRING_END[quote].search(text, position):
        position = found.end()
        if found["end"]:
            content = text[start : position - 1]
            return (_unescape(content) if "\\" in content else content), position
    return None, len(text)


def _unescape(text: str) -> str:
    text = _ESCAPE.sub(_escaped, text)
    return _SURROGATES.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)


def _escaped(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) > 1:
        return chr(int(code[1:], 16))
    if code in _ESCAPED:
        return _ESCAPED[code]
    return code if code in "\"'\\/" else match[0]


def _number(text: str) -> int | float:
    return int(text) if len(text) < 20 and text.lstrip("+-").isdigit() else float(text)
