import json

import pytest
from kills import kill_and_resume
from PIL import Image
from teacher import PICTURES, RIGHT, is_slow, refuses, shortened, tag, teacher, well

from sdg.cli import main
from sdg.data.formats import write_records
from sdg.records import Record


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """short.jsonl with a picture of each of the teacher's dozen."""
    monkeypatch.chdir(tmp_path)
    records = []
    for index, diagnosis in enumerate(RIGHT):
        Image.new("RGB", (64, 32)).save(tmp_path / f"{index}.png")
        tag(tmp_path / f"{index}.png", index)
        records.append(shortened(Record(f"{index}.png", "a cat <b>on</b> a chair", diagnosis)))
    write_records(tmp_path / "short.jsonl", records, "sdg")
    return tmp_path


@pytest.fixture
def run(folder, capfd):
    def call(server, *options):
        uri = server if isinstance(server, str) else f"openai:{server.url}?attempts=1#vlm"
        try:
            main(
                [
                    "data",
                    "enrich",
                    "short.jsonl",
                    "--teacher",
                    uri,
                    "--out",
                    "train.jsonl",
                    *map(str, options),
                ]
            )
            code = 0
        except SystemExit as exit:
            code = exit.code or 0
        return code, *capfd.readouterr()

    return call


def test_a_dry_run_shows_question_and_cost_and_sends_nothing(run, folder):
    with teacher(RIGHT, lambda index: well) as server:
        code, out, err = run(server, "--dry-run", "--price", "2/10")
        assert not server.asked
        _, numbers, _ = run(server, "--dry-run", "--price", "2/10", "--json", "-")
    assert code == 0
    assert "a cat <b>on</b> a chair" in out
    assert "price, about" in out
    assert "Nothing was sent." in err
    cost = json.loads(numbers)
    assert (cost["images"], cost["requests"], cost["most_requests"]) == (PICTURES, PICTURES, 3 * PICTURES)
    assert cost["price"] == round((2 * cost["tokens_in"] + 10 * cost["tokens_out"]) / 1e6, 4)
    assert not (folder / "train.jsonl.run.json").exists()


def test_a_sample_is_shown_then_the_rest_is_asked_for_and_counts_are_told(run, folder):
    with teacher(RIGHT, lambda index: refuses if index == 4 else well) as server:
        code, out, err = run(server, "--sample", "3", "--tries", "2")
        assert (code, sorted(server.asked)) == (0, [0, 4, 8])
        page = (folder / "train.sample.html").read_text()
        assert "a cat &lt;b&gt;on&lt;/b&gt; a chair" in page
        assert "<b>on</b>" not in page
        assert "unreadable" in page
        assert "go on" not in out
        assert "--resume --out train.jsonl" in err
        code, out, err = run(server, "--tries", "2", "--resume", "--json", "counts.json")
    assert code == 1
    assert "1 of 12 pictures are left for a person, in train.left.jsonl." in err
    counts = json.loads((folder / "counts.json").read_text())
    assert (counts["accepted"], counts["left"], counts["requests"]) == (11, 1, 13)
    assert counts["faults"] == {"unreadable": 2}
    assert len((folder / "train.jsonl").read_text().splitlines()) == 11
    code, _, err = run(server, "--tries", "2")
    assert (code, "go on with --resume" in err) == (1, True)


def test_a_bound_on_requests_ends_the_run_with_what_to_do(run):
    with teacher(RIGHT, lambda index: well) as server:
        code, _, err = run(server, "--max-requests", "4")
    assert code == 1
    assert "4 requests are sent, and no more were allowed; go on with --resume" in err


def test_a_server_that_is_not_there_is_one_sentence_and_nothing_is_lost(run, folder):
    code, _, err = run("openai:http://127.0.0.1:9/v1?attempts=1#vlm", "--sample", "3")
    assert (code, "Look at the page" in err) == (1, False)
    assert "3 pictures got no answer; ask again with --resume." in err
    code, _, err = run("openai:http://127.0.0.1:9/v1?attempts=1#vlm", "--resume")
    assert code == 1
    assert "12 pictures got no answer; ask again with --resume." in err
    with teacher(RIGHT, lambda index: well) as server:
        code, _, _ = run(server, "--resume")
    assert code == 0
    assert len((folder / "train.jsonl").read_text().splitlines()) == 12


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--words", "a"), "is not FROM-TO, such as 18-45"),
        (("--jobs", "thinking"), "A teacher's jobs are reasons, think, importance, not thinking."),
        (("--price", "3", "--dry-run"), "A price is IN/OUT"),
    ],
)
def test_options_that_fit_nothing_are_refused(run, options, fault):
    code, _, err = run("openai:http://127.0.0.1:9/v1#vlm", *options)
    assert code
    assert fault in err


def without_dates(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{**row, "teacher": {**row["teacher"], "date": ""}} for row in rows]


@pytest.mark.slow
@pytest.mark.kill
def test_killed_at_any_moment_it_ends_as_an_undisturbed_run(folder):
    def assert_same(out, whole):
        assert without_dates(out) == without_dates(whole)
        assert not out.with_name(f"{out.name}.partial").exists()

    with teacher(RIGHT, lambda index: is_slow) as server:
        options = ("--teacher", f"openai:{server.url}?attempts=1&concurrency=2#vlm", "--apart", "--out")
        kill_and_resume(
            "data enrich",
            lambda out: ["data", "enrich", folder / "short.jsonl", *options, out],
            folder,
            assert_same,
            suffix=".jsonl",
        )
