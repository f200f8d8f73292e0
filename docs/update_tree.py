"""Bring the trees of docs/architecture.md and README.md up to date: a line for each file, kept once written.

Run `make reference` after adding, renaming or removing a file under src/sdg. A new file's line is the first
sentence of its docstring, to be shortened by hand in docs/architecture.md. README.md has the rooms' lines.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "sdg"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
README = ROOT / "README.md"
COLUMN = 30  # where descriptions start
_TREE = re.compile(r"(?<=^```text\n)src/sdg/.*?(?=^```)", re.MULTILINE | re.DOTALL)


def descriptions(page: str) -> dict[str, str]:
    """Path under src/sdg (a folder ends in "/") -> its line's description, two spaces a level."""
    found = _TREE.search(page)
    if found is None:
        raise SystemExit("The page has no block that begins with src/sdg/.")
    lines: dict[str, str] = {}
    folders: list[str] = []
    for line in found[0].splitlines()[1:]:
        indent, name, description = re.fullmatch(r"( *)(\S+)\s*(.*)", line).groups()  # type: ignore[union-attr]
        folders = folders[: len(indent) // 2 - 1]
        lines["".join(folders) + name] = description
        if name.endswith("/"):
            folders.append(name)
    return lines


def paths(folder: Path = PACKAGE) -> Iterator[str]:
    """Modules, then folders that hold some, on every level in alphabetical order, as paths under src/sdg."""
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":  # the folder's own line stands for it
            yield file.relative_to(PACKAGE).as_posix()
    for inner in sorted(path for path in folder.iterdir() if any(path.rglob("*.py"))):
        yield inner.relative_to(PACKAGE).as_posix() + "/"
        yield from paths(inner)


def first_sentence(path: str) -> str:
    """What the docstring of a module or folder opens with."""
    file = PACKAGE / path / "__init__.py" if path.endswith("/") else PACKAGE / path
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file.exists() else None
    return (docstring or "").partition("\n")[0].rstrip(".")


def tree(known: dict[str, str], shown: list[str], column: int) -> str:
    """The block's text for the paths in `shown`."""
    lines = ["src/sdg/"]
    for path in shown:
        *folders, name = re.findall(r"[^/]+/?", path)
        start = "  " * (len(folders) + 1) + name
        lines.append(f"{start:{column}} {known.get(path) or first_sentence(path)}".rstrip())
    return "\n".join(lines) + "\n"


def updated(architecture: str, readme: str) -> tuple[str, str]:
    """Both pages with their trees brought up to date; lines of files that are still there stay."""
    known = descriptions(architecture)
    every = list(paths())
    rooms = [path for path in every if re.fullmatch(r"[^/]+/", path)]
    return (
        _TREE.sub(lambda _: tree(known, every, COLUMN), architecture),
        _TREE.sub(lambda _: tree(known, rooms, 15), readme),
    )


def main() -> None:
    """Rewrite both pages; says which lines are new."""
    before = [file.read_text(encoding="utf-8") for file in (ARCHITECTURE, README)]
    after = updated(*before)
    for file, text in zip((ARCHITECTURE, README), after, strict=True):
        file.write_text(text, encoding="utf-8")
    old, new = descriptions(before[0]), descriptions(after[0])
    for path in sorted(set(new) - set(old)):
        sys.stdout.write(f"new: {path}  {new[path]}\n")


if __name__ == "__main__":
    main()
