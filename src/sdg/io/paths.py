"""Matching images to stored rows by path, where the two are relative to different folders.

Data sets name images relative to folders of their own; the end of a path still says which image is meant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePath


def parts(path: str) -> tuple[str, ...]:
    """The parts of a path, without the dots."""
    return tuple(part for part in PurePath(path.replace("\\", "/")).parts if part != ".")


class PathIndex:
    """Which of a file's paths an image's path stands for."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._by_parts: dict[tuple[str, ...], str] = {}
        self._by_name: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
        for path in paths:
            own = parts(path)
            if own and own not in self._by_parts:
                self._by_parts[own] = path
                self._by_name[own[-1]].append(own)

    def find(self, path: str) -> tuple[str, ...]:
        """The paths that may be meant, in order of the file; one if it is clear, none if there is none.

        The same path counts first, then paths one of which ends with the other, then equal names.
        """
        own = parts(path)
        if own in self._by_parts:
            return (self._by_parts[own],)
        named = self._by_name.get(own[-1], []) if own else []
        ending = [other for other in named if _end_alike(own, other)]
        return tuple(self._by_parts[other] for other in ending or named)


def _end_alike(a: Sequence[str], b: Sequence[str]) -> bool:
    shorter = min(len(a), len(b))
    return tuple(a[-shorter:]) == tuple(b[-shorter:])


def claimed_twice(claims: Iterable[tuple[str, object]]) -> set[object]:
    """What more than one path lays claim to, of pairs (path, what it was taken for)."""
    claimants: defaultdict[object, set[tuple[str, ...]]] = defaultdict(set)
    for path, claimed in claims:
        claimants[claimed].add(parts(path))
    return {claimed for claimed, paths in claimants.items() if len(paths) > 1}
