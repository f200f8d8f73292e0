"""What the fuzzers share: how much they try, and how they spoil a text.

Every run tries the same; SDG_FUZZ multiplies how much (`make fuzz`).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence


def budget(count: int) -> int:
    """How many cases to try, `count` where nothing else is asked for."""
    return count * int(os.environ.get("SDG_FUZZ", "1"))


def report(name: str, seen: Counter[str]) -> None:
    """Print what the cases came to, for whoever runs pytest with -s."""
    print(f"{name}: {sum(seen.values()):,} ({', '.join(f'{key} {n:,}' for key, n in sorted(seen.items()))})")


def mutate(text: str, rng: random.Random, pieces: Sequence[str], most: int = 2000) -> str:
    """A text with a few cuts, repetitions, odd characters and `pieces` put in, at most `most` characters."""
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        near = min(end, at + rng.randrange(12))
        match rng.randrange(8):
            case 0:
                text = text[:at]
            case 1:
                text = text[at:]
            case 2:
                text = text[:at] + text[near:]
            case 3 | 4:
                text = text[:at] + rng.choice(pieces) + text[at:]
            case 5:
                text = text[:at] + rng.choice(pieces) + text[near:]
            case 6:
                text = text[:end] + text[at:end] + text[end:]
            case 7:
                text = text[:at] + chr(rng.randrange(0x3000)) + text[near:]
        text = text[:most]
    return text
