"""`sdg demo` as a user calls it."""

from pathlib import Path

import pytest
import toy
from click.testing import CliRunner

from sdg.cli import cli, main

TINY = (
    "policy.height=32", "policy.width=32", "policy.dtype=float32", "precision=fp32", "sampling.steps=4",
    "sampling.batch_size=2", "groups.prompts=2", "groups.size=2", "optimizer.steps_per_epoch=1",
    "monitor.prompts=2", "monitor.steps=2", "reward.scorers=[{name: dark, uri: 'python:toy.darkness'}]",
)  # fmt: skip


def arguments(tmp_path: Path, *more: str) -> list[str]:
    size = ["--prompts", "2", "--steps", "1", "--refine", "1"]
    models = ["--pipeline", str(tmp_path / "flux"), "--detector", "python:toy.detect"]
    overrides = [part for override in TINY for part in ("--set", override)]
    return ["demo", "--out", str(tmp_path / "demo"), *size, *models, *overrides, *more]


@pytest.mark.slow
def test_the_path_of_the_report_is_on_stdout_and_progress_on_stderr(tmp_path):
    toy.flux_pipeline(guidance_embeds=False).save_pretrained(tmp_path / "flux")
    result = CliRunner().invoke(cli, arguments(tmp_path), catch_exceptions=False)
    report = tmp_path / "demo" / "report.html"
    assert result.exit_code == 0
    assert result.stdout == f"{report}\n"
    assert "[6/6] Refinement:" in result.stderr
    assert report.as_uri() in result.stderr
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_failed_part_is_exit_code_1_and_one_sentence_that_names_the_report(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments(tmp_path))
    assert exit.value.code == 1
    report = tmp_path / "demo" / "report.html"
    said = capsys.readouterr()
    assert said.out == f"{report}\n"
    [last] = [line for line in said.err.splitlines() if line.startswith("sdg: ")]
    assert last.startswith("sdg: Pictures failed (")
    assert str(report) in last


@pytest.mark.parametrize("wrong", [["--prompts", "0"], ["--steps", "0"], ["--refine", "0"], ["--seed", "-1"]])
def test_wrong_usage_is_exit_code_2_and_writes_nothing(tmp_path, wrong):
    assert CliRunner().invoke(cli, arguments(tmp_path, *wrong)).exit_code == 2
    assert not (tmp_path / "demo").exists()
