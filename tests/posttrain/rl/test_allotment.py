"""Which prompts belong to which step: each to one, and no answer is begun from weights beyond the bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xgen.posttrain.rl.allotment import Allotment


@given(st.integers(1, 5), st.integers(0, 4), st.lists(st.lists(st.integers(1, 5), max_size=3), min_size=1, max_size=12))
def test_each_prompt_belongs_to_one_step_and_its_answers_are_begun_within_the_bound(
    per_step: int, staleness: int, refills: list[list[int]]
) -> None:
    last = len(refills) + 1  # one step more is to come
    allotment = Allotment(per_step, staleness, last)
    begun_at: dict[int, int] = {}
    taken: list[int] = []
    for step, wanted in enumerate(refills, start=1):
        version = step - 1
        for ahead in allotment.begin(step):
            begun_at[ahead] = version
        for count in wanted:
            allotment.refill(step, count)
        assert begun_at[step] >= step - 1 - staleness
        taken += [first + i for first, size in allotment.done(step) for i in range(size)]
    left = [first + i for rounds in allotment.rounds.values() for first, size in rounds for i in range(size)]
    assert sorted(taken + left) == list(range(allotment.next_prompt))
    assert len(allotment.rounds) == min(staleness, 1)


def test_what_is_kept_of_it_is_enough_to_go_on() -> None:
    allotment = Allotment(4, 2, 9)
    allotment.begin(1)
    allotment.refill(1, 3)
    allotment.done(1)
    other = Allotment(4, 2, 9, allotment.next_prompt, dict(allotment.rounds))
    assert other.begin(2) == [4] == allotment.begin(2)
    assert other.rounds == allotment.rounds == {2: [(4, 4)], 3: [(8, 4)], 4: [(15, 4)]}
