"""The blind Good/Same/Bad study: two systems' results of the same inputs, paired under ids that name neither.

Annotators get a page that knows only the ids, in one file that needs no network, to rate by key or touch. It
lists pairs and pictures in the order of their ids, so that nothing in it says which system made what. The
key, a file of its own, says which is whose (SDG §5.2.2).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from sdg.errors import SdgError
from sdg.images import load_image
from sdg.io import jsonl
from sdg.io.files import write_text
from sdg.io.jsonl import load_document
from sdg.io.paths import data_path, real_path
from sdg.records import optional_text, text_of
from sdg.refinement.batch import OUTPUT
from sdg.refinement.loop import Outcome
from sdg.reporting.page import write_page
from sdg.reporting.thumbnails import TO_JUDGE, Shown, Source, prepared, show_or_refuse
from sdg.runs.begin import hold
from sdg.runs.inputs import gather
from sdg.runs.journal import Key as InputKey
from sdg.runs.journal import require_once

PAGE: Final = "study.html"
KEY: Final = "key.json"
SIDE: Final = 1024
"""Longer side of each picture in pixels at most: what the paper's editor makes."""


Results = Mapping[InputKey, Path | None]
"""What one system made: (path, prompt) of each input -> the picture, None where it failed."""


@dataclass(frozen=True, slots=True)
class Match:
    """One input with the pictures that systems A and B made of it."""

    filepath: str
    prompt: str
    a: Path
    b: Path


@dataclass(frozen=True, slots=True)
class Pair:
    """A match under opaque ids: of itself and of both pictures; identical pictures are not shown."""

    id: str
    a: str
    b: str
    identical: bool
    filepath: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Question:
    """One pair to rate: its id, its prompt, and the two pictures, each with an id."""

    id: str
    prompt: str
    pictures: tuple[tuple[str, Source], tuple[str, Source]]


@dataclass(frozen=True, slots=True)
class Key:
    """What a page does not say: the names of systems A and B, and whose picture is which."""

    study: str
    a: str
    b: str
    pairs: tuple[Pair, ...]

    @property
    def shown(self) -> tuple[Pair, ...]:
        """The pairs that annotators rate."""
        return tuple(pair for pair in self.pairs if not pair.identical)


@dataclass(frozen=True, slots=True)
class Study:
    """A study on disk, and how many inputs were left out: with one result only, and failed by a system."""

    key: Key
    page: Path
    unmatched: int
    failed: int


def make_study(
    a: Path,
    b: Path,
    out: Path,
    *,
    names: tuple[str, str] = ("a", "b"),
    limit: int | None = None,
    seed: int = 0,
    side: int = SIDE,
    images: Path | None = None,
    allow_outside: bool = False,
    on_pair: Callable[[int], None] | None = None,
) -> Study:
    """Write the page and the key of a study of the results in `a` and `b` into the folder `out`.

    limit: so many pairs, drawn by seed from all. seed: also of each annotator's order. side: longer side of
    the pictures in pixels at most. images, allow_outside: as for `read_results`. on_pair: is told how many
    pairs are written, after each. Pairs whose pictures are the same in every pixel count as Same unseen.
    Raises SdgError where `out` holds a study, and where there is nothing to rate or a file cannot be read.
    """
    _refuse_another(out)
    matches, unmatched, failed = match(
        *(read_results(path, images, allow_outside=allow_outside) for path in (a, b))
    )
    if not matches:
        raise SdgError(f"{a} and {b} share no result; give results of the same paths and prompts.")
    matches = draw(matches, limit, seed)
    same = [same_pixels(one.a, one.b) for one in matches]
    if all(same):
        raise SdgError(
            f"The {len(same):,} pairs of {a} and {b} are all identical, so there is nothing to rate."
        )
    with hold(out, out / KEY):
        _refuse_another(out)  # that another process wrote meanwhile
        key = blind(matches, same, names, secrets.token_bytes(32))
        asked = questions(key, matches)
        page = write_study(out / PAGE, key.study, asked, seed=seed, side=side, on_pair=on_pair)
        write_key(out / KEY, key)
    return Study(key, page, unmatched, failed)


def _refuse_another(out: Path) -> None:
    if (out / KEY).exists():
        raise SdgError(
            f"{out / KEY} is there already, and ratings of its study cannot be counted without it; "
            "give another --out."
        )


def read_results(path: Path, images: Path | None = None, *, allow_outside: bool = False) -> Results:
    """Results in a folder that `sdg refine` wrote, or in a JSON Lines file with `filepath` and `caption`.

    images: folder that inputs which were kept may lie in, beside the folder itself; allow_outside: they, and
    pictures that a JSON Lines file names, may lie anywhere.
    Raises SdgError where it is neither, where one input is there twice and where a picture lies elsewhere.
    """
    if path.is_dir() and not (path / OUTPUT).exists():
        raise SdgError(f"{path} holds no {OUTPUT}; give a folder in which `sdg refine` has finished.")
    if not path.is_dir() and path.exists() and path.suffix.lower() != ".jsonl":
        raise SdgError(f"{path} is neither a folder of `sdg refine` nor a .jsonl file of pictures.")
    found: list[tuple[InputKey, Path | None]]
    if path.is_dir():
        folders = (path,) if images is None else (path, images)
        refined = partial(_refined, folders=folders, allow_outside=allow_outside)
        found = list(jsonl.read_with(path / OUTPUT, refined))
    else:
        found = [(item.key, Path(item.file)) for item in gather([path], allow_outside=allow_outside)]
    require_once([key for key, _ in found], "result")
    return dict(found)


def match(a: Results, b: Results) -> tuple[list[Match], int, int]:
    """The inputs of which both have a picture; how many only one of them has; how many either failed."""
    both = [(key, a[key], b[key]) for key in a if key in b]
    found = [Match(*key, one, other) for key, one, other in both if one is not None and other is not None]
    return found, len(a.keys() ^ b.keys()), len(both) - len(found)


def draw(matches: Sequence[Match], limit: int | None, seed: int) -> list[Match]:
    """At most `limit` of the matches, each as likely as any other, in their order."""
    if limit is None or limit >= len(matches):
        return list(matches)
    drawn = np.random.default_rng(seed).choice(len(matches), limit, replace=False)
    return [matches[at] for at in sorted(drawn.tolist())]


def same_pixels(one: Path, other: Path) -> bool:
    """Whether two files show the same picture; raises SdgError where one cannot be read."""
    if real_path(one) == real_path(other):
        return True
    first, second = load_image(one), load_image(other)
    return first.size == second.size and first.tobytes() == second.tobytes()


def blind(matches: Sequence[Match], identical: Sequence[bool], names: tuple[str, str], salt: bytes) -> Key:
    """The key of the matches: every id is a keyed hash, which without the salt leads back to nothing."""

    def opaque(*parts: str) -> str:
        text = json.dumps(parts).encode("ascii")
        return hashlib.blake2b(text, key=salt, digest_size=8).hexdigest()

    pairs = tuple(
        Pair(
            id=opaque("pair", one.filepath, one.prompt),
            a=opaque("a", one.filepath, one.prompt),
            b=opaque("b", one.filepath, one.prompt),
            identical=same,
            filepath=one.filepath,
            prompt=one.prompt,
        )
        for one, same in zip(matches, identical, strict=True)
    )
    return Key(opaque("study"), *names, pairs)


def questions(key: Key, matches: Sequence[Match]) -> list[Question]:
    """What the page asks: the pairs that are shown, each with its pictures under their ids."""
    return [
        Question(pair.id, pair.prompt, ((pair.a, one.a), (pair.b, one.b)))
        for pair, one in zip(key.pairs, matches, strict=True)
        if not pair.identical
    ]


def write_study(
    path: str | os.PathLike[str],
    study: str,
    questions: Sequence[Question],
    *,
    seed: int = 0,
    side: int = SIDE,
    on_pair: Callable[[int], None] | None = None,
) -> Path:
    """Write the page of the study named `study`; returns its path.

    The browser draws the order of pairs, and what is left and right, from seed and annotator. side: longer
    side of the pictures in pixels at most. on_pair: is told how many pairs are written, after each.
    Raises SdgError where a picture cannot be read or the file cannot be written.
    """
    ordered = sorted(questions, key=lambda question: question.id)
    pictures = [
        picture for question in ordered for picture in sorted(question.pictures, key=lambda one: one[0])
    ]
    shown = prepared(lambda picture: (picture[0], show_or_refuse(picture[1], side, TO_JUDGE)), pictures)
    return write_page(
        path,
        "study.html",
        scripts=("person.js", "study.js"),
        styles=("study.css",),
        study=study,
        seed=seed,
        total=len(ordered),
        pairs=_pairs(ordered, shown, on_pair),
    )


def _pairs(
    questions: Sequence[Question],
    shown: Iterator[tuple[str, Shown]],
    on_pair: Callable[[int], None] | None,
) -> Iterator[tuple[Question, tuple[tuple[str, Shown], tuple[str, Shown]]]]:
    for done, question in enumerate(questions, start=1):
        yield question, (next(shown), next(shown))
        if on_pair is not None:
            on_pair(done)


def write_key(path: str | os.PathLike[str], key: Key) -> None:
    """Write a key as JSON."""
    write_text(path, json.dumps(asdict(key), indent=1) + "\n")


def read_key(path: str | os.PathLike[str]) -> Key:
    """The key that `write_key` wrote; raises SdgError for anything else."""
    value = load_document(path)
    try:
        pairs = tuple(Pair(**pair) for pair in value["pairs"])
        key = Key(value["study"], value["a"], value["b"], pairs)
        texts = (key.study, key.a, key.b, *(text for pair in pairs for text in (pair.id, pair.a, pair.b)))
        if pairs and all(type(text) is str for text in texts):
            return key
    except (LookupError, TypeError, AttributeError):
        pass
    raise SdgError(f"{path} is no key; give the folder that `sdg study make` wrote.")


def _refined(
    row: Mapping[str, Any], folders: Sequence[Path], allow_outside: bool
) -> tuple[InputKey, Path | None]:
    """Key and picture of a line that `sdg refine` wrote: where it kept the input, that is its result."""
    key = text_of(row, "id"), text_of(row, "prompt")
    kept = optional_text(row, "after") or text_of(row, "before")
    if text_of(row, "status") == Outcome.FAILED:
        return key, None
    return key, data_path(kept, *folders, allow_outside=allow_outside)
