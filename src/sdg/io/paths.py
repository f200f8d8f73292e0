"""Paths that data files hold: where they may lead, and which image they mean.

They are untrusted: one that leaves the folder of the images is refused. Data sets name images relative to
folders of their own; the end of a path still says which image is meant.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from sdg.errors import SdgError, path_end

Place = str | PurePath


def real_path(path: str | os.PathLike[str]) -> Path:
    """Where a path leads, links followed as far as they lead anywhere: in a loop of them, never an error.

    One that can name no file, of NUL or half surrogates, stays as it is.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        return Path(path)


def leads_inside(place: Place, folder: Place) -> bool:
    """Whether a path leads into a folder, or to it, once all links in both are followed."""
    try:
        return Path(os.path.realpath(place)).is_relative_to(real_path(folder))
    except ValueError:  # NUL and half surrogates: it leads nowhere, as whoever opens it will say
        return True


def data_path(path: str, folder: Place, *others: Place, allow_outside: bool = False) -> Path:
    """The file that `path`, text of a data file, names in `folder`.

    Raises SdgError where it leads out of the folder, and of the others where there are any: absolute, by
    `..` or through a link. allow_outside: for data files that are as trusted as the user's own words.
    """
    place = Path(folder, path)
    if allow_outside or any(leads_inside(place, root) for root in (folder, *others)):
        return place
    raise SdgError(
        f"{path_end(path)} leaves the folder {path_end(str(folder))}; give the folder that holds it "
        "(--images), or --allow-outside if you trust the file that names it."
    )


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
