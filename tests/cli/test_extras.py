"""A command whose libraries are not installed says which extra brings them, in one sentence."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from sdg.cli import EXTRAS, main

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """Make a module look as if it were not installed."""

    def hide(module: str) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == module]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)

    return hide


def test_a_missing_library_is_one_sentence_with_the_extra_to_install(without, capsys, tmp_path) -> None:
    without("yaml")
    recipe = ROOT / "recipes" / "align" / "boxflow-testbed.yaml"
    with pytest.raises(SystemExit) as stopped:
        main(["align", str(recipe), "--out", str(tmp_path / "run")])
    assert stopped.value.code == 1
    out, err = capsys.readouterr()
    wanted = (
        "sdg: This needs yaml, which is not installed: pip install 'structured-defect-grounding[models]'.\n"
    )
    assert (out, err) == ("", wanted)


def test_a_run_on_ray_without_ray_is_one_sentence_and_leaves_no_folder(without, capsys, tmp_path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"image": [b"no picture"], "filepath": ["a.png"], "caption": ["a cup"]})
    pq.write_table(table, tmp_path / "in.parquet")
    without("ray")
    out = tmp_path / "found"
    with pytest.raises(SystemExit) as stopped:
        main(["diagnose", str(tmp_path / "in.parquet"), "--ray", "local", "--jobs", "2", "--out", str(out)])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == (
        "sdg: A run on Ray needs it: pip install 'structured-defect-grounding[ray,parquet]'; without it, "
        "--shard K/N and --jobs N.\n"
    )
    assert not out.exists()


def test_any_other_missing_module_is_a_fault_of_ours_and_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sdg.cli.data", None)
    with pytest.raises(ModuleNotFoundError):
        main(["data", "stats", "a.jsonl"])


def test_every_extra_that_is_named_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS.values()) <= set(project["optional-dependencies"])
