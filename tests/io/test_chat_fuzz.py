"""Chat completions of any shape: an answer, or one of two errors; clean only where nothing else is said."""

import json
import random
from collections import Counter

from fuzz import budget, mutate, report

from sdg.io.chat import read_answer
from sdg.io.http import Refused, TryAgain
from sdg.refinement.openai_editor import read_picture
from sdg.response import cut_off, parse_response
from sdg.scorers.unified_reward import WEIGHTS, read_scores

CLEAN = "<think>\nFine.\n</think>\n<answer>\n[]\n</answer>"
FOUND = CLEAN.replace("[]", '[{"box_2d": [1, 2, 3, 4], "label": "artifact", "description": "a"}]')
SCORES = "Alignment Score (1-5): 4\nCoherence Score (1-5): 3\nStyle Score (1-5): 2"
TEXTS = [
    CLEAN,
    CLEAN,
    FOUND,
    SCORES,
    "[]",
    "<answer>[]</answer>",
    "",
    " ",
    "Error: overloaded []",
    '{"detail": []}',
]
NOTHING = [None, None, None, None, "", False]
ODD = [*NOTHING, 0, 1, True, "x", "overloaded", [], {}, [1], {"message": "overloaded", "code": 502}, 1e400]
ENDS = [
    *["stop"] * 12,
    "stop",
    "stop",
    "stop",
    None,
    "length",
    "content_filter",
    "tool_calls",
    "error",
    "abort",
    "STOP",
    "eos",
    *ODD,
]
PARTS = [[{"type": "text", "text": CLEAN}], [{"type": "refusal", "refusal": "no"}], [CLEAN]]
PIECES = [
    '"error": {}, ',
    '"refusal": "no", ',
    "null",
    "[]",
    "{",
    "}",
    '"',
    "\\",
    "\x00",
    "data: ",
    "\n",
    "1e999",
    "9" * 30,
]


def some(rng: random.Random, usual: object, odd: list, share: float = 0.2) -> object:
    return rng.choice(odd) if rng.random() < share else usual


def completion(rng: random.Random) -> object:
    """A chat completion with any of its parts odd or missing, or more of them than there should be."""
    message = {
        "role": some(rng, "assistant", [*ODD, "system", "tool", "user"], 0.1),
        "content": some(rng, rng.choice(TEXTS), [*PARTS, *ODD], 0.1),
    }
    for key in ("reasoning", "reasoning_content", "refusal", "tool_calls", "function_call", "error", "audio"):
        if rng.random() < 0.2:
            message[key] = some(rng, rng.choice(TEXTS) if "reasoning" in key else None, ODD, 0.4)
    choice = {"index": 0, "message": some(rng, message, ODD, 0.05), "finish_reason": rng.choice(ENDS)}
    if rng.random() < 0.1:
        choice["error"] = rng.choice(ODD)
    if rng.random() < 0.1:
        del choice[rng.choice(sorted(choice))]
    choices = rng.choice([[], {}, {"0": choice}, [choice, choice], None]) if rng.random() < 0.1 else [choice]
    body = {"object": some(rng, "chat.completion", ["error", *ODD], 0.1), "choices": choices}
    if rng.random() < 0.2:
        body["error"] = rng.choice(ODD)
    return some(rng, body, [[body], *ODD], 0.02)


def said(value: object) -> bool:
    """Whether a key that is for trouble says that there is some."""
    return value not in (None, False, "")


def may_be_clean(content: bytes) -> bool:
    """What has to hold of a body that reads as clean, looked up in it afresh."""
    body = json.loads(content)
    (choice,) = body["choices"]
    message = choice["message"]
    trouble = [part.get("error") for part in (body, choice, message)]
    trouble += [message.get(key) or None for key in ("refusal", "tool_calls", "function_call")]
    return (
        not any(map(said, trouble))
        and choice.get("finish_reason") in ("stop", None)
        and message.get("role") in ("assistant", None)
        and body.get("object") != "error"
        and "[]" in "".join(message["content"].split())
        and not any(word in message["content"] for word in ("overloaded", "detail"))
    )


def check(content: bytes) -> str:
    try:
        answer = read_answer(content)
    except (TryAgain, Refused) as error:
        return type(error).__name__
    found = parse_response(answer.text)
    found = cut_off(found) if answer.cut_off else found
    if found.is_clean:
        assert may_be_clean(content), content
        return "clean"
    if read_scores(answer.text) is not None:
        lines = json.loads(content)["choices"][0]["message"]["content"].splitlines()
        assert all(any(line.startswith(f"{name} Score") for line in lines) for name in WEIGHTS), content
        return "scores"
    return found.status.value


def test_chat_completions_of_any_shape() -> None:
    rng = random.Random(20261128)
    seen: Counter[str] = Counter()
    for number in range(budget(2_000)):
        text = json.dumps(completion(rng))
        if number % 2:
            text = mutate(text, rng, PIECES)
        content = text.encode("utf-8", "surrogatepass")
        if number % 20 == 19:
            at = rng.randrange(len(content) + 1)
            content = content[:at] + rng.randbytes(rng.randrange(4)) + content[at:]
        seen[check(content)] += 1
    report("chat completions", seen)
    assert min(seen[kind] for kind in ("clean", "scores", "ok", "unparseable", "TryAgain", "Refused")) > 10


def test_edited_pictures_of_any_shape() -> None:
    rng = random.Random(20261129)
    for number in range(budget(500)):
        part = {"b64_json": some(rng, "iVBORw0KGgo=", [*ODD, "!", "é", "====", "QQ"], 0.5)}
        data = rng.choice([[part], [part], part, [part, part], [], *ODD])
        text = json.dumps(rng.choice([{"data": data}, {"data": data, "error": rng.choice(ODD)}, data]))
        content = (mutate(text, rng, PIECES) if number % 2 else text).encode("utf-8", "surrogatepass")
        try:
            read_picture(content)
        except (TryAgain, Refused):
            continue
        raise AssertionError(content)
