"""Frequent lines: counted the same however the corpus is split, and cut without a trace."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xgen.data.curate.lines import LineRule, count_lines, frequent, merge_counts, remove_lines
from xgen.data.curate.texts import Texts

line = st.sampled_from(["a b", "A, b!", "c d e", "f", "", "  ", "x y z w"])
documents = st.lists(st.lists(line, max_size=6).map("\n".join), max_size=12)


def pieces(string: str, paragraphs: bool) -> list[str]:
    """Lines or paragraphs with what ends them."""
    found = re.findall(r"[^\n]*\n|[^\n]+", string)
    if not paragraphs:
        return found
    joined: list[str] = []
    for number, piece in enumerate(found):
        if number == 0 or (piece.strip() and not found[number - 1].strip() and number - 1 > 0):
            joined.append(piece)
        else:
            joined[-1] += piece
    return joined


def words(string: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", string.lower()))


@given(documents, st.integers(1, 3), st.integers(1, 3), st.sampled_from(["line", "paragraph"]))
def test_frequent_lines_go_and_the_rest_stays_to_the_byte(
    strings: list[str], min_words: int, most: int, unit: str
) -> None:
    rule = LineRule(unit, min_words, most)  # type: ignore[arg-type]
    texts, paragraphs = Texts.of(strings), unit == "paragraph"
    found = remove_lines(texts, frequent(count_lines(texts, rule), rule), rule)
    counts = Counter(key for string in strings for key in {words(piece) for piece in pieces(string, paragraphs)})
    gone = {key for key, count in counts.items() if count > most and len(key) >= min_words}
    kept = [[piece for piece in pieces(string, paragraphs) if words(piece) not in gone] for string in strings]
    assert found.texts.to_strings() == ["".join(part) for part in kept]
    lengths = [len(pieces(string, paragraphs)) - len(part) for string, part in zip(strings, kept, strict=True)]
    assert found.num_lines.tolist() == lengths
    assert (found.num_bytes == np.diff(texts.offsets) - np.diff(found.texts.offsets)).all()


@given(documents, st.integers(0, 12), st.sampled_from([1 << 60, 1 << 63]))
def test_parts_and_buckets_count_as_the_whole_does(strings: list[str], split: int, middle: int) -> None:
    rule = LineRule(min_words=1, max_documents=1)
    whole = count_lines(Texts.of(strings), rule)
    parts = [count_lines(Texts.of(part), rule) for part in (strings[split:], strings[:split])]
    merged = merge_counts(parts)
    assert merged.hashes.tolist() == whole.hashes.tolist() == sorted(set(whole.hashes.tolist()))
    assert merged.num_documents.tolist() == whole.num_documents.tolist()
    low = merge_counts([part.within(0, middle) for part in parts])
    high = merge_counts([part.within(middle, 1 << 64) for part in parts])
    together = np.concatenate([frequent(low, rule).hashes, frequent(high, rule).hashes])
    assert together.tolist() == frequent(whole, rule).hashes.tolist()
