"""Published scores: what the sources print, under the keys of ours."""

from __future__ import annotations

import pytest

from xgen.data.errors import StoreError
from xgen.evals.harness.entries import report
from xgen.evals.published import rows
from xgen.evals.ruler import Summary as Averages


def test_the_card_has_the_columns_of_the_report_for_four_models() -> None:
    card = {row.model: row.scores for row in rows() if "model card" in row.source.text}
    columns = {f"harness/{entry.name}/0" for entry in report()}
    assert list(card) == ["xGen-small-4B", "Llama-3.2-3B", "Gemma-3-4B", "Qwen2.5-3B"]
    assert all(set(scores) == columns for scores in card.values())
    assert card["xGen-small-4B"]["harness/MMLU-Pro/0"] == 0.318 and card["Qwen2.5-3B"]["harness/GSM8K/0"] == 0.591


def test_averages_of_ruler_are_those_of_the_rows() -> None:
    whole = [row for row in rows() if "ruler/average/0" in row.scores]
    assert len(whole) == 8
    for row in whole:
        by_length = {length: 100 * row.scores[f"ruler/average/{length}"] for length in (4096 << i for i in range(6))}
        averages = Averages.of(by_length)
        assert 100 * row.scores["ruler/average/0"] == pytest.approx(
            averages.average, abs=0.1
        )  # of numbers that are rounded
        for key, expected in (("wavg_inc", averages.weighted_inc), ("wavg_dec", averages.weighted_dec)):
            if (found := row.scores.get(f"ruler/{key}/0")) is not None:
                assert 100 * found == pytest.approx(expected, abs=0.1)  # of numbers that are rounded


def test_every_row_says_where_it_was_read() -> None:
    for row in rows():
        assert row.source.text and row.source.quality in "PSW"
        assert all(0 < score <= 1 for score in row.scores.values())
    assert {row.source.quality for row in rows() if row.model == "Gemma-3-4B-it"} == {"S"}


def test_rows_are_chosen_by_name_in_that_order() -> None:
    assert [row.model for row in rows(["Qwen3-8B", "xGen-small-4B"])] == ["Qwen3-8B", "xGen-small-4B"]
    with pytest.raises(StoreError, match=r"'Qwen4' is not known; write of xGen-small-4B, Llama-3\.2-3B"):
        rows(["Qwen4"])
