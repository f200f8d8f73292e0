"""One small file from the web: bounded in bytes and seconds, every failure one sentence."""

from __future__ import annotations

import time
from http.client import HTTPException
from typing import Final
from urllib.request import Request, urlopen

from sdg.errors import SdgError, first_line

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
