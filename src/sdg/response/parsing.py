"""Reading a response: well-formed text in one quick pass, anything else leniently, never with an error."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from sdg.defects import DROPPED_ITEM, Defect, Diagnosis, Status
from sdg.response import grammar as g
from sdg.response.items import is_answer, is_item, mended_defects
from sdg.response.loose_json import Container, containers
from sdg.response.strict import think_content

_KEYS: Final = g.ALIASES.keys()
_BETWEEN: Final = "</think>\n<answer>"
_TAGS: Final = frozenset({"<think>", "</think>", "<answer>", "</answer>"})
_FENCE: Final = re.compile(r"```[ \t]*(?:json|python|text)?", re.IGNORECASE)
# Possessive blanks: without, a text of many blanks would take quadratic time.
_FENCE_OR_BLANK: Final = re.compile(rf"\s*+(?:{_FENCE.pattern})?\s*+", re.IGNORECASE)
_CLEAN: Final = re.compile(
    rf"""
    {_FENCE_OR_BLANK.pattern} (?P<tag><[ \t]?answer[ \t]?>)? {_FENCE_OR_BLANK.pattern}
    (?: \[ [\x20\t\r\n]*+ \]
      | \{{ [\x20\t\r\n]*+ (?P<quote>["'])defects(?P=quote) [\x20\t\r\n]*+ : [\x20\t\r\n]*+
        \[ [\x20\t\r\n]*+ \] [\x20\t\r\n]*+ \}} )
    \s*+ (?:```)? \s*+ (?:<[ \t]?/[ \t]?answer[ \t]?>)? \s*+ (?:```)? \s*+
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""An empty list and nothing else, but for a code fence and the answer tags."""


def parse_response(text: str, *, require_think: bool = True) -> Diagnosis:
    """Read a detector's response, whatever it holds; `status` and `repairs` say what had to be mended.

    Status `ok`: both blocks as the wire format has them (blanks around them do not matter); a missing
    reason or importance is not a fault here, as a prompt profile need not ask for it. `repaired`: readable
    after mending (`sdg.response.grammar` names each repair). `truncated`: the list was cut off, its complete
    items are kept. `unparseable`: no list could be read, or none of its items.
    Defects are read out of whatever stands around them. That there are none needs evidence: a response is
    clean only if it is an empty list (or `{"defects": []}`) and nothing else, apart from a think block that
    is closed, a code fence and the answer tags. Any other response without a readable item is `unparseable`.
    Boxes are always taken as xyxy. Of several answer blocks the last complete one counts. With
    `require_think=False` a missing think block is no fault (for models trained without one).
    """
    diagnosis = _read_well_formed(text, require_think)
    return _mend(text, require_think) if diagnosis is None else diagnosis


def plain_response(text: str, *, require_think: bool = True) -> tuple[str, Any] | None:
    """The think block's text and the answer's JSON value, where nothing but the two blocks stands anywhere.

    None for any other response. Cheap, however long the think block. `parse_response` finds such a response
    `ok` where the value is a list of exact items, and then its defects are those.
    """
    parts = _blocks(text) or _tagged_blocks(text.strip(), require_think)
    if parts is None:
        return None
    block, answer = parts
    try:
        return block, orjson.loads(answer)  # an integer it cannot hold becomes a float: not exact either
    except ValueError:
        try:
            return block, g.load_json(answer)
        except ValueError:
            return None


def _blocks(text: str) -> tuple[str, str] | None:
    """What stands in the two blocks of a response as it is most often written; None for any other.

    With no angle brackets but those of its tags, which are quick to find.
    """
    end = text.find("<", len("<think>"))
    start = end + len(_BETWEEN)
    close = text.find("<", start)
    if text[:7] == "<think>" and text[end:start] == _BETWEEN and text[close:] == "</answer>":
        return text[7:end], text[start:close]
    return None


def _tagged_blocks(whole: str, require_think: bool) -> tuple[str, str] | None:
    """What stands in the two blocks; angle brackets in them are fine, tags are not."""
    block, start = "", 0
    if whole.startswith("<think>"):
        start = whole.find("</think>")
        if start < 0:
            return None
        block = whole[7:start]
        if "<" in block and g.TAG.search(block):
            return None
        start += 8
    elif require_think:
        return None
    answer = whole[start:].lstrip() if start else whole
    if not (answer.startswith("<answer>") and answer.endswith("</answer>")):
        return None
    answer = answer[8:-9]
    return None if "<" in answer and g.TAG.search(answer) else (block, answer)


def _read_well_formed(text: str, require_think: bool) -> Diagnosis | None:
    """The diagnosis of a response that needs no repair; None for any other."""
    found = plain_response(text, require_think=require_think)
    defects = None if found is None else _exact_defects(found[1])
    if found is None or defects is None:
        return None
    return Diagnosis(defects, think_content(found[0]), Status.OK, text)


def _exact_defects(value: Any) -> tuple[Defect, ...] | None:
    """The defects of a list that needs no repair; None for anything else."""
    if type(value) is not list:
        return None
    defects = []
    try:
        for item in value:
            if not item.keys() <= _KEYS:  # an alias, or a key nobody asked for: the long way looks closer
                return None
            x0, y0, x1, y1 = item["box_2d"]
            if not (type(x0) is type(y0) is type(x1) is type(y1) is int):
                return None
            reason = item.get("description")
            reason = "" if reason is None else reason
            defects.append(Defect((x0, y0, x1, y1), g.LABELS[item["label"]], reason, item.get("importance")))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return tuple(defects)


@dataclass(frozen=True, slots=True)
class _Block:
    """A stretch of the response that may hold the list: `start` to `end` with its tags, `body` without."""

    body: str
    start: int
    end: int
    closed: bool
    tagged: bool = True


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a block holds: the value read, which of its containers the end left open, repairs so far."""

    value: list[Any] | dict[str, Any]
    repairs: tuple[str, ...] = ()
    open: tuple[Any, ...] = ()


def _mend(text: str, require_think: bool) -> Diagnosis:
    tags = list(g.TAG.finditer(text))
    repairs = [g.TAG_SPELLING for tag in tags if tag[0] not in _TAGS]
    think, reasoning = _find_think(text, tags, require_think, repairs)
    blocks = _answer_blocks(text, tags, think, repairs)
    readings = [_read(block) for block in blocks]
    _, reading = max(zip(blocks, readings, strict=True), key=_preference)
    if reading is None:
        return Diagnosis((), reasoning, Status.UNPARSEABLE, text)
    repairs += reading.repairs
    repairs += _outside(text, [think, *((block.start, block.end) for block in blocks)])
    exact = None if reading.open else _exact_defects(reading.value)
    defects = mended_defects(reading.value, reading.open, repairs) if exact is None else exact
    if g.CUT_OFF in reading.repairs:
        status = Status.TRUNCATED
    elif not defects and not _says_clean(text, think, repairs):
        lost = repairs if DROPPED_ITEM in repairs else ()
        return Diagnosis((), reasoning, Status.UNPARSEABLE, text, tuple(lost))
    else:
        status = Status.REPAIRED if repairs else Status.OK
    return Diagnosis(defects, reasoning, status, text, tuple(repairs))


def _says_clean(text: str, think: tuple[int, int], repairs: list[str]) -> bool:
    """Whether a response is an empty list and nothing else beside its think block: evidence, not a mention.

    "I cannot help. []" is none, nor is `{"error": "overloaded", "details": []}`, nor an answer that stands
    in a thought. A think block that was never closed reaches to the end; one that was never opened (a chat
    template may have done that) may be any text, so that the tag of the answer has to stand after it.
    """
    if g.UNCLOSED_THINK in repairs:
        return False
    before, after = text[: think[0]], text[think[1] :]
    if not (_FENCE_OR_BLANK.fullmatch(before) or _FENCE_OR_BLANK.fullmatch(after)):
        return False
    found = _CLEAN.fullmatch(f"{before}\n{after}")
    return found is not None and (found["tag"] is not None or g.UNOPENED_THINK not in repairs)


def _find_think(
    text: str, tags: list[re.Match[str]], require_think: bool, repairs: list[str]
) -> tuple[tuple[int, int], str]:
    """Start and end of the think block with its tags, and the reasoning in it."""
    thinks = [tag for tag in tags if tag[2].lower() == "think"]
    opening = next((tag for tag in thinks if not tag[1]), None)
    after = 0 if opening is None else opening.end()
    closing = next((tag for tag in thinks if tag[1] and tag.start() >= after), None)
    if opening is None and closing is None:
        if require_think:
            repairs.append(g.MISSING_THINK)
        return (0, 0), ""
    start = 0 if opening is None else opening.start()
    if closing is not None:
        end, stop = closing.end(), closing.start()
        if opening is None:  # a chat template may have written the opening tag into the prompt
            repairs.append(g.UNOPENED_THINK)
    else:
        repairs.append(g.UNCLOSED_THINK)
        answers = (tag.start() for tag in tags if tag[2].lower() == "answer" and tag.start() >= after)
        end = stop = next(answers, len(text))
    return (start, end), think_content(text[after:stop])


def _answer_blocks(
    text: str, tags: list[re.Match[str]], think: tuple[int, int], repairs: list[str]
) -> list[_Block]:
    """The stretches that may hold the answer: blocks after or before the think block, else within it."""
    inside: list[_Block] = []
    outside: list[_Block] = []
    for tag, following in zip(tags, [*tags[1:], None], strict=False):
        if tag[2].lower() == "answer" and not tag[1]:
            stop = len(text) if following is None else following.start()
            closed = following is not None and following[2].lower() == "answer" and bool(following[1])
            end = following.end() if following is not None and closed else stop
            blocks = inside if think[0] <= tag.start() < think[1] else outside
            blocks.append(_Block(text[tag.end() : stop], tag.start(), end, closed))
    if not (inside or outside):
        repairs.append(g.MISSING_ANSWER)
        return [_untagged(text, tags, think)]
    if not outside:
        repairs += [g.NESTED_ANSWER, *[g.EXTRA_ANSWER] * (len(inside) - 1)]
        return inside
    repairs += [g.STRAY_TAG] * len(inside)
    spanning = _spanning(text, tags, outside[0].start)
    if spanning is not None:
        repairs.append(g.STRAY_TAG)
        return [spanning]
    repairs += [g.EXTRA_ANSWER] * (len(outside) - 1)
    return outside


def _spanning(text: str, tags: list[re.Match[str]], start: int) -> _Block | None:
    """The block from the first opening to the last closing tag, where a text inside its JSON holds tags."""
    opening, *others = (tag for tag in tags if tag.start() >= start)
    if len(others) < 2 or others[-1][2].lower() != "answer" or not others[-1][1]:
        return None
    body = text[opening.end() : others[-1].start()]
    try:
        value = g.load_json(body)
    except ValueError:
        return None
    return _Block(body, start, others[-1].end(), True) if isinstance(value, list) else None


def _untagged(text: str, tags: list[re.Match[str]], think: tuple[int, int]) -> _Block:
    """What stands after the think block (or before it, where nothing does), up to a closing answer tag."""
    start, end = (think[1], len(text)) if text[think[1] :].strip() else (0, think[0])
    closing = next((tag for tag in tags if start <= tag.start() < end and tag[2].lower() == "answer"), None)
    stop = end if closing is None else closing.start()
    return _Block(
        text[start:stop], start, stop if closing is None else closing.end(), closing is not None, False
    )


def _preference(candidate: tuple[_Block, _Reading | None]) -> tuple[int, int]:
    """Complete blocks before those that lack their end tag before cut ones; the last of equals."""
    block, reading = candidate
    if reading is None:
        return -1, block.start
    return (0 if g.CUT_OFF in reading.repairs else 2 if block.closed else 1), block.start


def _read(block: _Block) -> _Reading | None:
    """The list in a block, with whatever stands around it; None where there is none."""
    body = block.body
    unclosed = () if block.closed or not block.tagged else (g.UNCLOSED_ANSWER,)
    bare = body.strip()
    fenced = len(bare) > 6 and bare.startswith("```") and bare.endswith("```")
    try:
        value = g.load_json(bare[3:-3].removeprefix("json") if fenced else bare)
    except ValueError:
        value = None
    if is_answer(value) or (block.tagged and isinstance(value, list)):
        return _Reading(value, (*unclosed, *((g.CODE_FENCE,) if fenced else ())))
    found = [container for container in containers(body) if is_answer(container.value)]
    if not block.tagged:
        last = found[-1] if found else None
        found = [item for item in found if item.value or (item is last and _stands_alone(body, item))]
    if not found:
        return _Reading([], (g.CUT_OFF,)) if unclosed else None
    lists = [container for container in found if not is_item(container.value)]
    if lists:
        complete = [item for item in lists if not item.open and (item.value or item is lists[-1])]
        return _finish(block, (complete or lists)[-1], unclosed)
    if len(found) == 1:
        return _finish(block, found[0], unclosed)
    items = Container([item.value for item in found], found[0].start, found[-1].end, found[-1].open)
    return _finish(block, items, (g.MISSING_LIST, *unclosed))


def _stands_alone(body: str, empty: Container) -> bool:
    """Whether an empty list without tags is an answer: it ends the response and is no box to tick, "[ ]"."""
    return body[empty.start : empty.end] != "[ ]" and not _FENCE.sub("", body[empty.end :]).strip()


def _finish(block: _Block, found: Container, repairs: tuple[str, ...]) -> _Reading:
    """The reading of a container found in a block: strictly where possible, and whether its end is there."""
    value = found.value
    if found.open:
        item_open = any(isinstance(part, dict) and (not part or is_item(part)) for part in found.open)
        repairs = (g.LOOSE_JSON,) if block.closed and not item_open else (g.CUT_OFF,)
    elif g.MISSING_LIST not in repairs:
        try:
            value = g.load_json(block.body[found.start : found.end])
        except ValueError:
            repairs += (g.LOOSE_JSON,)
    repairs += _text_repairs(block.body[: found.start] + "\n" + block.body[found.end :])
    return _Reading(value, repairs, found.open)


def _outside(text: str, used: list[tuple[int, int]]) -> tuple[str, ...]:
    """Repairs for what stands outside of the think block and the answer blocks."""
    rest, position = [], 0
    for start, end in sorted(used):
        rest.append(text[position : max(start, position)])
        position = max(position, end)
    return _text_repairs("\n".join([*rest, text[position:]]))


def _text_repairs(rest: str) -> tuple[str, ...]:
    fence = (g.CODE_FENCE,) if "```" in rest else ()
    return (*fence, g.OUTSIDE_TEXT) if _FENCE.sub("", rest).strip() else fence


def cut_off(diagnosis: Diagnosis) -> Diagnosis:
    """The diagnosis of a response known to end at the token limit: `truncated`, however whole it looks."""
    repairs = diagnosis.repairs if g.CUT_OFF in diagnosis.repairs else (*diagnosis.repairs, g.CUT_OFF)
    return replace(diagnosis, status=Status.TRUNCATED, repairs=repairs)
