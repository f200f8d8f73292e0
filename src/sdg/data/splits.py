"""Prompt-disjoint splits, seeded and stratified by generator, in two passes over a JSON Lines file.

The first pass keeps twelve bytes a line; prompts are then dealt out in the order of a seeded hash, so the
split of a prompt does not depend on the order of the lines. The second pass writes each line to its split.
A prompt goes to the split that is furthest behind its share, summed over the generators that painted the
prompt: a prompt that all generators share counts for all of them at once.
"""

from __future__ import annotations

import pathlib
import re
import unicodedata
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np

from sdg.data.statistics import NO_GENERATOR
from sdg.errors import SdgError
from sdg.io import jsonl
from sdg.io.files import atomic_writer, is_folder
from sdg.io.parquet_images import stored_images
from sdg.io.paths import real_path
from sdg.records import Path, as_name, text_of
from sdg.tables import Table


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which split each prompt of a file belongs to.

    counts: images by split and generator (None where a line has none).
    """

    names: tuple[str, ...]
    seed: int
    counts: Mapping[str, Mapping[str | None, int]]
    _keys: array[int]  # sorted
    _splits: bytes

    def split_of(self, prompt: str) -> str:
        """The split of a prompt, however it is spaced or capitalised; raises KeyError for another prompt."""
        key = prompt_key(prompt, self.seed)
        at = bisect_left(self._keys, key)
        if at == len(self._keys) or self._keys[at] != key:
            raise KeyError(prompt)
        return self.names[self._splits[at]]

    def table(self) -> Table:
        """Images by generator and split, with each split's share of the generator's images."""
        split = self.counts.values()
        generators = sorted({name for counts in split for name in counts}, key=lambda name: name or "")
        rows = [
            (generator or NO_GENERATOR, [counts.get(generator, 0) for counts in split])
            for generator in generators
        ]
        rows.append(("all", [sum(counts.values()) for counts in split]))
        cells = (
            (name, *(f"{number:,} ({100 * number / sum(numbers):.1f} %)" for number in numbers))
            for name, numbers in rows
        )
        return Table("Images by split", ("generator", *self.names), tuple(cells))


def assign_prompts(path: Path, shares: Mapping[str, float], seed: int = 0) -> Assignment:
    """First pass: read the prompts and generators of a file and deal the prompts out.

    shares: split -> its share of the images, in any unit ({"train": 96, "test": 4}).
    Raises SdgError where a line has no prompt, a share is not above 0, a split would stay empty, a Parquet
    file holds pictures, which a split would lack, and where a file is one JSON document.
    """
    _check_shares(shares)
    if jsonl.is_parquet(path) and stored_images(path):
        raise SdgError(f"{path} holds its pictures itself; splits are of files that name theirs.")
    _require_lines(path)
    keys, painters = array("Q"), array("I")
    generators: dict[str | None, int] = {}
    for prompt, generator in jsonl.read_with(path, _prompt_and_generator):
        keys.append(prompt_key(prompt, seed))
        painters.append(generators.setdefault(generator, len(generators)))
    known = sorted(generators, key=lambda name: name or "")
    place = np.empty(len(known), np.uint64)  # of a generator by name, as the order of the lines says nothing
    place[[generators[name] for name in known]] = np.arange(len(known))
    images = np.stack([np.asarray(keys, np.uint64), place[np.asarray(painters)]], axis=1)
    pairs, numbers = np.unique(images, axis=0, return_counts=True)  # sorted by key, then generator
    prompts, first = np.unique(pairs[:, 0], return_index=True)
    total = sum(shares.values())
    splits = _deal(
        [share / total for share in shares.values()],
        pairs[:, 1].tolist(),
        numbers.tolist(),
        [*first.tolist(), len(pairs)],
        len(generators),
    )
    names = tuple(shares)
    of_pair = np.repeat(np.frombuffer(splits, np.uint8), np.diff([*first, len(pairs)]))
    counts: dict[str, Counter[str | None]] = {name: Counter() for name in names}
    for split, generator_index, number in zip(of_pair, pairs[:, 1], numbers, strict=True):
        counts[names[split]][known[int(generator_index)]] += int(number)
    for name in names:
        if not counts[name]:
            raise SdgError(f"{path} has too few prompts: the split {name!r} would be empty.")
    return Assignment(names, seed, counts, array("Q", prompts.tolist()), splits)


def write_splits(path: Path, folder: Path, assignment: Assignment) -> dict[str, pathlib.Path]:
    """Second pass: write every line, with its `split`, to FOLDER/<split>.jsonl; returns those paths.

    All files appear together, at the end. Raises SdgError where one cannot be written or would replace a file
    that is no part of an earlier split, and where the folder holds another part of one, with which these may
    share prompts.
    """
    paths = {name: pathlib.Path(folder) / f"{name}.jsonl" for name in assignment.names}
    if real_path(path) in [real_path(target) for target in paths.values()]:
        raise SdgError(f"{path} would be overwritten by one of its own splits; name another folder.")
    _refuse_others(pathlib.Path(folder), paths.values())
    with ExitStack() as stack:
        files = {name: stack.enter_context(atomic_writer(target)) for name, target in paths.items()}
        for value in jsonl.read_objects(path):
            split = assignment.split_of(_prompt_and_generator(value)[0])
            try:
                files[split].write(jsonl.dump_object(value | {"split": split}))
            except ValueError as error:  # of a Parquet file's dates, say
                raise SdgError(f"{path}: {error}") from None
    return paths


def prompt_key(prompt: str, seed: int = 0) -> int:
    """A seeded 64-bit hash of a prompt; case, width of characters and spacing do not matter."""
    plain = " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())
    data = plain.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8, key=str(seed).encode()).digest(), "big")


def _deal(
    shares: Sequence[float],
    generators: Sequence[int],
    numbers: Sequence[int],
    starts: Sequence[int],
    generator_count: int,
) -> bytes:
    """The split of each prompt; prompt i has `numbers[starts[i]:starts[i+1]]` images of those generators.

    Choosing the split that is furthest behind minimises the sum of squared deviations from the shares.
    """
    behind = [[0.0] * generator_count for _ in shares]
    dealt = bytearray()
    for start, end in pairwise(starts):
        images = list(zip(generators[start:end], numbers[start:end], strict=True))
        for row, share in zip(behind, shares, strict=True):
            for generator, number in images:
                row[generator] += share * number
        wanting = [sum(number * row[generator] for generator, number in images) for row in behind]
        choice = wanting.index(max(wanting))
        for generator, number in images:
            behind[choice][generator] -= number
        dealt.append(choice)
    return bytes(dealt)


def _prompt_and_generator(value: Mapping[str, Any]) -> tuple[str, str | None]:
    # As readers take it: what is released has captions, and may have prompts of another kind beside them.
    released = not value.keys().isdisjoint(("ann_translated_bboxes", "response"))
    prompt = text_of(value, "caption" if released or "prompt" not in value else "prompt")
    return prompt, as_name("generator", value.get("generator"))


def _require_lines(path: Path) -> None:
    """Raise SdgError where a file that is no JSON Lines by its name is none by its first line either."""
    file = pathlib.Path(path)
    if file.suffix.lower() != ".json":
        return
    _, line = next(jsonl.read_lines(path))
    try:
        _prompt_and_generator(jsonl.parse_object(line))
    except ValueError:
        raise SdgError(
            f"{path} holds no JSON Lines, which splits are made of; convert it before: "
            f"sdg data convert {path} {file.with_suffix('.jsonl')} --to sdg"
        ) from None


def _refuse_others(folder: pathlib.Path, paths: Collection[pathlib.Path]) -> None:
    """Raise SdgError where a part, as `write_splits` writes them, would stay, or what is none be replaced."""
    for path in paths:
        if path.is_file() and path.stat().st_size and not _is_part(path):
            raise SdgError(f"{path} exists and is no part of an earlier split; name another folder.")
    for other in sorted(set(folder.glob("*.jsonl") if is_folder(folder) else ()) - set(paths)):
        if _is_part(other):
            raise SdgError(
                f"{other} is a part of an earlier split and may share prompts with the new ones; "
                "remove it, or name another folder."
            )


def _is_part(path: pathlib.Path) -> bool:
    try:
        return bool(jsonl.first_object(path).get("split") == path.stem)
    except SdgError:
        return False


def _check_shares(shares: Mapping[str, float]) -> None:
    if not 2 <= len(shares) <= 256:
        raise SdgError("A data set is divided into two splits or more.")
    for name, share in shares.items():
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise SdgError(f"A split is named in letters and digits, since it names a file, not {name!r}.")
        if not 0 < share < float("inf"):
            raise SdgError(f"The share of the split {name!r} is a number above 0, not {share}.")
