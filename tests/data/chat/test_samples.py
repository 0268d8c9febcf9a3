"""Samples of conversations: whole, each once an epoch, mixed by weight, the same whoever asks for them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.data.chat.made import assistant, sft, user, write_lines, write_tokenizer
from tests.data.made import web_lengths
from xgen.data import Batch, StoreError, batch_digest, samples_of
from xgen.data.chat.meta import Counts, SourceMeta
from xgen.data.chat.order import epoch_of, held_out_samples
from xgen.data.chat.prepare import chat_store, prepare
from xgen.data.chat.samples import PAD, ChatSamples, Weighted
from xgen.data.chat.store import Source
from xgen.data.chat.template import CHATML
from xgen.data.packing import pack_whole
from xgen.data.samples import IGNORE


def made_source(
    folder: Path, lengths: list[int], name: str = "a", per_record: int = 1, first: int = 0, start: int = 1
) -> Source:
    """Conversations of `lengths`; token k of the source is `start + k`, and every third is not learnt."""
    place = folder / "train" / name
    place.mkdir(parents=True)
    total = sum(lengths)
    tokens = np.arange(start, start + total, dtype="<u4")
    tokens.tofile(place / "tokens.bin")
    (tokens % 3 != 0).astype(np.uint8).tofile(place / "learn.bin")
    np.concatenate([[0], np.cumsum(lengths)]).astype("<i8").tofile(place / "offsets.bin")
    longest = max(sum(lengths[at : at + per_record]) for at in range(0, len(lengths), per_record))
    counts = Counts(records=len(lengths) // per_record, tokens=total, longest=longest)
    return Source(place, SourceMeta(split="train", name=name, counts=counts), "uint32", per_record, first)


def documents(batch: Batch) -> list[NDArray[np.int32]]:
    """The conversations of a batch, checked: positions count from 0, labels are the next token where it is learnt."""
    found = []
    for tokens, labels, positions in zip(batch.tokens, batch.labels, batch.positions, strict=True):
        starts = [*np.flatnonzero(positions == 0).tolist(), len(tokens)]
        for number, (begin, end) in enumerate(pairwise(starts)):
            own = tokens[begin:end]
            assert positions[begin:end].tolist() == list(range(end - begin))
            if own[0] == PAD:
                assert number == len(starts) - 2
                assert set(own.tolist()) == {PAD} and set(labels[begin:end].tolist()) == {IGNORE}
                continue
            expected = [*np.where(own[1:] % 3 != 0, own[1:], IGNORE).tolist(), IGNORE]
            assert labels[begin:end].tolist() == expected
            found.append(own)
    return found


def padding(samples: ChatSamples, count: int) -> float:
    return 1 - sum(samples.taken(count).values()) / (count * samples.seq_len)


@given(st.lists(st.integers(1, 16), min_size=1, max_size=60))
def test_packing_cuts_nothing_and_overfills_nothing(lengths: list[int]) -> None:
    sample, count = pack_whole(np.array(lengths, dtype=np.int64), 16)
    filled = np.bincount(sample, weights=lengths, minlength=count)
    assert len(sample) == len(lengths) and sample.min() == 0
    assert filled.min() > 0 and filled.max() <= 16
    assert count <= 2 * sum(lengths) // 16 + 1


def test_every_conversation_is_whole_and_comes_once_an_epoch(tmp_path: Path) -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(2, 200, size=700)]
    source = made_source(tmp_path, lengths)
    samples = ChatSamples([Weighted(source)], 256, 3, "origin", one_epoch=True)
    epochs = []
    for epoch in range(2):
        own = documents(samples.batch(epoch * samples.num_samples, samples.num_samples))
        assert sorted((int(d[0]), len(d)) for d in own) == [
            (int(source.tokens[begin]), length) for begin, length in zip(source.offsets, lengths, strict=False)
        ]
        epochs.append([int(d[0]) for d in own])
    assert epochs[0] != epochs[1]
    assert samples.taken(samples.num_samples) == {"a": sum(lengths)}


def test_samples_are_a_function_of_their_number(tmp_path: Path) -> None:
    sources = [made_source(tmp_path, [n % 60 + 2 for n in range(500)], name) for name in "ab"]
    parts = [Weighted(sources[0], 2), Weighted(sources[1], 1)]
    whole = ChatSamples(parts, 128, 1, "o").batch(0, 300)
    other = ChatSamples(parts, 128, 1, "o")
    for start, count in ((290, 10), (0, 7), (7, 100), (150, 1)):
        part = other.batch(start, count)
        for name in ("tokens", "labels", "positions"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)[start : start + count])
        assert batch_digest(start, part) == batch_digest(start, other.batch(start, count))
    assert not np.array_equal(ChatSamples(parts, 128, 2, "o").batch(0, 300).tokens, whole.tokens)


def test_a_fingerprint_names_what_the_order_follows_from(tmp_path: Path) -> None:
    source = made_source(tmp_path, [10] * 50)
    named = {
        ChatSamples([Weighted(source, weight)], seq_len, seed, origin).fingerprint
        for weight, seq_len, seed, origin in (
            (1, 64, 0, "o"),
            (2, 64, 0, "o"),
            (1, 32, 0, "o"),
            (1, 64, 1, "o"),
            (1, 64, 0, "p"),
        )
    }
    assert len(named) == 5


def test_sources_have_their_shares_of_tokens(tmp_path: Path) -> None:
    short = made_source(tmp_path, [10] * 3000, "short")
    long = made_source(tmp_path, [100] * 900, "long", start=1 << 20)
    samples = ChatSamples([Weighted(short, 0.3), Weighted(long, 0.7)], 1024, 0, "o")
    rounds = samples.num_samples
    for count in (rounds, rounds + 5, 3 * rounds):
        taken = samples.taken(count)
        assert taken["short"] / sum(taken.values()) == pytest.approx(0.3, abs=0.02)
        seen = Counter("long" if d[0] >= 1 << 20 else "short" for d in documents(samples.batch(0, count)) for _ in d)
        assert seen == taken


def test_padding_is_below_two_percent_at_8k_on_lengths_of_the_web(tmp_path: Path) -> None:
    lengths = [min(n, 8192) for n in web_lengths(20_000)]
    samples = ChatSamples([Weighted(made_source(tmp_path, lengths))], 8192, 0, "o")
    assert padding(samples, samples.num_samples) < 0.002


def test_a_small_source_is_packed_over_epochs(tmp_path: Path) -> None:
    """Thirty conversations of some 50 tokens fill a sample of 2,048 by three quarters."""
    samples = ChatSamples([Weighted(made_source(tmp_path, [50] * 30))], 2048, 0, "o")
    assert padding(samples, samples.num_samples) < 0.04
    seen = Counter(int(d[0]) for d in documents(samples.batch(0, samples.num_samples)))
    assert max(seen.values()) - min(seen.values()) == 0


def test_samples_of_128k_tokens(tmp_path: Path) -> None:
    lengths = [131_072, 90_000, 100, *[2000] * 300]
    samples = ChatSamples([Weighted(made_source(tmp_path, lengths))], 131_072, 0, "o", one_epoch=True)
    assert sorted(map(len, documents(samples.batch(0, samples.num_samples)))) == sorted(lengths)


def test_a_record_longer_than_seq_len_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has a record of 100 tokens, and seq_len is 64"):
        ChatSamples([Weighted(made_source(tmp_path, [100]))], 64, 0, "o")


def test_a_cap_on_epochs_is_checked_ahead_and_exactly(tmp_path: Path) -> None:
    parts = [Weighted(made_source(tmp_path, [50] * 1000), 1, max_epochs=2)]
    samples = ChatSamples(parts, 1024, 0, "o", one_epoch=True)
    samples.check_caps(2 * samples.num_samples)
    with pytest.raises(
        StoreError, match=r"data.sources.a: its 1,000 records would be seen 2\.02 times, and max_epochs is 2; w"
    ):
        samples.check_caps(2 * samples.num_samples + 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path / "tokenizer", CHATML)
    for name, count in (("a", 200), ("b", 50), ("h", 30)):
        lines = [{"messages": [user(f"{name} {n}"), assistant("fox " * (n % 5 + 1))]} for n in range(count)]
        write_lines(tmp_path / f"{name}.jsonl", lines)
    return tmp_path


def test_a_job_gives_its_samples_and_those_held_out(folder: Path) -> None:
    job = sft(folder, "validation.sources.h=h.jsonl", sources="{a: a.jsonl, b: {path: b.jsonl, weight: 3}}")
    assert prepare(job, chat_store(job))
    samples = samples_of(job)
    assert isinstance(samples, ChatSamples)
    taken = samples.taken(samples.num_samples)
    assert taken["b"] / sum(taken.values()) == pytest.approx(0.75, abs=0.05)
    [(name, held)] = held_out_samples(job).items()
    assert (name, held.taken(held.num_samples)) == (
        "h",
        epoch_of(held_store(job), "held-out", "h").taken(held.num_samples),
    )
    assert held.fingerprint != samples.fingerprint


def held_store(job: object) -> object:
    from xgen.data.chat.prepare import open_store

    return open_store(job, chat_store(job))  # type: ignore[arg-type]


def test_a_job_whose_steps_repeat_a_source_too_often_is_refused(folder: Path) -> None:
    job = sft(folder, "train.steps=1000", sources="{a: {path: a.jsonl, max_epochs: 3}}")
    assert prepare(job, chat_store(job))
    with pytest.raises(
        StoreError, match=r"data.sources.a: its 200 records would be seen .* times, and max_epochs is 3"
    ):
        samples_of(job)


def test_without_data_out_the_store_is_in_the_run(folder: Path) -> None:
    job, run = sft(folder, "data.out=null"), folder / "run"
    assert prepare(job, chat_store(job, run))
    assert (run / "chat" / "meta.json").is_file()
    assert samples_of(job, 0, run).fingerprint == samples_of(job, 1, run).fingerprint


def test_without_a_store_a_job_is_told_how_to_make_one(folder: Path) -> None:
    with pytest.raises(StoreError, match=r"is no chat store.*xgen data chat SPEC"):
        samples_of(sft(folder))
    with pytest.raises(StoreError, match=r"data.out: is missing, and there is no run"):
        samples_of(sft(folder, "data.out=null"))
