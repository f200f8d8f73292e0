"""`sdg testbed generate` as a user calls it."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from sdg.cli import cli, main
from sdg.data.sdg30k import read_annotations


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
