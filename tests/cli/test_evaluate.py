"""`sdg evaluate`: what it prints and writes, and one sentence with exit code 1 for every bad input."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sdg.cli import main
from sdg.cli.evaluate import evaluate
from sdg.data import line_pairs
from sdg.evaluation import Counts
from sdg.evaluation.slices import SLICES


def item(box=(10, 20, 300, 400), label="artifact", description="A fused hand.", importance=40):
    return {"box_2d": list(box), "label": label, "description": description, "importance": importance}


def annotation(path, *items, **extra):
    return {"filepath": path, "caption": f"caption of {path}", "ann_translated_bboxes": list(items), **extra}


def prediction(path, *items):
    response = f"<think>\nlooking\n</think>\n<answer>\n{json.dumps(items)}\n</answer>"
    return {"filepath": path, "caption": f"caption of {path}", "response": response}


@pytest.fixture
def files(tmp_path):
    """Writes JSON Lines under a name: objects, or text for what is no JSON."""

    def write(name, *lines):
        path = tmp_path / name
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def run(capsys):
    """Exit code, stdout and stderr of a command line."""

    def call(*args):
        try:
            main(["evaluate", *args])
            code = 0
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def pair(files):
    """Truth and predictions of three images, in different orders."""
    truth = files(
        "truth.jsonl",
        annotation("a.png", item(), item((500, 500, 600, 600), importance=80), generator="FLUX"),
        annotation("b.png", item(label="misalignment"), generator="SANA"),
        annotation("c.png", generator="SANA"),
    )
    predictions = files(
        "predictions.jsonl",
        prediction("c.png"),
        prediction("b.png", item(label="misalignment", importance=60)),
        prediction("a.png", item()),
    )
    return "--truth", truth, "--predictions", predictions


def sentence(err):
    """The one line of an error, without traceback."""
    assert err.startswith("sdg: ")
    assert "Traceback" not in err
    [line] = err.strip().splitlines()
    return line


def test_scores_go_to_stdout_and_json_has_the_documented_shape(run, pair, tmp_path):
    out_file = tmp_path / "new" / "scores.json"
    code, out, err = run(*pair, "--json", str(out_file), "--embedder", "token-f1", "--bootstrap", "50")
    assert code == 0
    assert "BoxF1@0.5" in out
    assert "3 of 3 images evaluated" in out
    assert str(out_file) in err
    document = json.loads(out_file.read_text(encoding="utf-8"))
    assert document.keys() == {"metrics", "intervals", "status", "settings"}
    artifact = document["metrics"]["artifact"]
    assert artifact["BoxRe@0.5"] == 0.5
    assert artifact["BoxF1@0.1"] == pytest.approx(2 / 3)
    assert document["metrics"]["misalignment"]["ImpAcc@0.1"] == pytest.approx(0.8)
    low, high = document["intervals"]["artifact"]["BoxRe@0.5"]
    assert 0 <= low <= 0.5 <= high <= 1
    run(*pair, "--counts", str(tmp_path / "counts.json"), "--embedder", "token-f1")
    counts = Counts.from_dict(json.loads((tmp_path / "counts.json").read_text()))
    assert counts.metrics() == document["metrics"]
    assert document["status"]["ok"] == document["status"]["evaluated"] == 3
    assert document["settings"]["embedder"] == "token-f1"
    assert document["settings"]["matching"] == "hungarian"
    assert document["settings"]["truth"] == pair[1]


def test_json_on_stdout_is_only_json(run, pair):
    code, out, _ = run(*pair, "--json", "-", "--bootstrap", "0")
    assert code == 0
    document = json.loads(out)
    assert document["intervals"] is None
    assert document["metrics"]["artifact"]["DescCos@0.1"] is None


def test_the_papers_example_against_itself_is_perfect(run, files):
    ballerina = (
        item((600, 48, 641, 100), importance=22),
        item((223, 345, 285, 385), importance=22),
        item((474, 220, 530, 281), importance=32),
        item((223, 48, 657, 840), "misalignment", "She stands upright.", 95),
    )
    path = files("ballerina.jsonl", prediction("ballerina.png", *ballerina), prediction("clean.png"))
    code, out, err = run("--truth", path, "--predictions", path, "--embedder", "token-f1", "--json", "-")
    assert code == 0
    assert "read leniently" in err
    for values in json.loads(out)["metrics"].values():
        assert set(values.values()) == {1.0}


def test_published_rows_are_marked(run, pair):
    assert "published" not in run(*pair)[1]
    _, out, _ = run(*pair, "--published")
    for model in ("GPT-5.4", "Gemini 3 Pro", "SDG (SFT)", "SDG (GRPO)", "human"):
        assert out.count(f"{model} (published)") == 2
    document = json.loads(run(*pair, "--published", "--json", "-")[1])
    assert document["published"]["human"]["artifact"]["DetTypeF1"] == 0.792


def test_a_comparison_says_what_the_answers_of_the_other_file_were_worth(run, pair, files, tmp_path):
    bad = [{"filepath": f"{name}.png", "caption": "", "response": "no idea"} for name in "abc"]
    other, page = files("other.jsonl", *bad), tmp_path / "page.html"
    options = ("--compare", other, "--bootstrap", "100")
    said = "other.jsonl: 3 of 3 images evaluated; answers: 3 unparseable (counted as predicting nothing)"
    _, out, _ = run(*pair, *options, "--html", str(page))
    assert said in out.replace("\n", "")
    assert said in page.read_text()
    document = json.loads(run(*pair, *options, "--json", "-")[1])
    assert document["status"]["unparseable"] == 0
    assert document["comparison"]["status"]["unparseable"] == 3


def test_slices_and_comparison(run, pair, files):
    other = files("other.jsonl", prediction("a.png", item()), prediction("b.png"), prediction("c.png"))
    options = ("--slice", "generator", "--slice", "tier", "--compare", other, "--bootstrap", "100")
    code, out, _ = run(*pair, *options)
    assert code == 0
    assert "artifact by generator" in out
    assert "misalignment: predictions minus other on 3 images" in out
    document = json.loads(run(*pair, *options, "--json", "-")[1])
    assert [part["value"] for part in document["slices"]["generator"]] == ["FLUX", "SANA"]
    assert [part["value"] for part in document["slices"]["tier"]] == ["major", "moderate"]
    assert document["comparison"]["resamples"] == 100
    bare = json.loads(run(*pair, "--compare", other, "--bootstrap", "0", "--json", "-")[1])["comparison"]
    assert (bare["intervals"], bare["p_values"], bare["resamples"]) == (None, None, 0)
    assert bare["difference"] == document["comparison"]["difference"]
    assert document["comparison"]["difference"]["misalignment"]["BoxRe@0.1"] == 1.0
    assert document["comparison"]["difference"]["artifact"]["BoxRe@0.1"] == 0.0


def test_the_order_of_coordinates_is_converted_on_request_only(run, files):
    truth = files("truth.jsonl", annotation("a.png", item((100, 200, 150, 900))))
    swapped = files("swapped.jsonl", prediction("a.png", item((200, 100, 900, 150))))
    base = ("--truth", truth, "--predictions", swapped, "--json", "-", "--bootstrap", "0")
    assert json.loads(run(*base)[1])["metrics"]["artifact"]["BoxF1@0.1"] == 0.0
    assert json.loads(run(*base, "--box-order", "yxyx")[1])["metrics"]["artifact"]["BoxF1@0.1"] == 1.0


def test_predictions_are_read_leniently_and_every_repair_is_counted(run, files):
    truth = files("truth.jsonl", *(annotation(f"{name}.png", item()) for name in "abcdef"))
    predictions = files(
        "predictions.jsonl",
        prediction("a.png", item(importance=0)),
        prediction("b.png", item(importance=101)),
        prediction("c.png", item((-5, 20, 300, 1400))),
        prediction("d.png", item(label="blemish")),
        {"filepath": "e.png", "caption": "", "response": "I see nothing wrong."},
        {"filepath": "f.png", "caption": "", "response": None},
    )
    code, out, _ = run("--truth", truth, "--predictions", predictions, "--json", "-")
    assert code == 0
    status = json.loads(out)["status"]
    assert (status["repaired"], status["unparseable"], status["failed"]) == (3, 2, 1)
    assert (status["images"], status["evaluated"]) == (6, 5)
    assert status["repairs"]["clamped-importance"] == 2
    assert status["repairs"]["clamped-box"] == status["repairs"]["dropped-item"] == 1


def test_scores_of_no_image_are_an_error(files, run):
    truth = files("truth.jsonl", annotation("a.png", item()), annotation("b.png"))
    failed = [{"filepath": path, "response": "", "status": "failed"} for path in ("a.png", "b.png")]
    for more in ([], ["--slice", "generator"]):
        code, out, err = run("--truth", truth, "--predictions", files("p.jsonl", *failed), *more)
        assert code == 1
        assert "0 of 2 images evaluated" in out
        assert err.splitlines()[-1] == (
            "sdg: Nothing was scored: 0 of 2 images evaluated; answers: 2 failed (left out)."
        )


@pytest.mark.parametrize("side", ["--truth", "--predictions"])
def test_a_missing_an_empty_and_a_file_that_is_a_folder(run, pair, tmp_path, side):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder").mkdir()
    for name, reason in (
        ("nowhere.jsonl", "does not exist"),
        ("empty.jsonl", "is empty"),
        ("folder", "folder"),
    ):
        args = list(pair)
        args[args.index(side) + 1] = str(tmp_path / name)
        code, out, err = run(*args)
        assert (code, out) == (1, "")
        assert str(tmp_path / name) in sentence(err)
        assert reason in err


@pytest.mark.parametrize("side", ["--truth", "--predictions"])
def test_a_malformed_line_is_named(run, files, side):
    names = [f"{number}.png" for number in range(1, 41)]
    lines = {
        "--truth": [annotation(name, item()) for name in names],
        "--predictions": [prediction(name, item()) for name in names],
    }
    lines[side][16] = json.dumps(lines[side][16])[:50]
    args = [part for name in lines for part in (name, files(f"{name[2:]}.jsonl", *lines[name]))]
    code, _, err = run(*args)
    assert code == 1
    assert f"{side[2:]}.jsonl, line 17: " in sentence(err)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (item((10, 20, 300, 1001)), "1000"),
        (item((300, 20, 10, 400)), "x0 < x1"),
        (item(label="blemish"), "'blemish'"),
        (item(importance=0), "from 1 to 100, not 0"),
        (item(importance=101), "from 1 to 100, not 101"),
    ],
)
def test_a_faulty_truth_is_named_by_file_and_line(run, files, bad, reason):
    truth = files("truth.jsonl", annotation("a.png", item()), annotation("b.png", bad))
    predictions = files("predictions.jsonl", prediction("a.png"), prediction("b.png"))
    code, _, err = run("--truth", truth, "--predictions", predictions)
    assert code == 1
    assert "truth.jsonl, line 2: " in sentence(err)
    assert reason in err


def test_file_sets_that_differ_are_an_error_unless_allowed(run, files, tmp_path):
    truth = files("truth.jsonl", *(annotation(f"{name}.png", item()) for name in "abcc"))
    predictions = files("predictions.jsonl", *(prediction(f"{name}.png", item()) for name in "bcx"))
    base = ("--truth", truth, "--predictions", predictions)
    code, out, err = run(*base)
    assert (code, out) == (1, "")
    for part in (
        "a.png without a prediction",
        "x.png without a truth",
        "c.png more than once",
        "--allow-missing",
    ):
        assert part in sentence(err)
    code, out, err = run(*base, "--allow-missing", "--json", "-")
    assert code == 0
    assert "a.png without a prediction" in err
    status = json.loads(out)["status"]
    assert status["evaluated"] == 2
    assert (status["missing"], status["extra"], status["duplicated"]) == (["a.png"], ["x.png"], ["c.png"])
    page = tmp_path / "page.html"
    code, out, err = run(*base, "--allow-missing", "--html", str(page))
    said = (
        "2 of 2 images evaluated; 1 without a prediction left out; 1 without a truth left out; "
        "1 more than once in one file, where the first line counts; answers: 2 ok"
    )
    assert said in out
    assert said in page.read_text()
    assert "c.png more than once in one file, where the first line counts; evaluated are the 2 images" in err


def test_nothing_in_common_is_an_error_even_if_missing_is_allowed(run, files):
    truth = files("truth.jsonl", annotation("a.png"))
    predictions = files("predictions.jsonl", prediction("b.png"))
    code, _, err = run("--truth", truth, "--predictions", predictions, "--allow-missing")
    assert code == 1
    assert "share no image" in sentence(err)


def test_a_comparison_needs_the_same_images_too(run, pair, files):
    other = files("other.jsonl", prediction("a.png", item()), prediction("b.png"))
    code, _, err = run(*pair, "--compare", other)
    assert code == 1
    assert "c.png without a prediction" in sentence(err)
    code, out, err = run(*pair, "--compare", other, "--allow-missing", "--json", "-")
    assert code == 0
    document = json.loads(out)
    assert (document["status"]["evaluated"], document["comparison"]["images"]) == (3, 2)


def test_wrong_usage_is_exit_code_2(run, pair):
    assert run(*pair[:2])[0] == 2
    assert run(*pair, "--matching", "best")[0] == 2
    assert run(*pair, "--bootstrap", "-1")[0] == 2


def test_an_unknown_embedder_and_a_missing_image_folder_are_one_sentence(run, pair, tmp_path):
    code, _, err = run(*pair, "--images", str(tmp_path / "nowhere"))
    assert code == 1
    assert "is not a folder" in sentence(err)
    code, _, err = run(*pair, "--json", str(tmp_path))
    assert code == 1
    assert "is a folder" in err.strip().splitlines()[-1]


def test_help_shows_an_example(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "sdg evaluate --truth annotations.jsonl" in out


def test_the_report_holds_pictures_and_escaped_texts(run, files, tmp_path):
    from PIL import Image

    nasty = "<script>alert(\"1\")</script> & 'quotes'"
    truth = files("truth.jsonl", annotation("a.png", item(description=nasty)), annotation("b.png", item()))
    predictions = files(
        "predictions.jsonl", prediction("a.png", item((700, 700, 800, 800))), prediction("b.png")
    )
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (200, 100), "grey").save(images / "a.png")
    report = tmp_path / "report.html"
    args = ("--truth", truth, "--predictions", predictions, "--images", str(images), "--html", str(report))
    code, _, err = run(*args)
    assert code == 0
    assert str(report) in err
    html = report.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; &amp; &#39;quotes&#39;" in html
    assert "<script" not in html
    assert html.count('src="data:image/') == 2  # a.png: truth and prediction
    assert "b.png does not exist" in html
    assert "http:" not in html
    assert "https:" not in html
    assert "prefers-color-scheme: dark" in html
    shutil.rmtree(images)
    assert run(*args[:4], "--html", str(report))[0] == 0
    assert "data:image" not in report.read_text(encoding="utf-8")


def test_slices_are_those_there_are():
    (choice,) = [option.type for option in evaluate.params if option.name == "by"]
    assert tuple(choice.choices) == SLICES


def test_large_files_are_scored_by_all_cores_with_the_same_output(run, files, monkeypatch):
    rows = [f"{number}.png" for number in range(50)]
    truth = files("truth.jsonl", *(annotation(path, item()) for path in rows))
    found = files("found.jsonl", *(prediction(path, item(importance=60)) for path in rows))
    alone = run("--truth", truth, "--predictions", found, "--json", "-")
    monkeypatch.setattr(line_pairs, "SMALLEST", 0)
    monkeypatch.setattr(line_pairs, "can_fork", lambda: True)
    monkeypatch.setattr(line_pairs, "cores", lambda: 2)
    monkeypatch.setattr("sdg.evaluation.from_files.evaluate_files", None)  # is not called
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert run("--truth", truth, "--predictions", found, "--json", "-") == alone
    assert alone[0] == 0


def test_other_processes_read_before_numpy_is_loaded():
    code = "import sdg.cli.evaluate, sys; assert not {'numpy', 'rich', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("option", ["--json", "--counts"])
def test_no_output_takes_the_place_of_an_input(run, pair, files, option):
    other = files("other.jsonl", *(prediction(f"{name}.png") for name in "abc"))
    for file in (pair[1], pair[3], other):
        before = Path(file).read_bytes()
        code, out, err = run(*pair, "--compare", other, option, file)
        assert (code, out) == (1, "")
        assert sentence(err).endswith("is an input, and would be replaced; name another output.")
        assert Path(file).read_bytes() == before
