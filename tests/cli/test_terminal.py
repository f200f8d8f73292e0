"""What commands say and how they end: stdout full or closed, in any locale, whatever texts hold."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdg.errors import SdgError, printable
from sdg.images import load_image, save_image

EVIL = "a\x1b]0;owned\x07\x9b31m\u202eb\u2066c\u2028d\x7fe\rf\U000e0041\ud800g\x00"


def sdg(
    *arguments: Any, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "sdg", *map(str, arguments)],
        env=os.environ | {"COLUMNS": "200"} | (env or {}),
        stderr=subprocess.PIPE,
        timeout=60,
        **options,
    )


def annotations(folder: Path, *names: str) -> Path:
    lines = [
        {"filepath": name, "prompt": "a cup", "annotator": name, "diagnosis": {"defects": []}}
        for name in names or ("a.png",)
    ]
    path = folder / "annotations.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return save_image(Image.new("RGB", (8, 8)), tmp_path / "a.png")


@given(st.text())
def test_what_is_printable_steers_nothing_and_stays_the_same_json(text: str) -> None:
    shown = printable(text)
    assert not any(
        (c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in shown
    )
    assert printable(shown) == shown
    plain = json.dumps(text, ensure_ascii=False)
    assert json.loads(printable(plain)) == json.loads(json.dumps(text))


def test_words_of_any_language_are_printable() -> None:
    text = "Ärger 缺陷 عيب می‌خواهم 👩‍🎨 e\u0301\n\tא"
    assert printable(text) == text
    assert printable(EVIL).isprintable()


@pytest.mark.parametrize("command", ["stats", "help", "version"])
def test_a_full_stdout_is_one_sentence(tmp_path: Path, command: str) -> None:
    arguments = {
        "stats": ("data", "stats", annotations(tmp_path)),
        "help": ("--help",),
        "version": ("--version",),
    }
    with Path("/dev/full").open("wb") as full:
        ended = sdg(*arguments[command], stdout=full)
    assert ended.returncode == 1
    assert ended.stderr.count(b"\n") == 1
    assert ended.stderr.startswith(b"sdg: ")
    assert b"No space left on device." in ended.stderr


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    path = annotations(tmp_path)
    for arguments in (("data", "stats", path), ("--help",), ("data", "stats", path, "--json", "-")):
        reading, writing = os.pipe()
        os.close(reading)
        ended = sdg(*arguments, stdout=writing)
        os.close(writing)
        assert (ended.returncode, ended.stderr) == (1, b""), arguments


def test_a_closed_stdout_is_one_sentence_and_gets_into_no_file(tmp_path: Path, picture: Path) -> None:
    path, out = annotations(tmp_path), tmp_path / "numbers.json"
    words = f"exec {sys.executable} -m sdg data stats {path}"
    ended = subprocess.run(["sh", "-c", f"{words} >&-"], stderr=subprocess.PIPE, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"sdg: ")
    assert ended.stderr.count(b"\n") == 1
    ended = subprocess.run(["sh", "-c", f"{words} --json {out} >&- <&- 2>&-"], timeout=60)
    json.loads(out.read_bytes())


def test_nobody_who_hears_does_not_end_the_work(tmp_path: Path) -> None:
    out = tmp_path / "numbers.json"
    with Path("/dev/full").open("wb") as full:
        arguments = ("data", "stats", annotations(tmp_path), "--json", out)
        process = subprocess.run(
            [sys.executable, "-m", "sdg", *arguments], stdout=subprocess.DEVNULL, stderr=full, timeout=60
        )
        failed = subprocess.run(
            [sys.executable, "-m", "sdg", "data", "stats", "no.jsonl"], stderr=full, timeout=60
        )
    assert process.returncode == 0
    json.loads(out.read_bytes())
    assert failed.returncode == 1


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}


def test_an_ascii_locale_shows_every_text(tmp_path: Path) -> None:
    path = annotations(tmp_path, "café.png", "缺陷.png", EVIL + ".png")
    for arguments in (
        ("data", "stats", path),
        ("data", "validate", path, "--images", tmp_path),
        ("data", "stats", path, "--json", "-"),
        ("data", "stats", "nö.jsonl"),
        ("--help",),
    ):
        ended = sdg(*arguments, env=ASCII, stdout=subprocess.PIPE)
        assert ended.returncode in (0, 1), ended.stderr
        assert b"Traceback" not in ended.stderr
        assert all(32 <= byte < 127 or byte in b"\n\t" for byte in ended.stdout + ended.stderr)
        if "--json" in arguments:
            json.loads(ended.stdout)


def test_texts_of_files_steer_no_terminal(tmp_path: Path) -> None:
    path = annotations(tmp_path, EVIL + ".png", EVIL + ".png")
    for arguments in (
        ("data", "validate", path, "--images", tmp_path),
        ("data", "stats", path),
        ("diagnose", path, "--detector", f"replay:{path}", "--out", tmp_path / "out.jsonl"),
        ("data", "stats", f"{EVIL[:-1].replace(chr(0xD800), '')}.jsonl"),
    ):
        ended = sdg(*arguments, stdout=subprocess.PIPE)
        assert b"Traceback" not in ended.stderr
        said = (ended.stdout + ended.stderr).decode()
        assert all(c.isprintable() or c in "\n\t" for c in said), said


def test_what_is_logged_steers_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    from sdg.cli import terminal

    terminal.prepare()
    assert logging.lastResort is not None
    record = logging.LogRecord("sdg", logging.WARNING, "", 1, "%s", (EVIL,), None)
    assert logging.lastResort.format(record) == printable(EVIL)


def test_pictures_that_fail_to_be_read_cost_only_themselves(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "memory.png").symlink_to("/proc/self/mem")
    os.mkfifo(tmp_path / "pipe.png")
    asked = tmp_path / "asked.jsonl"
    odd = [
        "a\0b.png",
        "\ud800.png",
        "x" * 300 + ".png",
        "é" * 200,
        "a.png/b.png",
        "loop.png/b.png",
        ".",
        "y/" * 3000,
    ]
    names = ["loop.png", "gone.png", "memory.png", "pipe.png", *odd]
    asked.write_text(
        "".join(json.dumps({"filepath": n, "caption": "a"}) + "\n" for n in names), encoding="utf-8"
    )
    for name in names:
        with pytest.raises(SdgError) as caught:
            load_image(str(tmp_path / name))
        assert len(str(caught.value)) < 400
        assert str(caught.value).isprintable()
    for env in ({}, ASCII):
        out = tmp_path / f"out{len(env)}.jsonl"
        ended = sdg(
            *("diagnose", asked, "--allow-outside", "--detector", "openai:http://127.0.0.1:9/v1#toy"),
            *("--out", out),
            env=env,
            stdout=subprocess.PIPE,
        )
        assert ended.returncode == 1
        assert b"Traceback" not in ended.stderr
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert len(rows) == len(names)
        assert {row["status"] for row in rows} == {"failed"}
