"""A folder of prompts out of an archive: the texts in order, nothing else, and no archive that harms."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.bench import archive as module
from sdg.bench.archive import texts_as_lines
from sdg.bench.prompts import read_prompt_set


def packed(files: dict[str, bytes], *links: str) -> bytes:
    """As GitHub packs a repository: all in one folder, which is named for the commit."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("repo-c0ffee"))
        for name, content in files.items():
            member = tarfile.TarInfo(f"repo-c0ffee/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name in links:
            member = tarfile.TarInfo(f"repo-c0ffee/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    return out.getvalue()


def test_texts_of_the_folder_are_lines_in_order_of_their_numbers() -> None:
    files = {
        "bench/prompts/10.txt": b"ten",
        "bench/prompts/9.txt": b"a\n  cup\r\n",
        "bench/prompts/x1.txt": b"x",
    }
    others = {"bench/prompts/a.csv": b"x", "bench/prompts/in/1.txt": b"x", "bench/1.txt": b"x", "1.txt": b"x"}
    lines = texts_as_lines(packed(files | others, "bench/prompts/7.txt"), "bench/prompts/")
    assert [json.loads(line)["text"] for line in lines.splitlines()] == ["x", "a cup", "ten"]


def test_a_sparse_file_is_none_of_the_texts_however_large_it_says_it_is() -> None:
    member = tarfile.TarInfo("repo-c0ffee/prompts/1.txt")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:410], header[483:495] = b"00000000000\0" * 2, b"%011o\0" % (1 << 32)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert texts_as_lines(gzip.compress(bytes(header) + bytes(1024)), "prompts/") == b""


names = st.from_regex(r"\A[a-z0-9]{1,12}\Z")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
    lambda text: "".join(text.split("\ufeff")).split()
)


@given(st.dictionaries(names, texts, min_size=1, max_size=6))
def test_they_are_the_prompts_of_the_folder_itself(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("prompts")
    for name, text in found.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    files = {f"prompts/{name}.txt": text.encode() for name, text in found.items()}
    lines = folder / "kept.jsonl"
    lines.write_bytes(texts_as_lines(packed(files), "prompts/"))
    assert read_prompt_set("dpg-bench", lines) == read_prompt_set("dpg-bench", folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        gzip.compress(b"no archive"),
        packed({"a/1.txt": b"a cup"})[:-30],
        packed({"a/1.txt": b"\xff"}),
        gzip.compress(bytes(3000)),
    ],
    ids=["nothing", "page", "no-tar", "cut", "no-utf-8", "too-large"],
)
def test_what_is_no_such_archive_is_refused(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 2999 if len(content) < 100 else 1 << 20)
    with pytest.raises(ValueError, match=r"archive|utf-8"):
        texts_as_lines(content, "a/")


def test_an_archive_without_the_folder_has_no_lines(tmp_path: Path) -> None:
    assert texts_as_lines(packed({"b/1.txt": b"x"}), "a/") == b""
