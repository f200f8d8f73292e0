import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdg.data.splits import assign_prompts, prompt_key, write_splits
from sdg.errors import SdgError

SHARES = {"train": 0.9, "test": 0.1}


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def line(prompt, generator, number=0):
    return {"filepath": f"{generator}/{prompt}-{number}.png", "caption": prompt, "generator": generator}


def split(path, folder, shares=SHARES, seed=0):
    written = write_splits(path, folder, assign_prompts(path, shares, seed))
    return {name: [json.loads(text) for text in target.open()] for name, target in written.items()}


@pytest.fixture
def mixed(tmp_path):
    """Prompts painted by one, some or all of four generators, some of them several times."""
    rng = random.Random(0)
    lines = [
        line(f"prompt {number}", generator, copy)
        for number in range(1000)
        for generator in rng.sample("ABCD", rng.choice([1, 1, 2, 4]))
        for copy in range(rng.choice([1, 1, 3]))
    ]
    rng.shuffle(lines)
    return write_lines(tmp_path / "ann.jsonl", lines)


def test_no_line_is_lost_and_no_prompt_is_in_two_splits(mixed, tmp_path):
    parts = split(mixed, tmp_path / "out", {"train": 8, "validation": 1, "test": 1})
    lines = [json.loads(text) for text in mixed.open()]
    again = [{k: v for k, v in row.items() if k != "split"} for rows in parts.values() for row in rows]
    assert sorted(map(json.dumps, again)) == sorted(map(json.dumps, lines))
    assert all(row["split"] == name for name, rows in parts.items() for row in rows)
    prompts = {name: {row["caption"] for row in rows} for name, rows in parts.items()}
    assert sum(map(len, prompts.values())) == len(set.union(*prompts.values()))


@pytest.mark.parametrize("seed", range(5))
def test_every_generator_has_its_share_in_every_split(mixed, seed):
    counts = assign_prompts(mixed, {"train": 8, "validation": 1, "test": 1}, seed).counts
    for generator in "ABCD":
        total = sum(of_split[generator] for of_split in counts.values())
        for name, share in {"train": 0.8, "validation": 0.1, "test": 0.1}.items():
            # Prompts come in lumps of up to three images a generator.
            assert abs(counts[name][generator] - share * total) <= 6


def test_single_prompts_are_dealt_to_within_one_image(tmp_path):
    lines = [line(f"{generator} {number}", generator) for generator in "ABCD" for number in range(333)]
    counts = assign_prompts(write_lines(tmp_path / "a.jsonl", lines), SHARES).counts
    assert all(abs(counts["test"][generator] - 33.3) <= 1 for generator in "ABCD")


def test_the_split_does_not_depend_on_the_order_of_the_lines(mixed, tmp_path):
    lines = [json.loads(text) for text in mixed.open()]
    other = write_lines(tmp_path / "other.jsonl", reversed(lines))
    assert [row["filepath"] for row in split(mixed, tmp_path / "a")["test"]] == [
        row["filepath"] for row in reversed(split(other, tmp_path / "b")["test"])
    ]


@settings(max_examples=20)
@given(st.randoms(use_true_random=False), st.sampled_from([(8, 1, 1), (1, 1, 1), (3, 2)]))
def test_shuffled_lines_give_the_same_split(tmp_path_factory, rng, weights):
    lines = [
        line(f"p {n}", g) for n in range(60) for g in rng.sample(["c", "a", None, "b"], rng.choice([1, 3, 4]))
    ]
    shares = {f"part{n}": weight for n, weight in enumerate(weights)}
    folder = tmp_path_factory.mktemp("splits")
    found = []
    for name in ("as it is.jsonl", "shuffled.jsonl"):
        assignment = assign_prompts(write_lines(folder / name, lines), shares)
        found.append(([assignment.split_of(f"p {n}") for n in range(60)], assignment.counts))
        rng.shuffle(lines)
    assert found[0] == found[1]


def test_the_seed_makes_the_split(mixed, tmp_path):
    def test_prompts(seed, name):
        return {row["caption"] for row in split(mixed, tmp_path / name, seed=seed)["test"]}

    assert test_prompts(1, "a") == test_prompts(1, "b")
    assert len(test_prompts(1, "a") & test_prompts(2, "c")) < 0.4 * len(test_prompts(1, "a"))


def test_prompts_that_differ_in_case_width_or_spacing_are_one(tmp_path):
    spellings = ["A  red CAT", " a red cat\n", "a\u00a0red\u3000cat", "Ａ red cat"]
    lines = [line(prompt, "A", number) for number, prompt in enumerate(spellings)]
    path = write_lines(tmp_path / "a.jsonl", [*lines, *(line(str(n), "A") for n in range(20))])
    assignment = assign_prompts(path, {"train": 1, "test": 1})
    assert len({assignment.split_of(prompt) for prompt in spellings}) == 1
    assert prompt_key("a cat", 0) != prompt_key("acat", 0)


def test_our_own_format_and_lines_without_a_generator_are_split_too(tmp_path):
    lines = [{"filepath": str(n), "prompt": str(n), "diagnosis": None} for n in range(10)]
    path = write_lines(tmp_path / "a.jsonl", lines)
    assert assign_prompts(path, {"a": 1, "b": 1}).counts == {"a": {None: 5}, "b": {None: 5}}


def test_another_prompt_has_no_split(mixed):
    with pytest.raises(KeyError):
        assign_prompts(mixed, SHARES).split_of("never seen")


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("AB")), min_size=1),
    st.lists(st.floats(0.01, 100), min_size=2, max_size=4),
)
def test_counts_are_those_of_the_lines(tmp_path_factory, images, weights):
    path = write_lines(tmp_path_factory.mktemp("splits") / "a.jsonl", [line(str(p), g) for p, g in images])
    try:
        assignment = assign_prompts(path, {f"part{n}": weight for n, weight in enumerate(weights)})
    except SdgError as error:
        assert "too few prompts" in str(error)  # noqa: PT017
        return
    expected: dict[str, Counter] = {name: Counter() for name in assignment.names}
    for prompt, generator in images:
        expected[assignment.split_of(str(prompt))][generator] += 1
    assert assignment.counts == expected


@pytest.mark.parametrize(
    ("shares", "reason"),
    [
        ({"train": 1}, "two splits or more"),
        ({"train": 1, "test": 0}, "The share of the split 'test' is a number above 0, not 0."),
        ({"train": 1, "test": float("nan")}, "above 0, not nan"),
        ({"train": 1, "../test": 1}, "named in letters and digits"),
        ({"a": 1, "b": 1, "c": 1}, "too few prompts: the split '[abc]' would be empty"),
    ],
)
def test_shares_that_make_no_split_are_one_sentence(tmp_path, shares, reason):
    path = write_lines(tmp_path / "a.jsonl", [line("x", "A"), line("y", "A")])
    with pytest.raises(SdgError, match=reason):
        assign_prompts(path, shares)


def test_a_line_without_a_prompt_is_named(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [line("x", "A"), {"filepath": "a.png"}])
    with pytest.raises(SdgError, match="line 2: 'caption' is missing"):
        assign_prompts(path, SHARES)


def test_a_file_that_holds_its_pictures_is_not_divided(tmp_path):
    pyarrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    path = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.table({"caption": ["a cat"], "image": [b"png"]}), path)
    with pytest.raises(SdgError, match=r"in\.parquet holds its pictures itself; splits are of files"):
        split(path, tmp_path / "out")


def test_a_file_is_not_overwritten_by_its_own_split(tmp_path):
    path = write_lines(tmp_path / "train.jsonl", [line(str(n), "A") for n in range(20)])
    with pytest.raises(SdgError, match="would be overwritten"):
        split(path, tmp_path)


def test_a_released_line_is_split_by_its_caption_whatever_stands_beside_it(tmp_path):
    lines = [
        {"filepath": f"{n}-{m}", "caption": f"cup {n}", "prompt": f"{n}-{m}", "ann_translated_bboxes": []}
        for n in range(20)
        for m in range(3)
    ]
    assignment = assign_prompts(write_lines(tmp_path / "a.jsonl", lines), {"a": 1, "b": 1})
    assert [sum(counts.values()) for counts in assignment.counts.values()] == [30, 30]
    assert assignment.split_of("cup 0") in ("a", "b")
    with pytest.raises(KeyError):
        assignment.split_of("0-0")


@pytest.mark.parametrize("indent", [None, 1])
def test_a_file_that_is_one_document_is_to_be_converted_first(tmp_path, indent):
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"images": [], "annotations": []}, indent=indent))
    with pytest.raises(
        SdgError, match=r"coco\.json holds no JSON Lines.*sdg data convert .*coco\.jsonl --to sdg"
    ):
        assign_prompts(path, SHARES)
    write_lines(path, [line(str(number), "A") for number in range(20)])
    assert assign_prompts(path, SHARES).names == ("train", "test")


def test_no_part_of_an_earlier_split_stays_beside_the_new_ones(mixed, tmp_path):
    folder = tmp_path / "out"
    split(mixed, folder, {"train": 9, "validation": 1})
    write_lines(folder / "prompts.jsonl", [{"caption": "a cat"}])  # no part
    with pytest.raises(SdgError, match=r"validation\.jsonl is a part of an earlier split"):
        split(mixed, folder, {"train": 9, "test": 1})
    assert sorted(path.name for path in folder.iterdir()) == [
        "prompts.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]
    split(mixed, folder, {"train": 8, "validation": 2})
    (folder / "validation.jsonl").unlink()
    split(mixed, folder, {"train": 9, "test": 1})


@pytest.mark.parametrize(
    "text", ['{"caption": "mine"}\n', '{"caption": "a", "split": "test"}\n', "my notes\n"]
)
def test_a_file_that_is_no_part_of_a_split_is_not_replaced(mixed, tmp_path, text):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "train.jsonl").write_text(text)
    with pytest.raises(
        SdgError, match=r"train\.jsonl exists and is no part of an earlier split; name another"
    ):
        split(mixed, folder)
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("train.jsonl", text)]
    (folder / "train.jsonl").write_text("")
    split(mixed, folder)
