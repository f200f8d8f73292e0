"""Published prompt sets in their own layouts: from a path, fetched and pinned, and in a recipe's place."""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sdg.bench import prompts as sets
from sdg.bench.prompts import Prompt, read_prompt_set
from sdg.cli import cli
from sdg.errors import SdgError
from sdg.io.uri import read_prompts


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_drawbench_as_its_sheet_is_saved(tmp_path: Path) -> None:
    file = write(
        tmp_path / "drawbench.csv",
        'Prompts,Category\nA red car.,Colors \n"Two cats, and ""a dog"".",Counting\n',
    )
    assert read_prompt_set("drawbench", file) == [
        Prompt("A red car.", "Colors"),
        Prompt('Two cats, and "a dog".', "Counting"),
    ]


def test_partiprompts_keep_their_own_quotation_marks(tmp_path: Path) -> None:
    text = 'Prompt\tCategory\tChallenge\tNote\nthe word "PEACE"\tAnimals\tComplex\t\n"\tWorld\tBasic\tx\n'
    found = read_prompt_set("partiprompts", write(tmp_path / "PartiPrompts.tsv", text))
    assert found == [Prompt('the word "PEACE"', "Animals"), Prompt('"', "World")]


def test_geneval_takes_its_tag_for_the_category(tmp_path: Path) -> None:
    line = '{"tag": "counting", "include": [{"class": "cup", "count": 2}], "prompt": "a photo of two cups"}'
    file = write(tmp_path / "evaluation_metadata.jsonl", line + "\n")
    assert read_prompt_set("geneval", file) == [Prompt("a photo of two cups", "counting")]


def test_t2i_compbench_is_a_folder_of_categories(tmp_path: Path) -> None:
    write(tmp_path / "color_val.txt", "a green bench and a blue bowl\na red cup\n")
    write(tmp_path / "3d_spatial_val.txt", "a dog in front of a desk")
    found = read_prompt_set("t2i-compbench", tmp_path)
    assert [prompt.category for prompt in found] == ["3d_spatial", "color", "color"]
    assert read_prompt_set("t2i-compbench", tmp_path / "color_val.txt", limit=1)[0].category == "color"
    with pytest.raises(SdgError, match="no category 'shape', but 3d_spatial, color"):
        read_prompt_set("t2i-compbench", tmp_path, category="shape")


def test_dpg_bench_is_one_prompt_a_file_or_a_row_a_proposition(tmp_path: Path) -> None:
    for number in (10, 9, 100):
        write(tmp_path / f"dpg/{number}.txt", f"prompt {number}\n")
    found = read_prompt_set("dpg-bench", tmp_path / "dpg")
    assert [prompt.text for prompt in found] == ["prompt 9", "prompt 10", "prompt 100"]
    rows = "item_id,text,category_broad\n0,a long prompt,entity\n0,a long prompt,attribute\n1,other,global\n"
    assert len(read_prompt_set("dpg-bench", write(tmp_path / "dpg_bench.csv", rows))) == 2


def test_pick_a_pic_without_the_prompts_a_detector_was_trained_on(tmp_path: Path) -> None:
    file = write(tmp_path / "test.txt", "a cat\na dog\n\na cat\na hat\n")
    seen = write(
        tmp_path / "seen.jsonl", '{"filepath": "a.png", "caption": "a dog", "ann_translated_bboxes": []}\n'
    )
    assert [p.text for p in read_prompt_set("pick-a-pic", file, without=[seen])] == ["a cat", "a hat"]
    spelled = write(tmp_path / "spelled.jsonl", '{"filepath": "a.png", "prompt": " A  hat "}\n')
    assert [p.text for p in read_prompt_set("pick-a-pic", file, without=[spelled])] == ["a dog", "a cat"]
    assert read_prompts(f"bench:pick-a-pic?path={file}&without={seen}|{spelled}") == ["a cat"]
    left_out = [word for one in (seen, spelled) for word in ("--without", str(one))]
    result = CliRunner().invoke(cli, ["bench", "prompts", "pick-a-pic", "--path", str(file), *left_out])
    assert result.stdout == "a cat\n"


def test_of_a_folder_only_the_files_of_the_set_are_taken(tmp_path: Path) -> None:
    for name in ("t2i_compbench_color_val", "t2i_compbench_3d_spatial_val", "pickapic_test"):
        write(tmp_path / f"{name}.txt", f"{name} is\na prompt")
    found = read_prompt_set("t2i-compbench", tmp_path)
    assert [prompt.category for prompt in found] == ["3d_spatial"] * 2 + ["color"] * 2
    with pytest.raises(SdgError, match="is a folder without text files of GenEval"):
        read_prompt_set("geneval", tmp_path)


def test_a_file_of_dpg_bench_is_one_prompt(tmp_path: Path) -> None:
    file = write(tmp_path / "10.txt", "a cup,\nand a hat\n")
    assert read_prompt_set("dpg-bench", file) == [Prompt("a cup, and a hat")]


def test_another_number_than_was_published_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = "".join(f"prompt {number},Colors\n" for number in range(200))
    file = write(tmp_path / "d.csv", "Prompts,Category\n" + rows)
    assert len(read_prompt_set("drawbench", file, limit=3)) == 3
    assert not caplog.messages
    write(file, "Prompts,Category\na cup,Colors\n")
    read_prompt_set("drawbench", file)
    (said,) = caplog.messages
    assert said.startswith("DrawBench has 200 prompts, and ")
    assert said.endswith("d.csv has 1.")


@pytest.mark.parametrize(
    ("name", "file", "text", "said"),
    [
        ("drawbank", "a.csv", "x", "'drawbank' is no prompt set; there are drawbench"),
        ("drawbench", "a.csv", "Text,Kind\na,b\n", "has its prompts in 'Prompts', not 'Text', 'Kind'"),
        ("geneval", "a.jsonl", '{"caption": "x"}\n', "line 1: GenEval has its prompts in 'prompt'"),
        ("geneval", "a.json", "[]", "is no list of GenEval, which ends in .jsonl."),
        ("drawbench", "pickapic_test.txt", "a cup\n", "is no list of DrawBench, which ends in .csv."),
        ("drawbench", "PartiPrompts.tsv", "Prompt\tCategory\na\tb\n", "is no list of DrawBench"),
        ("partiprompts", "geneval.jsonl", '{"prompt": "x"}\n', "is no list of PartiPrompts"),
        ("t2i-compbench", "pickapic_test.txt", "a cup\n", "named as color_val.txt; its categories are"),
        ("drawbench", "a.csv", "Prompts,Category\n", "No prompts of DrawBench are left"),
        ("drawbench", "a.csv", "", "is empty"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, name: str, file: str, text: str, said: str) -> None:
    with pytest.raises(SdgError, match=said):
        read_prompt_set(name, write(tmp_path / file, text))


def test_a_set_stands_where_a_recipe_wants_prompts(tmp_path: Path) -> None:
    file = write(tmp_path / "a b.csv", "Prompts,Category\na cup,Colors\na hat,Text\na dog,Text\n")
    assert read_prompts(f"bench:drawbench?path={file}&category=Text") == ["a hat", "a dog"]
    assert read_prompts(f"bench:drawbench?path={file}&limit=1") == ["a cup"]
    with pytest.raises(SdgError, match=r"^bench:drawbench has no option 'paths'; did you mean 'path'\?$"):
        read_prompts(f"bench:drawbench?paths={file}")
    with pytest.raises(SdgError, match="has no option 'x'; it has path, split, category, limit, without"):
        read_prompts("bench:drawbench?x=1")


def test_the_command_prints_prompts_alone_on_stdout(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "Prompts,Category\na cup,Colors\na hat,Text\n")
    result = CliRunner().invoke(cli, ["bench", "prompts", "drawbench", "--path", str(file), "--limit", "1"])
    assert (result.exit_code, result.stdout) == (0, "a cup\n")
    result = CliRunner().invoke(cli, ["bench", "prompts", "drawbench", "--path", str(file), "--json"])
    assert result.stdout.splitlines()[1] == '{"caption": "a hat", "category": "Text"}'
    assert "2 prompts; Colors 1; Text 1" in result.stderr


def test_the_command_changes_no_prompt_but_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["a\u200b cup", "a so\u00adfa", "\u202ea \x1b[1mhat", "a\u2028mat"]
    file = write(tmp_path / "a.jsonl", "".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    arguments = ["bench", "prompts", "geneval", "--path", str(file)]
    cli.main(arguments, standalone_mode=False)
    assert capsys.readouterr().out == "a\u200b cup\na so\u00adfa\n\u202ea \x1b[1mhat\na mat\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    cli.main(arguments, standalone_mode=False)
    assert "\n\\u202ea \\u001b[1mhat\n" in capsys.readouterr().out


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served in place of GitHub's files, and an empty cache."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("HOST", "ARCHIVES"):
        monkeypatch.setattr(sets, name, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path
    server.shutdown()
    server.server_close()


def pinned(monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, str]) -> None:
    """The set as files of the server here; path -> SHA-256."""
    own = replace(sets.SETS[name], repository="org/repo", commit="c0ffee", splits={"all": files})
    monkeypatch.setitem(sets.SETS, name, own)


def test_a_pinned_set_is_fetched_once_checked_and_kept(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(host / "org/repo/c0ffee/list.jsonl", '{"prompt": "a cup"}\n')
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    pinned(monkeypatch, "geneval", {"list.jsonl": digest})
    assert read_prompts("bench:geneval") == ["a cup"]
    file.unlink()
    assert read_prompts("bench:geneval") == ["a cup"]  # from the cache

    (kept,) = (host / "cache").rglob("list.jsonl")
    kept.write_text("spoiled")
    write(file, '{"prompt": "another cup"}\n')
    with pytest.raises(SdgError, match="holds other bytes than were published"):
        read_prompts("bench:geneval")
    file.unlink()
    with pytest.raises(SdgError, match=r"cannot be fetched: .*404.*; name a copy"):
        read_prompts("bench:geneval")
    with pytest.raises(SdgError, match="has the splits all, not 'test'"):
        read_prompt_set("geneval", split="test")


def test_a_folder_is_fetched_as_an_archive_whose_texts_are_checked(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = host / "org/repo/tar.gz/c0ffee"
    archive.parent.mkdir(parents=True)

    def publish(text: str, mtime: int) -> None:
        with tarfile.open(archive, "w:gz") as out:
            for number in (10, 9):
                file = write(host / f"{number}.txt", f"{text}\n{number}\n")
                member = out.gettarinfo(file, f"repo-c0ffee/list/{number}.txt")
                member.mtime = mtime
                with file.open("rb") as content:
                    out.addfile(member, content)

    digest = hashlib.sha256(b'{"text": "cup 9"}\n{"text": "cup 10"}\n').hexdigest()
    pinned(monkeypatch, "dpg-bench", {"list/": digest})
    publish("bowl", 0)
    with pytest.raises(SdgError, match=r"tar.gz/c0ffee holds other bytes than were published; name a copy"):
        read_prompts("bench:dpg-bench")
    archive.write_bytes(b"<html>")
    with pytest.raises(SdgError, match="holds other bytes"):
        read_prompts("bench:dpg-bench")
    publish("cup", 7)  # packed at another time
    assert read_prompts("bench:dpg-bench") == ["cup 9", "cup 10"]
    archive.unlink()
    assert read_prompts("bench:dpg-bench") == ["cup 9", "cup 10"]  # from the cache
    (kept,) = (host / "cache").rglob("*.jsonl")
    assert kept.name == "list.jsonl"


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1)))
def test_prompts_come_back_from_lines_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    texts = [" ".join(text.split()) for text in ["first", *texts] if text.strip("\ufeff \u00a0").strip()]
    texts = list(dict.fromkeys(text for text in texts if text))
    file = write(tmp_path_factory.mktemp("lines") / "a.txt", "\n".join(texts))
    assert [prompt.text for prompt in read_prompt_set("pick-a-pic", file)] == texts


def test_a_prompt_in_a_csv_file_is_one_whatever_it_holds(tmp_path: Path) -> None:
    rows = 'Prompts,Category\r\nA cat on a\u2028red chair,X\r\n"A dog,\x0bon\n a mat",Y\nA cow\x85,Z\n'
    (tmp_path / "a.csv").write_bytes(rows.encode())
    found = [(prompt.text, prompt.category) for prompt in read_prompt_set("drawbench", tmp_path / "a.csv")]
    assert found == [("A cat on a red chair", "X"), ("A dog, on  a mat", "Y"), ("A cow", "Z")]
