"""Progress of long work, on stderr: a bar on a terminal that vanishes at the end, lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from sdg.cli.terminal import say

if TYPE_CHECKING:
    from sdg.embeddings import Embedder


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar, on a terminal alone; yields a function to be told how many are done."""
    with _bar(TextColumn(what), *_COLUMNS) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def diagnosed(total: int) -> Iterator[Callable[[Mapping[str, Any], int], None]]:
    """A bar with the number of failures, or a line every tenth of the way; told each row and what is left."""
    with _failing(total, "images", "failed") as advance:
        yield lambda row, left: advance(total - left, total, row["status"] == "failed")


def blocks_done() -> AbstractContextManager[Callable[[int, int, int], None]]:
    """The same for blocks of images; told how many of how many are done, and the failures in the last."""
    return _failing(None, "blocks", "images failed")


@contextmanager
def _failing(expected: int | None, what: str, lost_ones: str) -> Iterator[Callable[[int, int, int], None]]:
    failed = 0
    with _bar(*_COLUMNS[:2], TextColumn("{task.fields[failed]}"), _COLUMNS[2]) as bar:
        task = bar.add_task("", total=expected, failed="")

        def advance(done: int, total: int, lost: int) -> None:
            nonlocal failed
            failed += lost
            bar.update(task, completed=done, total=total, failed=f"{failed:,} failed" if failed else "")
            if bar.disable and done * 10 // total > (done - 1) * 10 // total:
                say(f"{done:,} of {total:,} {what}, {failed:,} {lost_ones}")

        yield advance


@contextmanager
def records_read() -> Iterator[Callable[[object], None]]:
    """A spinner with a count; told each record."""
    with _bar(SpinnerColumn(), TextColumn("{task.completed:,} records read")) as bar:
        task = bar.add_task("", total=None)
        yield lambda record: bar.advance(task)


@contextmanager
def embedder_of(name: str | None) -> Iterator[Embedder | None]:
    """The embedder of that name, None for none; one that takes its time shows how far it is."""
    from sdg.embeddings import TransformerEmbedder, load_embedder

    embedder = None if name is None else load_embedder(name)
    if not isinstance(embedder, TransformerEmbedder):
        yield embedder
        return
    with _bar(TextColumn("Embedding reasons"), *_COLUMNS) as bar:
        task = bar.add_task("", total=None)
        embedder.progress = lambda done, total: bar.update(task, completed=done, total=total)
        yield embedder


_COLUMNS = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def _bar(*columns: Any) -> Progress:
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
