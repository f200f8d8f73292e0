"""Text constants read out of a Python file without running it: the file is parsed, never executed."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path
from typing import Final

from sdg.errors import SdgError, shortened
from sdg.io.files import read_text

MAX_BYTES: Final = 1 << 18
"""Size of a file that a constant is read from, and of a text it may be put together to."""
_METHODS: Final = ("strip", "lstrip", "rstrip")


def read_constant(path: Path, name: str) -> str:
    """The text bound to `name` at the top level of a Python file.

    Understood: literals, adjacent literals, `+`, other such constants of the file that stand before, and
    `.strip()`, `.lstrip()`, `.rstrip()` without arguments. Of several assignments the last counts, as it
    would in Python. Raises SdgError where the file cannot be read or parsed, has no such constant, or
    computes it in any other way.
    """
    source = read_text(path, MAX_BYTES)
    bound: dict[str, str | None] = {}  # None: bound to something that is not constant text
    try:
        with warnings.catch_warnings(action="ignore"):  # of backslashes in someone else's file
            tree = ast.parse(source)
        for statement in tree.body:
            _bind(statement, bound)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        raise SdgError(f"{path} is not valid Python{line}; the template is read from its source.") from None
    if name not in bound:
        known = shortened(", ".join(key for key, text in bound.items() if text is not None), 120)
        hint = f"its text constants are {known}" if known else "it has no text constants"
        raise SdgError(f"{path} has no constant {shortened(name, 80)} at its top level; {hint}.")
    text = bound[name]
    if text is None:
        raise SdgError(
            f"{shortened(name, 80)} in {path} is not constant text: only literals, +, other such constants "
            "and .strip() can be read without running the file; copy the text into the profile's template."
        )
    return text


def _bind(statement: ast.stmt, bound: dict[str, str | None]) -> None:
    """Record what one top-level statement binds; whatever is not plainly text becomes None."""
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                bound[target.id] = _text(statement.value, bound)
            else:
                _forget(target, bound)
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        if statement.value is not None:
            bound[statement.target.id] = _text(statement.value, bound)
    elif (
        isinstance(statement, ast.AugAssign)
        and isinstance(statement.op, ast.Add)
        and isinstance(statement.target, ast.Name)
    ):
        bound[statement.target.id] = _joined(bound.get(statement.target.id), _text(statement.value, bound))
    elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        bound[statement.name] = None
    else:  # an import, a condition, a loop …: what it binds is known only by running it
        _forget(statement, bound)


def _forget(node: ast.AST, bound: dict[str, str | None]) -> None:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store | ast.Del):
            bound[inner.id] = None
        elif isinstance(inner, ast.alias):
            bound[(inner.asname or inner.name).partition(".")[0]] = None


def _joined(left: str | None, right: str | None) -> str | None:
    """Two texts as one; None where one is none, or the two are too long: `A = A + A` doubles each time."""
    return None if left is None or right is None or len(left) + len(right) > MAX_BYTES else left + right


def _text(node: ast.expr, bound: dict[str, str | None]) -> str | None:
    """The text of an expression; None where it is anything but constant text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.Name):
        return bound.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _joined(_text(node.left, bound), _text(node.right, bound))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        text = _text(node.func.value, bound)
        if text is not None and node.func.attr in _METHODS and not node.args and not node.keywords:
            stripped = getattr(text, node.func.attr)()
            assert isinstance(stripped, str)
            return stripped
    return None
