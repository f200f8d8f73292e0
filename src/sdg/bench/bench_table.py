"""A table of the paper with your rows beside the published ones, as JSON, Markdown, LaTeX and text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdg._version import __version__
from sdg.errors import SdgError, first_line, shortened
from sdg.io.files import write_text
from sdg.tables import Table, in_markdown

_TEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "–": "--",
        "−": "$-$",
        "±": r"$\pm$",
        "✓": r"$\checkmark$",
        "✗": r"$\times$",
    }
)


@dataclass(frozen=True, slots=True)
class BenchTable:
    """One of the paper's tables.

    name: "table2", and so on. tables: its parts, notes being the published rows. numbers: everything behind
    them, JSON values. settings: what the numbers depend on. notes: sentences that a reader has to know.
    """

    name: str
    title: str
    tables: Sequence[Table]
    numbers: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def to_document(self) -> dict[str, Any]:
        """JSON values, as `sdg report --bench` reads them."""
        return {
            "bench": self.name,
            "version": __version__,
            "title": self.title,
            "notes": list(self.notes),
            "settings": dict(self.settings),
            "tables": [{**table.to_dict(), "published": sorted(table.notes)} for table in self.tables],
            "numbers": dict(self.numbers),
        }

    def markdown(self) -> str:
        """The title, a table a part and the notes."""
        parts = [f"# {self.title}"]
        for table in self.tables:
            parts += [f"**{in_markdown(table.title)}**", table.markdown()]
        return "\n\n".join([*parts, *map(in_markdown, self.notes)]) + "\n"

    def latex(self) -> str:
        """A `tabular` a part, for booktabs and amssymb (✓ and ✗); published rows are in italics."""
        parts = []
        for table in self.tables:
            head = " & ".join(_latex(column) for column in table.columns)
            lines = [
                f"% {table.title}",
                rf"\begin{{tabular}}{{l{'c' * (len(table.columns) - 1)}}}",
                r"\toprule",
            ]
            lines += [rf"{head} \\", r"\midrule"]
            for at, row in enumerate(table.rows):
                cells = [_latex(cell) for cell in row]
                if at in table.notes:
                    cells = [rf"\textit{{{cell}}}" for cell in cells]
                lines.append(" & ".join(cells) + r" \\")
            parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}"]))
        return "\n\n".join(parts) + "\n"

    def write(self, out: Path) -> None:
        """NAME.json, NAME.md and NAME.tex in a folder; raises SdgError where they cannot be written."""
        try:
            document = json.dumps(self.to_document(), ensure_ascii=False, indent=1, allow_nan=False)
        except ValueError as error:  # of a number in a file that is too large to be one
            raise SdgError(f"{self.name} cannot be written as JSON: {first_line(error)}.") from None
        for suffix, text in (("json", document + "\n"), ("md", self.markdown()), ("tex", self.latex())):
            write_text(out / f"{self.name}.{suffix}", text)


def named_texts(texts: Iterable[str], what: str, value: str = "PATH") -> dict[str, str]:
    """NAME=value pairs; raises SdgError for anything else, and for a name that comes twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, given = text.partition("=")
        if not equals or not name.strip() or not given or name.strip() in found:
            raise SdgError(f"{what} {shortened(text, 80)}: write NAME={value}, each name once.")
        found[name.strip()] = given
    return found


def named_paths(texts: Iterable[str], what: str) -> dict[str, Path]:
    """`named_texts` of paths."""
    return {name: Path(path) for name, path in named_texts(texts, what).items()}


def require_same(settings: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> dict[str, Any]:
    """The settings that all rows share; raises SdgError, naming two rows, where one of `keys` differs.

    settings: by row. Numbers of different embedders, seeds or matchings do not belong into one table.
    """
    (first, one), *others = settings.items()
    for name, other in others:
        for key in keys:
            if one.get(key) != other.get(key):
                raise SdgError(
                    f"{first} has {key} {one.get(key)!r} and {name} {other.get(key)!r}; "
                    "numbers of both do not belong into one table."
                )
    return {key: one.get(key) for key in keys}


def _latex(text: str) -> str:
    return text.replace("\n", " ").translate(_TEX)
