"""Which checkpoints stay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xgen.train.retention import Summary, keep_steps

losses = st.none() | st.floats(allow_infinity=True, allow_nan=True)
runs = st.dictionaries(st.integers(1, 200), losses).map(lambda d: [Summary(step, loss) for step, loss in d.items()])
rules = st.tuples(st.integers(0, 5), st.integers(0, 50), st.integers(0, 4))


@given(runs, rules)
def test_the_last_ones_stay_whatever_the_other_rules_say(run: list[Summary], rule: tuple[int, int, int]) -> None:
    keep, keep_every, keep_best = rule
    steps = sorted(summary.step for summary in run)
    staying = keep_steps(run, keep, keep_every, keep_best)
    assert set(steps[-max(1, keep) :]) <= staying <= set(steps)
    assert {step for step in steps if keep_every and step % keep_every == 0} <= staying


@given(runs, rules)
def test_no_checkpoint_that_goes_is_better_than_one_that_stays_for_its_loss(
    run: list[Summary], rule: tuple[int, int, int]
) -> None:
    keep, keep_every, keep_best = rule
    for_their_loss = keep_steps(run, keep, keep_every, keep_best) - keep_steps(run, keep, keep_every, 0)
    known = {s.step: s.loss for s in run if s.loss is not None and s.loss == s.loss}
    assert len(for_their_loss) <= keep_best
    assert for_their_loss <= known.keys()
    going = known.keys() - keep_steps(run, keep, keep_every, keep_best)
    assert all(known[stays] <= known[goes] for stays in for_their_loss for goes in going)
    if keep_best and known:
        best = min(known.values())
        assert any(known.get(step) == best for step in keep_steps(run, keep, keep_every, keep_best))


@given(runs, rules)
def test_pruning_after_every_checkpoint_keeps_what_pruning_once_would(
    run: list[Summary], rule: tuple[int, int, int]
) -> None:
    """The trainer only sees what its earlier prunings left."""
    there: list[Summary] = []
    for summary in sorted(run, key=lambda s: s.step):
        there.append(summary)
        staying = keep_steps(there, *rule)
        there = [s for s in there if s.step in staying]
    assert {s.step for s in there} == keep_steps(run, *rule)


def test_rules_add_up() -> None:
    run = [Summary(10, 3.0), Summary(20, 1.0), Summary(30, 2.0), Summary(40, 2.0), Summary(50, None), Summary(60, 2.5)]
    assert keep_steps(run, keep=2, keep_every=0, keep_best=0) == {50, 60}
    assert keep_steps(run, keep=1, keep_every=30, keep_best=0) == {30, 60}
    assert keep_steps(run, keep=1, keep_every=0, keep_best=2) == {20, 40, 60}
    assert keep_steps([], keep=2, keep_every=10, keep_best=3) == set()
