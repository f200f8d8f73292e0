"""What the sections read and count, without a browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from everything import sections
from PIL import Image

from sdg.cli import main
from sdg.data.formats import hf
from sdg.defects import Defect, Diagnosis, Status
from sdg.errors import SdgError
from sdg.records import Record
from sdg.reporting import Entry, Gallery, Report, read_refinements, read_run, read_scores, write_report
from sdg.reporting.alignment import HEIGHT, WIDTH, curve
from sdg.reporting.gallery import boxes_of
from sdg.reporting.scores import Scores
from sdg.reporting.thumbnails import Shown, show


@pytest.fixture
def run(capsys):
    """Exit code, stdout and stderr of a command line."""

    def call(*args):
        try:
            main([str(arg) for arg in args])
            code = 0
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


KINDS = ("artifact", "misalignment")
WRONG = (float("nan"), float("inf"), 10**400)


@pytest.mark.parametrize(
    "beside",
    [
        {"status": {"evaluated": 3}},
        {"status": [1]},
        {"status": {"evaluated": 3, "images": 3, "missing": 3}},
        {"settings": {"bootstrap": "many"}},
        {"intervals": {"artifact": {"BoxF1@0.5": ["low", "high"]}}},
        {"intervals": {"artifact": {"BoxF1@0.5": [0.1]}}},
        {"published": {"a model": {}}},
        {"intervals": {"artifact": {"BoxF1@0.5": [0.1, 10**400]}}},
        *({"metrics": {kind: {"BoxF1@0.5": wrong} for kind in KINDS}} for wrong in WRONG),
        *({"published": {"a model": {kind: {"BoxF1@0.5": wrong} for kind in KINDS}}} for wrong in WRONG),
    ],
)
def test_scores_with_something_else_beside_them_are_one_sentence(tmp_path, beside):
    metrics = {kind: {"BoxF1@0.5": 0.5} for kind in ("artifact", "misalignment")}
    (tmp_path / "s.json").write_text(json.dumps({"metrics": metrics} | beside), encoding="utf-8")
    with pytest.raises(SdgError, match=r"s\.json holds no scores; give a file that"):
        read_scores(tmp_path / "s.json")


def test_the_facts_of_scores_say_what_was_left_out():
    status = {"evaluated": 9, "images": 9, "missing": ["a", "b", "c"], "duplicated": ["d"]}
    [fact] = Scores([("ours", {"metrics": {}, "status": status})]).facts()
    assert fact == (
        "ours: 9 of 9 images evaluated; 3 without a prediction left out; "
        "1 more than once in one file, where the first line counts."
    )


def test_a_box_covers_the_share_of_the_picture_that_it_names():
    [box] = boxes_of([Defect((250, 500, 750, 1000), "artifact")], Shown(width=400, height=200))
    assert (box.x, box.y, box.width, box.height) == (250, 250, 500, 250)  # the drawing is 1000 × 500


def test_small_boxes_come_after_large_ones_and_keep_their_numbers():
    defects = [Defect((0, 0, 10, 10), "artifact"), Defect((0, 0, 900, 900), "artifact")]
    assert [box.number for box in boxes_of(defects, Shown(width=9, height=9))] == [2, 1]


def test_pictures_are_scaled_down_and_never_up():
    assert (show(Image.new("RGB", (1000, 500)), 100).width, show(Image.new("RGB", (64, 64)), 100).width) == (
        100,
        64,
    )
    assert show(None, 100).problem


def test_the_summary_counts_nothing_for_answers_that_say_nothing():
    defect = Defect((0, 0, 9, 9), "artifact")
    gallery = Gallery(
        [
            Entry("a", "", Diagnosis((defect, defect))),
            Entry("b", "", Diagnosis()),
            Entry("c", "", Diagnosis(status=Status.UNPARSEABLE)),
            Entry("d", ""),
        ]
    )
    assert gallery.summary == (
        ("4", "pictures"),
        ("1", "clean"),
        ("2", "artifacts"),
        ("0", "misalignments"),
        ("2", "without a diagnosis"),
    )


def test_a_filter_is_offered_for_what_the_pictures_have():
    gallery = Gallery([Entry("a", "", Diagnosis((Defect((0, 0, 9, 9), "artifact", "", 95),)), "FLUX")])
    assert {key: values for key, _, values in gallery.filters} == {
        "type": (("artifact", 1),),
        "tier": (("critical", 1),),
        "status": (("defects", 1),),
    }


def test_a_curve_spans_its_drawing_and_leaves_out_what_is_unknown():
    drawn = curve("reward", [(0, 1.0), (1, None), (2, float("nan")), (4, 3.0)])
    assert drawn is not None
    (x0, y0, _), (x1, y1, said) = drawn.dots
    assert (x0, y0, x1, y1) == (8, HEIGHT - 8, WIDTH - 8, 8)
    assert said == "epoch 4: 3"
    assert curve("reward", [(0, None)]) is None


def test_a_run_is_read_although_its_last_line_is_cut_off(tmp_path):
    _, _, run, _ = sections(tmp_path)
    charts = {heading: [chart.name for chart in charts] for heading, charts in run.curves()}
    assert charts == {"Held-out prompts": ["reward", "detector/defects"], "Training": ["reward", "loss"]}
    assert [caption for caption, _ in run.pictures()] == ["Epoch 0", "Epoch 6", "Epoch 12"]


@pytest.mark.parametrize("logged", [["approx_kl"], ["approx_kl", "kl"]])
def test_the_divergences_in_a_log_are_drawn(tmp_path, logged):
    lines = [{"kind": "train", "epoch": at, "loss": [0.1], **dict.fromkeys(logged, 0.2)} for at in (0, 1)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    [(heading, charts)] = read_run(tmp_path).curves()
    assert (heading, [chart.name for chart in charts]) == ("Training", ["loss", *logged])


def test_of_many_figures_the_first_and_the_last_are_shown(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"kind": "train", "epoch": 0, "reward": 1}\n', encoding="utf-8")
    (tmp_path / "pictures").mkdir()
    for epoch in range(30):
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / f"epoch-{epoch:06d}.png")
    captions = [caption for caption, _ in read_run(tmp_path).pictures()]
    assert (len(captions), captions[0], captions[-1]) == (6, "Epoch 0", "Epoch 29")


def test_a_comparison_is_a_table_of_means_intervals_and_changes(tmp_path):
    base = {"mean": 0.5, "interval": [0.4, 0.6], "change": 0.0, "change_interval": None, "known": 9}
    ours = {"mean": 0.6, "interval": [0.5, 0.7], "change": 0.2, "change_interval": None, "known": 9}
    document = {"cells": {"base": {"clip": base}, "ours": {"clip": ours}}}
    (tmp_path / "comparison.json").write_text(json.dumps(document), encoding="utf-8")
    columns, rows = read_run(tmp_path).table()
    assert columns == ["generator", "clip"]
    assert rows == [["base", "0.5 [0.4, 0.6]"], ["ours", "0.6 [0.5, 0.7] (+20.0 %)"]]


def test_with_more_measures_than_generators_the_measures_are_the_rows(tmp_path):
    cell = {"mean": 0.5, "interval": None, "change": None, "change_interval": None, "known": 9}
    measures = {name: {**cell, "mean": at / 2} for at, name in enumerate(("clip", "defects", "clean"), 1)}
    document = {"cells": {"base": measures, "ours": measures}}
    (tmp_path / "comparison.json").write_text(json.dumps(document), encoding="utf-8")
    columns, rows = read_run(tmp_path).table()
    assert columns == ["measure", "base", "ours"]
    assert rows == [["clip", "0.5", "0.5"], ["defects", "1", "1"], ["clean", "1.5", "1.5"]]


def test_bad_input_is_one_sentence(tmp_path):
    with pytest.raises(SdgError, match="holds no alignment run"):
        read_run(tmp_path)
    with pytest.raises(SdgError, match="is not a folder"):
        read_run(tmp_path / "nowhere")
    for text in ('{"metrics": {}}', "[]", "no", '{"metrics": {"artifact": {"a": "x"}, "misalignment": {}}}'):
        (tmp_path / "scores.json").write_text(text, encoding="utf-8")
        with pytest.raises(SdgError, match="holds no scores"):
            read_scores(tmp_path / "scores.json")
    (tmp_path / "comparison.json").write_text('{"cells": {"base": {"clip": 3}}}', encoding="utf-8")
    with pytest.raises(SdgError, match="is damaged"):
        read_run(tmp_path)
    good = '{"id": "a", "before": "a.png"}\n'
    for line, reason in (
        ('{"before": "a.png"}', "'id' is missing"),
        ('{"id": "a", "diagnosis_before": []}', "A diagnosis is an object"),
        ('{"id": "a", "pixels_changed": "many"}', "'pixels_changed' is a share"),
        (f'{{"id": "a", "pixels_changed": {10**400}}}', "'pixels_changed' is a share from 0 to 1, not 1000"),
        ('{"id": "a", "pixels_changed": 1e999}', "'pixels_changed' is a share from 0 to 1, not inf"),
    ):
        (tmp_path / "refined.jsonl").write_text(good + line + "\n", encoding="utf-8")
        with pytest.raises(SdgError, match=f"refined.jsonl, line 2: {reason}"):
            read_refinements(tmp_path / "refined.jsonl")


def test_half_a_character_does_not_stop_a_report(tmp_path):
    file = write_report(Report("a", [Gallery([Entry("a", "\ud83d")])]), tmp_path / "a.html")
    assert 'class="prompt">?<' in file.read_text(encoding="utf-8")


def test_the_command_writes_everything_it_is_given_into_one_file(run, tmp_path: Path):
    scores, _, _, _ = sections(tmp_path)
    (tmp_path / "scores.json").write_text(json.dumps(scores.documents[0][1]), encoding="utf-8")
    row = {"filepath": "0-before.png", "caption": "a star", "response": "<answer>[]</answer>"}
    (tmp_path / "predictions.jsonl").write_text(json.dumps(row), encoding="utf-8")
    out = tmp_path / "report.html"
    code, stdout, err = run(
        *("report", "--scores", tmp_path / "scores.json", "--refinements", tmp_path / "refined.jsonl"),
        *("--alignment", tmp_path / "boxflow", "--diagnoses", tmp_path / "predictions.jsonl", "--out", out),
    )
    assert (code, stdout) == (0, "")
    assert f"Report: {out}" in err
    html = out.read_text(encoding="utf-8")
    for kind in ("scores", "refinement", "alignment", "gallery"):
        assert f'class="{kind}"' in html
    assert "a star" in html
    assert run("report", "--out", out)[0] == 2
    code, _, err = run("report", "--alignment", tmp_path / "nowhere", "--out", out)
    assert (code, err.count("\n")) == (1, 1)


def test_pictures_that_are_not_found_are_told_of(run, tmp_path: Path):
    rows = [{"filepath": f"{at}.png", "caption": "a", "response": "<answer>[]</answer>"} for at in range(3)]
    predictions, out = tmp_path / "predictions.jsonl", tmp_path / "r.html"
    predictions.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    code, _, err = run("report", "--diagnoses", predictions, "--out", out)
    assert (code, out.exists()) == (1, True)
    assert "3 of 3 pictures could not be shown; the first: " in err
    assert "0.png; name their folder with --images." in err
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "0.png")
    code, _, err = run("report", "--diagnoses", predictions, "--images", tmp_path / "images", "--out", out)
    assert code == 0
    assert "2 of 3 pictures could not be shown" in err
    Image.new("RGB", (4, 4)).save(tmp_path / "before.png")
    row = {"id": "a", "before": "before.png", "after": None}
    (tmp_path / "refined.jsonl").write_text(json.dumps(row), encoding="utf-8")
    code, _, err = run("report", "--refinements", tmp_path / "refined.jsonl", "--out", out)
    assert (code, "could not be shown" in err) == (0, False)


def test_a_diagnosis_can_be_looked_at_in_a_page(run, tmp_path: Path):
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "a.png")
    item = {"box_2d": [0, 0, 500, 500], "label": "artifact", "description": "Odd <b>."}
    response = f"<think>x</think><answer>{json.dumps([item])}</answer>"
    row = {"filepath": "a.png", "caption": "a square", "response": response}
    (tmp_path / "stored.jsonl").write_text(json.dumps(row), encoding="utf-8")
    out = tmp_path / "look.html"
    code, _, err = run(
        *("diagnose", tmp_path / "a.png", "--prompt", "a square", "--html", out),
        *("--detector", f"replay:{tmp_path / 'stored.jsonl'}"),
    )
    assert code == 0, err
    html = out.read_text(encoding="utf-8")
    assert "Odd &lt;b&gt;." in html
    assert "data:image/" in html


def test_the_pictures_of_a_dataset_folder_are_found_where_it_has_put_them(run, tmp_path):
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "a.png")
    record = Record("a.png", "a cat", Diagnosis())
    hf.write(tmp_path / "dataset", [record], images=tmp_path)
    (tmp_path / "a.png").unlink()
    code, _, err = run("report", "--diagnoses", tmp_path / "dataset", "--out", tmp_path / "r.html")
    assert code == 0, err
    page = (tmp_path / "r.html").read_text()
    assert "does not exist" not in page
    assert "data:image/" in page

    picture = next((tmp_path / "dataset").rglob("*.png"))
    picture.rename(tmp_path / "elsewhere.png")
    picture.symlink_to(tmp_path / "elsewhere.png")
    code, _, err = run("report", "--diagnoses", tmp_path / "dataset", "--out", tmp_path / "r.html")
    assert code == 1
    assert "or --allow-outside if you trust the file that names it." in err
    options = ("--allow-outside", "--out", tmp_path / "r.html")
    assert run("report", "--diagnoses", tmp_path / "dataset", *options)[0] == 0
