"""What reader, writer and gate share: tags, keys, labels, names of repairs."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from sdg.defects import DROPPED_ITEM, DefectType

TAG: Final = re.compile(r"<[ \t]?(/?)[ \t]?(think|answer)[ \t]?>", re.IGNORECASE | re.ASCII)
"""Any of the four tags, in whatever case and with a stray blank; group 1 is "/" where it closes."""

ALIASES: Final = {
    "box_2d": ("bbox_2d", "bbox", "box"),
    "label": ("type",),
    "description": ("desc", "reason"),
    "importance": (),
}
"""Each key of an item, and what else it is called where it is missing."""

LABELS: Final = {kind.value: kind for kind in DefectType}
"""The two labels of the wire format."""

# Repairs: what the reader had to mend, one name for each time. `DROPPED_ITEM` and `CUT_OFF` lose content.
MISSING_THINK: Final = "missing-think"
UNOPENED_THINK: Final = "unopened-think"  # </think> without <think>
UNCLOSED_THINK: Final = "unclosed-think"
MISSING_ANSWER: Final = "missing-answer-tag"  # a JSON list without <answer>
UNCLOSED_ANSWER: Final = "unclosed-answer"  # the list is whole, </answer> is missing
EXTRA_ANSWER: Final = "extra-answer"  # a further answer block, not used
NESTED_ANSWER: Final = "nested-answer"  # the answer block stands inside the think block
STRAY_TAG: Final = "stray-tag"  # a tag as it is, inside a text
TAG_SPELLING: Final = "tag-spelling"  # <Answer>
CODE_FENCE: Final = "code-fence"
OUTSIDE_TEXT: Final = "outside-text"  # before, between or after the blocks, or around the list
CUT_OFF: Final = "cut-off"  # status `truncated`: the list ends before its end
LOOSE_JSON: Final = "loose-json"  # single quotes, trailing commas, bare words, missing brackets
WRAPPED_LIST: Final = "wrapped-list"  # {"defects": […]} or [[…]]
MISSING_LIST: Final = "missing-list"  # items without a list around them
KEY_ALIAS: Final = "key-alias"
NUMBER_AS_TEXT: Final = "number-as-text"
ROUNDED_BOX: Final = "rounded-box"
SWAPPED_CORNERS: Final = "swapped-corners"
CLAMPED_BOX: Final = "clamped-box"
LABEL_SPELLING: Final = "label-spelling"
LABEL_BOTH: Final = "label-both"  # becomes one defect of each type
UNREADABLE_REASON: Final = "unreadable-reason"
ROUNDED_IMPORTANCE: Final = "rounded-importance"
CLAMPED_IMPORTANCE: Final = "clamped-importance"
UNREADABLE_IMPORTANCE: Final = "unreadable-importance"

REPAIRS: Final = frozenset(
    {
        DROPPED_ITEM,
        MISSING_THINK,
        UNOPENED_THINK,
        UNCLOSED_THINK,
        MISSING_ANSWER,
        UNCLOSED_ANSWER,
        EXTRA_ANSWER,
        NESTED_ANSWER,
        STRAY_TAG,
        TAG_SPELLING,
        CODE_FENCE,
        OUTSIDE_TEXT,
        CUT_OFF,
        LOOSE_JSON,
        WRAPPED_LIST,
        MISSING_LIST,
        KEY_ALIAS,
        NUMBER_AS_TEXT,
        ROUNDED_BOX,
        SWAPPED_CORNERS,
        CLAMPED_BOX,
        LABEL_SPELLING,
        LABEL_BOTH,
        UNREADABLE_REASON,
        ROUNDED_IMPORTANCE,
        CLAMPED_IMPORTANCE,
        UNREADABLE_IMPORTANCE,
    }
)
"""Every name that `Diagnosis.repairs` may hold."""


def load_json(text: str) -> Any:
    """The JSON value of `text`; raises ValueError for anything else, nesting without end included."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("The JSON is nested too deeply.") from None
