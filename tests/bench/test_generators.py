"""Tables 5 and 6 and Figure 3: end to end on toy weights with a remote scorer, and refusals."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
import red_scorer
import second_environment
import toy
from bad_server import Reply
from click.testing import CliRunner, Result
from scoring_server import answering, cut

from sdg.alignment.compare import check_missing, tabulate
from sdg.alignment.monitors import Measures
from sdg.bench.generators import table5, table6
from sdg.cli import cli
from sdg.errors import SdgError
from sdg.scorers import FunctionScorer
from sdg.serve.scorer import ScorerServer
from sdg.testbed.models.packaged import ALIGNED


def test_table5_has_intervals_defects_and_published_rows_of_the_same_scorers() -> None:
    base = [{"PickScore": 20.0, "clip": None, "d": 2.0}, {"PickScore": 22.0, "clip": 1.0, "d": 1.0}]
    other = [{"PickScore": 22.0, "clip": 1.0, "d": 1.0}, {"PickScore": 24.2, "clip": 1.0, "d": 1.0}]
    table = table5(tabulate({"base": base, "ours": other}, ["PickScore"], bootstrap=200), ["PickScore"], {})
    rows = {row[0]: row for row in table.tables[0].rows}
    assert rows["ours"] == ("ours", "23.100", "1.000", "1.000", "+10.0 %")
    assert rows["BoxFlow-GRPO (published)"] == ("BoxFlow-GRPO (published)", "22.91", "–", "–", "+2.4 %")
    assert "base: left out of 2 pictures, as nothing is known: clip 1." in table.notes


def test_a_scorer_that_is_gone_stops_a_comparison_before_its_batch_is_written() -> None:
    missing: Counter[str] = Counter()
    check_missing(missing, [{"a": 1.0, "b": None}, {"a": None, "b": 1.0}], ["a", "b"], 0.4, 100)
    with pytest.raises(SdgError, match=r"a gave nothing for 3 of 4 pictures, more than the share of 0.4 "):
        check_missing(missing, [{"a": None, "b": 1.0}, {"a": None, "b": 1.0}], ["a", "b"], 0.4, 100)


def test_a_scorer_that_leaves_out_too_many_here_and_there_stops_a_comparison_too() -> None:
    missing: Counter[str] = Counter()
    half: list[Measures] = [{"a": 1.0}, {"a": None}]
    for _ in range(4):
        check_missing(missing, half, ["a"], 0.2, 20)  # 4 of 20 are the most
    with pytest.raises(SdgError, match=r"a gave nothing for 5 of 20 pictures, more than the share of 0.2 "):
        check_missing(missing, half, ["a"], 0.2, 20)


def study(path: Path, seed: int = 0) -> Path:
    shares = {"good": 0.25, "same": 0.5, "bad": 0.25}
    pooled = {"shares": shares, "intervals": {name: [0.1, 0.6] for name in shares}}
    path.write_text(json.dumps({"pooled": pooled, "pairs": 40, "seed": seed}))
    return path


def test_table6_stands_beside_the_papers_studies(tmp_path: Path) -> None:
    table = table6({"ours": study(tmp_path / "a.json")})
    assert table.tables[0].rows[:2] == (
        ("ours", "25.00 %", "50.00 %", "25.00 %", "40"),
        ("  95 % interval", "10.00–60.00", "10.00–60.00", "10.00–60.00", ""),
    )
    with pytest.raises(SdgError, match="counted with different seeds"):
        table6({"ours": tmp_path / "a.json", "b": study(tmp_path / "b.json", 1)})
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(SdgError, match="holds no count"):
        table6({"c": tmp_path / "c.json"})
    for wrong in ('"pairs": 1e999', f'"pooled": {{"shares": {{"good": {10**400}}}}}'):
        (tmp_path / "c.json").write_text((tmp_path / "a.json").read_text()[:-1] + f", {wrong}}}")
        with pytest.raises(SdgError, match="holds no count"):
            table6({"c": tmp_path / "c.json"})
    (tmp_path / "d.json").write_text((tmp_path / "a.json").read_text()[:-1] + ', "more": 1e999}')
    with pytest.raises(SdgError, match="table6 cannot be written as JSON"):
        table6({"d": tmp_path / "d.json"}).write(tmp_path / "out")


def test_figure3_draws_and_counts(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"filepath": "a.png", "caption": "x", "ann_translated_bboxes": []}\n')
    result = CliRunner().invoke(cli, ["bench", "figure3", str(file), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "figure3.json").read_text())
    assert document["numbers"]["overall"]["shares"]["clean"] == 1
    assert (tmp_path / "out" / "figure3.png").stat().st_size > 0


def adapter(checkpoints: Path, folder: Path) -> Path:
    """An adapter of the toy FLUX weights that changes what they draw."""
    import torch

    from sdg.alignment.policies import load_policy
    from sdg.alignment.recipe import AlignRecipe
    from sdg.models.lora import lora_parameters, save_lora
    from sdg.recipes import load_recipe

    recipe = toy.RECIPES / "boxflow-flux1-dev.yaml"
    policy = load_policy(load_recipe(AlignRecipe, recipe, toy.small(checkpoints)[1::2]).policy)
    torch.manual_seed(5)
    for parameter in lora_parameters(policy.transformer).values():
        parameter.data += 0.1 * torch.randn_like(parameter)
    save_lora(policy, folder)
    return folder


def test_table5_end_to_end_with_a_remote_scorer(checkpoints: Path, tmp_path: Path) -> None:
    """Toy FLUX weights and an adapter, prompts in DrawBench's layout, a scorer that is served, a judge."""
    recipe, lora = toy.RECIPES / "boxflow-flux1-dev.yaml", adapter(checkpoints, tmp_path / "lora")
    drawbench = tmp_path / "drawbench.csv"
    prompts = (checkpoints / "held-out.txt").read_text().splitlines()
    drawbench.write_text("Prompts,Category\n" + "".join(f"{prompt},Colors\n" for prompt in prompts))

    with ScorerServer(FunctionScorer(red_scorer.red), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        scorers = f"[{{name: HPSv3, uri: 'remote:{server.address}?attempts=1&timeout=20', scale: 0.01}}]"
        options = toy.small(checkpoints, monitor__scorers=scorers)
        command = ["bench", "table5", str(recipe), *options, "--lora", f"ours={lora}"]
        command += ["--prompts", f"bench:drawbench?path={drawbench}", "--bootstrap", "100"]
        result = CliRunner().invoke(cli, [*command, "--out", str(tmp_path / "out")])
        server.shutdown()
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "table5.json").read_text())
    (table,) = document["tables"]
    names = [row[0] for row in table["rows"]]
    assert names[:4] == ["base", "  95 % interval", "ours", "  95 % interval"]
    assert {"HPSv3", "judge/defects", "Avg"} <= set(table["columns"])
    cells = document["numbers"]["cells"]
    assert cells["base"]["HPSv3"]["known"] == len(prompts)
    assert cells["ours"]["HPSv3"]["mean"] != cells["base"]["HPSv3"]["mean"]
    published = dict(zip(table["columns"], table["rows"][-1], strict=True))
    assert (published["HPSv3"], published["reward"]) == ("12.14", "–")

    result = CliRunner().invoke(cli, [*command, "--out", str(tmp_path / "gone")])  # the server is gone
    assert result.exit_code == 1
    assert "HPSv3 gave nothing for" in str(result.exception)
    assert not (tmp_path / "gone" / "measures.jsonl").read_text()  # so that --resume asks again


def test_table5_goes_on_past_what_a_remote_scorer_cannot_say_and_tells_how_much_that_was(
    checkpoints: Path, tmp_path: Path
) -> None:
    """Of eight answers four are none: NaN, one that is cut in half, one that lies, one that never comes."""
    whole, nan, two = (b'{"scores": [%s]}' % scores for scores in (b"7.5", b"NaN", b"1, 2"))
    answers = cycle((whole, nan, whole, cut(whole), whole, two, whole, Reply(whole, delay=20)))
    prompts, lock = ["a red cup", "a blue hat", "a green dog", "a red car"] * 2, threading.Lock()
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    lora = adapter(checkpoints, tmp_path / "lora")

    def answer(items: list[dict]) -> bytes | Reply:
        with lock:
            return next(answers)

    def table5_of(answer: Callable[[list[dict]], bytes | int | Reply], out: Path, allowed: float) -> Result:
        with answering(answer) as url:
            scorers = f"[{{name: HPSv3, uri: 'remote:{url}?attempts=1&timeout=3&batch=1'}}]"
            held_out = {"prompts__held_out": tmp_path / "prompts.txt"}
            options = toy.small(checkpoints, monitor__scorers=scorers, reward__max_failed=allowed, **held_out)
            command = ["bench", "table5", str(toy.RECIPES / "boxflow-flux1-dev.yaml"), *options]
            command += ["--lora", f"ours={lora}", "--bootstrap", "100"]
            return CliRunner().invoke(cli, [*command, "--out", str(out)])

    result = table5_of(answer, tmp_path / "out", 0.5)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "table5.json").read_text())
    for name in ("base", "ours"):
        cell = document["numbers"]["cells"][name]["HPSv3"]
        assert (cell["known"], cell["mean"]) == (4, 7.5)
        note = f"{name}: left out of 8 pictures, as nothing is known: HPSv3 4."
        assert note in document["notes"]
        assert note in (tmp_path / "out" / "table5.md").read_text()
    for silent, told in ((cycle((whole, nan)), "8 of 16"), (cycle((nan,)), "4 of 4")):
        stopped = table5_of(lambda items, silent=silent: next(silent), tmp_path / told, 0.4)
        assert stopped.exit_code == 1
        assert f"HPSv3 gave nothing for {told} pictures, more than the share of 0.4" in str(stopped.exception)


@pytest.mark.slow
def test_table5_of_the_testbed_with_a_scorer_in_its_own_environment(
    second_python: Path, tmp_path: Path
) -> None:
    """The embedded generator and its adapter; a scorer served without torch, one here; the oracle judges."""
    with second_environment.serving(second_python, "red_scorer.red") as (uri, _):
        scorers = [
            {"name": "HPSv3", "uri": f"{uri}?timeout=60", "scale": 0.01},
            {"name": "CLIPScore", "uri": "python:sdg.testbed.entry.clip_score"},
        ]
        settings = [
            f"monitor.scorers={json.dumps(scorers)}",
            "prompts.held_out=python:sdg.testbed.entry.prompts?split=test&count=3",
        ]
        command = ["bench", "table5", str(toy.RECIPES / "boxflow-testbed.yaml"), "--bootstrap", "100"]
        command += [word for one in settings for word in ("--set", one)]
        command += ["--lora", f"BoxFlow-GRPO={ALIGNED}", "--out", str(tmp_path)]
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, result.output
        again = CliRunner().invoke(cli, [*command, "--resume"])
        assert again.exit_code == 0, again.output
    document = json.loads((tmp_path / "table5.json").read_text())
    cells = document["numbers"]["cells"]
    for name in ("base", "BoxFlow-GRPO"):
        assert {key: cells[name][key]["known"] for key in ("HPSv3", "CLIPScore", "oracle/defects")} == {
            "HPSv3": 3,
            "CLIPScore": 3,
            "oracle/defects": 3,
        }
    assert cells["BoxFlow-GRPO"]["HPSv3"]["mean"] != cells["base"]["HPSv3"]["mean"]
    (table,) = document["tables"]
    published = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    assert published["BoxFlow-GRPO (published)"]["HPSv3"] == "12.14"
