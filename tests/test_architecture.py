"""The rooms of the package: imports go down only, in no circle, and no name stands for two things."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

LAYERS = (
    ("__init__", "__main__", "cli"),
    ("demo", "bench", "serve", "annotate", "integrations", "app"),
    ("testbed",),
    ("study", "alignment", "refinement", "training", "teacher"),
    ("detectors", "scorers", "data", "evaluation", "reporting"),
    ("runs", "models"),
    ("prompting",),
    ("io",),
    ("response", "recipes"),
)
"""Rooms from the top down, as in docs/architecture.md; whatever else lies beside them is below them all."""
LEVEL = {room: level for level, layer in enumerate(LAYERS) for room in layer}
ABOVE_TESTBED = ("cli", "demo")
"""The only ones that import `testbed`, an example world; all others reach it by a URI, as any user's code."""

SHARED_NAMES = {"base", "chat", "page", "recipe"}
"""Files that each room may have for itself: what its kinds have in common, its messages, page, settings."""

PENDING: set[tuple[str, str]] = set()
"""Upward imports that are still there; the list only shrinks."""
PENDING_NAMES: set[str] = set()

Graph = dict[str, set[str]]


def modules(source: Path) -> dict[str, Path]:
    """Every module below a folder, by its dotted name."""
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


def imports(source: Path) -> Graph:
    """Module -> the modules of the package that it imports; those of a package are in its `__init__`."""
    files = modules(source)
    graph: Graph = {name: set() for name in files}
    for name, file in files.items():
        for module, what in imported(ast.parse(file.read_text(encoding="utf-8"))):
            found = (f"{module}.{what}", f"{module}.{what}.__init__", module, f"{module}.__init__")
            graph[name] |= set([one for one in found if one in files][:1])
    return graph


def room(module: str) -> str:
    return module.split(".")[1]


def rooms(graph: Graph) -> Graph:
    """Room -> the other rooms that it imports."""
    found: Graph = {}
    for module, others in graph.items():
        found.setdefault(room(module), set()).update({room(other) for other in others} - {room(module)})
    return found


def upward(graph: Graph) -> set[tuple[str, str]]:
    """Imports of a higher room, and of `testbed` by any but those that may."""
    level = {module: LEVEL.get(room(module), len(LAYERS)) for module in graph}
    return {
        (module, other)
        for module, others in graph.items()
        for other in others
        if level[other] < level[module]
        or (room(other) == "testbed" != room(module) and room(module) not in ABOVE_TESTBED)
    }


def circle(graph: Graph) -> list[str]:
    """One circle of imports, its first member again at the end; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def twice_named(source: Path) -> set[str]:
    """Names of files that two folders beside each other have; those of `cli` are its commands'."""
    files = [file for file in modules(source).values() if file.stem[:2] != "__" and file.parent.name != "cli"]
    names = Counter((file.parent.parent, file.stem) for file in files if file.parent.parent != source)
    return {stem for (_, stem), count in names.items() if count > 1}


def twice_defined(source: Path) -> set[str]:
    """ "room.Class" for every class that two files of a room define."""
    names: Counter[str] = Counter()
    for module, file in modules(source).items():
        body = ast.parse(file.read_text(encoding="utf-8")).body
        names.update(f"{room(module)}.{node.name}" for node in body if isinstance(node, ast.ClassDef))
    return {name for name, count in names.items() if count > 1}


def test_imports_go_down_only() -> None:
    assert upward(imports(SOURCE)) == PENDING


def test_there_is_no_circle_of_modules_or_of_rooms() -> None:
    graph = imports(SOURCE)
    assert circle(graph) == []
    settled = {name: {other for other in of if (name, other) not in PENDING} for name, of in graph.items()}
    assert circle(rooms(settled)) == []


def test_no_name_stands_for_two_things() -> None:
    assert twice_named(SOURCE) - SHARED_NAMES == PENDING_NAMES
    assert twice_defined(SOURCE) == set()


def test_every_room_has_its_place_in_the_layers() -> None:
    assert {room(name) for name in modules(SOURCE) if name.count(".") > 1} <= set(LEVEL)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A sound package of four rooms, to plant faults in."""
    for name, text in {
        "errors": "",
        "io/files": "from sdg import errors",
        "io/uri": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sdg.runs.log",
        "runs/log": "class Log: ...\nfrom sdg.io.files import read\nimport sdg.errors",
        "testbed/world": "import sdg.runs.log",
        "cli/testbed": "def run():\n    from sdg.testbed import world",
    }.items():
        file = tmp_path / "sdg" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path


def plant(source: Path, name: str, text: str) -> None:
    (source / "sdg" / f"{name}.py").write_text(text, encoding="utf-8")


def test_a_sound_package_passes(planted: Path) -> None:
    graph = imports(planted)
    assert graph["sdg.cli.testbed"] == {"sdg.testbed.world"}
    assert graph["sdg.io.uri"] == set()
    assert (upward(graph), circle(graph), circle(rooms(graph))) == (set(), [], [])
    assert (twice_named(planted), twice_defined(planted)) == (set(), set())


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("from sdg.runs import log", "sdg.runs.log"),
        ("import sdg.runs.log as log", "sdg.runs.log"),
        ("def late():\n    from sdg.runs.log import Log", "sdg.runs.log"),
        ("try:\n    import sdg.cli.testbed\nexcept ImportError:\n    pass", "sdg.cli.testbed"),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import sdg.runs.log", "sdg.runs.log"),
    ],
)
def test_an_upward_import_is_found(planted: Path, text: str, target: str) -> None:
    plant(planted, "io/files", text)
    assert upward(imports(planted)) == {("sdg.io.files", target)}


def test_only_the_command_and_the_demo_may_import_the_testbed(planted: Path) -> None:
    plant(planted, "runs/log", "import sdg.testbed.world")
    (planted / "sdg" / "demo").mkdir()
    plant(planted, "demo/story", "import sdg.testbed.world")
    assert upward(imports(planted)) == {("sdg.runs.log", "sdg.testbed.world")}


def test_a_circle_is_found(planted: Path) -> None:
    plant(planted, "io/uri", "def late():\n    import sdg.io.files")
    plant(planted, "io/files", "from sdg.io.uri import read")
    assert set(circle(imports(planted))) == {"sdg.io.files", "sdg.io.uri"}
    # Two rooms of one layer may import each other's files one way only.
    (planted / "sdg" / "models").mkdir()
    plant(planted, "models/lora", "import sdg.runs.log")
    plant(planted, "models/vlm", "")
    plant(planted, "io/files", "")
    plant(planted, "runs/inputs", "import sdg.models.vlm")
    graph = imports(planted)
    assert circle(graph) == []
    assert set(circle(rooms(graph))) == {"models", "runs"}


def test_a_second_name_is_found(planted: Path) -> None:
    plant(planted, "runs/uri", "class Log: ...")
    assert twice_named(planted) == {"uri"}
    assert twice_defined(planted) == {"runs.Log"}
