"""Scores of records: what is averaged over what, what is not known, and what an interval says of a length."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evals.made import answers, record
from xgen.evals.protocol import Item, Record
from xgen.evals.ruler import Summary as Averages
from xgen.evals.stats import mean_interval
from xgen.evals.summary import Summary, summarize

LENGTHS = (4096, 8192, 16384)


def ruler(scores: dict[str, dict[int, list[float]]]) -> list[Record]:
    return [
        record("ruler", task, length, index, score)
        for task, by_length in scores.items()
        for length, of in by_length.items()
        for index, score in enumerate(of)
    ]


def share(right: int, of: int = 50) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


def test_each_task_at_each_length_has_a_score_with_its_interval() -> None:
    records = ruler({"vt": {4096: [0.2, 1.0, 0.6], 8192: [0.0]}}) + answers("recall", "recall", 4096, [1, 0])
    summary = summarize(records)
    score = summary.find("ruler/vt/4096")
    assert score is not None and score.mean == pytest.approx(0.6) and score.count == 3
    expected = mean_interval([0.2, 1.0, 0.6])
    assert (score.low, score.high) == (expected.low, expected.high)
    assert {"ruler/vt/8192", "recall/recall/4096"} <= {one.key for one in summary.scores}


def test_an_item_that_is_recorded_twice_counts_once() -> None:
    twice = [*answers("recall", "recall", 4096, [1, 0]), record("recall", "recall", 4096, 1, 1.0)]
    (score,) = summarize(twice).scores
    assert (score.mean, score.count) == (0.5, 2)


def test_averages_are_those_of_the_published_formulas() -> None:
    tasks = {"vt": (45, 40, 30), "cwe": (50, 48, 20), "qa_1": (40, 39, 38)}
    of = {task: {at: share(right) for at, right in zip(LENGTHS, rights, strict=True)} for task, rights in tasks.items()}
    summary = summarize(ruler(of))
    percent = {at: 100 * sum(rights[i] for rights in tasks.values()) / 150 for i, at in enumerate(LENGTHS)}
    expected = Averages.of(percent)
    means = {score.key: 100 * score.mean for score in summary.scores}
    assert {at: means[f"ruler/average/{at}"] for at in LENGTHS} == pytest.approx(percent)
    assert means["ruler/average/0"] == pytest.approx(expected.average)
    assert means["ruler/wavg_inc/0"] == pytest.approx(expected.weighted_inc)
    assert means["ruler/wavg_dec/0"] == pytest.approx(expected.weighted_dec)
    assert means["ruler/effective_length/0"] == 100 * (expected.effective_length or 0)
    for score in summary.scores:
        assert score.low is not None and score.high is not None and score.low <= score.mean <= score.high


def test_an_average_waits_for_all_tasks_at_a_length() -> None:
    of = {"vt": {4096: share(40), 8192: share(40)}, "cwe": {4096: share(50)}}
    keys = {score.key for score in summarize(ruler(of)).scores}
    assert "ruler/average/4096" in keys
    assert not keys & {"ruler/average/8192", "ruler/average/0", "ruler/wavg_inc/0", "ruler/effective_length/0"}


def test_what_is_still_to_come_is_said_and_waited_for() -> None:
    records = ruler({"vt": {4096: share(3, 4)}})
    items = [Item("ruler", task, 4096, index) for task in ("vt", "cwe") for index in range(6)]
    summary = summarize(records, items)
    (score,) = summary.scores  # no average: nothing of cwe is known
    assert (score.count, score.expected) == (4, 6) and summary.missing == 2
    assert summarize(records).scores[0].expected is None


def test_one_question_asked_at_every_length_counts_as_one_sample() -> None:
    """`qa` asks question i at every length: where all lengths agree on it, more lengths say nothing new."""
    rng = np.random.default_rng(0)
    answered = rng.random(100) < 0.8
    alike = summarize(ruler({"qa_1": {at: answered.astype(float).tolist() for at in LENGTHS}}))
    apart = summarize(ruler({"qa_1": {at: rng.permutation(answered).astype(float).tolist() for at in LENGTHS}}))
    widths = []
    for summary in (alike, apart):
        score = summary.find("ruler/average/0")
        assert score is not None and score.high is not None and score.low is not None
        widths.append(score.high - score.low)
    single = mean_interval(answered)
    assert widths[0] == pytest.approx(single.high - single.low)
    assert widths[1] < 0.7 * widths[0]


def test_lengths_with_other_samples_are_averaged_too() -> None:
    summary = summarize(ruler({"vt": {4096: share(40), 8192: share(20, 30)}, "cwe": {4096: share(50), 8192: [1.0]}}))
    score = summary.find("ruler/wavg_inc/0")
    assert score is not None and score.mean == pytest.approx((0.9 + 2 * (20 / 30 + 1) / 2) / 3)


def test_the_effective_length_says_which_lengths_it_could_be() -> None:
    def effective(*rights: int, of: int = 500) -> tuple[float, float | None, float | None]:
        by_length = {4096 << i: share(right * of // 500, of) for i, right in enumerate(rights)}
        score = summarize(ruler({"vt": by_length})).find("ruler/effective_length/0")
        assert score is not None
        return score.mean, score.low, score.high

    assert effective(490, 480, 100) == (8192, 8192, 8192)
    assert effective(490, 431, 100) == (8192, 4096, 8192)  # 86.2% of 500 may be 85.5
    assert effective(490, 425, 420, 100) == (4096, 4096, 16384)  # 85 and 84% may be 85.7
    assert effective(300, 490, 490) == (0, 0, 0)
    assert effective(490, 490, 490) == (16384, 16384, 16384)
    assert effective(490, 490, 490, of=10) == (16384, 0, 16384)  # of ten samples nothing is certain


@pytest.mark.parametrize("truth", [(0.97, 0.856, 0.80), (0.9, 0.86, 0.85)])
def test_the_effective_length_lies_within_its_ends(truth: tuple[float, ...]) -> None:
    exact = Averages.of({at: 100 * p for at, p in zip(LENGTHS, truth, strict=True)}).effective_length
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(40):
        rights = rng.binomial(200, truth)
        records = ruler({"vt": {at: share(int(right), 200) for at, right in zip(LENGTHS, rights, strict=True)}})
        score = summarize(records).find("ruler/effective_length/0")
        assert score is not None and score.low is not None and score.high is not None and exact is not None
        inside += score.low <= exact <= score.high
    assert inside >= 37


def test_needles_are_told_by_length_and_depth() -> None:
    found = {(4096, 0.0): 10, (4096, 0.5): 4, (4096, 1.0): 9, (8192, 0.5): 0}
    records = [
        record("needles", "needles", length, 10 * place + index, index < right, depth=depth)
        for place, ((length, depth), right) in enumerate(found.items())
        for index in range(10)
    ]
    summary = summarize(records)
    assert {(cell.length, cell.depth): round(10 * cell.mean) for cell in summary.needles} == found
    assert [cell.depth for cell in summary.needles if cell.length == 4096] == [0, 0.5, 1]
    whole = summary.find("needles/needles/4096")
    assert whole is not None and whole.mean == pytest.approx(23 / 30)


def test_a_loss_is_told_by_position_over_documents() -> None:
    records = [
        record("perplexity", "books", 200, i, nats, bins=[(1, 99, 99 * (nats + 1)), (100, 101, 101 * (nats - 0.5))])
        for i, nats in enumerate((2.0, 2.2, 2.4))
    ]
    summary = summarize(records)
    begin, end = summary.positions
    assert (begin.first, begin.tokens, begin.count) == (1, 297, 3) and begin.mean == pytest.approx(3.2)
    assert (end.first, end.tokens) == (100, 303) and end.mean == pytest.approx(1.7)
    assert begin.low is not None and begin.high is not None
    assert begin.high - begin.low == pytest.approx(2 * 4.303 * 0.2 / np.sqrt(3), rel=1e-3)


def test_of_one_document_no_interval_is_known() -> None:
    summary = summarize([record("perplexity", "books", 200, 0, 2.0, bins=[(1, 199, 400.0)])])
    assert (summary.scores[0].low, summary.scores[0].high, summary.positions[0].low) == (None, None, None)
    assert Summary.model_validate_json(summary.model_dump_json()) == summary


def test_a_summary_is_what_was_written() -> None:
    records = [
        *ruler({task: {at: share(45) for at in LENGTHS} for task in ("vt", "cwe")}),
        record("needles", "needles", 4096, 0, 1.0, depth=0.1),
        record("harness", "MMLU", 0, 17, 1.0),
    ]
    summary = summarize(records, [one.item for one in records])
    assert Summary.model_validate_json(summary.model_dump_json()) == summary
    assert summary.missing == 0 and summary.find("harness/MMLU/0") is not None


def test_no_record_is_no_score() -> None:
    assert summarize([]) == Summary()
