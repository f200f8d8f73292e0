"""One file from the web: bounded in bytes and seconds, every failure one sentence; pinned ones are kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.request import Request, urlopen

from sdg.errors import SdgError, first_line
from sdg.io.files import atomic_writer, read_bytes

_PIECE: Final = 1 << 16


def download(url: str, at_most: int, seconds: float = 30) -> bytes:
    """The content at an http(s) address, of no more than `at_most` bytes, in no more than `seconds`.

    A proxy of the environment is used. Raises SdgError where there is no answer, or it is larger or later.
    """
    request = Request(url, headers={"User-Agent": "structured-defect-grounding"})
    if request.type not in ("http", "https"):
        raise SdgError(f"{url} is no address of the web.")
    content, until = b"", time.monotonic() + seconds
    try:
        with urlopen(request, timeout=seconds) as response:
            while piece := response.read1(_PIECE):
                content += piece
                if len(content) > at_most:
                    raise SdgError(f"{url} is larger than the {at_most:,} bytes such a file may have.")
                if time.monotonic() > until:  # the library's own limit is for each piece
                    raise SdgError(f"{url} did not come within {seconds:g} seconds.")
    except (OSError, HTTPException, ValueError) as error:
        raise SdgError(f"{url} cannot be fetched: {first_line(error)}.") from None
    return content


def pinned_file(
    url: str,
    file: Path,
    is_it: Callable[[bytes], bool],
    otherwise: str,
    at_most: int,
    seconds: float = 30,
    content_of: Callable[[bytes], bytes] = bytes,
) -> Path:
    """A file of the cache, fetched where it is not there or is another than the published one.

    is_it: whether bytes are that file's. otherwise: what a user can do instead, for the end of a sentence.
    content_of: makes the file's bytes of those that were fetched, and raises ValueError where it cannot.
    Raises SdgError, with that end, as `download` does and for other bytes; nothing is kept then.
    """
    if file.is_file() and file.stat().st_size <= at_most and is_it(read_bytes(file, at_most)):
        return file
    try:
        content = download(url, at_most, seconds)
    except SdgError as error:
        raise SdgError(f"{str(error).rstrip('.')}; {otherwise}.") from None
    try:
        content = content_of(content)
        known = is_it(content)
    except ValueError:
        known = False
    if not known:
        raise SdgError(f"{url} holds other bytes than were published; {otherwise}.")
    with atomic_writer(file) as out:
        out.write(content)
    return file
