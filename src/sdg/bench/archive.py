"""A folder of text files out of a repository's archive, as one file of lines: a thousand by one fetch.

What is held against a digest are the texts, not the archive, whose bytes depend on who packs it.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from pathlib import PurePosixPath
from typing import Final

from sdg.io.jsonl import dump_object

LARGEST: Final = 1 << 28
"""Bytes of an archive, unpacked."""


def number_order(name: str) -> tuple[int, str]:
    """Key to sort names of files, without their ending, so that 9 stands before 10."""
    return (int(name) if name.isdecimal() and len(name) < 10 else 0, name)


def one_line(text: str) -> str:
    """A prompt that is a file of its own, without its line breaks and further blanks."""
    return " ".join(text.split())


def texts_as_lines(archive: bytes, folder: str) -> bytes:
    """The `.txt` files of one folder of a `.tar.gz` as JSON Lines, `{"text": …}`, in order of their numbers.

    archive: has all in one top folder, as GitHub's. folder: within that one, such as "dpg_bench/prompts/".
    Nothing is written to the disk. Raises ValueError for what is no such archive, or holds too much.
    """
    texts: dict[str, str] = {}
    try:
        with gzip.open(io.BytesIO(archive)) as packed:
            content = packed.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"The archive has more than {LARGEST:,} bytes.")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as unpacked:
            for member in unpacked:
                path = PurePosixPath(member.name.partition("/")[2])
                wanted = path.suffix == ".txt" and f"{path.parent}/" == folder
                # A sparse file may say that it has any number of bytes, and brings none.
                plain = member.isreg() and not member.issparse()
                if wanted and plain and (file := unpacked.extractfile(member)) is not None:
                    texts[path.stem] = one_line(file.read().decode("utf-8-sig"))
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ValueError(f"This is no archive: {error}.") from None
    return b"".join(dump_object({"text": texts[name]}) for name in sorted(texts, key=number_order))
