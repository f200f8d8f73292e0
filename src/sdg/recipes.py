"""Recipes: YAML files read into typed frozen dataclasses, checked whole before anything is loaded.

A recipe's schema is a dataclass; nested sections are dataclasses too. Every fault of a file is reported in
one error, an unknown key with the nearest known one, and any key can be overridden as `section.key=value`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from sdg.errors import SdgError

T = TypeVar("T")
_MISSING: Any = object()


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
        raise SdgError(f"{name} cannot be used: {'; '.join(faults)}.")
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
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SdgError(
            f"{name} cannot be read as a recipe ({reason}); give the path of a YAML file."
        ) from None
    document = _yaml(text, name)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SdgError(f"{name} is no recipe: it holds no keys with values, such as `seed: 0`.")
    return document


def _yaml(text: str, name: str) -> Any:
    import yaml  # late: `sdg --help` does not need it

    class Loader(yaml.SafeLoader):
        """Refuses a key that stands twice; YAML's own reader keeps the last and says nothing."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [
                self.construct_object(key, deep=True)
                for key, _ in node.value
                if key.tag != "tag:yaml.org,2002:merge"
            ]
            for key in keys:
                if keys.count(key) > 1:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} stands twice", node.start_mark
                    )
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            return mapping

    try:
        return yaml.load(text, Loader)
    except RecursionError:
        raise SdgError(f"{name} is not valid YAML: it is nested too deeply.") from None
    except ValueError as error:  # a date that is none
        raise SdgError(f"{name} is not valid YAML: {error}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unreadable text"
        raise SdgError(f"{name} is not valid YAML{where}: {problem}.") from None


def _apply(document: dict[str, Any], override: str) -> None:
    """Set one value in place; items of lists are named by their number, as in `reward.scorers.0.uri`."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise SdgError(f"--set {override} has no effect; write --set section.key=value.")
    value = _yaml(text, f"--set {override}") if text.strip() else ""
    place: Any = document
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(place, list):
            if not part.isdigit() or int(part) >= len(place):
                raise SdgError(
                    f"--set {override}: {'.'.join(parts[:depth])} is a list of {len(place)}; "
                    "name an item by its number, from 0."
                )
            index: Any = int(part)
        elif isinstance(place, dict):
            index = part
            if not last and place.get(part) is None:
                place[part] = {}
        else:
            raise SdgError(f"--set {override}: {'.'.join(parts[:depth])} is a value and has no keys.")
        if last:
            place[index] = value
        else:
            # A copy: what an alias of YAML's names elsewhere stays as it is.
            place[index] = copy(place[index])
            place = place[index]


def _section(schema: type, document: Any, where: str, faults: list[str]) -> Any:
    """A dataclass from a mapping; faults are appended, and _MISSING stands for what could not be built."""
    if not isinstance(document, Mapping):
        faults.append(f"{where or 'the whole file'} holds keys with values, not {document!r}")
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
    place = f" in {where}" if where else ""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"{key!r} is no key{place} ({hint})"


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
        whole = isinstance(value, int) and not isinstance(value, bool)
        return value if whole else _fault(where, "a whole number", value, faults)
    if type_ is float:
        return _number(value, where, faults)
    if type_ is str:
        return value if isinstance(value, str) else _fault(where, "text", value, faults)
    if type_ is Path:
        if isinstance(value, str) and value:
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
    faults.append(f"{where} is {wanted}, not {value!r}")
    return _MISSING
