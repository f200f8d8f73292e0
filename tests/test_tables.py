"""Tables print aligned, whole, and as text whatever their cells hold."""

from __future__ import annotations

import pytest

from sdg.tables import Table, in_markdown, print_tables

TABLE = Table("Counts", ("name", "images"), (("[red]a", "1"), ("b", "1,000")), frozenset({1}))


def test_plain_text_is_aligned_under_a_caption() -> None:
    assert str(TABLE).splitlines() == ["Counts", "name    images", "[red]a       1", "b        1,000"]
    assert Table("name", ("name",), ()).caption == ""
    assert str(Table("name", ("name",), ())) == "name"


def test_a_pipe_gets_every_column_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    wide = Table("Wide", tuple(f"column {n}" for n in range(14)), (("[bold]x",) * 14,))
    print_tables([TABLE, wide])
    out = capsys.readouterr().out
    assert "[red]a" in out
    assert "column 13" in out
    assert out.count("[bold]x") == 14


def test_a_pipe_gets_a_long_cell_and_many_columns_whole(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "word " * 80 + "end"
    names = tuple(f"generator-{n:02d}-long" for n in range(40))
    print_tables([Table("A", ("reason", "times"), ((reason, "3"),)), Table("B", names, (names,)), TABLE])
    out = capsys.readouterr().out
    assert reason in out
    assert all(out.count(name) == 2 for name in names)
    assert "…" not in out


def test_a_name_is_no_link_and_no_picture_in_markdown() -> None:
    name = "![x](http://a/b.png) [l](javascript:alert(1)) [r][s] [1, 2] *a* &lt; <b>\r# g | \\"
    assert in_markdown(name) == (
        r"![x\](http://a/b.png) [l\](javascript:alert(1)) [r\][s] [1, 2] *a* &amp;lt; &lt;b> # g \| \\"
    )
    head, _, row = Table("t", ("BoxF1@0.5", "a"), (("x\u2028y", "1"),)).markdown().splitlines()
    assert (head, row) == ("| BoxF1@0.5 | a |", "| x y | 1 |")
