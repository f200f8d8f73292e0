"""Bring the tree in README.md up to date: a line for each file of src/sdg, written once and kept.

Run `python docs/update_tree.py` (or `make tree`) after adding, renaming or removing a file; a new file's
line is the first sentence of its docstring, to be shortened by hand.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "sdg"
COLUMN = 30  # where descriptions start
_TREE = re.compile(r"(?<=^```text\n)src/sdg/.*?(?=^```)", re.MULTILINE | re.DOTALL)


def descriptions(readme: str) -> dict[str, str]:
    """Path under src/sdg (a folder ends in "/") -> its line's description, two spaces a level."""
    found = _TREE.search(readme)
    if found is None:
        raise SystemExit("README.md has no block that begins with src/sdg/.")
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


def updated(readme: str) -> str:
    """The README with its tree brought up to date; lines of files that are still there stay as they are."""
    known = descriptions(readme)
    lines = ["src/sdg/"]
    for path in paths():
        *folders, name = re.findall(r"[^/]+/?", path)
        start = "  " * (len(folders) + 1) + name
        lines.append(f"{start:{COLUMN}} {known.get(path) or first_sentence(path)}".rstrip())
    return _TREE.sub(lambda _: "\n".join(lines) + "\n", readme)


def main() -> None:
    """Rewrite README.md; says which lines are new."""
    file = ROOT / "README.md"
    before = file.read_text(encoding="utf-8")
    after = updated(before)
    file.write_text(after, encoding="utf-8")
    for path in sorted(set(descriptions(after)) - set(descriptions(before))):
        sys.stdout.write(f"new: {path}  {descriptions(after)[path]}\n")


if __name__ == "__main__":
    main()
