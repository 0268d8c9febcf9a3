"""Who stands where, and for whom the others wait."""

from __future__ import annotations

from xgen.hang.summary import Stand, header, ranges, say, summarise


def dump(rank: int, *frames: tuple[str, int, str], count: int = 9, state: str = "S", native: str = "") -> str:
    stand = Stand(rank, f"g{rank // 8:02d}", "train", 1240, count, 312, "", (), False)
    stack = "\n".join(f'  File "{file}", line {line} in {function}' for file, line, function in frames)
    return (
        f"{header(stand, 100 + rank)}\n== state ==\n{state}: the rank\n\n"
        f"== Python stacks ==\nThread 0x01 (most recent call first):\n  <no Python frame>\n\n"
        f"Main thread 0x02 (most recent call first):\n{stack}\n\n== native stacks ==\n{native}\n"
    )


MODULE = ("/runs/x/code/xgen/train/trainer.py", 200, "train_step")
WAITS = ("/runs/x/code/xgen/train/agreement.py", 52, "end")
READS = ("/runs/x/code/xgen/data/store.py", 141, "read")


def test_the_one_that_did_not_come_is_named_among_many() -> None:
    dumps = [dump(rank, WAITS, MODULE) for rank in range(128) if rank != 11] + [dump(11, READS, MODULE, count=8)]
    found = summarise(dumps, 128, {})
    assert found.groups[0].ranks == (11,)
    assert say(found, 312.4, "train", 1240) == (
        "hung: no step for 312 s in phase train at step 1,240; rank 11 on g01 stands at xgen/data/store.py:141 read; "
        "ranks 0-10,12-127 at xgen/train/agreement.py:52 end"
    )
    assert found.text.splitlines()[:3] == [
        "1 of 128 ranks: 11  <- the others wait for this one",
        "  xgen/data/store.py:141 read",
        "  xgen/train/trainer.py:200 train_step",
    ]


def test_of_ranks_at_one_line_the_native_stack_tells_who_waits() -> None:
    line = ("/runs/x/code/xgen/train/update.py", 70, "_update")
    waiting = 'Process 100: python\n\nThread 100 (idle): "MainThread"\n    c10d::Work::wait (libtorch_cpu.so)\n'
    dumps = [dump(0, line, native=waiting), dump(1, line)]
    found = summarise(dumps, 2, {})
    assert [(group.ranks, group.waits) for group in found.groups] == [((1,), False), ((0,), True)]


def test_a_node_without_a_word_is_who_the_others_wait_for() -> None:
    found = summarise([dump(rank, WAITS) for rank in range(8)], 16, dict.fromkeys(range(8, 16), "g01"))
    assert found.text.startswith("no word of ranks 8-15 on g01\n")
    assert "at step 1,240; no word of ranks 8-15; rank 0 on g00 stands at " in say(found, 312, "train", 1240)


def test_a_stopped_rank_comes_before_one_that_has_done_less() -> None:
    found = summarise([dump(0, READS, count=2), dump(1, WAITS, state="T")], 2, {})
    assert found.odd is not None
    assert (found.odd.rank, found.groups[0].state) == (1, "T")
    assert found.text.startswith("1 of 2 ranks: 1, stopped by a signal  <- the others wait for this one\n")


def test_what_is_no_dump_is_a_rank_without_a_word_and_a_stack_may_be_missing() -> None:
    found = summarise(["", "\x00torn", dump(2)], 3, {})
    assert (found.missing, found.odd and found.odd.rank) == ((0, 1), 2)
    assert "stands at an unknown place" in say(found, 5, "work", 0)
    assert say(summarise([], 2, {}), 5, "work", 0).endswith("; no rank could say where it stood")


def test_ranges() -> None:
    assert (ranges([]), ranges([3]), ranges([0, 1, 2, 5])) == ("", "3", "0-2,5")
    assert ranges(range(0, 40, 2)) == "0,2,4,6,8,10,12,14,…"
