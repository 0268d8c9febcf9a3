"""The logs of a run are read from any place on, in one order, and no line twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from xgen.runs import RunDir
from xgen.runs.log_files import LONGEST, Mark, lines_between, read_marks, seek_back, sizes
from xgen.runs.logs import Choice, Cursor, cut, rank_of, read_on, since, tail

BOTH = Choice()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "hello-abc234")
    run.create()
    return run


def write(run: RunDir, attempt: int, out: str, err: str, times: str = "") -> Path:
    folder = run.attempt_dir(attempt)
    folder.mkdir(exist_ok=True)
    for name, text in (("out.log", out), ("err.log", err), ("log.times", times)):
        (folder / name).write_text(text)
    return folder


def texts(folder: Path, cursor: Cursor, last: bool = True, choice: Choice = BOTH) -> list[str]:
    found = read_on(folder, cursor, choice.streams, sizes(folder, 0), last=last, marks=read_marks(folder))
    return [line.text.decode() for line in found if choice.counts(line.text)]


def test_both_streams_come_in_the_order_in_which_they_grew(run: RunDir) -> None:
    folder = write(run, 1, "0: a\n0: b\n0: d\n", "1: c\n1: e\n", "10 10 0\n11 10 5\n12 15 5\ntorn 1")
    assert texts(folder, Cursor(1)) == ["0: a", "0: b", "1: c", "0: d", "1: e"]


def test_whoever_goes_on_from_a_place_gets_no_line_twice_and_loses_none(run: RunDir) -> None:
    folder = write(run, 1, "0: a\n0: b\n0: d\n0: f", "1: c\n1: e\n", "10 10 0\n11 10 5\n12 15 5\n13 16 7\n")
    whole = list(read_on(folder, Cursor(1), BOTH.streams, sizes(folder, 0), last=True, marks=read_marks(folder)))
    assert {line.text for line in whole} >= {b"0: f", b"1: e"}
    for index, line in enumerate(whole):
        place = Cursor.parse(str(line.cursor))
        assert texts(folder, place) == [later.text.decode() for later in whole[index + 1 :]]


def test_a_line_that_is_being_written_waits_for_its_end(run: RunDir) -> None:
    folder = write(run, 1, "0: a\n0: hal", "")
    assert texts(folder, Cursor(1), last=False) == ["0: a"]
    assert texts(folder, Cursor(1, 5), last=True) == ["0: hal"]


@pytest.mark.parametrize("number", range(8))
def test_the_last_lines_are_the_last_of_what_is_shown_across_attempts(run: RunDir, number: int) -> None:
    write(run, 1, "0: z\n", "")
    folder = write(run, 2, "0: a\n0: b\n0: d\n", "1: c\n1: e\n", "10 10 0\n11 10 5\n12 15 5\n")
    place = tail(run, [1, 2], BOTH, number)
    shown = texts(run.attempt_dir(1), place) if place.attempt == 1 else []
    shown += texts(folder, place if place.attempt == 2 else Cursor(2))
    assert shown == ["0: z", "0: a", "0: b", "1: c", "0: d", "1: e"][max(0, 6 - number) :]


def test_the_last_lines_of_a_rank_are_sought_in_both_streams(run: RunDir) -> None:
    folder = write(run, 1, "0: a\n1: b\n0: c\n" * 1000, "xgen: d\n1: e\n")
    choice = Choice(ranks=frozenset([1]))
    assert texts(folder, tail(run, [1], choice, 3), choice=choice) == ["1: b", "1: b", "1: e"]


def test_the_end_of_ten_gigabytes_is_read_and_not_the_rest(run: RunDir) -> None:
    folder = write(run, 1, "", "")
    with (folder / "out.log").open("r+b") as file:  # a hole: nothing that a disk must hold
        file.seek(10 * 2**30)
        file.write(b"\n0: last but one\n0: last\n")
    place = tail(run, [1], BOTH, 2)
    assert texts(folder, place) == ["0: last but one", "0: last"]
    assert place.out == 10 * 2**30 + 1


def test_what_holds_no_newline_comes_in_pieces(run: RunDir) -> None:
    folder = write(run, 1, "x" * (2 * LONGEST + 3), "")
    file, end = folder / "out.log", 2 * LONGEST + 3
    assert [len(piece) for piece, _ in lines_between(file, 0, end, last=True)] == [LONGEST, LONGEST, 3]
    assert [place for _, place in lines_between(file, 0, end)] == [LONGEST, 2 * LONGEST]
    assert seek_back(file, 0, 10**9, 1, lambda _: True)[0] == 1


def test_since_begins_at_the_mark_before(run: RunDir) -> None:
    folder = write(run, 1, "0: a\n0: b\n", "1: c\n", "10 5 0\n20 5 5\n30 10 5\n")
    assert (since(run, [1], 25), since(run, [1], 5)) == (Cursor(1, 5, 5), Cursor(1))
    assert since(run, [1], 1e12) is None
    assert texts(folder, Cursor(1, 5, 5)) == ["0: b"]


def test_marks_that_a_hostile_or_torn_file_holds_are_no_end_of_a_log(run: RunDir) -> None:
    folder = write(run, 1, "0: a\n", "1: b\n", "10 999999 0\n-1 x y\n\x00\n11 0 0\n")
    assert read_marks(folder) == [Mark(10, 999999, 0), Mark(11, 0, 0)]
    assert texts(folder, Cursor(1)) == ["0: a", "1: b"]
    assert texts(folder, tail(run, [1], BOTH, 1)) == ["1: b"]


def test_a_log_that_was_emptied_is_seen(run: RunDir) -> None:
    folder = write(run, 1, "0: a\n", "")
    assert cut(folder, Cursor(1, 6, 0)) == ["out"]
    assert cut(folder, Cursor(1, 5, 0)) == []


def test_a_label_is_that_of_srun(run: RunDir) -> None:
    assert [rank_of(line) for line in (b"0: a", b" 12: b", b"3:", b"xgen: c", b"", b"x 1: d")] == [0, 12, 3] + [
        None
    ] * 3
    with pytest.raises(ValueError, match="'x' is no place in a log; write what xgen logs told"):
        Cursor.parse("x")
