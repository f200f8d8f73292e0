"""Tables of text: what results print on a terminal, and what reports show."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sdg.errors import printable

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_MARKDOWN: Final = re.compile(r"[\\|]|\](?=[(\[:])")  # a cell's end, and what makes brackets a link
_WIDEST: Final = 1_000_000  # columns of a table's text in a file


@dataclass(frozen=True, slots=True)
class Table:
    """A table as text: a title, the column names, and rows, of which the notes are shown faintly."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: frozenset[int] = frozenset()

    @property
    def caption(self) -> str:
        """The title, "" where the first column says the same."""
        return "" if self.title == self.columns[0] else self.title

    def __str__(self) -> str:
        """The title over aligned columns, the first one to the left."""
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(row))
            for row in (zip(line, widths, strict=True) for line in lines)
        ]
        return "\n".join([self.caption, *text] if self.caption else text)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without the notes."""
        return {"title": self.title, "columns": list(self.columns), "rows": [list(row) for row in self.rows]}

    def markdown(self) -> str:
        """Columns and rows in Markdown, without the title."""
        head, *rows = ("| " + " | ".join(map(in_markdown, row)) + " |" for row in (self.columns, *self.rows))
        return "\n".join([head, "|---" * len(self.columns) + "|", *rows])

    def rich(self) -> RichTable:
        """The same, to print on a terminal."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text  # names of files and people are no markup

        title = Text(printable(self.caption), "table.title") if self.caption else None
        table = RichTable(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for at, column in enumerate(self.columns):
            table.add_column(Text(printable(column)), justify="right" if at else "left", no_wrap=True)
        for at, row in enumerate(self.rows):
            table.add_row(*(Text(printable(cell)) for cell in row), style="dim" if at in self.notes else None)
        return table


def in_markdown(text: str) -> str:
    """A text as it shows itself in Markdown, in one line; neither a link nor a picture comes of it."""
    line = " ".join(text.splitlines()).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKDOWN.sub(r"\\\g<0>", line)


def print_tables(tables: Iterable[Table]) -> None:
    """Print tables on stdout; in a file or a pipe nothing is cut."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    for table in map(Table.rich, tables):
        if not console.is_terminal:
            wide = console.options.update(max_width=_WIDEST)
            console.width = max(200, Measurement.get(console, wide, table).maximum)
        console.print(table)


def load_printer() -> None:
    """Load what `print_tables` needs, while there is time."""
    import rich.console
    import rich.table  # noqa: F401
