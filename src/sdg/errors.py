"""Errors a user can act on: one sentence, printed without a traceback, exit code 1."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final


class SdgError(Exception):
    """A file, an image, a server or a recipe is wrong; the message says which, and what to do."""


def loading_errors() -> tuple[type[Exception], ...]:
    """What libraries raise for a checkpoint that is missing, damaged or of another kind than asked for."""
    from safetensors import SafetensorError  # late: only who loads checkpoints has it

    plain = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError)
    return (*plain, SafetensorError)


@contextmanager
def loading(failure: str, advice: str = "") -> Iterator[None]:
    """Raises SdgError where what is done inside with a checkpoint fails for one of `loading_errors`.

    failure, advice: what the sentence says before the library's reason and after it.
    """
    try:
        yield
    except loading_errors() as error:
        then = f"; {advice}" if advice else ""
        reason = "the hub cannot be reached" if _is_unreached(error) else first_line(error)
        raise SdgError(f"{failure} ({reason}){then}.") from error


def _is_unreached(error: BaseException | None) -> bool:
    """Whether an error came of a connection that failed, whatever a library made of it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        # Of builtins and requests, and of httpx, which nobody has to have.
        if any(kind.__name__ in ("ConnectionError", "ConnectError") for kind in type(error).__mro__):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def installed(need: str, extra: str, otherwise: str = "") -> Iterator[None]:
    """Raises SdgError where what is imported inside is missing.

    need: what needs it, as the sentence begins. extra: of this package, which brings it. otherwise: how else.
    """
    try:
        yield
    except ImportError:
        instead = f"; {otherwise}" if otherwise else ""
        raise SdgError(f"{need}: pip install 'structured-defect-grounding[{extra}]'{instead}.") from None


def first_line(error: BaseException) -> str:
    """What a library's error says, in one short line; its name where it says nothing."""
    return shortened(next(iter(str(error).strip().splitlines()), type(error).__name__), 150)


def described(error: BaseException) -> str:
    """What a user's function raised, in one line: class, message, and the line of their own file, if any."""
    if isinstance(error, SdgError):
        return first_line(error)
    import sysconfig  # late, as it takes a millisecond

    libraries = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    others = ("<", str(Path(__file__).parent), *libraries)
    places = [
        f" at {path_end(frame.f_code.co_filename)}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith(others)
    ]
    return f"{type(error).__name__}: {first_line(error)}{places[-1] if places else ''}"


def quoted(value: object, most: int = 80) -> str:
    """A value as Python writes it, in one line and at most `most` characters: bounded, whatever it is."""
    if isinstance(value, str | bytes):
        value = value[: most + 1]
    try:
        return shortened(repr(value), most)
    except (ValueError, RecursionError):  # a number of thousands of digits, nesting without end
        return f"a value too large to show ({type(value).__name__})"


def shortened(text: str, most: int) -> str:
    """A text in one line of at most `most` characters, its end left out where it is longer.

    What cannot be printed, such as a terminal's control characters, is escaped.
    """
    start = text[: most + 1]
    if not start.isprintable():
        start = "".join(c if c.isprintable() else repr(c)[1:-1] for c in start)
    return start if len(start) <= most else start[: most - 1] + "…"


_UNPRINTABLE: Final = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Controls (C0 but tab and line feed, C1), ends of lines, what turns or hides text, half surrogates."""


def printable(text: str) -> str:
    """A text as a terminal may see it: what would steer it, or turn or hide text, is escaped as in JSON.

    JSON stays the same JSON.
    """
    return _UNPRINTABLE.sub(lambda found: escaped(found[0]), text)


def escaped(text: str) -> str:
    """Every character of a text as JSON escapes it: \\u and four digits, two of these beyond U+FFFF."""
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True))


def path_end(path: str, most: int = 80) -> str:
    """A path, or the end of it where it is longer than `most` characters, for a sentence."""
    return shortened(path if len(path) <= most else "…" + path[1 - most :], most)


class Faults(ValueError):
    """Several reasons why one part of a file cannot be used; as text, the first of them."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(self.reasons[0])


def reasons(error: ValueError) -> tuple[str, ...]:
    """All reasons a ValueError holds."""
    return error.reasons if isinstance(error, Faults) else (str(error),)


def raise_all(checks: Iterable[Callable[[], object]]) -> None:
    """Call every check; raises Faults with all reasons where any of them raised ValueError."""
    found: list[str] = []
    for check in checks:
        try:
            check()
        except ValueError as error:
            found.extend(reasons(error))
    if found:
        raise Faults(found)
