"""Running the demo's parts one after the other: what each came to, how long it took, and what went wrong."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from sdg.errors import SdgError
from sdg.reporting import Part

T = TypeVar("T")
Say = Callable[[str], None]


class LeftOut(Exception):
    """Raised by a part that cannot run here, with the reason in one sentence; it is no failure."""


class Stages:
    """Runs parts, says one line for each, and keeps what the report's summary tells of them.

    total: how many parts there will be. A part that raises has failed; those that need it are left out.
    """

    def __init__(self, total: int, say: Say) -> None:
        self.total, self.say = total, say
        self.parts: list[Part] = []

    def run(self, name: str, work: Callable[..., tuple[T, str]], *needs: Any) -> T | None:
        """Call work(*needs), which returns its value and one sentence on it; None where it did not succeed.

        needs: values of earlier parts; None among them means that there is nothing to work on.
        """
        place = f"[{len(self.parts) + 1}/{self.total}] {name}"
        value: T | None = None
        if any(need is None for need in needs):
            part = Part(name, "It needs an earlier part that gave nothing.", None, "left out")
        else:
            self.say(f"{place} …")
            began = perf_counter()
            try:
                value, result = work(*needs)
                part = Part(name, result, perf_counter() - began)
            except LeftOut as reason:
                part = Part(name, str(reason), None, "left out")
            except SdgError as error:
                part = Part(name, str(error), perf_counter() - began, "failed")
            except Exception as error:  # whatever it is, the other parts and the report are worth having
                traceback.print_exc()
                told = f"{type(error).__name__}: {error}"
                part = Part(name, told, perf_counter() - began, "failed")
        self.parts.append(part)
        state = "" if part.state == "done" else f"{part.state}: "
        self.say(f"{place}: {state}{part.result}" + (f" ({part.time})" if part.time else ""))
        return value


def watched(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """The items, with a bar on a terminal that vanishes at the end."""
    console = Console(stderr=True)
    yield from track(
        items,
        description,
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def hush_libraries() -> None:
    """No bars and remarks of the model libraries between our own lines, in this process."""
    import diffusers
    import transformers

    for logging in (diffusers.utils.logging, transformers.utils.logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()
    warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
