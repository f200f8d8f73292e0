from io import StringIO

import pytest
from rich.console import Console

from sdg.data.formats import write_records
from sdg.data.splits import assign_prompts
from sdg.data.statistics import NO_GENERATOR, statistics
from sdg.defects import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.records import Record


def record(generator, *defects, status="ok"):
    box = (0, 0, 9, 9)
    diagnosis = Diagnosis(
        tuple(Defect(box, kind, "", importance) for kind, importance in defects), status=status
    )
    return Record("a.png", "", diagnosis, generator=generator)


RECORDS = [
    record("A"),
    record("A", ("artifact", 1), ("artifact", 10), ("artifact", 11)),
    record("A", ("artifact", 100), ("misalignment", 91)),
    record("A", ("misalignment", None)),
    record("B", ("artifact", 50)),
    record(None),
    Record("a.png", "", None, generator="A"),
    record("A", status="failed"),
    record("A", status="truncated"),
]


def test_the_three_panels_are_counted_by_generator():
    result = statistics(iter(RECORDS))
    assert list(result.generators) == [NO_GENERATOR, "A", "B"]
    a = result.generators["A"]
    assert a.images == 4
    assert a.defects_per_image("artifact") == 4 / 4
    assert a.defects_per_image("misalignment") == 2 / 4
    assert a.shares() == {"clean": 0.25, "artifact only": 0.25, "misalignment only": 0.25, "both": 0.25}
    assert a.to_dict()["importance"] == {
        "artifact": {"1-10": 2, "11-20": 1, "91-100": 1}
        | {f"{low}-{low + 9}": 0 for low in range(21, 91, 10)},
        "misalignment": {"91-100": 1} | {f"{low}-{low + 9}": 0 for low in range(1, 91, 10)},
    }


def test_all_is_the_sum_of_the_generators():
    overall = statistics(RECORDS).to_dict()["overall"]
    assert overall["images"] == 6
    assert overall["defects"] == {"artifact": 5, "misalignment": 2}
    assert overall["shares"] == {
        "clean": 2 / 6,
        "artifact only": 2 / 6,
        "misalignment only": 1 / 6,
        "both": 1 / 6,
    }


def test_images_of_which_nothing_is_known_are_counted_apart():
    assert statistics(RECORDS).unknown == 3


def test_no_images_have_no_means():
    result = statistics([])
    assert result.overall.defects_per_image("artifact") is None
    assert set(result.overall.shares().values()) == {None}
    assert [len(table.rows) for table in result.tables()] == [1, 1, 10]


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml"), ("a.pdf", b"%PDF")])
@pytest.mark.parametrize("records", [RECORDS, []])
def test_a_plot_is_a_file_of_the_kind_its_name_says(tmp_path, name, start, records):
    pytest.importorskip("matplotlib")
    statistics(records).plot(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(start)
    assert len(content) > 5000


def test_the_bars_of_the_plot_are_the_numbers():
    pytest.importorskip("matplotlib")
    per_image, shares, importance = statistics(RECORDS).plot().axes
    assert [bar.get_height() for bar in per_image.patches] == [0, 1, 1, 0, 0.5, 0]
    assert sum(bar.get_width() for bar in shares.patches) == pytest.approx(
        4 * 100
    )  # three generators and all
    assert {line.get_label(): line.get_ydata()[0] for line in importance.lines} == {
        NO_GENERATOR: 0,
        "A": 40,
        "B": 0,
    }


def test_a_plot_of_another_kind_is_refused(tmp_path):
    with pytest.raises(SdgError, match=r"^A plot is a \.png, \.svg or \.pdf file, not .*a\.jpg\.$"):
        statistics([]).plot(tmp_path / "a.jpg")


def test_names_of_generators_are_text_in_the_tables(tmp_path):
    names = ("[/bold]", "[red]x", "all")
    records = [Record(f"{n}.png", f"cup {n}", Diagnosis(), generator=names[n % 3]) for n in range(6)]
    write_records(tmp_path / "a.jsonl", records, "sdg")
    tables = [*statistics(records).tables(), assign_prompts(tmp_path / "a.jsonl", {"a": 1, "b": 1}).table()]
    console = Console(width=120, file=StringIO())
    for table in tables:
        console.print(table.rich())
    shown = console.file.getvalue()
    assert [shown.count(name) for name in names[:2]] == [4, 4]
    assert [str(table).count(names[0]) for table in tables] == [1, 1, 1, 1]
    # The generator of that name, then the sum.
    assert [row[:2] for row in tables[0].rows if row[0] == "all"] == [("all", "2"), ("all", "6")]


def test_a_statistic_prints_its_tables():
    lines = str(statistics(RECORDS)).splitlines()
    assert lines[0] == "Defects per image"
    assert lines[1].split() == ["generator", "images", "artifact", "misalignment"]
    assert lines[3].split() == ["A", "4", "1.00", "0.50"]
    assert len({len(line) for line in lines[1:6]}) == 1
