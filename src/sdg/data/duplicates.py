"""Pictures that are the same, or nearly: by a perceptual hash, and by small copies where it agrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE: Final = 16
"""Pixels of a side of the small picture by which pictures are compared."""
MOST_BITS: Final = 6
"""Bits of the 128 in which the hashes of two pictures that are alike may differ."""
BRIGHTER: Final = 2
"""Levels of 0–255 by which a cell is brighter than its neighbour: more than the noise of JPEG."""
MOST_MEAN, MOST_MAX = 4.0, 32
"""Differences of their small pictures in levels, over all and anywhere: what packing and scaling come to."""
_ROWS: Final = 1024  # pictures compared with all others at once


@dataclass(frozen=True, slots=True)
class Print:
    """What is kept of a picture: its difference hash (128,) of ±1, and SIDE × SIDE × 3 levels."""

    bits: NDArray[np.int8]
    small: NDArray[np.uint8]


def fingerprint(picture: Image.Image) -> Print:
    """The fingerprint of an RGB picture: which of neighbouring cells is brighter, across and down (dHash)."""
    grey = picture.convert("L")
    across = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), np.int16)
    down = np.asarray(grey.resize((8, 9), Image.Resampling.BOX), np.int16)
    brighter = np.concatenate(
        [(np.diff(across, axis=1) > BRIGHTER).ravel(), (np.diff(down, axis=0) > BRIGHTER).ravel()]
    )
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX).convert("RGB"))
    return Print(np.where(brighter, 1, -1).astype(np.int8), small)


def alike(prints: Sequence[Print]) -> list[list[int]]:
    """Groups of indices of pictures that are alike, each of two or more, in ascending order.

    A picture is in a group with whatever it is alike to: chains hold together.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not prints:
        return []
    bits = np.stack([one.bits for one in prints]).astype(np.float32)
    small = np.stack([one.small for one in prints]).astype(np.int16)
    pairs = []
    for start in range(0, len(bits), _ROWS):
        differing = (bits.shape[1] - bits[start : start + _ROWS] @ bits.T) / 2
        rows, columns = np.nonzero(differing <= MOST_BITS)
        rows += start
        later = columns > rows
        pairs.append(np.stack([rows[later], columns[later]], axis=1))
    found = np.concatenate([part[_near(small, part)] for part in pairs])
    links = coo_array((np.ones(len(found)), (found[:, 0], found[:, 1])), shape=(len(bits), len(bits)))
    _, labels = connected_components(links, directed=False)
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def _near(small: NDArray[np.int16], pairs: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which pairs (N, 2) of indices are of small pictures that hardly differ, a few thousand at a time."""
    near = [np.zeros(0, bool)]
    for start in range(0, len(pairs), 4096):
        first, second = pairs[start : start + 4096].T
        difference = np.abs(small[first] - small[second])
        axes = (1, 2, 3)
        near.append((difference.mean(axes) <= MOST_MEAN) & (difference.max(axes) <= MOST_MAX))
    return np.concatenate(near)
