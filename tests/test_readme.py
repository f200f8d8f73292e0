"""README and docs stay true: examples run, what is named exists, pages made from code are current."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import click
import pytest
from PIL import Image

from sdg.alignment.recipe import AlignRecipe
from sdg.cli import cli
from sdg.data.formats import FORMATS, guess_format, read_records
from sdg.evaluation import PUBLISHED
from sdg.recipes import load_recipe
from sdg.training.recipe import GrpoRecipe, SftRecipe

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
# Without the tables that experiments wrote.
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "src/sdg/testbed/weights").glob("*/README.md")),
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if p.name not in {"summary.md", "table.md"}),
]
TODAYS = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which names what was, too
RECIPES = {"align": AlignRecipe, "sft": SftRecipe, "grpo": GrpoRecipe}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def script(name: str) -> ModuleType:
    """A script of docs/, which is no package, as a module."""
    spec = spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def tree(page: Path) -> dict[str, str]:
    """File or folder under src/sdg -> its line's description, from a page's tree (two spaces a level)."""
    [block] = [text for text in blocks(page.read_text("utf-8"), "text") if text.startswith("src/sdg/\n")]
    files: dict[str, str] = {}
    folders: list[str] = []
    for line in block.splitlines()[1:]:
        indent, name, description = re.fullmatch(r"( *)(\S+)\s*(.*)", line).groups()  # type: ignore[union-attr]
        folders = folders[: len(indent) // 2 - 1]
        files["".join(folders) + name] = description
        if name.endswith("/"):
            folders.append(name)
    return files


def test_the_tree_lists_exactly_the_files_of_the_package() -> None:
    package = ROOT / "src" / "sdg"
    # A folder's own line stands for its __init__.py.
    there = {p.relative_to(package).as_posix() for p in package.rglob("*.py") if p.name != "__init__.py"}
    there |= {f"{parent}/" for name in there for parent in Path(name).parents if parent.name}
    listed = tree(ROOT / "docs" / "architecture.md")
    assert sorted(set(listed) - there) == [], "these are gone: run `make reference`"
    assert sorted(there - set(listed)) == [], "these have no line: run `make reference`, shorten"
    assert [name for name, description in listed.items() if not description] == []


def test_the_readme_has_the_line_of_each_room() -> None:
    listed = tree(ROOT / "docs" / "architecture.md")
    assert tree(README) == {name: line for name, line in listed.items() if re.fullmatch(r"[^/]+/", name)}


def test_the_picture_of_the_rooms_has_them_all() -> None:
    drawn = re.findall(r">([^<>]+)</text>", (ROOT / "docs" / "pictures" / "rooms.svg").read_text("utf-8"))
    names = {word.strip("/") for text in drawn for word in re.split(r",? ", text)}
    assert {name.strip("/") for name in tree(README)} <= names, "run `python docs/make_pictures.py rooms`"
    files = [name for name in tree(ROOT / "docs" / "architecture.md") if "/" not in name and name[0] != "_"]
    assert {name.removesuffix(".py") for name in files} <= names


REFERENCE = script("update_reference")


@pytest.mark.parametrize("page", ["cli.md", "recipes.md"])
def test_pages_made_from_code_are_current(page: str) -> None:
    file = ROOT / "docs" / "reference" / page
    assert file.read_text("utf-8") == REFERENCE.PAGES[file](), "run `make reference`"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_are_short(page: Path) -> None:
    """Under 140 characters, but for tables, links that cannot be broken, and data in examples."""
    text = re.sub(r"^```jsonl?\n.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert [line for line in text.splitlines() if len(line) >= 140 and not re.match(r"\||\S+$", line)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        other = (page.parent / file) if file else page
        assert other.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), flags=re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_in_the_text_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    for line in [
        *re.findall(r"`make ([a-z -]+)`", text),
        *re.findall(r"^make ([a-z -]+)", text, flags=re.MULTILINE),
    ]:
        assert set(line.split()) <= targets, f"{name_of(page)}: make {line}"


def command_lines(text: str) -> set[str]:
    """Everything that is written as a call of `sdg`, in running text or in a block."""
    spans = re.findall(r"`(sdg [a-z][^`]*)`", text)
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    return {*spans, *(line for line in lines if line.startswith("sdg "))}


COMMAND_LINES = sorted(
    {(name_of(page), line) for page in PAGES for line in command_lines(page.read_text(encoding="utf-8"))}
)


@pytest.mark.parametrize(("page", "line"), COMMAND_LINES)
def test_commands_and_options_in_the_text_exist(page: str, line: str) -> None:
    command: click.Command = cli
    words = line.replace("RECIPE", "recipe.yaml").partition("#")[0].split()[1:]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        _, inner, words = command.resolve_command(click.Context(command), words)
        assert inner is not None, f"{page}: {line}"
        command = inner
    if isinstance(command, click.Group) and line.startswith("sdg app"):  # short for `sdg app open`
        command = command.commands["open"]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, f"{page}: {line}"


def keys(schema: type, prefix: str = "") -> Iterator[str]:
    """Every key of a recipe with its sections, as "sampling.steps"; items of lists without their number."""
    for name, hint in get_type_hints(schema).items():
        yield prefix + name
        if inner := REFERENCE.section_of(hint):
            yield from keys(inner, f"{prefix}{name}.")


SECTIONS = {field for schema in RECIPES.values() for field in schema.__dataclass_fields__}


@pytest.mark.parametrize("page", TODAYS, ids=name_of)
def test_recipe_keys_in_the_text_exist(page: Path) -> None:
    known = {key for schema in RECIPES.values() for key in keys(schema)}
    for key in re.findall(r"`([a-z_]+\.[a-z_.]+?)(?:[:=][^`]*)?`", page.read_text("utf-8")):
        if key.partition(".")[0] in SECTIONS:
            assert key in known, f"{name_of(page)}: {key}"


OVERRIDES = sorted((page, line) for page, line in COMMAND_LINES if ".yaml" in line and "--set" in line)


@pytest.mark.parametrize(("page", "line"), OVERRIDES)
def test_overrides_in_the_text_are_taken_by_the_recipe(page: str, line: str) -> None:
    words = shlex.split(line.partition(" #")[0])
    [recipe] = [word for word in words if word.endswith(".yaml")]
    changes = [value for option, value in pairwise(words) if option == "--set"]
    schema = RECIPES[next(word for word in words if word in RECIPES)]
    assert load_recipe(schema, ROOT / recipe, changes), page


EXAMPLES = [
    pytest.param(page, example, id=f"{name_of(page)}-{number}")
    for page in PAGES
    for number, example in enumerate(blocks(page.read_text(encoding="utf-8"), "python"), 1)
]


@pytest.mark.parametrize(("page", "example"), EXAMPLES)
def test_python_examples_print_what_they_say(page: Path, example: str, tmp_path: Path) -> None:
    """Each example runs by itself; what follows "# →" on a print line is what that line prints."""
    said = re.findall(r"^print\(.*#\s*→\s*(.*)$", example, flags=re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == said


def format_examples() -> list[tuple[str, str, str]]:
    """(format, file name, content) of every JSON example in the page of formats, by the heading above it."""
    text = (ROOT / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
    found = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        for name in re.findall(r"\A`([a-z0-9-]+)`", section):
            for language in ("jsonl", "json"):
                found += [(name, f"example.{language}", block) for block in blocks(section, language)]
    return found


@pytest.mark.parametrize(("name", "file", "content"), format_examples(), ids=lambda value: value[:12])
def test_format_examples_can_be_read(name: str, file: str, content: str, tmp_path: Path) -> None:
    """Each example reads as the text says: a fused hand in a.png; b.png clean and c.png unknown, if there."""
    path = tmp_path / ("metadata.jsonl" if name == "hf" else file)
    path.write_text(content, encoding="utf-8")
    if name == "hf":
        Image.new("RGB", (8, 8)).save(tmp_path / "00000001.png")
        path = tmp_path
    assert guess_format(path) == name
    records = {record.filepath: record.diagnosis for record in read_records(path)}
    fused = records["images/a.png"]
    assert fused is not None
    [defect] = fused.defects
    assert (defect.box, defect.type, defect.importance) == ((600, 48, 641, 100), "artifact", 22)
    if "images/b.png" in records:
        clean = records["images/b.png"]
        assert clean is not None
        assert clean.is_clean
    if "images/c.png" in records:
        unknown = records["images/c.png"]
        assert unknown is None or unknown.status == "failed"


def test_the_published_rows_are_those_the_code_has() -> None:
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    text = text.partition("## Published numbers")[2]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.search(r"\| \.\d", line)]
    written = [[None if cell == "–" else float(cell) for cell in row[-6:]] for row in rows]
    in_code = [list(values.values()) for row in PUBLISHED for values in row.metrics.values()]
    assert written == in_code


def test_every_format_has_its_section() -> None:
    assert {name for name, _, _ in format_examples()} == set(FORMATS)


NAMES = sorted(
    {
        (name_of(page), name)
        for page in TODAYS
        for name in re.findall(r"`(sdg(?:\.\w+)+)", page.read_text(encoding="utf-8"))
    }
)


@pytest.mark.parametrize(("page", "name"), NAMES)
def test_names_in_the_text_exist(page: str, name: str) -> None:
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: object = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):
                raise
            continue
        for part in parts[cut:]:
            value = getattr(value, part)
        return
    raise AssertionError(f"{page} names {name}, which does not exist")
