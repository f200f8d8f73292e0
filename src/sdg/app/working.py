"""Work that takes a while, for pages: how long so far, and its result or the sentence why there is none."""

from __future__ import annotations

import html
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from sdg.errors import SdgError, first_line

T = TypeVar("T")
_LOG = logging.getLogger("sdg.app")
_TICK = 0.5  # seconds between two words of progress


class Work(Generic[T]):
    """A function at work on a thread of its own; `result` or `problem` is there when `seconds` has ended.

    Whoever stops listening leaves it to end by itself, as what a model has begun cannot be broken off;
    `abandoned` is set then, for work of many parts to look at in between.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self.result: T | None = None
        self.problem = ""
        self.abandoned = threading.Event()
        self._done = threading.Event()
        self._function = function

    def seconds(self) -> Iterator[int]:
        """Begin; how long it has taken, again and again until it is done."""
        began = time.monotonic()
        threading.Thread(target=self._run, daemon=True).start()
        try:
            yield 0
            while not self._done.wait(_TICK):
                yield round(time.monotonic() - began)
        except GeneratorExit:
            self.abandoned.set()
            raise

    def _run(self) -> None:
        try:
            self.result = self._function()
        except SdgError as error:
            self.problem = str(error)
        except Exception as error:  # one user's trouble is a sentence on their page, and no one else's
            _LOG.exception("an app's work failed")
            self.problem = f"This failed unexpectedly ({first_line(error)}); the log has the details."
        finally:
            self._done.set()


def said(text: str, *, problem: bool = False) -> str:
    """A sentence as HTML that a screen reader speaks."""
    kind = ' class="problem"' if problem else ""
    return f'<p role="status"{kind}>{html.escape(text)}</p>'
