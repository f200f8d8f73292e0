"""Write the reference pages that come from code: docs/reference/cli.md and docs/reference/recipes.md.

Run `make reference` after changing a command, an option or a recipe's key. The command line's text is
click's. A recipe key's is the comment on its line, or above it, in the dataclass.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click

from sdg.alignment.recipe import AlignRecipe
from sdg.cli import cli
from sdg.prompting import PromptProfile
from sdg.training.recipe import GrpoRecipe, SftRecipe

REFERENCE = Path(__file__).resolve().parent / "reference"
RECIPES = {"sdg train sft": SftRecipe, "sdg train grpo": GrpoRecipe, "sdg align": AlignRecipe}

CLI_INTRODUCTION = """\
# The command line

<!-- Written by docs/update_reference.py from the code: change that, and run `make reference`. -->

`python -m sdg` is the same as `sdg`. Data goes to stdout and messages to stderr. The exit code is 0 when
done, 1 when something failed, 2 for wrong usage. An error is one sentence that says what to do.
"""
RECIPES_INTRODUCTION = """\
# Recipe keys

<!-- Written by docs/update_reference.py from the code: change that, and run `make reference`. -->

A recipe is a YAML file that says everything about a training run. The small and the large run differ in their
recipe, not in code.

- **Checked whole.** Every fault is reported at once, before anything is loaded. An unknown key is an error
  that names the nearest known one.
- **Overridden.** `--set section.key=value`, as often as needed; items of lists by number, as
  `--set reward.scorers.0.weight=2`.
- **Resumed.** `--resume` goes on from the newest whole checkpoint and refuses another recipe. `sdg align`
  takes other values of `run`, `policy.text_cache`, `reward.max_failed`, `monitor.every`, `monitor.patience`
  and the monitor's URIs, and another `optimizer.steps` where the schedule does not fall over them.
- **Servers may move.** On resume, of a URI of `openai:`, `unified-reward:` or `remote:` neither the address
  counts nor `timeout`, `attempts`, `concurrency`, `parallel`, `batch` and `key`. `sdg align compare` and
  `sdg bench table5` take these changes too, and no others of the monitor's URIs.
- **Bounded.** A recipe or profile has at most 128 KiB and 16 levels, no anchors or aliases, and
  YAML's core tags only. A fault of a value is one sentence of at most 300 characters.
- **Trusted.** `python:MODULE.FUNCTION` in an alignment recipe names a function of yours. It is code, so run
  recipes of people you trust.
"""
PROFILE_INTRODUCTION = """\
## Prompt profile

A TOML file, or the section `profile` of a detector's recipe. `template_from = {file = …, constant = …}` may
stand in place of `template`; [how](../start/concepts.md#prompt-profiles).
"""


# The command line ------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Every command with its help, usage and options."""
    parts = [CLI_INTRODUCTION]
    for path, command in commands(cli, "sdg"):
        if path != "sdg":
            parts.append(command_section(path, command))
    return wrapped("\n".join(parts))


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """The command and all below it, each with its whole name."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, f"{path} {name}")


def command_section(path: str, command: click.Command) -> str:
    """A heading, what the command does, its examples, and a row for each option."""
    context = click.Context(command, info_name=path, show_default=cli.context_settings["show_default"])
    lines = [f"{'##' if path.count(' ') == 1 else '###'} {path}\n"]
    text, examples = help_parts(command.help or "")
    lines += [text, ""]
    if not isinstance(command, click.Group):
        usage = " ".join(command.collect_usage_pieces(context))
        lines += [f"```text\n{path} {usage}\n```", ""]
    if examples:
        lines += [f"```bash\n{examples}\n```", ""]
    rows = [option_row(option, context) for option in command.params if isinstance(option, click.Option)]
    if rows:
        lines += ["| option | is |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def help_parts(help: str) -> tuple[str, str]:
    r"""The paragraphs of a help text, and its examples: the block after "\b"."""
    text, _, examples = inspect.cleandoc(help).partition("\b\n")
    block = textwrap.dedent(examples.partition("\n")[2]).strip()  # without the line "Example:"
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    return html_safe("\n\n".join(paragraphs)), block


def option_row(option: click.Option, context: click.Context) -> str:
    """One row: names with the kind of value, then help, choices, default and limits."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    record = option.get_help_record(context)
    text = record[1] if record else ""
    if isinstance(option.type, click.Choice):
        text = f"{' or '.join(f'`{choice}`' for choice in option.type.choices)}. {text}"
    elif not option.is_flag:
        names += f" {option.make_metavar(context).replace(' RANGE', '')}"
    return f"| {names} | {html_safe(text)} |".replace("  [", " [")


def html_safe(text: str) -> str:
    """Text of the command line as Markdown: no tag, no table cell by accident."""
    return text.replace("<", "&lt;").replace("|", "\\|")


# Recipe keys -----------------------------------------------------------------------------------------------


def recipes_page() -> str:
    """Every key of every recipe and of prompt profiles, with type, default and meaning."""
    parts = [RECIPES_INTRODUCTION, recipe_files()]
    seen = {PromptProfile: "a [prompt profile](#prompt-profile)"}
    profile = sections(PromptProfile, "Prompt profile", seen)
    for command, schema in RECIPES.items():
        parts += [f"## {command}\n", f"{html_safe(summary(schema))}\n", *sections(schema, command, seen)]
    return wrapped("\n".join([*parts, PROFILE_INTRODUCTION, *profile]))


def recipe_files() -> str:
    """The recipes of the repository with the first sentence of each."""
    rows = ["| recipe | is |", "|---|---|"]
    root = REFERENCE.parents[1]
    for file in sorted((root / "recipes").rglob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        comment = " ".join(line[1:].strip() for line in takewhile(lambda line: line.startswith("#"), lines))
        first = re.match(r".*?[.:](?= |$)", comment)
        rows.append(f"| `{file.relative_to(root).as_posix()}` | {(first[0] if first else comment)[:-1]} |")
    return "\n".join([*rows, ""])


def sections(schema: type, heading: str, seen: dict[type, str], prefix: str = "") -> list[str]:
    """A table for the plain keys of a dataclass, then one for each dataclass below it.

    heading: the page's section they stand in. seen: dataclass -> a link to its keys; what is new is added.
    """
    hints = typing.get_type_hints(schema)
    meanings = field_texts(schema)
    rows, below = [], []
    for field in dataclasses.fields(schema):
        name, hint = f"{prefix}{field.name}", hints[field.name]
        inner = section_of(hint)
        if meanings[field.name]:
            rows.append(f"| `{name}` | {meanings[field.name]} | {kind(hint)} | {default(field)} |")
        elif inner is None:
            raise SystemExit(f"{schema.__name__}.{field.name} has no comment, which its row needs.")
        if inner in seen:
            below.append(f"**`{name}`** has the keys of {seen[inner]}.\n")
        elif inner is not None:
            seen[inner] = f"[`{name}`](#{heading.lower().replace(' ', '-')})"
            title = f"**`{name}`**{' (a list)' if get_origin(hint) is tuple else ''}"
            below += [f"{title} {html_safe(summary(inner))}\n", *sections(inner, heading, seen, f"{name}.")]
    table = ["| key | is | value | default |", "|---|---|---|---|", *rows, ""]
    return ["\n".join(table), *below] if rows else below


def field_texts(schema: type) -> dict[str, str]:
    """What each field means: the comment on its line, or on the lines above it."""
    texts: dict[str, str] = {}
    for cls in reversed([cls for cls in schema.__mro__ if dataclasses.is_dataclass(cls)]):
        source = textwrap.dedent(inspect.getsource(cls))
        lines = source.splitlines()
        [body] = ast.parse(source).body
        assert isinstance(body, ast.ClassDef)
        for node in body.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                above: list[str] = []
                for line in reversed(lines[: node.lineno - 1]):
                    if not line.strip().startswith("# "):
                        break
                    above.insert(0, line.strip()[2:])
                inline = re.findall(r"  # (.*)", lines[(node.end_lineno or node.lineno) - 1])
                texts[node.target.id] = html_safe(" ".join(inline or above))
    return texts


def summary(schema: type) -> str:
    """The first paragraph of a schema's docstring."""
    return " ".join((inspect.getdoc(schema) or "").partition("\n\n")[0].split())


def section_of(hint: Any) -> type | None:
    """The dataclass that a key holds, if it holds one (or a list of them, or may be null)."""
    for candidate in (hint, *get_args(hint)):
        if dataclasses.is_dataclass(candidate) and isinstance(candidate, type):
            return candidate
    return None


def kind(hint: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else kind(part) for part in arguments)
    if origin is tuple:
        return f"list of {kind(arguments[0])}"
    if dataclasses.is_dataclass(hint):
        return "keys"
    return {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}[hint]


def default(field: dataclasses.Field[Any]) -> str:
    """A field's default as YAML would have it."""
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return "*required*"
    if dataclasses.is_dataclass(value):
        return "–"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`" if value != "" else '`""`'


def wrapped(text: str) -> str:
    """Paragraphs at most 120 columns wide; all else as it is."""
    lines = []
    code = False
    for line in text.splitlines():
        code ^= line.startswith("```")
        lines += [line] if code or re.match(r"[|#`<]", line) else textwrap.wrap(line, 120) or [""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


PAGES = {REFERENCE / "cli.md": cli_page, REFERENCE / "recipes.md": recipes_page}

if __name__ == "__main__":
    for file, page in PAGES.items():
        file.write_text(page(), encoding="utf-8")
        sys.stdout.write(f"{file}\n")
