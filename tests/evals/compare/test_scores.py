"""Scores of two: paired on the same samples, not judged where they are of other texts, noise called noise."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from tests.evals.made import answers, record
from xgen.evals.compare.scores import ScoreDifference, in_short, score_differences
from xgen.evals.measures import measures
from xgen.evals.protocol import Record


def compared(first: Sequence[Record], other: Sequence[Record], keys: Sequence[str] = ()) -> list[ScoreDifference]:
    ours, theirs = measures(first), measures(other)
    return score_differences(ours, theirs, keys or [key for key, one in ours.items() if in_short(one)])


def ruler(seed: int, skill: float, number: int = 100, **more: str) -> list[Record]:
    """Samples have a difficulty of their own, the same in every run."""
    hard, luck = random.Random(7), random.Random(seed)
    found = []
    for task in ("niah_single_1", "vt", "cwe"):
        for length in (1024, 2048):
            right = [int(0.8 * hard.random() + 0.2 * luck.random() < skill) for _ in range(number)]
            found += answers("ruler", task, length, right, **more)
    return found


def test_noise_is_called_noise_over_many_seeds() -> None:
    """Five averages a comparison, of which any that is called real is one comparison gone wrong."""
    wrong = 0
    for seed in range(30):
        found = compared(ruler(seed, 0.6), ruler(1000 + seed, 0.6))
        assert len(found) == 5 and all(one.test and one.test.family == 5 for one in found)
        wrong += any(one.verdict != "no real difference" for one in found)
    assert wrong <= 4  # 5% of 30 are 1.5


def test_a_planted_difference_is_called_better_or_worse() -> None:
    for first, other, verdict in ((0.6, 0.75, "better"), (0.75, 0.6, "worse")):
        found = compared(ruler(1, first), ruler(2, other))
        assert {one.verdict for one in found} == {verdict}
        assert {one.paired for one in found} == {300}  # joined over lengths, or at one


def test_pairs_tell_more_than_their_scores_alone() -> None:
    first, other = ruler(1, 0.6), ruler(2, 0.68)
    others = [one.model_copy(update={"digest": f"other {one.digest}"}) for one in other]
    paired, unpaired = compared(first, other), compared(first, others)
    for a, b in zip(paired, unpaired, strict=True):
        assert a.test and b.test and a.test.mean == pytest.approx(b.test.mean)
        assert a.test.high - a.test.low < 0.8 * (b.test.high - b.test.low)
        assert (a.paired, b.paired) == (300, 0)
        assert "their samples differ" in b.why


def test_only_samples_of_equal_digests_are_paired() -> None:
    first, other = answers("recall", "pairs", 1024, [1] * 20), answers("recall", "pairs", 1024, [0] * 20)
    other[:5] = [one.model_copy(update={"digest": "another"}) for one in other[:5]]
    (found,) = compared(first, other)
    assert (found.paired, found.why) == (15, "5 samples differ: their samples differ")


def test_scores_on_other_texts_are_not_judged() -> None:
    first, other = ruler(1, 0.6, source="a.txt (1a2b)"), ruler(2, 0.9, source="b.txt (3c4d)")
    other = [one.model_copy(update={"digest": f"other {one.digest}"}) for one in other]
    for one in compared(first, other):
        assert (one.verdict, one.test) == ("not compared", None)
        assert one.why == "their texts differ: a.txt (1a2b), and b.txt (3c4d)"


def test_averages_over_other_lengths_are_not_judged() -> None:
    first, other = ruler(1, 0.6), ruler(2, 0.6)
    longer = [
        record("ruler", task, 4096, number, 0.0) for task in ("niah_single_1", "vt", "cwe") for number in range(100)
    ]
    found = {one.key: one for one in compared(first, [*other, *longer])}
    over_all = [one for key, one in found.items() if key.endswith("/0")]
    assert len(over_all) == 3
    for one in over_all:
        assert (one.verdict, one.test) == ("not compared", None)
        assert one.why == "they are over other lengths: 1k, 2k, and 1k, 2k, 4k"
    assert found["ruler/average/1024"].test and found["ruler/average/1024"].test.family == 2


def test_one_text_in_two_places_is_the_same_text() -> None:
    first, other = ruler(1, 0.6, source="/a/x.txt (1a2b)"), ruler(2, 0.9, source="/b/x.txt (1a2b)")
    other = [one.model_copy(update={"digest": f"other {one.digest}"}) for one in other]
    assert all(one.test for one in compared(first, other))


def test_of_a_loss_less_is_better_and_other_documents_are_not_compared() -> None:
    def losses(off: float) -> list[Record]:
        return [record("perplexity", "books", 4096, at, 2.0 + at % 5 + off + at / 1000) for at in range(12)]

    (found,) = compared(losses(0.0), losses(-0.1))
    assert (found.verdict, found.paired) == ("better", 12)
    strangers = [one.model_copy(update={"digest": "another"}) for one in losses(-0.1)]
    (found,) = compared(losses(0.0), strangers)
    assert (found.verdict, found.test) == ("not compared", None)


def test_averages_of_other_tasks_are_not_of_one_thing() -> None:
    first, other = ruler(1, 0.6), [one for one in ruler(2, 0.6) if one.task != "cwe"]
    found = compared(first, other)
    assert {one.verdict for one in found} == {"not compared"}
    assert found[0].why == "only one of them has cwe"


def test_what_is_real_alone_may_be_chance_among_many() -> None:
    def run(right: int) -> list[Record]:
        """One score that differs by 6 of 40, and 19 that do not."""
        first = answers("recall", "task00", 1024, [1] * right + [0] * (40 - right))
        return first + [one for n in range(1, 20) for one in answers("recall", f"task{n:02}", 1024, [1, 0] * 20)]

    alone, *_ = compared(run(20), run(27), ["recall/task00/1024"])
    among, *_ = compared(run(20), run(27))
    assert alone.test and among.test and alone.test.p == among.test.p == alone.test.adjusted < 0.05
    assert (alone.verdict, among.verdict) == ("better", "no real difference")
    assert among.test.adjusted == pytest.approx(20 * among.test.p)


def test_the_same_scores_do_not_differ() -> None:
    assert {one.verdict for one in compared(ruler(1, 0.6), ruler(1, 0.6))} == {"no real difference"}


def test_the_level_is_that_of_the_intervals() -> None:
    ours, theirs = measures(ruler(1, 0.6)), measures(ruler(2, 0.66))
    narrow, wide = (score_differences(ours, theirs, ["ruler/average/1024"], level)[0] for level in (0.8, 0.99))
    assert narrow.test and wide.test
    assert wide.test.low < narrow.test.low < narrow.test.high < wide.test.high
    assert (wide.first.low or 0) < (narrow.first.low or 0)
