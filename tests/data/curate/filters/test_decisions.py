"""The filters decide as datatrove 0.10.1, on texts of which decisions.json.gz has its answers (oracle.py)."""

import gzip
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.data.curate.filters.oracle import FILE, digest
from xgen.data.curate.filters.c4 import C4Filter
from xgen.data.curate.filters.chain import open_filters, run
from xgen.data.curate.filters.fineweb import FineWebFilter
from xgen.data.curate.filters.gopher import GopherQualityFilter
from xgen.data.curate.filters.repetition import GopherRepetitionFilter
from xgen.data.curate.filters.thresholds import C4, FINEWEB
from xgen.data.curate.filters.trace import Batch, Filter
from xgen.data.curate.texts import Texts

FILTERS: dict[str, Filter] = {
    "gopher_repetition": GopherRepetitionFilter(),
    "gopher_quality": GopherQualityFilter(),
    "c4": C4Filter(),
    "c4_any_ending": C4Filter(C4(terminal_punctuation=False)),
    "fineweb": FineWebFilter(),
}
# Our rule for each of its reasons.
RULES = {
    "": "",
    "empty": "empty",
    "dup_para_frac": "max_duplicate_paragraphs",
    "dup_para_char_frac": "max_duplicate_paragraph_chars",
    "dup_line_frac": "max_duplicate_lines",
    "dup_line_char_frac": "max_duplicate_line_chars",
    **{f"top_{n}_gram": f"max_top_{n}_gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"max_duplicate_{n}_grams" for n in range(5, 11)},
    "gopher_short_doc": "min_words",
    "gopher_long_doc": "max_words",
    "gopher_below_avg_threshold": "min_mean_word_length",
    "gopher_above_avg_threshold": "max_mean_word_length",
    "gopher_too_many_hashes": "max_hashes_per_word",
    "gopher_too_many_ellipsis": "max_ellipses_per_word",
    "gopher_too_many_bullets": "max_bullet_lines",
    "gopher_too_many_end_ellipsis": "max_ellipsis_lines",
    "gopher_below_alpha_threshold": "min_letter_words",
    "gopher_enough_stop_words": "min_stop_words",
    "lorem_ipsum": "lorem_ipsum",
    "curly_bracket": "curly_brackets",
    "too_few_sentences": "min_sentences",
    "line_punct_ratio": "min_terminal_lines",
    "short_line_ratio": "max_short_lines",
    "char_dup_ratio": "max_duplicate_line_chars",
    "list_ratio": "max_new_lines_per_word",
}


@pytest.fixture(scope="module")
def decisions() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(gzip.decompress(FILE.read_bytes()))
    return rows


@pytest.fixture(scope="module")
def batch(decisions: list[dict[str, Any]]) -> Batch:
    return Batch(Texts.of([row["text"] for row in decisions]))


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_decides_as_datatrove_and_for_the_same_reason(
    name: str, decisions: list[dict[str, Any]], batch: Batch
) -> None:
    trace = FILTERS[name].check(batch)
    ours = ["" if number < 0 else trace.rules[number].name for number in trace.dropped_by]
    theirs = [RULES[row[name]] for row in decisions]
    assert min(Counter(bool(reason) for reason in theirs).values()) >= 35  # both are there to be told apart
    # Of the two signs that drop a document C4 names the one that comes first in the text, we always lorem ipsum.
    both = {"lorem_ipsum", "curly_brackets"}
    assert [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1] and set(pair) != both] == []


def test_c4_leaves_the_text_that_datatrove_leaves(decisions: list[dict[str, Any]], batch: Batch) -> None:
    changed = FILTERS["c4_any_ending"].check(batch).changed
    assert changed is not None
    kept = [number for number, row in enumerate(decisions) if not row["c4_any_ending"]]
    assert [digest(changed.texts[number]) for number in kept] == [decisions[number]["left"] for number in kept]
    assert sum(changed.texts[number] != decisions[number]["text"] for number in kept) > 100


def test_the_chain_decides_as_datatrove_and_names_the_filter(decisions: list[dict[str, Any]], batch: Batch) -> None:
    chain = open_filters(FINEWEB)
    passage = run(chain, batch)
    ours = ["" if number < 0 else passage.reasons[number] for number in passage.reason]
    theirs = []
    for row in decisions:
        name, _, reason = row["chain"].partition(".")
        theirs.append(name and f"{name.removesuffix('_any_ending')}.{RULES[reason]}")
    assert ours == theirs
    alone = [run(chain, Batch(Texts.of([row["text"]]))) for row in decisions if not row["chain"]]
    assert passage.texts.to_strings() == [one.texts[0] for one in alone]
    assert np.flatnonzero(passage.kept).tolist() == [n for n, row in enumerate(decisions) if not row["chain"]]
