"""`sdg testbed` as a user calls it."""

import json
import subprocess
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from click.testing import CliRunner

from sdg.cli import cli, main
from sdg.data.formats.sdg30k import read_annotations
from sdg.testbed.models.loop import Run


def test_generate_writes_a_data_set_and_says_where(tmp_path):
    out = tmp_path / "shapes"
    result = CliRunner().invoke(
        cli, ["testbed", "generate", "--count", "30", "--out", str(out), "--size", "64", "--workers", "1"]
    )
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "Wrote 30 pictures" in result.stderr
    assert str(out) in result.stderr
    assert len(list((out / "images").glob("*.png"))) == 30
    assert next(read_annotations(out / "train.jsonl")).diagnosis is not None


def test_a_folder_in_use_is_one_sentence_and_exit_code_1(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(SystemExit) as exit:
        main(["testbed", "generate", "--count", "3", "--out", str(tmp_path)])
    assert exit.value.code == 1
    assert capsys.readouterr().err.startswith(f"sdg: {tmp_path} is not empty")


@pytest.mark.parametrize(
    "arguments", [["--count", "0"], ["--count", "3", "--size", "32"], ["--count", "3", "--level", "poor"], []]
)
def test_wrong_usage_is_exit_code_2(tmp_path, arguments):
    result = CliRunner().invoke(cli, ["testbed", "generate", "--out", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_generating_never_loads_torch(tmp_path):
    code = (
        "import sys; from sdg.cli import cli; "
        "cli(['testbed', 'generate', '--count', '2', '--out', sys.argv[1]], standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "out"], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "work", "sentence"),
    [
        (["generate", "--count", "2"], "datasets.injected.generate", "the same command goes on."),
        (["corpus", "--count", "2"], "datasets.corpus.generate_corpus", "the same command goes on."),
        (["measure", "--what", "generator"], "models.measure.measure_generator", "the same command goes on."),
        (["sample"], "datasets.samples.draw_folder", "go on with --resume --out"),
        (["train-vae"], "models.generator.vae.train_vae", "go on with --resume --out"),
        (["train-scorer"], "models.scorer.train_scorer", "go on with --resume --out"),
    ],
)
def test_what_is_interrupted_says_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], work: str, sentence: str
) -> None:
    def interrupted(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"sdg.testbed.{work}", interrupted)
    result = CliRunner().invoke(cli, ["testbed", *arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "Stopped. " in result.stderr
    assert sentence in result.stderr


COMMANDS = ("generate", "train-vae", "train-generator", "train-scorer", "sample", "corpus", "measure")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command):
    result = CliRunner().invoke(cli, ["testbed", command, "--help"])
    assert result.exit_code == 0
    assert f"sdg testbed {command} " in result.stdout.partition("Example:")[2]


def test_help_never_loads_torch():
    code = (
        "import sys; from sdg.cli import cli; "
        "cli(['testbed', 'measure', '--help'], standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert ended.returncode == 0


def test_a_prompt_of_another_world_is_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["testbed", "sample", "--out", str(tmp_path / "out"), "A ballerina"])
    assert exit.value.code == 1
    assert capsys.readouterr().err.startswith("sdg: The testbed cannot read the prompt 'A ballerina'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "--out", "out", "--pipeline", "nowhere"],
        ["corpus", "--count", "4", "--out", "out", "--pipeline", "nowhere"],
        ["measure", "--what", "generator", "--pipeline", "nowhere"],
        ["measure", "--what", "scorer", "--scorer", "nowhere"],
        ["train-generator", "--vae", "nowhere", "--out", "out"],
    ],
)
def test_a_model_that_is_not_there_is_one_sentence_and_nothing_is_left(
    tmp_path, monkeypatch, capsys, arguments
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main(["testbed", *arguments])
    assert exit.value.code == 1
    assert capsys.readouterr().err.startswith("sdg: nowhere holds no ")
    assert not list(tmp_path.iterdir())


def test_measure_prints_a_table_and_writes_json(tmp_path, monkeypatch):
    from sdg.testbed.models.measure import GeneratorQuality, Rate

    asked = {}

    def measure_generator(out, **settings):
        asked.update(settings)
        return GeneratorQuality(5, 10, 8, 1.5, (Rate("clean", None, 0.5, 0.25, 0.75, 0.5),))

    monkeypatch.setattr("sdg.testbed.models.measure.measure_generator", measure_generator)
    arguments = ["--what", "generator", "--prompts", "5", "--steps", "8", "--json", str(tmp_path / "m.json")]
    result = CliRunner().invoke(cli, ["testbed", "measure", *arguments])
    assert result.exit_code == 0, result.stderr
    assert "| **clean** | 50.0 % | 25.0–75.0 % |" in result.stdout
    assert asked["prompts"] == 5
    assert asked["seeds"] == 2
    assert json.loads((tmp_path / "m.json").read_text())["rates"][0]["share"] == 0.5


def test_training_passes_its_options_on_and_says_where_the_result_is(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("sdg.testbed.models.generator.vae.train_vae", lambda run: asked.update(asdict(run)))
    arguments = ["--out", str(tmp_path), "--steps", "7", "--seed", "2", "--resume", "--max-minutes", "3"]
    result = CliRunner().invoke(cli, ["testbed", "train-vae", *arguments])
    assert result.exit_code == 0
    assert asked == {"out": tmp_path, "steps": 7, "seed": 2, "resume": True, "max_minutes": 3}
    assert str(tmp_path / "vae") in result.stderr


@pytest.mark.parametrize(
    ("command", "function"),
    [
        (["train-vae"], "generator.vae.train_vae"),
        (["train-generator", "--vae", "folder"], "generator.flow.train_generator"),
        (["distil-generator", "--pipeline", "folder"], "generator.flow.distil_guidance"),
        (["train-scorer"], "scorer.train_scorer"),
        (["pretrain-detector"], "detector.speak.pretrain"),
    ],
)
def test_a_training_gets_the_options_that_it_takes(
    command: list[str], function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, name = f"sdg.testbed.models.{function}".rpartition(".")
    training = create_autospec(getattr(import_module(module), name))
    monkeypatch.setattr(f"{module}.{name}", training)
    monkeypatch.setattr("sdg.testbed.models.packaged.load_generator", lambda folder: None)
    invoked = CliRunner().invoke(
        cli, ["testbed", *command, "--out", str(tmp_path), "--seed", "7", "--resume"]
    )
    assert invoked.exit_code == 0, invoked.output
    asked = next((vars(each) for each in training.call_args.args if isinstance(each, Run)), None)
    assert (asked or training.call_args.kwargs).items() >= {"seed": 7, "resume": True}.items()
