"""Tables as a page and a terminal show them."""

from __future__ import annotations

from xgen.drawing.tables import Cell, Table

TABLE = Table(
    ("task", "4k", "8k", "said|"),
    (
        ("niah", Cell("95.0", "[93.1, 96.4]"), Cell("9.5", "[8.0, 11.2]"), "a|b"),
        ("vt", Cell("100"), "-", "two\nlines"),
    ),
)


def test_markdown_has_all_of_a_cell_and_no_column_that_is_not_there() -> None:
    assert TABLE.to_markdown() == (
        "| task | 4k | 8k | said |\n"
        "| --- | --: | --: | --- |\n"
        "| niah | 95.0 [93.1, 96.4] | 9.5 [8.0, 11.2] | a\\|b |\n"
        "| vt | 100 | - | two lines |\n"
    )


def _without(table: Table, width: int) -> list[str]:
    narrow = Table(table.heads[:3], tuple(row[:3] for row in table.rows))
    return narrow.to_text(width)


def test_a_terminal_with_room_shows_intervals() -> None:
    assert _without(TABLE, 80) == [
        "task                 4k               8k",
        "niah  95.0 [93.1, 96.4]  9.5 [8.0, 11.2]",
        "vt                  100                -",
    ]


def test_a_narrow_one_leaves_them_out_and_a_narrower_one_cuts_the_table() -> None:
    assert _without(TABLE, 30) == ["task    4k   8k", "niah  95.0  9.5", "vt     100    -"]
    assert _without(TABLE, 12) == ["task    4k", "niah  95.0", "vt     100", "", "task   8k", "niah  9.5", "vt      -"]


def test_no_line_is_wider_than_the_terminal_where_a_column_fits() -> None:
    wide = Table(("task", *map(str, range(30))), (("a", *(["100.0"] * 30)),))
    for width in (20, 41, 80):
        lines = wide.to_text(width)
        assert max(map(len, lines)) <= width
        assert " ".join(lines).count("100.0") == 30
