"""Perplexity by position, and the choice of documents."""

from __future__ import annotations

import json
import math
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.evals.ruler.conftest import TEXT
from tests.evals.suites.readers import ScriptedSubject, job
from xgen.data.errors import StoreError
from xgen.evals.protocol import Item, Record
from xgen.evals.suites import documents, suites_of
from xgen.evals.suites.documents import Wanted, choose
from xgen.evals.suites.perplexity import bins_of
from xgen.runs import Refused


def write(path: Path, texts: Sequence[str], **more: Any) -> Path:
    lines = "".join(json.dumps({"text": text, **more}) + "\n" for text in texts)
    path.write_bytes(zstandard.compress(lines.encode()) if path.suffix == ".zst" else lines.encode())
    return path


def texts(sizes: Sequence[int]) -> list[str]:
    """Different ones of so many characters."""
    return [f"{number} {TEXT[1000 * number :]}"[:size] for number, size in enumerate(sizes)]


def scored(tokenizer: tokenizers.Tokenizer, cache: Path, part: slice = slice(None), **of: Any) -> list[Record]:
    subject = ScriptedSubject(tokenizer)
    [suite] = suites_of(job(perplexity=of), subject, cache)
    return list(suite.score(subject, suite.items()[part], lambda: False))


def test_documents_are_scored_from_their_begin_by_position(tokenizer: tokenizers.Tokenizer, tmp_path: Path) -> None:
    long = texts([3000, 200, 4000, 5000])
    path = write(tmp_path / "held-out.jsonl.zst", long)
    whole = scored(
        tokenizer, tmp_path, books={"path": str(path), "length": 500}, short={"path": str(path), "length": 9}
    )
    assert [record.item for record in whole] == [
        *(Item("perplexity", "short", 9, index) for index in range(4)),
        *(Item("perplexity", "books", 500, index) for index in range(3)),
    ]
    ids = {tuple(tokenizer.encode(text).ids[:500]) for text in long if len(text) > 200}
    expected = {round(float(np.mean(of[:-1])) / 64, 3): of for of in ids}
    for record in whole[4:]:
        of = expected.pop(round(record.score, 3))
        assert record.tokens == 500 and record.source == str(path) and record.answer == ""
        assert [(first, tokens) for first, tokens, _ in record.bins] == [
            (0, 63), (64, 12), (76, 15), (91, 17), (108, 20), (128, 24), (152, 29), (181, 34), (215, 41), (256, 48),
            (304, 58), (362, 69), (431, 69),
        ]  # fmt: skip
        assert [nats for *_, nats in record.bins] == pytest.approx(
            [sum(of[max(first, 1) - 1 : max(first, 1) - 1 + tokens]) / 64 for first, tokens, _ in record.bins]
        )
    assert not expected
    part = scored(
        tokenizer,
        tmp_path,
        slice(5, 6),
        books={"path": str(path), "length": 500},
        short={"path": str(path), "length": 9},
    )
    assert [(one.item, one.digest, one.score) for one in part] == [
        (one.item, one.digest, one.score) for one in whole[5:6]
    ]


@given(st.integers(1, 300_000))
def test_bins_hold_every_token_once(tokens: int) -> None:
    losses = np.full(tokens, 0.5, dtype=np.float32)
    bins = bins_of(losses)
    assert sum(count for _, count, _ in bins) == tokens and all(count > 0 for _, count, _ in bins)
    assert sum(nats for *_, nats in bins) == pytest.approx(tokens / 2)
    assert [first for first, *_ in bins] == sorted({first for first, *_ in bins})
    assert len(bins) <= 2 + 4 * max(0, math.log2(max(tokens + 1, 64) / 64))


def test_the_choice_is_the_seeds_and_any_document_can_be_chosen(
    tokenizer: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    path = write(tmp_path / "held-out.jsonl", texts([2000] * 8 + [100] * 8))

    def chosen(seed: int, count: int = 2) -> list[str]:
        of = {"path": str(path), "length": 100, "documents": count, "seed": seed}
        return [record.digest for record in scored(tokenizer, tmp_path, books=of)]

    assert chosen(1) == chosen(1) and len(set(chosen(1))) == 2
    assert chosen(1, 5)[:2] == chosen(1)
    tally = Tally(digest for seed in range(40) for digest in chosen(seed))
    assert len(tally) == 8 and max(tally.values()) < 25


def test_all_are_taken_where_there_are_fewer_than_asked(tokenizer: tokenizers.Tokenizer, tmp_path: Path) -> None:
    path = write(tmp_path / "held-out.jsonl", texts([2000] * 3 + [100]))
    assert len(scored(tokenizer, tmp_path, books={"path": str(path), "length": 256, "documents": 32})) == 3


@pytest.mark.parametrize(
    ("sizes", "more", "said"),
    [
        ([900, 2000], {}, r"perplexity\.books: .*jsonl: has no document of 4096 tokens; the longest has (\d+); write "
                          r"length: \1, or name longer documents"),
        ([], {}, r"perplexity\.books: .*holds no record\); name documents with a key `text`"),
        ([900], {"text": 3}, r"no document can be read \(.*line 1: has 'text' that is not text"),
    ],
)  # fmt: skip
def test_a_length_that_no_document_has_is_refused(
    tokenizer: tokenizers.Tokenizer, tmp_path: Path, sizes: list[int], more: dict[str, Any], said: str
) -> None:
    path = tmp_path / "held-out.jsonl"
    path.write_text("".join(json.dumps({"text": text, **more}) + "\n" for text in texts(sizes)))
    with pytest.raises(Refused, match=said):
        scored(tokenizer, tmp_path, books={"path": str(path), "length": 4096})


def test_reading_ends_once_there_are_enough(
    tokenizer: tokenizers.Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = documents._records

    def counted(*arguments: Any) -> Iterator[Any]:
        for place, record in whole(*arguments):
            read.append(place)
            yield place, record

    monkeypatch.setattr(documents, "_records", counted)
    monkeypatch.setattr(documents, "_ENOUGH", 100_000)
    path = write(tmp_path / "held-out.jsonl", texts([1000] * 400))

    def first_tokens(text: str, count: int) -> list[int]:
        ids: list[int] = tokenizer.encode(text).ids[:count]
        return ids

    assert choose(Wanted(str(path), 64, 4, 0), first_tokens).shape == (4, 64)
    assert len(read) == 100  # a hundred thousand bytes
    with pytest.raises(StoreError):
        choose(Wanted(str(path), 1024, 4, 0), first_tokens)
    assert len(read) == 100 + 400  # all of it, for there were not enough


def test_only_the_begin_of_a_long_document_is_encoded(
    tokenizer: tokenizers.Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xgen.evals.suites.prompts import Prompts

    prompts = Prompts(tokenizer, None, tmp_path, begins=False)
    asked: list[int] = []
    encode = prompts.counter.encode

    def noting(text: str) -> list[int]:
        asked.append(len(text))
        return encode(text)

    monkeypatch.setattr(prompts.counter, "encode", noting)
    text = TEXT[:400_000]
    for count in (100, 1000, 10_000):
        assert prompts.first_tokens(text, count) == tokenizer.encode(text).ids[:count]
    assert max(asked) <= 100_000
    assert prompts.first_tokens("one two", 100) == tokenizer.encode("one two").ids
