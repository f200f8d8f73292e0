"""The corpus: two halves, four variants, the oracle's annotations, and nothing lost to an interruption."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from kills import kill_and_resume
from PIL import Image

from sdg.cli import cli
from sdg.data.formats.sdg30k import read_annotations
from sdg.errors import SdgError
from sdg.testbed.datasets import injected as dataset
from sdg.testbed.datasets.corpus import CorpusSettings, fingerprint, generate_corpus, picture_request
from sdg.testbed.models.generator import sampling
from sdg.testbed.oracle import diagnose
from sdg.testbed.world.prompts import parse_prompt, split_of

COUNT = 212  # three chunks, the last one short


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every file."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, draw_like_a_generator):
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "model.safetensors").write_bytes(b"weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdg.testbed.models.packaged.load_generator", lambda folder: None)
        patch.setattr(sampling, "sample_pictures", draw_like_a_generator)
        yield folder


@pytest.fixture(scope="module")
def written(tmp_path_factory, pipeline):
    folder = tmp_path_factory.mktemp("data") / "corpus"
    told = []
    counts = generate_corpus(folder, COUNT, pipeline=pipeline, seed=3, on_progress=told.append)
    assert told == [100, 200, COUNT]
    records = {}
    for split in counts:
        records |= {int(Path(r.filepath).stem): r for r in read_annotations(folder / f"{split}.jsonl")}
    return folder, counts, [records[number] for number in range(COUNT)]


def test_half_is_injected_and_the_variants_share_the_other_half(written):
    counts = Counter(record.generator for record in written[2])
    assert counts["injected"] == COUNT // 2
    variants = {name: count for name, count in counts.items() if name != "injected"}
    assert set(variants) == {"testbed-4", "testbed-8", "testbed-12", "testbed-20"}
    assert max(variants.values()) - min(variants.values()) <= 1


def test_without_the_injected_half_the_variants_share_all(tmp_path, pipeline):
    result = CliRunner().invoke(
        cli,
        ["testbed", "corpus", "--count", "24", "--generated-only", "--seed", "3", "--pipeline", str(pipeline),
         "--out", str(tmp_path / "out")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    records = [r for file in (tmp_path / "out").glob("*.jsonl") for r in read_annotations(file)]
    counts = Counter(record.generator for record in records)
    assert counts == {"testbed-4": 6, "testbed-8": 6, "testbed-12": 6, "testbed-20": 6}


def test_splits_share_no_prompt_and_hold_both_halves(written):
    folder, counts, _ = written
    assert sum(counts.values()) == COUNT
    for split in counts:
        mine = list(read_annotations(folder / f"{split}.jsonl"))
        assert len(mine) == counts[split] > 0
        assert {split_of(parse_prompt(record.prompt)) for record in mine} == {split}
        assert {record.generator == "injected" for record in mine} == {True, False}


def test_generated_pictures_are_annotated_by_the_oracle(written):
    folder, _, records = written
    generated = [record for record in records if record.generator != "injected"]
    for record in generated:
        with Image.open(folder / record.filepath) as image:
            judged = diagnose(image, record.prompt, most=4)
        assert record.diagnosis == judged
        assert record.annotator == "oracle"
        assert record.diagnosis.reasoning
        assert len(record.diagnosis.defects) <= 4
    blank = [record for record in generated if int(Path(record.filepath).stem) % 5 == 0]
    assert not any(record.diagnosis.is_clean for record in blank)
    clean = [record.diagnosis.is_clean for record in generated if record not in blank]
    assert np.mean(clean) > 0.95


def test_the_injected_half_is_what_generate_draws(written):
    _, _, records = written
    settings = dataset.InjectedSettings(COUNT, 3, "core", 128)
    for number in range(0, 20, 2):
        drawn = dataset.draw(settings, number)
        assert records[number].prompt == drawn.prompt
        assert records[number].diagnosis == drawn.diagnosis


def test_an_interrupted_corpus_loses_at_most_a_chunk_and_ends_the_same(
    written, tmp_path, pipeline, monkeypatch, draw_like_a_generator
):
    out = tmp_path / "corpus"
    asked = []

    def dying(pipeline, prompts, *, numbers, **settings):
        asked.extend(numbers)
        if max(numbers) > 150 and deadly:
            raise KeyboardInterrupt
        return draw_like_a_generator(pipeline, prompts, numbers=numbers, **settings)

    monkeypatch.setattr(sampling, "sample_pictures", dying)
    deadly = True
    with pytest.raises(KeyboardInterrupt):
        generate_corpus(out, COUNT, pipeline=pipeline, seed=3)
    assert not out.exists()
    deadly = False
    asked.clear()
    assert generate_corpus(out, COUNT, pipeline=pipeline, seed=3) == written[1]
    assert sorted(asked) == list(range(101, COUNT, 2))
    assert contents(out) == contents(written[0])
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


@pytest.mark.slow
@pytest.mark.kill
def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path, pipeline):
    def command(out):
        return ["testbed", "corpus", "--count", COUNT, "--seed", 3, "--pipeline", pipeline, "--out", out]

    def assert_same(killed, whole):
        found = contents(killed)
        found.pop("settings.lock", None)  # of a run that was killed once its folder had its name
        assert found == contents(whole)

    kill_and_resume("testbed corpus", command, tmp_path, assert_same, again=(), ended=Path.exists)


def test_out_of_time_it_stops_and_the_same_call_goes_on(tmp_path, pipeline):
    out = tmp_path / "corpus"
    assert generate_corpus(out, 30, pipeline=pipeline, max_minutes=0) is None
    assert not out.exists()
    assert sum(generate_corpus(out, 30, pipeline=pipeline).values()) == 30


def test_another_generator_is_not_mixed_in(tmp_path, pipeline):
    out, other = tmp_path / "corpus", tmp_path / "other"
    generate_corpus(out, 30, pipeline=pipeline, max_minutes=0)
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"other weights")
    assert fingerprint(other) != fingerprint(pipeline)
    with pytest.raises(SdgError, match="was begun with other settings"):
        generate_corpus(out, 30, pipeline=other)


def test_prompts_depend_on_seed_and_number_alone():
    first, second = CorpusSettings(10, 4, "a"), CorpusSettings(99, 4, "b")
    assert [picture_request(first, n) for n in range(1, 9, 2)] == [
        picture_request(second, n) for n in range(1, 9, 2)
    ]
    assert picture_request(first, 1).prompt != picture_request(CorpusSettings(10, 5, "a"), 1).prompt
    assert [picture_request(first, n).steps for n in range(1, 9, 2)] == [4, 8, 12, 20]


def test_the_data_commands_read_it(written, tmp_path):
    folder = written[0]
    checked = CliRunner().invoke(cli, ["data", "validate", str(folder / "train.jsonl")])
    assert checked.exit_code == 0, checked.stderr
    told = CliRunner().invoke(
        cli, ["data", "stats", str(folder / "train.jsonl"), "--json", str(tmp_path / "s.json")]
    )
    assert told.exit_code == 0, told.stderr
    generators = json.loads((tmp_path / "s.json").read_text())["generators"]
    assert set(generators) == {"injected", "testbed-4", "testbed-8", "testbed-12", "testbed-20"}


def test_no_pictures_is_misuse(tmp_path, pipeline):
    with pytest.raises(ValueError, match="at least one"):
        generate_corpus(tmp_path / "out", 0, pipeline=pipeline)
