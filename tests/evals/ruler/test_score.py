"""Published scores, from the published averages by length."""

from __future__ import annotations

import pytest

from xgen.evals.ruler import LENGTHS, Summary, by_length, score


@pytest.mark.parametrize(
    ("published", "average", "inc", "dec", "effective"),
    [  # README of NVIDIA/RULER, 4k to 128k: Jamba-1.5-large, GPT-4-1106-preview, Llama3.1-8B
        ((96.7, 96.6, 96.4, 96.0, 95.4, 95.1), 96.0, 95.7, 96.3, 131072),
        ((96.6, 96.3, 95.2, 93.2, 87.0, 81.2), 91.6, 89.0, 94.1, 65536),
        ((95.5, 93.8, 91.6, 87.4, 84.7, 77.0), 88.3, 85.4, 91.3, 32768),
    ],
)
def test_averages_are_the_published_ones(
    published: tuple[float, ...], average: float, inc: float, dec: float, effective: int
) -> None:
    summary = Summary.of(dict(zip(LENGTHS, published, strict=False)))
    assert summary.average == pytest.approx(average, abs=0.06)
    assert summary.weighted_inc == pytest.approx(inc, abs=0.06)
    assert summary.weighted_dec == pytest.approx(dec, abs=0.06)
    assert summary.effective_length == effective


def test_effective_length_ends_at_the_first_length_below_the_threshold() -> None:
    assert Summary.of({4096: 80.0, 8192: 99.0}).effective_length is None
    assert Summary.of({8192: 80.0, 4096: 85.6, 16384: 99.0}).effective_length == 4096


def test_all_counts_each_answer_and_part_any_answer() -> None:
    assert (
        score("niah_multivalue", "They are 1234567, and 7654321.", ("1234567", "7654321", "1111111", "2222222")) == 0.5
    )
    assert score("cwe", "1. Apple\x00 2. pear", ("apple", "pear")) == 1.0
    assert score("qa_1", "in the\nNorth", ("north", "the north pole")) == 1.0
    assert score("qa_2", "south", ("north",)) == 0.0


def test_every_task_counts_the_same() -> None:
    scores = {("vt", 4096): [1.0] * 10, ("cwe", 4096): [0.0], ("vt", 8192): [0.5], ("cwe", 8192): [0.5, 1.0]}
    assert by_length(scores) == {4096: 50.0, 8192: 62.5}
    with pytest.raises(ValueError, match="no score of vt at 8192"):
        by_length({key: values for key, values in scores.items() if key != ("vt", 8192)})
