"""Data files of any kind, and names in them: read, or refused in one line; nothing outside is read."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz import budget, mutate, report
from PIL import Image

from sdg.data.formats import Format, read_parts, read_records
from sdg.errors import SdgError
from sdg.images import load_image
from sdg.records import Fault
from sdg.runs.inputs import Item, gather

BOX = {"box_2d": [10, 20, 300, 400], "label": "artifact", "description": "A hand.", "importance": 40}
DEFECT = {"box": [10, 20, 300, 400], "type": "artifact", "reason": "A hand.", "importance": 40}
RAW = f"<think>\nHm.\n</think>\n<answer>\n{json.dumps([BOX])}\n</answer>"
RESULT = {
    "id": "a",
    "from_name": "label",
    "type": "rectanglelabels",
    "value": {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 0, "rectanglelabels": ["artifact"]},
    "original_width": 32,
    "original_height": 24,
}
FILES: dict[Format, Any] = {
    "sdg": {"filepath": "a.png", "prompt": "a cup", "diagnosis": {"defects": [DEFECT]}, "metadata": {"x": 1}},
    "sdg30k": {"filepath": "a.png", "caption": "a cup", "ann_translated_bboxes": [BOX], "ann_response": ""},
    "predictions": {"filepath": "a.png", "caption": "a cup", "response": RAW, "status": "ok"},
    "label-studio": [{"data": {"image": "a.png", "prompt": "x"}, "annotations": [{"result": [RESULT]}]}],
    "coco": {
        "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 24}],
        "categories": [{"id": 1, "name": "artifact"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
    },
}
PIECES = [
    *'[]{}",:\\\n',
    *("null", "true", "-1", "1e999", "NaN", "9" * 30, '"\\ud800"', "\ufeff", "\r", "[" * 200, '{"a":' * 200),
    *('"box"', '"box_2d": []', '"importance": 0', '"filepath": 3,', '"defects": null', "<answer>", "\\u0000"),
]


ODD = [
    None,
    True,
    0,
    -1,
    1.5,
    1e400,
    "",
    "x",
    "\ud800",
    "\0",
    "9" * 5000,
    [],
    {},
    [1, 2, 3, 4],
    [[]],
    {"a": []},
]


def changed(value: Any, rng: random.Random) -> Any:
    """The value with something in it another value, or gone, or there twice."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(ODD)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        return [*value[:at], changed(value[at], rng), *value[at + rng.randrange(2) :]]
    key = rng.choice(list(value))
    rest = {name: one for name, one in value.items() if name != key}
    if rng.random() < 0.1:
        return rest
    return {**rest, (f"{key}x" if rng.random() < 0.1 else key): changed(value[key], rng)}


def refused(read: Callable[[], object]) -> bool:
    """Whether it is refused, in one line that is not long and steers no terminal."""
    try:
        read()
    except SdgError as error:
        said = str(error)
        assert said.isprintable(), said
        assert len(said) < 2000, said
        return True
    return False


@pytest.mark.parametrize("kind", FILES)
def test_data_files_spoiled_in_any_way(tmp_path: Path, kind: Format) -> None:
    rng = random.Random(f"20261203 {kind}")
    path = tmp_path / ("data.json" if kind in ("coco", "label-studio") else "data.jsonl")
    whole = json.dumps(FILES[kind])
    seen: Counter[str] = Counter()
    for number in range(budget(200)):
        text = json.dumps(changed(FILES[kind], rng)) if number % 2 else mutate(whole, rng, PIECES, most=5000)
        content = text.encode("utf-8", "surrogatepass")
        if number % 10 == 9:
            at = rng.randrange(len(content) + 1)
            content = content[:at] + rng.randbytes(rng.randrange(1, 4)) + content[at:]
        path.write_bytes(content if path.suffix == ".json" else b"\n".join([whole.encode(), content]))
        faults: list[Fault] = []
        one = refused(lambda faults=faults: list(read_records(path, kind, on_fault=faults.append)))
        refused(lambda: list(read_parts(path, kind)))  # what concerns a part is told of the part
        if path.suffix == ".jsonl":
            refused(lambda: gather([path]))
        assert all("\n" not in str(fault) for fault in faults)
        seen["refused" if one else "read"] += 1
    report(f"spoiled files of {kind}", seen)
    assert min(seen["read"], seen["refused"]) > budget(200) / 50


NAMES = [
    *("in.png", "in.png", "in.png", "sub"),
    *(
        "..",
        ".",
        "",
        "images",
        "Images",
        "in.png",
        "out.png",
        "link",
        "loop",
        "sub",
        "~",
        "con",
        "in.png/",
        " ",
    ),
    *(
        "\0",
        "\udcff",
        "\ud800",
        "é",
        "😀",
        "\n",
        "\x1b[2J",
        "x" * 256,
        "x" * 5000,
        "%2e%2e",
        "\\",
        "file:",
        "C:",
    ),
]


def test_names_of_any_kind_in_data_files(tmp_path: Path) -> None:
    rng = random.Random(20261204)
    images, secret = tmp_path / "images", tmp_path / "secret"
    (images / "sub").mkdir(parents=True)
    secret.mkdir()
    for file in (images / "in.png", images / "sub" / "in.png", secret / "out.png", tmp_path / "out.png"):
        Image.new("RGB", (4, 4)).save(file)
    (images / "link").symlink_to(secret)
    (images / "loop").symlink_to("loop")
    (images / "sub" / "out.png").symlink_to(secret / "out.png")
    inside = [os.lstat(one) for one in (images / "in.png", images / "sub" / "in.png")]
    lines, seen = tmp_path / "lines.jsonl", Counter[str]()
    for _ in range(budget(500)):
        name = "/".join(rng.choice(NAMES) for _ in range(rng.choice((1, 1, 2, 3, 5))))
        name = rng.choice([name, name, name, f"{tmp_path}/{name}", f"sub/{name}", f"sub/../{name}"])
        lines.write_text(json.dumps({"filepath": name, "caption": "a"}))
        items: list[Item] = []

        def read(items: list[Item] = items) -> None:
            items += gather([lines], images=images)
            load_image(items[0].file)  # type: ignore[arg-type]

        if refused(read):
            seen["refused"] += 1
            continue
        assert any(os.path.samestat(Path(str(items[0].file)).stat(), one) for one in inside), name
        seen["read"] += 1
    report("names of files", seen)
    assert min(seen.values()) > budget(500) / 50
