"""The rooms of the package: imports go down only, in no circle, and no name stands for two things."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

LAYERS = (
    ("__init__", "__main__", "cli"),
    ("demo", "app", "serve", "bench", "annotate"),
    ("testbed",),
    ("study", "alignment", "refinement", "training"),
    ("detectors", "scorers", "data", "evaluation", "reporting"),
    ("runs", "models"),
    ("io",),
    ("response", "prompting", "recipes"),
)
"""Rooms from the top down, as in docs/architecture.md; whatever else lies beside them is below them all."""
LEVEL = {room: level for level, layer in enumerate(LAYERS) for room in layer}
ABOVE_TESTBED = ("cli", "demo")
"""The only ones that import `testbed`, an example world: others reach it by name, as `python:` does."""


def modules(source: Path) -> dict[str, Path]:
    """Every module of the package `sdg` in a folder that holds it, by its dotted name."""
    return {".".join(file.relative_to(source).with_suffix("").parts): file for file in source.rglob("*.py")}


def imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name or "") of each import, those inside functions too; not what a type checker alone sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, "") for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield from ((child.module or "", alias.name) for alias in child.names)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from imported(ast.Module(child.orelse, []))
        else:
            yield from imported(child)


def imports(source: Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports; of a package, its `__init__`."""
    files = modules(source)
    graph = {}
    for name, file in files.items():
        graph[name] = set()
        for module, what in imported(ast.parse(file.read_text(encoding="utf-8"))):
            found = (f"{module}.{what}", f"{module}.{what}.__init__", module, f"{module}.__init__")
            graph[name] |= set(next(([one] for one in found if one in files), []))
    return graph


def room(module: str) -> str:
    return module.split(".")[1]


def upward(graph: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """Imports of a higher room, and of `testbed` by any but those that may."""
    edges = {(module, other) for module, others in graph.items() for other in others}
    level = {name: LEVEL.get(room(name), len(LAYERS)) for name in graph}
    return {
        (module, other)
        for module, other in edges
        if room(module) != room(other)
        and (level[other] < level[module] or (room(other) == "testbed" and room(module) not in ABOVE_TESTBED))
    }


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one circle of imports, the first again at the end; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []
