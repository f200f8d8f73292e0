"""Recipes: YAML files read into typed frozen dataclasses, checked whole before anything is loaded.

A recipe's schema is a dataclass; nested sections are dataclasses too. Every fault of a file is reported in
one error, an unknown key with the nearest known one, and any key can be overridden as `section.key=value`.
A file is read within limits of size and depth, without anchors and aliases, and with YAML's core tags only.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

from sdg.errors import SdgError, path_end, quoted, shortened

T = TypeVar("T")
_MISSING: Any = object()

MAX_BYTES: Final = 1 << 17
"""Size of a recipe or a profile; those here take less than 10 kB."""
MAX_DEPTH: Final = 16
"""Sections and lists within one another, keys of an override included."""
MAX_INTEGER: Final = 2**63 - 1
"""What every library here takes for an integer."""
_SHOWN: Final = 20
"""Faults named in one error; of more the number is said."""
_FAULT: Final = 200
"""Characters of one fault, so that its sentence has 300 at most."""
_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")
)

RENAMED: Final = {"optimiser": "optimizer"}
"""A released recipe's key -> what it is called now; the old one is refused with the new."""

REFUSED: Final = {
    "rollout.structured": "a grammar would hide the malformed completions that the reward is to punish",
    **dict.fromkeys(
        (
            "optimizer.epsilon",
            "policy.lora.above",
            "policy.lora.init",
            "reward.reach",
            "sampling.mirrored",
            "sampling.shared_start",
        ),
        "only an experiment of version 0.1 used it",
    ),
}
"""A key that there is on purpose nowhere -> why."""


def load_recipe(schema: type[T], path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> T:
    """Read a YAML recipe as `schema`, a dataclass, after applying overrides such as "lora.r=8".

    Values are checked against the fields' types: bool, int, float, str, Path, Literal, X | None,
    tuple[X, ...], dict[str, X], and dataclasses of these. A ValueError raised by a dataclass's
    `__post_init__` counts as a fault of its section. Raises SdgError naming the file and every fault.
    """
    name = os.fspath(path)
    document = _read(name)
    for override in overrides:
        _apply(document, override)
    return parse_recipe(schema, document, name)


def parse_recipe(schema: type[T], document: Mapping[str, Any], name: str = "the recipe") -> T:
    """`load_recipe` for a document that is already read; `name` stands for it in errors."""
    faults: list[str] = []
    recipe = _section(schema, document, "", faults)
    if faults:
        said = "; ".join(shortened(fault, _FAULT) for fault in faults[:_SHOWN])
        more = f"; and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else ""
        raise SdgError(f"{path_end(name)} cannot be used: {said}{more}.")
    assert isinstance(recipe, schema)
    return recipe


def to_document(recipe: Any) -> dict[str, Any]:
    """A recipe as plain JSON values: `parse_recipe(type(recipe), to_document(recipe)) == recipe`."""
    document = _plain(recipe)
    assert isinstance(document, dict)
    return document


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _read(name: str) -> dict[str, Any]:
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:  # of bytes that are not UTF-8, of NUL in the name
        reason = getattr(error, "strerror", None) or shortened(str(error), 80)
        raise SdgError(
            f"{path_end(name)} cannot be read as a recipe ({reason}); give the path of a YAML file."
        ) from None
    document = _yaml(text, path_end(name))
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SdgError(f"{path_end(name)} is no recipe: it holds no keys with values, such as `seed: 0`.")
    return document


def _yaml(text: str, name: str) -> Any:
    import yaml  # late: `sdg --help` does not need it

    try:
        return yaml.load(text, _loader())
    except RecursionError:
        raise SdgError(f"{name} is not valid YAML: it is nested too deeply.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable text"
        raise SdgError(f"{name} is not valid YAML{where}: {shortened(problem, _FAULT)}.") from None


@cache
def _loader() -> type:
    import yaml

    class Loader(yaml.SafeLoader):
        """Core tags only, no aliases, bounded depth, no key twice, and every fault is an error of YAML's."""

        yaml_implicit_resolvers: typing.ClassVar = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag in _TAGS]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
                self._refuse("anchors and aliases are not read; write the value where it is needed", event)
            self.depth += 1
            if self.depth > MAX_DEPTH:
                self._refuse("it is nested too deeply", event)
            node = super().compose_node(parent, index)
            self.depth -= 1
            if node.tag not in _TAGS:
                self._refuse(f"the tag {quoted(node.tag)} is not read; write a plain value", event)
            return node

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
                kind = node.tag.rpartition(":")[2]
                self._refuse(f"{quoted(node.value)} is not of the kind {kind}", node)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            mapping: dict[Any, Any] = {}
            if not isinstance(node, yaml.MappingNode):  # `!!map [1]`
                self._refuse("a list is not of the kind map", node)
            for key_node, value_node in node.value:
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, str | int | float | bool | None):
                    self._refuse("a key is a plain value", key_node)
                if key in mapping:  # YAML's own reader keeps the last and says nothing
                    self._refuse(f"the key {quoted(key)} stands twice", node)
                mapping[key] = self.construct_object(value_node, deep=deep)
            return mapping

        def _refuse(self, problem: str, place: Any) -> typing.NoReturn:
            raise yaml.constructor.ConstructorError(None, None, problem, place.start_mark)

    return Loader


def _apply(document: dict[str, Any], override: str) -> None:
    """Set one value in place; items of lists are named by their number, as in `reward.scorers.0.uri`."""
    key, equals, text = override.partition("=")
    parts, said = key.strip().split("."), f"--set {shortened(override, 80)}"
    if not equals or not all(parts):
        raise SdgError(f"{said} has no effect; write --set section.key=value.")
    if len(parts) > MAX_DEPTH or len(text) > MAX_BYTES:
        raise SdgError(f"{said} is longer than any recipe; write --set section.key=value.")
    value = _yaml(text, said) if text.strip() else ""
    place: Any = document
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        above = shortened(".".join(parts[:depth]), 80)
        if isinstance(place, list):
            if not _is_number(part) or int(part) >= len(place):
                raise SdgError(
                    f"{said}: {above} is a list of {len(place)}; name an item by its number, from 0."
                )
            index: Any = int(part)
        elif isinstance(place, dict):
            index = part
            if not last and place.get(part) is None:
                place[part] = {}
        else:
            raise SdgError(f"{said}: {above} is a value and has no keys.")
        if last:
            place[index] = value
        else:
            place = place[index]


def _is_number(part: str) -> bool:
    """Whether a part of a key can be a place in a list: not every digit of Unicode is a number."""
    return part.isascii() and part.isdigit() and len(part) < 10


def _section(schema: type, document: Any, where: str, faults: list[str]) -> Any:
    """A dataclass from a mapping; faults are appended, and _MISSING stands for what could not be built."""
    if not isinstance(document, Mapping):
        faults.append(f"{where or 'the whole file'} holds keys with values, not {quoted(document)}")
        return _MISSING
    hints = typing.get_type_hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
    before = len(faults)
    for key in document:
        if key not in fields:
            faults.append(_unknown(str(key), list(fields), where))
    values = {}
    for name, field in fields.items():
        path = f"{where}.{name}" if where else name
        if name in document:
            values[name] = _value(hints[name], document[name], path, faults)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            faults.append(f"{path} is missing")
    if len(faults) > before:
        return _MISSING
    try:
        return schema(**values)
    except ValueError as error:
        text = str(error).rstrip(".")
        faults.append(f"{where}: {text}" if where else text)
        return _MISSING


def _unknown(key: str, known: list[str], where: str) -> str:
    path = f"{where}.{key}" if where else key
    if path in RENAMED:
        return f"{path} is called {RENAMED[path]} now"
    if path in REFUSED:
        return f"{path} cannot be: {REFUSED[path]}"
    place = f" in {where}" if where else ""
    near = difflib.get_close_matches(key[:80], known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"{quoted(key)} is no key{place} ({hint})"


def _value(type_: Any, value: Any, where: str, faults: list[str]) -> Any:
    """`value` as `type_`, or _MISSING with a fault."""
    origin, arguments = get_origin(type_), get_args(type_)
    if type_ is Any:
        return value
    if dataclasses.is_dataclass(type_):
        assert isinstance(type_, type)
        return _section(type_, value, where, faults)
    if origin in (Union, types.UnionType):
        return _optional(arguments, value, where, faults)
    if origin is Literal:
        if value in arguments and type(value) in {type(a) for a in arguments}:
            return value
        return _fault(where, " or ".join(map(str, arguments)), value, faults)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        if not isinstance(value, (list, tuple)):
            return _fault(where, "a list", value, faults)
        return tuple(_value(arguments[0], v, f"{where}.{i}", faults) for i, v in enumerate(value))
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            return _fault(where, "a set of names with values", value, faults)
        return {key: _value(arguments[1], v, f"{where}.{key}", faults) for key, v in value.items()}
    return _plain_value(type_, value, where, faults)


def _optional(arguments: tuple[Any, ...], value: Any, where: str, faults: list[str]) -> Any:
    """The first alternative that takes the value; None is taken only where the type allows it."""
    if value is None and type(None) in arguments:
        return None
    alternatives = [a for a in arguments if a is not type(None)]
    attempts: list[list[str]] = []
    for alternative in alternatives:
        attempts.append([])
        result = _value(alternative, value, where, attempts[-1])
        if not attempts[-1]:
            return result
    # The faults of the alternative that came furthest: a section tells more than "is no number".
    faults.extend(max(attempts, key=lambda attempt: sum("." in fault for fault in attempt)))
    return _MISSING


def _plain_value(type_: Any, value: Any, where: str, faults: list[str]) -> Any:
    if type_ is bool:
        return value if isinstance(value, bool) else _fault(where, "true or false", value, faults)
    if type_ is int:
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER
        return value if whole else _fault(where, "a whole number", value, faults)
    if type_ is float:
        return _number(value, where, faults)
    if type_ is str:
        return value if isinstance(value, str) else _fault(where, "text", value, faults)
    if type_ is Path:
        if isinstance(value, str) and value and "\0" not in value:
            return Path(value)
        return _fault(where, "a path", value, faults)
    raise TypeError(f"Recipes have no fields of type {type_!r} ({where}).")


def _number(value: Any, where: str, faults: list[str]) -> Any:
    if isinstance(value, str):  # YAML 1.1 reads 3e-4, without a point, as text
        try:
            value = float(value)
        except ValueError:
            return _fault(where, "a number", value, faults)
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return _fault(where, "a number", value, faults)
        return float(value)
    except OverflowError:
        return _fault(where, "a number", value, faults)


def _fault(where: str, wanted: str, value: Any, faults: list[str]) -> Any:
    faults.append(f"{where} is {wanted}, not {quoted(value)}")
    return _MISSING
