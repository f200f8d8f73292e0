"""What commands say, on a terminal, in a file or in a pipe: all of it printable, and every way to fail quiet.

Texts of data files and servers end here; whatever they hold, they only ever show themselves. Data that a
command gives to a file or a pipe, such as prompts, stay as they are there.
"""

from __future__ import annotations

import codecs
import errno
import io
import logging
import os
import sys
from typing import TextIO

import click

from sdg.errors import SdgError, escaped, printable

_ESCAPE = "sdg.escape"


def show(message: object, *, nl: bool = True, exact: bool = False) -> None:
    """A result, on stdout; raises SdgError where it cannot be written, BrokenPipeError for a closed pipe.

    exact: it is data, and is escaped on a terminal only.
    """
    text = str(message)
    try:
        if not exact or sys.stdout.isatty():
            text = printable(text)
        # Named, because click would write UTF-8 where it is not given a stream and the locale is ASCII.
        click.echo(text, file=sys.stdout, nl=nl, color=exact or None)  # which takes no colour out
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever reads has seen enough
            raise
        raise SdgError(f"The standard output cannot be written: {error.strerror or error}.") from None


def say(message: object) -> None:
    """A line on stderr, if it can be written: work never ends because nobody can hear of it."""
    try:
        click.echo(printable(str(message)), file=sys.stderr)
    except OSError:
        _drop_unwritable(sys.stderr)


def prepare() -> None:
    """Make stdout and stderr take every text, in any locale, and log as printable text."""
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)
    if sys.stdout is None:  # closed by the shell: its number would go to the next file that is opened
        unwritable = os.open(os.devnull, os.O_RDONLY)
        sys.stdout = open(unwritable, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (a number; until the end)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    codecs.register_error(_ESCAPE, _escape_unencodable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Printable())


def finish() -> None:
    """Write what is left of stdout; raises OSError, which nobody would catch at the interpreter's end."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_unwritable(sys.stdout)
        raise


def _drop_unwritable(stream: TextIO) -> None:
    """Let what cannot be written go, which the interpreter would try again at its end, and complain."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return escaped(error.object[error.start : error.end]), error.end


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
