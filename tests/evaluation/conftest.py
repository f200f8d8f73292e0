"""What the tests of SDG-Eval share."""

from __future__ import annotations

import json

import pytest

ITEMS = [
    ([600, 48, 641, 100], "artifact", "The fingers of the raised hand are fused.", 22),
    ([223, 345, 285, 385], "artifact", "The fingers of the other hand melt.", 22),
    ([474, 220, 530, 281], "artifact", "Eyes and mouth are slightly warped.", 32),
    ([223, 48, 657, 840], "misalignment", "She stands upright, not 'upside down'.", 95),
]


@pytest.fixture
def ballerina() -> str:
    """The paper's worked example: its boxes, labels and importances, with shorter texts."""
    keys = ("box_2d", "label", "description", "importance")
    answer = json.dumps([dict(zip(keys, item, strict=True)) for item in ITEMS])
    return f"<think>\n### Step 1: Caption Understanding\n</think>\n<answer>\n{answer}\n</answer>"
