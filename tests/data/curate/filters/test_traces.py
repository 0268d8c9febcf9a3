import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from xgen.data.curate.filters.c4 import C4Filter
from xgen.data.curate.filters.chain import open_filters, run
from xgen.data.curate.filters.fineweb import FineWebFilter
from xgen.data.curate.filters.gopher import GopherQualityFilter
from xgen.data.curate.filters.repetition import GopherRepetitionFilter
from xgen.data.curate.filters.thresholds import (
    C4,
    FINEWEB,
    GopherQuality,
    GopherRepetition,
    Lines,
    Pii,
    Thresholds,
    Urls,
)
from xgen.data.curate.filters.trace import KEPT, Batch, Trace
from xgen.data.curate.texts import Texts

PROSE = (
    "The river was low that year, and the people of the town had walked out to the stones to look at the old bridge. "
    "It had fallen long before any of them were born.\n"
    "Some said that it would be built again; others, who knew what stone costs, only laughed and went home.\n"
    "In the evening a wind came up from the sea. Nobody spoke of the bridge after that, but everyone thought of it.\n"
)


def check(filter_: GopherQualityFilter | GopherRepetitionFilter | C4Filter | FineWebFilter, *texts: str) -> Trace:
    return filter_.check(Batch(Texts.of(texts)))


def test_prose_passes_everything() -> None:
    filters = [GopherRepetitionFilter(), GopherQualityFilter(), C4Filter(), FineWebFilter()]
    passage = run(filters, Batch(Texts.of([PROSE])))
    assert passage.kept.all()
    assert passage.why(0) == ""
    assert passage.texts[0] == PROSE.strip()


def test_the_reason_names_rule_value_and_bound() -> None:
    trace = check(GopherQualityFilter(), "the end of it", PROSE)
    assert trace.reason(0) == "gopher_quality.min_words: words = 4 < 50"
    assert trace.reason(1) == ""
    assert trace.kept.tolist() == [False, True]


def test_a_value_on_its_bound_stays_and_one_beyond_goes() -> None:
    words = int(check(GopherQualityFilter(), PROSE).measures["words"][0])
    assert check(GopherQualityFilter(GopherQuality(min_words=words, max_words=words)), PROSE).kept.all()
    assert not check(GopherQualityFilter(GopherQuality(min_words=words + 1)), PROSE).kept.any()
    assert not check(GopherQualityFilter(GopherQuality(max_words=words - 1)), PROSE).kept.any()


def test_a_rule_that_is_none_drops_nothing_and_is_not_listed() -> None:
    trace = check(GopherQualityFilter(GopherQuality(min_words=None, min_mean_word_length=None)), "the be of it")
    assert "min_words" not in [rule.name for rule in trace.rules]
    assert trace.kept.all()


def test_the_stop_words_are_those_that_the_thresholds_name() -> None:
    german = "Der Fluss war in diesem Jahr niedrig und die Leute aus der Stadt liefen zu den Steinen. " * 4
    assert check(GopherQualityFilter(), german).reason(0).startswith("gopher_quality.min_stop_words: stop_words = 0")
    assert check(GopherQualityFilter(GopherQuality(stop_words=("und", "die"))), german).kept.all()


def test_repetition_measures_are_shares_of_characters() -> None:
    trace = check(GopherRepetitionFilter(), "a b c d e a b c d e", "x\n\nx\n\ny", "one two", "")
    assert trace.measures["duplicate_5_grams"][0] == 5 / 19
    assert trace.measures["top_2_gram"][0] == 2 * 3 / 19  # "a b", the first of those that come twice
    assert trace.measures["duplicate_paragraphs"][1] == 1 / 3
    assert trace.measures["duplicate_paragraph_chars"][1] == 1 / 7
    assert trace.measures["top_2_gram"][2] == 1  # a pair that comes once counts
    assert trace.measures["top_3_gram"][2] == 0
    assert trace.reason(3) == "gopher_repetition.empty: chars = 0 < 1"


def test_n_grams_that_are_spelled_the_same_are_the_same() -> None:
    """datatrove compares runs of words written without spaces."""
    trace = check(GopherRepetitionFilter(), "ab c d e f , a bc d e f , ab c d e f")
    assert trace.measures["duplicate_5_grams"][0] > 0.3


def test_c4_cuts_lines_and_counts_why() -> None:
    menu = (
        "Short one.\nThis line ends without a stop\nPlease enable JavaScript to go on.\nWe use cookies here, friend.\n"
    )
    text = PROSE + menu
    trace = check(C4Filter(), text, "A line with a { in it is code.", "Lorem ipsum is what this is.")
    assert trace.changed is not None
    assert trace.changed.texts[0] == PROSE.strip()
    counted = {name: values[0] for name, values in trace.measures.items()}
    assert counted == {
        "lines": 7, "cut_long_word": 0, "cut_no_terminal_punctuation": 1, "cut_few_words": 1, "lorem_ipsum": 0,
        "cut_javascript": 1, "curly_brackets": 0, "cut_policy": 1, "sentences": 5,
    }  # fmt: skip
    assert trace.reason(1) == "c4.curly_brackets: curly_brackets = 1 > 0"
    assert trace.reason(2) == "c4.lorem_ipsum: lorem_ipsum = 1 > 0"


def test_c4_keeps_what_its_switches_allow() -> None:
    text = "No stop at the end [1][edit]\nuse cookies {x} javascript lorem ipsum\nw"
    everything = C4(
        terminal_punctuation=False, min_words_per_line=None, citations=False, javascript=False, policies=False,
        lorem_ipsum=False, curly_brackets=False, min_sentences=None,
    )  # fmt: skip
    trace = check(C4Filter(everything), text)
    assert trace.changed is not None
    assert trace.changed.texts[0] == text
    assert trace.kept.all()


def test_later_filters_see_the_text_that_earlier_ones_left() -> None:
    menu = "\n".join(f"Home {number}" for number in range(40))
    passage = run([C4Filter(), FineWebFilter()], Batch(Texts.of([f"{PROSE}{menu}", menu])))
    assert passage.kept.tolist() == [True, False]
    assert passage.why(1).startswith("c4.min_sentences: sentences = 0 < 5")
    assert passage.measures["fineweb.lines"][0] == 3
    assert math.isnan(passage.measures["fineweb.lines"][1])
    assert passage.reason.tolist() == [KEPT, passage.reasons.index("c4.min_sentences")]


def test_a_result_does_not_depend_on_the_batch() -> None:
    texts = [PROSE, "", PROSE * 3, "x", PROSE.replace(". ", ".\n- "), "\n\n", PROSE.upper()]
    filters = [GopherRepetitionFilter(), GopherQualityFilter(), C4Filter(), FineWebFilter()]
    together = run(filters, Batch(Texts.of(texts)))
    for number, text in enumerate(texts):
        alone = run(filters, Batch(Texts.of([text])))
        assert alone.why(0) == together.why(number)
        for name, values in alone.measures.items():
            np.testing.assert_equal(values[0], together.measures[name][number])


ALL: tuple[Thresholds, ...] = (Urls(), Lines(), Pii(), *FINEWEB)


def test_an_empty_batch_passes() -> None:
    assert len(run(open_filters(ALL), Batch(Texts.of([]))).texts) == 0


def test_each_filter_has_a_name_of_its_own_that_its_reasons_carry() -> None:
    filters = open_filters(ALL)
    names = [each.name for each in filters]
    assert sorted(set(names)) == sorted(names)
    passage = run(filters, Batch(Texts.of([PROSE])))
    assert {reason.split(".")[0] for reason in passage.reasons} <= set(names)
    assert {measure.split(".")[0] for measure in passage.measures} == set(names)


@given(st.lists(st.binary(max_size=40), max_size=5))
@settings(deadline=None)
def test_bytes_that_are_no_text_break_nothing(documents: list[bytes]) -> None:
    passage = run(open_filters((Pii(), C4(min_sentences=None, min_words_per_line=None))), Batch(Texts.of(documents)))
    assert len(passage.kept) == len(documents)


def test_urls_stay_with_their_documents() -> None:
    batch = Batch(Texts.of(["a", "b", "c"]), ["1", "2", "3"]).take(np.array([True, False, True]))
    assert (batch.texts.to_strings(), batch.urls) == (["a", "c"], ["1", "3"])


def test_thresholds_are_read_and_checked_by_pydantic() -> None:
    assert TypeAdapter(GopherRepetition).validate_python({"max_top_2_gram": None}).max_top_2_gram is None
    with pytest.raises(ValidationError):
        TypeAdapter(GopherRepetition).validate_python({"max_top_2_gram": 1.5})
