"""What a run remembers of its answers when it is killed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from xgen.posttrain.rl.answers import Judged
from xgen.posttrain.rl.journal import Begun, Journal, Known

WHOLE = Begun((5, 6, 7), (-0.5, -0.25, -3.5), "stop", ((3, 2), (4, 1)))
HALF = Begun((5,), (-0.5,), None, ((3, 1),))
RIGHT = Judged(1.1, {"math": 1.0, "length": 0.1}, {}, 0.25)
FAILED = Judged(None, {"math": None}, {"math": "error"}, 10.0, {"math": "ValueError: no"})


def journal(folder: Path, rank: int = 0, of: str = "a") -> Journal:
    return Journal(folder / "rollouts", rank, of)


def test_answers_of_all_ranks_come_back_as_they_were(tmp_path: Path) -> None:
    one, other = journal(tmp_path), journal(tmp_path, rank=1)
    one.add_answer(7, (10, 0), WHOLE)
    one.add_verdict(7, (10, 0), RIGHT)
    other.add_answer(7, (11, 3), WHOLE)
    other.add_verdict(7, (11, 3), FAILED)
    other.add_answer(7, (11, 2), WHOLE)
    other.add_answer(8, (12, 0), WHOLE)
    assert journal(tmp_path, rank=5).read(7) == {
        (10, 0): Known(WHOLE, RIGHT),
        (11, 3): Known(WHOLE, FAILED),
        (11, 2): Known(WHOLE),
    }


def test_what_had_begun_is_replaced_by_the_whole(tmp_path: Path) -> None:
    one = journal(tmp_path)
    one.add_answer(1, (0, 0), HALF)
    assert one.read(1) == {(0, 0): Known(HALF)}
    one.add_answer(1, (0, 0), WHOLE)
    assert one.read(1) == {(0, 0): Known(WHOLE)}
    one.add_verdict(1, (0, 0), RIGHT)
    one.add_answer(1, (0, 0), HALF)  # which was looked at before
    assert one.read(1) == {(0, 0): Known(WHOLE, RIGHT)}


@pytest.mark.parametrize(
    "damage",
    [b'{"of":"a","pro', b"\x00\xff\n", b"{}\n", b'{"of":"a","prompt":0,"answer":0,"tokens":"!","logprobs":"AA"}\n'],
)
def test_torn_and_strange_lines_are_passed_over_and_later_ones_are_not(tmp_path: Path, damage: bytes) -> None:
    one = journal(tmp_path)
    one.add_answer(1, (0, 0), WHOLE)
    one.close()
    with (tmp_path / "rollouts" / "step-1.rank-0.jsonl").open("ab") as file:
        file.write(damage)
    again = journal(tmp_path)
    again.add_answer(1, (0, 1), WHOLE)
    assert again.read(1) == {(0, 0): Known(WHOLE), (0, 1): Known(WHOLE)}


def test_answers_that_follow_from_another_spec_are_not_taken(tmp_path: Path) -> None:
    journal(tmp_path).add_answer(1, (0, 0), WHOLE)
    assert journal(tmp_path, of="b").read(1) == {}


def test_a_durable_checkpoint_lets_go_of_the_steps_behind_it(tmp_path: Path) -> None:
    one, other = journal(tmp_path), journal(tmp_path, rank=1)
    for step in (1, 2, 3):
        one.add_answer(step, (step, 0), WHOLE)
        other.add_answer(step, (step, 1), WHOLE)
    for each in (other, one):
        each.prune(2)
    assert [len(one.read(step)) for step in (1, 2, 3)] == [0, 0, 2]
    one.add_answer(3, (3, 2), WHOLE)
    assert len(one.read(3)) == 3


def test_where_nothing_can_be_written_the_training_goes_on_and_it_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = journal(tmp_path)
    (tmp_path / "rollouts").rmdir()
    for answer in range(3):
        one.add_answer(1, (0, answer), WHOLE)
        one.add_verdict(1, (0, answer), RIGHT)
    assert capsys.readouterr().err.count("cannot keep answers, the training goes on") == 1
    assert one.read(1) == {}
    (tmp_path / "rollouts").mkdir()
    one.add_answer(1, (0, 3), WHOLE)
    assert one.read(1) == {(0, 3): Known(WHOLE)}


def test_an_answer_that_comes_while_steps_are_let_go_of_is_kept(tmp_path: Path) -> None:
    one = journal(tmp_path)
    one.add_answer(1, (0, 0), HALF)
    thread = threading.Thread(target=lambda: one.add_answer(2, (1, 0), HALF))

    class Durable(int):
        """Looked at in the middle of it."""

        def __ge__(self, step: int) -> bool:
            if thread.ident is None:
                thread.start()
                thread.join(0.2)
            return int(self) >= step

    one.prune(Durable(0))
    thread.join(10)
    assert one.read(2) == {(1, 0): Known(HALF)}
    one.close()
