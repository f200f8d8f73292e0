"""Tables 2 and 7: rows beside the published ones, what may not stand together, and signs of differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from sdg import Defect
from sdg.bench.detection import OVERRIDES, table2, table7
from sdg.bench.published_rows import TABLE7
from sdg.cli import cli
from sdg.data.formats import write_records
from sdg.defects import Diagnosis
from sdg.errors import SdgError
from sdg.recipes import load_recipe
from sdg.records import Record
from sdg.reporting import Report, read_bench, write_report
from sdg.training.recipe import SftRecipe

METRICS = ("DetTypeF1", "ClnAcc", "BoxF1@0.1", "BoxF1@0.5", "DescCos@0.1", "ImpAcc@0.1")
ROOT = Path(__file__).parents[2]


def document(value: float | None = 0.5, **settings: Any) -> dict[str, Any]:
    given = {"embedder": "minilm", "matching": "hungarian", "seed": 0, "bootstrap": 0, "truth": "t.jsonl"}
    by_type = {kind: dict.fromkeys(METRICS, value) for kind in ("artifact", "misalignment")}
    return {"metrics": by_type, "intervals": None, "status": {}, "settings": given | settings}


def test_published_rows_stand_below_and_their_desccos_only_for_the_papers_embedder() -> None:
    table = table2({"ours": document()})
    assert table.tables[0].rows[0] == ("ours", *["0.500"] * 6)
    by_name = {row[0]: row for row in table.tables[0].rows}
    assert by_name["SDG (GRPO) (published)"] == (
        "SDG (GRPO) (published)",
        *("0.772", "0.560", "0.404", "0.263", "–", "0.887"),
    )
    assert any("Published DescCos is left out" in note for note in table.notes)
    papers = table2({"ours": document(embedder="Qwen/Qwen3-Embedding-0.6B:mean")})
    assert {row[0]: row for row in papers.tables[0].rows}["SDG (GRPO) (published)"][5] == "0.904"


def test_a_row_says_how_many_pictures_were_left_out() -> None:
    status = {"evaluated": 9, "images": 9, "failed": 0, "missing": ["a", "b", "c"], "extra": []}
    notes = table2({"ours": document() | {"status": status}}).notes
    assert "ours: 9 of 9 images evaluated; 3 without a prediction left out." in notes


@pytest.mark.parametrize(
    ("key", "value"),
    [("embedder", "token-f1"), ("seed", 1), ("matching", "greedy"), ("truth", "other.jsonl")],
)
def test_numbers_that_do_not_belong_together_are_refused(key: str, value: object) -> None:
    with pytest.raises(SdgError, match=f"a has {key} .* and b .*; numbers of both do not belong"):
        table2({"a": document(), "b": document(**{key: value})})
    with pytest.raises(SdgError, match="do not belong into one table"):
        table7({"sft": document()}, {"no-jitter": document(**{key: value})})


def test_table7_marks_the_direction_of_each_difference() -> None:
    worse = document()
    worse["metrics"]["artifact"] |= {"DetTypeF1": 0.4, "ClnAcc": 0.4, "BoxF1@0.1": 0.5, "ImpAcc@0.1": None}
    table = table7({"sft": document()}, {"no-step-1": worse})
    rows = {row[0]: row for row in table.tables[0].rows}
    # The paper's: 0.719 − 0.776, 0.793 − 0.697, and so on.
    assert rows["  in the paper"] == ("  in the paper", "−0.057", "+0.096", "−0.045", "−0.037", "–", "−0.003")
    assert rows["  minus sft"][:4] == ("  minus sft", "−0.100 ✓", "−0.100 ✗", "+0.000")
    tex = table.latex()
    assert r"  minus sft & $-$0.100 $\checkmark$ & $-$0.100 $\times$ & +0.000" in tex
    assert tex.isascii()
    assert rows["  minus sft"][6] == "–"
    assert "The sign is the paper's in 1 of 2 differences." in table.notes


def test_table7_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(SdgError, match="'no-jiter' is no ablation of Table 7"):
        table7({"sft": document()}, {"no-jiter": document()})
    with pytest.raises(SdgError, match="grpo-no-think is compared with grpo"):
        table7({"sft": document()}, {"grpo-no-think": document()})
    with pytest.raises(SdgError, match="sft was trained with seed 0 and no-jitter with 1"):
        table7({"sft": document()}, {"no-jitter": document()}, {"sft": 0, "no-jitter": 1})


@pytest.mark.parametrize("name", list(TABLE7))
def test_every_ablation_is_a_setting_of_the_recipe(name: str) -> None:
    recipe = ROOT / "recipes" / "detector" / "sft-testbed.yaml"
    base = load_recipe(SftRecipe, recipe, ["model.freeze_vision=true"])
    assert load_recipe(SftRecipe, recipe, ["model.freeze_vision=true", OVERRIDES[name][1]]) != base


def test_files_are_json_markdown_and_latex_and_a_report_shows_them(tmp_path: Path) -> None:
    name = "100 % <b>ours</b> | a_b & \\c"
    table = table2({name: document()})
    table.write(tmp_path)
    assert json.loads((tmp_path / "table2.json").read_text())["numbers"]["rows"][name]["metrics"]
    markdown = (tmp_path / "table2.md").read_text().splitlines()
    rows = [line for line in markdown if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    tex = (tmp_path / "table2.tex").read_text()
    assert r"100 \% <b>ours</b> | a\_b \& \textbackslash{}c & 0.500" in tex
    assert r"\textit{SDG (GRPO) (published)}" in tex
    page = write_report(Report("x", [read_bench(tmp_path / "table2.json")]), tmp_path / "x.html").read_text()
    assert "100 % &lt;b&gt;ours&lt;/b&gt;" in page
    spoiled = json.loads((tmp_path / "table2.json").read_text())
    spoiled["tables"][0]["rows"][0].pop()
    (tmp_path / "bad.json").write_text(json.dumps(spoiled))
    with pytest.raises(SdgError, match="holds no table"):
        read_bench(tmp_path / "bad.json")


def test_a_name_is_that_of_one_row(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps(document()))
    rows = ["--predictions", "ours=p.jsonl", "--scores", f"ours={tmp_path / 'scores.json'}"]
    command = ["bench", "table2", "--truth", "t.jsonl", *rows, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 1
    assert isinstance(result.exception, SdgError | SystemExit)
    assert "ours names predictions and scores" in result.output + str(result.exception)


def test_table2_end_to_end_with_a_detector_that_is_run_here(tmp_path: Path) -> None:
    found = Diagnosis((Defect((0, 0, 1000, 1000), "artifact", "too bright", 50),))
    for name in ("a", "b"):
        Image.new("RGB", (16, 16), "white").save(tmp_path / f"{name}.png")
    records = [Record("a.png", "a cat", found), Record("b.png", "a dog", Diagnosis())]
    write_records(tmp_path / "truth.jsonl", records, "sdg30k")
    command = ["bench", "table2", "--truth", str(tmp_path / "truth.jsonl"), "--out", str(tmp_path / "out")]
    command += ["--detector", "none=python:red_scorer.no_defects"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "table2.json").read_text())
    metrics = document["numbers"]["rows"]["none"]["metrics"]["artifact"]
    assert (metrics["ClnAcc"], metrics["BoxF1@0.5"]) == (1.0, 0.0)
    again = CliRunner().invoke(cli, command)
    assert again.exit_code == 1
    assert CliRunner().invoke(cli, [*command, "--resume"]).exit_code == 0
    assert document["settings"]["truth"].endswith("truth.jsonl")


def test_table2_leaves_out_pictures_without_a_prediction_on_request(tmp_path: Path) -> None:
    truth, found = tmp_path / "truth.jsonl", tmp_path / "found.jsonl"
    records = [Record(f"{name}.png", "a cat", Diagnosis()) for name in "ab"]
    write_records(truth, records, "sdg30k")
    write_records(found, records[:1], "predictions")
    command = ["bench", "table2", "--truth", str(truth), "--predictions", f"ours={found}"]
    command += ["--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(cli, command)
    assert "with --allow-missing" in str(refused.exception)
    result = CliRunner().invoke(cli, [*command, "--allow-missing"])
    assert result.exit_code == 0, result.output
    assert "ours: 1 of 1 images evaluated; 1 without a prediction left out." in result.output


def test_a_server_may_be_a_detector_of_table2_and_a_row_without_answers_is_a_failure(
    tmp_path: Path,
) -> None:
    Image.new("RGB", (16, 16), "white").save(tmp_path / "a.png")
    write_records(tmp_path / "truth.jsonl", [Record("a.png", "a cat", Diagnosis())], "sdg30k")
    command = ["bench", "table2", "--truth", str(tmp_path / "truth.jsonl"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(
        cli, [*command, "--detector", "ours=openai:http://127.0.0.1:9/v1?attempts=1#m"]
    )
    assert result.exit_code == 1
    assert str(result.exception) == "Nothing was scored of ours: no picture has a truth and an answer."
    assert "0 of 1 images evaluated (1 failed)" in (tmp_path / "out" / "table2.md").read_text()
