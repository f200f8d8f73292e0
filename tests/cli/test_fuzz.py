"""Every command with options, files and recipes of any kind: it works, or one sentence says why it does not.

Models, training and servers are left out: what would begin one of them stops there.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import shutil
import sys
import traceback
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from fuzz import budget, mutate, report
from PIL import Image

from sdg.cli import COMMANDS, cli, main
from sdg.errors import SdgError
from sdg.io.http import HttpClient, Unanswered
from sdg.recipes import _read

RECIPES = Path(__file__).parents[2] / "recipes"
BEYOND = (
    *("sdg.alignment.trainer", "sdg.alignment.compare", "sdg.training.sft", "sdg.training.grpo", "sdg.demo"),
    *("sdg.detectors.hf", "sdg.testbed.models.detector.embedded", "sdg.testbed.models.detector.speak"),
    *("sdg.testbed.datasets.injected", "sdg.testbed.datasets.samples", "sdg.testbed.datasets.corpus"),
    *("sdg.testbed.models.generator.vae", "sdg.testbed.models.generator.flow", "sdg.testbed.models.measure"),
    *("sdg.testbed.models.generator.sampling", "sdg.testbed.models.packaged", "sdg.testbed.models.scorer"),
    *("diffusers", "transformers", "sdg.serve.server", "sdg.serve.scorer", "sdg.app.page", "sdg.app.space"),
)
STOP = "This is where the work would begin."

BOX = {"box_2d": [10, 20, 300, 400], "label": "artifact", "description": "A fused hand.", "importance": 40}
RAW = f"<think>\nHm.\n</think>\n<answer>\n{json.dumps([BOX])}\n</answer>"


def split(text: str, *more: str) -> list[str]:
    """The words of a text, and more that a text of words cannot hold."""
    return [*text.split(), *more]


LONG = "y" * 300
TEXTS = split(
    """
a - -- 0 1 -1 ² ٣ 1e999 nan inf 0x10 true null a,b a=b = %s {} [] naïve😀 ../.. ~
""",
    "",
    " ",
    "9" * 30,
    "9" * 5000,
    LONG,
    "\x1b[31m",
    "\udcff",
)
NUMBERS = split("0 1 2 3 7 1 2 -1 1.5 101 nan inf 1e400 x ²", "", "9" * 30)
URIS = split(
    """
testbed testbed?looks=0 testbed?looks=3&agree=2 testbed?x=1 testbed?lora=nowhere diffusers:.
hf:a/b hf: hf:/nowhere hf:folder folder diffusers:folder?sampling=odd
replay:found.jsonl replay:broken.jsonl replay: replay:found.jsonl?profile=broken.toml
heatmap:. heatmap:.?threshold=x
openai:http://127.0.0.1:9/v1#m openai:http://[::1#m openai:http://a:99999/v1#m openai:x openai:#
openai:http://127.0.0.1:9/v1?attempts=²#m openai:http://a/v1?key=\udcff#m openai:http://a/v1?timeout=nan#m
openai:http://a/v1?profile=broken.jsonl#m openai:http://a/v1#m?quality=odd
python:os.getpid python:.x.y
""",
    "openai:http://a b/v1#m",
    "heatmap:" + LONG,
    "testbed?looks=" + "9" * 5000,
    "x" * 5000,
)
READ = split(
    """
truth.jsonl truth.jsonl found.jsonl found.jsonl native.jsonl broken.jsonl empty.jsonl deep.jsonl binary.bin
folder images images images/a.png images/b.png broken.png nowhere.jsonl nowhere/x.jsonl truth.jsonl/x . loop
/dev/null \udcff profile.toml broken.toml tasks.json coco.json scores.json prompts.txt
""",
    "",
    LONG,
    "x/" * 2000,
)
GOOD_OUT = split("out/{n} out/{n}.json out/{n}/a/b.html out/{n}.png")
WRITE = [*GOOD_OUT * 4, *split("truth.jsonl/x folder loop/x -", LONG, "")]
KEYS = split(
    """
seed seed.x method reward.scorers.0.uri reward.scorers.² reward.scorers.x reward.scorers.0.weight
prompts.train policy.model policy.lora.r model.checkpoint data.train data.jitter profile groups.size
profile.answer.steps
profile.image.min_pixels run.trackers evaluation.best monitor.best optimizer.betas optimizer.learning_rate
sampling.sde_steps a.b.c .
""",
    "",
    LONG,
)
YAMLS = [
    *split("[] {} &a *a ~ % 1:2:3 2020-01-01 1_000 0b1 0o17 017 .5e3 .nan -.inf"),
    *("!!bool maybe", "!!timestamp x", '!!int ""', '!!float ""', "!!python/name:os.system x", "!x y"),
    *('"\\0"', '"\\ud800"', "[1, 2]", "{a: 1}", "[{name: a, uri: x}]", "{scorers: []}", "&a [*a]"),
    *("- a", "? a\n: b", "|\n  a", "a: b: c", "0x" + "f" * 5000),
]
PIECES = [
    *"[]{}:,-?!&*|>%@`#'\"\\~ \n\t",
    *("!!int ", "&a ", "*a", "<<: ", "\udcff", "\x1b", "é", "9" * 30, "- ", ": "),
]


OUTPUTS = split("out target json_path html_path plot_path per_image overlays html")
ALIGN = split("boxflow-testbed.yaml boxflow-flux1-dev.yaml")
USUAL_RECIPES = {"sft": ["sft-testbed.yaml"], "grpo": ["grpo-testbed.yaml"]}
USUAL = {
    "sources": split("images images/a.png truth.jsonl found.jsonl"),
    "overrides": split("seed=3 optimizer.learning_rate=1e-4 seed=0"),
    "profile": split("default profile.toml"),
    "editor": split("testbed openai:http://127.0.0.1:9/v1#m diffusers:folder"),
    "embedder": split("token-f1"),
    "device": split("cpu auto"),
    "dtype": split("auto float32"),
    "prompt": ["a cup"],
    "prompts": split("truth.jsonl found.jsonl a_cup 3"),
    "images": split("images ."),
    "parts": split("train=90 test=10 a=1"),
    "a": split("one=found.jsonl one=images"),
    "b": split("two=found.jsonl two=images"),
    "adapters": split("one=folder two=nowhere"),
    "title": ["A title"],
    "size": split("512x512 32x24"),
    "scores": ["scores.json"],
    "diagnoses": ["found.jsonl"],
    "teacher": ["openai:http://127.0.0.1:9/v1?profile=default#m"],
    "voters": ["openai:http://127.0.0.1:9/v1?profile=default#n"],
    "words": split("18-45 1-9"),
    "price": ["1/2"],
    "token_env": ["HOME"],
    "annotators": split("2 a@b.c,d@e.f"),
    "proposals": ["replay:found.jsonl"],
    "entered": ["tasks.json"],
    "project": split("out/project folder"),
    "studies": split("one=scores.json two=counts.json"),
    "bases": split("sft=scores.json grpo=scores.json"),
    "ablations": ["one=scores.json"],
    "seeds": ["one=3"],
    "heat": ["one=folder"],
    "detectors": ["one=replay:found.jsonl"],
    "enrich jobs": split("reasons reasons,think importance"),
    "merge parts": split("found.jsonl again.jsonl"),
    "merge inputs": ["truth.jsonl"],
    "prompts name": split("drawbench parti geneval"),
    "prompts path": ["prompts.txt"],
    "table2 predictions": ["one=found.jsonl"],
    "table2 scores": ["one=scores.json"],
    "table3 predictions": ["one=found.jsonl"],
    "table5 prompts": ["bench:pick-a-pic?path=prompts.txt"],
    "detector uri": split("testbed replay:found.jsonl"),
    "scorer uri": split("python:os.getpid python:math.hypot"),
}
"""What options are meant for, by their name, or by the command's last word and their name."""


class Beyond(types.ModuleType):
    """Stands for a module that does the work: everything in it is a function that stops."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def stop(*args: object, **options: object) -> None:
            raise SdgError(STOP)

        return stop


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of every kind, in which commands run; no model, training or server is reached."""
    for name in BEYOND:
        monkeypatch.setitem(sys.modules, name, Beyond(name))

    async def unanswered(*args: object, **options: object) -> None:
        raise Unanswered(STOP)

    def stop(*args: object, **options: object) -> None:
        raise SdgError(STOP)

    monkeypatch.setattr(HttpClient, "request", unanswered)
    monkeypatch.setattr("sdg.embeddings._load_transformer", stop)
    monkeypatch.setattr("sdg.alignment.policies.real_size._built", stop)  # a dry run's, which takes seconds
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(logging.getLogger("sdg"), "propagate", False)
    monkeypatch.chdir(tmp_path)
    fill(tmp_path)
    return tmp_path


def fill(place: Path) -> None:
    (place / "images").mkdir()
    (place / "folder").mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (32, 24), "white").save(place / "images" / f"{name}.png")
    rows = [{"filepath": f"images/{name}.png", "caption": f"a {name}"} for name in "abc"]
    lines = {
        "truth": [row | {"ann_translated_bboxes": [BOX]} for row in rows],
        "found": [row | {"response": RAW} for row in rows],
        "native": [{"filepath": row["filepath"], "prompt": row["caption"], "defects": []} for row in rows],
        "deep": ["[" * 100_000],
        "broken": ['{"filepath": "a.png"', "[]", "\\", '{"filepath": 3}'],
        "empty": [],
    }
    for name, values in lines.items():
        said = "\n".join(value if isinstance(value, str) else json.dumps(value) for value in values)
        (place / f"{name}.jsonl").write_text(said)
    task = {"data": {"image": "images/a.png"}, "annotations": [{"result": []}]}
    (place / "tasks.json").write_text(json.dumps([task]))
    (place / "coco.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    (place / "scores.json").write_text('{"metrics": {}}')
    (place / "counts.json").write_text('{"pairs": 3, "counts": {"good": 1, "same": 1, "bad": 1}}')
    (place / "again.jsonl").write_text(json.dumps(rows[0] | {"response": RAW}))
    (place / "prompts.txt").write_text("a cup\n")
    (place / "profile.toml").write_text('template = "Look: {caption}"')
    (place / "broken.toml").write_text("template = ")
    (place / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    (place / "binary.bin").write_bytes(bytes(range(256)) * 4)
    (place / "loop").symlink_to("loop")
    for recipe in RECIPES.glob("*/*.yaml"):
        shutil.copy(recipe, place / recipe.name)


Words = tuple[str, ...]


def commands(group: click.Group, path: Words = ()) -> Iterator[tuple[Words, click.Command]]:
    """Every command that does something, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        elif command is not None:
            yield (*path, name), command


def usual(parameter: click.Parameter, path: Words, rng: random.Random, number: int) -> str:
    """Something that an option of a command is meant for."""
    kind, name = parameter.type, parameter.name or ""
    if isinstance(kind, click.Choice):
        return str(rng.choice(list(kind.choices)))
    if "recipe" in name:
        return rng.choice(USUAL_RECIPES.get(path[-1], ALIGN))
    if name in OUTPUTS:
        return rng.choice(GOOD_OUT).format(n=number)
    if name == "detector":
        return rng.choice(["replay:found.jsonl", "testbed", "openai:http://127.0.0.1:9/v1?profile=default#m"])
    if known := USUAL.get(f"{path[-1]} {name}", USUAL.get(name)):
        return rng.choice(known)
    if isinstance(kind, click.Path):
        return rng.choice(["truth.jsonl", "found.jsonl", "native.jsonl", "folder"])
    chosen = rng.choice(["1", "2", "3", "100"])
    return "2" if name == "jobs" else chosen  # a hundred processes take minutes to start


def unusual(parameter: click.Parameter, rng: random.Random, number: int) -> str:
    """Something of any kind, often of the right one."""
    kind, name = parameter.type, parameter.name or ""
    if rng.random() < 0.2:
        return rng.choice(TEXTS)
    if name in OUTPUTS:
        return rng.choice(WRITE).format(n=number)
    if isinstance(kind, click.Path):
        return rng.choice(READ)
    if name == "overrides":
        return override(rng)
    if isinstance(kind, click.types.StringParamType):
        return rng.choice([*URIS, *TEXTS, *READ])
    return rng.choice(NUMBERS)


def override(rng: random.Random) -> str:
    key = rng.choice(KEYS)
    said = rng.choice([*TEXTS, *URIS, *YAMLS])
    if rng.random() < 0.3:
        said = mutate(said, rng, PIECES)
    return f"{key}={said}".replace("\0", "")


def line(path: Words, command: click.Command, rng: random.Random, number: int) -> list[str]:
    """A command line: what is required, mostly, and some of the rest."""
    words, odd = list(path), rng.choice((0.0, 0.1, 0.5))
    for parameter in command.params:
        if rng.random() > (1 - odd / 5 if parameter.required else 0.25):
            continue
        times = rng.choice([1, 1, 2, 3]) if parameter.multiple or parameter.nargs == -1 else 1
        for _ in range(times):
            values = [
                unusual(parameter, rng, number) if rng.random() < odd else usual(parameter, path, rng, number)
                for _ in range(max(parameter.nargs, 1))
            ]
            if isinstance(parameter, click.Option):
                words.append(rng.choice(parameter.opts))
                if parameter.is_flag:
                    continue
            words += values
    if rng.random() < 0.03:
        words.insert(rng.randrange(len(words) + 1), rng.choice(["--odd", "-x", "--help", "--", LONG]))
    return words


def run(words: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a command line; whatever it raises but its exit is a failure."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        try:
            main(words)
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            raise AssertionError(f"{words!r}\n{traceback.format_exc()}") from None
    return code, said.buffer.getvalue().decode()


def test_command_lines_of_any_kind(place: Path) -> None:
    rng = random.Random(20261130)
    seen: Counter[str] = Counter()
    known = list(commands(cli))
    assert {path[0] for path, _ in known} == set(COMMANDS)
    for number in range(budget(500)):
        words = line(*known[number % len(known)], rng, number)
        code, said = run(words)
        assert code in (0, 1, 2), words
        assert "Traceback" not in said, words
        if code == 1:
            assert said.strip(), words
        seen["stopped at the work" if STOP in said else f"exit {code}"] += 1
        if number % 50 == 49:  # what was written does not pile up
            shutil.rmtree(place / "out", ignore_errors=True)
    report("command lines", seen)
    assert min(seen.values()) > budget(500) / 50


@pytest.mark.parametrize("recipe", ["boxflow-testbed.yaml", "sft-testbed.yaml", "grpo-testbed.yaml"])
def test_recipes_spoiled_in_any_way(place: Path, recipe: str) -> None:
    rng = random.Random(recipe)
    text = (place / recipe).read_text()
    seen: Counter[str] = Counter()
    command = ["align", "run"] if "boxflow" in recipe else ["train", recipe.partition("-")[0]]
    for number in range(budget(200)):
        spoiled = mutate(text, rng, [*PIECES, *YAMLS], most=5000)
        Path("spoiled.yaml").write_bytes(spoiled.encode("utf-8", "surrogateescape"))
        code, said = run([*command, "spoiled.yaml", "--out", f"out/{number}"])
        assert code == 1
        assert said.startswith("sdg: "), said
        assert "\n" not in said.rstrip("\n"), said
        assert said.rstrip("\n").isprintable(), said
        seen["read" if STOP in said else "refused"] += 1
    report(f"spoiled copies of {recipe}", seen)
    assert seen["refused"] > budget(200) / 10


def test_overrides_of_any_kind(place: Path) -> None:
    rng = random.Random(20261201)
    seen: Counter[str] = Counter()
    for _ in range(budget(500)):
        recipe = rng.choice([["align", "run", "boxflow-testbed.yaml"], ["train", "sft", "sft-testbed.yaml"]])
        said = run([*recipe, "--out", "out/x", "--set", override(rng)])[1]
        assert said.startswith("sdg: "), said
        assert STOP in said or len(said) <= 300 + len("sdg: \n"), said
        assert said.rstrip("\n").isprintable(), said
        seen["read" if STOP in said else "refused"] += 1
    report("overrides", seen)
    assert min(seen.values()) > budget(500) / 50


def test_the_same_yaml_as_its_own_reader_reads(place: Path) -> None:
    for recipe in RECIPES.glob("*/*.yaml"):
        assert _read(str(recipe)) == yaml.safe_load(recipe.read_text())
