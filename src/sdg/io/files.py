"""Files, read and written with care: every way to fail is one sentence, and no file is ever half written.

Writers fill a temporary file in the same folder and rename it, so a reader sees the old file or the new.
Folders are written whole or not at all likewise.
"""

from __future__ import annotations

import os
import shutil
import sys
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from sdg.errors import SdgError, path_end, shortened
from sdg.io.paths import real_path

_BUFFER: Final = 1 << 18  # bytes: by Python's 8 KiB, lines of a large file come half as quickly


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is there and may be looked at, whatever the name: of one that none can have, too."""
    return os.path.isdir(path)  # noqa: PTH112 (pathlib's raises for a name that is too long)


def cache_folder() -> Path:
    """Where fetched files are kept: `sdg` in XDG_CACHE_HOME, by default in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 (never raises)
    return Path(base) / "sdg"


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises SdgError where the disk refuses what is done inside to this file or folder."""
    try:
        yield
    except _refusals() as error:
        name = path_end(os.fspath(path), 160)
        raise SdgError(f"{name} cannot be written: {getattr(error, 'strerror', None) or error}.") from error


def _refusals() -> tuple[type[Exception], ...]:
    """What is raised where a disk refuses; safetensors, where it is loaded, has an error of its own."""
    own = getattr(sys.modules.get("safetensors"), "SafetensorError", None)
    return (OSError,) if own is None else (OSError, own)


@contextmanager
def open_binary(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open an existing file for reading bytes.

    Raises SdgError where there is no such file, where it is a folder, or where it cannot be read.
    """
    path = Path(path)
    name = path_end(str(path), 160)
    try:
        with _opened(path) as file:
            yield file
    except FileNotFoundError:
        raise SdgError(f"{name} does not exist; check the path.") from None
    except IsADirectoryError:
        raise SdgError(f"{name} is a folder, but a file is needed here.") from None
    except OSError as error:  # of the reading, too: a disk that fails, a file that is none
        raise SdgError(f"{name} cannot be read: {error.strerror or error}.") from None


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=_BUFFER)
    except ValueError as error:  # of NUL and half surrogates in the name
        raise SdgError(f"{path_end(str(path), 160)} is no path: {shortened(str(error), 80)}.") from None


def read_bytes(path: str | os.PathLike[str], at_most: int = -1) -> bytes:
    """Whole content of a file; at_most: bytes, -1 for any number.

    Raises SdgError where the file is missing, a folder, unreadable or larger.
    """
    with open_binary(path) as file:
        content = file.read() if at_most < 0 else file.read(at_most + 1)
    if 0 <= at_most < len(content):
        raise SdgError(f"{path_end(str(path))} is larger than the {at_most:,} bytes such a file may have.")
    return content


def read_text(path: str | os.PathLike[str], at_most: int = -1) -> str:
    """Whole text of a UTF-8 file, with or without a byte-order mark; at_most: bytes, -1 for any number.

    Raises SdgError where the file is missing, a folder, unreadable, empty, larger or not UTF-8.
    """
    content = read_bytes(path, at_most)
    if not content.strip():
        raise SdgError(f"{path_end(str(path), 160)} is empty.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SdgError(f"{path_end(str(path), 160)} is not UTF-8 text; save it as UTF-8.") from None


@contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing bytes that appears under its name only once it is complete.

    Missing parent folders are made. If the block raises, or the disk fills up, what was at `path` before
    is untouched and nothing else is left behind. Devices and pipes (/dev/stdout) are written directly.
    Raises SdgError where the file cannot be written.
    """
    path = Path(path)
    name = path_end(str(path), 160)
    try:
        path.lstat()
    except ValueError as error:  # of NUL and half surrogates in the name
        raise SdgError(f"{name} is no path: {shortened(str(error), 80)}.") from None
    except OSError:  # most often of a file that is not there yet; the others come again below
        pass
    with writing(path):
        if path.is_dir():
            raise SdgError(f"{name} is a folder; give the name of a file to write.")
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        target = real_path(path)  # a link keeps pointing where it did
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(
            f".{os.urandom(8).hex()}.tmp"
        )  # short: the name itself may be as long as names get
        try:
            with temporary.open("xb") as file:
                yield file
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text, all of it or nothing; half a surrogate pair, as models write some, becomes "?"."""
    with atomic_writer(path) as file:
        file.write(text.encode("utf-8", "replace"))


def require_page(path: str | bytes | os.PathLike[str]) -> None:
    """Raise SdgError where a page would take the place of a file that is no HTML; a page is written anew."""
    require_begin(path, (b"<!doctype html", b"<html"), "is no page; name another file for the page")


def require_data(path: str | bytes | os.PathLike[str]) -> None:
    """Raise SdgError where data would take the place of a file that is neither JSON nor Parquet."""
    require_begin(path, (b"{", b"[", b"par1"), "holds no data of ours; name another file for the data")


def require_begin(path: str | bytes | os.PathLike[str], begins: tuple[bytes, ...], otherwise: str) -> None:
    """Raise SdgError where a file is there, holds something and begins with none of these, in lower case.

    otherwise: what the sentence says of it then, and what to do.
    """
    path = Path(os.fsdecode(path))
    try:
        with path.open("rb") if path.is_file() else BytesIO() as file:
            found = file.read(64).removeprefix(BOM_UTF8).lstrip().lower()
    except OSError:  # which writing it will say
        return
    if found and not found.startswith(begins):
        raise SdgError(f"{path_end(str(path), 160)} exists and {otherwise}.")


def require_other(out: str | os.PathLike[str] | None, inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Raise SdgError where an output would take the place of an input, under whatever name; None is none."""
    if out is not None and real_path(out) in map(real_path, inputs):
        raise SdgError(
            f"{path_end(os.fspath(out), 160)} is an input, and would be replaced; name another output."
        )


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Fill a new folder by `write` and put it in the place of `folder`, so that a kill never leaves half.

    Where `write` raises, nothing is left of what it wrote. The one moment at which `folder` does not exist
    leaves its contents beside it; see `restore_folder`.
    """
    fresh, old = _beside(folder, "writing"), _beside(folder, "old")
    restore_folder(folder)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        write(fresh)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if folder.exists():
        folder.replace(old)
    fresh.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder that a kill may leave under another name, but never in part under its own."""
    old = _beside(folder, "removed")
    shutil.rmtree(old, ignore_errors=True)
    folder.replace(old)
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Tidy up after a `replace_folder` that was killed: the folder is what it was before, or the new one."""
    old = _beside(folder, "old")
    if not folder.exists() and old.exists():
        old.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def tidy(parent: Path) -> None:
    """Finish or undo every replacement and removal among the folders in `parent` that a kill stopped."""
    for old in parent.glob(".*.old"):
        restore_folder(parent / old.name[1:-4])
    for left in [*parent.glob(".*.writing"), *parent.glob(".*.removed")]:
        shutil.rmtree(left, ignore_errors=True)


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f".{folder.name}.{ending}")
