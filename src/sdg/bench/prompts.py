"""Published sets of prompts, each in its own layout: DrawBench, PartiPrompts, GenEval and others.

`bench:NAME` stands wherever a recipe wants prompts. A set is fetched once at a pinned revision, held against
its SHA-256 and kept; `path=…` names a copy instead.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sdg.bench.archive import number_order, one_line, texts_as_lines
from sdg.data.formats import read_records
from sdg.data.splits import prompt_key
from sdg.errors import SdgError, first_line, path_end, quoted, shortened
from sdg.io import jsonl
from sdg.io.download import pinned_file
from sdg.io.files import cache_folder, is_folder, read_text

HOST: Final = "https://raw.githubusercontent.com"
ARCHIVES: Final = "https://codeload.github.com"
LARGEST: Final = 64 * 2**20
"""Bytes of the largest file that is read; the published ones have at most 3 MB."""
_LONGEST: Final = 600  # seconds that a file may take
_LOG = logging.getLogger("sdg.bench")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a set; category: as its authors name it, "" where they name none."""

    text: str
    category: str = ""

    def to_dict(self) -> dict[str, str]:
        """JSON values, `caption` as in every data file."""
        return {"caption": self.text} | ({"category": self.category} if self.category else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """A published set: what it is called, its columns, and where it comes from.

    text, category: names that a column or key may have, the published one first. suffixes: of files in the
    published layout. count: of all published prompts, 0 where splits differ. folder: what each text
    file of a folder is: a "prompt", or a "category" of prompts, one a line. repeats: whether the published
    layout has a prompt in several rows. splits: split -> path -> SHA-256, of files of a GitHub repository at
    one commit. A path that ends in "/" is a folder of text files; its SHA-256 is that of `texts_as_lines`.
    """

    title: str
    text: tuple[str, ...]
    category: tuple[str, ...] = ()
    suffixes: tuple[str, ...]
    count: int = 0
    folder: str = ""
    repeats: bool = False
    repository: str
    commit: str
    splits: Mapping[str, Mapping[str, str]]


def _compbench(split: str, *digests: str) -> dict[str, str]:
    return {
        f"examples/dataset/{name}_{split}.txt": digest
        for name, digest in zip(_COMPBENCH, digests, strict=True)
    }


_COMPBENCH: Final = (
    "color",
    "shape",
    "texture",
    "spatial",
    "3d_spatial",
    "numeracy",
    "non_spatial",
    "complex",
)

_NAMED: Final = re.compile(rf"(?:^|_)({'|'.join(_COMPBENCH)})(?:_(?:train|val)(?:_[a-z]+)?)?$")

SETS: Final = {
    "drawbench": PromptSet(
        title="DrawBench",
        suffixes=(".csv",),
        count=200,
        text=("Prompts", "Prompt", "prompt"),
        category=("Category", "category"),
        # The authors' sheet (imagen.research.google) may change, so this is a copy of it in a repository.
        repository="mwomick/VaReSynth",
        commit="f90470975e07e8477a7fcb99e949051859466880",
        splits={
            "all": {"data/DrawBench.csv": "5f50241927354d1879b5b0b27cd3c83e8e6816a19fcc9c559053e8d09781c392"}
        },
    ),
    "partiprompts": PromptSet(
        title="PartiPrompts",
        suffixes=(".tsv",),
        count=1632,
        text=("Prompt", "prompt"),
        category=("Category", "category"),
        repository="google-research/parti",
        commit="5a657978134374ce28973948331b319adef164bd",
        splits={
            "all": {"PartiPrompts.tsv": "fab29e41bb512a169b56acab4cf2a41dcb675e285df2efcde6640c7dd3c440eb"}
        },
    ),
    "geneval": PromptSet(
        title="GenEval",
        suffixes=(".jsonl",),
        count=553,
        text=("prompt",),
        category=("tag",),
        repository="djghosh13/geneval",
        commit="af4902f24d3ca90ebbb446dd9891a59e0f82725f",
        splits={
            "all": {
                "prompts/evaluation_metadata.jsonl": (
                    "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
                )
            }
        },
    ),
    "t2i-compbench": PromptSet(
        title="T2I-CompBench",
        suffixes=(".txt",),
        text=("prompt",),
        category=("category",),
        folder="category",
        repository="Karine-Huang/T2I-CompBench",
        commit="1b7094991a57f3c22abdd4f6e8ba6c1a15517073",
        splits={
            "val": _compbench(
                "val",
                "1634259756dbc77d13093d907d414480080ec9790a8c97ad09efaea7b2534f2d",
                "37e1a276906c7ea9516cbd7ac8501be896006c0c17ca7344f260562834455bae",
                "fbb5363515b4a28009e360afaaaf389d2dd2289e50dbb0c6ef4ea0c7fe4f3d4f",
                "8707a1d7e42ce3002d95363cf55f74bd043c843ae27108f5125aaaa7840ca988",
                "c9953597315f36a5fcb41291bb19bdc6ab5f64a0fa760d691b4854a73f5d1fe9",
                "dad8df141604b70ba7554bec724e3db0a80023680769b5c514854ea2d2527bbe",
                "04c56cc9ac441dc9ea6c5157652058bd1635b5308526dd31bb29a1caab9a758d",
                "1b808018b8d9916db3d47d5aa2ef18377a3549a56901a474156f799824cdf3b4",
            ),
            "train": _compbench(
                "train",
                "db5d3287027d453f8c977f0c7315f8a01a770f02f61fa54ae19406762982393f",
                "451bdfccd330d4cf979d45664817be7959e89250b93d5c591cc562b858175a87",
                "4846315c5972f9e9cc82e4833099e8ec2c28b999ca77269512715f3f56bde54f",
                "af14cdf2320057d98f94077e6211c2ddfaabfbb9e3842873657baabb17e00de6",
                "0bba7e9ad31b0ce7908f6cbf2426a4b7ef6e8b841c1b737d0ad2d5b8e688dd93",
                "f66bb8708cb0be23c0406e14d892b25661b2b71e3e72abddc79c38466ab629c6",
                "dbac5a9ec83204dcd0c3538a12d3212e2ce66db6f7ba45b49a1d869b2d3f2430",
                "d214ac45cb3c5307dd14a144c8c69aa5ffdcc7be74ff71b5dac989f8ca9f924b",
            ),
        },
    ),
    "dpg-bench": PromptSet(
        title="DPG-Bench",
        suffixes=(".csv", ".txt", ".jsonl"),
        count=1065,
        text=("text", "prompt"),
        category=("category_broad", "category"),
        folder="prompt",
        repeats=True,
        repository="TencentQQGYLab/ELLA",
        commit="3c228f1dc6c4d3cad0a47493816151a419f14db3",
        splits={
            "all": {"dpg_bench/prompts/": "4ef0c5ebfe4be7f00781923802b10290e3ae1193cf7bd005e553d913af93e98c"}
        },
    ),
    "pick-a-pic": PromptSet(
        title="Pick-a-Pic",
        suffixes=(".txt", ".csv", ".tsv", ".jsonl"),
        text=("caption", "prompt"),
        repeats=True,
        repository="yifan123/flow_grpo",
        commit="ac4c86e8cae021841f1fde853d340e0db67690dd",
        splits={
            "test": {
                "dataset/pickscore/test.txt": (
                    "d75c025fa451866e70f7e36243f7cdd93095523cb51f5f9651f2ce3236d20262"
                )
            },
            "train": {
                "dataset/pickscore/train.txt": (
                    "2f425adcbb9a6d0feee7c6c448e1cb83a1f71deca9434b803907e2578eca837f"
                )
            },
        },
    ),
}
"""Name -> set. Of several splits the first is taken by default."""


def prompts(
    name: str,
    path: str | None = None,
    split: str | None = None,
    category: str | None = None,
    limit: int | None = None,
    without: str | None = None,
) -> list[str]:
    """The texts of `read_prompt_set`: what `bench:NAME?path=…&limit=…` gives to a recipe.

    without: one file, or several joined by "|".
    """
    found = read_prompt_set(
        str(name),
        None if path is None else str(path),
        split=split,
        category=category,
        limit=limit,
        without=str(without).split("|") if without else (),
    )
    return [prompt.text for prompt in found]


def read_prompt_set(
    name: str,
    path: str | os.PathLike[str] | None = None,
    *,
    split: str | None = None,
    category: str | None = None,
    limit: int | None = None,
    without: Iterable[str | os.PathLike[str]] = (),
) -> list[Prompt]:
    """The prompts of a published set, in its order.

    path: a file or folder in the published layout; without one the pinned files are fetched, of `split`.
    category: only prompts of this one. limit: the first so many of what is left. without: annotation files
    whose prompts are left out, in whatever case, width and spacing; such as a detector's training set.
    A path with more or fewer prompts than were published is told of on stderr.
    Raises SdgError for an unknown set, split or category, for a file in another layout, and where fetching
    fails or brings other bytes than were published.
    """
    one = SETS.get(name)
    if one is None:
        raise SdgError(f"{quoted(name)} is no prompt set; there are {', '.join(SETS)}.")
    if path is not None and split is not None:
        raise SdgError("A split is of the files that are fetched; with a path, name the split's own path.")
    files = [(Path(path), "")] if path is not None else _fetched(name, one, split)
    found = [prompt for file, kind in files for prompt in _read(file, one, kind)]
    if one.repeats:
        found = list({prompt.text: prompt for prompt in reversed(found)}.values())[::-1]
    if path is not None and one.count and len(found) != one.count:
        _LOG.warning(
            "%s has %s prompts, and %s has %s.",
            one.title,
            f"{one.count:,}",
            path_end(str(path)),
            f"{len(found):,}",
        )
    if category is not None:
        known = sorted({prompt.category for prompt in found} - {""})
        found = [prompt for prompt in found if prompt.category == category]
        if not found:
            raise SdgError(
                f"{one.title} has no category {quoted(category)}, but "
                f"{shortened(', '.join(known), 300) or 'none at all'}."
            )
    known_prompts = {prompt_key(record.prompt) for file in without for record in read_records(file)}
    if known_prompts:
        found = [prompt for prompt in found if prompt_key(prompt.text) not in known_prompts]
    if limit is not None and (type(limit) is not int or limit < 1):
        raise SdgError(f"limit is a whole number from 1, not {quoted(limit)}.")
    if not found:
        raise SdgError(f"No prompts of {one.title} are left.")
    return found[:limit]


def _read(file: Path, one: PromptSet, category: str) -> Iterator[Prompt]:
    """The prompts of a file or folder; category: of a file that says none itself."""
    if is_folder(file):
        yield from _read_folder(file, one)
        return
    if file.suffix.lower() not in one.suffixes:
        raise SdgError(
            f"{path_end(str(file))} is no list of {one.title}, which ends in {' or '.join(one.suffixes)}."
        )
    reader = _READERS[file.suffix.lower()]
    if reader is _lines and one.folder == "prompt":
        yield Prompt(one_line(read_text(file, LARGEST)))
        return
    if one.folder == "category" and not category:
        category = _category_of(file)
        if not category:
            raise SdgError(
                f"{path_end(str(file))} is no list of {one.title}, which are named as "
                f"{_COMPBENCH[0]}_val.txt; its categories are {', '.join(_COMPBENCH)}."
            )
    for text, own in reader(file, one):
        if text := " ".join(text.splitlines()).strip():
            yield Prompt(text, own.strip() or category)


def _read_folder(folder: Path, one: PromptSet) -> Iterator[Prompt]:
    """Of T2I-CompBench only files named as the published ones are; others may lie beside them."""
    files = sorted(folder.glob("*.txt"), key=lambda file: number_order(file.stem)) if one.folder else []
    if one.folder == "category":
        files = [file for file in files if _category_of(file)]
    if not files:
        raise SdgError(
            f"{path_end(str(folder))} is a folder without text files of {one.title}; name a file of it."
        )
    for file in files:
        yield from _read(file, one, "")


def _category_of(file: Path) -> str:
    """The category that a file of T2I-CompBench is named after; "" where it is none of it."""
    named = _NAMED.search(file.stem)
    return named[1] if named else ""


Rows = Iterator[tuple[str, str]]


def _lines(file: Path, one: PromptSet) -> Rows:
    for line in read_text(file, LARGEST).split("\n"):
        yield line, ""


def _tabbed(file: Path, one: PromptSet) -> Rows:
    """Of PartiPrompts: a quotation mark is one of the prompt's own."""
    lines = [line for line in read_text(file, LARGEST).split("\n") if line.strip()]
    yield from _columns(file, one, (line.rstrip("\r").split("\t") for line in lines))


def _commas(file: Path, one: PromptSet) -> Rows:
    try:
        lines = io.StringIO(read_text(file, LARGEST), newline="")  # which U+2028 and the like do not end
        yield from _columns(file, one, csv.reader(lines))
    except csv.Error as error:
        raise SdgError(f"{path_end(str(file))} is no CSV file: {first_line(error)}.") from None


def _columns(file: Path, one: PromptSet, rows: Iterator[list[str]]) -> Rows:
    header = next(rows, [])
    text = next((header.index(name) for name in one.text if name in header), None)
    if text is None:
        raise _no_column(file, one, header)
    own = next((header.index(name) for name in one.category if name in header), None)
    for row in rows:
        if len(row) > text:
            yield row[text], row[own] if own is not None and len(row) > own else ""


def _objects(file: Path, one: PromptSet) -> Rows:
    for number, row in enumerate(jsonl.read_objects(file), start=1):
        texts = [row[name] for name in one.text if isinstance(row.get(name), str)]
        if not texts:
            raise _no_column(file, one, list(row), f", line {number}")
        own = [row[name] for name in one.category if isinstance(row.get(name), str)]
        yield texts[0], own[0] if own else ""


def _no_column(file: Path, one: PromptSet, names: list[str], where: str = "") -> SdgError:
    has = shortened(", ".join(map(quoted, names[:8])), 200) or "nothing"
    return SdgError(
        f"{path_end(str(file))}{where}: {one.title} has its prompts in {one.text[0]!r}, not {has}."
    )


_READERS: Final[Mapping[str, Callable[[Path, PromptSet], Rows]]] = {
    ".txt": _lines,
    ".tsv": _tabbed,
    ".csv": _commas,
    ".jsonl": _objects,
}


def _fetched(name: str, one: PromptSet, split: str | None) -> list[tuple[Path, str]]:
    """The pinned files of a split, each with its category, fetched where they are not kept yet."""
    files = one.splits.get(split or next(iter(one.splits)))
    if files is None:
        raise SdgError(f"{one.title} has the splits {', '.join(one.splits)}, not {quoted(split)}.")
    folder = cache_folder() / "prompts" / name / one.commit[:12]
    return [
        (_kept(folder, one, path, sha), _category_of(Path(path)) if one.folder == "category" else "")
        for path, sha in files.items()
    ]


def _kept(folder: Path, one: PromptSet, path: str, sha256: str) -> Path:
    """A file of the cache with these bytes, fetched if need be; raises SdgError."""

    def is_it(content: bytes) -> bool:
        return hashlib.sha256(content).hexdigest() == sha256

    otherwise = "name a copy you trust by path=… (--path)"
    if path.endswith("/"):
        url, file = f"{ARCHIVES}/{one.repository}/tar.gz/{one.commit}", f"{Path(path).name}.jsonl"
        made_of = partial(texts_as_lines, folder=path)
        return pinned_file(url, folder / file, is_it, otherwise, LARGEST, _LONGEST, made_of)
    url = f"{HOST}/{one.repository}/{one.commit}/{quote(path)}"
    return pinned_file(url, folder / Path(path).name, is_it, otherwise, LARGEST, _LONGEST)
